"""Recognizes local response normalization, x · (κ + α Σ x²)^-β with a sum over neighbors."""

from vexplain.transforms.divisors import AFFINE, DIVISORS, REARRANGED, is_square
from vexplain.transforms.program import Equation, Value

_WINDOWS = ("reduce_window_sum", "reduce_window", "cumsum", "slice")  # sums over neighbors
_OF_NEIGHBORS = (*AFFINE, *DIVISORS, *REARRANGED, *_WINDOWS, "exp", "neg", "integer_pow", "concatenate")


def response_norm_operand(step: Equation) -> int | None:
    """Which input x is, of the step that ends x · (κ + α Σ x²)^-β, its sum over neighbors; or `None`."""
    if step.kind not in ("mul", "div") or len(set(step.inputs)) != 2:
        return None
    for operand in (0,) if step.kind == "div" else (0, 1):
        if _is_of_neighbors(step.inputs[1 - operand], step.inputs[operand], is_divisor=step.kind == "div"):
            return operand
    return None


def is_inside_response_norm(step: Equation) -> bool:
    """A sum over neighbors that a response normalization divides by: no pooling, no addition of branches."""
    start = step.out
    values, seen = [start], {start}
    while values:
        for user in values.pop().consumers:
            operand = response_norm_operand(user)
            if operand is not None and _kinds_above_squares(start, user.inputs[operand]) is not None:
                return True
            if user.kind in _OF_NEIGHBORS and user.outputs and user.out not in seen:
                seen.add(user.out)
                values.append(user.out)
    return False


def _is_of_neighbors(value: Value, x: Value, *, is_divisor: bool) -> bool:
    """Is this a power of sums over neighbors, made of the squares of x and of nothing else?"""
    kinds = _kinds_above_squares(value, x) or set()
    return not kinds.isdisjoint(_WINDOWS) and (is_divisor or not kinds.isdisjoint(DIVISORS))


def _kinds_above_squares(value: Value, x: Value) -> set[str] | None:
    """The kinds of steps that make this out of the squares of x; `None` if it is made of anything else."""
    values, seen, kinds = [value], {value}, set()
    while values:
        maker = values.pop().producer
        if maker is None:
            return None
        if is_square(maker):
            if maker.inputs[0] is not x:
                return None
            continue
        if maker.kind not in _OF_NEIGHBORS:
            return None
        kinds.add(maker.kind)
        for part in maker.inputs:
            if part.depends_on_images and part not in seen:
                seen.add(part)
                values.append(part)
    return kinds
