"""Shapes, the fast derivatives against XLA's own, and NNX modules as functions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from vexplain.classifiers import SMALL_NAMES, AllConvNet, FlowerNet, LeNet, build_small, functionalize
from vexplain.classifiers.fast_gradients import convolution, max_pool
from vexplain.transforms import GUIDED, RESAMPLED_STRIDE, layers, matched_layers, with_rules

NHWC = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((2, 1), (0, 3))])
@pytest.mark.parametrize("batch", [1, 4, 5])
def test_gradients_of_convolution_are_those_of_xla(padding, batch):
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((batch, 9, 7, 3), (4, 3, 3, 5)))

    @functools.partial(jax.jit, static_argnums=0)
    def pulled(fn):
        out, send = jax.vjp(lambda x, k: fn(x, k, (1, 1), padding, **NHWC), x, kernel)
        return out, *send(jnp.cos(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape))

    for fast, plain in zip(pulled(convolution), pulled(lax.conv_general_dilated), strict=True):
        np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-4)


def test_strided_convolutions_are_left_to_xla(key):
    x, kernel = jax.random.normal(key, (2, 9, 7, 3)), jnp.ones((3, 3, 3, 5))
    np.testing.assert_array_equal(
        convolution(x, kernel, (2, 1), "SAME", **NHWC),
        lax.conv_general_dilated(x, kernel, (2, 1), "SAME", **NHWC),
    )


@pytest.mark.parametrize("shape", [(2, 6, 4, 3), (3, 7, 5, 2)])
def test_max_pool_and_its_ties_are_those_of_xla(shape, key):
    x = (2 * np.random.default_rng(0).normal(size=shape)).round().astype(np.float32)  # many ties

    def plain(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    @functools.partial(jax.jit, static_argnums=0)
    def pulled(fn):
        out, send = jax.vjp(fn, x)
        return out, *send(jax.random.normal(key, out.shape))

    for fast, expected in zip(pulled(max_pool), pulled(plain), strict=True):
        np.testing.assert_array_equal(fast, expected)


def test_the_flower_network_has_eight_layers_before_its_scores():
    apply, variables = functionalize(FlowerNet(6, image_size=16, rngs=nnx.Rngs(0)))
    images = jnp.zeros((2, 16, 16, 3))
    table = layers(apply, variables, images)
    assert table.names == (
        "conv_1", "relu_1", "pool_1", "conv_2", "relu_2", "pool_2", "dense_1", "relu_3", "dense_2",
    )  # fmt: skip
    assert [row.num_channels for row in table] == [20, 20, 20, 50, 50, 50, 500, 500, 6]
    assert table["pool_2"].receptive_field == (16, 16)
    jax.eval_shape(with_rules(apply, GUIDED), variables, images)


def test_the_mnist_network_is_that_of_matconvnet():
    apply, variables = functionalize(LeNet(rngs=nnx.Rngs(0)))
    table = layers(apply, variables, jnp.zeros((1, 28, 28, 1)))
    assert [row.shape[1:] for row in table.select("conv")] == [(24, 24, 20), (8, 8, 50), (1, 1, 500)]
    assert sum(p.size for p in jax.tree.leaves(variables)) == 431_080


def test_the_network_without_pooling_reduces_by_strides_alone():
    apply, variables = functionalize(AllConvNet(6, num_channels=1, width=4, rngs=nnx.Rngs(0)))
    images = jnp.zeros((2, 26, 21, 1))
    table = layers(apply, variables, images)
    assert [row.shape[1:] for row in table.select("relu")] == [
        (13, 11, 4), (13, 11, 4), (7, 6, 8), (7, 6, 8), (4, 3, 16),
    ]  # fmt: skip
    assert table.select("conv").names[-1] == "conv_6"
    assert table["conv_6"].shape[1:] == (4, 3, 6)  # class scores of every position
    matched = matched_layers(apply, GUIDED | RESAMPLED_STRIDE, variables, images)
    assert matched["RESAMPLED_STRIDE"] == ("conv_1", "conv_3", "conv_5")
    assert len(matched["GUIDED"]) == 5
    assert jax.eval_shape(apply, variables, images).shape == (2, 6)


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_a_small_network_has_the_width_and_the_seed_that_it_is_told(name):
    apply, variables = build_small(name, 3, image_size=16, width=4, seed=1)
    again, same = build_small(name, 3, image_size=16, width=4, seed=1)
    _, other = build_small(name, 3, image_size=16, width=4, seed=2)
    assert apply == again
    jax.tree.map(np.testing.assert_array_equal, variables, same)
    assert variables["conv1"]["kernel"].shape[-1] == 4
    assert not np.array_equal(variables["conv1"]["kernel"], other["conv1"]["kernel"])
    assert build_small(name, 3, image_size=16)[1]["conv1"]["kernel"].shape[-1] >= 20


def test_small_networks_that_there_are_not():
    with pytest.raises(ValueError, match="name is 'lenet': expected one of flower_net, all_conv_net"):
        build_small("lenet", 3, image_size=16)
    with pytest.raises(ValueError, match="width is 0: expected a number of channels"):
        build_small("all_conv_net", 3, image_size=16, width=0)


def test_two_modules_of_one_architecture_share_what_is_compiled():
    traces = []

    @jax.jit
    def run(variables, images):
        return images

    first, a = functionalize(FlowerNet(6, image_size=8, widths=(2, 3, 4), rngs=nnx.Rngs(0)))
    second, b = functionalize(FlowerNet(6, image_size=8, widths=(2, 3, 4), rngs=nnx.Rngs(1)))
    assert first == second
    assert hash(first) == hash(second)
    assert not np.array_equal(a["conv1"]["kernel"], b["conv1"]["kernel"])

    def scored(apply, variables, images):
        traces.append(1)
        return apply(variables, images)

    jitted = jax.jit(scored, static_argnums=0)
    images = jnp.zeros((1, 8, 8, 3))
    assert not np.array_equal(jitted(first, a, images), jitted(second, b, images))
    assert len(traces) == 1


def test_evaluation_mode_and_the_module_is_left_alone(key):
    class Normed(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.norm(x)).mean((1, 2))

    module = Normed(nnx.Rngs(0))
    apply, variables = functionalize(module)
    images = jax.random.uniform(key, (4, 5, 6, 3))
    np.testing.assert_allclose(apply(variables, images), images.mean((1, 2)), rtol=1e-4)
    assert module.norm.use_running_average is False
    assert set(variables) == {"norm"}


@pytest.mark.parametrize("shape", [(2, 16, 16, 1), (2, 20, 16, 3)])
def test_images_of_another_shape_are_refused(shape):
    apply, variables = functionalize(FlowerNet(6, image_size=16, widths=(2, 3, 4), rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"this network expects \(batch, 16, 16, 3\)"):
        apply(variables, jnp.zeros(shape))


def test_sizes_that_the_networks_cannot_have():
    with pytest.raises(ValueError, match="image_size is 10: expected a multiple of 4"):
        FlowerNet(6, image_size=10, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="image_size is 12: this network needs at least 16"):
        LeNet(image_size=12, rngs=nnx.Rngs(0))
