"""From signed attributions to heatmaps in [0, 1]."""

import jax.numpy as jnp

from vexplain.typing import Array, Float, Shaped

_Attributions = Float[Array, "*batch height width channels"]


def positive_heatmaps(attributions: _Attributions) -> Float[Array, "*batch height width"]:
    """Returns the L2 norm over channels of the positive part, normalized.

    Args:
        attributions: (..., height, width, channels), signed.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019 (*paper*).

    Example:
        >>> print(positive_heatmaps(jnp.array([[[[3.0, 4.0], [-9.0, 0.0], [0.0, 1.0]]]])))
        [[[1.  0.  0.2]]]
    """
    return normalize_heatmaps(_norm(jnp.maximum(attributions, 0)))


def absolute_heatmaps(attributions: _Attributions) -> Float[Array, "*batch height width"]:
    """Returns the L2 norm over channels, normalized.

    Args:
        attributions: (..., height, width, channels), signed.
    """
    return normalize_heatmaps(_norm(attributions))


def normalize_heatmaps(
    heatmaps: Shaped[Array, "*batch height width"],
) -> Shaped[Array, "*batch height width"]:
    """Returns each map shifted and scaled to the range [0, 1]; a constant map becomes zero.

    Args:
        heatmaps: (..., height, width).
    """
    low = heatmaps.min((-2, -1), keepdims=True)
    span = heatmaps.max((-2, -1), keepdims=True) - low
    return jnp.where(span > 0, (heatmaps - low) / jnp.where(span > 0, span, 1), 0)


def _norm(attributions: _Attributions) -> Float[Array, "*batch height width"]:
    """L2 norm over channels, safe from under- and overflow of the squares."""
    scale = jnp.abs(attributions).max((-3, -2, -1), keepdims=True)
    scaled = attributions / jnp.where(scale > 0, scale, 1)
    return jnp.sqrt((scaled**2).sum(-1))
