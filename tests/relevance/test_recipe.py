"""The recipe step by step against an explicit loop, and what it must refuse."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transforms import networks
from vexplain.attribution import attribution_method, positive_heatmaps
from vexplain.relevance import (
    Relevance,
    candidate_layers,
    explain,
    feature_name,
    layout_of,
    relevant_features,
    response_fn,
)
from vexplain.relevance.recipe import check_options
from vexplain.transforms import GUIDED, RESAMPLED_STRIDE, layers, read, with_rules

SHAPE = (5, 13, 11, 3)


def made_relevance(apply, variables, images, *, num_nonzero=6):
    rows = candidate_layers(layers(apply, variables, images))
    layout = layout_of(rows)
    total = sum(n for _, n in layout)
    rng = np.random.default_rng(0)
    weights = np.zeros((total, 5))
    for c in range(5):
        weights[rng.choice(total, num_nonzero, replace=False), c] = rng.uniform(0.5, 2, num_nonzero)
    names = tuple(f"class {c}" for c in range(5))
    return Relevance(weights, np.zeros(5), np.ones(5), np.asarray(10.0), layout, names), rows


@pytest.fixture
def images(key):
    return jax.random.uniform(key, SHAPE)


@pytest.mark.parametrize(("style", "measure"), [("nnx", "energy"), ("plain", "maximum")])
def test_the_recipe_against_a_loop_over_images_and_features(style, measure, images):
    apply, variables = networks.ALL[style]()
    relevance, rows = made_relevance(apply, variables, images)
    relevance = dataclasses.replace(relevance, measure=measure)
    found = explain(apply, variables, images, relevance=relevance, num_features=3)
    x, logits = jax.jit(response_fn(apply, rows, measure=measure))(variables, images)
    np.testing.assert_array_equal(found.targets, logits.argmax(-1))
    ruled = with_rules(apply, GUIDED | RESAMPLED_STRIDE)
    for n in range(len(images)):
        w = relevance.weights[:, int(found.targets[n])]
        r = np.asarray(x[n]) * w / np.abs(w).sum()
        order = [i for i in np.argsort(-r)[:3] if r[i] > 0]
        assert found.features.indices[n][: len(order)].tolist() == order
        np.testing.assert_allclose(found.features.scores[n][: len(order)], r[order], rtol=1e-4)
        for k, index in enumerate(order):
            layer, channel = feature_name(relevance, index)[:-1].split("[")
            expected = _one_map(ruled, layer, variables, images[n : n + 1], int(channel))
            np.testing.assert_allclose(found.maps[n, k], expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_array_equal(found.heatmaps[n], found.maps[n].max(0))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _one_map(ruled, layer, variables, image, channel):
    only = lambda x: read(ruled, [layer])(variables, x)[1][layer][..., channel]  # noqa: E731
    activation, send = jax.vjp(only, image)
    return positive_heatmaps(send(activation)[0])[0]


def test_fewer_positive_features_than_asked_give_fewer_maps(images):
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images, num_nonzero=1)
    found = explain(apply, variables, images, relevance=relevance, num_features=4)
    assert not found.features.valid[:, 1:].any()
    assert not found.maps[:, 1:].any()
    assert found.features.valid[:, 0].any()


def test_options_change_what_they_say(images):
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images)
    plain = explain(apply, variables, images, relevance=relevance)
    mean = explain(apply, variables, images, relevance=relevance, combination="mean")
    weighted = explain(apply, variables, images, relevance=relevance, combination="weighted")
    shares = plain.features.scores / plain.features.scores.sum(1, keepdims=True)
    counts = plain.features.valid.sum(1)[:, None, None]
    np.testing.assert_allclose(mean.heatmaps, plain.maps.sum(1) / counts, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        weighted.heatmaps, (shares[:, :, None, None] * plain.maps).sum(1), rtol=1e-4, atol=1e-6
    )
    ones = explain(apply, variables, images, relevance=relevance, signal="ones")
    assert not np.allclose(ones.maps, plain.maps)
    other = explain(apply, variables, images, relevance=relevance, targets=jnp.array([0, 1, 2, 3, 4]))
    np.testing.assert_array_equal(other.targets, [0, 1, 2, 3, 4])
    fixed = explain(apply, variables, images, relevance=relevance, rules=GUIDED)
    assert not np.allclose(fixed.maps, plain.maps)  # this network has strided convolutions


def test_relevance_is_an_argument_and_never_compiled_in(images):
    apply, variables = networks.nnx_network()
    relevance, rows = made_relevance(apply, variables, images)
    traces = []

    def counted(variables, images):
        traces.append(1)
        return apply(variables, images)

    explain(counted, variables, images, relevance=relevance)
    once = len(traces)
    shifted = Relevance(
        np.roll(relevance.weights, 1, axis=1),
        relevance.gaps,
        relevance.penalties,
        relevance.mu,
        layout_of(rows),
        relevance.class_names,
    )
    explain(counted, variables, images, relevance=shifted)
    assert len(traces) == once


def test_a_class_without_features_is_named(images):
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images)
    relevance.weights[:, 2] = 0
    with pytest.raises(ValueError, match="no feature is relevant for class 'class 2' at mu = 10"):
        explain(apply, variables, images, relevance=relevance, targets=jnp.full(5, 2))


def test_bad_options_raise(images):
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images)
    with pytest.raises(ValueError, match="signal is 'noise': expected one of"):
        explain(apply, variables, images, relevance=relevance, signal="noise")
    with pytest.raises(ValueError, match="combination is 'product'"):
        explain(apply, variables, images, relevance=relevance, combination="product")
    with pytest.raises(ValueError, match="num_features: expected 1 to"):
        explain(apply, variables, images, relevance=relevance, num_features=1000)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x[0], r"images has shape \(13, 11, 3\).*images\[None\]"),
        (lambda x: (x * 255).astype(jnp.uint8), "dtype uint8.*divide by 255"),
        (lambda x: x * 255, "images go from .* divide 8-bit images by 255"),
        (lambda x: x - 0.5, "undo the normalization"),
        (lambda x: x.at[1, 2, 3, 0].set(jnp.nan), "NaN"),
        (lambda x: x[..., :1], "conv_general_dilated|channels|feature"),
    ],
)
def test_bad_images_are_named(spoil, message, images):
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images)
    with pytest.raises((ValueError, TypeError), match=message):
        explain(apply, variables, spoil(images), relevance=relevance)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.array([0, 1, -1, 2, 3]), "targets go from -1 to 3: expected classes from 0 to 4"),
        (jnp.array([0, 1, 5, 2, 3]), "targets go from 0 to 5: expected classes from 0 to 4"),
        (np.array([1]), r"targets has shape \(1,\): expected \(5,\)"),
        (np.ones((5, 1), int), r"targets has shape \(5, 1\)"),
        (np.ones(5), "dtype float64: expected integers"),
        (np.ones(5, bool), "dtype bool: expected integers"),
    ],
)
def test_bad_targets_are_named(targets, message, images):
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images)
    with pytest.raises(ValueError, match=message):
        explain(apply, variables, images, relevance=relevance, targets=targets)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [np.zeros((13, 11, 3))]}, r"images is a list: expected one array .*np.stack\(images\)"),
        ({"images": np.zeros((0, 13, 11, 3))}, r"images has shape \(0, 13, 11, 3\): it holds no image"),
        ({"images": np.zeros((5, 13, 11))}, r"a batch of gray ones images\[..., None\]"),
        ({"rules": "GUIDED"}, "rules is 'GUIDED': expected a Rule, or several joined by |"),
        ({"rules": [GUIDED]}, r"rules is \[Rule.*: expected a Rule"),
        ({"num_features": 2.5}, "num_features is 2.5: expected the number"),
        ({"num_features": 0}, "num_features is 0: expected the number"),
        ({"num_features": True}, "num_features is True"),
        ({"on_uncovered": "ignore"}, "on_uncovered is 'ignore'"),
    ],
)
def test_arguments_of_another_type_are_named(change, message, images):
    without_type_checks = attribution_method(inspect.unwrap(explain))
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images)
    with pytest.raises(ValueError, match=message):
        without_type_checks(apply, variables, change.pop("images", images), relevance=relevance, **change)


def test_targets_may_be_traced_and_of_any_integer(images):
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images)
    targets = np.array([4, 0, 2, 1, 3], np.uint8)
    plain = explain(apply, variables, images, relevance=relevance, targets=targets)
    traced = jax.jit(lambda t: explain(apply, variables, images, relevance=relevance, targets=t))(targets)
    np.testing.assert_array_equal(plain.targets, traced.targets)
    np.testing.assert_allclose(plain.heatmaps, traced.heatmaps, rtol=1e-4, atol=1e-5)


def test_relevance_of_another_network_is_refused(images):
    apply, variables = networks.nnx_network()
    relevance, rows = made_relevance(apply, variables, images)
    fewer = Relevance(
        relevance.weights[:, :4],
        np.zeros(4),
        np.ones(4),
        np.asarray(10.0),
        layout_of(rows),
        relevance.class_names[:4],
    )
    with pytest.raises(ValueError, match="relevance has 4 classes, but the network scores 5"):
        explain(apply, variables, images, relevance=fewer)


def test_the_map_of_the_catalog_has_the_options_and_the_heatmaps_of_explain(images):
    ours, theirs = (inspect.signature(function).parameters for function in (explain, relevant_features))
    assert {name: p.default for name, p in ours.items()} == {name: p.default for name, p in theirs.items()}
    assert set(inspect.signature(check_options).parameters) < set(ours)
    apply, variables = networks.nnx_network()
    relevance, _ = made_relevance(apply, variables, images)
    options = {"relevance": relevance, "combination": "mean", "num_features": 2}
    found = relevant_features(apply, variables, images, 3, **options)
    np.testing.assert_array_equal(found, explain(apply, variables, images, 3, **options).heatmaps)


def test_float16_gives_the_map_of_float32():
    """What is sent back from a layer whose activations are small must not vanish on its way."""
    n, width = 11, 16
    keys = jax.random.split(jax.random.key(0), n + 1)
    scales = [0.5 * np.sqrt(2 / (9 * (3 if i == 0 else width))) for i in range(n)]
    shapes = [(3, 3, 3 if i == 0 else width, width) for i in range(n)]
    layers_of = [jax.random.normal(k, s) * scale for k, s, scale in zip(keys, shapes, scales, strict=False)]
    half = jax.tree.map(lambda w: w.astype(jnp.float16), (layers_of, jax.random.normal(keys[n], (width, 2))))

    def apply(variables, images):
        weights, head = variables
        x = images.astype(head.dtype)
        for w in weights:
            x = jax.nn.relu(
                jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=networks.NHWC)
            )
        return x.mean((1, 2)) @ head

    zeros = np.zeros(2)
    weights = np.full((width, 2), 10 / width)
    relevance = Relevance(weights, zeros, zeros, np.asarray(10.0), (("relu_11", width),), ("a", "b"))
    images = np.random.default_rng(0).uniform(size=(2, 16, 16, 3)).astype(np.float32)
    full = jax.tree.map(lambda w: w.astype(jnp.float32), half)
    found, expected = (explain(apply, v, images, targets=0, relevance=relevance) for v in (half, full))
    np.testing.assert_array_equal(found.features.indices, expected.features.indices)
    np.testing.assert_allclose(found.maps, expected.maps, atol=0.03)  # float16 has 11 bits
