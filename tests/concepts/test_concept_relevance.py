"""Concept relevance against Zennit-CRP's toy, gradients written by hand, and the map of LRP; RelMax.

All but the search is in float64, within a caller's jit.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.transforms.networks import NHWC
from vexplain import transforms as t
from vexplain.attribution import lrp
from vexplain.concepts import channel_relevance, conditional_maps
from vexplain.datasets import ArraySource
from vexplain.relevance import Pick, Relevance, interpret, top_exemplars

LRP_0 = t.lrp_epsilon(0.0)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def run(fn, *args):
    """The values of a computation that is compiled as a whole."""
    return jax.tree.map(np.asarray, jax.jit(fn)(*args))


def draw(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in shapes]


# ------------------------------------------------------------------------------------------- values


def toy(weights, images):
    first, second, head = weights
    x = images.reshape(len(images), 2)
    return jnp.concatenate([x @ first, x @ second], axis=1) @ head


def test_the_toy_of_zennit_crp(float64):
    """Its `test_simple_attribution`: relevances (1, 4) and (5, 0), the map (-11, 21); each layer by hand."""
    weights = ([[1.0, 0], [2, 1]], [[2.0, 0], [3, 0]], [[1.0], [4], [5], [0]])
    options = {"composite": LRP_0, "score": lambda outputs, targets: outputs[:, 0]}

    def found(v, x):
        relevance = [channel_relevance(toy, v, x, layer=f"dense_{n}", **options) for n in (1, 2)]
        both = [
            conditional_maps(toy, v, x, layer=f"dense_{n}", channels=[0, 1], is_summed=True, **options)
            for n in (1, 2)
        ]
        each = conditional_maps(toy, v, x, layer="concatenate_1", channels=np.arange(4), **options)
        return [r.relevance for r in relevance], relevance[0].scores, both, each

    images = np.array([-1.0, 1]).reshape(1, 1, 1, 2)
    relevance, score, both, each = run(found, jax.tree.map(np.array, weights, is_leaf=_is_rows), images)
    np.testing.assert_allclose(relevance, [[[1, 4]], [[5, 0]]], **EXACT)
    np.testing.assert_allclose(score, [10], **EXACT)
    np.testing.assert_allclose(np.ravel(both), [-1, 6, -10, 15], **EXACT)
    np.testing.assert_allclose(each.reshape(4, 2), [[-1, 2], [0, 4], [-10, 15], [0, 0]], **EXACT)
    np.testing.assert_allclose(each.sum(1).ravel(), [-11, 21], **EXACT)


def _is_rows(value):
    return isinstance(value, list)


def without_biases(weights, images, shift=lambda name, x: x):
    """Channels first, a residual branch and a pooling; the layers can be shifted, for gradients by hand."""
    first, second, head = weights
    numbers = ("NCHW", "HWIO", "NCHW")
    conv = functools.partial(lax.conv_general_dilated, padding="SAME", dimension_numbers=numbers)
    x = shift("relu_1", jax.nn.relu(conv(images.transpose(0, 3, 1, 2), first, (2, 1))))
    x = x + shift("relu_2", jax.nn.relu(conv(x, second, (1, 1))))
    return x.max((2, 3)) @ head


@pytest.mark.parametrize("layer", ["relu_1", "relu_2"])
def test_lrp_0_is_activation_times_gradient(float64, layer):
    """Of ReLUs without biases: R_k = Σ a ∂y/∂a, and on to the pixels x ∂/∂x Σ a [∂y/∂a]."""
    weights = draw((3, 3, 2, 5), (3, 3, 5, 5), (5, 3))
    images = np.random.default_rng(1).uniform(size=(2, 7, 4, 2))
    channels = np.array([[4, 1, 1], [0, 3, 2]])

    def found(v, x):
        options = {"layer": layer, "composite": LRP_0}
        relevance = channel_relevance(without_biases, v, x, [2, 0], **options)
        maps = conditional_maps(without_biases, v, x, [2, 0], channels=channels, **options)
        summed = conditional_maps(without_biases, v, x, [2, 0], channels=channels, is_summed=True, **options)
        one = conditional_maps(without_biases, v, x, [2, 0], channels=3, **options)
        return relevance, maps, summed, one

    def expected(v, x):
        def scored(delta):
            shift = lambda name, a: a + delta if name == layer else a  # noqa: E731
            return without_biases(v, x, shift)[jnp.arange(2), jnp.array([2, 0])].sum()

        slope = jax.grad(scored)(jnp.zeros((2, 5, 4, 4)))

        def of_channels(x):
            seen = []
            without_biases(v, x, lambda name, a: seen.append(a) or a if name == layer else a)
            return (seen[0] * slope).sum((2, 3))

        slopes = jax.jacrev(lambda x: of_channels(x).sum(0))(x)
        return of_channels(x), jnp.moveaxis(slopes * x, 0, 1)

    (relevance, scores), maps, summed, one = run(found, weights, images)
    by_hand, each = run(expected, weights, images)
    np.testing.assert_allclose(relevance, by_hand, **EXACT)
    rows = np.arange(2)
    np.testing.assert_allclose(maps, each[rows[:, None], channels], **EXACT)
    np.testing.assert_allclose(summed[0], each[0, [4, 1]].sum(0), **EXACT)
    np.testing.assert_allclose(one, each[:, 3], **EXACT)
    if layer == "relu_1":  # nothing passes around it
        np.testing.assert_allclose(relevance.sum(1), scores, **EXACT)


# ------------------------------------------------------------------------------- all channels together


def normalized(weights, images):
    """Pixels, a convolution and one in a residual branch are normalized; biases everywhere."""
    first, second, (scale, shift), head = weights
    x = (images - jnp.array([0.4, 0.5])) / jnp.array([0.3, 0.2])
    x = lax.conv_general_dilated(x, first, (2, 2), "SAME", dimension_numbers=NHWC)
    x = jax.nn.relu((x - shift) * scale + 0.1)
    left = lax.conv_general_dilated(x, second, (1, 1), "SAME", dimension_numbers=NHWC)
    x = jax.nn.silu(x + left * scale + shift)
    return x.mean((1, 2)) @ head + 0.3


def looped(weights, images):
    """Tokens with a class token go through two equal steps of a scan, and the class token is read."""
    first, (second, third), head = weights
    x = (images.reshape(len(images), -1, 2) @ first) - 0.1
    x = jnp.concatenate([jnp.full_like(x[:, :1], 0.2), x], axis=1)

    def step(x, w):
        return jax.nn.relu(x @ w[0] + x.mean(1, keepdims=True) @ w[1] + 0.05), None

    return lax.scan(step, x, (second, third))[0][:, 0] @ head


NORMALIZED = [(3, 3, 2, 4), (3, 3, 4, 4), (2, 4), (4, 3)]
LOOPED = [(2, 4), (2, 2, 4, 4), (4, 3)]


@pytest.mark.parametrize(
    ("apply", "shapes", "composite", "whole", "parts"),
    [
        (normalized, NORMALIZED, t.epsilon_plus_flat(), ("conv_1", "relu_1"), ("conv_2",)),
        (looped, LOOPED, t.lrp_epsilon(0.1), ("relu_1",), ("dense_3",)),
    ],
    ids=("normalized", "looped"),
)
def test_maps_of_all_channels_are_the_map_of_lrp(float64, apply, shapes, composite, whole, parts):
    """Whatever the composite is: a normalization that is folded, and a loop, are opened where rules end."""
    weights = draw(*shapes, seed=3)
    images = np.random.default_rng(2).uniform(size=(2, 3, 2, 2))

    def maps(v, x):
        options = {"channels": range(4), "composite": composite}
        each = [conditional_maps(apply, v, x, 1, layer=name, **options).sum(1) for name in (*whole, *parts)]
        return each, lrp(apply, v, x, 1, composite=composite)

    found, expected = run(maps, weights, images)
    size = np.abs(expected).max()
    for name, summed in zip((*whole, *parts), found, strict=True):
        if name in whole:
            np.testing.assert_allclose(summed, expected, rtol=1e-10, atol=1e-12 * size, err_msg=name)
        else:  # of a branch there is something, and not all
            assert np.abs(summed).max() > 1e-3 * size
            assert np.abs(summed - expected).max() > 1e-3 * size


def test_many_channels_cost_one_pass_each_from_their_layer_on():
    """By XLA's count of operations; the layer is half way, and what depends on the image is made once."""

    def apply(v, x):
        for w in v:
            x = jax.nn.relu(lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC))
        return x.mean((1, 2))

    given = (
        [jax.ShapeDtypeStruct(s, jnp.float32) for s in [(3, 3, 3, 16), *[(3, 3, 16, 16)] * 3]],
        jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32),
    )
    flops = lambda fn: jax.jit(fn).lower(*given).compile().cost_analysis()["flops"]  # noqa: E731
    forward = flops(apply)
    options = {"layer": "relu_2", "composite": LRP_0}
    maps = lambda n: lambda v, x: conditional_maps(apply, v, x, 0, channels=range(n), **options)  # noqa: E731
    few, many = (flops(maps(n)) for n in (2, 12))
    assert (many - few) / 10 < 0.55 * forward
    assert few < 3.5 * forward


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("apply", "options", "error", "message"),
    [
        (without_biases, {"layer": "relu_9"}, KeyError, "no layer 'relu_9'"),
        (
            without_biases,
            {"channels": 5},
            ValueError,
            "channels go from 5 to 5: layer 'relu_1' has .* 0 to 4",
        ),
        (without_biases, {"channels": [-1]}, ValueError, "channels go from -1 to -1"),
        (without_biases, {"channels": [0.5]}, ValueError, "channels is of dtype float64: expected integers"),
        (without_biases, {"channels": []}, ValueError, "channels is of dtype float64|channels has shape"),
        (
            without_biases,
            {"channels": [[0], [1], [2]]},
            ValueError,
            r"channels has shape \(3, 1\): .*\(2, K\)",
        ),
        (
            normalized,
            {"layer": "norm_1"},
            ValueError,
            r"'norm_1' .* is a part of a layer of shape .*after it",
        ),
    ],
)
def test_what_cannot_be_done_is_named(apply, options, error, message):
    shapes = NORMALIZED if apply is normalized else [(3, 3, 2, 5), (3, 3, 5, 5), (5, 3)]
    variables = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    given = {"layer": "relu_1", "channels": 0, "composite": LRP_0} | options
    images = jax.ShapeDtypeStruct((2, 7, 4, 2), jnp.float32)
    with pytest.raises(error, match=message):
        jax.eval_shape(lambda v, x: conditional_maps(apply, v, x, 0, **given), variables, images)


