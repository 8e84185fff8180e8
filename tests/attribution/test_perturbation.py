"""Methods that cover parts of images: closed forms, published values, scikit-learn, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import linear_model

from tests.attribution import models
from vexplain import attribution
from vexplain.attribution import Partition, superpixels
from vexplain.streaming.devices import data_mesh

GENERATOR = np.random.default_rng(0)
WHOLE = lambda outputs, targets: outputs  # noqa: E731
EXACT = {"rtol": 1e-10, "atol": 1e-10}
PAIR = [[0, 0, 1]]  # the first two of three pixels are one feature


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def explained(method, apply, variables, images, *cases, **options):
    """Maps inside a caller's jit, where images of any range are explained; (batch, pixels).

    Of several cases of options a list, from one program.
    """
    if method.__name__ not in ("feature_ablation", "exact_shapley", "occlusion"):
        options = {"key": jax.random.key(0)} | options

    @jax.jit
    def maps(variables, images):
        return [method(apply, variables, images, 0, **options, **case) for case in cases or [{}]]

    found = [m.reshape(len(images), -1) for m in maps(variables, jnp.asarray(images))]
    assert all(m.dtype == jnp.float64 for m in found)
    return found if cases else found[0]


def multi_layer(method, *cases, **options):
    """Of Captum's model B for the image (20, 50, 30), a row a case."""
    images = np.array([20.0, 50, 30]).reshape(1, 1, 3, 1)
    return np.concatenate(explained(method, *models.multi_layer(), images, *cases, **options))


def product_and_sum(variables, images):
    a, b, c, d = images[:, 0, :, 0].T
    return a * b * c + 2 * d


# ------------------------------------------------------------------------ values that others published


CASES = ({"features": "pixel"}, {"features": PAIR}, {"features": PAIR, "baseline": 4.0})


def test_feature_ablation_of_captum():
    """Its test of features of one pixel, of two, and of another baseline."""
    found = multi_layer(attribution.feature_ablation, *CASES)
    np.testing.assert_allclose(found, [(80, 200, 120), (280, 280, 120), (248, 248, 104)], **EXACT)


@pytest.mark.parametrize("method", [attribution.exact_shapley, attribution.kernel_shap])
def test_shapley_values_of_captum_case_16(method):
    found = multi_layer(method, *CASES)
    expected = [(230 / 3, 590 / 3, 350 / 3), (275, 275, 115), (248, 248, 104)]
    np.testing.assert_allclose(found, expected, **EXACT)


def test_lime_of_captum_case_17():
    """Its samples are drawn, and its own test allows 1."""
    lasso = {"penalty": "lasso", "kernel_width": 10.0}
    plain = {"features": "pixel", "kernel_width": None, "alpha": 0.0}
    found = multi_layer(attribution.lime, CASES[0] | lasso, plain)
    np.testing.assert_allclose(found[0], (73.3716, 193.3349, 113.3349), atol=1)
    np.testing.assert_allclose(found[1], (77.5, 197.5, 117.5), **EXACT)


# ------------------------------------------------------------------------------------- closed forms


@pytest.mark.parametrize("method", [attribution.exact_shapley, attribution.kernel_shap])
def test_shapley_values_of_a_product_and_a_sum(method):
    images = np.array([1.0, 2, 3, 5]).reshape(1, 1, 4, 1)
    found = explained(method, product_and_sum, None, images, features="pixel", score=WHOLE)
    np.testing.assert_allclose(found, [(2, 2, 2, 10)], **EXACT)


SAMPLED = {
    "kernel_shap": {"num_masks": 24},
    "lime": {"num_masks": 40, "alpha": 0.0},
    "shapley_sampling": {"num_permutations": 1},
    "feature_ablation": {},
}


@pytest.mark.parametrize("name", SAMPLED)
def test_the_attributions_of_a_linear_score_are_what_its_features_add(name):
    """From as few samples as there may be; an image whose features are its own among them."""
    images, weights = GENERATOR.uniform(size=(2, 4, 5, 3)), GENERATOR.normal(size=(4, 5, 3))
    baseline = np.array([0.1, 0.5, 0.9])
    labels = np.stack([GENERATOR.permutation(20) % 7 for _ in range(2)]).reshape(2, 4, 5)
    apply = lambda v, x: (x * v).sum((1, 2, 3))  # noqa: E731
    options = {"features": labels, "baseline": baseline, "score": WHOLE} | SAMPLED[name]
    found = explained(getattr(attribution, name), apply, weights, images, **options)
    added = ((images - baseline) * weights).sum(-1)
    expected = [
        [a[row == label].sum() for label in row.ravel()] for a, row in zip(added, labels, strict=True)
    ]
    np.testing.assert_allclose(found, expected, **EXACT)


