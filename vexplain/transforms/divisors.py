"""Recognizes what is summed and divided by: means, variances, norms, and what they are made of.

A normalization squares, clips at zero and takes roots; none of that is an activation function of the
network, and neither are the exponentials of a softmax. What such a step computes counts as a part of a
normalization only where it is summed, and the sum goes on to a divisor (`rsqrt`, `div`, a negative power)
or to the logarithm of a log-softmax, and to nothing else. A ReLU of a variance is a ReLU.
"""

import jax.numpy as jnp

from vexplain.transforms.primitives import REDUCTIONS
from vexplain.transforms.program import Equation, Value, constant_of

AFFINE = ("sub", "mul", "add", "div")
REARRANGED = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "convert_element_type", "pad", "slice")
REARRANGED += (
    "stop_gradient",
    "copy",
    "name",
    "reduce_precision",
    "optimization_barrier",
    "split",
    "gather",
)
_POWERS = ("pow", "exp", "exp2", "integer_pow")
ROOTS = ("sqrt", "square", "abs", "max", "min", "select_n", "clamp", "cbrt", "relu", *_POWERS)
DIVISORS = ("rsqrt", "sqrt", "pow", "log")  # of what was summed: a deviation, a norm, a log-sum-exp
_OF_NORMS = frozenset((*ROOTS, *DIVISORS, "mul", "div", "abs_sq"))  # all that normalizations consist of
FARTHEST = 40  # values that are looked at on the way back

# How far on the way to a divisor a value is.
_TERM, _SUM, _POWER, _INVERSE, _SHIFT, _LOGARITHM = "term", "sum", "power", "inverse", "shift", "logarithm"


def only_divides(step: Equation) -> bool:
    """Does what a step computes go, summed, to where it divides, and to nothing else that counts?"""
    if step.kind not in _OF_NORMS:
        return False
    moving = [v for v in step.inputs if v.depends_on_images]
    starts = _starts(step, any(map(is_statistic, moving)))
    return any(_Paths(step, start).ends(step.out, start) for start in starts)


def _starts(step: Equation, is_of_sums: bool) -> list[str]:
    if not is_of_sums:
        return [] if step.kind in ("rsqrt", "log", "div") else [_TERM]
    if (
        step.kind == "rsqrt"
        or _is_negative_power(step)
        or (step.kind == "div" and step.inputs[1].depends_on_images)
    ):
        return [_INVERSE]
    if step.kind == "mul":
        return [_SHIFT, _SUM, _TERM] if is_square(step) else [_SHIFT]
    if step.kind == "log":
        return [_LOGARITHM]
    return [_POWER, _TERM] if step.kind in ("exp", "exp2") else [_SUM, _TERM]


def _is_negative_power(step: Equation) -> bool:
    if step.kind == "integer_pow":
        return step.params["y"] < 0
    exponent = constant_of(step.inputs[1]) if step.kind == "pow" else None
    return exponent is not None and exponent < 0


class _Paths:
    """Where the result of one step goes."""

    def __init__(self, step: Equation, start: str):
        self.known: dict[tuple[Value, str], bool | None] = {}
        moving = [v for v in step.inputs if v.depends_on_images]
        summed = [v for value in moving if is_statistic(value) for v in _above(value)]
        self.source = {step.out, *summed, *(v for value in moving for v in scaled_from(value))}
        if start != _TERM:  # what is divided by a sum is what was summed, not the sum
            self.source -= {step.out, *(v for value in moving for v in _since_sums(value))}

    def ends(self, value: Value, mode: str) -> bool | None:
        """True if all paths divide, False if one does something else, `None` where none goes anywhere."""
        place = (value, mode)
        if place not in self.known:
            self.known[place] = None
            found = [self.at(user, value, mode) for user in value.consumers]
            self.known[place] = False if False in found else True if True in found else None
        return self.known[place]

    def at(self, user: Equation, value: Value, mode: str) -> bool | None:
        if not user.outputs or not jnp.issubdtype(user.out.dtype, jnp.inexact):
            return None  # printed, or a condition: what is selected by it is asked on its own
        if not user.out.consumers and not user.out.is_output:
            return None
        others = [v for v in user.inputs if v is not value and v.depends_on_images]
        if user.kind in REARRANGED:
            after: str | bool = mode if not others else False
        elif mode == _TERM:
            after = self.after_term(user, value, others)
        else:
            after = self.after_sum(user, value, others, mode)
        return after if isinstance(after, bool) else self.ends(user.out, after)

    def after_term(self, user: Equation, value: Value, others: list[Value]) -> str | bool:
        """Before the sum: scaled, masked, summed; or the numerator of a softmax."""
        if (
            user.kind in ("reduce_sum", "reduce_max", "reduce_window_sum", "cumsum", "dot_general")
            and not others
        ):
            return _SUM
        if user.kind == "div" and user.inputs[0] is value and others:
            return is_statistic(others[0]) and any(_is_same(value, v) for v in _above(others[0]))
        return _TERM if user.kind in (*AFFINE, "select_n", "neg") and not others else False

    def after_sum(self, user: Equation, value: Value, others: list[Value], mode: str) -> str | bool:
        """Of a sum: its root, its inverse, and what that is multiplied with."""
        kind, of_sums = user.kind, all(map(is_statistic, others))
        is_own = any(not self.source.isdisjoint(scaled_from(v)) for v in others)
        if kind == "neg" or kind in REDUCTIONS or kind in ("reduce_window_sum", "cumsum"):
            return mode
        if kind in ("add", "sub"):
            is_close = mode == _SHIFT or (mode == _LOGARITHM and kind == "sub" and user.inputs[1] is value)
            return mode if of_sums and not (is_close and is_own) else is_close and is_own
        if kind == "div" and user.inputs[1] is value:
            return True if is_own else _INVERSE if of_sums and mode in (_SUM, _POWER) else False
        if kind in ("mul", "div"):
            divides = kind == "mul" and mode in (_INVERSE, _POWER)
            if not others:
                return mode
            return True if divides and is_own else of_sums and (_SHIFT if divides or mode == _SHIFT else mode)
        if kind in ("max", "min", "select_n", "abs", "clamp", "relu") and of_sums:
            return mode
        if mode == _LOGARITHM:
            return _POWER if kind in ("exp", "exp2") else False
        if mode in (_SUM, _POWER) and of_sums:
            ends = {"rsqrt": _INVERSE, "log": _LOGARITHM}
            is_root = kind in ("sqrt", "square", "cbrt", "pow", "integer_pow")
            return _INVERSE if _is_negative_power(user) else ends.get(kind, mode if is_root else False)
        return False


