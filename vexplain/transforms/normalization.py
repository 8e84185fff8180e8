"""Recognizes what a network divides by: normalization, softmax, attention.

A normalization layer computes means, variances and their roots, and applies them to every position again.
Seen step by step it squares, clips at zero and divides; none of that is an activation function of the
network, and neither are the exponentials of a softmax. What such a step computes counts as a part of a
normalization only where it is summed, and the sum goes on to a divisor (`rsqrt`, `div`, a negative power)
or to the logarithm of a log-softmax, and to nothing else. A ReLU of a variance is a ReLU.
"""

from collections.abc import Iterator

import jax.numpy as jnp

from vexplain.transforms.flow import COLUMN, ROW, Flow
from vexplain.transforms.primitives import REDUCTIONS
from vexplain.transforms.program import Equation, Value, constant_of

AFFINE = ("sub", "mul", "add", "div")
_REARRANGED = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "convert_element_type", "pad", "slice")
_REARRANGED += (
    "stop_gradient",
    "copy",
    "name",
    "reduce_precision",
    "optimization_barrier",
    "split",
    "gather",
)
_POWERS = ("pow", "exp", "exp2", "integer_pow")
_ROOTS = ("sqrt", "square", "abs", "max", "min", "select_n", "clamp", "cbrt", "relu", *_POWERS)
_DIVISORS = ("rsqrt", "sqrt", "pow", "log")  # of what was summed: a deviation, a norm, a log-sum-exp
_WINDOWS = ("reduce_window_sum", "reduce_window", "cumsum", "slice")  # sums over neighbors
_OF_NEIGHBORS = (*AFFINE, *_DIVISORS, *_REARRANGED, *_WINDOWS, "exp", "neg", "integer_pow", "concatenate")
_FARTHEST = 40  # values that are looked at on the way back

# How far on the way to a divisor a value is.
_TERM, _SUM, _POWER, _INVERSE, _SHIFT, _LOGARITHM = "term", "sum", "power", "inverse", "shift", "logarithm"


def only_divides(step: Equation) -> bool:
    """Does what a step computes go, summed, to where it divides, and to nothing else that counts?"""
    moving = [v for v in step.inputs if v.depends_on_images]
    return any(_Paths(step).ends(step.out, start) for start in _starts(step, any(map(is_statistic, moving))))


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
        return [_SHIFT, _SUM] if is_square(step) else [_SHIFT]
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

    def __init__(self, step: Equation):
        self.known: dict[tuple[Value, str], bool | None] = {}
        moving = [v for v in step.inputs if v.depends_on_images]
        summed = [v for value in moving if is_statistic(value) for v in _above(value)]
        self.source = {step.out, *summed, *(v for value in moving for v in _chain(value))}

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
        if user.kind in _REARRANGED:
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
        is_own = any(not self.source.isdisjoint(_chain(v)) for v in others)
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


def closes_norm(step: Equation) -> list[Equation] | None:
    """The per-channel shifts and scales that end here, from the last on; `None` if they are no norm."""
    if not _is_norm_step(step):
        return None
    users = step.out.consumers
    if (
        len(users) == 1
        and not step.out.is_output
        and _is_norm_step(users[0])
        and _main_input(users[0]) is step.out
    ):
        return None
    chain, value = [step], _main_input(step)
    while value.producer is not None and _is_norm_step(value.producer):
        chain.append(value.producer)
        value = _main_input(value.producer)
    if is_bias(chain[-1]):
        chain.pop()
    is_norm = len(chain) >= 2 and any(s.kind in ("mul", "div") for s in chain)
    return chain if is_norm else None


def is_bias(step: Equation) -> bool:
    """The addition of one number a channel to what a convolution or matrix product gives."""
    if step.kind != "add" or len(set(step.inputs)) != 2:
        return False
    value, other = step.inputs if step.inputs[0].depends_on_images else step.inputs[::-1]
    maker = value.producer
    while (
        maker is not None
        and maker.kind in ("squeeze", "reshape", "transpose")
        and len(maker.out.consumers) == 1
    ):
        maker = maker.inputs[0].producer
    is_linear = maker is not None and maker.kind in ("conv_general_dilated", "dot_general")
    is_alone = len(value.consumers) == 1 and not value.is_output and step.out.shape == value.shape
    return is_linear and is_alone and not other.depends_on_images and is_per_channel(other)


def norm_input(chain: list[Equation]) -> Value:
    """What enters a normalization whose last steps these are."""
    return _main_input(chain[-1])


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


def is_statistic(value: Value) -> bool:
    """A mean, a deviation or the inverse of one: reduced, then broadcast, and made of nothing else."""
    waiting, seen, is_reduced = [value], {value}, False
    while waiting and len(seen) < _FARTHEST:
        maker = waiting.pop().producer
        if maker is None:
            return False
        if is_reduction(maker):
            is_reduced = True
            continue
        if maker.kind not in (*AFFINE, *_REARRANGED, *_ROOTS, *_DIVISORS, "neg"):
            return False
        for part in maker.inputs:
            if part.depends_on_images and part not in seen and jnp.issubdtype(part.dtype, jnp.inexact):
                seen.add(part)
                waiting.append(part)
    return is_reduced and not waiting


def is_divided(step: Equation) -> bool:
    """A product or quotient of a value with a statistic of its own: the end of a normalization or softmax."""
    for k in (1,) if step.kind == "div" else (0, 1):
        other, value = step.inputs[k], step.inputs[1 - k]
        divides = is_statistic(other) and (step.kind == "div" or _has_divisor(other))
        if divides and _has_power(other) and not _above(other).isdisjoint(_chain(value)):
            return True
    return False


