"""Tells which steps of a traced program are not linear in the images, and by what name.

What is linear is listed (`primitives`), and what a normalization, softmax, attention or gate computes is
recognized. Everything else is a non-linearity: an activation function that is known by its values, or a step
of kind `other: <primitive>`. Only the operation counts, so that no backward rule passes over one in silence.
"""

from collections.abc import Set

import jax.numpy as jnp

from vexplain.transforms.divisors import is_divided, only_divides
from vexplain.transforms.flow import Flow, positions
from vexplain.transforms.primitives import BILINEAR, CHOSEN_BY_FIRST, ELEMENTWISE, LINEAR, LINEAR_IN
from vexplain.transforms.program import Equation, Value, constant_of
from vexplain.transforms.response_norm import is_inside_response_norm, response_norm_operand
from vexplain.transforms.softmax import feeds_softmax, is_shift_of_softmax, is_softmax
from vexplain.transforms.spellings import RECOGNIZED, Span, Spelling, span_of, span_of_call

OTHER = "other: "  # before the name of a primitive, the kind of a step that no list names
_BY_PRIMITIVE = frozenset("exp exp2 sin cos atan erf erfc expm1 integer_pow square".split())  # noqa: SIM905
_CHOICES = {"max": "maximum", "min": "minimum", "select_n": "select"}
ACTIVATION_KINDS = RECOGNIZED | _BY_PRIMITIVE | {"maximum", "minimum", "maxout", "select", "step"}
GATES = ("logistic", "tanh", "hard_sigmoid")
_MOVED = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "transpose")
_SLICED = ("slice", "squeeze", "reshape", "transpose", "pad", "convert_element_type")


def is_linear(step: Equation) -> bool:
    """Is a step linear in those of its inputs that depend on the images?"""
    moving = [i for i, v in enumerate(step.inputs) if v.depends_on_images]
    if step.is_call or step.opaque:
        return False
    if step.kind in CHOSEN_BY_FIRST:
        return 0 not in moving
    if step.kind in BILINEAR:
        return len(moving) == 1
    return step.kind in LINEAR or (step.kind in LINEAR_IN and LINEAR_IN[step.kind].issuperset(moving))


def span_of_nonlinearity(
    step: Equation, flows: dict[Value, Flow], taken: Set[Equation] = frozenset()
) -> Span | None:
    """The activation function that a step is a part of, or the step itself; `None` where it is none.

    Steps that are `taken` belong to another function.
    """
    if not step.outputs or not jnp.issubdtype(step.out.dtype, jnp.inexact):
        return None  # whole numbers have no derivative
    if not any(v.depends_on_images and _has_derivative(v) for v in step.inputs):
        return _threshold(step)
    if is_linear(step):
        return None
    if step.is_call:
        if step.kind in GATES and _is_gate(step.out, flows):
            return None
        longer = span_of(step, taken)
        is_other = longer is not None and longer.spelling.bounds and longer.spelling.kind != step.kind
        return longer if is_other else span_of_call(step)
    if is_harmless(step, flows):
        return None
    span = span_of(step, taken) if step.kind in ELEMENTWISE else None
    if span is not None:
        return None if span.spelling.kind in GATES and _is_gate(span.leaving, flows) else span
    entering = next(v for v in step.inputs if v.depends_on_images and _has_derivative(v))
    return Span(Spelling(_kind(step)), entering, (step,))


def _has_derivative(value: Value) -> bool:
    return jnp.issubdtype(value.dtype, jnp.inexact)


def _kind(step: Equation) -> str:
    moving = [v for v in step.inputs if v.depends_on_images]
    if step.kind == "max" and len(moving) == 2:
        return "maxout"
    if step.kind in _BY_PRIMITIVE:
        return step.kind
    return _CHOICES.get(step.kind, f"{OTHER}{step.kind}")


def _threshold(step: Equation) -> Span | None:
    """Numbers made of conditions on the images; `labels == logits.argmax(-1)` in a score is none."""
    moving = [v for v in step.inputs if v.depends_on_images]
    tests = [v.producer for v in moving if v.producer is not None]
    of_numbers = any(_has_derivative(v) for test in tests for v in test.inputs)
    is_map = len(step.out.shape) >= 2
    if not moving or moving[0].dtype != bool or not (is_map or of_numbers or not tests):
        return None
    span = span_of(step)
    return span or Span(Spelling("step"), moving[0], (step,))


