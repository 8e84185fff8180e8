"""scikit-learn's digits: every image in one split, the same at every call, gray in [0, 1]."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vexplain.datasets import digits_source

PIXELS, TRUTH = load_digits(return_X_y=True)
ORIGINALS = PIXELS.reshape(-1, 8, 8) / 16


def both(**settings):
    return [digits_source(split=split, **settings) for split in ("train", "test")]


def test_at_their_own_size_the_splits_are_the_originals():
    train, test = both(size=8)
    assert (len(train), len(test)) == (1438, 359)
    images = np.concatenate([train.images, test.images])[..., 0]
    labels = np.concatenate([train.labels, test.labels])
    found = sorted((image.tobytes(), label) for image, label in zip(images, labels, strict=True))
    expected = [
        (image.astype(np.float32).tobytes(), label) for image, label in zip(ORIGINALS, TRUTH, strict=True)
    ]
    assert found == sorted(expected)


def test_each_class_gives_a_fifth_to_the_test_split():
    train, test = both(size=8)
    for label, count in enumerate(np.bincount(TRUTH)):
        assert abs((test.labels == label).sum() - count / 5) <= 0.5
        assert (train.labels == label).sum() + (test.labels == label).sum() == count
    assert len(set(test.labels[:10].tolist())) > 3  # not one class after the other


def test_the_split_depends_on_the_seed_alone():
    first, again, other = (digits_source(split="test", size=8, seed=seed).images for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    larger = digits_source(split="test", size=16)
    assert larger.labels.tolist() == digits_source(split="test", size=8).labels.tolist()


def test_enlarging_is_linear_between_the_centers_of_pixels():
    """At twice the size a new pixel lies a quarter from the nearest center: weights 3/4 and 1/4."""
    small, large = (digits_source(split="test", size=size).images[:5, ..., 0] for size in (8, 16))
    padded = np.pad(small, ((0, 0), (1, 1), (1, 1)), mode="edge")

    def doubled(values, axis):
        values = np.moveaxis(values, axis, 0)
        left, right = (0.75 * values[1:-1] + 0.25 * values[n:][: len(values) - 2] for n in (0, 2))
        return np.moveaxis(np.stack([left, right], 1).reshape(-1, *values.shape[1:]), 0, axis)

    np.testing.assert_allclose(large, doubled(doubled(padded, 1), 2), atol=1e-6)


def test_images_are_gray_in_the_unit_interval():
    source = digits_source()
    batch = source[np.arange(40)]
    assert batch["images"].shape == (40, 32, 32, 1)
    assert batch["images"].dtype == np.float32
    assert 0 <= batch["images"].min() < 0.01
    assert 0.9 < batch["images"].max() <= 1
    assert source.class_names == tuple("0123456789")


def test_what_is_wrong_is_named(monkeypatch):
    with pytest.raises(ValueError, match="size is 7: expected at least 8"):
        digits_source(size=7)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'vexplain\[digits\]'"):
        digits_source()
