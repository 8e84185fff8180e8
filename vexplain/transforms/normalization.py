"""Recognizes normalization in a traced program: the statistics of a layer and what is done with them.

A normalization layer computes means, variances and their roots, and applies them to every position again.
Seen step by step it squares, clips at zero and divides; none of that is an activation function of the
network, and neither is the sum of exponentials that a softmax divides by. Local response normalization takes
its sum of squares over neighbors only, so that nothing is broadcast, and is a layer all the same.
"""

from vexplain.transforms.interpreter import Equation, Value, constant_of
from vexplain.transforms.receptive_field import Geometry

AFFINE = ("sub", "mul", "add", "div")
_OF_ONE_VALUE = ("broadcast_in_dim", "reshape", "rsqrt", "sqrt", "square", "integer_pow", "gather")
_OF_ONE_VALUE += ("convert_element_type",)
_REARRANGED = ("broadcast_in_dim", "reshape", "squeeze", "transpose", "convert_element_type", "pad", "slice")
_DIVISORS = ("rsqrt", "sqrt", "pow", "log")  # of what was summed: a deviation, a norm, a log-sum-exp
_WINDOWS = ("reduce_window_sum", "reduce_window", "cumsum", "slice")  # sums over neighbors
_OF_NEIGHBORS = (*AFFINE, *_DIVISORS, *_REARRANGED, *_WINDOWS, "exp", "neg", "integer_pow", "concatenate")


def closes_norm(step: Equation, geometry: dict[Value, Geometry]) -> bool:
    """The last of a chain of per-channel shifts and scales that holds a scale, and is no bias."""
    if not _is_norm_step(step, geometry):
        return False
    users = step.outputs[0].consumers
    if len(users) == 1 and not step.outputs[0].is_output and _is_norm_step(users[0], geometry):
        return False
    chain, value = [step], _main_input(step)
    while value.producer is not None and _is_norm_step(value.producer, geometry):
        chain.append(value.producer)
        value = _main_input(value.producer)
    return len(chain) >= 2 and any(s.kind in ("mul", "div") for s in chain)


def response_norm_operand(step: Equation) -> int | None:
    """Which input x is, of the step that ends x · (κ + α Σ x²)^-β, its sum over neighbors; or `None`."""
    if step.kind not in ("mul", "div") or len(set(step.inputs)) != 2:
        return None
    for operand in (0,) if step.kind == "div" else (0, 1):
        if _is_of_neighbors(step.inputs[1 - operand], step.inputs[operand]):
            return operand
    return None


def is_inside_response_norm(step: Equation) -> bool:
    """A sum over neighbors that a response normalization divides by: no pooling, no addition of branches."""
    start = step.outputs[0]
    values, seen = [start], {start}
    while values:
        for user in values.pop().consumers:
            operand = response_norm_operand(user)
            if operand is not None and _kinds_above_squares(start, user.inputs[operand]) is not None:
                return True
            if user.kind in _OF_NEIGHBORS and user.outputs[0] not in seen:
                seen.add(user.outputs[0])
                values.append(user.outputs[0])
    return False


def is_statistic(value: Value) -> bool:
    """A mean or an inverse deviation that was reduced, then broadcast."""
    for _ in range(12):
        maker = value.producer
        if maker is None:
            return False
        if is_reduction(maker):
            return True
        if maker.kind in (*_OF_ONE_VALUE, "div"):
            value = maker.inputs[0]
        elif maker.kind in ("add", "mul", "sub", "max"):
            value = next((v for v in maker.inputs if v.depends_on_images), maker.inputs[0])
        else:
            return False
    return False


def is_spread(value: Value) -> bool:
    """A variance or a norm: a sum of squares, or `mean(x²) - mean(x)²`; clipping it is no activation."""
    for _ in range(12):
        maker = value.producer
        if maker is None:
            return False
        if maker.kind == "sub" and _is_square(maker.inputs[1].producer):
            return True
        if is_reduction(maker):
            return _is_square(_rearranged_from(maker.inputs[0]).producer)
        if not _is_scaled(maker) and maker.kind not in (*_OF_ONE_VALUE, "squeeze", "max", "select_n"):
            return False
        value = next((v for v in maker.inputs[::-1] if v.depends_on_images), maker.inputs[0])
    return False


