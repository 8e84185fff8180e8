"""The layers of a network as rules of propagation see them: every step that is not linear is one.

Rules that carry a quantity through a whole network (LRP, DeepLIFT) must know of every step that is not linear
in the images, where a table of layers leaves out what is a part of something else. Beside the activation
functions of the layer table there are here

    conv, dense   with all that is linear, number by number, after it: a bias, a normalization with constant
                  statistics (it is folded); the first of them also with what normalizes the pixels before it
    deviation     the product or quotient of a value with an inverse deviation of its own, in a layer, group
                  or RMS normalization
    product       of two activations: a product, a matrix product or a convolution
    gate          such a product where one of both is a softmax or a sigmoid, and the other enters
    statistic     all else that normalizations, softmax and poolings consist of: squares, roots,
                  exponentials, maxima
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from vexplain.transforms.divisors import AFFINE, divisor_operand
from vexplain.transforms.flow import Flow
from vexplain.transforms.layer_kinds import LINEAR_KINDS, Draft, find_layers, used_steps
from vexplain.transforms.nonlinearities import GATES, OTHER, is_harmless, is_linear
from vexplain.transforms.normalization import is_per_channel
from vexplain.transforms.placement import batch_of
from vexplain.transforms.primitives import ELEMENTWISE
from vexplain.transforms.program import Equation, Value, array_of, constant_of
from vexplain.transforms.response_norm import response_norm_operand
from vexplain.transforms.softmax import is_softmax, is_softmax_quotient
from vexplain.transforms.spellings import span_of, span_of_call

STATISTIC = "statistic"
_PRODUCTS = ("mul", "dot_general", "conv_general_dilated")
_TURNED = ("reshape", "squeeze", "expand_dims", "transpose", "convert_element_type", "copy")
_MOVED = (*_TURNED, "broadcast_in_dim", "pad", "slice", "rev", "reduce_precision")
_NONNEGATIVE = ("relu", "relu6", "hard_sigmoid", "logistic", "softplus", "squareplus", "abs")
_KEEP_SIGN = (*_TURNED, "broadcast_in_dim", "slice", "rev", "name", "concatenate", "add", "max")
_KEEP_SIGN += ("reduce_max", "reduce_window_max", "reduce_sum", "reduce_window_sum")
_FARTHEST = 64  # values that are looked at on the way back


def find_spans(steps: Sequence[Equation], flows: dict[Value, Flow], num_images: int) -> list[Draft]:
    """Returns the layers of a flat program for rules of propagation, in order."""
    found = find_layers(steps, flows)
    linear = {d.step for d in found if d.kind in ("conv", "dense")}
    found = [d for d in found if d.kind not in ("conv", "dense", "norm") and not _is_product(d)]
    covered = {step for d in found if d.kind not in LINEAR_KINDS for step in d.steps}
    covered |= {d.steps[0] for d in found if d.kind == "pool" and not is_linear(d.step)}
    moving = [step for step in steps if any(v.depends_on_images for v in step.inputs)]
    used = used_steps(moving)
    moving = [
        s for s in moving if s in used and s.source is not None and jnp.issubdtype(s.out.dtype, jnp.inexact)
    ]
    for step in moving:
        gate = None if step in covered or step.opaque else _gate_activation(step, flows, covered)
        if gate is not None:
            found.append(gate)
            covered.update(gate.steps)
    kinds = {d.leaving: d.kind for d in found}
    for step in moving:
        if step in covered or step.opaque:
            continue
        if step in linear or _has_weights(step):
            found.append(_linear_span(step, kinds))
        elif not is_linear(step) or step.kind == "stop_gradient":
            found.append(_part(step, kinds))
    found = _with_places(found, moving)
    found = [dataclasses.replace(d, batches=_batches(d, flows, num_images)) for d in found]
    return sorted(found, key=lambda draft: (draft.step.order, draft.steps[-1].order))


def ways_around(steps: Sequence[Equation], drafts: Sequence[Draft]) -> list[str]:
    """Where the images go beside the first linear layers: the kinds of these steps."""
    entering = {d.step for d in drafts if d.is_first}
    moving = [step for step in steps if any(v.depends_on_images for v in step.inputs)]
    used, found = used_steps(moving), []
    waiting = [v for step in moving for v in step.inputs if v.depends_on_images and v.producer is None]
    seen = set(waiting)
    while waiting:
        for user in waiting.pop().consumers:
            if user not in used or user in entering or user.out in seen:
                continue
            if _passes(user):
                seen.add(user.out)
                waiting.append(user.out)
            else:
                found.append(user.kind)
    return found


def _is_product(draft: Draft) -> bool:
    return draft.kind in tuple(OTHER + kind for kind in _PRODUCTS)


def _gate_activation(step: Equation, flows: Mapping[Value, Flow], covered: set[Equation]) -> Draft | None:
    """A sigmoid that the layer table leaves out, for it scales a map."""
    if is_linear(step):
        return None
    if step.is_call:
        span = span_of_call(step)
    elif step.kind in ELEMENTWISE and not is_harmless(step, dict(flows)):
        span = span_of(step, covered)
    else:
        return None
    is_gate = span is not None and span.spelling.kind in GATES
    return Draft(span.spelling.kind, step, span.entering, span.steps) if span and is_gate else None


# -------------------------------------------------------------------------------- linear layers


def _has_weights(step: Equation) -> bool:
    """A matrix product along any axes with what the program is given: a mixing of tokens, too."""
    moving = [v for v in step.inputs if v.depends_on_images]
    if step.kind != "dot_general" or len(moving) != 1 or not step.out.shape:
        return False
    return array_of(step.inputs[1] if step.inputs[0] is moving[0] else step.inputs[0]) is None


def _linear_span(step: Equation, kinds: Mapping[Value, str]) -> Draft:
    """With what is folded into it: scales and shifts after it, and before it where pixels enter."""
    (entering,) = (v for v in step.inputs if v.depends_on_images)
    before = _from_images(entering)
    is_first = before is not None
    return Draft(
        "conv" if step.kind == "conv_general_dilated" else "dense",
        step,
        before[0].inputs[_moving_operand(before[0])] if before else entering,
        (*(before or ()), step, *_folded_after(step)),
        is_first=is_first,
        is_nonnegative=_is_nonnegative(entering, kinds),
    )


def _folded_after(step: Equation) -> list[Equation]:
    chain, kept, value, here = [], 0, step.out, step.path[:-1]
    while len(value.consumers) == 1 and not value.is_output:
        (user,) = value.consumers
        for call in value.left:
            here = here[:-1] if call == here else here
        is_scale = _is_affine(user) and user.out.shape == value.shape
        if user.path[:-1] != here or not (is_scale or user.kind in _TURNED):
            break
        chain.append(user)
        kept, value = len(chain) if is_scale else kept, user.out
    return chain[:kept]


def _is_affine(step: Equation) -> bool:
    """A scale or a shift by one number a channel, or by one number."""
    if step.kind == "neg":
        return True
    if step.kind not in AFFINE or _num_moving(step) != 1:
        return False
    k = _moving_operand(step)
    other = step.inputs[1 - k]
    is_number = other.shape == () or constant_of(other) is not None
    return (step.kind != "div" or k == 0) and (is_number or is_per_channel(other))


def _from_images(value: Value) -> tuple[Equation, ...] | None:
    """The steps from the images to a value, if these only move, scale and shift pixels."""
    chain: list[Equation] = []
    while value.producer is not None:
        step = value.producer
        if not _passes(step):
            return None
        chain.append(step)
        value = step.inputs[_moving_operand(step)]
    return tuple(reversed(chain))


def _passes(step: Equation) -> bool:
    """Does it move, scale or shift single numbers?"""
    if step.inside or _num_moving(step) != 1 or step.source is None:
        return False
    if step.kind in AFFINE:
        return step.kind != "div" or _moving_operand(step) == 0
    return step.kind == "neg" or (step.kind in _MOVED and _moving_operand(step) == 0)


def _is_nonnegative(value: Value, kinds: Mapping[Value, str]) -> bool:
    """Is it 0 or more whatever the images are, for it is made of ReLUs and the like?"""
    waiting, seen = [value], {value}
    while waiting and len(seen) < _FARTHEST:
        value = waiting.pop()
        maker = value.producer
        if kinds.get(value) in _NONNEGATIVE:
            continue
        if maker is None or not _keeps_sign(maker):
            return False
        parts = [v for v in maker.inputs if v.depends_on_images and v not in seen]
        seen.update(parts)
        waiting += parts
    return not waiting


def _keeps_sign(step: Equation) -> bool:
    others = [constant_of(v) for v in step.inputs if not v.depends_on_images]
    if step.kind == "pad" or step.kind == "max":
        return all(n is not None and n >= 0 for n in others)
    if step.kind in ("mul", "div") and _num_moving(step) == 1:
        is_below = step.kind == "div" and _moving_operand(step) == 1
        return not is_below and others[0] is not None and others[0] > 0
    return step.kind in _KEEP_SIGN and not (step.kind == "add" and others)


def _with_places(drafts: Sequence[Draft], moving: Sequence[Equation]) -> list[Draft]:
    """Marks the linear layers after which no other one comes."""
    linear = {d.step for d in drafts if d.kind in ("conv", "dense")}
    before: set[Value] = set()  # values that go on to a linear step
    for step in reversed(moving):
        if step in linear or not before.isdisjoint(step.outputs):
            before.update(v for v in step.inputs if v.depends_on_images)
    return [dataclasses.replace(d, is_last=d.step in linear and d.leaving not in before) for d in drafts]


# --------------------------------------------------------------------------- what is not linear


def _part(step: Equation, kinds: Mapping[Value, str]) -> Draft:
    """A product, the end of a normalization, or another step of one."""
    moving = [v for v in step.inputs if v.depends_on_images and jnp.issubdtype(v.dtype, jnp.inexact)]
    entering = moving[0] if moving else next(v for v in step.inputs if v.depends_on_images)
    if len(moving) != 2:
        return Draft(STATISTIC, step, entering, (step,))
    of_neighbors, divisor = response_norm_operand(step), divisor_operand(step)
    if of_neighbors is not None:
        return Draft("deviation", step, step.inputs[of_neighbors], (step,))
    if divisor is not None and not is_softmax_quotient(step, divisor):
        return Draft("deviation", step, step.inputs[1 - divisor], (step,))
    if step.kind not in _PRODUCTS or divisor is not None:
        return Draft(STATISTIC, step, entering, (step,))
    gates = [_is_gate(v, kinds) for v in moving]
    if gates[0] == gates[1]:
        return Draft("product", step, entering, (step,))
    return Draft("gate", step, moving[gates.index(False)], (step,))


def _is_gate(value: Value, kinds: Mapping[Value, str]) -> bool:
    if is_softmax(value):
        return True
    while kinds.get(value) not in GATES:
        maker = value.producer
        if maker is None or maker.kind not in _MOVED or _num_moving(maker) != 1:
            return False
        value = maker.inputs[_moving_operand(maker)]
    return True


def _batches(
    draft: Draft, flows: Mapping[Value, Flow], num_images: int
) -> dict[Value, tuple[int, int] | None]:
    values = {v for step in draft.steps for v in (*step.inputs, *step.outputs) if v in flows}
    return {v: batch_of(flows[v], num_images) for v in values}


def _num_moving(step: Equation) -> int:
    return sum(v.depends_on_images for v in step.inputs)


def _moving_operand(step: Equation) -> int:
    return next(k for k, v in enumerate(step.inputs) if v.depends_on_images)
