"""Batch, positions and channels are followed through every way to move axes about, or said to be unknown.

The oracle of a layer is the same activation by a network that moves nothing, the oracle of a receptive field
one pixel that is changed. (One that is NaN would reach further: a resize multiplies it by zeros.)
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.transforms.networks import NHWC
from vexplain.attribution import cam_layer, grad_cam
from vexplain.relevance.candidates import candidate_layers
from vexplain.transforms import as_layer_output, channels_last, layers, read

SHAPE = (2, 8, 12, 3)
W = {
    "conv": jax.random.normal(jax.random.key(0), (3, 3, 3, 8)) / 2,
    "next": jax.random.normal(jax.random.key(1), (3, 3, 8, 8)) / 3,
    "dense": jax.random.normal(jax.random.key(2), (8, 6)),
    "head": jax.random.normal(jax.random.key(3), (6, 5)),
}
relu = jax.nn.relu


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(4), SHAPE)


def conv(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=NHWC)


def first(v, images):
    return relu(conv(images, v["conv"]))


def plain(v, images):
    """relu_2 is what the networks below compute in other ways."""
    return relu(first(v, images) @ v["dense"]).mean((1, 2)) @ v["head"]


def channels_first(v, x):
    return relu(jnp.einsum("bhwc,cd->bdhw", first(v, x), v["dense"])).mean((2, 3)) @ v["head"]


def over_tokens(v, x):
    x = jnp.moveaxis(first(v, x), -1, 1)
    n, c, h, w = x.shape
    tokens = x.reshape(n, c, h * w).transpose(0, 2, 1) @ v["dense"]
    return relu(tokens.transpose(0, 2, 1).reshape(n, -1, h, w)).mean((2, 3)) @ v["head"]


def tokens_themselves(v, x):
    return relu(first(v, x).reshape(2, -1, 8) @ v["dense"]).mean(1) @ v["head"]


def tokens_column_by_column(v, x):
    return relu(first(v, x).transpose(0, 2, 1, 3).reshape(2, -1, 8) @ v["dense"]).mean(1) @ v["head"]


def with_a_class_token(v, x):
    tokens = jnp.concatenate([jnp.ones((2, 1, 8)), first(v, x).reshape(2, -1, 8)], 1)
    return relu(tokens @ v["dense"])[:, 1:].mean(1) @ v["head"]


def windows(v, x):
    """4 × 4 windows, each a part of the batch, as in Swin."""
    x = first(v, x).reshape(2, 2, 4, 3, 4, 8).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8)
    x = relu(x @ v["dense"])
    x = x.reshape(2, 2, 3, 4, 4, 6).transpose(0, 1, 3, 2, 4, 5).reshape(2, 8, 12, 6)
    return x.mean((1, 2)) @ v["head"]


def shifted_windows(v, x):
    x = jnp.roll(first(v, x), (-2, -1), (1, 2))
    x = x.reshape(2, 2, 4, 3, 4, 8).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 16, 8)
    x = relu(x @ v["dense"])
    x = x.reshape(2, 2, 3, 4, 4, 6).transpose(0, 1, 3, 2, 4, 5).reshape(2, 8, 12, 6)
    return jnp.roll(x, (2, 1), (1, 2)).mean((1, 2)) @ v["head"]


def pixels_of_all_images(v, x):
    return relu(first(v, x).reshape(-1, 8) @ v["dense"]).reshape(2, -1, 6).mean(1) @ v["head"]


def turned(v, x):
    return relu(first(v, x)[:, ::-1, ::-1] @ v["dense"]).mean((1, 2)) @ v["head"]


def image_by_image(v, x):
    return jax.vmap(lambda image: plain(v, image[None])[0])(x)


def groups(v, x):
    x = jnp.einsum("bhwc,cgd->bhwgd", first(v, x), v["dense"].reshape(8, 2, 3))
    return relu(x).mean((1, 2)).reshape(2, 6) @ v["head"]


MOVED = [
    channels_first,
    over_tokens,
    tokens_themselves,
    tokens_column_by_column,
    with_a_class_token,
    windows,
    shifted_windows,
    pixels_of_all_images,
    turned,
    image_by_image,
    groups,
]


@pytest.fixture(scope="module")
def expected(images):
    return jax.jit(read(plain, ["relu_2"]))(W, images)[1]["relu_2"]


@pytest.mark.parametrize("network", MOVED)
def test_an_activation_is_brought_into_the_order_of_the_image(network, images, expected):
    row = layers(network, W, images)["relu_2"]
    assert row.grid == (8, 12)
    assert row.num_channels == 6

    @jax.jit
    def there_and_back(images):
        found = read(network, ["relu_2"])(W, images)[1]["relu_2"]
        maps = channels_last(found, row)
        return found, maps, as_layer_output(maps, row, like=found)

    found, maps, again = there_and_back(images)
    np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(again, found)
    assert row.window(0, 0)[2:] == (2, 2)
    assert row.visible(7, 11) == layers(plain, W, images)["relu_2"].visible(7, 11) == (6, 10, 8, 12)
    assert cam_layer(layers(network, W, images)) == "relu_2"


@pytest.mark.parametrize("network", [with_a_class_token, shifted_windows, turned])
def test_a_class_activation_map_does_not_depend_on_how_positions_are_kept(network, images):
    expected = grad_cam(plain, W, images, targets=2)
    np.testing.assert_allclose(grad_cam(network, W, images, targets=2), expected, rtol=1e-4, atol=1e-5)


def half(v, x):
    return jnp.split(first(v, x), 2, axis=3)[1]


def pooled(v, x):
    return first(v, x).reshape(2, 4, 2, 6, 2, 8).mean((2, 4))


def adaptively_pooled(v, x):
    x, cuts = first(v, x), ((0, 3), (2, 6), (5, 8))
    rows = [jnp.stack([x[:, a:b, c : c + 4].mean((1, 2)) for c in (0, 4, 8)], 1) for a, b in cuts]
    return jnp.stack(rows, 1)


def resized(method):
    return lambda v, x: jax.image.resize(first(v, x), (2, 10, 15, 8), method)


def repeated(v, x):
    return jnp.repeat(jnp.repeat(first(v, x), 2, 1), 2, 2)


def space_to_depth(v, x):
    x = first(v, x).reshape(2, 4, 2, 6, 2, 8).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(2, 4, 6, 32)


def pixel_shuffle(v, x):
    x = first(v, x).reshape(2, 8, 12, 2, 2, 2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(2, 16, 24, 2)


def channel_shuffle(v, x):
    return first(v, x).reshape(2, 8, 12, 2, 4).swapaxes(3, 4).reshape(2, 8, 12, 8)


RESHAPED = {
    "split": half,
    "pooled by reshape": pooled,
    "adaptive pooling": adaptively_pooled,
    "bilinear": resized("bilinear"),
    "nearest": resized("nearest"),
    "cubic": resized("cubic"),
    "repeat": repeated,
    "roll": lambda v, x: jnp.roll(first(v, x), 3, 2),
    "space to depth": space_to_depth,
    "pixel shuffle": pixel_shuffle,
    "channel shuffle": channel_shuffle,
    "transposed convolution": lambda v, x: lax.conv_transpose(first(v, x), v["next"], (2, 2), "SAME"),
    "constant gather": lambda v, x: first(v, x)[:, np.array([1, 5, 2])],
    "padded": lambda v, x: jnp.pad(first(v, x), ((0, 0), (2, 1), (0, 3), (0, 0)), mode="reflect"),
}


@pytest.mark.parametrize("name", RESHAPED)
def test_what_follows_has_the_positions_and_the_exact_receptive_field(name):
    """One other pixel in each of 96 images; what follows is a 1 × 1 convolution, whatever came before."""

    def apply(v, x):
        x = RESHAPED[name](v, x)
        return jnp.einsum("bhwc,cd->bhwd", x, jnp.ones((x.shape[-1], 4))).mean((1, 2))

    table = layers(apply, W, jax.ShapeDtypeStruct(SHAPE, jnp.float32))
    (row,) = [row for row in table if row.kind == "dense"]
    assert row.batch_axis == 0
    assert row.grid == row.shape[1:3]
    assert (row.channel_axis, row.num_channels) == (3, 4)
    assert cam_layer(table) == row.name
    weights = jax.tree.map(np.abs, W)  # so that every ReLU lets everything pass
    same = np.tile(np.random.default_rng(7).uniform(size=(1, *SHAPE[1:])).astype(np.float32), (96, 1, 1, 1))
    rows, columns = np.indices(SHAPE[1:3]).reshape(2, -1)
    changed = same.copy()
    changed[np.arange(96), rows, columns] += 5
    reading = jax.jit(lambda pair: channels_last(read(apply, [row.name])(weights, pair)[1][row.name], row))
    values = [np.concatenate([reading(x[i : i + 2]) for i in range(0, 96, 2)]) for x in (same, changed)]
    arrived = (np.abs(values[1] - values[0]) > 1e-4).any(-1).reshape(8, 12, *row.grid)
    for position in np.ndindex(row.grid):
        seen = np.argwhere(arrived[(slice(None), slice(None), *position)])
        box = (*seen.min(0), *(seen.max(0) + 1))
        assert row.visible(*position) == box, position
        top, left, bottom, right = row.window(*position)
        assert top <= box[0] < box[2] <= bottom
        assert left <= box[1] < box[3] <= right


def test_a_resize_is_no_layer_and_a_roll_no_concatenation(images):
    def apply(v, x):
        x = jax.image.resize(jnp.roll(first(v, x), 2, 1), (2, 10, 14, 8), "bilinear")
        return relu(conv(x, v["next"])).mean((1, 2))

    assert layers(apply, W, images).names == ("conv_1", "relu_1", "conv_2", "relu_2", "pool_1")


def test_a_dense_layer_on_the_pixels_of_a_gray_image_is_one():
    apply = lambda v, x: relu(x.reshape(len(x), -1) @ v)  # noqa: E731
    table = layers(apply, jnp.ones((96, 5)), jax.ShapeDtypeStruct((2, 8, 12, 1), jnp.float32))
    assert [(row.name, row.num_channels, row.batch_axis) for row in table] == [
        ("dense_1", 5, 0),
        ("relu_1", 5, 0),
    ]


def attention(q, k, v):
    return jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v


def transformer(class_token):
    """One block with a residual connection, on patches of 4 × 4 pixels."""
    keys = iter(jax.random.split(jax.random.key(8), 8))
    weights = {n: jax.random.normal(next(keys), (10, 10)) / 3 for n in ("q", "k", "v", "out")}
    weights["patch"] = jax.random.normal(next(keys), (4, 4, 3, 10)) / 4
    weights["token"] = jax.random.normal(next(keys), (1, 1, 10))

    def apply(v, x):
        x = lax.conv_general_dilated(x, v["patch"], (4, 4), "VALID", dimension_numbers=NHWC)
        x = x.reshape(len(x), -1, 10)
        if class_token:
            x = jnp.concatenate([jnp.broadcast_to(v["token"], (len(x), 1, 10)), x], 1)
        for _ in range(2):
            y = jax.nn.standardize(x) * 2.0
            x = x + attention(y @ v["q"], y @ v["k"], y @ v["v"]) @ v["out"]
        return x[:, 0] if class_token else x.mean(1)

    return apply, weights


def test_the_grid_of_a_transformer_comes_from_its_patches(images):
    apply, weights = transformer(class_token=False)
    table = layers(apply, weights, images)
    assert {row.grid for row in table.select("add", "norm", "dense")} == {(2, 3)}
    assert cam_layer(table) == "add_2"
    assert table["add_1"].sees_whole_image
    assert table["norm_1"].visible(1, 2) == (4, 8, 8, 12)


def test_with_a_class_token_the_map_is_what_the_last_attention_reads(images):
    """After it only the class token has an influence: the gradient by all other tokens is zero."""
    apply, weights = transformer(class_token=True)
    table = layers(apply, weights, images)
    last = table[cam_layer(table)]
    assert last.name == "norm_2"
    assert (last.shape, last.grid) == ((2, 7, 10), (2, 3))
    assert np.asarray(grad_cam(apply, weights, images, targets=1)).any()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_class_token_that_attention_made_is_joined_with_the_tokens(size):
    def apply(v, x):
        tokens = first(v, x).reshape(size, -1, 8)
        token = jnp.zeros((size, 1, 8)) + v["dense"][:, 0]
        token += attention(token, tokens, tokens)
        return relu(jnp.concatenate([token, tokens], 1) @ v["dense"])[:, 0] @ v["head"]

    row = layers(apply, W, jax.ShapeDtypeStruct((size, *SHAPE[1:]), jnp.float32))["relu_2"]
    assert (row.shape, row.batch_axis, row.grid) == ((size, 97, 6), 0, (8, 12))


@pytest.mark.parametrize("size", [1, 3])
def test_one_image_is_followed_as_several_are(size):
    """`jnp.matmul` squeezes a batch of one window, `lax.map` stacks one image."""
    weights = jax.random.normal(jax.random.key(7), (3, 6))

    def one_window(v, x):
        x = (x @ v).reshape(-1, 1, 8, 1, 12, 6).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 96, 6)
        return relu(attention(x, x, x) @ jnp.ones((6, 4)))

    def mapped(v, x):
        return relu(lax.map(lambda image: image @ v, x) @ jnp.ones((6, 4)))

    for apply in (one_window, mapped):
        row = layers(apply, weights, jax.ShapeDtypeStruct((size, *SHAPE[1:]), jnp.float32))["relu_1"]
        assert (row.batch_axis, row.grid, row.channel_axis) == (0, (8, 12), len(row.shape) - 1)


def test_the_map_of_branches_is_where_they_are_joined(images):
    def apply(v, x):
        left, right = relu(conv(x, v["conv"])), relu(conv(x, -v["conv"]))
        return jnp.concatenate([left, right], -1).mean((1, 2))

    assert cam_layer(layers(apply, W, images)) == "concatenate_1"


def test_what_cannot_be_followed_is_left_out_with_a_warning(images, caplog):
    def apply(v, x):
        x = first(v, x)
        mixed = jnp.take_along_axis(
            x, jnp.argsort(x, axis=1), axis=1
        )  # rows in an order that depends on them
        return relu(mixed @ v["dense"]).mean((1, 2)) @ v["head"]

    table = layers(apply, W, images)
    assert table["relu_2"].batch_axis is None
    chosen = [row.name for row in candidate_layers(table)]
    assert "relu_1" in chosen
    assert "relu_2" not in chosen
    assert "left out, for their batch, positions and channels could not be followed: dense_1" in caplog.text


def test_copies_merged_with_the_batch_are_no_positions(images):
    def apply(v, x):
        pooled = first(v, x).mean((1, 2), keepdims=True)
        return (
            relu(jnp.broadcast_to(pooled, (2, 8, 12, 8)).reshape(-1, 8) @ v["dense"])
            .reshape(2, -1, 6)
            .mean(1)
        )

    row = layers(apply, W, images)["relu_2"]
    assert (row.shape, row.batch_axis) == ((192, 6), None)


def test_layers_that_mix_the_images_of_a_batch_are_left_out_with_a_warning(images, caplog):
    def apply(v, x):
        x = conv(x, v["conv"])
        x = (x - x.mean((0, 1, 2))) * lax.rsqrt(x.var((0, 1, 2)) + 1e-5) * v["dense"][:, 0] + v["dense"][:, 1]
        return relu(x).mean((1, 2)) @ v["dense"]

    assert [row.name for row in candidate_layers(layers(apply, W, images))] == ["conv_1"]
    assert "left out, for they mix the images of a batch (a normalization in training mode?)" in caplog.text


def test_several_inputs_are_refused_with_the_way_out(images):
    with pytest.raises(ValueError, match=r"images is a tuple of 2 arrays.*lambda v, images: apply"):
        layers(lambda v, x: x[0].mean((1, 2)), None, (images, images))


def test_a_grid_of_tokens_that_cannot_be_found_is_given(images):
    """Learned queries, as in a Perceiver: nothing in the program says that token 4 is at row 1, column 1."""
    queries = jax.random.normal(jax.random.key(9), (7, 8))

    def apply(v, x):
        tokens = attention(queries, first(v, x).reshape(2, -1, 8), first(v, x).reshape(2, -1, 8))
        return relu(tokens @ v["dense"]).mean(1) @ v["head"]

    table = layers(apply, W, images)
    row = table["relu_3"].with_grid((2, 3))
    found = read(apply, ["relu_3"])(W, images)[1]["relu_3"]
    np.testing.assert_array_equal(channels_last(found, row), found[:, 1:].reshape(2, 2, 3, 6))
    assert grad_cam(apply, W, images, targets=1, layer=row).shape == (2, 8, 12)
    with pytest.raises(ValueError, match=r"grid is \(2, 4\).*tokens >= 8"):
        table["relu_3"].with_grid((2, 4))
