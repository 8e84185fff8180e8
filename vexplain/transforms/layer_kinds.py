"""Tells what kind of layer a step of a traced program is.

Structure decides, not the library that the network was written in: `max(x, 0)`, `where(x > 0, x, 0)` and
`jax.nn.relu` are all a ReLU; the same maximum inside a normalization layer, which keeps a variance from being
negative, is none. What is a non-linearity without being known here by name is still reported, so that no
backward rule passes over it in silence.
"""

from typing import Any

from vexplain.transforms.interpreter import Equation, Value
from vexplain.transforms.receptive_field import Geometry

# Jitted functions that count as one step.
SINGLE_STEPS = frozenset(
    """
    relu6 gelu silu swish elu selu celu softplus squareplus leaky_relu hard_tanh hard_sigmoid hard_silu
    hard_swish log_sigmoid mish soft_sign glu sparse_plus sparse_sigmoid identity softmax _softmax
    log_softmax logsumexp _logsumexp
    """.split()  # noqa: SIM905
)
_NOT_ACTIVATIONS = {"softmax", "_softmax", "log_softmax", "logsumexp", "_logsumexp", "identity"}
_SMOOTH = {"tanh", "logistic", "erf", "erfc", "expm1", "sin", "cos", "atan", "clamp"}
_AFFINE = ("sub", "mul", "add", "div")
_OF_ONE_VALUE = ("broadcast_in_dim", "reshape", "rsqrt", "sqrt", "square", "integer_pow", "gather")
_OF_ONE_VALUE += ("convert_element_type",)


def classify(step: Equation, geometry: dict[Value, Geometry]) -> tuple[str | None, Value, int]:
    """(kind, the value that is its activation, which input is the activation before it)."""
    out = step.outputs[0]
    sources = [i for i, v in enumerate(step.inputs) if v in geometry]
    operand = sources[0] if sources else 0
    nothing = (None, out, operand)
    if step.opaque:
        return "obstacle", out, operand
    if step.kind == "name":
        return "named", out, operand
    if step.kind == "conv_general_dilated":
        return ("conv", _after_bias(out), 0) if sources == [0] else nothing
    if not _is_activation(out, geometry):
        return nothing
    if step.kind == "dot_general":
        return ("dense", _after_bias(out), operand) if len(sources) == 1 else nothing
    if step.kind.startswith("reduce_window"):
        return "pool", _after_division(out), operand
    if step.kind in ("reduce_sum", "reduce_max"):
        united = _num_spatial(step.inputs[operand], geometry) - _num_spatial(out, geometry)
        is_pool = united == 2 and not _is_broadcast_again(out, geometry)
        return ("pool", _after_division(out), operand) if is_pool else nothing
    if step.kind == "concatenate" and len(sources) > 1:
        return "concatenate", out, operand
    if step.kind == "add" and len(set(step.inputs)) == 2 == len(sources):
        same = step.inputs[0].shape == step.inputs[1].shape
        plain = not any(_is_statistic(v) for v in step.inputs) and not _is_polynomial(step)
        return ("add", out, operand) if same and plain else nothing
    if _closes_norm(step, geometry):
        return "norm", out, operand
    return _classify_nonlinearity(step, out, sources, nothing)


def _classify_nonlinearity(step, out, sources, nothing) -> tuple[str | None, Value, int]:
    operand = sources[0] if sources else 0
    if step.kind in _NOT_ACTIVATIONS:
        return nothing
    if step.kind in SINGLE_STEPS:
        return step.kind, out, operand
    if step.kind == "max" and len(sources) == 1:
        if _is_zero_max(step, operand):
            is_statistic = _is_clipped_variance(step.inputs[operand])
            return nothing if is_statistic else ("relu", out, operand)
        return nothing if _is_neutral_max(step, operand) else ("maximum", out, operand)
    if step.kind == "min" and len(sources) == 1:
        return "minimum", out, operand
    if step.kind == "select_n" and step.inputs[0].depends_on_images:
        kept = _selected_relu_operand(step)
        return ("relu", out, kept) if kept is not None else ("select", out, operand)
    if step.kind in _SMOOTH and not _is_gate(step, operand):
        return *_smooth_function(step), operand
    if step.kind == "abs":
        return "abs", out, operand
    if step.kind == "convert_element_type" and step.inputs[0].dtype == bool:
        return "step", out, operand
    return nothing


def _is_activation(value: Value, geometry: dict[Value, Geometry]) -> bool:
    here = geometry.get(value)
    return here is not None and here.batch_axis is not None and len(value.shape) >= 2


def _num_spatial(value: Value, geometry: dict[Value, Geometry]) -> int:
    return sum(f.axis is not None for f in geometry[value].fields)


def _scalar(value: Value) -> Any:
    """The number that a constant, or a constant broadcast to an array, holds; else `None`."""
    while value.scalar is None and value.producer is not None:
        maker = value.producer
        if maker.kind not in ("broadcast_in_dim", "convert_element_type", "reshape"):
            return maker.constants[0] if maker.kind == "full" else None
        value = maker.inputs[0]
    return value.scalar


def _is_zero_max(step: Equation, operand: int) -> bool:
    others = [_scalar(v) for i, v in enumerate(step.inputs) if i != operand]
    numbers = [*others, *step.constants]
    return len(numbers) == 1 and numbers[0] is not None and float(numbers[0]) == 0.0


