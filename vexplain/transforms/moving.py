"""How slices, gathers, transpositions and writes move entries about (see `flow`)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vexplain.transforms.flow import (
    Axis,
    Flow,
    dropped,
    hull,
    spread,
    taken,
    transposed,
    union,
    with_one_axis,
)
from vexplain.transforms.program import Equation, array_of
from vexplain.transforms.rearrangement import by_source, reshaped


def transpose(step: Equation, k: int, flow: Flow) -> Flow:
    return transposed(flow, [int(a) for a in step.params["permutation"]])


def reshape(step: Equation, k: int, flow: Flow) -> Flow | None:
    return None if step.params.get("dimensions") is not None else reshaped(flow, step.out.shape)


def broadcast(step: Equation, k: int, flow: Flow) -> Flow | None:
    if k != 0:
        return None
    places, shape = [int(a) for a in step.params["broadcast_dimensions"]], step.out.shape
    axes, point = [Axis(n) for n in shape], dict(flow.point)
    for axis, b in zip(flow.axes, places, strict=True):
        if axis.size == shape[b]:
            axes[b] = axis
        else:  # one entry, again and again
            point |= {d: float(p[0]) for d, p in axis.places.items()}
    reach = spread(flow.reach, dict(enumerate(places)), len(shape))
    return Flow(tuple(axes), reach, point).of_one_image().ranked()


def sliced(step: Equation, k: int, flow: Flow) -> Flow:
    p = step.params
    strides = p["strides"] or (1,) * len(flow.axes)
    for a, (start, stop, by) in enumerate(zip(p["start_indices"], p["limit_indices"], strides, strict=True)):
        if (start, stop, by) != (0, flow.axes[a].size, 1):
            flow = taken(flow, a, np.arange(start, stop, by), is_grid=by > 1)
    return flow.ranked()


def reversed_axes(step: Equation, k: int, flow: Flow) -> Flow:
    for a in step.params["dimensions"]:
        flow = taken(flow, a, np.arange(flow.axes[a].size)[::-1])
    return flow.ranked()


def split_parts(step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]) -> list[Flow]:
    (flow,) = flows
    assert flow is not None
    a, ends = step.params["axis"], np.cumsum(step.params["sizes"])
    sizes = step.params["sizes"]
    return [taken(flow, a, np.arange(end - n, end)).ranked() for n, end in zip(sizes, ends, strict=True)]


def unstacked(step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]) -> list[Flow]:
    (flow,) = flows
    assert flow is not None
    a = step.params["axis"]
    return [dropped(taken(flow, a, np.array([i])), [a]) for i in range(flow.axes[a].size)]


def gathered(step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]) -> list[Flow] | None:
    flow = flows[0]
    if flow is None or flows[1] is not None:
        return None
    indices = array_of(step.inputs[1])
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    if indices is None:
        return _gathered_anywhere(step, flow)
    one = numbers.start_index_map
    if len(one) == 1 == indices.shape[-1] and numbers.collapsed_slice_dims == one and indices.ndim == 2:
        a, places = one[0], indices[:, 0].astype(int)
        others = all(sizes[b] == axis.size for b, axis in enumerate(flow.axes) if b != a)
        if others and not numbers.operand_batching_dims and (places >= 0).all():
            flow = taken(flow, a, np.minimum(places, flow.axes[a].size - 1))
            (to,) = {*range(len(step.out.shape))} - {*numbers.offset_dims}
            order = [b for b in range(len(flow.axes)) if b != a]
            order.insert(to, a)
            return [transposed(flow, order).ranked()]
    found = by_source(step, flow, indices)
    return None if found is None else [found]


def _gathered_anywhere(step: Equation, flow: Flow) -> list[Flow]:
    """From indices that the program is given: only what is taken whole is known."""
    numbers, sizes = step.params["dimension_numbers"], step.params["slice_sizes"]
    kept = [
        a
        for a in range(len(sizes))
        if a not in (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    ]
    whole = {a: b for a, b in zip(kept, numbers.offset_dims, strict=True) if sizes[a] == flow.axes[a].size}
    return [_placed(flow, whole, [Axis(n, is_known=False) for n in step.out.shape])]


def _placed(flow: Flow, whole: Mapping[int, int], axes: Sequence[Axis]) -> Flow:
    """Among other axes, those that are kept whole: axis a at `whole[a]`."""
    axes = list(axes)
    flow = hull(flow, [a for a in range(len(flow.axes)) if a not in whole])
    for a, b in whole.items():
        axes[b] = flow.axes[a]
    return Flow(tuple(axes), spread(flow.reach, whole, len(axes)), flow.point)


def dynamic_slice(
    step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]
) -> list[Flow] | None:
    flow, *starts = flows
    if flow is None or any(s is not None for s in starts):
        return None
    for a, (n, start) in enumerate(zip(step.params["slice_sizes"], step.inputs[1:], strict=True)):
        axis = flow.axes[a]
        if n == axis.size:
            continue
        number = array_of(start)
        if number is not None:
            first = int(np.clip(number, 0, axis.size - n))
            flow = taken(flow, a, np.arange(first, first + n))
            continue
        flow = hull(flow, [a])
        new = Axis(n, holds_channels=axis.holds_channels, is_known=axis.is_known and not axis.places)
        flow = with_one_axis(flow, a, new)
    return [flow.ranked()]


def overwritten(
    step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]
) -> list[Flow] | None:
    """Entries of an array replaced by those of another: of any of them, where it matters."""
    is_slice = step.kind == "dynamic_update_slice"
    operand, update = (flows[0], flows[1]) if is_slice else (flows[0], flows[2])
    others = flows[2:] if is_slice else flows[1:2]
    shape = step.out.shape
    if any(f is not None for f in others):
        return None
    if update is None:
        return None if operand is None else [operand]
    numbers = step.params.get("dimension_numbers")
    pairs = dict(enumerate(range(len(shape)))) if is_slice else _window_dims(numbers, len(shape))
    whole = {u: a for u, a in pairs.items() if update.axes[u].size == shape[a]}
    new = _placed(update, whole, [Axis(n, is_known=operand is not None) for n in shape])
    return [new if operand is None else union(operand, new)]


def _window_dims(numbers: Any, rank: int) -> dict[int, int]:
    """Of a scatter: which axis of the operand each window axis of the updates is."""
    taken = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    return dict(zip(numbers.update_window_dims, (a for a in range(rank) if a not in taken), strict=True))
