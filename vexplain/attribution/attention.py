"""Maps of what a transformer attends to: its attention, followed from the last layer to the image.

Attention is found by what it computes, the softmax of a product, in a network of any library. With A_l the
probabilities of layer l, (tokens, tokens), the map is the row of the token that the score is read from, on
the tokens that have a place in the image, enlarged to it: the class token's row, or where several tokens are
read (a mean over all of them, a class token and another) the mean of their rows. Which tokens are read is
found by the gradient of the score by the last attention: those in whose row it is not zero (*ours*).

In all functions:
    interpolation: "bilinear" or "nearest" to the size of the images; `None` keeps the grid of the tokens.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.cam_layers import enlarged
from vexplain.transforms import Attention, read_attention
from vexplain.typing import Array, Float, Targets

_Maps = Float[Array, "batch _rows _columns"]


@attribution_method
def attention_rollout(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    interpolation: str | None = "bilinear",
) -> _Maps:
    """Returns attention rollout, (batch, height, width): attention of all layers, multiplied.

        R = Ã_L ... Ã_2 Ã_1,        Ã_l = ½ (mean over heads of A_l) + ½ I

    The identity stands for the residual connection. Rows of R sum to 1. The target changes nothing.

    Raises:
        ValueError: the network has no attention, or none that can be followed from layer to layer.

    References:
        Abnar, Zuidema, Quantifying Attention Flow in Transformers, ACL 2020, Equation 1.

    Example:
        >>> def apply(variables, images):  # four pixels are tokens that attend to bright ones
        ...     x = images.reshape(len(images), 4, 1)
        ...     shares = jax.nn.softmax(20 * x @ x.swapaxes(1, 2))
        ...     return (x + shares @ x).mean(1) @ variables
        >>> images = jnp.array([[1.0, 0.0], [0.0, 0.0]])[None, :, :, None]
        >>> print(attention_rollout(apply, jnp.ones((1, 2)), images, 0).round(2)[0])
        [[0.34 0.22]
         [0.22 0.22]]
    """
    found = _attention(network, images, targets)
    identity = jnp.eye(found.probabilities[0].shape[-1], dtype=images.dtype)
    mixed = [(shares.mean(1) + identity) / 2 for shares in found.probabilities]
    rolled = functools.reduce(lambda rows, layer: layer @ rows, mixed)
    return _map_of(rolled, found, images, interpolation)


@attribution_method
def generic_attention(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    interpolation: str | None = "bilinear",
) -> _Maps:
    """Returns the relevance of tokens by attention and its gradients, (batch, height, width).

    With ∇A_l the gradient of the score by the probabilities, and R = I before the first layer,

        Ā_l = mean over heads of max(0, ∇A_l ⊙ A_l),        R = R + Ā_l R        Equations 5 and 6

    Raises:
        ValueError: the network has no attention, or none that can be followed from layer to layer.

    References:
        Chefer, Gur, Wolf, Generic Attention-model Explainability for Interpreting Bi-Modal and
        Encoder-Decoder Transformers, ICCV 2021 (of self-attention).

    Example:
        >>> def apply(variables, images):  # the first of four pixels is read, and attends to all alike
        ...     x = images.reshape(len(images), 4, 1)
        ...     shares = jax.nn.softmax(0 * x @ x.swapaxes(1, 2))
        ...     return (shares @ x)[:, 0] @ variables
        >>> images = jnp.array([[0.0, 0.5], [0.5, 1.0]])[None, :, :, None]
        >>> print(generic_attention(apply, jnp.array([[4.0, 0.0]]), images, 0)[0])
        [[1.  0.5]
         [0.5 1. ]]
    """
    found = _attention(network, images, targets)
    relevance = jnp.eye(found.probabilities[0].shape[-1], dtype=images.dtype)
    for shares, gradients in zip(found.probabilities, found.gradients, strict=True):
        relevance = relevance + jax.nn.relu(gradients * shares).mean(1) @ relevance
    return _map_of(relevance, found, images, interpolation)


def _attention(network: Network, images: Any, targets: Any) -> Attention:
    def value(outputs):
        return network.score(outputs, targets).sum()

    return read_attention(network.apply, network.variables, images, value)


def _map_of(rows: Any, found: Attention, images: Any, interpolation: str | None) -> _Maps:
    """The mean row of the tokens that are read after the last layer, on the grid."""
    is_read = (found.gradients[-1] != 0).any((1, 3))
    is_read = is_read | ~is_read.any(1, keepdims=True)
    share = is_read / is_read.sum(1, keepdims=True)
    row = jnp.einsum("nq,nqk->nk", share.astype(images.dtype), rows)
    maps = jnp.take(row, jnp.asarray(found.order), axis=1).reshape(len(images), *found.grid, 1)
    return enlarged(maps, images, interpolation)[..., 0]
