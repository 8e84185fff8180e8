"""Network dissection against a NumPy loop with a sorted quantile; planted detectors; channels of noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.transforms.networks import NHWC
from vexplain.concepts import Detector, Dissection, activation_counts, detectors, dissect
from vexplain.concepts.dissection import _from_order, _in_order
from vexplain.datasets import ArraySource
from vexplain.streaming.devices import data_mesh
from vexplain.transforms import channels_last, layers, read

CONCEPTS = ("square", "stripe", "dot")
HEIGHT, WIDTH, NUM_IMAGES = 12, 9, 11
LEVEL = 0.3
NAN = np.full((3, 3, 2, 5), np.nan, np.float32)


def apply(kernel, images):
    """Strided and padded on one side, so that centers of receptive fields are not those of equal parts."""
    x = lax.conv_general_dilated(images, kernel, (3, 2), ((2, 0), (0, 1)), dimension_numbers=NHWC)
    return jax.nn.relu(x).mean((1, 2))


@pytest.fixture(scope="module")
def kernel():
    return np.random.default_rng(0).normal(size=(3, 3, 2, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(1)
    images = rng.uniform(size=(NUM_IMAGES, HEIGHT, WIDTH, 2)).astype(np.float32)
    masks = rng.uniform(size=(NUM_IMAGES, 3, HEIGHT, WIDTH)).astype(np.float32)
    masks[2:5, 1] = np.nan  # these images were not annotated for the second concept
    masks[6, 2, 3:, 4:] = np.nan
    labels = np.zeros(NUM_IMAGES, int)
    return ArraySource(images, labels, class_names=("any",), extras={"part_masks": masks})


def by_loops(kernel, source, name):
    batch = source[np.arange(NUM_IMAGES)]
    layer = layers(apply, kernel, batch["images"])[name]
    found = jax.jit(read(apply, [name]))(kernel, batch["images"])[1][name]
    maps = np.asarray(channels_last(found, layer))
    centers = [[(a + b - 1) / 2 for a, b in field.windows] for field in layer.fields]
    iou, thresholds = np.zeros((5, 3)), np.zeros(5, np.float32)
    for k in range(5):
        values = np.sort(maps[..., k].ravel())[::-1]
        thresholds[k] = values[int(LEVEL * values.size)]
        for c in range(3):
            both = either = 0
            for n in range(NUM_IMAGES):
                rows = [np.interp(np.arange(WIDTH), centers[1], row) for row in maps[n, :, :, k]]
                enlarged = np.stack(
                    [np.interp(np.arange(HEIGHT), centers[0], x) for x in np.transpose(rows)], 1
                )
                is_least = thresholds[k] == values[-1]
                marked = enlarged > thresholds[k] if is_least else enlarged >= thresholds[k]
                mask = batch["part_masks"][n, c]
                inside, known = mask >= 0.5, ~np.isnan(mask)
                both += (marked & inside).sum()
                either += ((marked | inside) & known).sum()
            iou[k, c] = both / max(either, 1)
    return iou, thresholds


@pytest.mark.parametrize(("batch_size", "num_devices"), [(4, 1), (16, 8)])
def test_it_is_what_a_loop_over_images_finds(batch_size, num_devices, kernel, source, compilations):
    options = {"concepts": CONCEPTS, "level": LEVEL, "description": None, "mesh": data_mesh(num_devices)}
    found = dissect(apply, kernel, source, layer="relu_1", batch_size=batch_size, **options)
    iou, thresholds = by_loops(kernel, source, "relu_1")
    np.testing.assert_array_equal(found.thresholds, thresholds)
    # a pixel whose interpolated value rounds to the other side of the threshold may differ
    np.testing.assert_allclose(found.iou, iou, atol=2 / (HEIGHT * WIDTH * NUM_IMAGES / 2))
    assert np.unique(np.round(iou, 3)).size > 10
    with compilations() as compiled:
        dissect(apply, 2 * kernel, source, layer="relu_1", batch_size=batch_size, **options)
    assert not compiled


def planted(variables, images):
    """Channels: a concept, three times; noise; nothing; the concept upside down; one at a single pixel."""
    patch, dot, noise = jnp.split(images, 3, axis=-1)
    channels = [patch, 5 * patch - 2, patch - 1, jnp.sin(1e4 * noise), 0 * noise, -patch, dot]
    return jnp.concatenate(channels, axis=-1) @ variables


def test_a_planted_detector_has_an_iou_of_one_and_noise_that_of_chance():
    rng = np.random.default_rng(3)
    masks = np.zeros((30, 2, 16, 16), bool)
    for n, (row, column) in enumerate(rng.integers(0, 10, (30, 2))):
        masks[n, 0, row : row + 6, column : column + 5] = True
    masks[4, 1, 2, 3] = True  # less than the level
    noise = rng.uniform(size=(30, 16, 16, 1))
    images = np.concatenate([np.moveaxis(masks, 1, 3), noise], axis=3).astype(np.float32)
    source = ArraySource(images, np.zeros(30, int), class_names=("any",), extras={"part_masks": masks})
    options = {"layer": "dense_1", "concepts": ("patch", "dot"), "level": 0.1, "description": None}
    found = dissect(planted, np.eye(7, dtype=np.float32), source, **options)
    share = masks[:, 0].mean()
    np.testing.assert_array_equal(found.iou[:3, 0], 1)
    chance = 0.1 * share / (0.1 + share - 0.1 * share)  # of independent pixels
    np.testing.assert_allclose(found.iou[3, 0], chance, rtol=0.15)
    np.testing.assert_array_equal(found.iou[4:6, 0], 0)
    assert found.iou[6].tolist() == [masks.all(1).sum() / masks.any(1).sum(), 1]
    best = [(d.channel, d.concept) for d in detectors(found, min_iou=0.5)]
    assert best == [(0, "patch"), (1, "patch"), (2, "patch"), (6, "dot")]


def test_detectors_are_the_best_concepts_above_the_threshold():
    found = Dissection("relu_1", ("a", "b"), np.array([[0.1, 0.3], [0.04, 0.0], [0.5, 0.2]]), np.zeros(3))
    assert detectors(found) == (Detector(2, "a", 0.5), Detector(0, "b", 0.3))


def test_the_order_of_floats_is_that_of_their_bits():
    values = np.array(
        [-np.inf, -3e38, -1.5, -1e-30, 0.0, 1e-30, 1.0, np.float32(1.0000001), np.inf], np.float32
    )
    bits = np.asarray(jax.jit(_in_order)(values))
    assert (np.diff(bits.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(_from_order(bits), values)
    assert jax.jit(_in_order)(np.float32([-0.0])) == bits[4]


def test_counts_are_carried_over_to_the_second_word(kernel, source):
    """The state of four thousand million activations is one more than full."""
    row = layers(apply, kernel, source[[0]]["images"])["relu_1"]
    init, update = activation_counts(apply, row)
    full = init()._replace(counts=init().counts.at[0].set(2**32 - 1))
    constants = (kernel, np.zeros(5, np.uint32), np.uint32(21), np.uint32(11))
    state = jax.jit(update)(full, source[np.arange(4)], constants)
    words = np.asarray(state.counts).astype(np.uint64)
    added = words[0] + words[1] * np.uint64(2**32) - np.uint64(2**32 - 1)
    np.testing.assert_array_equal(added.sum(1), 4 * row.num_positions)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layer": "pool_1"}, ValueError, "'pool_1' of shape .* has no rows and columns"),
        ({"layer": "relu_2"}, KeyError, "no layer 'relu_2'"),
        (
            {"concepts": ("a", "b")},
            ValueError,
            r"\(1, 3, 12, 9\): expected \(1, 2, 12, 9\)",
        ),
        ({"level": 0.0}, ValueError, "level is 0.0: expected the share"),
        (
            {"variables": np.full((3, 3, 2, 5), np.nan, np.float32)},
            ValueError,
            "not finite, first in channel 0",
        ),
    ],
)
def test_what_cannot_be_dissected_is_named(options, error, message, kernel, source):
    given = {"variables": kernel, "layer": "relu_1", "concepts": CONCEPTS, "description": None} | options
    with pytest.raises(error, match=message):
        dissect(apply, source=source, **given)


def test_masks_must_be_there(kernel, source):
    bare = ArraySource(source.images, source.labels, class_names=("any",))
    with pytest.raises(KeyError, match=r'dissection needs "part_masks".*got .*images.*with_extras'):
        dissect(apply, kernel, bare, layer="relu_1", concepts=CONCEPTS)
