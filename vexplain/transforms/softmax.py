"""Recognizes a softmax: its exponentials, their sum, the maximum that is subtracted first, its shares."""

from collections.abc import Iterator

import jax.numpy as jnp

from vexplain.transforms.divisors import FARTHEST, REARRANGED, is_statistic, only_divides, scaled_from
from vexplain.transforms.program import Equation, Value


def feeds_softmax(value: Value) -> bool:
    """Does it go to the exponentials of a softmax, and to nothing else?"""
    waiting, seen, is_found = [value], {value}, False
    while waiting:
        for user in (value := waiting.pop()).consumers:
            others = [v for v in user.inputs if v is not value and v.depends_on_images]
            if user.kind == "exp":
                if not only_divides(user):
                    return False
                is_found = True
                continue
            if user.kind == "reduce_max" and is_shift_of_softmax(user):
                continue
            scales = user.kind in ("mul", "div", "add", "select_n", "max") and not others
            shifts = user.kind == "sub" and all(map(is_statistic, others))
            if not (scales or shifts or user.kind in REARRANGED):
                return False
            if user.out not in seen:
                seen.add(user.out)
                waiting.append(user.out)
    return is_found


def is_softmax(value: Value) -> bool:
    """The shares of a softmax, maybe masked or cast."""
    for _ in range(FARTHEST):
        maker = value.producer
        if maker is None:
            return False
        others = [v for v in maker.inputs if v.depends_on_images]
        if maker.kind == "div" and len(others) == 2:
            return any(
                v.producer is not None and v.producer.kind == "exp" for v in scaled_from(maker.inputs[0])
            )
        if maker.kind not in (*REARRANGED, "mul", "div", "select_n") or len(others) != 1:
            return False
        value = others[0]
    return False


def is_softmax_quotient(step: Equation, divisor: int) -> bool:
    """Are exponentials divided here by their own sum, the input `divisor`?"""
    above = scaled_from(step.inputs[1 - divisor])
    return any(v.producer is not None and v.producer.kind == "exp" for v in above)


def is_shift_of_softmax(step: Equation) -> bool:
    """A maximum that is subtracted before an exponential, and added after its logarithm."""
    waiting, seen, is_found = [step.out], {step.out}, False
    while waiting:
        for user in (value := waiting.pop()).consumers:
            if user.kind == "sub" and user.inputs[1] is value:
                is_found = is_found or any(u.kind == "exp" for u in _users_of_same(user.out))
            elif user.kind == "add" or not jnp.issubdtype(user.out.dtype, jnp.inexact):
                continue
            elif user.kind in (*REARRANGED, "max", "select_n"):
                if user.out not in seen:
                    seen.add(user.out)
                    waiting.append(user.out)
            else:
                return False
    return is_found


def _users_of_same(value: Value) -> Iterator[Equation]:
    for user in value.consumers:
        if user.kind in (*REARRANGED, "mul"):
            yield from _users_of_same(user.out)
        yield user
