"""An area-filling step: a map is smoothed within regions of one color, and not over their edges.

It knows the image and not the network. What it makes of a map that says nothing has to be measured beside it
(`evaluation.sanity_checks`).
"""

import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Heatmaps, Images


def guided_filter(
    heatmaps: Heatmaps, images: Images, *, radius: int, smoothness: float
) -> Float[Array, "batch height width"]:
    """Returns heatmaps that follow the colors of the images: in each window, a linear function of them.

    In every window the map is fitted by a linear function of the color, by least squares with a penalty on
    its slope; each pixel gets the mean of the functions of all windows that it is in.

    Args:
        heatmaps: (batch, height, width).
        images: (batch, height, width, channels) in [0, 1]: what guides.
        radius: of the windows, (2 radius + 1)² pixels; they are cut off at the border.
        smoothness: the penalty, in squared units of color; differences of color far below its root do not
            count as edges.

    Returns:
        (batch, height, width); of about the range of the heatmaps.

    Raises:
        ValueError: `radius` is below 1, or `smoothness` not positive.

    References:
        He, Sun, Tang, Guided Image Filtering, ECCV 2010, Equations 14 to 16.

    Example:
        >>> images = jnp.zeros((1, 5, 6, 1)).at[:, :, 3:].set(1.0)  # two regions
        >>> heatmaps = jnp.zeros((1, 5, 6)).at[0, 2, 4].set(1.0)  # a spot in one of them
        >>> filled = guided_filter(heatmaps, images, radius=3, smoothness=1e-4)
        >>> print(filled[0, 2].round(2))
        [0.   0.   0.   0.07 0.08 0.07]
    """
    if radius < 1:
        raise ValueError(f"radius is {radius}: expected a number of pixels, 1 or more")
    if not smoothness > 0:
        raise ValueError(f"smoothness is {smoothness}: expected a positive number, such as 1e-3")
    colors = jnp.asarray(images)
    mean_color = _window_means(colors, radius)
    colors, mean_color = colors - 0.5, mean_color - 0.5  # smaller squares are rounded less
    mean_map = _window_means(heatmaps[..., None], radius)
    channels = colors.shape[-1]
    squares = (colors[..., :, None] * colors[..., None, :]).reshape(*colors.shape[:3], channels**2)
    squares = _window_means(squares, radius).reshape(*colors.shape[:3], channels, channels)
    variance = squares - mean_color[..., :, None] * mean_color[..., None, :]
    covariance = _window_means(colors * heatmaps[..., None], radius) - mean_color * mean_map
    slope = jnp.linalg.solve(
        variance + smoothness * jnp.eye(channels, dtype=variance.dtype), covariance[..., None]
    )[..., 0]
    intercept = mean_map - (slope * mean_color).sum(-1, keepdims=True)
    slope, intercept = _window_means(slope, radius), _window_means(intercept, radius)
    return (slope * colors).sum(-1) + intercept[..., 0]


def _window_means(
    values: Float[Array, "batch height width channels"], radius: int
) -> Float[Array, "batch height width channels"]:
    rows, columns = (_window_matrix(n, radius).astype(values.dtype) for n in values.shape[1:3])
    means = jnp.einsum("yh,bhwc->bywc", rows, values, precision="highest")
    return jnp.einsum("xw,bywc->byxc", columns, means, precision="highest")


def _window_matrix(length: int, radius: int) -> np.ndarray:
    """The mean over a window along one axis as a matrix: products are fast on any device."""
    places = np.arange(length)
    is_near = np.abs(places[:, None] - places) <= radius
    return is_near / is_near.sum(1, keepdims=True)
