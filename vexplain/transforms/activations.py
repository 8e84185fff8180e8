"""Looks at the layers of a network while it runs, and changes them: two function transformations.

`read(fn, names)` also returns the activations; `edit(fn, {name: change})` puts others in their place.
Both return an ordinary function of the same arguments, which goes through `jit`, `grad`, `vmap` and
sharding, and leaves the rest of the computation bit for bit as it was.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vexplain.transforms.interpreter import Change, evaluate
from vexplain.transforms.layer import Layer
from vexplain.transforms.layer_table import Traced, traced_layers
from vexplain.transforms.program import Path
from vexplain.typing import Array


def read(fn: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Returns a function that gives `(fn(...), {name: activation})`.

    Args:
        fn: any traceable function of (variables, images, ...).
        names: of layers in `layers(fn, variables, images)`.

    Returns:
        A function of the same arguments. Activations are as the network made them: their axes are
        those of the layer table; `channels_last` brings them into one order.

    Raises:
        KeyError: at the first call, for a name that is not in the network.
        ValueError: at the first call, for a layer that cannot be reached.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def apply(variables, images):
        ...     return jax.nn.relu(images.mean((1, 2)) @ variables)
        >>> logits, found = read(apply, ["dense_1"])(-jnp.ones((3, 2)), jnp.ones((1, 4, 4, 3)))
        >>> print(logits, found["dense_1"])
        [[0. 0.]] [[-3. -3.]]
    """
    if isinstance(names, str):
        raise TypeError(f"names is the text {names!r}: pass a list of layer names, [{names!r}]")
    names = tuple(dict.fromkeys(names))

    def read_fn(variables, images, *rest):
        args = (variables, images, *rest)
        traced = traced_layers(fn, args)
        paths = {name: _path(traced, name, "read") for name in names}
        out, found = evaluate(traced.program, args, {}, paths.values())
        return out, {name: found[path] for name, path in paths.items()}

    return read_fn


def edit(fn: Callable[..., Any], changes: Mapping[str, Callable[[Array], Array]]) -> Callable[..., Any]:
    """Returns `fn` with the activations of some layers replaced by a function of themselves.

    Args:
        fn: any traceable function of (variables, images, ...).
        changes: for a layer's name, what to put in place of its activation: a function that keeps
            shape and dtype, for instance `lambda a: a.at[..., 3].set(0)`.

    Returns:
        A function of the same arguments and outputs.

    Raises:
        KeyError: at the first call, for a name that is not in the network.
        ValueError: at the first call, for a layer that cannot be reached, or a change of shape.
        TypeError: a change is no function, or returns something else than one array.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def apply(variables, images):
        ...     return jax.nn.relu(images.mean((1, 2)) @ variables)
        >>> dead = edit(apply, {"relu_1": lambda a: a.at[:, 0].set(0)})
        >>> print(dead(jnp.ones((3, 2)), jnp.ones((1, 4, 4, 3))))
        [[0. 3.]]
    """
    changes = _checked_changes(changes)

    def edited(variables, images, *rest):
        args = (variables, images, *rest)
        traced = traced_layers(fn, args)
        places: dict[Path, list[str]] = {}
        for name in changes:
            places.setdefault(_path(traced, name, "edit"), []).append(name)
        made = {path: Change(_changing(here, changes)) for path, here in places.items()}
        return evaluate(traced.program, args, made)[0]

    return edited


def channels_last(activation: Array, layer: Layer) -> Array:
    """Returns an activation as (batch, ...positions, channels).

    Positions are rows and columns of the image, also those of tokens, of windows and of rows that were rolled
    or turned; class and register tokens are left out. Channels are numbers that several axes may hold (heads,
    groups): then they are joined.

    Args:
        activation: what `read` returned for `layer`.
        layer: its row in the layer table; a ValueError where its batch axis could not be followed.
    """
    turned = _turned(activation, layer)
    if layer.order is not None:
        flat = turned.reshape(len(turned), -1, layer.num_channels)
        turned = jnp.take(flat, jnp.asarray(layer.order), axis=1)
    return turned.reshape(len(turned), *filter(None, layer.grid), layer.num_channels)


