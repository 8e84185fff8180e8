"""Which layers of a network take part in the search for relevant features, and how they are read."""

from collections.abc import Callable, Sequence

from vexplain.relevance.layout import FeatureLayout
from vexplain.relevance.responses import responses
from vexplain.transforms import Layer, LayerTable, channels_last, read
from vexplain.typing import ApplyFn, Array, Float, Images, Logits, Variables

# These make new values of several channels, positions or layers; other kinds go number by number.
_COMBINES = ("conv", "dense", "pool", "add", "concatenate")

ResponseFn = Callable[[Variables, Images], tuple[Float[Array, "batch features"], Logits]]


def candidate_layers(table: LayerTable, *, convolutional_only: bool = False) -> tuple[Layer, ...]:
    """Returns the layers whose channels are candidate features.

    Every intermediate output counts (*paper*): a convolution, its ReLU and its pooled copy are features of
    their own. Only the class scores are left out: the last layer, and where that is an activation function, a
    scale or a name given to them, what it was made of. So is what mixes the images of a batch or cannot be
    read.

    Args:
        table: the layers of the network.
        convolutional_only: only convolutions, as in the paper's ablation "OnlyConv".

    Raises:
        ValueError: nothing is left.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from vexplain.transforms import layers
        >>> def apply(variables, images):
        ...     return jax.nn.relu(images.mean((1, 2)) @ variables) @ variables
        >>> table = layers(apply, jnp.ones((3, 3)), jnp.ones((1, 4, 4, 3)))
        >>> [row.name for row in candidate_layers(table)]
        ['pool_1', 'dense_1', 'relu_1']
    """
    before_scores = table.layers[: len(table) - _num_scores(table)]
    readable = [row for row in before_scores if row.inside is None and row.batch_axis is not None]
    chosen = [row for row in readable if row.kind == "conv" or not convolutional_only]
    if not chosen:
        what = "convolution" if convolutional_only else "layer before the class scores"
        raise ValueError(f"table: this network has no {what} that could be read:\n{table}")
    return tuple(chosen)


def _num_scores(table: LayerTable) -> int:
    """How many layers at the end of the table are the class scores, channel by channel."""
    rows, count = table.layers, 1
    while (
        count < len(rows)
        and rows[-count].kind not in _COMBINES
        and rows[-count].shape == rows[-count - 1].shape
    ):
        count += 1
    return count


def layout_of(rows: Sequence[Layer]) -> FeatureLayout:
    """Returns the feature layout of some layers: (name, number of channels) of each."""
    return tuple((row.name, row.num_channels) for row in rows)


def response_fn(apply: ApplyFn, rows: Sequence[Layer]) -> ResponseFn:
    """Returns the function `(variables, images) -> (responses, logits)` that `gram_statistics` takes.

    Args:
        apply: the network.
        rows: the candidate layers, in the order of the features.
    """
    names = [row.name for row in rows]
    reading = read(apply, names)

    def respond(variables, images):
        logits, found = reading(variables, images)
        return responses({row.name: channels_last(found[row.name], row) for row in rows}), logits

    return respond
