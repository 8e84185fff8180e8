"""RESAMPLED_POOL against closed forms, loops and `jax.image.resize`, for every spelling of a pooling."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from tests.transforms.network_layers import shares_by_loops
from vexplain.classifiers.fast_gradients import max_pool
from vexplain.transforms import (
    DECONVNET,
    GUIDED,
    RESAMPLED_POOL,
    RESAMPLED_STRIDE,
    layers,
    matched_layers,
    with_rules,
)

SIZES = (2, 9, 8, 3)


def pooling(kind, window, strides, padding: Any = "VALID", dilation=(1, 1)):
    """Of (batch, height, width, channels): "max", "sum", or "mean" over all of the window."""
    start, reducer = (-np.inf, lax.max) if kind == "max" else (0.0, lax.add)
    over = [(1, *pair, 1) for pair in (window, strides)]

    def apply(variables, images):
        pads = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
        dilations = {"window_dilation": (1, *dilation, 1)}
        out = lax.reduce_window(images, np.array(start, images.dtype), reducer, *over, pads, **dilations)
        return out / np.prod(window) if kind == "mean" else out

    return apply


def sent_back(apply, cotangent_of, images, rules=RESAMPLED_POOL, variables=None):
    """The cotangent of the images, and that of the output that it was made of."""
    fn = with_rules(apply, rules) if rules is not None else apply
    out, send = jax.vjp(lambda x: fn(variables, x), images)
    cotangent = cotangent_of(out).astype(out.dtype)
    return np.asarray(send(cotangent)[0]), np.asarray(cotangent)


def noise(out):
    return jax.random.normal(jax.random.key(7), out.shape)


@pytest.mark.parametrize("kind", ["max", "mean"])
def test_a_constant_signal_comes_back_constant(kind, key):
    images = jax.random.normal(key, (2, 8, 9, 3))
    found, _ = sent_back(pooling(kind, (2, 3), (2, 3)), jnp.ones_like, images)
    np.testing.assert_allclose(found, 1 / 6, rtol=1e-6)


def test_a_ramp_comes_back_as_a_ramp_between_the_centers(key):
    """Windows of 3 at stride 2, padded by 1: centers at 0, 2, 4, ..., where g is 1 + 5 row + 3 column."""
    images = jax.random.normal(key, (2, 11, 9, 3))
    positions = 1 + 5 * jnp.arange(6)[:, None, None] + 3 * jnp.arange(5)[:, None]
    ramp = lambda out: jnp.broadcast_to(positions, out.shape)  # noqa: E731
    found, _ = sent_back(pooling("max", (3, 3), (2, 2), "SAME"), ramp, images)
    rows, columns = np.arange(11)[:, None] / 2, np.arange(9)[None] / 2
    expected = (1 + 5 * rows + 3 * columns) / 4
    np.testing.assert_allclose(found[0, 2:-2, 2:-2, 1], expected[2:-2, 2:-2], rtol=1e-5)


@pytest.mark.parametrize("kind", ["max", "mean", "sum"])
@pytest.mark.parametrize(
    ("window", "strides", "padding", "dilation"),
    [
        ((2, 2), (2, 2), "VALID", (1, 1)),  # leaves a row out
        ((3, 2), (2, 3), "SAME", (1, 1)),
        ((3, 3), (1, 2), ((1, 0), (1, 1)), (1, 1)),
        ((2, 3), (3, 2), ((0, 1), (0, 0)), (2, 1)),
    ],
)
def test_any_window_against_loops_and_the_total_is_that_of_the_gradient(
    kind, window, strides, padding, dilation, key
):
    apply = pooling(kind, window, strides, padding, dilation)
    images = jax.random.normal(key, SIZES)
    found, g = sent_back(apply, noise, images)
    total = np.asarray(apply(None, jnp.ones(SIZES))) if kind != "max" else np.ones_like(g)
    if isinstance(padding, str):
        taps = [(n - 1) * d + 1 for n, d in zip(window, dilation, strict=True)]
        padding = lax.padtype_to_pads(SIZES[1:3], taps, strides, padding)
    rows, columns = (
        shares_by_loops(SIZES[1 + a], g.shape[1 + a], window[a], strides[a], padding[a][0], dilation[a])
        for a in range(2)
    )
    expected = np.einsum("noqc,io,jq->nijc", total * g, rows, columns)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.sum((1, 2)), (total * g).sum((1, 2)), rtol=1e-4, atol=1e-5)
    if kind != "max" or dilation == (1, 1):  # JAX has no gradient of a dilated maximum
        plain, _ = sent_back(apply, noise, images, rules=None)
        np.testing.assert_allclose(found.sum((1, 2)), plain.sum((1, 2)), rtol=1e-4, atol=1e-5)


def test_the_resized_signal_is_that_of_jax_image_resize(key):
    """Without overlap or padding the centers are those of half-pixel linear resizing."""
    found, g = sent_back(pooling("max", (3, 2), (3, 2)), noise, jax.random.normal(key, (2, 9, 8, 3)))
    np.testing.assert_allclose(found, jax.image.resize(g, found.shape, "linear") / 6, rtol=1e-5, atol=1e-6)


def test_windows_that_hang_over_the_border_lose_nothing(key):
    """Here the first position sees pixel 0 alone, and the last two see none."""
    apply = pooling("max", (3, 2), (1, 2), ((2, 4), (0, 0)))
    found, g = sent_back(apply, noise, jax.random.normal(key, SIZES))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found.sum((1, 2)), g[:, :-2].sum((1, 2)), rtol=1e-4, atol=1e-5)


def windowed(x, start=-np.inf, reducer=lax.max, over=(1, 2, 2, 1)):
    return lax.reduce_window(x, start, reducer, over, over, "VALID")


SPELLINGS = {
    "reduce_window": lambda v, x: windowed(x),
    "nnx": lambda v, x: nnx.max_pool(x, (2, 2), (2, 2)),
    "own derivative": lambda v, x: max_pool(x),
    "jit in an own derivative": lambda v, x: own_max_pool(x),
    "reshape": lambda v, x: x.reshape(2, 4, 2, 4, 2, 3).max((2, 4)),
    "reshape, blocks last": lambda v, x: x.reshape(2, 4, 2, 4, 2, 3).transpose(0, 1, 3, 5, 4, 2).max((4, 5)),
    "remat": lambda v, x: jax.checkpoint(windowed)(x),
    "NCHW": lambda v, x: jnp.moveaxis(windowed(jnp.moveaxis(x, 3, 1), over=(1, 1, 2, 2)), 1, 3),
    "min": lambda v, x: -windowed(-x, np.inf, lax.min),
    "mean": lambda v, x: nnx.avg_pool(x, (2, 2), (2, 2)),
    "mean by counts": lambda v, x: nnx.avg_pool(x, (2, 2), (2, 2), "SAME", count_include_pad=False),
    "mean by reshape": lambda v, x: x.reshape(2, 4, 2, 4, 2, 3).mean((2, 4)),
    "sum, scaled": lambda v, x: 0.25 * windowed(x, 0.0, lax.add),
}

own_max_pool = jax.custom_vjp(jax.jit(lambda x: windowed(x)))
own_max_pool.defvjp(lambda x: (windowed(x), None), lambda kept, g: (jnp.zeros((2, 8, 8, 3)),))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_pooling_sends_the_same(spelling, key):
    images = jax.random.normal(key, (2, 8, 8, 3))
    apply = SPELLINGS[spelling]
    assert matched_layers(apply, RESAMPLED_POOL, None, images) == {"RESAMPLED_POOL": ("pool_1",)}
    found, g = sent_back(apply, noise, images)
    np.testing.assert_allclose(found, jax.image.resize(g, found.shape, "linear") / 4, rtol=1e-5, atol=1e-6)
    ruled = jax.jit(with_rules(apply, RESAMPLED_POOL))
    np.testing.assert_array_equal(ruled(None, images), jax.jit(apply)(None, images))


LEFT_ALONE = {
    "global max": lambda v, x: x.max((1, 2)),
    "global mean": lambda v, x: x.mean((1, 2)),
    "global, by a window": lambda v, x: nnx.avg_pool(x, (8, 8)),
    "over channels": lambda v, x: lax.reduce_window(x, 0.0, lax.add, (1, 1, 1, 3), (1, 1, 1, 3), "VALID"),
    "one axis after the other": lambda v, x: x.reshape(2, 4, 2, 4, 2, 3).max(2).max(3),
    "slices": lambda v, x: jnp.maximum(x[:, ::2], x[:, 1::2]),
    "between pixels": lambda v, x: lax.reduce_window(
        x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID", base_dilation=(1, 2, 2, 1)
    ),
    "cumulative": lambda v, x: lax.cummax(x, 1),
}


@pytest.mark.parametrize("spelling", LEFT_ALONE)
def test_what_is_no_window_over_rows_and_columns_keeps_its_gradient(spelling, key):
    images, apply = jax.random.normal(key, (2, 8, 8, 3)), LEFT_ALONE[spelling]
    with pytest.raises(ValueError, match="RESAMPLED_POOL matches nothing"):
        with_rules(apply, RESAMPLED_POOL)(None, images)
    ignoring = with_rules(apply, RESAMPLED_POOL, on_unmatched="ignore")
    found, expected = (jax.grad(lambda x, f=f: (f(None, x) ** 2).sum())(images) for f in (ignoring, apply))
    np.testing.assert_array_equal(found, expected)


def test_a_pooling_within_a_derivative_of_its_own_is_refused_by_name(key):
    @jax.custom_vjp
    def halved(x):
        return nnx.max_pool(x, (2, 2), (2, 2)) / 2

    halved.defvjp(lambda x: (halved(x), None), lambda kept, g: (jnp.zeros((2, 8, 8, 3)),))
    with pytest.raises(
        ValueError, match="RESAMPLED_POOL matches layer 'pool_1' inside a custom_vjp function"
    ):
        with_rules(lambda v, x: halved(x), RESAMPLED_POOL)(None, jnp.ones((2, 8, 8, 3)))


def test_low_precision_goes_back_in_its_own_type(key):
    images = jax.random.normal(key, SIZES)
    wide, _ = sent_back(pooling("max", (3, 3), (2, 2), "SAME"), noise, images)
    found, _ = sent_back(pooling("max", (3, 3), (2, 2), "SAME"), noise, images.astype(jnp.bfloat16))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(np.float32), wide, atol=0.03)


def test_the_divisor_of_an_average_keeps_its_gradient(key):
    images, scale = jax.random.normal(key, (2, 8, 8, 3)), jnp.linspace(1, 2, 3)
    apply = lambda v, x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") * v  # noqa: E731
    (by_scale, by_images), plain = (
        jax.grad(lambda v, x, f=f: f(v, x).sum(), (0, 1))(scale, images)
        for f in (with_rules(apply, RESAMPLED_POOL), apply)
    )
    np.testing.assert_allclose(by_scale, plain[0], rtol=1e-5)
    np.testing.assert_allclose(by_images.sum((1, 2)), plain[1].sum((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("of_relu", [GUIDED, DECONVNET])
def test_composes_with_the_rules_of_relus_and_strides(of_relu, key):
    """Convolution of stride 2, ReLU, max pooling, dense: the same written out by hand."""
    keys = jax.random.split(key, 3)
    images, kernel = jax.random.normal(keys[0], (2, 17, 17, 3)), jax.random.normal(keys[1], (3, 3, 3, 4))
    dense = jax.random.normal(keys[2], (4 * 4 * 4, 5))
    numbers = ("NHWC", "HWIO", "NHWC")

    def strided(x, strides):
        return lax.conv_general_dilated(x, kernel, strides, "VALID", dimension_numbers=numbers)

    def apply(dense, x):
        x = max_pool(jax.nn.relu(strided(x, (2, 2))))
        return x.reshape(2, -1) @ dense

    rules = of_relu | RESAMPLED_STRIDE | RESAMPLED_POOL
    names = matched_layers(apply, rules, dense, images)
    assert names == {
        of_relu.name: ("relu_1",),
        "RESAMPLED_STRIDE": ("conv_1",),
        "RESAMPLED_POOL": ("pool_1",),
    }
    found, g = sent_back(apply, noise, images, rules, dense)
    x = strided(images, (2, 2))
    g = jax.image.resize((g @ dense.T).reshape(2, 4, 4, 4), x.shape, "linear") / 4
    g = jnp.where((g > 0) & ((x > 0) | (of_relu is DECONVNET)), g, 0)
    g = jax.image.resize(g, (2, 15, 15, 4), "nearest")
    expected = jax.vjp(lambda x: strided(x, (1, 1)), images)[1](g)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_table_says_how_the_window_of_a_pooling_slides():
    apply = lambda v, x: jax.nn.relu(nnx.max_pool(x, (3, 2), (2, 2), "SAME")).max((1, 2))  # noqa: E731
    first, relu, last = layers(apply, None, jnp.ones((2, 9, 8, 3)))
    rows, columns = first.pooled
    assert (rows.size, rows.stride, rows.lead, columns.size, columns.lead) == (3, 2, 1, 2, 0)
    assert relu.pooled == last.pooled == ()
