"""The map of our own against the steps that its docstring names, written again; and what it must refuse.

The method is frozen: one test holds its values.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax import lax

from tests.attribution.test_guided_filter import by_windows
from tests.transforms import networks
from vexplain.relevance import Relevance, candidate_layers, find_evidence, layout_of
from vexplain.relevance.evidence import evidence_layers
from vexplain.transforms import edit, layers

SHAPE = (2, 12, 10, 3)
NUM_CLASSES = 3
NHWC = networks.NHWC


def conv(x, kernel, bias):
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC) + bias


def max_pool(x):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


STAGES = {  # of a network, by the names that the layer table gives them
    "conv_1": lambda v, x: conv(x, *v["first"]),
    "relu_1": lambda v, x: jax.nn.relu(x),
    "pool_1": lambda v, x: max_pool(x),
    "conv_2": lambda v, x: conv(x, *v["second"]),
    "relu_2": lambda v, x: jax.nn.relu(x),
    "pool_2": lambda v, x: x.mean((1, 2)),
    "dense_1": lambda v, x: x @ v["dense"],
}
LAYOUT = (("conv_1", 4), ("relu_1", 4), ("pool_1", 4), ("conv_2", 5), ("relu_2", 5), ("pool_2", 5))


def run(variables, x, after, until):
    names = list(STAGES)
    for name in names[names.index(after) + 1 if after else 0 : names.index(until) + 1]:
        x = STAGES[name](variables, x)
    return x


def apply(variables, images):
    return run(variables, images, None, "dense_1")


def drawn(*shape, seed):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def made_relevance(layout, num_classes=NUM_CLASSES, *, seed=0, share=0.5):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 2, (sum(n for _, n in layout), num_classes))
    weights *= rng.random(weights.shape) < share
    names = tuple(f"class {c}" for c in range(num_classes))
    return Relevance(weights, np.zeros(num_classes), np.ones(num_classes), np.asarray(5.0), layout, names)


@pytest.fixture(scope="module")
def case():
    """(variables, images, relevance)."""
    variables = {
        "first": (drawn(3, 3, 3, 4, seed=1), drawn(4, seed=2) / 4),
        "second": (drawn(3, 3, 4, 5, seed=3), drawn(5, seed=4) / 4),
        "dense": drawn(5, NUM_CLASSES, seed=5),
    }
    images = np.kron(np.random.default_rng(6).random((2, 4, 5, 3)), np.ones((1, 3, 2, 1)))
    return jax.tree.map(jnp.asarray, variables), images.astype(np.float32), made_relevance(LAYOUT, share=0.8)


@pytest.fixture(scope="module")
def found(case):
    variables, images, relevance = case
    return find_evidence(apply, variables, images, np.array([2, 0]), relevance=relevance)


# --------------------------------------------------------------------------------------- step by step


def normalized(heatmap):
    return (heatmap - heatmap.min()) / (heatmap.max() - heatmap.min())


def saturated(heatmap):
    heatmap, low, high = normalized(heatmap), 0.0, 1.0
    for _ in range(20):
        is_high = heatmap >= (low + high) / 2
        low, high = heatmap[~is_high].mean(), heatmap[is_high].mean()
    return np.minimum(heatmap / high, 1)


def localized(signal, activation, size):
    """Step 3 for one image, with SciPy's Gaussian and enlargement."""
    sigma = max(min(signal.shape[:2]) / 64, 0.5)
    for axis in (0, 1):
        signal = scipy.ndimage.gaussian_filter1d(signal, sigma, axis, radius=round(3 * sigma))
    evidence = np.maximum((signal * activation).sum(-1), 0)
    zoom = [large / small for large, small in zip(size, evidence.shape, strict=True)]
    return scipy.ndimage.zoom(evidence, zoom, order=1, mode="nearest", grid_mode=True)


def one_by_one(variables, image, relevance, target):
    """(contributions, unfilled map, map) of one image, in the order of the docstring."""
    x = image[None]
    activations = {name: run(variables, x, None, name) for name, _ in LAYOUT}
    own = np.eye(NUM_CLASSES)[target]

    lead = np.where(own > 0, 1, -1 / (NUM_CLASSES - 1))
    contributions, seeds, start = [], {}, 0
    for name, count in LAYOUT:
        of = lambda a, name=name: (run(variables, a, name, "dense_1")[0] * lead).sum()  # noqa: E731
        gradient = np.asarray(jax.grad(of)(activations[name]))
        products = np.asarray(activations[name] * gradient).reshape(-1, count).sum(0)
        is_relevant = relevance.weights[start : start + count, target] > 0
        contributions.append(np.where(is_relevant, products, 0))
        seeds[name] = gradient * (contributions[-1] > 0)
        start += count
    contributions = np.concatenate(contributions)

    def evidence(layer):
        names = list(STAGES)
        signal = 0
        for name, seed in seeds.items():
            if names.index(name) >= names.index(layer):
                back = jax.vjp(lambda a, name=name: run(variables, a, layer, name), activations[layer])[1]
                signal = signal + np.asarray(back(seed)[0])
        return localized(signal[0], np.asarray(activations[layer])[0], image.shape[:2])

    deeper = normalized(evidence("relu_2"))
    assert 0 < deeper.mean() < 1
    unfilled = normalized(evidence("relu_1") * (saturated(deeper) + 0.3))
    filled = by_windows(unfilled, image, round(10 / 6), 1e-3)
    return contributions, unfilled, saturated(np.maximum(filled, 0))


