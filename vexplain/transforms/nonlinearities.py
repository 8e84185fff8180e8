"""Tells which steps of a traced program are activation functions, and which one.

Only the operation counts, never what is known of the axes: a backward rule for ReLUs has to find them also
where the batch was reshaped, mapped over or normalized away. What is a non-linearity without being known here
by name is still reported, so that no backward rule passes over it in silence.
"""

import math

import jax.numpy as jnp

from vexplain.transforms.interpreter import Equation, Value, constant_of
from vexplain.transforms.normalization import is_normalizer, is_reduction, is_spread, is_statistic
from vexplain.transforms.receptive_field import Geometry

# Jitted functions that count as one step.
SINGLE_STEPS = frozenset(
    """
    relu6 gelu silu swish elu selu celu softplus squareplus leaky_relu hard_tanh hard_sigmoid hard_silu
    hard_swish log_sigmoid mish soft_sign glu sparse_plus sparse_sigmoid identity softmax _softmax
    log_softmax logsumexp _logsumexp
    """.split()  # noqa: SIM905
)
_NOT_ACTIVATIONS = frozenset({"softmax", "_softmax", "log_softmax", "logsumexp", "_logsumexp", "identity"})
_SMOOTH = frozenset({"tanh", "logistic", "erf", "erfc", "expm1", "sin", "cos", "atan", "clamp"})
_POWERS = frozenset({"exp", "exp2", "integer_pow", "square"})
_OTHERS = frozenset({"relu", "maximum", "minimum", "maxout", "select", "abs", "step"})
ACTIVATION_KINDS = (SINGLE_STEPS - _NOT_ACTIVATIONS) | _SMOOTH | _POWERS | _OTHERS
_SLICED = ("slice", "dynamic_slice", "gather", "squeeze", "reshape", "transpose", "max", "split", "pad")


def classify_nonlinearity(
    step: Equation, sources: list[int], geometry: dict[Value, Geometry]
) -> tuple[str | None, Value, int]:
    """(kind or `None`, the value that is its activation, which input is the activation before it)."""
    out, operand = step.outputs[0], sources[0] if sources else 0
    nothing = (None, out, operand)
    if step.kind in _NOT_ACTIVATIONS or not jnp.issubdtype(out.dtype, jnp.inexact):
        return nothing  # whole numbers have no derivative
    if step.kind in SINGLE_STEPS:
        return step.kind, out, operand
    if step.kind in ("max", "min"):
        return _extremum(step, sources), out, operand
    if step.kind == "select_n" and step.inputs[0].depends_on_images:
        kept = _selected_relu_operand(step)
        is_guard = _is_guard(step)
        kind = "relu" if kept is not None else None if is_guard else "select"
        return kind, out, operand if kept is None else kept
    if step.kind in _SMOOTH and not _is_gate(step, geometry):
        return *_smooth_function(step), operand
    if step.kind in _POWERS:
        return step.kind if _is_power_of_activation(step, operand) else None, out, operand
    if step.kind == "abs":
        return None if _is_inside_logarithm(step) else "abs", out, operand
    if step.kind == "convert_element_type" and step.inputs[0].dtype == bool:
        return "step" if _is_threshold(step) else None, out, operand
    return nothing


def _extremum(step: Equation, sources: list[int]) -> str | None:
    kind = "maximum" if step.kind == "max" else "minimum"
    if all(is_spread(step.inputs[i]) for i in sources):
        return None  # normalization layers clip their variance, and norms, from below
    if len(sources) == 2:
        return _extremum_of_two(step)
    if step.kind == "max":
        others = [constant_of(v) for i, v in enumerate(step.inputs) if i != sources[0]]
        numbers = [*others, *step.constants]
        if len(numbers) == 1 and numbers[0] is not None and float(numbers[0]) == 0.0:
            return "relu"
        if [str(number) for number in numbers] == ["-inf"]:
            return None  # `max(-inf, x)`, which a softmax computes, changes nothing
    return kind


def _extremum_of_two(step: Equation) -> str | None:
    a, b = step.inputs
    if _is_multiple_of(a, b) or _is_multiple_of(b, a):
        return "leaky_relu"
    if all(is_statistic(v) for v in step.inputs) or _whole_of(a) is _whole_of(b):
        return None  # a running maximum, or a maximum over slices of one array: a pooling
    return "maxout" if step.kind == "max" else "minimum"


