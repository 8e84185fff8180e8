"""How convolutions, poolings and paddings slide over rows and columns (see `flow`)."""

import dataclasses
from typing import Any

import numpy as np

from vexplain.transforms.flow import (
    IMAGE,
    NOTHING,
    Axis,
    Flow,
    hull,
    stretched,
    taken,
    transposed,
    with_one_axis,
)
from vexplain.transforms.program import Equation


def slid_axis(flow: Flow, a: int, size: int, *, is_same: bool) -> Axis:
    """The axis over which a window slid."""
    axis = flow.axes[a]
    if is_same or not axis.is_known:
        return Axis(size, axis.places, axis.holds_channels, axis.is_known, axis.period)
    if not axis.places:
        return Axis(size, holds_channels=axis.holds_channels)
    if not _is_grid(flow, a):
        return Axis(size, is_known=False)
    return Axis(size, {next(iter(axis.places)): np.arange(size, dtype=float)})


def _is_grid(flow: Flow, a: int) -> bool:
    """Are these rows, or columns, and all that there are?"""
    dimensions = set(flow.axes[a].places)
    others = [d for i, b in enumerate(flow.axes) if i != a for d in b.places]
    return len(dimensions) == 1 and IMAGE not in dimensions and dimensions.isdisjoint(others)


def taps_of(size: int, out: int, taps: int, stride: int, dilation: int, lead: int, spread: int = 1):
    """For each position of a window and each of its taps the index taken, and whether there is one."""
    places = np.arange(out)[:, None] * stride - lead + np.arange(taps)[None] * dilation
    is_entry = places % spread == 0
    index = places // spread
    return index, is_entry, is_entry & (index >= 0) & (index < size)


def gathered_by_taps(reach: np.ndarray, a: int, index: np.ndarray, counts: np.ndarray, inside: np.ndarray):
    """The hull over the taps (positions, taps) along an axis; windows go on over the border."""
    rows = np.moveaxis(reach, 1 + a, 0)  # (indices, 4, ...)
    size = len(rows)
    if size == 1 and inside.any(1).all():
        return reach
    clipped = np.clip(index, 0, size - 1) if size > 1 else np.zeros_like(index)
    taken = rows[clipped]  # (positions, taps, 4, ...)
    extra = (1,) * (taken.ndim - 2)
    seen = np.where(inside.reshape(*inside.shape, *extra), taken, NOTHING)[:, :, :2].min(1)
    window = taken[:, :, 2:]
    if size > 1:
        below, above = np.minimum(index, 0), np.maximum(index - size + 1, 0)
        first, last = (rows[1] - rows[0])[2:], (rows[-1] - rows[-2])[2:]
        first, last = (np.where(np.abs(s) < NOTHING // 2, s, 0) for s in (first, last))
        grown = below.reshape(*below.shape, *extra) * first + above.reshape(*above.shape, *extra) * last
        window = np.where(window < NOTHING // 2, window + grown, window)
    window = np.where(counts.reshape(*counts.shape, *extra), window, NOTHING).min(1)
    return np.moveaxis(np.concatenate([seen, window], 1), 0, 1 + a)


def _slide(flow: Flow, a: int, tapped: Any, axis: Axis) -> Flow:
    reach = tuple(gathered_by_taps(r, a, *tapped) for r in flow.reach)
    return dataclasses.replace(with_one_axis(flow, a, axis), reach=reach)


def conv(step: Equation, k: int, flow: Flow) -> Flow | None:
    p: Any = step.params
    numbers, kernel = p["dimension_numbers"], step.inputs[1].shape
    lhs, rhs, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    if k != 0 or p["batch_group_count"] != 1:
        return None
    for n, a in enumerate(lhs[2:]):
        size, taps = step.out.shape[out[2 + n]], kernel[rhs[2 + n]]
        stride, lead = p["window_strides"][n], p["padding"][n][0]
        dilations = (p["rhs_dilation"][n], lead, p["lhs_dilation"][n])
        is_plain = stride == 1 == p["lhs_dilation"][n] and size == flow.axes[a].size
        is_same = is_plain and (taps == 1 or not _is_grid(flow, a))
        tapped = taps_of(flow.axes[a].size, size, taps, stride, *dilations)
        flow = _slide(flow, a, tapped, slid_axis(flow, a, size, is_same=is_same))
    flow = hull(flow, [lhs[1]])
    flow = with_one_axis(flow, lhs[1], Axis(step.out.shape[out[1]], holds_channels=True))
    return transposed(flow, [lhs[out.index(a)] for a in range(len(lhs))]).ranked()


def reduce_window(step: Equation, k: int, flow: Flow) -> Flow | None:
    p: Any = step.params
    for a in range(len(flow.axes)):
        taps, stride, lead = p["window_dimensions"][a], p["window_strides"][a], p["padding"][a][0]
        dilation, spread = (
            (p.get(name) or (1,) * len(flow.axes))[a] for name in ("window_dilation", "base_dilation")
        )
        size = step.out.shape[a]
        if taps == stride == spread == 1 and size == flow.axes[a].size and lead == 0:
            continue
        tapped = taps_of(flow.axes[a].size, size, taps, stride, dilation, lead, spread)
        flow = _slide(flow, a, tapped, slid_axis(flow, a, size, is_same=False))
    return flow.ranked()


def padded(step: Equation, k: int, flow: Flow) -> Flow | None:
    if k != 0:
        return stretched(flow, step.out.shape)
    for a, (lead, trail, interior) in enumerate(step.params["padding_config"]):
        if (lead, trail, interior) == (0, 0, 0):
            continue
        tapped = taps_of(flow.axes[a].size, step.out.shape[a], 1, 1, 1, lead, interior + 1)
        index, _, inside = tapped
        moved = taken(flow, a, np.where(inside, index, -1)[:, 0], is_grid=True)
        flow = _slide(flow, a, tapped, moved.axes[a])
    return flow.ranked()
