"""Looks at the layers of a network while it runs, and changes them: two function transformations.

`read(fn, names)` also returns the activations; `edit(fn, {name: change})` puts others in their place.
Both return an ordinary function of the same arguments, which goes through `jit`, `grad`, `vmap` and
sharding, and leaves the rest of the computation bit for bit as it was.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from vexplain.transforms.interpreter import Path, evaluate
from vexplain.transforms.layer_table import Layer, traced_layers
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
        found: dict[str, Any] = {}

        def keep(value, here):
            found.update(dict.fromkeys(here, value))
            return value

        out = _evaluated(fn, (variables, images, *rest), names, "read", keep)
        return out, {name: found[name] for name in names}

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

    def change(value, here):
        for name in here:
            value = _changed(name, changes[name], value)
        return value

    def edited(variables, images, *rest):
        return _evaluated(fn, (variables, images, *rest), tuple(changes), "edit", change)

    return edited


def channels_last(activation: Array, layer: Layer) -> Array:
    """Returns an activation as (batch, ...positions, channels).

    Args:
        activation: what `read` returned for `layer`.
        layer: its row in the layer table; a ValueError where its batch axis could not be followed.
    """
    return jnp.moveaxis(activation, _axes(layer), (0, -1))


def as_layer_output(activation: Array, layer: Layer) -> Array:
    """Returns an activation in the layer's own order of axes: the inverse of `channels_last`.

    Args:
        activation: (batch, ...positions, channels).
        layer: its row in the layer table.
    """
    return jnp.moveaxis(activation, (0, -1), _axes(layer))


def _axes(layer: Layer) -> tuple[int, int]:
    if layer.batch_axis is None:
        raise ValueError(
            f"layer {layer.name!r} of shape {layer.shape} has no batch axis that could be followed: it mixes "
            "the images of a batch, takes them one by one, or has one number for each"
        )
    return layer.batch_axis, layer.channel_axis


def _checked_changes(changes: Mapping[str, Any]) -> dict[str, Callable[[Array], Array]]:
    for name, change in changes.items():
        if not callable(change):
            raise TypeError(
                f"changes[{name!r}] is {change!r}: expected a function of the activation; for a constant, "
                "lambda a: jnp.full_like(a, 0)"
            )
    return dict(changes)


def _evaluated(fn, args: Sequence[Any], names: Sequence[str], verb: str, change: Callable[..., Any]) -> Any:
    """The outputs of `fn(*args)`, with `change(value, names)` in place of the values of some layers."""
    program, table, *_ = traced_layers(fn, args)
    places: dict[Path, list[str]] = {}  # layers by the path of the equation that makes their value
    for name in names:
        layer = table[name]
        if layer.inside is not None:
            raise ValueError(
                f"cannot {verb} layer {name!r}: it is inside {layer.inside}, whose own rule would be "
                "lost; name a layer before or after it"
            )
        places.setdefault(layer.path, []).append(name)

    def replacement(here):
        return lambda original, inputs: change(original(*inputs), here)

    return evaluate(program, args, {path: replacement(here) for path, here in places.items()})


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
