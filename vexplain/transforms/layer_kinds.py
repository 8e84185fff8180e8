"""Tells what kind of layer a step of a traced program is.

Structure decides, not the library that the network was written in: `max(x, 0)`, `where(x > 0, x, 0)` and
`jax.nn.relu` are all a ReLU; the same maximum inside a normalization layer, which keeps a variance from being
negative, is none. Nor do the axes decide: a layer whose batch axis cannot be followed is a layer.
"""

import jax.numpy as jnp

from vexplain.transforms.interpreter import Equation, Value
from vexplain.transforms.nonlinearities import ACTIVATION_KINDS, classify_nonlinearity
from vexplain.transforms.normalization import (
    closes_norm,
    is_broadcast_again,
    is_inside_response_norm,
    is_per_channel,
    is_statistic,
    num_spatial,
    response_norm_operand,
)
from vexplain.transforms.receptive_field import Geometry

LINEAR_KINDS = ("conv", "dense", "norm", "pool", "add", "concatenate", "named")
KINDS = frozenset(LINEAR_KINDS) | ACTIVATION_KINDS


def classify(step: Equation, geometry: dict[Value, Geometry]) -> tuple[str | None, Value, int]:
    """(kind, the value that is its activation, which input is the activation before it)."""
    out = step.outputs[0]
    sources = [i for i, v in enumerate(step.inputs) if v in geometry]
    operand = sources[0] if sources else 0
    if step.opaque:
        return "obstacle", out, operand
    if step.kind == "name":
        return "named", out, operand
    if step.kind == "conv_general_dilated":
        return ("conv" if sources == [0] else None), _after_bias(out), 0
    if step.kind == "dot_general":
        is_dense = len(sources) == 1 and len(out.shape) >= 1
        return ("dense" if is_dense else None), _after_bias(out), operand
    if step.kind.startswith("reduce_window"):
        return (None if is_inside_response_norm(step) else "pool"), _after_division(out), operand
    if step.kind in ("reduce_sum", "reduce_max"):
        return ("pool" if _is_pool(step, operand, geometry) else None), _after_division(out), operand
    if step.kind == "concatenate" and len(sources) > 1:
        return ("concatenate" if _is_map(out) else None), out, operand
    if step.kind == "add" and len(set(step.inputs)) == 2 == len(sources):
        same = step.inputs[0].shape == step.inputs[1].shape
        plain = not any(is_statistic(v) for v in step.inputs) and not _is_polynomial(step)
        plain = plain and not is_inside_response_norm(step)
        return ("add" if _is_map(out) and same and plain else None), out, operand
    if closes_norm(step, geometry):
        return "norm", out, operand
    if (normalized := response_norm_operand(step)) is not None:
        return "norm", out, normalized
    if step.kind == "exp" and is_inside_response_norm(step):
        return None, out, operand  # a power that is written as the exponential of a logarithm
    return classify_nonlinearity(step, sources, geometry)


def _is_map(value: Value) -> bool:
    return len(value.shape) >= 2 and jnp.issubdtype(value.dtype, jnp.inexact)


def _is_pool(step: Equation, operand: int, geometry: dict[Value, Geometry]) -> bool:
    """A reduction over height and width that is not a statistic of a normalization."""
    out, before = step.outputs[0], geometry[step.inputs[operand]]
    if num_spatial(step.inputs[operand], geometry) - num_spatial(out, geometry) != 2:
        return False
    image_axes = {f.axis for f in before.fields}
    unites_images = geometry[out].batch_axis is None and set(step.params["axes"]) != image_axes
    return len(out.shape) >= 2 and not unites_images and not is_broadcast_again(out, geometry)


def _after_bias(value: Value) -> Value:
    """Follows the single addition of a per-channel constant."""
    if len(value.consumers) != 1 or value.is_output or (user := value.consumers[0]).kind != "add":
        return value
    other = user.inputs[1] if user.inputs[0] is value else user.inputs[0]
    is_bias = not other.depends_on_images and user.outputs[0].shape == value.shape
    return user.outputs[0] if is_bias and is_per_channel(other) else value


def _after_division(value: Value) -> Value:
    """An average pooling is a sum, then a division by a constant."""
    if len(value.consumers) == 1 and not value.is_output:
        user = value.consumers[0]
        if user.kind in ("div", "mul") and sum(v.depends_on_images for v in user.inputs) == 1:
            return user.outputs[0]
    return value


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