def _is_neutral_max(step: Equation, operand: int) -> bool:
    """`max(-inf, x)`, which a softmax computes, changes nothing."""
    others = [_scalar(v) for i, v in enumerate(step.inputs) if i != operand]
    return [*map(str, others), *map(str, step.constants)] == ["-inf"]


def _is_clipped_variance(value: Value) -> bool:
    """Normalization layers clip `mean(x²) - mean(x)²` at zero: not an activation function."""
    maker = value.producer
    if maker is None or maker.kind != "sub" or (square := maker.inputs[1].producer) is None:
        return False
    if square.kind == "mul":
        return square.inputs[0] is square.inputs[1]
    return square.kind == "square" or (square.kind == "integer_pow" and square.params["y"] == 2)


def _selected_relu_operand(step: Equation) -> int | None:
    """`where(x > 0, x, 0)`: which input of the selection is x."""
    test, if_false, if_true = step.inputs[0].producer, step.inputs[1], step.inputs[2]
    if test is None or test.kind not in ("gt", "ge") or _scalar(test.inputs[1]) != 0:
        return None
    return 2 if test.inputs[0] is if_true and _scalar(if_false) == 0 else None


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


def _is_gate(step: Equation, operand: int) -> bool:
    """A squeeze-and-excite gate: a sigmoid of one number a channel that then scales a map."""
    out, stretched = step.outputs[0], []
    values = [out]
    while values:
        value = values.pop()
        for user in value.consumers:
            if user.kind in ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type"):
                values.append(user.outputs[0])
            elif user.kind == "mul":
                stretched.append(len(user.outputs[0].shape) > 2)
    spatial = [n for n in out.shape[1:] if n > 1]
    return step.kind in ("logistic", "tanh") and len(spatial) <= 1 and any(stretched)


def _after_bias(value: Value) -> Value:
    """Follows the single addition of a per-channel constant."""
    if len(value.consumers) != 1 or value.is_output or (user := value.consumers[0]).kind != "add":
        return value
    other = user.inputs[1] if user.inputs[0] is value else user.inputs[0]
    is_bias = not other.depends_on_images and user.outputs[0].shape == value.shape
    return user.outputs[0] if is_bias and _is_per_channel(other) else value


def _is_per_channel(value: Value) -> bool:
    """A constant that varies along one axis at most (before it was broadcast)."""
    while value.producer is not None and value.producer.kind in ("broadcast_in_dim", "reshape"):
        value = value.producer.inputs[0]
    return sum(n > 1 for n in value.shape) <= 1


def _after_division(value: Value) -> Value:
    """An average pooling is a sum, then a division by a constant."""
    if len(value.consumers) == 1 and not value.is_output:
        user = value.consumers[0]
        if user.kind in ("div", "mul") and sum(v.depends_on_images for v in user.inputs) == 1:
            return user.outputs[0]
    return value


def _closes_norm(step: Equation, geometry: dict[Value, Geometry]) -> bool:
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


def _is_norm_step(step: Equation, geometry: dict[Value, Geometry]) -> bool:
    if step.kind not in _AFFINE or len(step.inputs) != 2 or len(set(step.inputs)) != 2:
        return False
    main = _main_input(step)
    other = step.inputs[1] if step.inputs[0] is main else step.inputs[0]
    if not _is_activation(main, geometry) or main.shape != step.outputs[0].shape:
        return False
    if other.depends_on_images:
        return _is_statistic(other)
    return len(other.shape) > 0 and _scalar(other) is None and _is_per_channel(other)


def _main_input(step: Equation) -> Value:
    a, b = step.inputs
    if a.depends_on_images and b.depends_on_images:
        return b if _is_statistic(a) else a
    return a if a.depends_on_images else b


def _is_statistic(value: Value) -> bool:
    """A mean or an inverse deviation that was reduced, then broadcast."""
    for _ in range(12):
        maker = value.producer
        if maker is None:
            return False
        if maker.kind.startswith("reduce_") and not maker.kind.startswith("reduce_window"):
            return True
        if maker.kind in (*_OF_ONE_VALUE, "div"):
            value = maker.inputs[0]
        elif maker.kind in ("add", "mul", "sub", "max"):
            value = next((v for v in maker.inputs if v.depends_on_images), maker.inputs[0])
        else:
            return False
    return False


def _is_broadcast_again(value: Value, geometry: dict[Value, Geometry]) -> bool:
    """A mean or variance over the image that a normalization layer applies to every pixel again."""
    values, seen = [value], {value}
    while values:
        for user in values.pop().consumers:
            out = user.outputs[0]
            if user.kind in _AFFINE and _num_spatial(out, geometry) == 2 and out.depends_on_images:
                return True
            if user.kind in (*_AFFINE, *_OF_ONE_VALUE, "max") and out not in seen:
                seen.add(out)
                values.append(out)
    return False


def _is_polynomial(step: Equation) -> bool:
    """`x + a x³`, inside the tanh form of GELU, adds nothing from another branch."""
    for value, other in (step.inputs, step.inputs[::-1]):
        while value.producer is not None and value.producer.kind in (
            "mul",
            "integer_pow",
            "square",
        ):
            value = next((v for v in value.producer.inputs if v.depends_on_images), value)
            if value is other:
                return True
    return False