def test_the_layers_of_the_case_are_those_of_its_stages(case):
    variables, images, _ = case
    table = layers(apply, variables, images)
    assert table.names == tuple(STAGES)
    assert [row.name for row in evidence_layers(table)] == ["relu_1", "relu_2"]


def test_every_step_is_that_of_the_docstring(case, found):
    variables, images, relevance = case
    for n, target in enumerate(found.targets):
        contributions, unfilled, heatmap = one_by_one(variables, images[n], relevance, int(target))
        assert (contributions > 0).sum() > 2
        assert (contributions < 0).any()  # such features are relevant, but speak against the class
        np.testing.assert_allclose(found.contributions[n], contributions, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.unfilled[n], unfilled, atol=1e-4)
        np.testing.assert_allclose(found.heatmaps[n], heatmap, atol=1e-4)
    np.testing.assert_allclose(found.logits, apply(variables, images), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.targets, [2, 0])


FROZEN = [  # made with the method as it is since it was chosen on cue objects too
    [
        [0.0806, 0.2201, 0.4674, 0.6829, 0.5438],
        [0.0014, 0.2992, 0.5393, 0.1676, 0.2885],
        [0.0737, 0.2206, 0.8176, 1.0000, 1.0000],
        [0.0005, 0.0186, 0.5074, 1.0000, 0.4136],
    ],
    [
        [0.4520, 0.5848, 1.0000, 0.5684, 0.2983],
        [0.2243, 0.5162, 0.4211, 0.8739, 0.2696],
        [0.5406, 1.0000, 1.0000, 1.0000, 0.0000],
        [0.7001, 0.5978, 0.7499, 0.3193, 0.3246],
    ],
]


def test_the_frozen_method_gives_what_it_gave(found):
    np.testing.assert_allclose(found.heatmaps[:, ::3, ::2], FROZEN, atol=2e-3)


def test_of_a_linear_network_it_is_the_sum_of_the_weighted_features():
    """y = mean of x @ w: a feature contributes w times its mean, and of one color is where x @ w is large."""

    def linear(weights, images):
        return jax.nn.relu(images).mean((1, 2)) @ weights

    images = np.zeros((1, 8, 8, 4), np.float32)
    images[0, :4, :4, 0] = images[0, 4:, 4:, 1] = images[0, 4:, :4, 2] = images[0, :4, 4:, 3] = 1
    weights = jnp.array([[2.0, 0.0], [-3.0, 0.0], [5.0, 0.0], [7.0, 0.0]])
    relevant = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.0], [0.0, 0.0]])  # the last one is not relevant
    relevance = Relevance(
        relevant, np.zeros(2), np.ones(2), np.asarray(1.0), (("relu_1", 4),), ("one", "other")
    )
    evidence = find_evidence(linear, weights, images, 0, relevance=relevance)
    np.testing.assert_allclose(evidence.contributions, [[0.5, -0.75, 1.25, 0]], rtol=1e-6)
    expected = (images[0] @ np.array([2.0, 0, 5.0, 0])) / 5  # not the second: it speaks against the class
    np.testing.assert_allclose(evidence.unfilled[0], expected, atol=1e-6)
    assert (evidence.heatmaps[0][images[0, ..., 2] > 0] > 0.95).all()
    assert (evidence.heatmaps[0][images[0, ..., 1] + images[0, ..., 3] > 0] < 0.05).all()


# ------------------------------------------------------------------------------ every kind of network


def gelu_network():
    kernel, dense = drawn(3, 3, 3, 4, seed=1), drawn(4, 5, seed=2)

    def smooth(variables, images):
        kernel, dense = variables
        return jax.nn.gelu(conv(images, kernel, 0.1)).mean((1, 2)) @ dense

    return smooth, (jnp.asarray(kernel), jnp.asarray(dense))


