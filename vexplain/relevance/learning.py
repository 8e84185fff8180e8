"""The relevant features of a network over a source of images: one pass, then one regression a class."""

from collections.abc import Sequence

from vexplain.datasets import Source, epoch_batches
from vexplain.relevance.candidates import candidate_layers, layout_of, response_fn
from vexplain.relevance.features import Relevance, find_relevance
from vexplain.relevance.layout import layout_size
from vexplain.relevance.statistics import gram_statistics
from vexplain.sharding import Mesh
from vexplain.streaming import fold
from vexplain.transforms import Layer, layers
from vexplain.typing import ApplyFn, Variables


def learn_relevance(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    *,
    rows: Sequence[Layer] | None = None,
    mu: float | int = 10.0,
    nonnegative: bool = True,
    labels: str = "predicted",
    batch_size: int = 64,
    max_gram_bytes: int = 2 * 2**30,
    mesh: Mesh | None = None,
    description: str | None = None,
) -> Relevance:
    """Returns the relevant features of a network for every class of a source.

    Args:
        apply: the network, `apply(variables, images) -> logits`.
        variables: its variables.
        source: images, usually those that it was trained on.
        rows: the layers whose channels are candidates; `candidate_layers` of the whole network if left out.
        mu: bound on the L1 norm of each class's weights; larger finds more features.
        nonnegative: demand weights >= 0.
        labels: regress on the "predicted" class or on the "true" one.
        batch_size: images a step.
        max_gram_bytes: largest Gram matrix that is allowed.
        mesh: devices; one if left out.
        description: of the progress bar; `None` shows none.

    Raises:
        ValueError: too many features for `max_gram_bytes`, a class without images, `mu` not positive.
    """
    if rows is None:
        example = source[[0]]["images"]
        rows = candidate_layers(layers(apply, variables, example))
    layout = layout_of(rows)
    init, update, _ = gram_statistics(
        response_fn(apply, rows),
        layout_size(layout),
        len(source.class_names),
        labels=labels,
        max_gram_bytes=max_gram_bytes,
    )
    batch_fn, num_steps = epoch_batches(source, batch_size)
    statistics = fold(
        update,
        init(),
        batch_fn,
        num_steps=num_steps,
        constants=variables,
        mesh=mesh,
        description=description,
    )
    return find_relevance(statistics, layout, mu=mu, nonnegative=nonnegative, class_names=source.class_names)
