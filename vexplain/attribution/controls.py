"""Maps that know nothing of the network. A method that does not beat them explains nothing."""

import jax
import jax.numpy as jnp

from vexplain.attribution.calling import attribution_method
from vexplain.datasets.foreground import estimate_masks
from vexplain.typing import Array, Heatmaps, Shaped


@attribution_method
def random_map(
    images: Array,
    *,
    key: Shaped[Array, " batch"],
) -> Heatmaps:
    """Returns independent uniform noise in [0, 1) for every pixel."""
    return jax.vmap(lambda k: jax.random.uniform(k, images.shape[1:3]))(key)


@attribution_method
def sobel_edges(
    images: Array,
) -> Heatmaps:
    """Returns the magnitude of the Sobel gradient, summed over the channels.

    Example:
        >>> step = jnp.zeros((1, 3, 4, 1)).at[:, :, 2:].set(1.0)
        >>> print(sobel_edges(None, None, step)[0, 1])
        [0. 4. 4. 0.]
    """
    smooth, slope = jnp.array([1.0, 2.0, 1.0]), jnp.array([-1.0, 0.0, 1.0])
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")

    def filtered(rows, columns):
        height, width = images.shape[1:3]
        return sum(
            rows[i] * columns[j] * padded[:, i : i + height, j : j + width]
            for i in range(3)
            for j in range(3)
        )

    down, across = filtered(slope, smooth), filtered(smooth, slope)
    return jnp.sqrt(down**2 + across**2).sum(-1)


@attribution_method
def center_gaussian(
    images: Array,
    *,
    sigma: float | None = None,
) -> Heatmaps:
    """Returns exp(-d² / 2 sigma²), with d the distance from the center of the image: objects are often there.

    Args:
        sigma: standard deviation in pixels; by default a quarter of the shorter side.

    Raises:
        ValueError: `sigma` is not positive.

    Example:
        >>> print(center_gaussian(None, None, jnp.zeros((1, 1, 3, 3)), sigma=1.0).round(1).ravel())
        [0.6 1.  0.6]
    """
    batch, height, width, _ = images.shape
    deviation = min(height, width) / 4 if sigma is None else sigma
    if deviation <= 0:
        raise ValueError(f"sigma is {sigma}: expected a positive number of pixels")
    rows, columns = (jnp.arange(n, dtype=images.dtype) - (n - 1) / 2 for n in (height, width))
    gaussian = jnp.exp(-(rows[:, None] ** 2 + columns**2) / (2 * deviation**2))
    return jnp.broadcast_to(gaussian, (batch, height, width))


@attribution_method
def object_segmentation(
    images: Array,
) -> Heatmaps:
    """Returns 1 on the object and 0 on the background, told apart by the distance to the border color.

    It covers the whole object with all its parts, whichever of them decides the class. The threshold is that
    of `datasets.estimate_masks`; on a textured background the region is only as good as this estimate.

    Example:
        >>> images = jnp.full((1, 7, 9, 3), 0.9).at[:, 2:5, 3:7].set(0.1)
        >>> print(object_segmentation(None, None, images).sum())
        12.0
    """
    return jnp.asarray(estimate_masks(images))
