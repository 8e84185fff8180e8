"""The mask estimator against its definition spelled out in SciPy, and its ceiling on true images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vexplain.datasets import estimate_masks
from vexplain.datasets.shape_swap import paired_test
from vexplain.translation import mask_iou


def by_definition(image):
    border = [*image[0], *image[-1], *image[1:-1, 0], *image[1:-1, -1]]
    blurred = gaussian_filter(image, (0.5, 0.5, 0), mode="reflect", truncate=4)
    distances = np.sqrt(((blurred - np.median(border, axis=0)) ** 2).sum(-1))
    values = np.sort(distances.ravel())
    variances = [
        n * (len(values) - n) * (values[:n].mean() - values[n:].mean()) ** 2 for n in range(1, len(values))
    ]
    best = 1 + int(np.argmax(variances))
    otsu = (values[best - 1] + values[best]) / 2
    half = np.percentile(values, 95, method="nearest") / 2
    return distances > max(min(otsu, half), 0.04)


def test_it_does_what_its_definition_says():
    images = np.random.default_rng(0).uniform(0.8, 0.9, (3, 13, 17, 3)).astype(np.float32)
    images[0, 4:9, 6:11] -= 0.6
    images[1, 2:5, 3:14, 1] -= 0.5
    images[2, 7:, 1:5] -= 0.3
    expected = np.stack([by_definition(image) for image in images.astype(np.float64)])
    found = estimate_masks(images)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(jax.jit(estimate_masks)(images), expected)


def test_an_object_of_two_colors_is_not_cut_along_its_texture():
    images, expected = np.full((1, 32, 32, 3), 0.9, np.float32), np.zeros((1, 32, 32), np.float32)
    images[:, 8:24, 8:24] = 0.8, 0.7, 0.3
    images[:, 8:24:4, 8:24] = 0.1, 0.05, 0.0
    expected[:, 8:24, 8:24] = 1
    assert mask_iou(jax.jit(estimate_masks)(images), jnp.asarray(expected)) > 0.93


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_an_image_of_one_color_has_no_object(level):
    assert not estimate_masks(jnp.full((3, 13, 17, 3), level)).any()


def test_the_ceiling_on_small_true_images():
    """At 32 px; that at 64 px is in `test_translation.py`."""
    pairs = paired_test(100, level=4, size=32)
    noise = 0.05 * np.random.default_rng(0).standard_normal(pairs.images_a.shape, np.float32)
    estimate = jax.jit(estimate_masks)
    for images, masks in ((pairs.images_a, pairs.masks_a), (pairs.images_b, pairs.masks_b)):
        assert mask_iou(estimate(images), jnp.asarray(masks)).mean() > 0.98
        assert mask_iou(estimate(np.clip(images + noise, 0, 1)), jnp.asarray(masks)).mean() > 0.98
