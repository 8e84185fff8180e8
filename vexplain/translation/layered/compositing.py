"""Layers of an image: what its object covers, the background behind it, and colors taken from other places.

In all functions:
    images: (batch, height, width, 3) in [0, 1].
    coverage: (batch, height, width) in [0, 1], how much of each pixel the object covers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.translation.similarity import background_contrast, soft_foreground
from vexplain.typing import Array, Float, Images, Masks

_REACH = 8  # image heights over standard deviations of the blur that fills the background
_LEAST = 1e-4  # of contrast and of weights
_TAIL = 0.1  # of the sigmoid, cut off at both ends, so that a plain background has coverage 0


def estimated_coverage(images: Images) -> Masks:
    """Returns how much of each pixel an object covers that stands on a plain background (*ours*).

    Within the object 1; on its outline the contrast to the border's mean color, divided by the largest
    contrast among the neighbors, which are wholly object. Differentiable, unlike `estimate_masks`.
    """
    contrast = background_contrast(images)
    foreground = jnp.clip((soft_foreground(images) - _TAIL) / (1 - 2 * _TAIL), 0, 1)
    share = jnp.clip(contrast / jnp.maximum(dilated(contrast), _LEAST), 0, 1)
    return jnp.maximum(eroded(foreground), foreground * share)


def dilated(coverage: Masks) -> Masks:
    """Returns the largest value of each neighborhood of 3×3 pixels."""
    for axis in (1, 2):  # maxima of slices: those of windows take long to differentiate
        edges = [(0, 0)] * 3
        edges[axis] = (1, 1)
        padded = jnp.pad(coverage, edges, mode="edge")
        low, middle, high = (
            jax.lax.slice_in_dim(padded, n, n + coverage.shape[axis], axis=axis) for n in range(3)
        )
        coverage = jnp.maximum(jnp.maximum(low, middle), high)
    return coverage


def eroded(coverage: Masks) -> Masks:
    """Returns the smallest value of each neighborhood of 3×3 pixels: 0 on the outline, where colors mix."""
    return -dilated(-coverage)


def filled_background(images: Images, coverage: Masks, *, margin: int = 2) -> Images:
    """Returns the images without their objects: each hidden pixel is a mean of the visible ones around it.

    The mean has Gaussian weights whose standard deviation is an eighth of the image. A plain background is
    filled exactly; what is farther than its neighborhood is not imagined.

    Args:
        margin: pixels around the object that are hidden too.
    """
    hidden = jnp.asarray(coverage)
    for _ in range(margin):
        hidden = dilated(hidden)
    visible = 1 - hidden[..., None]
    rows, columns = (_blur_matrix(n) for n in images.shape[1:3])

    def blurred(x):
        return jnp.einsum("yh,bhwc,xw->byxc", rows, x, columns, precision="highest", optimize="optimal")

    filled = blurred(images * visible) / jnp.maximum(blurred(visible), _LEAST)
    return visible * images + (1 - visible) * filled


def composite(texture: Images, coverage: Masks, background: Images) -> Images:
    """Returns the texture where the object covers a pixel, the background elsewhere."""
    share = coverage[..., None]
    return share * texture + (1 - share) * background


def sample_bilinear(
    images: Float[Array | np.ndarray, "batch height width channels"],
    positions: Float[Array, "batch rows columns 2"],
) -> Float[Array, "batch rows columns channels"]:
    """Returns the values of images between their pixels, by bilinear interpolation.

    Args:
        images: of any number of channels.
        positions: row and column in pixels; the middle of the first pixel is (0, 0). What lies beyond the
            border has the value of the border.

    Example:
        >>> images = jnp.arange(4.0).reshape(1, 2, 2, 1)
        >>> print(sample_bilinear(images, jnp.array([[[[0.5, 0.0], [0.5, 0.75]]]])).ravel())
        [1.   1.75]
    """
    images = jnp.asarray(images)
    _, height, width, _ = images.shape
    row = jnp.clip(positions[..., 0], 0, height - 1)
    column = jnp.clip(positions[..., 1], 0, width - 1)
    top = jnp.clip(jnp.floor(row).astype(jnp.int32), 0, max(height - 2, 0))
    left = jnp.clip(jnp.floor(column).astype(jnp.int32), 0, max(width - 2, 0))
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    down, across = (row - top)[..., None], (column - left)[..., None]
    take = jax.vmap(lambda image, y, x: image.reshape(-1, image.shape[-1])[y * width + x])
    above = (1 - across) * take(images, top, left) + across * take(images, top, right)
    below = (1 - across) * take(images, bottom, left) + across * take(images, bottom, right)
    return (1 - down) * above + down * below


def _blur_matrix(length: int) -> np.ndarray:
    offsets = np.arange(length)[:, None] - np.arange(length)
    return np.exp(-0.5 * (offsets * _REACH / length) ** 2).astype(np.float32)
