"""Every metric of the catalog: closed forms of linear networks in float64, and values of Quantus 0.6.0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.heatmap_case import ATTRIBUTIONS
from vexplain import evaluation
from vexplain.attribution import gradient, input_x_gradient, integrated_gradients, probability
from vexplain.evaluation._road import filled_in

CLOSED = {"atol": 1e-10, "rtol": 1e-10}
BASELINE = np.array([0.3, 0.1])


@pytest.fixture
def linear():
    """Two images of 5 × 7 pixels and two channels, and a linear network of three classes, in float64."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        weights, images = rng.normal(size=(5, 7, 2, 3)), rng.uniform(0.2, 0.8, size=(2, 5, 7, 2))
        targets = np.array([2, 0])
        own = np.moveaxis(weights[..., targets], -1, 0)
        yield (apply, weights, images, targets), own, (own * (images - BASELINE)).sum(-1)


def apply(weights, images):
    return jnp.einsum("bhwc,hwck->bk", images, weights, precision="highest")


def test_correlations_of_the_exact_map_are_one(linear, key):
    arguments, _, exact = linear
    options = {"key": key, "num_samples": 12, "baseline": BASELINE}

    @jax.jit
    def found(exact):
        correlation = functools.partial(evaluation.faithfulness_correlation, *arguments, **options)
        curve = evaluation.sensitivity_n(*arguments, 3 * exact, shares=(0.1, 0.5), **options)
        return correlation(exact), correlation(-exact, regions=2, correlation="spearman"), curve

    pixels, patches, curve = found(exact)
    np.testing.assert_allclose(pixels, 1, **CLOSED)
    np.testing.assert_allclose(patches, -1, **CLOSED)
    np.testing.assert_allclose(curve, np.ones((2, 2)), **CLOSED)


def test_the_draws_of_an_image_do_not_depend_on_its_batch(linear, key):
    (_, weights, images, targets), _, exact = linear
    keys, options = jax.random.split(key, 2), {"num_samples": 5, "share": 0.3}
    maps = exact + np.random.default_rng(1).normal(size=exact.shape)
    both = evaluation.faithfulness_correlation(apply, weights, images, targets, maps, key=keys, **options)
    second = evaluation.faithfulness_correlation(
        apply, weights, images[1:], targets[1:], maps[1:], key=keys[1:], **options
    )
    np.testing.assert_allclose(second, both[1:], **CLOSED)
    assert (abs(both) < 1 - 1e-6).all()


def test_the_gradient_of_a_linear_network_has_no_infidelity(linear, key):
    (_, weights, images, targets), own, _ = linear
    images, own, weights = images[:, :, :5], own[:, :, :5], weights[:, :5]
    arguments = (apply, weights, images, targets)

    @jax.jit
    def found(own):
        infidelity = functools.partial(evaluation.infidelity, *arguments, key=key, num_samples=4)
        whole = {"size": 5, "baseline": BASELINE}
        return (
            infidelity(own, size=2),
            infidelity(3 * own, perturbation="noisy baseline", is_rescaled=True),
            infidelity(3 * own, **whole),
        )

    square, noisy, tripled = found(own)
    np.testing.assert_allclose(square, 0, atol=1e-10)
    np.testing.assert_allclose(noisy, 0, atol=1e-10)
    gain = (own * (images - BASELINE)).sum((1, 2, 3))
    np.testing.assert_allclose(tripled, (2 * gain) ** 2, **CLOSED)


def test_monotonicity_asks_that_no_step_falls(linear):
    (_, weights, images, targets), _, _ = linear
    positive = (apply, abs(weights), images, targets)
    exact = (np.moveaxis(abs(weights)[..., targets], -1, 0) * images).sum(-1)
    rising = evaluation.monotonicity(*positive, exact, num_steps=5)
    falling = evaluation.monotonicity(apply, weights, images, targets, exact, num_steps=5)
    assert (rising.tolist(), falling.tolist()) == ([1, 1], [0, 0])


def test_the_order_of_very_different_weights_is_found(key):
    weights = 4.0 ** np.arange(6).reshape(1, 6, 1, 1) * np.ones(2)
    arguments = (apply, jnp.asarray(weights), jnp.full((1, 1, 6, 1), 0.5), jnp.zeros(1, int))
    found = functools.partial(evaluation.monotonicity_correlation, *arguments, pixels_per_step=1, key=key)
    np.testing.assert_allclose(found(jnp.asarray(weights)[None, ..., 0, 0]), 1, rtol=1e-6)
    np.testing.assert_allclose(found(1 / jnp.asarray(weights)[None, ..., 0, 0]), -1, rtol=1e-6)


