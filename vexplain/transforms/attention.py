"""Finds the attention of a network by what it computes: the softmax of a product, times what it averages.

No module is named: a step that multiplies the shares of a softmax over tokens with other numbers of these
tokens is attention, in whatever library it was written.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.transforms.flow import COLUMN, IMAGE, ROW, Axis, Flow
from vexplain.transforms.interpreter import Change, evaluate
from vexplain.transforms.layer_table import flows_of, traced_layers
from vexplain.transforms.placement import grid_of
from vexplain.transforms.program import Equation, Path, Value
from vexplain.transforms.softmax import is_softmax
from vexplain.typing import Array


class Attention(NamedTuple):
    """The attention of all layers, in order.

    Attributes:
        probabilities: one a layer, (batch, heads, tokens, tokens); rows sum to 1 over the last axis.
        gradients: of a value by them.
        grid: (rows, columns) of the tokens that have a place in the image.
        order: which token each cell of the grid is, row by row; other tokens have no place.
    """

    probabilities: list[Array]
    gradients: list[Array]
    grid: tuple[int, int]
    order: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where the probabilities of a layer are, and how their axes lie."""

    path: Path
    axes: tuple[int | None, int, int]  # batch (maybe joined with heads, gone of one image), queries, keys
    shape: tuple[int, ...]
    dtype: Any
    grid: tuple[int, int]
    order: tuple[int, ...]


def read_attention(
    fn: Callable[..., Any], variables: Any, images: Any, value: Callable[[Any], Array]
) -> Attention:
    """Returns the probabilities of all attention of tokens to each other, and the gradients by them.

    Args:
        fn: any traceable function of (variables, images).
        images: (batch, height, width, channels).
        value: `value(outputs) -> ()`, what is differentiated.

    Raises:
        ValueError: the network has no attention, or attention of another kind: in windows, to fewer tokens,
            along channels, of learned queries, or to tokens whose places cannot be followed.

    Example:
        >>> def apply(variables, images):  # four pixels are tokens, and attend to all alike
        ...     x = images.reshape(len(images), 4, 1)
        ...     return jax.nn.softmax(0 * x @ x.swapaxes(1, 2)) @ x
        >>> found = read_attention(apply, None, jnp.ones((2, 2, 2, 1)), jnp.sum)
        >>> found.probabilities[0].shape, found.grid, found.order
        ((2, 1, 4, 4), (2, 2), (0, 1, 2, 3))
        >>> print(found.probabilities[0][0, 0, 0], found.gradients[0][0, 0, 0])
        [0.25 0.25 0.25 0.25] [1. 1. 1. 1.]
    """
    args = (variables, images)
    traced = traced_layers(fn, args)
    flows = flows_of(traced.flat, images.shape)
    found = [(step, k) for step in traced.flat.steps for k in _softmax_operands(step)]
    if not found:
        raise ValueError(
            "no attention was found in this network, no product with the softmax of a product: for a network "
            "of convolutions take a class activation map, such as grad_cam"
        )
    places = [_place(step, k, flows, images.shape[0]) for step, k in found]
    for place in places:
        if (place.grid, place.order) != (places[0].grid, places[0].order):
            raise ValueError(
                f"this network has attention over {places[0].grid} and over {place.grid} positions: only "
                "attention of the same tokens in all layers is followed from layer to layer"
            )

    def moved(deltas):
        changes = {
            place.path: Change(lambda original, inputs, held, delta=delta: original(*inputs) + delta)
            for place, delta in zip(places, deltas, strict=True)
        }
        outputs, taken = evaluate(traced.program, args, changes, changes)
        return value(outputs), [taken[place.path] for place in places]

    zeros = [jnp.zeros(place.shape, place.dtype) for place in places]
    gradients, probabilities = jax.grad(moved, has_aux=True)(zeros)

    def turned(arrays):
        return [_turned(a, place.axes, len(images)) for a, place in zip(arrays, places, strict=True)]

    return Attention(turned(probabilities), turned(gradients), places[0].grid, places[0].order)


def _softmax_operands(step: Equation) -> list[int]:
    """Which of the operands of a product are the shares of a softmax that it sums over."""
    if step.kind != "dot_general" or not all(v.depends_on_images for v in step.inputs):
        return []
    return [k for k in (0, 1) if is_softmax(step.inputs[k])]


def _place(step: Equation, k: int, flows: dict[Value, Flow], num_images: int) -> _Place:
    value, axes = step.inputs[k], flows[step.inputs[k]].axes
    (keys, _), named = (
        (tuple(map(int, dims[k])) for dims in step.params["dimension_numbers"]),
        _named(step, k),
    )
    tokens = [a for a, axis in enumerate(axes) if {ROW, COLUMN} <= set(axis.places)]
    queries = [a for a in tokens if a not in keys]
    images = [a for a, axis in enumerate(axes) if IMAGE in axis.places and a not in tokens]
    has_images = len(images) == 1 or (not images and num_images == 1)
    if not (has_images and all(axis.is_known for axis in axes)):
        raise ValueError(f"{named} cannot be followed: its images, queries or keys are not known")
    image = images[0] if images else None
    is_of_tokens = len(keys) == 1 == len(queries) and keys[0] in tokens
    is_whole = image is None or _is_batch(axes[image], num_images)
    if not (is_of_tokens and is_whole and axes[queries[0]].size == axes[keys[0]].size):
        raise ValueError(
            f"{named} is not one of all tokens of an image to all, but within windows, along channels, to "
            "fewer tokens, or of queries that have no place in the image: it is not followed through layers"
        )
    grid, cells = grid_of([axes[keys[0]]], False, 1) or ((None, None), np.arange(0))
    if grid[0] is None or grid[1] is None:
        raise ValueError(f"{named} is one of tokens whose rows and columns cannot be followed")
    order = tuple(int(c) for c in cells)
    axes_of = (image, queries[0], keys[0])
    return _Place(_path(value, named), axes_of, value.shape, value.dtype, (grid[0], grid[1]), order)


def _named(step: Equation, k: int) -> str:
    where = f" in {'/'.join(step.scope)}" if step.scope else ""
    return f"the attention of shape {step.inputs[k].shape}{where}"


def _path(value: Value, named: str) -> Path:
    """Where the probabilities are made."""
    maker = value.producer
    path, inside = value.handed_out or ((maker.path, maker.inside) if maker is not None else ((), None))
    if inside is not None or not path:
        raise ValueError(f"{named} is inside {inside or 'a loop'}, where it cannot be read")
    return path


def _is_batch(axis: Axis, num_images: int) -> bool:
    """The images one after the other, maybe each with its heads, and not with its windows."""
    numbers = np.repeat(np.arange(num_images), axis.size // num_images)
    return set(axis.places) == {IMAGE} and np.array_equal(axis.places[IMAGE], numbers)


def _turned(array: Array, axes: tuple[int | None, int, int], num_images: int) -> Array:
    """(batch, heads, queries, keys)."""
    image, query, key = axes
    heads = [a for a in range(array.ndim) if a not in axes]
    first = [] if image is None else [image]
    turned = jnp.transpose(array, (*first, *heads, query, key))
    return turned.reshape(num_images, -1, array.shape[query], array.shape[key])
