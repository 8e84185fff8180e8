"""What class activation maps are made of: a layer with positions, its gradient, and its way to the image.

In all functions:
    layer: by name or from the layer table; the customary one if left out.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vexplain.attribution.calling import Network
from vexplain.transforms import Layer, LayerTable, channels_last, edit, layers, read
from vexplain.typing import Array, Float

INTERPOLATIONS = ("bilinear", "nearest", None)
Map = Float[Array, "batch _rows _columns _channels"]


def cam_layer(table: LayerTable) -> str:
    """Returns the customary layer for class activation maps: what the last reduction over positions acts on.

    Of a network with global average pooling that is the map that is averaged, of one with dense layers the
    map that is flattened (before a pooling, which would make it coarser), of a transformer with a class token
    the tokens from which its last attention makes keys and values.

    Raises:
        ValueError: no layer of the network has rows and columns.

    Example:
        >>> def apply(variables, images):
        ...     x = jax.lax.conv_general_dilated(
        ...         images, variables, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ...     )
        ...     return jax.nn.relu(x).mean((1, 2))
        >>> cam_layer(layers(apply, jnp.ones((3, 3, 1, 2)), jnp.ones((1, 5, 5, 1))))
        'relu_1'
    """
    if table.last_map is None:
        raise ValueError(
            "no layer of this network has rows and columns that could be followed: for a layer of tokens "
            "pass layer=vx.layers(...)[name].with_grid((rows, columns))"
        )
    return table.last_map


class LayerGradient(NamedTuple):
    """A layer and the gradient of the score by it, channels last."""

    activations: Map
    gradients: Map


def activation_of(network: Network, images: Any, layer: str | Layer | None) -> Map:
    """Returns the activation of a layer with two spatial axes, channels last.

    Raises:
        ValueError: the layer has no spatial axes, or no batch.
    """
    row = spatial_layer(network, images, layer)
    return channels_last(read(network.apply, [row.name])(network.variables, images)[1][row.name], row)


def activation_and_gradient(
    network: Network, images: Any, targets: Any, layer: str | Layer | None
) -> LayerGradient:
    """Returns the activation A of a layer and the gradient ∂y/∂A of the score by it.

    Raises:
        ValueError: the layer has no spatial axes, or no batch.
    """
    row = spatial_layer(network, images, layer)

    def perturbed(delta):
        moved = read(edit(network.apply, {row.name: lambda a: a + delta}), [row.name])
        outputs, found = moved(network.variables, images)
        return network.score(outputs, targets).sum(), found[row.name]

    gradients, activations = jax.grad(perturbed, has_aux=True)(jnp.zeros(row.shape, images.dtype))
    return LayerGradient(channels_last(activations, row), channels_last(gradients, row))


def enlarged(maps: Map, images: Any, interpolation: str | None) -> Map:
    """Returns maps of a layer at the size of the images.

    Args:
        maps: (batch, rows, columns, channels).
        interpolation: "bilinear" (pixels as squares: PyTorch's `align_corners=False`), "nearest", or `None`
            to leave the maps at the size of the layer.

    Raises:
        ValueError: another interpolation.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}: expected one of {INTERPOLATIONS}")
    if interpolation is None:
        return maps
    return jax.image.resize(maps, (*images.shape[:3], maps.shape[-1]), interpolation)


def rectified_sum(maps: Map, images: Any, interpolation: str | None, is_rectified: bool = True) -> Array:
    """Returns the sum of maps over channels at the size of the images, its negative values 0.

    Args:
        maps: (batch, rows, columns, channels).
        interpolation: see `enlarged`.
        is_rectified: else the sum is signed, and keeps an axis of one channel.

    Raises:
        ValueError: another interpolation.
    """
    total = maps.sum(-1, keepdims=True)
    total = enlarged(jax.nn.relu(total) if is_rectified else total, images, interpolation)
    return total[..., 0] if is_rectified else total


def spatial_layer(network: Network, images: Any, layer: str | Layer | None) -> Layer:
    """Returns the layer of a class activation map, with its shape for these images.

    Raises:
        ValueError: the layer has no spatial axes, or no batch.
    """
    table = layers(network.apply, network.variables, images)
    name = cam_layer(table) if layer is None else layer if isinstance(layer, str) else layer.name
    row = table[name]
    if isinstance(layer, Layer):  # of a table of other batch sizes, perhaps
        row = dataclasses.replace(layer, shape=row.shape)
    if row.batch_axis is None:
        raise ValueError(
            f"layer {name!r} of shape {row.shape} mixes the images of a batch, or its batch cannot be "
            "followed: choose an earlier layer"
        )
    if not row.num_positions:
        raise ValueError(
            f"layer {name!r} of shape {row.shape} has no spatial axes: a map needs a layer with height and "
            "width, such as the last convolution (see cam_layer)"
        )
    return row
