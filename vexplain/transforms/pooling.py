"""How a pooling moves its window, and how a backward signal is resized through it (`RESAMPLED_POOL`).

The gradient of max pooling goes to the winner of each window, one pixel in four under 2×2, and the heatmap is
speckled; that of average pooling is constant in each window, and over windows that overlap a grid. Here the
signal is enlarged instead, along each axis as linear interpolation does it. With M_io the weight of position
o where g is interpolated at pixel i, between the centers of the windows (beyond the first and the last center
that is the nearest one), and a_o what o sends back in all (1 for a maximum or an average, the number of
pixels for their sum),

    g'_i = Σ_o M_io / (Σ_j M_jo) · a_o g_o

so that the total is that of the gradient, whatever the padding. Pixels before the first window and after the
last one get nothing.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vexplain.transforms.flow import COLUMN, ROW, Axis, Flow
from vexplain.transforms.layer import PooledAxis
from vexplain.transforms.primitives import WINDOW_REDUCTIONS
from vexplain.transforms.program import Equation
from vexplain.transforms.sliding import taps_of


def pooled_axes(step: Equation, flow: Flow) -> tuple[PooledAxis, ...]:
    """Returns how the window of a pooling slides along rows and columns.

    Args:
        step: the reduction.
        flow: of what enters it.

    Returns:
        One for each axis along which it slides; none of a global pooling, nor where something else than rows
        or columns is pooled, or what is pooled could not be followed.
    """
    if not jnp.issubdtype(step.out.dtype, jnp.inexact):
        return ()
    found = _of_windows(step, flow) if step.kind in WINDOW_REDUCTIONS else _of_blocks(step, flow)
    is_global = found is None or all(step.out.shape[pooled.out_axis] == 1 for pooled in found)
    return () if is_global or found is None else tuple(found)


def _of_windows(step: Equation, flow: Flow) -> list[PooledAxis] | None:
    p: Any = step.params
    if any(n != 1 for n in p.get("base_dilation") or ()):
        return None
    dilations = p.get("window_dilation") or (1,) * len(flow.axes)
    found = []
    for a, (size, stride) in enumerate(zip(p["window_dimensions"], p["window_strides"], strict=True)):
        if size == stride == 1 and p["padding"][a] == (0, 0):
            continue
        if _dimension(flow.axes[a]) is None:
            return None
        found.append(PooledAxis((a,), a, size, stride, dilations[a], p["padding"][a][0]))
    return found


def _of_blocks(step: Equation, flow: Flow) -> list[PooledAxis] | None:
    """Of a reduction over one axis of rows that a reshape has split in two, and so of columns."""
    taken, found = step.params["axes"], []
    for inner in taken:
        dimension, size = _dimension(flow.axes[inner]), flow.axes[inner].size
        outers = [a for a, axis in enumerate(flow.axes) if a not in taken and _dimension(axis) == dimension]
        if dimension is None or len(outers) != 1:
            return None
        if not (_is_every(flow.axes[inner], 1) and _is_every(flow.axes[outers[0]], size)):
            return None
        outer = outers[0]
        found.append(PooledAxis((outer, inner), outer - sum(a < outer for a in taken), size, size, 1, 0))
    return found


def _dimension(axis: Axis) -> int | None:
    """Rows or columns, where these alone are what the axis holds."""
    return next((d for d in (ROW, COLUMN) if axis.is_only(d)), None)


def _is_every(axis: Axis, stride: int) -> bool:
    (places,) = axis.places.values()
    return not axis.period and bool((np.diff(places) == stride).all())


def send_resized(
    pooled: Sequence[PooledAxis], totals: Any, cotangent: Any, shape: Sequence[int], dtype: Any
) -> Any:
    """Returns the cotangent of a pooling, resized to what enters it.

    Args:
        pooled: of the pooling.
        totals: what each position sends back in all, over its cotangent; an array of its form, or a number.
        cotangent: of what leaves it.
        shape: of what enters it.
        dtype: of what enters it.
    """
    wide = jnp.promote_types(cotangent.dtype, jnp.float32)
    signal = totals * cotangent.astype(wide)
    outer = [a for a in range(cotangent.ndim) if all(a != p.out_axis for p in pooled)]
    inner = [a for a in range(len(shape)) if all(a not in p.in_axes for p in pooled)]
    signal = jnp.transpose(signal, [*(p.out_axis for p in pooled), *outer])
    for p in pooled:  # the first axis makes way for those at the end that it was pooled from
        sizes = [shape[a] for a in p.in_axes]
        weights = shares(p, math.prod(sizes), len(signal)).reshape(*sizes, -1)
        signal = jnp.tensordot(signal, jnp.asarray(weights, wide), ((0,), (-1,)), precision="highest")
    axes = [*inner, *(a for p in pooled for a in p.in_axes)]
    return jnp.transpose(signal, [axes.index(a) for a in range(len(shape))]).astype(dtype)


def shares(pooled: PooledAxis, size: int, num_positions: int) -> np.ndarray:
    """Returns what each pixel gets of the signal of each position, (pixels, positions).

    Columns sum to 1, or are 0 where the window sees no pixel.

    Args:
        pooled: how the window slides.
        size: number of pixels.
        num_positions: number of windows.
    """
    p = pooled
    index, _, inside = taps_of(size, num_positions, p.size, p.stride, p.dilation, p.lead)
    seen = np.zeros((size, num_positions))
    np.add.at(seen.T, (np.nonzero(inside)[0], index[inside]), 1)
    covered = np.flatnonzero(seen.any(1))
    centers = np.arange(num_positions) * p.stride - p.lead + (p.size - 1) * p.dilation / 2
    weights = np.zeros((size, num_positions))
    if len(covered):
        pixels = np.arange(covered[0], covered[-1] + 1)
        each = [np.interp(pixels, centers, one) for one in np.eye(num_positions)]
        weights[pixels] = np.stack(each, 1) * seen.any(0)
    # A window that hangs over the border by more than a stride interpolates no pixel: it has its own.
    weights = np.where(weights.any(0), weights, seen)
    return weights / np.maximum(weights.sum(0), np.finfo(float).tiny)
