"""Crops against the pixels whose NaN arrives; averages against loops; a planted patch comes back exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.transforms import networks
from vexplain.datasets import ArraySource, subset
from vexplain.relevance import Relevance, average_image, crop_windows, feature_index, interpret, layout_of
from vexplain.streaming.devices import data_mesh
from vexplain.transforms import channels_last, layers, read

HEIGHT, WIDTH = 13, 11


def ones(style):
    """A network whose weights are all one: only where things are matters here."""
    apply, variables = networks.ALL[style]()
    return apply, jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), variables)


@pytest.mark.parametrize(
    ("style", "name", "size", "strides"),
    [
        ("plain", "conv_1", (4, 3), (3, 2)),
        ("linen", "Conv_1", (8, 9), (2, 1)),  # behind a pooling whose padding is asymmetric
        ("gated", "conv_1", (3, 3), (1, 1)),  # sees images[:, 1:-2, 2:] only
    ],
)
def test_a_crop_holds_the_pixels_whose_nan_arrives_and_no_other(style, name, size, strides):
    apply, variables = ones(style)
    num_pixels = HEIGHT * WIDTH
    image = np.arange(1.0, num_pixels + 1).reshape(HEIGHT, WIDTH) / (num_pixels + 1)
    images = np.tile(image[None, :, :, None], (num_pixels, 1, 1, 3)).astype(np.float32)
    spoiled = images.copy()
    spoiled[np.arange(num_pixels), *np.indices((HEIGHT, WIDTH)).reshape(2, -1)] = np.nan
    layer = layers(apply, variables, images)[name]
    found = jax.jit(read(apply, [name]))(variables, spoiled)[1][name]
    arrived = np.isnan(np.asarray(channels_last(found, layer))).any(-1)
    arrived = np.moveaxis(arrived.reshape(HEIGHT, WIDTH, *arrived.shape[1:]), (0, 1), (-2, -1))
    positions = list(np.ndindex(arrived.shape[:2]))
    rows, columns = zip(*positions, strict=True)
    crops = crop_windows(images[: len(positions)], layer, rows, columns)
    assert crops.shape == (len(positions), *size, 3)

    boxes = {p: [np.flatnonzero(arrived[p].any(a)) for a in (1, 0)] for p in positions}
    full = [p for p in positions if tuple(map(len, boxes[p])) == size]
    assert full
    assert len(full) < len(positions)
    corner = [boxes[full[0]][a][0] - strides[a] * full[0][a] for a in (0, 1)]
    for p, crop in zip(positions, crops, strict=True):
        expected = np.full(size, np.nan, np.float32)
        for r in boxes[p][0]:
            for c in boxes[p][1]:
                expected[r - corner[0] - strides[0] * p[0], c - corner[1] - strides[1] * p[1]] = image[r, c]
        np.testing.assert_array_equal(crop, np.tile(expected[..., None], 3), err_msg=str(p))


def test_what_sees_the_whole_image_is_not_cropped(key):
    apply, variables = ones("plain")
    images = np.asarray(jax.random.uniform(key, (4, HEIGHT, WIDTH, 3)))
    table = layers(apply, variables, images)
    for name in ("pool_1", "dense_1"):
        np.testing.assert_array_equal(crop_windows(images, table[name], [0] * 4, [0] * 4), images)


def test_no_image_gives_no_crop_and_an_empty_average():
    apply, variables = ones("plain")
    table = layers(apply, variables, jax.ShapeDtypeStruct((1, HEIGHT, WIDTH, 3), jnp.float32))
    crops = crop_windows(np.zeros((0, HEIGHT, WIDTH, 3), np.float32), table["conv_1"], [], [])
    assert crops.shape == (0, 4, 3, 3)
    assert np.isnan(average_image(crops)).all()


def test_positions_must_be_one_an_image():
    apply, variables = ones("plain")
    images = np.zeros((2, HEIGHT, WIDTH, 3), np.float32)
    table = layers(apply, variables, images)
    with pytest.raises(ValueError, match="zip"):
        crop_windows(images, table["conv_1"], [1], [1])


def test_the_average_leaves_missing_pixels_out():
    rng = np.random.default_rng(0)
    crops = rng.uniform(size=(5, 4, 3, 2)).astype(np.float32)
    crops[rng.uniform(size=crops.shape) < 0.4] = np.nan
    crops[:, 1, 2] = np.nan
    average = average_image(crops)
    for place in np.ndindex(4, 3, 2):
        there = [crop[place] for crop in crops if not np.isnan(crop[place])]
        expected = sum(there) / len(there) if there else np.nan
        np.testing.assert_allclose(average[place], expected, rtol=1e-6)


# --------------------------------------------------------------- a network that detects known patches

PATCHES = np.array(
    [
        [[1, 0, 0, 0, 1], [1, 1, 0, 1, 0], [0, 0, 0, 1, 0]],
        [[0, 1, 1, 1, 0], [0, 0, 1, 0, 1], [1, 0, 0, 0, 0]],
    ],
    np.float32,
)
NAMES = ("leaf", "petal")
SIZE = (17, 14)


def detector(variables, images):
    """One template a channel: an excess over the template's own pixels is punished. Then the maximum."""
    kernel, dense = variables
    x = lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=networks.NHWC)
    return jax.nn.relu(x).max((1, 2)) @ dense


