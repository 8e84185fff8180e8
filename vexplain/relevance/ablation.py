"""Do the relevant features matter? The accuracy of a network without them, against as many random ones.

Channels are silenced by a mask that is an argument of the compiled program, so that every draw of random
features runs in the same program.

In all functions:
    layers: those that have a mask.
    relevant: by layer, channels of it, for instance from `relevant_union`; a ValueError for others.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.classifiers.training import confusion
from vexplain.transforms import Layer, as_layer_output, channels_last, edit
from vexplain.typing import ApplyFn, Array, Float, Key, Variables

ChannelMasks = dict[str, Float[Array, " channels"]]


def with_silenced_channels(apply: ApplyFn, layers: Sequence[Layer]) -> ApplyFn:
    """Returns `apply((variables, masks), images)`: the network with channels multiplied by 0 or 1."""

    def silenced(arguments: tuple[Variables, ChannelMasks], images):
        variables, masks = arguments

        def change(layer: Layer) -> Callable[[Array], Array]:
            def multiply(activation):
                kept = channels_last(activation, layer) * masks[layer.name].astype(activation.dtype)
                return as_layer_output(kept, layer, like=activation)

            return multiply

        return edit(apply, {layer.name: change(layer) for layer in layers})(variables, images)

    return silenced


def ablation_accuracy(apply: ApplyFn, layers: Sequence[Layer], num_classes: int):
    """Returns `(init, update)` that counts predictions of the network with silenced channels.

    As `training.confusion`; the constants of `update` are `(variables, masks)`, with masks from
    `relevant_masks` or `random_masks`.

    Args:
        num_classes: C.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 4.1.
    """
    return confusion(with_silenced_channels(apply, layers), num_classes)


def relevant_masks(layers: Sequence[Layer], relevant: Mapping[str, Sequence[int]]) -> ChannelMasks:
    """Returns masks that silence the relevant channels: 0 there, 1 elsewhere."""
    _check(layers, relevant)
    masks = {layer.name: jnp.ones(layer.num_channels) for layer in layers}
    for name, channels in relevant.items():
        masks[name] = masks[name].at[np.asarray(channels, int)].set(0.0)
    return masks


def random_masks(key: Key, layers: Sequence[Layer], relevant: Mapping[str, Sequence[int]]) -> ChannelMasks:
    """Returns masks that silence random channels, as many in each layer as are relevant there."""
    _check(layers, relevant)
    keys = jax.random.split(key, len(layers))
    drawn = {
        layer.name: jax.random.permutation(k, layer.num_channels)[: len(set(relevant.get(layer.name, ())))]
        for k, layer in zip(keys, layers, strict=True)
    }
    return relevant_masks(layers, {name: np.asarray(channels).tolist() for name, channels in drawn.items()})


def _check(layers: Sequence[Layer], relevant: Mapping[str, Sequence[int]]) -> None:
    sizes = {layer.name: layer.num_channels for layer in layers}
    unknown = set(relevant) - set(sizes)
    if unknown:
        raise ValueError(f"relevant: layers {sorted(unknown)} are not among layers, {list(sizes)}")
    for name, channels in relevant.items():
        beyond = [channel for channel in channels if not 0 <= channel < sizes[name]]
        if beyond:
            raise ValueError(f"relevant: {name!r} has channels 0 to {sizes[name] - 1}, got {beyond}")
