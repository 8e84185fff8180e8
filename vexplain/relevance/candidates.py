"""Which layers of a network take part in the search for relevant features, and how they are read.

The paper takes every intermediate output of its networks of a few layers. The matrix of all products of two
features, G, grows with the square of their number: a ResNet-50 has 93,059 features, and G 32 GiB. Deep
networks are therefore searched at the outputs of their blocks.
"""

import itertools
import logging
from collections.abc import Sequence

from vexplain.relevance._responses import Measure, check_measure, responses
from vexplain.relevance.layout import FeatureLayout
from vexplain.relevance.statistics import ResponseFn
from vexplain.transforms import Layer, LayerTable, channels_last, read
from vexplain.transforms.nonlinearities import ACTIVATION_KINDS, OTHER
from vexplain.typing import ApplyFn

_LOG = logging.getLogger(__name__)
# These make new values of several channels, positions or layers; other kinds go number by number.
_COMBINES = ("conv", "dense", "pool", "add", "concatenate")
_MIN_BLOCKS = 3  # additions from which on a network is one of residual blocks
MAX_GRAM_BYTES = 2 * 2**30


def candidate_layers(table: LayerTable, *, convolutional_only: bool = False) -> tuple[Layer, ...]:
    """Returns the layers whose channels are candidate features.

    Every intermediate output counts (*paper*): a convolution, its ReLU and its pooled copy are features of
    their own. Left out are the class scores (the last layer, and where that is an activation function, a
    scale or a name given to them, what it was made of), and what mixes the images of a batch or cannot be
    read.

    Args:
        table: the layers of the network; a ValueError where none is left.
        convolutional_only: only convolutions, as in the paper's ablation "OnlyConv".

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from vexplain.transforms import layers
        >>> def apply(variables, images):
        ...     return jax.nn.relu(images.mean((1, 2)) @ variables) @ variables
        >>> table = layers(apply, jnp.ones((3, 3)), jnp.ones((1, 4, 4, 3)))
        >>> [layer.name for layer in candidate_layers(table)]
        ['pool_1', 'dense_1', 'relu_1']
    """
    named = [layer for layer in table if not layer.kind.startswith(OTHER)]
    before_scores = named[: len(named) - _num_scores(named)]
    readable = [layer for layer in before_scores if layer.is_readable]
    _warn_of_others([layer for layer in before_scores if not layer.is_readable])
    chosen = [layer for layer in readable if layer.kind == "conv" or not convolutional_only]
    if not chosen:
        what = "convolution" if convolutional_only else "layer before the class scores"
        raise ValueError(f"table: this network has no {what} that could be read:\n{table}")
    return tuple(chosen)


def _warn_of_others(left_out: Sequence[Layer]) -> None:
    reasons: dict[str, list[str]] = {}
    for layer in left_out:
        reasons.setdefault(layer.unreadable or "", []).append(layer.name)
    for reason, names in reasons.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        _LOG.warning("%d layers are left out, %s: %s%s", len(names), reason, ", ".join(names[:3]), more)


def _num_scores(layers: Sequence[Layer]) -> int:
    """How many layers at the end are the class scores, channel by channel."""
    count = 1
    while (
        count < len(layers)
        and layers[-count].kind not in _COMBINES
        and layers[-count].shape == layers[-count - 1].shape
    ):
        count += 1
    return count


def default_layers(table: LayerTable, *, max_gram_bytes: int = MAX_GRAM_BYTES) -> tuple[Layer, ...]:
    """Returns the candidate layers whose Gram matrix fits: all of them, or the outputs of blocks.

    The first of these that fits is taken (*ours*; the paper's networks are small):

    1. every candidate, as `candidate_layers` (*paper*);
    2. in a residual network the output of each block: the activation function after its addition, or the
       addition where none follows (ConvNeXt, ViT); in a plain network every activation function;
    3. of those the last at each shape, the outputs of the stages; these too if nothing fits.

    Args:
        table: the layers of the network.
        max_gram_bytes: largest Gram matrix, 4 m² bytes for m features; 2 GiB are 23,170 features.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from vexplain.transforms import layers
        >>> def apply(w, images):
        ...     x = jax.nn.relu(images @ w)
        ...     return jax.nn.relu(x @ w).mean((1, 2)) @ w
        >>> table = layers(apply, jnp.ones((3, 3)), jnp.ones((1, 4, 4, 3)))
        >>> for size in (1000, 150, 100):
        ...     print([layer.name for layer in default_layers(table, max_gram_bytes=size)])
        ['dense_1', 'relu_1', 'dense_2', 'relu_2', 'pool_1']
        ['relu_1', 'relu_2']
        ['relu_2']
    """
    every = candidate_layers(table)
    outputs = _block_outputs(every)
    choices = (every, outputs, tuple({layer.shape: layer for layer in outputs}.values()))
    return next((layers for layers in choices if gram_bytes(layers) <= max_gram_bytes), choices[-1])


def gram_bytes(layers: Sequence[Layer]) -> int:
    """Returns the size of the Gram matrix of some layers: 4 m² bytes, m their channels together."""
    return 4 * sum(layer.num_channels for layer in layers) ** 2


def _block_outputs(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The ends of residual blocks; in a network of few or none its activation functions; else all layers."""
    pairs = itertools.zip_longest(layers, layers[1:])
    ends = [
        following
        if following is not None and following.kind in ACTIVATION_KINDS and following.shape == layer.shape
        else layer
        for layer, following in pairs
        if layer.kind == "add"
    ]
    if len(ends) < _MIN_BLOCKS:
        ends = [layer for layer in layers if layer.kind in ACTIVATION_KINDS]
    return tuple(ends or layers)


def layout_of(layers: Sequence[Layer]) -> FeatureLayout:
    """Returns the feature layout of some layers: (name, number of channels) of each."""
    return tuple((layer.name, layer.num_channels) for layer in layers)


def response_fn(apply: ApplyFn, layers: Sequence[Layer], *, measure: Measure = "energy") -> ResponseFn:
    """Returns the function `(variables, images) -> (responses, logits)` that `gram_statistics` takes.

    Args:
        layers: the candidate layers, in the order of the features.
        measure: of a channel, see `responses`.
    """
    check_measure(measure)
    names = [layer.name for layer in layers]
    read_fn = read(apply, names)

    def respond(variables, images):
        logits, found = read_fn(variables, images)
        activations = {layer.name: channels_last(found[layer.name], layer) for layer in layers}
        return responses(activations, measure=measure), logits

    return respond
