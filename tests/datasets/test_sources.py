"""Batches: every example once, padding that does not count, order as a function of (seed, t)."""

import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.datasets import (
    ArraySource,
    Source,
    epoch_batches,
    gather,
    in_memory,
    paired_batches,
    shuffled_batches,
    subset,
    unpaired_batches,
    with_extras,
)
from vexplain.datasets.an8flower import RenderedSource


@pytest.fixture
def source():
    images = np.arange(7 * 2 * 3, dtype=np.float32).reshape(7, 2, 3, 1) / 100
    return ArraySource(images, np.array([0, 1, 2, 0, 1, 2, 0]), images[..., 0], class_names=("a", "b", "c"))


def test_an_epoch_visits_every_example_once(source):
    batch_fn, num_steps = epoch_batches(source, 3)
    batches = [batch_fn(t) for t in range(num_steps)]
    assert [len(b["labels"]) for b in batches] == [3, 3, 3]
    seen = np.concatenate([b["indices"][b["weights"] > 0] for b in batches])
    assert seen.tolist() == list(range(7))
    np.testing.assert_array_equal(batches[1]["images"], source.images[3:6])


def test_shuffled_batches_are_a_function_of_seed_and_step(source):
    batch_fn, steps = shuffled_batches(source, 2, seed=4)
    assert steps == 3
    epochs = [[batch_fn(e * 3 + t)["indices"] for t in range(3)] for e in range(2)]
    for epoch in epochs:
        assert len(set(np.concatenate(epoch))) == 6
    assert not np.array_equal(epochs[0], epochs[1])
    np.testing.assert_array_equal(shuffled_batches(source, 2, seed=4)[0](5)["indices"], epochs[1][2])
    assert not np.array_equal(shuffled_batches(source, 2, seed=5)[0](0)["indices"], epochs[0][0])


@pytest.mark.parametrize("rows", [[0], [3, 1], [2, 3], []])
def test_some_rows_of_a_batch_are_those_of_the_whole_batch(source, rows):
    """Of another source for each kind of batches; the last one of an epoch is padded."""
    others = subset(source, [3, 1, 0, 2, 6])
    for batches, _ in (
        epoch_batches(source, 4),
        shuffled_batches(source, 4, seed=1),
        unpaired_batches(source, others, 4, seed=2),
        paired_batches(source, source, 4, seed=3),
    ):
        for t in range(2):
            whole, part = batches(t), batches.read(t, np.array(rows, int))
            changed = batches.mapped(lambda b: {name: -rows for name, rows in b.items()}).read(
                t, np.array([1])
            )
            assert set(part) == set(whole) == set(changed)
            for name, values in whole.items():
                np.testing.assert_array_equal(part[name], np.asarray(values)[rows])
                np.testing.assert_array_equal(changed[name], -np.asarray(values)[[1]])


def test_a_subset_has_its_own_indices(source):
    part = subset(source, [6, 2])
    batch = part[np.array([1, 0])]
    assert batch["labels"].tolist() == [2, 0]
    assert batch["indices"].tolist() == [1, 0]
    np.testing.assert_array_equal(batch["images"][1], source.images[6])
    assert isinstance(part, Source)
    with pytest.raises(ValueError, match="indices go from 0 to 7: source has 7"):
        subset(source, [0, 7])