def _is_multiple_of(value: Value, other: Value) -> bool:
    maker = value.producer
    if maker is None or maker.kind not in ("mul", "div") or other not in maker.inputs:
        return False
    return sum(v.depends_on_images for v in maker.inputs) == 1


def _whole_of(value: Value) -> Value:
    """The array that this is a slice of."""
    while value.producer is not None and value.producer.kind in _SLICED:
        value = next((v for v in value.producer.inputs if v.depends_on_images), value.producer.inputs[0])
    return value


def _selected_relu_operand(step: Equation) -> int | None:
    """`where(x > 0, x, 0)`: which input of the selection is x."""
    test, if_false, if_true = step.inputs[0].producer, step.inputs[1], step.inputs[2]
    if test is None or test.kind not in ("gt", "ge") or constant_of(test.inputs[1]) != 0:
        return None
    return 2 if test.inputs[0] is if_true and constant_of(if_false) == 0 else None


def _is_power_of_activation(step: Equation, operand: int) -> bool:
    """Not the squares of a variance, nor the exponentials of a softmax, nor the cube inside a GELU."""
    value = step.inputs[operand]
    if is_statistic(value) or (value.producer is not None and value.producer.kind in _NOT_ACTIVATIONS):
        return False
    twins = [user.outputs[0] for user in value.consumers if user.kind == step.kind]
    return not any(map(is_normalizer, twins)) and not _is_inside_smooth(step)


def _is_guard(step: Equation) -> bool:
    """`where(isfinite(x), x, 0)`, or a norm kept from zero."""
    test = step.inputs[0].producer
    is_of_numbers = test is not None and test.kind == "is_finite"
    return is_of_numbers or any(is_spread(v) for v in step.inputs[1:])


def _is_inside_logarithm(step: Equation) -> bool:
    """`log(abs(sum))`, in a log-sum-exp."""
    maker, users = step.inputs[0].producer, step.outputs[0].consumers
    return maker is not None and is_reduction(maker) and {user.kind for user in users} == {"log"}


def _is_inside_smooth(step: Equation) -> bool:
    value = step.outputs[0]
    while step.kind != "exp" and len(value.consumers) == 1 and not value.is_output:
        user = value.consumers[0]
        if user.kind in _SMOOTH:
            return True
        if user.kind not in ("mul", "add", "sub", "convert_element_type"):
            return False
        value = user.outputs[0]
    return False


def _is_threshold(step: Equation) -> bool:
    """Of numbers with a derivative; `labels == logits.argmax(-1)` in a score is none."""
    test = step.inputs[0].producer
    is_of_images = len(step.outputs[0].shape) >= 2
    return is_of_images or test is None or jnp.issubdtype(test.inputs[0].dtype, jnp.inexact)


def _smooth_function(step: Equation) -> tuple[str, Value]:
    """GELU and SiLU, where they are written out: x times a shifted and scaled tanh, erf or sigmoid."""
    value = step.outputs[0]
    while len(value.consumers) == 1 and not value.is_output:
        user = value.consumers[0]
        if user.kind not in ("add", "mul", "sub", "neg"):
            break
        value = user.outputs[0]
        if user.kind == "mul" and all(v.depends_on_images for v in user.inputs):
            return ("silu" if step.kind == "logistic" else "gelu"), value
    return step.kind, step.outputs[0]


def _is_gate(step: Equation, geometry: dict[Value, Geometry]) -> bool:
    """A squeeze-and-excite gate: a sigmoid of one number a channel that then scales a map."""
    out, scaled = step.outputs[0], []
    values = [out]
    while values:
        for user in values.pop().consumers:
            if user.kind in ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type"):
                values.append(user.outputs[0])
            elif user.kind == "mul":
                scaled.append(user.outputs[0].shape)
    has_batch = out in geometry and geometry[out].batch_axis is not None
    stretched = [len(s) > 2 and (has_batch or math.prod(s) > math.prod(out.shape)) for s in scaled]
    spatial = [n for n in out.shape[1:] if n > 1]
    return step.kind in ("logistic", "tanh") and len(spatial) <= 1 and any(stretched)