def test_selectivity_against_quantus():
    weights = (jnp.arange(32.0).reshape(2, 16) / 31 - 0.5).T
    images = jnp.linspace(-1, 1, 16).reshape(1, 4, 4, 1)
    curve = evaluation.selectivity(
        lambda weights, images: images.reshape(1, -1) @ weights,
        weights,
        images,
        jnp.array([1]),
        ATTRIBUTIONS,
        score=probability,
        regions=2,
        baseline=evaluation.darkest_values(images),
    )
    expected = [0.052634, 0.027159, 0.00089360, 0.00025909]
    np.testing.assert_allclose(curve.scores[0, 1:], expected, rtol=3e-5)


def test_region_flipping_of_a_linear_score_by_hand(linear, key):
    """Regions of a segmentation with numbers that an image lacks; falls are sums of the exact map."""
    arguments, own, exact = linear
    _, _, images, _ = arguments
    regions = np.stack([np.arange(35).reshape(5, 7) % 4, np.arange(35).reshape(5, 7) // 12])

    @jax.jit
    def found(exact, regions):
        shared = {"regions": regions, "num_regions": 4}
        positive = lambda outputs, targets: outputs[jnp.arange(2), targets] + 50  # noqa: E731
        return (
            evaluation.selectivity(*arguments, exact, baseline=BASELINE, **shared),
            evaluation.irof(*arguments, exact, score=positive, baseline=BASELINE, **shared),
            evaluation.region_perturbation(*arguments, exact, num_steps=2, key=key, **shared),
            jax.vmap(
                lambda n: jax.random.uniform(jax.random.fold_in(key, n), images.shape[1:], images.dtype)
            )(jnp.arange(2)),
        )

    curve, area, fall, noise = found(exact, regions)
    whole = np.einsum("bhwc,bhwc->b", images, own)
    for n in range(2):
        masks = [regions[n] == r for r in range(4) if (regions[n] == r).any()]
        masses = np.array([exact[n][m].sum() for m in masks])
        order = np.argsort(-masses)
        scores = whole[n] - np.cumsum([0, *masses[order]])
        scores = np.append(scores, [scores[-1]] * (5 - len(scores)))
        np.testing.assert_allclose(curve.scores[n], scores, **CLOSED)
        np.testing.assert_allclose(curve.area[n], np.trapezoid(scores) / 4, **CLOSED)
        by_mean = np.argsort([-exact[n][m].mean() for m in masks])
        scores = whole[n] + 50 - np.cumsum([0, *masses[by_mean]])
        scores = np.append(scores, [scores[-1]] * (5 - len(scores)))
        np.testing.assert_allclose(area[n], 1 - np.trapezoid(scores) / 4 / scores[0], **CLOSED)
        lost = (own[n] * (images[n] - noise[n])).sum(-1)
        falls = np.cumsum([lost[masks[r]].sum() for r in order[:2]])
        np.testing.assert_allclose(fall[n], falls.sum() / 3, **CLOSED)


def test_removed_pixels_solve_the_system_of_their_neighbors(linear):
    images, rng = np.asarray(linear[0][2]), np.random.default_rng(2)
    is_removed = rng.uniform(size=(2, 5, 7)) < 0.7
    found = jax.jit(filled_in)(images, is_removed)
    weights = {(0, 1): 1 / 6, (1, 0): 1 / 6, (1, 1): 1 / 12, (1, -1): 1 / 12}
    for n in range(2):
        matrix = np.zeros((35, 35))
        for row in range(5):
            for column in range(7):
                for (down, right), weight in weights.items():
                    if row + down < 5 and 0 <= column + right < 7:
                        i, j = 7 * row + column, 7 * (row + down) + column + right
                        matrix[i, j] = matrix[j, i] = weight
        unknown = is_removed[n].ravel()
        laplacian = np.diag(matrix.sum(1)) - matrix
        known = images[n].reshape(35, 2)[~unknown]
        solved = np.linalg.solve(
            laplacian[np.ix_(unknown, unknown)], matrix[np.ix_(unknown, ~unknown)] @ known
        )
        np.testing.assert_allclose(found[n].reshape(35, 2)[unknown], solved, **CLOSED)
        np.testing.assert_array_equal(found[n].reshape(35, 2)[~unknown], known)


def test_road_of_a_linear_score(linear, key):
    (_, weights, images, targets), own, exact = linear
    options = {"key": key, "noise_level": 0.0, "shares": (0.2, 0.6)}
    curve = evaluation.road(apply, weights, images, targets, exact, **options)
    order = np.argsort(np.argsort(-exact.reshape(2, 35), axis=1), axis=1).reshape(2, 5, 7)
    for n, count in enumerate((7, 21)):
        filled = filled_in(images, order < count)
        np.testing.assert_allclose(curve.scores[:, n], (own * filled).sum((1, 2, 3)), **CLOSED)
    np.testing.assert_allclose(curve.area, curve.scores.mean(1), **CLOSED)


def test_robustness_of_a_linear_network(linear, key):
    (_, weights, images, targets), _, _ = linear
    signs = np.sign(weights)  # |w| = 1: the map moves as far as the image does

    @jax.jit
    def found(images):
        setting, options = (apply, signs, images, targets), {"key": key, "num_samples": 3}
        return {
            "lipschitz": [
                evaluation.local_lipschitz_estimate(method, *setting, **options)
                for method in (gradient, input_x_gradient)
            ],
            "stable": [
                measure(gradient, *setting, **options)
                for measure in (
                    evaluation.max_sensitivity,
                    evaluation.avg_sensitivity,
                    evaluation.relative_output_stability,
                )
            ],
            "max": evaluation.max_sensitivity(input_x_gradient, *setting, is_relative=False, **options),
            "avg": evaluation.avg_sensitivity(input_x_gradient, *setting, is_relative=False, **options),
            "input": evaluation.relative_input_stability(input_x_gradient, *setting, **options),
            "continuity": evaluation.continuity(input_x_gradient, *setting, max_shift=2),
        }

    values = found(images)
    np.testing.assert_allclose(values["lipschitz"], [[0, 0], [1, 1]], **CLOSED)
    np.testing.assert_allclose(values["stable"], 0, atol=1e-10)
    np.testing.assert_allclose(values["input"], 1, **CLOSED)
    assert (values["max"] < 0.02 * np.sqrt(70)).all()
    assert (values["avg"] < values["max"]).all()
    assert (values["avg"] > 0).all()
    ratios = []
    for shift in (1, 2):
        moved = np.zeros_like(images)
        moved[:, :, shift:] = images[:, :, :-shift]
        change = (moved - images).reshape(2, -1)
        ratios.append(abs(change).sum(1) / np.linalg.norm(change, axis=1))
    np.testing.assert_allclose(values["continuity"], np.max(ratios, axis=0), **CLOSED)


def test_axioms_of_a_linear_network(linear, key):
    (_, weights, images, targets), own, exact = linear
    setting = (apply, weights, images, targets)
    exact_from_zero = (own * images).sum(-1)
    unused = weights * (np.arange(7) < 4)[:, None, None]

    @jax.jit
    def found(images):
        gaps = [
            evaluation.completeness_gap(*setting, exact, baseline=BASELINE),
            evaluation.completeness_gap(*setting, exact_from_zero + 1),
        ]
        methods = (gradient, input_x_gradient, functools.partial(integrated_gradients, num_steps=2))
        shifted = [evaluation.input_invariance(method, *setting, shift=0.1) for method in methods]
        maps = (exact_from_zero * (np.arange(7) < 4), np.ones((2, 5, 7)))
        options = {"key": key, "regions": 1, "num_samples": 2}
        unneeded = [evaluation.non_sensitivity(apply, unused, images, targets, of, **options) for of in maps]
        return gaps, shifted, unneeded

    gaps, shifted, unneeded = found(images)
    np.testing.assert_allclose(gaps, [[0, 0], [35, 35]], **CLOSED)
    norm = functools.partial(np.linalg.norm, axis=1)
    expected = norm(0.1 * own.reshape(2, -1)) / norm((own * images).reshape(2, -1))
    np.testing.assert_allclose(shifted, [[0, 0], expected, expected], **CLOSED)
    np.testing.assert_array_equal(unneeded, [[0, 0], [15, 15]])


def test_mistakes_are_named(linear, key):
    arguments, _, exact = linear
    with pytest.raises(ValueError, match="key is None: road draws at random"):
        evaluation.road(*arguments, exact, key=None)
    with pytest.raises(ValueError, match="regions has 1 region: expected 2 or more"):
        evaluation.faithfulness_correlation(*arguments, exact, key=key, regions=7)
    with pytest.raises(ValueError, match=r"heatmaps has shape \(2, 5, 7, 2\).*sum attributions"):
        evaluation.selectivity(*arguments, np.ones((2, 5, 7, 2)))
    with pytest.raises(ValueError, match="regions go from 0 to 4: expected 0 to 2"):
        evaluation.irof(
            *arguments, exact, regions=np.arange(5)[:, None] + np.zeros((1, 7), int), num_regions=3
        )
    method = functools.partial(gradient, relevance=1)
    with pytest.raises(ValueError, match="method has a relevance: parameter_randomization would show"):
        evaluation.parameter_randomization(method, *arguments)