def test_in_memory_holds_what_was_rendered():
    rendered = RenderedSource(num_per_class=2, size=16, samples=2)
    held = in_memory(rendered, batch_size=5)
    assert held.images.dtype == np.uint8
    for name, values in rendered[np.arange(12)].items():
        np.testing.assert_allclose(held[np.arange(12)][name], values, atol=1e-6)
    assert set(gather(rendered, batch_size=64)) == {"images", "labels", "masks", "indices"}


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            np.zeros((7, 2, 3)),
            np.zeros(7, int),
            r"images has shape \(7, 2, 3\).*images\[None\].*\[..., None\]",
        ),
        (np.zeros((7, 2, 3), np.uint8), np.zeros(7, int), r"images\[None\]"),
        (np.zeros((7, 2), np.uint8), np.zeros(7, int), r"images\[None, ..., None\]"),
        (np.zeros((7, 2, 3, 1), int), np.zeros(7, int), "images has dtype int64.*divide by 255"),
        (np.full((7, 2, 3, 1), 2.0), np.zeros(7, int), r"images go from 2 to 2: expected \[0, 1\]"),
        (
            np.full((7, 2, 3, 1), 255.0),
            np.zeros(7, int),
            "images go from 255 to 255.*divide 8-bit images by 255",
        ),
        (np.full((7, 2, 3, 1), np.nan), np.zeros(7, int), "NaN"),
        (np.zeros((7, 2, 3, 1)), np.zeros(6, int), r"labels has shape \(6,\)"),
        (np.zeros((7, 2, 3, 1)), np.zeros(7), "dtype float64"),
        (np.zeros((7, 2, 3, 1)), np.full(7, 3), "labels go from 3 to 3: class_names has 3"),
    ],
)
def test_bad_arrays_are_named(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ArraySource(images, labels, class_names=("a", "b", "c"))


def test_bad_masks_and_sizes(source):
    with pytest.raises(ValueError, match=r"masks has shape \(7, 3, 2\): expected \(7, 2, 3\)"):
        ArraySource(source.images, source.labels, np.zeros((7, 3, 2)), class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match="batch_size is 0"):
        epoch_batches(source, 0)
    with pytest.raises(ValueError, match="batch_size is 8: the source has only 7"):
        shuffled_batches(source, 8, seed=0)
    empty = ArraySource(np.zeros((0, 2, 2, 1)), np.zeros(0, int), class_names=("a",))
    with pytest.raises(ValueError, match="holds no image"):
        epoch_batches(empty, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32(np.nan), "masks hold NaN"),
        (np.float32(np.inf), "masks hold NaN or infinite"),
        (np.float32(255), r"masks go from 0 to 255: expected \[0, 1\]; divide 8-bit masks by 255"),
        (np.float32(-0.5), r"masks go from -0.5 to 0: expected \[0, 1\]; 1 is inside, 0 outside"),
        (255, "masks go from 0 to 255"),
        (np.uint8(1), r"masks are uint8 and go up to 1, but 255 is inside: pass masks.astype\(bool\)"),
        (1j, "masks has dtype complex128"),
    ],
)
def test_bad_masks_are_named(values, message, source):
    masks = np.zeros((7, 2, 3), np.asarray(values).dtype)
    masks[3, 1, 2] = values
    with pytest.raises(ValueError, match=message):
        ArraySource(source.images, source.labels, masks, class_names=("a", "b", "c"))


@pytest.mark.parametrize("inside", [True, 1, 1.0, np.uint8(255)])
def test_masks_come_as_floats_whatever_they_are_kept_as(inside, source):
    masks = np.zeros((7, 2, 3), np.asarray(inside).dtype)
    masks[3, 1, 2] = inside
    batch = ArraySource(source.images, source.labels, masks, class_names=("a", "b", "c"))[np.array([3])]
    assert batch["masks"].dtype == np.float32
    np.testing.assert_allclose(batch["masks"], [[[0, 0, 0], [0, 0, 1]]], rtol=1e-6)


def test_a_source_says_what_it_holds(source):
    assert repr(source) == "ArraySource(7 images of 2×3×1 with masks, 3 classes)"
    plain = ArraySource(np.zeros((720, 16, 16, 1)), np.zeros(720, int), class_names=tuple("abcd"))
    assert repr(plain) == "ArraySource(720 images of 16×16×1, 4 classes)"


def test_eight_bit_images_are_divided(source):
    eight = ArraySource(np.full((1, 2, 2, 1), 255, np.uint8), np.zeros(1, int), class_names=("a",))
    assert jnp.allclose(eight[np.array([0])]["images"], 1)


@pytest.mark.parametrize(
    "chosen", [slice(2, None), slice(None, None, -2), [-1, 0], np.arange(7) % 3 == 0, []]
)
def test_an_index_means_what_it_means_for_an_array(chosen, source):
    expected = np.arange(7)[
        chosen if isinstance(chosen, slice) else np.asarray(chosen, None if len(chosen) else int)
    ]
    for one in (source, subset(source, np.arange(7)), with_extras(source, {"n": np.arange(7)})):
        batch = one[chosen]
        assert batch["indices"].tolist() == expected.tolist()
        np.testing.assert_array_equal(batch["labels"], source.labels[expected])


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ([True, False], "booleans of shape .2,.: expected 7"),
        ([0.5], "dtype float64"),
        ([7], "from 7 to 7: there are 7 images"),
        ([-8], "from -8"),
        ([[0]], "2 axes"),
        ("a", "expected whole numbers"),
    ],
)
def test_an_index_that_means_nothing_is_named(chosen, message, source):
    with pytest.raises(IndexError, match=message):
        source[chosen]


def test_names_that_come_twice_and_what_is_no_array():
    images, labels = np.zeros((2, 3, 3, 1)), np.array([0, 1])
    with pytest.raises(ValueError, match="class_names has 'a' more than once: number them"):
        ArraySource(images, labels, class_names=("a", "b", "a"))
    with pytest.raises(ValueError, match="labels are no array of numbers: expected integers"):
        ArraySource(images, np.array(["a", "b"]), class_names=("a", "b"))
    ragged = np.array([images[0], images[0, :2]], object)
    with pytest.raises(ValueError, match="images are no array of numbers: expected one array"):
        ArraySource(ragged, labels, class_names=("a", "b"))
