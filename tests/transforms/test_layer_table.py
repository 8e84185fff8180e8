"""Names, kinds and receptive fields; the oracle for a field is one pixel set to NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from tests.transforms import networks
from vexplain.classifiers.layers import local_response_norm
from vexplain.transforms import channels_last, layers, read

SHAPE = (2, 13, 11, 3)


@pytest.mark.parametrize("style", networks.ALL)
def test_a_field_is_the_smallest_box_around_the_pixels_whose_nan_arrives(style):
    apply, variables = networks.ALL[style]()
    images = jnp.tile(jax.random.uniform(jax.random.key(5), (1, *SHAPE[1:])), (143, 1, 1, 1))
    pixels = np.indices((13, 11)).reshape(2, 143)
    images = images.at[np.arange(143), pixels[0], pixels[1]].set(jnp.nan)  # one pixel an image
    table = layers(apply, variables, images)
    names = ["conv_1"] if style == "plain" else table.names  # where(nan > 0, nan, 0) is 0
    found = jax.jit(lambda images: read(apply, names)(variables, images)[1])(images)
    for name in names:
        arrived = np.isnan(np.asarray(channels_last(found[name], table[name]))).any(-1)
        arrived = np.moveaxis(arrived.reshape(13, 11, *arrived.shape[1:]), (0, 1), (-2, -1))
        num_spatial = sum(a is not None for a in table[name].spatial_axes)
        for position in np.ndindex(arrived.shape[:-2]):
            rows, columns = np.nonzero(arrived[position])
            box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
            assert table[name].visible(*(position if num_spatial else (0, 0))) == box, (name, position)


def test_a_dilated_window_is_the_box_around_its_lattice():
    def apply(kernel, images):
        return jax.lax.conv_general_dilated(
            images, kernel, (2, 1), "VALID", rhs_dilation=(3, 2), dimension_numbers=networks.NHWC
        )

    table = layers(apply, jnp.ones((2, 3, 3, 4)), jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert table["conv_1"].receptive_field == (4, 5)
    assert table["conv_1"].window(2, 3) == (4, 3, 8, 8)


def test_names_and_kinds_of_each_style():
    expected = {
        "nnx": "conv_1 norm_1 relu_1 conv_2 conv_3 add_1 relu_2 pool_1 dense_1",
        "linen": "Conv_0 relu_1 pool_1 Conv_1 GroupNorm_0 relu_2 pool_2 Dense_0",
        "plain": "conv_1 relu_1 pool_1 dense_1",
        "gated": "conv_1 relu_1 pool_1 dense_1 relu_2 pool_2 dense_2",
    }
    for style, names in expected.items():
        apply, variables = networks.ALL[style]()
        table = layers(apply, variables, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
        assert set(names.split()) == set(table.names), (style, table.names)


def test_a_gate_makes_the_field_the_whole_image():
    apply, variables = networks.gated_network()
    table = layers(apply, variables, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert not table["relu_1"].sees_whole_image
    assert table["relu_1"].receptive_field == (3, 3)
    assert table["relu_2"].visible(0, 0) == (1, 2, 11, 11)  # all of images[:, 1:-2, 2:]


def test_convolution_means_after_its_bias():
    apply, variables = networks.linen_network()
    images = jax.random.uniform(jax.random.key(0), (1, 13, 11, 3))
    params = variables["params"]["Conv_0"]
    shifted = {**variables["params"], "Conv_0": {**params, "bias": params["bias"] + 2.5}}
    before = read(apply, ["Conv_0"])(variables, images)[1]["Conv_0"]
    after = read(apply, ["Conv_0"])({"params": shifted}, images)[1]["Conv_0"]
    np.testing.assert_allclose(after - before, 2.5, rtol=1e-5)


def test_variance_clipping_of_normalization_layers_is_no_relu():
    class Norms(nnx.Module):
        def __init__(self, rngs):
            self.layer = nnx.LayerNorm(3, rngs=rngs)
            self.batch = nnx.BatchNorm(3, use_running_average=False, rngs=rngs)
            self.group = nnx.GroupNorm(3, num_groups=3, rngs=rngs)

        def __call__(self, x):
            return self.group(self.batch(self.layer(x))).mean((1, 2))

    graph, state = nnx.split(Norms(nnx.Rngs(0)))
    table = layers(
        lambda v, x: nnx.merge(graph, v, copy=True)(x), state, jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    )
    assert not table.select("relu").layers


def test_named_values_are_layers():
    def apply(variables, images):
        return checkpoint_name(images * 2, "doubled").mean((1, 2))

    table = layers(apply, None, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert table["doubled"].shape == SHAPE


def test_channels_first_and_vmapped_single_images():
    kernel = jnp.ones((6, 3, 3, 3))

    def single(kernel, image):
        x = jnp.moveaxis(image, -1, 0)[None]
        x = jax.lax.conv_general_dilated(x, kernel, (2, 1), "VALID")[0]
        return jax.nn.relu(x).mean((1, 2))

    def apply(variables, images):
        return jax.vmap(single, (None, 0))(variables, images)

    table = layers(apply, kernel, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert table["relu_1"].num_channels == 6
    assert table["relu_1"].batch_axis == 0
    assert [table["relu_1"].shape[a] for a in table["relu_1"].spatial_axes] == [6, 9]
    assert table["relu_1"].receptive_field == (3, 3)


def test_scan_is_read_as_the_loop_that_it_abbreviates():
    def apply(variables, images):
        step = lambda x, w: (jax.nn.relu(x * w), None)  # noqa: E731
        return jax.lax.scan(step, images, variables)[0].mean((1, 2))

    table = layers(apply, jnp.ones(3), jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert table.select("relu").names == ("relu_1", "relu_2", "relu_3")


def test_an_unknown_name_lists_the_nearest():
    apply, variables = networks.plain_network()
    table = layers(apply, variables, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    with pytest.raises(KeyError, match=r"no layer 'conv1'.*conv_1"):
        table["conv1"]


def test_images_must_have_four_axes():
    with pytest.raises(ValueError, match=r"images has shape \(13, 11, 3\).*images\[None\]"):
        layers(lambda v, x: x[0, 0, 0, 0], None, jax.ShapeDtypeStruct(SHAPE[1:], jnp.float32))


def test_an_einsum_is_a_dense_layer_and_its_formula_no_module_path():
    def apply(variables, images):
        x = jax.nn.relu(jnp.einsum("bhwc,cd->bhwd", images, variables) + 0.5)
        return jnp.einsum("bi, io", x.mean((1, 2)), variables)

    table = layers(apply, jnp.ones((3, 3)), jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert table.names == ("dense_1", "relu_1", "pool_1", "dense_2")


def test_the_table_prints_itself_and_is_indexed_by_place():
    apply, variables = networks.plain_network()
    table = layers(apply, variables, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert repr(table) == str(table)
    assert "every 3/2 px" in repr(table)
    square = layers(lambda v, x: jax.nn.relu(x[:, ::2, ::2]), None, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert repr(square).endswith("every 2 px")
    assert table[0] is table["conv_1"]
    assert table[-1] is table["dense_1"]


def test_an_unknown_kind_lists_those_that_are_there():
    apply, variables = networks.plain_network()
    table = layers(apply, variables, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    with pytest.raises(ValueError, match=r"called 'convolution'; this table has: conv, dense, pool, relu"):
        table.select("convolution")
    assert not len(table.select("gelu"))  # a kind, though not here


def by_slices(x, beta):
    """The same sum as slices of a padded map, a root as `exp(log)`, and a division."""
    squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (1, 1)))
    energy = sum(squares[..., k : k + x.shape[-1]] for k in range(3))
    return x / jnp.exp(beta * jnp.log(2.0 + 0.1 * energy))


def by_windows(x, beta):
    return local_response_norm(x, size=3, alpha=0.1, beta=beta)


@pytest.mark.parametrize("normalize", [by_windows, by_slices])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_local_response_normalization_is_one_layer(normalize, beta):
    """The paper counts its output among the features; its sum over channels is no pooling."""

    def apply(dense, images):
        return normalize(jax.nn.relu(images @ dense), beta).max((1, 2)) @ dense.T

    dense = jax.random.normal(jax.random.key(0), (3, 5))
    images = jax.random.uniform(jax.random.key(1), SHAPE)
    table = layers(apply, dense, images)
    assert table.names == ("dense_1", "relu_1", "norm_1", "pool_1", "dense_2")
    found = read(apply, ["relu_1", "norm_1"])(dense, images)[1]
    x = np.pad(np.asarray(found["relu_1"], np.float64), ((0, 0), (0, 0), (0, 0), (1, 1)))
    energy = x[..., :-2] ** 2 + x[..., 1:-1] ** 2 + x[..., 2:] ** 2
    np.testing.assert_allclose(found["norm_1"], x[..., 1:-1] / (2 + 0.1 * energy) ** beta, rtol=1e-5)


def test_a_residual_addition_before_a_response_normalization_stays():
    def apply(dense, images):
        x = jax.nn.relu(images @ dense)
        return by_slices(x + x @ dense.T @ dense, 0.75).max((1, 2)) @ dense.T

    table = layers(apply, jnp.ones((3, 5)), jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert [row.kind for row in table] == ["dense", "relu", "dense", "dense", "add", "norm", "pool", "dense"]


def test_a_pooling_of_squares_stays_a_pooling():
    """L2 pooling has the sum, the squares and the root, but divides nothing by them."""

    def apply(dense, images):
        x = images @ dense
        pooled = jax.lax.reduce_window(x**2, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") ** 0.5
        return pooled.max((1, 2)) @ dense.T

    table = layers(apply, jnp.ones((3, 5)), jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    assert [row.kind for row in table].count("pool") == 2
    assert "norm" not in {row.kind for row in table}
