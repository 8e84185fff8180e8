"""Axes split and joined: how `reshape` and gathers move places and reach (see `flow`)."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from vexplain.transforms.flow import DIMENSIONS, IMAGE, Axis, Flow, added
from vexplain.transforms.program import Equation, bind

_MOST_ENTRIES = 2**22  # of an array whose entries are followed one by one


def reshaped(flow: Flow, shape: Sequence[int]) -> Flow | None:
    """Returns the flow after a reshape: each group of axes that is split and joined again on its own."""
    groups = _groups(flow.shape, shape)
    if groups is None:
        return None
    axes: list[Axis] = []
    for olds, news in groups:
        axes += _regrouped([flow.axes[a] for a in olds], [shape[b] for b in news])
    reach = []
    for r in flow.reach:
        full, sizes = [4], [4]
        for olds, news in groups:
            is_varied = any(r.shape[1 + a] > 1 for a in olds)
            full += [flow.axes[a].size if is_varied else 1 for a in olds]
            sizes += [shape[b] if is_varied else 1 for b in news]
        reach.append(_without_repetition(np.broadcast_to(r, full).reshape(sizes)))
    return Flow(tuple(axes), tuple(reach), flow.point).of_one_image().ranked()


def _without_repetition(reach: np.ndarray) -> np.ndarray:
    """With length one along axes where nothing changes."""
    for a in range(1, reach.ndim):
        if reach.shape[a] > 1:
            first = np.take(reach, [0], a)
            reach = first if (reach == first).all() else reach
    return reach


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]] | None:
    """The smallest runs of axes of equal product, on both sides."""
    if 0 in old:
        return None
    groups, i, j = [], 0, 0
    while i < len(old) and j < len(new):
        olds, news, before, after = [i], [j], old[i], new[j]
        i, j = i + 1, j + 1
        while before != after:
            if before < after:
                olds.append(i)
                before, i = before * old[i], i + 1
            else:
                news.append(j)
                after, j = after * new[j], j + 1
        groups.append((olds, news))
    if groups:
        groups[-1][0].extend(range(i, len(old)))  # axes of length one
        groups[-1][1].extend(range(j, len(new)))
    elif old or new:
        groups.append((list(range(len(old))), list(range(len(new)))))
    return groups


def _regrouped(olds: Sequence[Axis], news: Sequence[int]) -> list[Axis]:
    if len(olds) == 1 == len(news):
        return [olds[0]]
    if not all(axis.is_known for axis in olds):
        return [Axis(n, is_known=False) for n in news]
    holds = any(axis.holds_channels and axis.size > 1 for axis in olds)
    holds = holds or (all(axis.size == 1 for axis in olds) and any(axis.holds_channels for axis in olds))
    sizes = [axis.size for axis in olds]
    places: list[dict[int, np.ndarray]] = [{} for _ in news]
    periods: dict[int, int] = {}
    for d in DIMENSIONS:
        total = added(olds, d, sizes)
        if total is None:
            continue
        parts, period = _separated_or_rolled(total.reshape(tuple(news)), d)
        if parts is None:
            return [Axis(n, is_known=False) for n in news]
        period = next((axis.period[d] for axis in olds if d in axis.period), period)
        for k, part in parts.items():
            places[k][d] = part
        if period is not None:
            periods[d] = period
    is_alone, num_long = all(m == 1 for m in news), sum(n > 1 for n in news)
    channels = [axis for axis in olds if axis.holds_channels and axis.size > 1]
    is_part = all(axis.is_part for axis in channels) or (num_long > 1 and len(channels) == 1)
    axes = [_of_part(n, p, holds, is_alone, periods) for n, p in zip(news, places, strict=True)]
    return [dataclasses.replace(axis, is_part=is_part and axis.holds_channels) for axis in axes]


def _of_part(
    size: int, places: dict[int, np.ndarray], holds: bool, is_alone: bool, periods: dict[int, int]
) -> Axis:
    if not places:
        return Axis(size, holds_channels=holds and (size > 1 or is_alone))
    distinct = len(np.unique(np.stack(list(places.values())), axis=1).T)
    return Axis(
        size, places, holds and distinct < size, period={d: n for d, n in periods.items() if d in places}
    )


def _separated_or_rolled(places: np.ndarray, d: int) -> tuple[dict[int, np.ndarray] | None, int | None]:
    """The parts of places and, where these were rolled, their number."""
    parts = separated(places)
    if parts is not None or d == IMAGE or np.isnan(places).any():
        return parts, None
    period = int(places.max()) + 1
    return separated(places, period), period


def separated(places: np.ndarray, period: int | None = None) -> dict[int, np.ndarray] | None:
    """Splits an array of places into a sum of one part for each axis that has any; `None` if it is no sum.

    With a period the sum is taken modulo it.
    """
    long = [k for k, n in enumerate(places.shape) if n > 1]
    first = places.flat[0] if places.size else 0.0
    if len(long) <= 1:
        constant = not long or bool((places == first).all())
        ones = [k for k, n in enumerate(places.shape) if n == 1]
        k = ones[0] if constant and ones and not (long and long[0] < ones[0]) else (long or [0])[0]
        return {
            k: places.reshape(-1) if places.shape and places.shape[k] == places.size else np.array([first])
        }
    if np.isnan(places).any():
        return None
    parts: dict[int, np.ndarray] = {}
    rest = places - first
    for k in long:
        along = places[tuple(slice(None) if i == k else 0 for i in range(places.ndim))] - first
        if along.any():
            parts[k] = along
        rest = rest - along.reshape([-1 if i == k else 1 for i in range(places.ndim)])
    if (rest if period is None else rest % period).any():
        return None
    ones = [k for k, n in enumerate(places.shape) if n == 1]
    start = next(iter(parts), (ones or long)[0])
    parts[start] = parts.get(start, np.zeros(places.shape[start])) + first
    return parts


def by_source(step: Equation, flow: Flow, indices: Any) -> Flow | None:
    """Returns the flow after a gather of known indices, each of whose entries is followed to its source."""
    size, shape = int(np.prod(flow.shape)), step.out.shape
    if max(size, int(np.prod(shape))) > _MOST_ENTRIES:
        return None
    with jax.ensure_compile_time_eval():
        numbers = np.arange(1, size + 1, dtype=np.int32).reshape(flow.shape)
        source = (
            np.asarray(bind(step.source, [jax.numpy.asarray(numbers), jax.numpy.asarray(indices)])[0]) - 1
        )
    return moved_from(flow, source, shape)


def moved_from(flow: Flow, source: np.ndarray, shape: Sequence[int]) -> Flow | None:
    """Returns the flow of an array whose entries come from the given places of the flattened old one."""
    if not ((source >= 0) & (source < int(np.prod(flow.shape)))).all():
        return None
    where = np.unravel_index(source, flow.shape)
    places: list[dict[int, np.ndarray]] = [{} for _ in shape]
    for d in DIMENSIONS:
        having = [a for a, axis in enumerate(flow.axes) if d in axis.places]
        if not having:
            continue
        if any(d in flow.axes[a].period for a in having):
            return None
        parts = separated(sum(flow.axes[a].places[d][where[a]] for a in having))  # pyright: ignore
        if parts is None:
            return None
        for k, part in parts.items():
            places[k][d] = part
    if not all(axis.is_known for axis in flow.axes):
        return None
    holds = any(axis.holds_channels for axis in flow.axes)
    axes = [_of_part(n, p, holds, False, {}) for n, p in zip(shape, places, strict=True)]
    reach = []
    for r in flow.reach:
        full = np.broadcast_to(r, (4, *flow.shape)).reshape(4, -1)[:, source.reshape(-1)].reshape(4, *shape)
        reach.append(_without_repetition(full))
    return Flow(tuple(axes), tuple(reach), flow.point).ranked()
