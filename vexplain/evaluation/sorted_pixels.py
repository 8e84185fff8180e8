"""Pixels in the order of a heatmap, each with its truth: what the scores at any threshold are made of.

A region above a threshold is a piece at the end of this order, so that one sort serves every threshold at
once. Sorting is most of the work of scoring a map, and integers of one array sort many times faster than
floats, or than pairs: so the truth travels as the last bit of an integer that orders as the float does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Masks, Shaped

_MAGNITUDE = np.int32(0x7FFFFFFF)
_SIGN = np.int32(-(2**31))
_LIMIT = np.nextafter(np.float32(2), np.float32(0))  # twice its bits still are an integer of 32 bits


class SortedPixels(NamedTuple):
    """The values of each map in ascending order, and whether the pixels are in the mask."""

    values: Float[Array, "batch pixels"]
    is_inside: Shaped[Array, "batch pixels"]  # bool


def sort_pixels(heatmaps: Float[Array, "batch height width"], masks: Masks) -> SortedPixels:
    """Returns the pixels of each map in ascending order of their values, with the truth of each.

    Equal values stay equal. A value below 1e-38 of the largest of its map counts as zero.

    Args:
        heatmaps: (batch, height, width), of any sign.
        masks: (batch, height, width), coverage of the true region in [0, 1]; it is {mask >= 0.5}.

    Example:
        >>> print(*sort_pixels(jnp.array([[[0.5, -1.0, 0.25]]]), jnp.array([[[1.0, 0.0, 0.0]]])))
        [[-1.    0.25  0.5 ]] [[False False  True]]
    """
    batch = len(heatmaps)
    values, is_inside = heatmaps.reshape(batch, -1), (jnp.asarray(masks) >= 0.5).reshape(batch, -1)
    if values.dtype == jnp.float64:  # has no room for another bit
        return SortedPixels(*jax.lax.sort((values, is_inside), dimension=1, num_keys=1))
    values = values.astype(jnp.float32)
    largest = jnp.where(jnp.isfinite(values), jnp.abs(values), 0).max(1, keepdims=True)
    exponent = jnp.frexp(largest)[1]
    keys = _ordered_integers(jnp.clip(jnp.ldexp(values, -exponent), -_LIMIT, _LIMIT))
    packed = jax.lax.sort(2 * keys + is_inside, dimension=1, is_stable=False)
    return SortedPixels(jnp.ldexp(_floats(packed >> 1), exponent), (packed & 1).astype(bool))


def _ordered_integers(values: Float[Array, "batch pixels"]) -> Shaped[Array, "batch pixels"]:
    """Integers in the order of floats: the bits of a float, which begin with its sign; 0 for both zeros."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, -(bits & _MAGNITUDE), bits)


def _floats(keys: Shaped[Array, "batch pixels"]) -> Float[Array, "batch pixels"]:
    return jax.lax.bitcast_convert_type(jnp.where(keys < 0, -keys | _SIGN, keys), jnp.float32)
