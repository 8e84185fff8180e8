"""Gaussian filters on images, as the mask estimator, SSIM and the hidden-channel test need them."""

import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Images


def gaussian_blur(
    images: Images, *, sigma: float, radius: int
) -> Float[Array, "batch height width channels"]:
    """Returns images convolved with a truncated Gaussian; the border is mirrored, edge pixels included.

    The kernel exp(-n² / 2 sigma²), |n| <= radius, sums to one, so that a constant image stays as it is.

    Args:
        images: (batch, height, width, channels).
        sigma: standard deviation of the Gaussian in pixels.
        radius: half the width of the kernel in pixels.

    Example:
        >>> print(gaussian_blur(jnp.full((1, 3, 5, 1), 0.5), sigma=0.5, radius=2)[0, 0, :, 0])
        [0.5 0.5 0.5 0.5 0.5]
    """
    images = jnp.asarray(images)
    rows, columns = (_blur_matrix(n, sigma, radius) for n in images.shape[1:3])
    return jnp.einsum("yh,bhwc,xw->byxc", rows, images, columns, precision="highest", optimize="optimal")


def _blur_matrix(length: int, sigma: float, radius: int) -> np.ndarray:
    """The filter along one axis as a matrix: on small images a product is faster than shifts."""
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    mirrored = np.pad(np.eye(length), ((radius, radius), (0, 0)), mode="symmetric")
    shifted = np.stack([mirrored[n : n + length] for n in range(len(kernel))])
    return np.einsum("k,kyh->yh", kernel / kernel.sum(), shifted).astype(np.float32)
