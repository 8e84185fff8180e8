"""Fidelity on a mask against sums spelled out, SciPy's filters, and a value of scikit-image."""

import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter

from vexplain.datasets.blur import gaussian_blur
from vexplain.translation import masked_l1, masked_psnr, masked_ssim, overlap_error, ssim_map


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


def test_only_the_region_counts():
    images, truth = waves()
    masks = jnp.asarray(np.random.default_rng(0).random((1, 13, 17), np.float32))
    inside = np.asarray(masks[0]) >= 0.5
    difference = np.asarray(images - truth)[0][inside]
    np.testing.assert_allclose(masked_l1(images, truth, masks), np.abs(difference).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        masked_psnr(images, truth, masks), -10 * np.log10((difference**2).mean()), rtol=1e-5
    )
    expected = np.asarray(ssim_map(images, truth))[0][inside].mean()
    np.testing.assert_allclose(masked_ssim(images, truth, masks), expected, rtol=1e-5)
    elsewhere = jnp.where(masks[..., None] >= 0.5, images, 0.123)
    assert masked_l1(elsewhere, truth, masks) == masked_l1(images, truth, masks)


def test_overlap_is_where_both_show_the_object():
    outputs, inputs = waves()
    output_masks, input_masks = jnp.zeros((2, 1, 13, 17)).at[0, :, 2:9].set(0.5).at[1, :, 5:, 3:11].set(0.9)
    expected = np.abs(outputs - inputs)[0, 5:9, 3:11].mean()
    np.testing.assert_allclose(overlap_error(outputs, inputs, output_masks, input_masks), expected, rtol=1e-5)


def test_in_an_empty_region_and_of_equal_images_nothing_differs():
    images, truth = waves()
    for masks, other in ((jnp.zeros((1, 13, 17)), truth), (jnp.ones((1, 13, 17)), images)):
        assert masked_l1(images, other, masks) == 0
        np.testing.assert_allclose(masked_psnr(images, other, masks), 100, rtol=1e-6)
        np.testing.assert_allclose(masked_ssim(images, other, masks), 1, rtol=1e-5)
    assert overlap_error(images, truth, jnp.zeros((1, 13, 17)), jnp.ones((1, 13, 17))) == 0
