"""Recognizes the end of a normalization layer: shifts and scales by statistics, then one number a channel."""

import math

from vexplain.transforms.divisors import AFFINE, REARRANGED, ROOTS, is_divided, is_statistic
from vexplain.transforms.flow import Flow, positions
from vexplain.transforms.program import Equation, Value, constant_of


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


def is_broadcast_again(value: Value, flows: dict[Value, Flow]) -> bool:
    """A mean or variance over the image that a normalization layer applies to every pixel again."""
    values, seen = [value], {value}
    while values:
        for user in values.pop().consumers:
            out = user.outputs[0] if user.outputs else None
            if out is None or not out.depends_on_images:
                continue
            is_larger = math.prod(out.shape) > math.prod(value.shape)
            if user.kind in AFFINE and len(positions(flows[out])) == 2 and is_larger:
                return True
            if user.kind in (*AFFINE, *REARRANGED, *ROOTS, "rsqrt") and out not in seen:
                seen.add(out)
                values.append(out)
    return False


def is_per_channel(value: Value) -> bool:
    """A constant that varies along one axis at most (before it was broadcast)."""
    while value.producer is not None and value.producer.kind in ("broadcast_in_dim", "reshape"):
        value = value.producer.inputs[0]
    return sum(n > 1 for n in value.shape) <= 1


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


def _main_input(step: Equation) -> Value:
    a, b = step.inputs
    if a.depends_on_images and b.depends_on_images:
        return b if is_statistic(a) else a
    return a if a.depends_on_images else b