def _is_same(a: Value, b: Value) -> bool:
    """One value, or the same step written twice."""
    x, y = a.producer, b.producer
    return a is b or (x is not None and y is not None and x.kind == y.kind and x.inputs == y.inputs)


def is_broadcast_again(value: Value, flows: dict[Value, Flow]) -> bool:
    """A mean or variance over the image that a normalization layer applies to every pixel again."""
    values, seen = [value], {value}
    while values:
        for user in values.pop().consumers:
            out = user.outputs[0] if user.outputs else None
            if out is None or not out.depends_on_images:
                continue
            if user.kind in AFFINE and len(positions(flows[out])) == 2:
                return True
            if user.kind in (*AFFINE, *_REARRANGED, *_ROOTS, "rsqrt") and out not in seen:
                seen.add(out)
                values.append(out)
    return False


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
            if not (scales or shifts or user.kind in _REARRANGED):
                return False
            if user.out not in seen:
                seen.add(user.out)
                waiting.append(user.out)
    return is_found


def is_softmax(value: Value) -> bool:
    """The shares of a softmax, maybe masked or cast."""
    for _ in range(_FARTHEST):
        maker = value.producer
        if maker is None:
            return False
        others = [v for v in maker.inputs if v.depends_on_images]
        if maker.kind == "div" and len(others) == 2:
            return any(v.producer is not None and v.producer.kind == "exp" for v in _chain(maker.inputs[0]))
        if maker.kind not in (*_REARRANGED, "mul", "div", "select_n") or len(others) != 1:
            return False
        value = others[0]
    return False


def is_shift_of_softmax(step: Equation) -> bool:
    """A maximum that is subtracted before an exponential, and added after its logarithm."""
    waiting, seen, is_found = [step.out], {step.out}, False
    while waiting:
        for user in (value := waiting.pop()).consumers:
            if user.kind == "sub" and user.inputs[1] is value:
                is_found = is_found or any(u.kind == "exp" for u in _users_of_same(user.out))
            elif user.kind == "add" or not jnp.issubdtype(user.out.dtype, jnp.inexact):
                continue
            elif user.kind in (*_REARRANGED, "max", "select_n"):
                if user.out not in seen:
                    seen.add(user.out)
                    waiting.append(user.out)
            else:
                return False
    return is_found


def _users_of_same(value: Value) -> Iterator[Equation]:
    for user in value.consumers:
        if user.kind in (*_REARRANGED, "mul"):
            yield from _users_of_same(user.out)
        yield user


def is_reduction(step: Equation) -> bool:
    return step.kind in REDUCTIONS


def is_per_channel(value: Value) -> bool:
    """A constant that varies along one axis at most (before it was broadcast)."""
    while value.producer is not None and value.producer.kind in ("broadcast_in_dim", "reshape"):
        value = value.producer.inputs[0]
    return sum(n > 1 for n in value.shape) <= 1


def positions(flow: Flow) -> set[int]:
    """Which of rows and columns a value has."""
    return {d for axis in flow.axes if not axis.holds_channels for d in axis.places if d in (ROW, COLUMN)}


def _is_norm_step(step: Equation) -> bool:
    if step.kind not in AFFINE or len(step.inputs) != 2 or len(set(step.inputs)) != 2:
        return False
    main = _main_input(step)
    other = step.inputs[1] if step.inputs[0] is main else step.inputs[0]
    if not main.depends_on_images or len(main.shape) < 2 or main.shape != step.out.shape:
        return False
    if step.kind == "div" and other is step.inputs[0]:
        return False
    if other.depends_on_images:
        return is_statistic(other) and (step.kind in ("add", "sub") or is_divided(step))
    return len(other.shape) > 0 and constant_of(other) is None and is_per_channel(other)


def _is_of_neighbors(value: Value, x: Value, *, is_divisor: bool) -> bool:
    """Is this a power of sums over neighbors, made of the squares of x and of nothing else?"""
    kinds = _kinds_above_squares(value, x) or set()
    return not kinds.isdisjoint(_WINDOWS) and (is_divisor or not kinds.isdisjoint(_DIVISORS))


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


def _main_input(step: Equation) -> Value:
    a, b = step.inputs
    if a.depends_on_images and b.depends_on_images:
        return b if is_statistic(a) else a
    return a if a.depends_on_images else b


def is_square(step: Equation | None) -> bool:
    if step is None:
        return False
    if step.kind == "mul":
        return step.inputs[0] is step.inputs[1]
    return step.kind in ("square", "abs_sq") or (step.kind == "integer_pow" and step.params["y"] == 2)


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
    waiting, seen = [value], {value}
    while waiting and len(seen) < _FARTHEST:
        maker = waiting.pop().producer
        if maker is None or (
            maker.kind not in (*AFFINE, *_REARRANGED, *_ROOTS, *_DIVISORS) and not is_reduction(maker)
        ):
            continue
        for part in maker.inputs:
            if part.depends_on_images and part not in seen:
                seen.add(part)
                waiting.append(part)
    return seen


def _chain(value: Value) -> list[Value]:
    """A value and those before it of which it is a scaled, shifted or linear form, or a product."""
    passing = (*AFFINE, *_REARRANGED, "neg", "exp", "dot_general", "conv_general_dilated")
    found = [value]
    for value in found:
        maker = value.producer
        if maker is None or maker.kind not in passing or len(found) > _FARTHEST:
            continue
        moving = [v for v in maker.inputs if v.depends_on_images]
        main = [v for v in moving if not is_statistic(v)]
        if len(main) <= 1 or maker.kind == "mul":  # pooled numbers less their mean are all statistics
            found += [v for v in main or moving if v not in found]
    return found
