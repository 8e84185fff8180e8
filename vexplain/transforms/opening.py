"""A network opened at some layers, so that what a rule of propagation sends back to them can be read.

Rules of propagation take a layer whole: a convolution goes with the normalization that is folded into it. A
network is opened where such a whole ends, so that the rules find in it what they find in the network itself,
and what they send back to the images is the same.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from vexplain.transforms.divisors import AFFINE
from vexplain.transforms.interpreter import Change, evaluate
from vexplain.transforms.layer import Layer
from vexplain.transforms.layer_kinds import Draft
from vexplain.transforms.layer_table import traced_layers
from vexplain.transforms.program import Path

_KEEP_CHANNELS = (*AFFINE, "neg", "convert_element_type", "copy")


def opened(fn: Callable[..., Any], names: Sequence[str]) -> Callable[..., Any]:
    """Returns `(variables, images, shifts) -> (fn(variables, images), {name: activation})`.

    The `shifts`, one for each name and of the shape of its layer, are added to the activations. Zeros change
    nothing, and what reverse-mode differentiation sends to them is what it sends to the layer: under
    `with_rules` that of the rules.

    A convolution or dense layer that a normalization with constant statistics follows is one layer for these
    rules; it is opened after the normalization, whose channels are those of the layer.

    Args:
        fn: any traceable function of (variables, images).
        names: of layers in `layers(fn, variables, images)`.

    Raises:
        KeyError: at the first call, for a name that is not in the network.
        ValueError: at the first call, for a layer that cannot be reached, or that is a part of another one
            with other channels.

    Example:
        >>> import jax.numpy as jnp
        >>> apply = lambda w, images: jax.nn.relu(images.mean((1, 2)) @ w).sum(1)
        >>> images, shifts = jnp.ones((1, 2, 2, 3)), {"dense_1": jnp.zeros((1, 2))}
        >>> w = jnp.array([[1.0, -1.0]] * 3)
        >>> _, send, found = jax.vjp(lambda s: opened(apply, ["dense_1"])(w, images, s), shifts, has_aux=True)
        >>> print(found["dense_1"], send(jnp.ones(1))[0]["dense_1"])
        [[ 3. -3.]] [[1. 0.]]
    """

    def opened_fn(variables, images, shifts):
        args = (variables, images)
        places = _places(fn, args, names)
        changes = {path: Change(_shifting(here, shifts)) for path, here in _by_path(places).items()}
        outputs, found = evaluate(traced_layers(fn, args).program, args, changes, changes)
        return outputs, {name: found[path] for name, path in places.items()}

    return opened_fn


def _shifting(names: Sequence[str], shifts: Mapping[str, Any]) -> Callable[..., Any]:
    def replaced(original, inputs, held):
        # The barrier keeps a shift of one image from being taken for the bias of the layer.
        value = jax.lax.optimization_barrier(original(*inputs))
        for name in names:
            value = value + shifts[name].astype(value.dtype)
        return value

    return replaced


def _by_path(places: Mapping[str, Path]) -> dict[Path, list[str]]:
    found: dict[Path, list[str]] = {}
    for name, path in places.items():
        found.setdefault(path, []).append(name)
    return found


def _places(fn: Callable[..., Any], args: Sequence[Any], names: Sequence[str]) -> dict[str, Path]:
    """For each layer the path of the value at which it is opened."""
    table, spans = traced_layers(fn, args).table, traced_layers(fn, args, as_spans=True)
    found = {}
    for name in names:
        layer = table[name]
        whole = next((w for w in spans.table if _is_within(layer, spans.drafts[w.index])), None)
        if whole is not None and not _has_its_channels(layer, spans.drafts[whole.index]):
            raise ValueError(
                f"layer {name!r} of shape {layer.shape} is a part of a layer of shape {whole.shape} that the "
                "rules take whole: name a layer after it"
            )
        inside, path = (layer.inside, layer.path) if whole is None else (whole.inside, whole.path)
        if inside is not None:
            raise ValueError(
                f"cannot propagate to layer {name!r}: it is inside {inside}; name a layer before or after it"
            )
        found[name] = path
    return found


def _is_within(layer: Layer, whole: Draft) -> bool:
    """Is it made on the way through a linear layer, before the end?"""
    return whole.kind in ("conv", "dense") and layer.path in [step.path for step in whole.steps[:-1]]


def _has_its_channels(layer: Layer, whole: Draft) -> bool:
    made = [step.path for step in whole.steps].index(layer.path)
    after = whole.steps[made + 1 :]
    return all(step.kind in _KEEP_CHANNELS and step.out.shape == layer.shape for step in after)