def is_normalizer(value: Value) -> bool:
    """What is summed to be divided by: the squares of a variance or norm, the exponentials of a softmax."""
    waiting, seen = [(value, False)], {(value, False)}
    while waiting:
        value, is_summed = waiting.pop()
        for user in value.consumers:
            divides = user.kind == "div" and user.inputs[1] is value
            if is_summed and (divides or user.kind in _DIVISORS):
                return True
            if not user.outputs or not user.outputs[0].depends_on_images:
                continue
            after = is_summed
            if is_reduction(user) or user.kind in ("reduce_window_sum", "cumsum"):
                if not user.outputs[0].shape and user.outputs[0].is_output:
                    return True  # a score of the whole batch
                after = True
            elif not _passes_on(user, is_summed):
                continue
            if (user.outputs[0], after) not in seen:
                seen.add((user.outputs[0], after))
                waiting.append((user.outputs[0], after))
    return False


def is_broadcast_again(value: Value, geometry: dict[Value, Geometry]) -> bool:
    """A mean or variance over the image that a normalization layer applies to every pixel again."""
    values, seen = [value], {value}
    while values:
        for user in values.pop().consumers:
            out = user.outputs[0]
            if user.kind in AFFINE and num_spatial(out, geometry) == 2 and out.depends_on_images:
                return True
            if user.kind in (*AFFINE, *_OF_ONE_VALUE, "max") and out not in seen:
                seen.add(out)
                values.append(out)
    return False


def is_reduction(step: Equation) -> bool:
    return step.kind.startswith("reduce_") and not step.kind.startswith("reduce_window")


def is_per_channel(value: Value) -> bool:
    """A constant that varies along one axis at most (before it was broadcast)."""
    while value.producer is not None and value.producer.kind in ("broadcast_in_dim", "reshape"):
        value = value.producer.inputs[0]
    return sum(n > 1 for n in value.shape) <= 1


def num_spatial(value: Value, geometry: dict[Value, Geometry]) -> int:
    here = geometry.get(value)
    return 0 if here is None else sum(f.axis is not None for f in here.fields)


def _is_norm_step(step: Equation, geometry: dict[Value, Geometry]) -> bool:
    if step.kind not in AFFINE or len(step.inputs) != 2 or len(set(step.inputs)) != 2:
        return False
    main = _main_input(step)
    other = step.inputs[1] if step.inputs[0] is main else step.inputs[0]
    if main not in geometry or len(main.shape) < 2 or main.shape != step.outputs[0].shape:
        return False
    if other.depends_on_images:
        return is_statistic(other)
    return len(other.shape) > 0 and constant_of(other) is None and is_per_channel(other)


def _is_of_neighbors(divisor: Value, x: Value) -> bool:
    """Is this a power of sums over neighbors, made of the squares of x and of nothing else?"""
    kinds = _kinds_above_squares(divisor, x) or set()
    return not kinds.isdisjoint(_WINDOWS) and not kinds.isdisjoint(_DIVISORS)


def _kinds_above_squares(value: Value, x: Value) -> set[str] | None:
    """The kinds of steps that make this out of the squares of x; `None` if it is made of anything else."""
    values, seen, kinds = [value], {value}, set()
    while values:
        maker = values.pop().producer
        if maker is None:
            return None
        if _is_square(maker):
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


def _is_square(step: Equation | None) -> bool:
    if step is None:
        return False
    if step.kind == "mul":
        return step.inputs[0] is step.inputs[1]
    return step.kind in ("square", "abs_sq") or (step.kind == "integer_pow" and step.params["y"] == 2)


def _rearranged_from(value: Value) -> Value:
    while value.producer is not None and value.producer.kind in _REARRANGED:
        value = value.producer.inputs[0]
    return value


def _passes_on(step: Equation, is_summed: bool) -> bool:
    """Does this step hand a power on to its sum, or a sum on to where it divides?"""
    if is_summed:
        return step.kind in (*AFFINE, *_OF_ONE_VALUE, *_REARRANGED, "max", "select_n", "abs")
    is_weighted = step.kind in ("mul", "div") and sum(v.depends_on_images for v in step.inputs) == 1
    is_masked = step.kind == "select_n" and not step.inputs[0].depends_on_images
    return step.kind in _REARRANGED or is_weighted or is_masked


def _is_scaled(step: Equation) -> bool:
    """Divided by a count, or with a number added, such as epsilon."""
    others = [v for v in step.inputs if not v.depends_on_images]
    is_number = any(not v.shape or constant_of(v) is not None for v in others)
    return step.kind in AFFINE and (is_number or (step.kind == "div" and step.inputs[1] in others))
