"""How sums, matrix products and other reductions leave axes out (see `flow`)."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from vexplain.transforms.flow import COLUMN, ROW, Axis, Flow, dropped, hull, transposed, with_one_axis
from vexplain.transforms.program import Equation, array_of
from vexplain.transforms.sliding import gathered_by_taps, slid_axis


def reduced(step: Equation, k: int, flow: Flow) -> Flow:
    return dropped(flow, step.params["axes"])


def squeezed(step: Equation, k: int, flow: Flow) -> Flow:
    return dropped(flow, step.params["dimensions"])


def accumulated(step: Equation, k: int, flow: Flow) -> Flow:
    a, backward = step.params["axis"], step.params["reverse"]
    turn = (lambda r: np.flip(r, 1 + a)) if backward else (lambda r: r)
    reach = tuple(turn(np.minimum.accumulate(turn(r), 1 + a)) for r in flow.reach)
    return dataclasses.replace(flow, reach=reach)


def mixed_along(axes_of: Callable[[Equation, Flow], Sequence[int]]) -> Callable[..., Flow]:
    """For what reorders or mixes entries along some axes, which are not known after it."""

    def rule(step: Equation, k: int, flow: Flow) -> Flow:
        mixed = list(axes_of(step, flow))
        flow = hull(flow, mixed)
        sizes = step.out.shape
        axes = [Axis(sizes[a], is_known=False) if a in mixed else axis for a, axis in enumerate(flow.axes)]
        return Flow(tuple(axes), flow.reach, flow.point)

    return rule


def contracted(step: Equation, k: int, flow: Flow) -> Flow | None:
    (contract, batch), other_dims = _dims(step, k), _dims(step, 1 - k)
    other = step.inputs[1 - k]
    free = [a for a in range(len(flow.axes)) if a not in (*contract, *batch)]
    other_free = [a for a in range(len(other.shape)) if a not in (*other_dims[0], *other_dims[1])]
    is_resampling, flow = _resampled(step, k, flow, contract, batch, other_free)
    news = [Axis(other.shape[a], holds_channels=not other.depends_on_images) for a in other_free]
    if not other.depends_on_images and not mixes_channels(flow, contract):
        news = [Axis(axis.size, is_known=False) for axis in news]  # a mixture of positions
    if is_resampling:
        a = contract[0]
        news = [slid_axis(flow, a, news[0].size, is_same=False)]
        flow = transposed(with_one_axis(flow, a, news[0]), [*batch, *free, a])
    else:
        left = [b for b in range(len(flow.axes)) if b not in contract]
        flow = transposed(dropped(flow, contract), [left.index(b) for b in (*batch, *free)])
        reach = tuple(r.reshape(*r.shape, *(1,) * len(news)) for r in flow.reach)
        flow = Flow((*flow.axes, *news), reach, flow.point)
    if k == 1:  # its free axes come after those of the other
        n, every = len(batch), list(range(len(flow.axes)))
        flow = transposed(flow, every[:n] + every[n + len(free) :] + every[n : n + len(free)])
    return flow.ranked()


def mixes_channels(flow: Flow, contract: Sequence[int]) -> bool:
    """Does a sum mix channels, or all that there is, and not positions or what is not known?"""
    summed = [flow.axes[a] for a in contract]
    left = [axis for a, axis in enumerate(flow.axes) if a not in contract]
    has_channels = any(axis.is_known and not axis.places for axis in summed)
    return not summed or has_channels or not any(axis.holds_channels for axis in left)


def _dims(step: Equation, k: int) -> tuple[list[int], list[int]]:
    contract, batch = step.params["dimension_numbers"]
    return [int(a) for a in contract[k]], [int(a) for a in batch[k]]


def _resampled(step, k, flow, contract, batch, other_free) -> tuple[bool, Flow]:
    """Follows a product with a known matrix that resamples rows or columns, as `jax.image.resize` does."""
    other = step.inputs[1 - k]
    is_of_space = len(contract) == 1 == len(other_free) and not batch and not other.depends_on_images
    if not is_of_space or not any(flow.axes[contract[0]].is_only(d) for d in (ROW, COLUMN)):
        return False, flow
    matrix = array_of(other)
    if matrix is None:
        return False, flow
    weights = np.moveaxis(np.asarray(matrix, float), other_free[0], 0)  # (out, in)
    centers = weights @ np.arange(weights.shape[1])
    rounding = 1e-3 if np.asarray(matrix).dtype.itemsize > 2 else 3e-2
    sums_to_one = np.abs(weights.sum(1) - 1).max() < rounding
    if not sums_to_one or (np.diff(centers) < -rounding * weights.shape[1]).any():
        return False, flow
    index = np.broadcast_to(np.arange(weights.shape[1]), weights.shape)
    counts = np.abs(weights) > 0
    reach = tuple(gathered_by_taps(r, contract[0], index, counts, counts) for r in flow.reach)
    return True, dataclasses.replace(flow, reach=reach)
