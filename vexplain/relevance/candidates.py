"""Which layers of a network take part in the search for relevant features, and how they are read."""

from collections.abc import Callable, Sequence

from vexplain.relevance.layout import FeatureLayout
from vexplain.relevance.responses import responses
from vexplain.transforms import Layer, LayerTable, channels_last, read
from vexplain.typing import ApplyFn, Array, Float, Images, Logits, Variables

ResponseFn = Callable[[Variables, Images], tuple[Float[Array, "batch features"], Logits]]


def candidate_layers(table: LayerTable, *, convolutional_only: bool = False) -> tuple[Layer, ...]:
    """Returns the layers whose channels are candidate features.

    Every intermediate output counts (*paper*): a convolution, its ReLU and its pooled copy are features of
    their own. Only the class scores, which are the last layer, are left out; so is what mixes the images of a
    batch or cannot be read.

    Args:
        table: the layers of the network.
        convolutional_only: only convolutions, as in the paper's ablation "OnlyConv".

    Raises:
        ValueError: nothing is left.
    """
    readable = [row for row in table.layers[:-1] if row.inside is None and row.batch_axis is not None]
    chosen = [row for row in readable if row.kind == "conv" or not convolutional_only]
    if not chosen:
        what = "convolution" if convolutional_only else "layer before the class scores"
        raise ValueError(f"table: this network has no {what} that could be read:\n{table}")
    return tuple(chosen)


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