def as_layer_output(activation: Array, layer: Layer, *, like: Array | None = None) -> Array:
    """Returns an activation in the layer's own order of axes: the inverse of `channels_last`.

    Args:
        activation: (batch, ...positions, channels).
        layer: its row in the layer table.
        like: an activation as `read` returns it, whose class and register tokens are kept; zeros without it.
    """
    batch_axis = _batch_axis(layer)
    num_images = len(activation)
    positional = _positional_axes(layer)
    sizes = [layer.batch_fold if a == batch_axis else layer.shape[a] for a in positional]
    if layer.order is not None:
        flat = activation.reshape(num_images, -1, layer.num_channels)
        count = math.prod(sizes)
        if like is None:
            tokens = jnp.zeros((num_images, count, layer.num_channels), flat.dtype)
        else:
            tokens = _turned(like, layer).reshape(num_images, count, layer.num_channels).astype(flat.dtype)
        activation = tokens.at[:, jnp.asarray(layer.order)].set(flat)
    channels = [layer.shape[a] for a in layer.channel_axes]
    others = [a for a in positional if a != batch_axis]
    parts = activation.reshape(
        num_images * layer.batch_fold, *sizes[len(positional) - len(others) :], *channels
    )
    return jnp.transpose(parts, np.argsort([batch_axis, *others, *layer.channel_axes]).tolist())


def channel_sums(activation: Array, layer: Layer) -> Array:
    """Returns the sums over all positions, class and register tokens too, (batch, channels).

    Args:
        activation: what `read` returned for `layer`.
        layer: its row in the layer table; a ValueError where its batch axis could not be followed.
    """
    turned = _turned(activation, layer)
    return turned.reshape(len(turned), -1, layer.num_channels).sum(1)


def _turned(activation: Array, layer: Layer) -> Array:
    """(batch, positions..., channels...)."""
    batch_axis, positional = _batch_axis(layer), _positional_axes(layer)
    others = [a for a in positional if a != batch_axis]
    turned = jnp.transpose(activation, (batch_axis, *others, *layer.channel_axes))
    return turned.reshape(-1, layer.batch_fold, *turned.shape[1:]) if layer.batch_fold > 1 else turned


def _positional_axes(layer: Layer) -> list[int]:
    """The axes that hold positions, that of the batch first where it does."""
    axes = [a for a in range(len(layer.shape)) if a not in (layer.batch_axis, *layer.channel_axes)]
    return ([layer.batch_axis] if layer.batch_fold > 1 and layer.batch_axis is not None else []) + axes


def _batch_axis(layer: Layer) -> int:
    if layer.batch_axis is None:
        raise ValueError(
            f"layer {layer.name!r} of shape {layer.shape} has no batch axis that could be followed, "
            f"{layer.unreadable}"
        )
    return layer.batch_axis


def _checked_changes(changes: Mapping[str, Any]) -> dict[str, Callable[[Array], Array]]:
    for name, change in changes.items():
        if not callable(change):
            raise TypeError(
                f"changes[{name!r}] is {change!r}: expected a function of the activation; for a constant, "
                "lambda a: jnp.full_like(a, 0)"
            )
    return dict(changes)


def _path(traced: Traced, name: str, verb: str) -> Path:
    """Where the value of a layer is made."""
    layer = traced.table[name]
    if layer.inside is not None:
        raise ValueError(
            f"cannot {verb} layer {name!r}: it is inside {layer.inside}, whose own rule would be "
            "lost; name a layer before or after it"
        )
    return layer.path


def _changing(names: Sequence[str], changes: Mapping[str, Callable[[Array], Array]]) -> Callable[..., Array]:
    def replaced(original, inputs, held):
        value = original(*inputs)
        for name in names:
            value = _changed(name, changes[name], value)
        return value

    return replaced


def _changed(name: str, change: Callable[[Array], Array], value: Array) -> Array:
    new = change(value)
    if isinstance(new, tuple | list | dict) or new is None:
        raise TypeError(
            f"changes[{name!r}] returned a {type(new).__name__}: expected one array of shape {value.shape}"
        )
    new = jnp.asarray(new)
    if new.shape != value.shape:
        raise ValueError(
            f"the change of layer {name!r} returned shape {new.shape}; the layer has {value.shape}"
        )
    return new.astype(value.dtype)
