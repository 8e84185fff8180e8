"""Whether a heatmap has its edges where the true region has its border: detail that is not speckle."""

import jax.numpy as jnp

from vexplain.typing import Array, Float, Heatmaps, Masks


def edge_correlation(heatmaps: Heatmaps, masks: Masks) -> Float[Array, " batch"]:
    """Returns the correlation over pixels of the slope of the heatmap with the slope of the mask (*ours*).

    Pearson's r of |∇h| and |∇m|, both by central differences. Blur spreads the slopes of h away from the
    border, a grid or speckle adds slopes where the mask has none: both lower it.

    Args:
        heatmaps: (batch, height, width); a scale and an offset change nothing.
        masks: (batch, height, width), coverage of the true region in [0, 1].

    Returns:
        (batch,) in [-1, 1]; 0 where one of the two is flat.

    Example:
        >>> masks = jnp.zeros((1, 8, 8)).at[0, 2:6, 2:6].set(1.0)
        >>> print(edge_correlation(1 - masks, masks), edge_correlation(jnp.zeros((1, 8, 8)), masks))
        [1.] [0.]
    """
    h, m = (_centered(_slope(jnp.asarray(maps))) for maps in (heatmaps, masks))
    scale = jnp.sqrt((h**2).sum((1, 2)) * (m**2).sum((1, 2)))
    return jnp.where(scale > 0, (h * m).sum((1, 2)) / jnp.where(scale > 0, scale, 1), 0)


def _slope(maps: Heatmaps) -> Heatmaps:
    down, across = jnp.gradient(maps, axis=(1, 2))
    return jnp.hypot(down, across)


def _centered(maps: Heatmaps) -> Heatmaps:
    return maps - maps.mean((1, 2), keepdims=True)
