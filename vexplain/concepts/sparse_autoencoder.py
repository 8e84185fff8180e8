"""A TopK sparse autoencoder: the activation of a layer, at one position, as a sum of few directions of many.

A network has more features than a layer has channels, and keeps them as directions that are not at right
angles. An autoencoder with many codes, of which at most k are active at a position, finds such directions
from activations alone, without labels. Its codes are numbers with positions, as channels are: `with_codes`
makes them a layer of the network.

In all functions:
    autoencoder: what `learn_autoencoder` returned.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from vexplain.transforms import Layer
from vexplain.typing import Array, Float

Rows = Float[Array, "*positions channels"]
Codes = Float[Array, "*positions codes"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SparseAutoencoder:
    """A dictionary of directions, and how much of each is in an activation: a pytree.

    Attributes:
        encoder: (channels, codes).
        decoder: (codes, channels), the directions, each of length 1.
        bias: (channels,), where all directions start.
        num_active: codes that may be active at a position, k.

    Example:
        >>> autoencoder = SparseAutoencoder(jnp.eye(2), jnp.eye(2), jnp.zeros(2), num_active=1)
        >>> print(encode(autoencoder, jnp.array([[3.0, 2.0], [-1.0, 0.5]])))
        [[3.  0. ]
         [0.  0.5]]
    """

    # Transformations put placeholders into the leaves, so that their types are not checked here.
    encoder: Any
    decoder: Any
    bias: Any
    num_active: int = dataclasses.field(metadata={"static": True})

    def __repr__(self) -> str:
        channels, codes = jnp.shape(self.encoder) or ("?", "?")
        return f"SparseAutoencoder({codes} codes of {channels} channels, {self.num_active} active)"


def encode(autoencoder: SparseAutoencoder, activations: Rows) -> Codes:
    """Returns the codes of activations: z = TopK(ReLU((a - b) W)), with b the bias and W the encoder.

    At each position the k largest stay, the others are zero; of equal ones at the end of the k all stay.
    A multiple of a - b has this multiple as its codes: they are in the units of the layer.

    Args:
        activations: (..., channels).

    References:
        Gao et al., Scaling and evaluating sparse autoencoders, 2024, Section 2.3.

    Example:
        >>> autoencoder = SparseAutoencoder(2 * jnp.eye(3), jnp.eye(3), jnp.ones(3), num_active=2)
        >>> print(encode(autoencoder, jnp.array([4.0, 3.0, 2.0])))
        [6. 4. 0.]
    """
    channels = len(autoencoder.bias)
    if activations.shape[-1] != channels:
        raise ValueError(
            f"activations have {activations.shape[-1]} channels, and the autoencoder is of {channels}: give "
            "those of the layer that it was learned on, channels last"
        )
    return largest((activations - autoencoder.bias) @ autoencoder.encoder, autoencoder.num_active)


def decode(autoencoder: SparseAutoencoder, codes: Codes) -> Rows:
    """Returns the activations that codes stand for: b + z D, with b the bias and D the decoder.

    Args:
        codes: (..., codes).

    Example:
        >>> autoencoder = SparseAutoencoder(jnp.eye(2), jnp.eye(2), jnp.ones(2), num_active=1)
        >>> print(decode(autoencoder, jnp.array([0.0, 2.0])))
        [1. 3.]
    """
    return codes @ autoencoder.decoder + autoencoder.bias


def largest(values: Codes, count: int) -> Codes:
    """Returns the positive ones among the largest numbers of the last axis, and zeros.

    The largest number that `count` numbers reach is found bit by bit: floats above zero are ordered as the
    whole numbers of the same bits. That takes sums along the axis alone, which is faster than a sort, and is
    split over devices.

    Args:
        values: floating point.
        count: how many stay, 1 or more; more where numbers are equal.

    Example:
        >>> print(largest(jnp.array([0.5, -1.0, 3.0, 2.0]), 2))
        [0. 0. 3. 2.]
    """
    positive = jax.nn.relu(values)
    width = jnp.finfo(values.dtype).bits
    bits = jax.lax.bitcast_convert_type(positive, jnp.dtype(f"int{width}"))

    def with_one_bit_more(place, bound):
        trial = bound | (jnp.ones_like(bound) << (width - 2 - place))
        return jnp.where((bits >= trial).sum(-1, keepdims=True) >= count, trial, bound)

    bound = jax.lax.fori_loop(0, width - 1, with_one_bit_more, jnp.zeros_like(bits[..., :1]))
    return jnp.where(bits >= bound, positive, 0)


def rows_of(activation: Array, layer: Layer) -> Array:
    """Returns an activation with its channels last and joined, at every position, of class tokens too."""
    others = [a for a in range(activation.ndim) if a not in layer.channel_axes]
    turned = jnp.transpose(activation, (*others, *layer.channel_axes))
    return turned.reshape(*turned.shape[: len(others)], layer.num_channels)


def from_rows(rows: Array, layer: Layer) -> Array:
    """Returns an activation in the layer's own order of axes: the inverse of `rows_of`."""
    others = [a for a in range(len(layer.shape)) if a not in layer.channel_axes]
    apart = rows.reshape(*rows.shape[:-1], *(layer.shape[a] for a in layer.channel_axes))
    order = [*others, *layer.channel_axes]
    return jnp.transpose(apart, [order.index(a) for a in range(len(order))])


def check_layer(layer: Layer) -> None:
    """Raises ValueError for a layer whose channels cannot be told apart."""
    if not layer.is_readable or not layer.channel_axes:
        why = layer.unreadable or "for it has no channels"
        raise ValueError(f"layer {layer.name!r} has no codes, {why}; name another layer")