def planted(num_images):
    """Class c shows patch c at a random place, brighter from image to image."""
    rng = np.random.default_rng(3)
    images = np.zeros((num_images, *SIZE, 1), np.float32)
    labels = np.arange(num_images) % 2
    for n in range(num_images):
        row, column = rng.integers(0, SIZE[0] - 3 + 1), rng.integers(0, SIZE[1] - 5 + 1)
        strength = 0.5 + 0.5 * n / num_images
        images[n, row : row + 3, column : column + 5, 0] = strength * PATCHES[labels[n]]
    return ArraySource(images, labels, class_names=NAMES)


@pytest.fixture(scope="module")
def variables():
    kernel = jnp.stack([jnp.asarray(2 * patch - 1) for patch in PATCHES], -1)[:, :, None]
    return kernel, jnp.eye(2)


@pytest.fixture(scope="module")
def table(variables):
    return layers(detector, variables, jax.ShapeDtypeStruct((1, *SIZE, 1), jnp.float32))


def made_relevance(table, weights):
    layout = layout_of(table.layers[:-1])
    matrix = np.zeros((6, 2))
    for layer, channel, label, weight in weights:
        matrix[feature_index(layout, layer, channel), label] = weight
    return Relevance(matrix, np.zeros(2), np.ones(2), np.asarray(10.0), layout, NAMES)


@pytest.mark.parametrize("num_devices", [1, 8])
def test_a_planted_patch_is_what_its_feature_shows(num_devices, variables, table):
    relevance = made_relevance(table, [("conv_1", 0, 0, 2.0), ("relu_1", 1, 1, 0.5), ("pool_1", 0, 1, 3.0)])
    source = planted(41)
    views = interpret(
        detector,
        variables,
        table,
        relevance,
        source,
        num_images=11,
        batch_size=16,
        mesh=data_mesh(num_devices),
        description=None,
    )
    assert [(v.class_name, v.layer, v.channel, v.weight) for v in views] == [
        ("leaf", "conv_1", 0, 2.0),
        ("petal", "pool_1", 0, 3.0),
        ("petal", "relu_1", 1, 0.5),
    ]
    strongest = {0: np.arange(40, 18, -2), 1: np.arange(39, 17, -2)}
    for view, label in ((views[0], 0), (views[2], 1)):
        np.testing.assert_array_equal(view.indices, strongest[label])
        strengths = 0.5 + 0.5 * view.indices / 41
        expected = strengths[:, None, None, None] * PATCHES[label][..., None]
        assert view.crops.shape == (9, 3, 5, 1)
        np.testing.assert_allclose(view.crops, expected[:9], rtol=1e-6)
        np.testing.assert_allclose(view.average, expected.mean(0), rtol=1e-6)
        np.testing.assert_allclose(view.values, strengths * PATCHES[label].sum(), rtol=1e-5)
        assert not view.sees_whole_image
        assert view.receptive_field == (3, 5)
    whole = views[1]
    assert whole.sees_whole_image
    np.testing.assert_allclose(whole.average, source.images[whole.indices].mean(0), rtol=1e-5, atol=1e-7)


def test_a_window_larger_than_the_image_is_called_as_large_as_the_layer_table_says(variables):
    """A corner sees a part of the image, so that its window of 3 × 5 px reaches over it."""
    small = ArraySource(np.ones((3, 2, 4, 1), np.float32), np.array([0, 1, 0]), class_names=NAMES)
    table = layers(detector, variables, small.images)
    relevance = made_relevance(table, [("conv_1", 0, 0, 1.0)])
    (view,) = interpret(detector, variables, table, relevance, small, num_images=2, description=None)
    assert view.crops.shape[1:3] == (3, 5)
    assert view.receptive_field == table["conv_1"].receptive_field == (2, 4)
    assert not view.sees_whole_image


def test_all_images_are_searched_when_the_class_is_not_asked_for(variables, table):
    """Patch 0 is relevant for the class that does not show it."""
    relevance = made_relevance(table, [("conv_1", 0, 1, 1.0)])
    options = {"num_images": 5, "batch_size": 10, "description": None}
    (within,) = interpret(detector, variables, table, relevance, planted(20), **options)
    (among_all,) = interpret(
        detector, variables, table, relevance, planted(20), within_class=False, **options
    )
    assert (within.indices % 2 == 1).all()
    np.testing.assert_array_equal(among_all.indices, [18, 16, 14, 12, 10])
    assert not np.allclose(np.nan_to_num(within.average), among_all.average)


def test_a_class_without_images_has_an_empty_view(variables, table):
    relevance = made_relevance(table, [("conv_1", 0, 0, 1.0), ("conv_1", 1, 1, 1.0), ("pool_1", 1, 1, 0.5)])
    leaves = subset(planted(20), np.arange(0, 20, 2))
    options = {"num_images": 30, "batch_size": 10, "description": None}
    leaf, petal, whole = interpret(detector, variables, table, relevance, leaves, **options)
    assert len(leaf.indices) == 10
    assert len(petal.indices) == len(petal.values) == len(petal.crops) == 0
    assert petal.average.shape == (3, 5, 1)
    assert whole.average.shape == (*SIZE, 1)
    assert np.isnan(petal.average).all()
    assert np.isnan(whole.average).all()


def test_nothing_relevant_is_named(variables, table):
    with pytest.raises(ValueError, match=r"no class has a relevant feature.*dead network"):
        interpret(detector, variables, table, made_relevance(table, []), planted(4), description=None)
