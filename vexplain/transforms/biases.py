"""What a network adds on the way: biases of layers, means that normalizations subtract, places of tokens.

A network of linear steps, biases and ReLUs is linear in the images and its biases together near any image, so
that it is exactly the sum of all products with their gradients (Srinivas and Fleuret, 2019).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vexplain.transforms.divisors import REARRANGED
from vexplain.transforms.interpreter import Change, evaluate
from vexplain.transforms.layer import Layer
from vexplain.transforms.layer_kinds import LINEAR_KINDS
from vexplain.transforms.layer_table import Traced, flows_of, traced_layers
from vexplain.transforms.placement import placement_of
from vexplain.transforms.program import Equation, Value
from vexplain.transforms.softmax import feeds_softmax
from vexplain.typing import Array

_GUARDED = ("rsqrt", "sqrt", "cbrt", "pow", "integer_pow", "log", "exp")


class BiasTerm(NamedTuple):
    """A bias times the gradient by it, entry by entry, and where these entries are.

    `is_of_layer` is False of what is added outside of the layers of the table, as the mean of the images is.
    """

    layer: Layer
    product: Array
    is_of_layer: bool


def bias_terms(
    fn: Callable[..., Any], variables: Any, images: Any, value: Callable[[Any], Array]
) -> tuple[Array, list[BiasTerm]]:
    """Returns the gradient of a value by the images, and for each bias its product with the gradient by it.

    What one layer adds is one term: of a normalization the mean that is subtracted, and the shift. What goes
    to a divisor or into a softmax is no bias, nor is a constant within an activation function.

    Args:
        fn: any traceable function of (variables, images).
        value: `value(outputs) -> ()`, what is differentiated.

    Raises:
        ValueError: a layer adds its bias where it cannot be reached.

    Example:
        >>> apply = lambda bias, images: jax.nn.relu(images.mean((1, 2)) - bias)
        >>> slope, terms = bias_terms(apply, jnp.array([0.25]), jnp.ones((1, 2, 2, 1)), jnp.sum)
        >>> print(slope.sum(), terms[0].product)  # together 0.75, what apply returns
        1.0 [[-0.25]]
    """
    args = (variables, images)
    traced = traced_layers(fn, args)
    places: dict[Layer, list[Equation]] = {}
    owners: dict[Layer, bool] = {}
    for step, layer, is_of_layer in _shifts(traced, images.shape):
        places.setdefault(layer, []).append(step)
        owners[layer] = is_of_layer

    def moved(images, scales):
        changes = {
            step.path: Change(_with_more(step, scale))
            for steps, scale in zip(places.values(), scales, strict=True)
            for step in steps
        }
        return value(evaluate(traced.program, (variables, images), changes)[0])

    scales = [jnp.zeros(steps[-1].out.shape, steps[-1].out.dtype) for steps in places.values()]
    slope, products = jax.grad(moved, (0, 1))(images, scales)
    return slope, [BiasTerm(row, p, owners[row]) for row, p in zip(places, products, strict=True)]


def _with_more(step: Equation, scale: Any) -> Callable[..., Any]:
    """The step with its bias times (1 + scale): the derivative by the scale is what is asked for."""
    number = next(i for i, v in enumerate(step.inputs) if not v.depends_on_images)
    sign = -1 if step.kind == "sub" and number == 1 else 1

    def replaced(original, inputs, held):
        return original(*inputs) + sign * inputs[number] * scale

    return replaced


def _shifts(traced: Traced, image_shape: Any) -> Iterator[tuple[Equation, Layer, bool]]:
    """Each step that adds a bias, with the layer that it is of, or a place of its own."""
    rows = list(zip(traced.table.layers, traced.drafts, strict=True))
    owner = {step: pair for pair in reversed(rows) for step in pair[1].steps}
    flows = None
    for step in filter(_is_shift, traced.flat.steps):
        layer, draft = owner.get(step, (None, None))
        if layer is not None and layer.kind not in LINEAR_KINDS:
            continue
        if step.inside is not None:
            if layer is None:
                continue
            raise ValueError(
                f"layer {layer.name!r} adds its bias inside {step.inside}, where it cannot be reached: its "
                "part of the score would be missing"
            )
        if layer is not None and draft is not None and step.out.shape == layer.shape:
            yield step, layer, True
            continue
        flows = flows_of(traced.flat, image_shape) if flows is None else flows
        yield step, _place(step, placement_of(flows[step.out], image_shape), image_shape), layer is not None


def _place(step: Equation, placement: Any, image_shape: Any) -> Layer:
    return Layer(
        **vars(placement),
        name="/".join((*step.scope, f"bias at {step.order}")),
        kind="add",
        shape=step.out.shape,
        image_size=(image_shape[1], image_shape[2]),
        strides=(),
        pooled=(),
        bounds=None,
        index=-1,
        path=step.path,
        step_path=step.path,
        inside=None,
    )


def _is_shift(step: Equation) -> bool:
    """The addition of what does not depend on the images, to what counts in the output."""
    if step.kind not in ("add", "sub") or sum(v.depends_on_images for v in step.inputs) != 1:
        return False
    if not jnp.issubdtype(step.out.dtype, jnp.inexact) or feeds_softmax(step.out):
        return False
    return not _guards(step.out)


def _guards(value: Value) -> bool:
    """Does it go to a root, a power, a logarithm or a divisor, and nowhere else?"""
    if not value.consumers:
        return False
    for user in value.consumers:
        divides = user.kind == "div" and user.inputs[1] is value
        passes = user.kind in (*REARRANGED, "max") and user.outputs and _guards(user.out)
        if not (divides or passes or user.kind in _GUARDED):
            return False
    return True