@pytest.mark.parametrize("made", [networks.nnx_network, networks.linen_network, gelu_network])
def test_a_contribution_is_what_the_lead_gains_where_its_feature_grows(made):
    """∂m/∂h at h = 0 with a feature (1 + h) times as large, by forward differentiation."""
    apply, variables = made()
    images = np.random.default_rng(0).random((3, 13, 11, 3)).astype(np.float32)
    table = layers(apply, variables, images)
    relevance = made_relevance(layout_of(candidate_layers(table)), 5, share=1.0)
    targets = jnp.array([4, 0, 2])

    @jax.jit
    def both(relevance):
        starts = np.cumsum([0] + [count for _, count in relevance.layout])

        def scores(growth):
            changes = {
                name: lambda a, at=start, n=count: a * (1 + growth[at : at + n])
                for (name, count), start in zip(relevance.layout, starts, strict=False)
            }
            outputs = edit(apply, changes)(variables, images)
            own = outputs[jnp.arange(3), targets]
            return own - (outputs.sum(1) - own) / (outputs.shape[1] - 1)

        expected = jax.jacfwd(scores)(jnp.zeros(starts[-1]))
        return find_evidence(apply, variables, images, targets, relevance=relevance), expected

    found, expected = both(relevance)  # the relevance is traced
    np.testing.assert_allclose(found.contributions, expected, rtol=1e-3, atol=1e-5)
    assert 0 <= found.heatmaps.min() < 0.5
    np.testing.assert_allclose(found.heatmaps.max((1, 2)), 1, atol=1e-6)


def channels_first(variables, images):
    x = jnp.moveaxis(images, -1, 1)
    order = ("NCHW", "HWIO", "NCHW")
    for n, (kernel, bias) in enumerate((variables["first"], variables["second"])):
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=order)
        x = jax.nn.relu(x + bias[:, None, None])
        if n == 0:
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
    return x.mean((2, 3)) @ variables["dense"]


def test_the_order_of_the_axes_changes_nothing(case, found):
    variables, images, relevance = case
    other = find_evidence(channels_first, variables, images, np.array([2, 0]), relevance=relevance)
    np.testing.assert_allclose(other.contributions, found.contributions, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(other.heatmaps, found.heatmaps, atol=1e-4)


def test_relevance_and_targets_are_arguments_and_never_compiled_in(case, found):
    variables, images, relevance = case
    traces = []

    def counted(variables, images):
        traces.append(1)
        return apply(variables, images)

    again = find_evidence(counted, variables, images, np.array([2, 0]), relevance=relevance)
    once = len(traces)
    np.testing.assert_array_equal(again.heatmaps, found.heatmaps)
    other = made_relevance(LAYOUT, seed=1)
    find_evidence(counted, variables, images, np.array([1, 1]), relevance=other)
    assert len(traces) == once
    predicted = find_evidence(counted, variables, images, relevance=other)
    np.testing.assert_array_equal(predicted.targets, apply(variables, images).argmax(-1))


def test_where_no_feature_speaks_for_the_class_the_map_is_zero(case, found):
    variables, images, relevance = case
    against = np.asarray(found.contributions) < 0
    weights = np.zeros_like(relevance.weights)
    weights[against[0], 2] = weights[np.asarray(found.contributions)[1] > 0, 0] = 1
    relevance = Relevance(weights, np.zeros(3), np.ones(3), np.asarray(5.0), LAYOUT, tuple("abc"))
    evidence = find_evidence(apply, variables, images, np.array([2, 0]), relevance=relevance)
    assert (evidence.contributions[0] <= 0).all()
    assert (evidence.contributions[0] < 0).any()
    assert not evidence.heatmaps[0].any()
    assert not evidence.unfilled[0].any()
    alone = find_evidence(apply, variables, images[1:], np.array([0]), relevance=relevance)
    np.testing.assert_allclose(evidence.heatmaps[1], alone.heatmaps[0], atol=1e-5)
    assert alone.heatmaps[0].max() == pytest.approx(1)


# --------------------------------------------------------------------------------------- what is refused


def test_what_does_not_fit_is_named(case):
    variables, images, relevance = case
    call = functools.partial(find_evidence, apply, variables)
    nothing = Relevance(
        relevance.weights * [1, 0, 1], np.zeros(3), np.ones(3), np.asarray(5.0), LAYOUT, tuple("abc")
    )
    with pytest.raises(ValueError, match="no feature is relevant for class 'b' at mu = 5"):
        call(images, np.array([1, 0]), relevance=nothing)
    fewer = made_relevance(LAYOUT, 2)
    with pytest.raises(ValueError, match="relevance has 2 classes, but the network scores 3"):
        call(images, relevance=fewer)
    elsewhere = made_relevance((("relu_9", 4),))
    with pytest.raises(KeyError, match="relu_9"):
        call(images, relevance=elsewhere)
    with pytest.raises(ValueError, match="targets go from 0 to 3: expected classes from 0 to 2"):
        call(images, np.array([3, 0]), relevance=relevance)
    with pytest.raises(ValueError, match="it holds no image to explain"):
        call(images[:0], relevance=relevance)

    def flat(weights, images):
        return jax.nn.relu(images.reshape(len(images), -1) @ weights)

    no_place = made_relevance((("relu_1", 3),))
    with pytest.raises(ValueError, match="no layer of this network has positions"):
        find_evidence(flat, jnp.ones((360, 3)), images, relevance=no_place)