def test_channels_and_single_values_are_features_too():
    images, weights = GENERATOR.uniform(size=(2, 4, 5, 3)), GENERATOR.normal(size=(4, 5, 3))
    apply = lambda v, x: (x * v).sum((1, 2, 3))  # noqa: E731
    cases = ({"features": "channel"}, {"features": np.arange(60).reshape(1, 4, 5, 3)})
    found = explained(attribution.feature_ablation, apply, weights, images, *cases, score=WHOLE)
    added = images * weights
    sums = np.broadcast_to(added.sum((1, 2), keepdims=True), added.shape)
    np.testing.assert_allclose(found, [sums.reshape(2, -1), added.reshape(2, -1)], **EXACT)


def test_samples_approach_the_shapley_values():
    """A product of two gives each a half, one of three, which the second image has, a third."""
    images = np.broadcast_to(GENERATOR.uniform(size=(2, 3, 1)), (2, 2, 3, 1))
    pairs, has_three, values = GENERATOR.normal(size=(6, 6)), jnp.array([0.0, 1.0]), images[0].ravel()

    def apply(pairs, images):
        x = images.reshape(-1, 6)
        return jnp.einsum("bi,ij,bj->b", x, pairs, x), x[:, :3].prod(1)

    of_two = ((pairs + pairs.T) * np.outer(values, values) / 2).sum(1)
    exact = np.stack([of_two, of_two + np.where(np.arange(6) < 3, values[:3].prod() / 3, 0)])
    options = {"features": "pixel", "score": lambda outputs, targets: outputs[0] + outputs[1] * has_three}
    given = (apply, pairs, images)
    found = explained(attribution.exact_shapley, *given, **options)
    np.testing.assert_allclose(found, exact, **EXACT)
    sampled = explained(attribution.shapley_sampling, *given, num_permutations=400, **options)
    regressed = explained(attribution.kernel_shap, *given, num_masks=60, **options)
    for found in (sampled, regressed):
        np.testing.assert_allclose(found, exact, atol=0.1)
        np.testing.assert_allclose(found.sum(1), exact.sum(1), **EXACT)
    np.testing.assert_allclose(regressed[0], exact[0], **EXACT)  # of pairs of complements products of two
    assert abs(regressed[1] - exact[1]).max() > 1e-6


@pytest.mark.parametrize("penalty", ["ridge", "lasso"])
def test_lime_is_the_regression_of_scikit_learn(penalty):
    images = np.array([20.0, 50, 30]).reshape(1, 1, 3, 1)
    apply, variables = models.multi_layer()
    kept = (np.arange(8)[:, None] >> np.arange(3)) % 2
    scores = np.asarray(apply(variables, jnp.asarray(kept.reshape(8, 1, 3, 1) * images)))[:, 0]
    weights = np.exp(-((1 - np.sqrt(kept.mean(1))) ** 2) / (2 * 0.3**2))
    model = linear_model.Ridge(alpha=2.0) if penalty == "ridge" else linear_model.Lasso(alpha=2.0, tol=1e-12)
    model.fit(kept, scores, sample_weight=weights)
    options = {"features": "pixel", "penalty": penalty, "alpha": 2.0, "kernel_width": 0.3}
    np.testing.assert_allclose(multi_layer(attribution.lime, options)[0], model.coef_, rtol=1e-8)


def test_expected_gradients_of_a_square_are_exact():
    images, baselines = GENERATOR.uniform(size=(2, 3, 2, 1)), GENERATOR.uniform(size=(5, 3, 2, 1))
    apply = lambda v, x: (x**2).sum((1, 2, 3))  # noqa: E731
    given, score = (attribution.expected_gradients, apply, None, images), {"score": WHOLE}
    expected = (images**2 - (baselines**2).mean(0)).reshape(2, 6)
    found = explained(*given, baselines=baselines, num_samples=20, **score)  # each baseline in two pairs
    np.testing.assert_allclose(found, expected, **EXACT)
    found = explained(*given, num_samples=2000, **score)  # of noise, E[b²] = 1/3 and its variance is 4/45
    errors = np.abs(found - images.reshape(2, 6) ** 2 + 1 / 3) / np.sqrt(4 / 45 / 1000)
    assert errors.max() < 4
    assert errors.max() > 0.1


