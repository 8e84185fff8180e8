"""Filters against those of SciPy, and the structural similarity against scikit-image."""

import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter

from vexplain.datasets.filters import gaussian_blur, ssim_map


def waves():
    y, x = np.mgrid[:13, :17][..., None]
    first, second = (np.sin(0.9 * x + 0.4 * y * np.arange(1, 4) + phase) / 2 + 0.5 for phase in (0, 0.4))
    return jnp.asarray(first, jnp.float32)[None], jnp.asarray(0.7 * second + 0.1, jnp.float32)[None]


def test_blur_against_scipy():
    images = np.random.default_rng(0).random((2, 9, 14, 3), np.float32)
    for sigma, radius, truncate in ((0.5, 2, 4.0), (1.5, 5, 3.5), (2.0, 8, 4.0)):
        expected = gaussian_filter(images, (0, sigma, sigma, 0), mode="reflect", truncate=truncate)
        np.testing.assert_allclose(gaussian_blur(images, sigma=sigma, radius=radius), expected, atol=1e-5)


def test_blur_of_an_image_smaller_than_its_kernel():
    image = np.random.default_rng(0).random((1, 3, 4, 1), np.float32)
    expected = gaussian_filter(image, (0, 2, 2, 0), mode="reflect", truncate=4)
    np.testing.assert_allclose(gaussian_blur(image, sigma=2.0, radius=8), expected, atol=1e-5)


def test_ssim_against_scikit_image():
    """structural_similarity(data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, full=True) of scikit-image 0.26.0."""
    similarity = ssim_map(*waves())[0]
    np.testing.assert_allclose(similarity.mean(), 0.85624411, atol=1e-4)
    for (row, column), expected in {
        (0, 0): (0.70891645, 0.78169932, 0.82587122),
        (6, 8): (0.85193469, 0.87273042, 0.85866047),
        (12, 16): (0.90881763, 0.82171749, 0.86588669),
    }.items():
        np.testing.assert_allclose(similarity[row, column], expected, atol=1e-4)
