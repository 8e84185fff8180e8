"""Finds the map that a network reduces to one vector an image: where class activation maps are read."""

from collections.abc import Iterable, Sequence

import numpy as np

from vexplain.transforms.flow import COLUMN, ROW, Flow, positions
from vexplain.transforms.layer import Layer
from vexplain.transforms.layer_kinds import Draft
from vexplain.transforms.program import Equation, Value

_PICKS = ("slice", "gather", "dynamic_slice", "squeeze", "split", "unstack")


def last_map(
    steps: Sequence[Equation], flows: dict[Value, Flow], layers: Sequence[tuple[Layer, Draft]]
) -> str | None:
    """Returns the name of the layer that the last reduction over rows and columns acts on.

    It is `None` where no layer has any, or where what is reduced last could not be followed.

    That is a mean or maximum, a flattening, or a contraction. Where a class token is picked instead, the last
    reduction is the last attention, and the layer that from which its keys and values are made. A pooling is
    passed over for what it pools, which is finer.
    """
    readable = [(layer, draft) for layer, draft in layers if layer.is_readable and layer.num_positions]
    operands, is_lost = _last_reduction(steps, flows)
    if is_lost or not readable:
        return None
    if operands is None:
        return readable[-1][0].name
    above = set.intersection(*(_above(operand) for operand in operands))
    before = [(layer, draft) for layer, draft in readable if draft.leaving in above]
    before = [pair for pair in before if pair[0].num_positions > 1] or before
    passed = ("pool", "dense") if len(operands) > 1 else ("pool",)  # queries, keys and values may come of one
    while before and before[-1][0].kind in passed and len(before) > 1:
        pooled = before.pop()[1]
        further = _above(pooled.entering)
        before = [pair for pair in before if pair[1].leaving in further]
    return before[-1][0].name if before else None


def _last_reduction(steps: Sequence[Equation], flows: dict[Value, Flow]) -> tuple[list[Value] | None, bool]:
    """What the last step takes that leaves no more than one position; whether that could not be followed."""
    attention: list[Value] | None = None
    found: list[Value] | None = None
    is_lost = False
    for step in steps:
        if any(v.depends_on_images and _is_unknown_map(v, flows[v]) for v in step.inputs):
            is_lost = is_lost or any(v.depends_on_images and len(v.shape) <= 2 for v in step.outputs)
        sources = [v for v in step.inputs if v.depends_on_images and _num_positions(flows[v]) > 1]
        if not sources or not step.outputs or not step.out.depends_on_images:
            continue
        if step.kind == "dot_general" and len(sources) == 2 and _contracts_positions(step, flows):
            attention = sources
        if all(_num_positions(flows[v]) <= 1 for v in step.outputs) and not _spreads_again(
            step.outputs, flows
        ):
            is_pick = step.kind in _PICKS and attention is not None
            found, is_lost = attention if is_pick else sources, False
    return found, is_lost


def _is_unknown_map(value: Value, flow: Flow) -> bool:
    return len(value.shape) >= 3 and not all(axis.is_known for axis in flow.axes)


def _num_positions(flow: Flow) -> int:
    if positions(flow) != {ROW, COLUMN}:
        return 0
    count = 1
    for axis in flow.axes:
        if not axis.holds_channels and not {ROW, COLUMN}.isdisjoint(axis.places):
            numbers = [places for d, places in axis.places.items() if d in (ROW, COLUMN)]
            inside = ~np.isnan(numbers).any(0)
            count *= len(set(zip(*(n[inside] for n in numbers), strict=True)))
    return count


def _contracts_positions(step: Equation, flows: dict[Value, Flow]) -> bool:
    contract, _ = step.params["dimension_numbers"]
    return any(
        {ROW, COLUMN} <= set(flows[value].axes[int(a)].places)
        for value, axes in zip(step.inputs, contract, strict=True)
        for a in axes
    )


def _spreads_again(values: Iterable[Value], flows: dict[Value, Flow]) -> bool:
    """Does what was reduced go into a map again, as a statistic or a gate does?"""
    waiting = list(values)
    seen = set(waiting)
    while waiting:
        for user in waiting.pop().consumers:
            for out in user.outputs:
                if out.depends_on_images and _num_positions(flows[out]) > 1:
                    return True
                if out not in seen:
                    seen.add(out)
                    waiting.append(out)
    return False


def _above(value: Value) -> set[Value]:
    """A value and all that it is made of."""
    waiting, seen = [value], {value}
    while waiting:
        maker = waiting.pop().producer
        for part in maker.inputs if maker is not None else ():
            if part.depends_on_images and part not in seen:
                seen.add(part)
                waiting.append(part)
    return seen
