"""Handwritten digits that scikit-learn brings along: a real data set that needs no download.

1797 images of 8 × 8 pixels with values from 0 to 16, each the number of inked points in a block of 4 × 4
points, by 43 writers; who wrote which is not known.

References:
    Alpaydin, Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998.
"""

from typing import Literal

import numpy as np
from PIL import Image

from vexplain._checks import check_choice
from vexplain.datasets.sources import ArraySource

_TEST_SHARE = 0.2


def digits_source(*, split: Literal["train", "test"] = "train", size: int = 32, seed: int = 0) -> ArraySource:
    """Returns scikit-learn's digits as a source, (size, size, 1) each, white on black.

    Of each class one fifth, drawn by `seed`, is the test split. No image is in both splits; writers may be.
    Needs scikit-learn: `pip install 'vexplain[digits]'`.

    Args:
        split: "train" (1438 images) or "test" (359).
        size: height and width in pixels, to which Pillow's bilinear filter enlarges the 8 × 8 values / 16.
        seed: of the split.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: another `split`, or `size` is below 8.

    Example:
        >>> digits_source(size=28)
        ArraySource(1438 images of 28×28×1, 10 classes)
    """
    check_choice("split", split, ("train", "test"))
    if size < 8:
        raise ValueError(f"size is {size}: expected at least 8, the pixels of the original images")
    images, labels = _originals()
    is_test = np.zeros(len(labels), bool)
    for n in range(10):
        members = np.random.default_rng((seed, n)).permutation(np.flatnonzero(labels == n))
        is_test[members[: round(_TEST_SHARE * len(members))]] = True
    chosen = np.flatnonzero(is_test == (split == "test"))
    bilinear = Image.Resampling.BILINEAR
    larger = [np.asarray(Image.fromarray(image).resize((size, size), bilinear)) for image in images[chosen]]
    return ArraySource(
        np.clip(np.stack(larger), 0, 1)[..., None], labels[chosen], class_names=tuple("0123456789")
    )


def _originals() -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "digits_source reads the images from scikit-learn: pip install 'vexplain[digits]'"
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels, np.float32).reshape(-1, 8, 8) / 16, np.asarray(labels, np.int32)