# ------------------------------------------------------------------------------------------- RelMax


def inhibited(variables, images):
    """Class 0 where channel 0 is stronger than channel 1, which holds it back: h = relu(a0 - a1)."""
    a = jax.nn.relu(images @ variables)
    h = jax.nn.relu(a.sum((1, 2)) @ jnp.array([[1.0], [-1.0]]))
    return jnp.concatenate([h, 0.2 - h], axis=1)


@pytest.fixture(scope="module")
def exciting():
    """Channel 0 is 0.9 at one pixel of image 0, where channel 1 is 0.95; there it adds nothing to class 0."""
    images = np.zeros((5, 2, 3, 2), np.float32)
    for n, (a0, a1) in enumerate([(0.9, 0.95), (0.5, 0.0), (0.3, 0.0), (0.7, 0.6), (0.1, 0.0)]):
        images[n, n % 2, n % 3, 0], images[n, 0, 0, 1] = a0, a1
    labels = np.array([0, 0, 1, 0, 1])
    return np.eye(2, dtype=np.float32), ArraySource(images, labels, class_names=("first", "second"))


def test_relevance_and_activation_choose_different_images(exciting):
    variables, source = exciting
    table = t.layers(inhibited, variables, source[[0]]["images"])
    picks = [Pick("relu_1", 0), Pick("relu_1", 0, 0), Pick("relu_1", 0, 1), Pick("relu_2", 0)]
    weights = np.array([1, 1, 1, 1, 1, 0], np.float32)  # the last one is padding, and would be the best
    padded = source[np.array([0, 1, 2, 3, 4, 0])]
    padded["images"][-1] = np.nan

    def top(by):
        init, update = top_exemplars(inhibited, table, picks, num_images=2, by=by, composite=LRP_0)
        return jax.tree.map(np.asarray, jax.jit(update)(init(), padded | {"weights": weights}, variables))

    by_activation, by_relevance = top("activation"), top("relevance")
    assert by_activation.indices.tolist() == [[0, 3], [0, 3], [2, 4], [1, 2]]
    # predicted are 1, 0, 0, 1, 1: for class 1 the channel counts -a0 where h > 0
    assert by_relevance.indices.tolist() == [[1, 2], [3, 1], [4, 2], [1, 2]]
    expected = [[0.5, 0.3], [0.7, 0.5], [-0.1, -0.3], [0.5, 0.3]]
    np.testing.assert_allclose(by_relevance.values, expected, atol=1e-6)
    assert by_relevance.rows[:3].tolist() == [[1, 0], [1, 1], [0, 0]]
    assert by_relevance.columns[:2].tolist() == [[1, 2], [0, 1]]
    with pytest.raises(ValueError, match="by is 'gradient': expected one of"):
        top("gradient")


def test_average_images_of_what_counts(exciting):
    variables, source = exciting
    table = t.layers(inhibited, variables, source[[0]]["images"])
    layout = tuple((row.name, row.num_channels) for row in table)
    weights = np.zeros((sum(n for _, n in layout), 2))
    weights[[name for name, n in layout for _ in range(n)].index("relu_1"), 0] = 1
    relevance = Relevance(weights, np.zeros(2), np.zeros(2), 1.0, layout, source.class_names)
    options = {"num_images": 2, "align": False, "description": None, "composite": LRP_0}
    (view,) = interpret(inhibited, variables, table, relevance, source, by="relevance", **options)
    assert (view.channel, view.indices.tolist()) == (0, [3, 1])
    np.testing.assert_allclose(view.crops[:, 0, 0, 0], [0.7, 0.5])
