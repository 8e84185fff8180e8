"""What the channels of a layer contribute to a score, and where in the image (concept relevance propagation).

Layer-wise relevance propagation shares a score out among the numbers of every layer on its way to the pixels.
Stopped at a layer, it says how much each channel, a *concept*, contributes:

    R_k = Σ over positions of R_pk

Sent on from the positions of one channel alone, with the relevance of all others set to 0, it says where in
the image that channel found what it contributes: R(x | channel k). Every step of LRP is linear in the
relevance, so that the maps of all channels of a layer add up to what passes through this layer; where nothing
passes around it, in a shortcut, that is the map of `lrp`.

In all functions:
    layer: its name, or its row in the layer table. A convolution with a normalization of constant statistics
        after it is taken after the normalization, as the rules fold it.
    composite: which rule is for which linear layer, see `attribution.lrp`; the paper's is the one left out.
    on_uncovered: `"raise"`, or `"gradient"` to keep the gradient of a step that no rule is for.

Some authors say that LRP is patented for commercial use.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vexplain.attribution import Network, Score, attribution_method, logit
from vexplain.attribution.propagation import propagate_to
from vexplain.transforms import Layer, Rule, Rules, channel_sums, epsilon_plus_flat, fast_in_loops, layers
from vexplain.typing import ApplyFn, Array, Float, ImagesLike, Shaped, Targets, Variables

_AT_ONCE = 32  # images that are sent back side by side


class ChannelRelevance(NamedTuple):
    """What the channels of a layer contribute to the score of each image.

    Attributes:
        relevance: (batch, channels), signed, in the unit of the score. Its sum over the channels is what of
            the score passes through the layer.
        scores: (batch,), what was shared out, see `attribution.Propagation`.
    """

    relevance: Float[Array, "batch channels"]
    scores: Shaped[Array, " batch"]


@attribution_method
def channel_relevance(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer,
    composite: Rule | Rules = epsilon_plus_flat(),  # noqa: B008
    on_uncovered: str = "raise",
) -> ChannelRelevance:
    """Returns the relevance of every channel of a layer for the score of each image.

    One forward and one backward pass, whatever the number of channels.

    Raises:
        KeyError: there is no such layer.
        ValueError: the layer cannot be reached, or no rule is for a step of the network.

    References:
        Achtibat et al., From Attribution Maps to Human-Understandable Explanations through Concept Relevance
        Propagation, Nature Machine Intelligence 2023.

    Example:
        >>> from vexplain.transforms import lrp_epsilon
        >>> apply = lambda w, images: jax.nn.relu(images.mean((1, 2)) @ w[0]) @ w[1]
        >>> w = (jnp.array([[1.0, 0.0], [2.0, 1.0]]), jnp.array([[3.0, 0.0], [4.0, 1.0]]))
        >>> options = {"layer": "relu_1", "composite": lrp_epsilon(0.0)}
        >>> found = channel_relevance(apply, w, jnp.array([[[[1.0, 0.5]]]]), 0, **options)
        >>> print(found.relevance, found.scores)
        [[6. 2.]] [8.]
    """
    found = propagate_to(network, images, targets, [layer], composite, on_uncovered)
    ((name, row),) = found.layers.items()
    return ChannelRelevance(channel_sums(found.relevance[name], row), found.scores)


def conditional_maps(
    apply: ApplyFn,
    variables: Variables,
    images: ImagesLike,
    targets: Targets = None,
    *,
    layer: str | Layer,
    channels: Any,
    score: Score = logit,
    composite: Rule | Rules = epsilon_plus_flat(),  # noqa: B008
    on_uncovered: str = "raise",
    is_summed: bool = False,
) -> Float[Array, "batch *K height width channels"]:
    """Returns the attributions of each image conditioned on channels of a layer: what the pixels gave them.

    The relevance of all other channels is set to 0 at the layer, and what is left is sent on to the pixels:
    one forward pass, one backward pass down to the layer, and from there one for each channel, side by side.
    The map of several channels together is the sum of theirs.

    Args:
        channels: one, or (K,) for all images, or (batch, K), others in each image, as `jax.lax.top_k` of
            their relevance gives them.
        is_summed: one map of all these channels together, in one pass; a channel that is named twice counts
            once.

    Returns:
        Signed attributions, (batch, K, height, width, channels); of one channel, and with `is_summed`,
        (batch, height, width, channels).

    Raises:
        KeyError: there is no such layer.
        ValueError: the layer cannot be reached, a channel is not there, or no rule is for a step.

    References:
        Achtibat et al., 2023, "Concept relevance propagation" (masking of latent relevances).

    Example:
        >>> from vexplain.transforms import lrp_epsilon
        >>> apply = lambda w, images: jax.nn.relu(images.mean((1, 2)) @ w[0]) @ w[1]
        >>> w = (jnp.array([[1.0, 0.0], [2.0, 1.0]]), jnp.array([[3.0, 0.0], [4.0, 1.0]]))
        >>> options = {"layer": "relu_1", "composite": lrp_epsilon(0.0)}
        >>> maps = conditional_maps(apply, w, jnp.array([[[[1.0, 0.5]]]]), 0, channels=[0, 1], **options)
        >>> print(maps[0, :, 0, 0])
        [[3. 3.]
         [0. 2.]]
    """
    row = layers(apply, variables, images)[layer] if isinstance(layer, str) else layer
    chosen = _checked_channels(channels, row, len(images))
    options = {"layer": layer, "composite": composite, "on_uncovered": on_uncovered}
    options |= {"chosen": chosen, "is_summed": is_summed or chosen.ndim == 0}
    return _conditional_maps(apply, variables, images, targets, score=score, **options)


@attribution_method
def _conditional_maps(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer,
    chosen: Any,
    composite: Rule | Rules,
    on_uncovered: str,
    is_summed: bool,
) -> Array:
    found = propagate_to(network, images, targets, [layer], composite, on_uncovered)
    ((name, row),) = found.layers.items()
    signal = found.signals[name]
    spread = jax.linear_transpose(lambda values: channel_sums(values, row), signal)
    is_chosen = jax.nn.one_hot(jnp.atleast_1d(chosen), row.num_channels, dtype=signal.dtype)
    is_chosen = jnp.broadcast_to(is_chosen, (len(images), *is_chosen.shape[-2:]))

    def sent(mask: Array) -> Array:
        return found.send({name: signal * spread(mask)[0]})

    if is_summed:
        return sent(is_chosen.max(1))
    at_once = max(1, _AT_ONCE // len(images))
    maps = jax.lax.map(fast_in_loops(sent), jnp.moveaxis(is_chosen, 1, 0), batch_size=at_once)
    return jnp.moveaxis(maps, 0, 1)


def _checked_channels(channels: Any, layer: Layer, num_images: int) -> Any:
    array = channels if isinstance(channels, jax.Array) else np.asarray(channels)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"channels is of dtype {array.dtype}: expected integers, channels of the layer")
    if array.size == 0 or array.ndim > 2 or (array.ndim == 2 and len(array) != num_images):
        raise ValueError(
            f"channels has shape {array.shape}: expected one channel, (K,) for all images, or "
            f"({num_images}, K), some for each image"
        )
    if isinstance(array, Tracer):
        return array
    low, high = int(array.min()), int(array.max())
    if not 0 <= low <= high < layer.num_channels:
        raise ValueError(
            f"channels go from {low} to {high}: layer {layer.name!r} has channels 0 to "
            f"{layer.num_channels - 1}"
        )
    return array
