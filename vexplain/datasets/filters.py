"""Filters of images by a Gaussian window: the blur, and the structural similarity of two images."""

import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Images


def gaussian_blur(
    images: Images, *, sigma: float, radius: int
) -> Float[Array, "batch height width channels"]:
    """Returns images convolved with a truncated Gaussian; the border is mirrored, edge pixels included.

    The kernel exp(-n² / 2 sigma²), |n| <= radius, sums to one, so that a constant image stays as it is.

    Args:
        sigma: standard deviation of the Gaussian in pixels.
        radius: half the width of the kernel in pixels.

    Example:
        >>> print(gaussian_blur(jnp.full((1, 3, 5, 1), 0.5), sigma=0.5, radius=2)[0, 0, :, 0])
        [0.5 0.5 0.5 0.5 0.5]
    """
    images = jnp.asarray(images)
    rows, columns = (_blur_matrix(n, sigma, radius) for n in images.shape[1:3])
    return jnp.einsum("yh,bhwc,xw->byxc", rows, images, columns, precision="highest", optimize="optimal")


def ssim_map(images: Images, truth: Images) -> Float[Array, "batch height width channels"]:
    """Returns the structural similarity of each pixel's neighborhood, in [-1, 1].

    (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)) with moments under a Gaussian of
    11 x 11 pixels and standard deviation 1.5, C₁ = 0.01², C₂ = 0.03², for data in [0, 1]; mirrored borders.
    The two arguments may be exchanged.

    References:
        Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to structural
        similarity, 2004, equation 13.

    Example:
        >>> images = jnp.linspace(0, 1, 30).reshape(1, 5, 6, 1)
        >>> print(ssim_map(images, images).mean().round(3), ssim_map(images, 1 - images).mean() < 0)
        1.0 True
    """

    def smooth(x):
        return gaussian_blur(x, sigma=1.5, radius=5)

    c_1, c_2 = 0.01**2, 0.03**2
    mean_x, mean_y = smooth(images), smooth(truth)
    variances = smooth(jnp.square(images)) + smooth(jnp.square(truth)) - mean_x**2 - mean_y**2
    covariance = smooth(images * truth) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c_1) / (mean_x**2 + mean_y**2 + c_1)
    return luminance * (2 * covariance + c_2) / (variances + c_2)


def _blur_matrix(length: int, sigma: float, radius: int) -> np.ndarray:
    """The filter along one axis as a matrix: on small images a product is faster than shifts."""
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    mirrored = np.pad(np.eye(length), ((radius, radius), (0, 0)), mode="symmetric")
    shifted = np.stack([mirrored[n : n + length] for n in range(len(kernel))])
    return np.einsum("k,kyh->yh", kernel / kernel.sum(), shifted).astype(np.float32)
