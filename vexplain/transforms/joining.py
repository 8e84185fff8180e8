"""How concatenations, loops and branches put values together (see `flow`)."""

import functools
from collections.abc import Sequence

import numpy as np

from vexplain.transforms.flow import (
    DIMENSIONS,
    IMAGE,
    NOTHING,
    Axis,
    Flow,
    dropped,
    seeing_everything,
    taken,
    union,
    unknown,
    with_axis,
    with_one_axis,
    without_axis,
)
from vexplain.transforms.program import Equation


def concatenated(step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]) -> list[Flow]:
    sizes = [v.shape[step.params["dimension"]] for v in step.inputs]
    return [_joined(flows, step.params["dimension"], sizes, step.out.shape)]


def stacked(step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]) -> list[Flow]:
    a = step.params.get("axis", 0) % len(step.out.shape)
    widened = [None if f is None else with_axis(f, a) for f in flows]
    joined = _joined(widened, a, [1] * len(flows), step.out.shape)
    if len(set(step.inputs)) > 1:
        return [joined]
    return [with_one_axis(joined, a, Axis(len(flows)))]  # the same, again


def stacked_steps(
    step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]
) -> list[Flow] | None:
    """What the steps of a scan gave: one for each image or row, where that is what they took."""
    n = step.params["num_steps"]
    steps, rows = flows[:n], [f for f in flows[n:] if f is not None]
    if all(f is None for f in steps):
        return None
    joined = _joined([None if f is None else with_axis(f, 0) for f in steps], 0, [1] * n, step.out.shape)
    others = {d for axis in joined.axes for d in axis.places}
    taken_along = rows[0].axes[0] if rows else Axis(n)
    if not all(row.axes[0].is_known for row in rows):
        return [with_one_axis(joined, 0, Axis(n, is_known=False))]
    for d in DIMENSIONS:
        if taken_along.is_only(d) and d not in others:
            return [with_one_axis(joined, 0, Axis(n, taken_along.places))]
    return [joined]


def _joined(flows: Sequence[Flow | None], a: int, sizes: Sequence[int], shape: Sequence[int]) -> Flow:
    """Flows one after the other along an axis; `None` for what depends on no image."""
    flows = [f for f, n in zip(flows, sizes, strict=True) if n]
    sizes = [n for n in sizes if n]
    parts = [f for f in flows if f is not None]
    outer = [without_axis(f, a) for f in parts]
    rest = functools.reduce(union, outer)
    axis = _joined_axis([None if f is None else f.axes[a] for f in flows], parts, sizes, shape[a])
    reach = []
    for d in DIMENSIONS:
        widths = [n if f is None else f.reach[d].shape[1 + a] for f, n in zip(flows, sizes, strict=True)]
        first = parts[0].reach[d]
        same = len(parts) == len(flows) and all(w == 1 for w in widths)
        if same and all(np.array_equal(f.reach[d], first) for f in parts):
            reach.append(first)
            continue
        ranks = [f.reach[d] for f in parts]
        full = np.broadcast_shapes(*((*r.shape[: 1 + a], 1, *r.shape[2 + a :]) for r in ranks))
        pieces = []
        for f, n in zip(flows, sizes, strict=True):
            to = (*full[: 1 + a], n, *full[2 + a :])
            pieces.append(np.full(to, NOTHING) if f is None else np.broadcast_to(f.reach[d], to))
        reach.append(np.concatenate(pieces, 1 + a))
    axes = [*rest.axes[:a], axis, *rest.axes[a:]]
    return Flow(tuple(axes), tuple(reach), rest.point).ranked()


def _joined_axis(
    pieces: Sequence[Axis | None], parts: Sequence[Flow], sizes: Sequence[int], size: int
) -> Axis:
    axes = [piece for piece in pieces if piece is not None]
    if not all(axis.is_known for axis in axes):
        return Axis(size, is_known=False)
    holds = any(axis.holds_channels for axis in axes)
    dims = {d for axis in axes for d in axis.places}
    if dims:
        several = [axis for axis in axes if axis.size > 1]  # a single entry is a token, as that of a class
        if any(axis.holds_channels and not axis.places for axis in several):
            return Axis(size, is_known=False)
        nothing = [np.full(n, np.nan) for n in sizes]
        places = {
            d: np.concatenate(
                [n if p is None else p.places.get(d, n) for p, n in zip(pieces, nothing, strict=True)]
            )
            for d in dims
        }
        return Axis(size, places, any(axis.holds_channels for axis in several))
    if len(pieces) > 1 and len(axes) == len(pieces) == size and all(axis.is_copy for axis in axes):
        differing = {
            d: np.array([f.point[d] for f in parts])
            for d in DIMENSIONS
            if all(d in f.point for f in parts) and len({f.point[d] for f in parts}) == size
        }
        if len(differing) == 1:
            return Axis(size, differing)
    return Axis(size, holds_channels=holds or size > 1)


def scan_slice(step: Equation, k: int, flow: Flow) -> Flow:
    return dropped(taken(flow, 0, np.array([step.params["index"]])), [0])


def after_cond(step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]) -> list[Flow] | None:
    index, *rest = flows
    num_branches, count = step.params["num_branches"], len(step.outputs)
    rest = rest[len(rest) - num_branches * count :]
    found = []
    for o, out in enumerate(step.outputs):
        parts = [f for f in rest[o::count] if f is not None]
        if not parts:
            found.append(unknown(out.shape, image_shape))
            continue
        flow = functools.reduce(union, parts)
        found.append(flow if index is None else seeing_everything(flow, image_shape, images_too=True))
    return found


def after_while(
    step: Equation, flows: Sequence[Flow | None], image_shape: Sequence[int]
) -> list[Flow | None]:
    """What the body leaves as it was is so after any number of steps."""
    n = step.params["num_carry"]
    before, after, conditions = flows[-2 * n : -n], flows[-n:], flows[: -2 * n]
    found: list[Flow | None] = []
    for first, last, out in zip(before, after, step.outputs, strict=True):
        flow = last if first is None else first if last is None else union(first, last)
        if flow is None or first is None or any(f is not None for f in conditions):
            found.append(unknown(out.shape, image_shape))
            continue
        if not all(_is_same_axis(x, y) for x, y in zip(first.axes, flow.axes, strict=True)):
            found.append(unknown(out.shape, image_shape))
            continue
        keeps_images = np.array_equal(first.reach[IMAGE], flow.reach[IMAGE])
        found.append(seeing_everything(flow, image_shape, images_too=not keeps_images))
    return found


def _is_same_axis(a: Axis, b: Axis) -> bool:
    return (
        a.is_known == b.is_known
        and a.holds_channels == b.holds_channels
        and set(a.places) == set(b.places)
        and all(np.array_equal(a.places[d], b.places[d], equal_nan=True) for d in a.places)
    )