def is_harmless(step: Equation, flows: dict[Value, Flow]) -> bool:
    """A part of a normalization, softmax, pooling, choice or gate, or a product with a softmax or a gate."""
    moving = [v for v in step.inputs if v.depends_on_images]
    if step.kind in ("max", "min") and _is_bound_at_infinity(step):
        return True
    if step.kind in ("mul", "div") and len(set(moving)) == 2:
        if is_divided(step) or response_norm_operand(step) is not None:
            return True
        if step.kind == "mul" and any(map(is_softmax, moving)):
            return True
        if step.kind == "mul" and any(_comes_from_gate(a, b, flows) for a, b in (moving, moving[::-1])):
            return True
    if step.kind == "dot_general":
        return feeds_softmax(step.out) or any(map(is_softmax, moving))
    if step.kind in ("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min"):
        return _pools(step, flows) or (step.kind == "reduce_max" and (is_shift_of_softmax(step)))
    if step.kind in ("max", "min") and len(moving) == 2 and _takes_positions_of_one(moving, flows):
        return True
    if step.kind == "select_n" and (_is_of_finite(step) or _keeps_largest(step)):
        return True
    return only_divides(step) or is_inside_response_norm(step)


def _is_bound_at_infinity(step: Equation) -> bool:
    """`max(-inf, x)`, which a softmax computes, changes nothing."""
    numbers = [constant_of(v) for v in step.inputs if not v.depends_on_images]
    return [str(n) for n in numbers] == ["-inf" if step.kind == "max" else "inf"]


def _is_of_finite(step: Equation) -> bool:
    """`where(isfinite(x), x, 0)`."""
    test = step.inputs[0].producer
    return test is not None and test.kind == "is_finite"


def _keeps_largest(step: Equation) -> bool:
    """`where(bits(x) >= n, x, 0)` with a whole number n, as a TopK activation is written.

    Like a maximum it hands on what it chooses, and what it chooses by has no derivative.
    """
    test, *cases = (step.inputs[0].producer, *step.inputs[1:])
    kept = [v for v in cases if v.depends_on_images]
    others = [constant_of(v) for v in cases if not v.depends_on_images]
    if test is None or test.kind != "ge" or len(kept) != 1 or others != [0]:
        return False
    bits = test.inputs[0].producer
    return bits is not None and bits.kind == "bitcast_convert_type" and bits.inputs == kept


def _pools(step: Equation, flows: dict[Value, Flow]) -> bool:
    """A maximum over rows and columns alone."""
    if "window" in step.kind:
        sizes = step.params["window_dimensions"]
        taken = [a for a, n in enumerate(sizes) if n > 1]
    else:
        taken = list(step.params["axes"])
    axes = [flows[step.inputs[0]].axes[a] for a in taken]
    return all(axis.size == 1 or (axis.is_of_space and axis.places) for axis in axes)


def _takes_positions_of_one(values: list[Value], flows: dict[Value, Flow]) -> bool:
    """Are these slices of one array along rows and columns, or maxima of such? A pooling, written out."""
    sources = [_sliced_from(v, flows) for v in values]
    return None not in sources and len(set(sources)) == 1


def _sliced_from(value: Value, flows: dict[Value, Flow]) -> Value | None:
    """The array that a value is slices of; `None` where channels were sliced too."""
    while (maker := value.producer) is not None and maker.kind in (*_SLICED, "max", "min", "split"):
        moving = [v for v in maker.inputs if v.depends_on_images]
        if maker.kind in ("max", "min"):
            sources = {_sliced_from(v, flows) for v in moving}
            return sources.pop() if len(sources) == 1 and len(moving) == 2 else value
        if not moving:
            return None
        source = moving[0]
        if maker.kind in ("slice", "split"):
            axes = [maker.params["axis"]] if maker.kind == "split" else range(len(source.shape))
            out = maker.out.shape
            for a in axes:
                axis = flows[source].axes[a]
                if out[a] != source.shape[a] and (
                    not axis.is_known or axis.holds_channels or not axis.places
                ):
                    return None
        value = source
    return value


def _is_gate(out: Value, flows: dict[Value, Flow]) -> bool:
    """A squeeze-and-excite gate: a sigmoid of one number a channel that scales a map, and nothing else."""
    return _is_pooled(out, flows) and _scales_map(out, flows)


def _is_pooled(value: Value, flows: dict[Value, Flow]) -> bool:
    return value in flows and not positions(flows[value]) and all(axis.is_known for axis in flows[value].axes)


def _scales_map(value: Value, flows: dict[Value, Flow]) -> bool:
    users = value.consumers
    if not users or value.is_output:
        return False
    for user in users:
        others = [v for v in user.inputs if v is not value and v.depends_on_images]
        if user.kind in _MOVED:
            if not _scales_map(user.out, flows):
                return False
        elif user.kind != "mul" or len(others) != 1 or not positions(flows[others[0]]):
            return False
    return True


def _comes_from_gate(value: Value, other: Value, flows: dict[Value, Flow]) -> bool:
    """Is this a sigmoid of pooled numbers, and the other a map?"""
    if not positions(flows[other]):
        return False
    while (maker := value.producer) is not None and not maker.is_call and maker.kind in _MOVED:
        value = maker.inputs[0]
    if maker is None or not _is_pooled(value, flows):
        return False
    span = span_of_call(maker) if maker.is_call else span_of(maker) if maker.kind in ELEMENTWISE else None
    return span is not None and span.spelling.kind in GATES and span.leaving is value