def is_statistic(value: Value) -> bool:
    """A mean, a deviation or the inverse of one: reduced, then broadcast, and made of nothing else."""
    waiting, seen, is_reduced = [value], {value}, False
    while waiting and len(seen) < FARTHEST:
        maker = waiting.pop().producer
        if maker is None:
            return False
        if maker.kind in REDUCTIONS:
            is_reduced = True
            continue
        if maker.kind not in (*AFFINE, *REARRANGED, *ROOTS, *DIVISORS, "neg"):
            return False
        for part in maker.inputs:
            if part.depends_on_images and part not in seen and jnp.issubdtype(part.dtype, jnp.inexact):
                seen.add(part)
                waiting.append(part)
    return is_reduced and not waiting


def is_divided(step: Equation) -> bool:
    """A product or quotient of a value with a statistic of its own: the end of a normalization or softmax."""
    return divisor_operand(step) is not None


def divisor_operand(step: Equation) -> int | None:
    """Which input the statistic is, of what `is_divided`; else `None`."""
    if step.kind not in ("mul", "div"):
        return None
    for k in (1,) if step.kind == "div" else (0, 1):
        other, value = step.inputs[k], step.inputs[1 - k]
        divides = is_statistic(other) and (step.kind == "div" or _has_divisor(other))
        summed = _above(other) - _since_sums(other)
        if divides and _has_power(other) and not summed.isdisjoint(scaled_from(value)):
            return k
    return None


def is_square(step: Equation | None) -> bool:
    if step is None:
        return False
    if step.kind == "mul":
        return step.inputs[0] is step.inputs[1]
    return step.kind in ("square", "abs_sq") or (step.kind == "integer_pow" and step.params["y"] == 2)


def _is_same(a: Value, b: Value) -> bool:
    """One value, or the same step written twice."""
    x, y = a.producer, b.producer
    return a is b or (x is not None and y is not None and x.kind == y.kind and x.inputs == y.inputs)


def _has_divisor(value: Value) -> bool:
    """Is a statistic the inverse of something?"""
    makers = [made.producer for made in _above(value) if made.producer is not None]
    inverts = ("rsqrt", "pow", "exp", "integer_pow")
    return any(m.kind in inverts or (m.kind == "div" and m.inputs[1].depends_on_images) for m in makers)


def _has_power(value: Value) -> bool:
    """Is a statistic one of squares, magnitudes or exponentials, rather than a mean?"""
    makers = [made.producer for made in _above(value) if made.producer is not None]
    return any(
        is_square(m) or m.kind in ("abs", "exp", "exp2", "integer_pow", "pow", "reduce_max") for m in makers
    )


def _above(value: Value) -> set[Value]:
    """A statistic and all that it is made of, to the sums and what is summed."""
    return _made_of(value, (*AFFINE, *REARRANGED, *ROOTS, *DIVISORS, *REDUCTIONS))


def _since_sums(value: Value) -> set[Value]:
    """A statistic and what it is made of, to the sums and no farther: one number for each of its own."""
    return _made_of(value, (*AFFINE, *REARRANGED, *ROOTS, *DIVISORS))


def _made_of(value: Value, kinds: tuple[str, ...]) -> set[Value]:
    waiting, seen = [value], {value}
    while waiting and len(seen) < FARTHEST:
        maker = waiting.pop().producer
        if maker is None or maker.kind not in kinds:
            continue
        for part in maker.inputs:
            if part.depends_on_images and part not in seen:
                seen.add(part)
                waiting.append(part)
    return seen


def scaled_from(value: Value) -> list[Value]:
    """A value and those before it of which it is a scaled, shifted or linear form, or a product."""
    passing = (*AFFINE, *REARRANGED, "neg", "exp", "dot_general", "conv_general_dilated")
    found = [value]
    for value in found:
        maker = value.producer
        if maker is None or maker.kind not in passing or len(found) > FARTHEST:
            continue
        moving = [v for v in maker.inputs if v.depends_on_images]
        main = [v for v in moving if not is_statistic(v)]
        if len(main) <= 1 or maker.kind == "mul":  # pooled numbers less their mean are all statistics
            found += [v for v in main or moving if v not in found]
    return found
