"""Which number of a response vector belongs to which channel of which layer.

A *feature* is one channel of one layer. A response vector holds the features of all chosen layers,
layer after layer; its layout is the tuple of (layer name, number of channels) in that order: static
information, hashable, known before any image is seen.

In all functions:
    layout: of the responses.
"""

import itertools
import operator
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex, TypeAlias

import numpy as np

from vexplain.typing import Array, Shaped

FeatureLayout: TypeAlias = tuple[tuple[str, int], ...]


def feature_layout(activations: Mapping[str, Any], *, layers: Sequence[str] | None = None) -> FeatureLayout:
    """The (layer name, number of channels) of each layer, in the order of the response vector.

    Args:
        activations: by layer name, anything with a `shape` (batch, *spatial, channels).
        layers: the layers to take and their order; all, in the mapping's order, when left out. A dict that
            crosses `jax.jit` or `jax.eval_shape` comes back sorted by name: give the layers there.

    Example:
        >>> import jax.numpy as jnp
        >>> feature_layout({"conv_1": jnp.zeros((2, 5, 4, 3)), "dense_1": jnp.zeros((2, 7))})
        (('conv_1', 3), ('dense_1', 7))
    """
    names = tuple(activations) if layers is None else tuple(layers)
    if not names:
        raise ValueError("activations: no layer was given; a response needs at least one layer")
    unknown = [name for name in names if name not in activations]
    if unknown:
        raise ValueError(f"layers: {unknown} not among the activations, {list(activations)}")
    if len(set(names)) < len(names):
        raise ValueError(f"layers: each layer may be given once, got {list(names)}")
    return tuple((name, _num_channels(name, activations[name].shape)) for name in names)


def layout_size(layout: FeatureLayout) -> int:
    """The number of features, all layers together."""
    return sum(num_channels for _, num_channels in layout)


def feature_index(layout: FeatureLayout, layer: str, channel: int) -> int:
    """The place in the response vector of one channel of one layer.

    Args:
        layer: its name; a ValueError for one that is not in the layout.
        channel: 0 to the number of channels - 1, else a ValueError.

    Example:
        >>> feature_index((("conv_1", 3), ("dense_1", 7)), "dense_1", 2)
        5
    """
    offset = 0
    for name, num_channels in layout:
        if name == layer:
            if not 0 <= channel < num_channels:
                raise ValueError(f"channel: {layer!r} has channels 0 to {num_channels - 1}, got {channel}")
            return offset + channel
        offset += num_channels
    raise ValueError(f"layer: {layer!r} is not in the layout, {[name for name, _ in layout]}")


def layer_and_channel(layout: FeatureLayout, index: SupportsIndex) -> tuple[str, int]:
    """The layer and channel at a place of the response vector: the inverse of `feature_index`.

    Args:
        index: the place; a ValueError for one that the vector does not have.

    Example:
        >>> layer_and_channel((("conv_1", 3), ("dense_1", 7)), 5)
        ('dense_1', 2)
    """
    remaining = operator.index(index)
    if remaining >= 0:
        for name, num_channels in layout:
            if remaining < num_channels:
                return name, remaining
            remaining -= num_channels
    raise ValueError(f"index: features go from 0 to {layout_size(layout) - 1}, got {index}")


def split_features(
    layout: FeatureLayout, values: Shaped[Array | np.ndarray, "*batch features"]
) -> dict[str, Shaped[Array | np.ndarray, "*batch channels"]]:
    """Values per feature, split by layer: a mask, a one-hot pick or a score for each channel.

    Args:
        values: one value per feature along the last axis, of the size of the layout, else a ValueError.

    Example:
        >>> import jax.numpy as jnp
        >>> split_features((("conv_1", 3), ("dense_1", 2)), jnp.arange(5))["dense_1"].tolist()
        [3, 4]
    """
    if values.shape[-1] != layout_size(layout):
        raise ValueError(
            f"values: expected {layout_size(layout)} features along the last axis, as the layout "
            f"has, got shape {values.shape}"
        )
    offsets = itertools.accumulate((size for _, size in layout), initial=0)
    return {
        name: values[..., offset : offset + size]
        for (name, size), offset in zip(layout, offsets, strict=False)
    }


def _num_channels(name: str, shape: tuple[int, ...]) -> int:
    if len(shape) < 2 or shape[-1] < 1:
        raise ValueError(f"activations: {name!r} needs the shape (batch, *spatial, channels), got {shape}")
    return shape[-1]