def test_rise_is_unbiased():
    """Of a linear score, p S(i) = Σ_j w_j E[M_i M_j], with E[M_i M_j] = p² + p (1 - p) K_ij of the grid's
    cells; the mean over many images is compared with it in units of its own standard error."""
    size, cells, p = (7, 5), (3, 2), 0.3
    weights = GENERATOR.normal(size=size)

    def overlaps(length, cells):
        """Mean over the shifts of how much two pixels share of a cell."""
        pixels = -(-length // cells)
        found = np.zeros((length, length))
        for shift in range(pixels):
            centers = (np.arange(length) + shift + 0.5) * cells / ((cells + 1) * pixels) - 0.5
            parts = np.stack([np.interp(centers, np.arange(cells), row) for row in np.eye(cells)], 1)
            found += parts @ parts.T / pixels
        return found

    shared = np.einsum("ik,jl,kl->ij", overlaps(size[0], cells[0]), overlaps(size[1], cells[1]), weights)
    expected = p * weights.sum() + (1 - p) * shared
    options = {"num_masks": 100, "cells": cells, "keep_probability": p, "score": WHOLE}
    apply = lambda v, x: (x[..., 0] * v).sum((1, 2))  # noqa: E731
    found = explained(attribution.rise, apply, weights, np.ones((400, *size, 1)), **options)
    errors = (found.mean(0) - expected.ravel()) / (found.std(0) / np.sqrt(len(found)))
    assert np.abs(errors).max() < 4
    assert np.std(errors) > 0.2


# ---------------------------------------------------------------------------------- engine and features


def test_how_many_are_covered_at_once_changes_nothing():
    images, weights = GENERATOR.uniform(size=(2, 5, 4, 3)), GENERATOR.normal(size=(3, 4))
    given = (lambda v, x: jnp.tanh(x @ v).mean((1, 2)), weights, images)
    found = explained(attribution.rise, *given, {}, {"num_at_once": 3}, num_masks=7)
    np.testing.assert_allclose(found[0], found[1], **EXACT)


def test_features_of_every_form_are_the_same():
    images, weights = GENERATOR.uniform(size=(2, 4, 6, 3)), GENERATOR.normal(size=(4, 6, 3))
    labels = np.repeat(np.repeat([[5, 7, 8], [-1, 2, 3]], 2, 0), 2, 1)
    counted = np.repeat(np.repeat([[0, 1, 2], [3, 4, 5]], 2, 0), 2, 1)
    forms = [(2, 3), labels, labels.tolist(), np.stack([labels, labels])]
    forms += [labels[None, :, :, None], Partition(counted, 6), lambda images: Partition(counted, 6)]
    given = (lambda v, x: (x * v).sum((1, 2, 3)), weights, images)
    cases = [{"features": features} for features in forms]
    maps = explained(attribution.feature_ablation, *given, *cases, score=WHOLE)
    for found in maps[1:]:
        np.testing.assert_allclose(found, maps[0], **EXACT)
    found = attribution.feature_ablation(*given, features=labels, score=WHOLE)
    np.testing.assert_allclose(found.reshape(2, -1), maps[0], **EXACT)


def test_superpixels_are_regions_of_one_color():
    """Four colors with borders beside the grid; with much weight of distance the grid itself."""
    rows, columns = np.arange(16)[:, None] > 9, np.arange(20) > 7 + np.arange(16)[:, None] % 2
    regions = 2 * rows + columns
    image = np.array([[0.1, 0.2, 0.9], [0.8, 0.1, 0.1], [0.1, 0.9, 0.1], [0.9, 0.9, 0.8]])[regions]
    settings = ({"count": 4}, {"count": 4, "compactness": 100.0}, {})
    found, regular, many = jax.jit(lambda x: [superpixels(x, **given) for given in settings])(image[None])
    assert found.count == 4
    np.testing.assert_array_equal(found.labels[0], regions)
    grid = (np.arange(16)[:, None] // 8) * 2 + np.arange(20) // 10
    np.testing.assert_array_equal(regular.labels[0], grid)
    assert many.count == 48
    assert all(len(np.unique(regions[many.labels[0] == n])) == 1 for n in np.unique(many.labels))


def test_images_with_superpixels_stay_on_their_devices():
    apply = lambda v, x: x.mean((1, 2)) @ v  # noqa: E731
    maps = jax.jit(lambda v, x: attribution.feature_ablation(apply, v, x, 0, features="superpixel"))
    images = GENERATOR.uniform(size=(8, 9, 11, 3)).astype(np.float32)
    mesh = data_mesh()
    split, whole = jax.NamedSharding(mesh, jax.P("data")), jax.NamedSharding(mesh, jax.P())
    given = jax.device_put(np.ones((3, 2), np.float32), whole), jax.device_put(images, split)
    program = maps.lower(*given).compile()
    assert not [word for word in ("all-gather", "all-reduce", "all-to-all") if word in program.as_text()]
    single = attribution.feature_ablation(apply, np.ones((3, 2)), images[5:6], 0, features="superpixel")
    np.testing.assert_allclose(program(*given)[5:6], single, rtol=1e-5, atol=1e-6)


_MANY = np.arange(17 * 2).reshape(17, 2) % 17


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("feature_ablation", {"features": (3, 20)}, r"features is \(3, 20\): .*at most the size.*\(17, 2\)"),
        ("feature_ablation", {"features": 0}, "features is 0: expected rows and columns"),
        ("feature_ablation", {"features": "patch"}, "features is 'patch': expected \"pixel\""),
        ("feature_ablation", {"features": _MANY / 2}, "features has dtype float64: expected integers"),
        ("feature_ablation", {"features": _MANY[:5]}, r"features has shape \(5, 2\): expected labels"),
        ("feature_ablation", {"features": Partition(_MANY, 9)}, "labels from 0 to 16: expected from 0 to 8"),
        ("feature_ablation", {"features": lambda x: x}, "features returned a .*: expected a .*Partition"),
        ("feature_ablation", {"num_at_once": 0, "features": 2}, "num_at_once is 0: expected at least 1"),
        ("exact_shapley", {"features": _MANY}, r"features are 17, .* 2\^17 .*at most 16; .*kernel_shap"),
        ("kernel_shap", {"features": _MANY, "num_masks": 33}, "num_masks is 33: expected at least 34 for 17"),
        ("kernel_shap", {"features": lambda x: Partition(_MANY, 3000)}, "features are 3000: .*at most 2048"),
        ("shapley_sampling", {"features": 2, "num_permutations": 0}, "num_permutations is 0"),
        ("lime", {"num_masks": 0}, "num_masks is 0: expected at least 1"),
        ("lime", {"penalty": "elastic"}, "penalty is 'elastic': expected one of"),
        ("lime", {"alpha": -1.0}, "alpha is -1.0: expected"),
        ("lime", {"kernel_width": 0.0}, "kernel_width is 0.0: expected"),
        ("rise", {"num_masks": 0}, "num_masks is 0"),
        ("rise", {"cells": (2, 0)}, r"cells is \(2, 0\): expected a positive"),
        ("rise", {"keep_probability": 1.0}, "keep_probability is 1.0: expected a number between 0 and 1"),
        ("expected_gradients", {"num_samples": 0}, "num_samples is 0: expected 1 or more"),
        (
            "expected_gradients",
            {"baselines": np.ones((3, 2, 2))},
            r"baselines has shape \(3, 2, 2\): expected",
        ),
    ],
)
def test_what_cannot_be_done_raises(name, options, message):
    apply = lambda v, x: x.mean((1, 2))  # noqa: E731
    options = (
        options if name in ("feature_ablation", "exact_shapley") else {"key": jax.random.key(0)} | options
    )
    with pytest.raises(ValueError, match=message):
        getattr(attribution, name)(apply, None, jnp.zeros((1, 17, 2, 3)), 0, **options)


def test_labels_that_are_traced_need_a_count():
    apply, images, labels = (
        lambda v, x: x.mean((1, 2)),
        jnp.ones((1, 2, 3, 2)),
        jnp.array([[0, 1, 1], [2, 2, 2]]),
    )
    ablated = functools.partial(attribution.feature_ablation, apply, None, images, 0)
    with pytest.raises(ValueError, match=r"features is a traced array of shape \(2, 3\).*pass .*Partition\("):
        jax.jit(lambda labels: ablated(features=labels))(labels)
    found = jax.jit(lambda labels: ablated(features=Partition(labels, 3)))(labels)
    np.testing.assert_allclose(found, ablated(features=labels), **EXACT)
