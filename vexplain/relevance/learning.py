"""The relevant features of a network over a source of images: one pass, then one regression a class."""

import math
from collections.abc import Sequence
from typing import Literal

from vexplain.datasets import Source
from vexplain.relevance.candidates import candidate_layers, layout_of, response_fn
from vexplain.relevance.features import Relevance, find_relevance
from vexplain.relevance.layout import layout_size
from vexplain.relevance.statistics import gram_statistics
from vexplain.sharding import Mesh
from vexplain.streaming import fold_epoch
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
    labels: Literal["predicted", "true"] = "predicted",
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

    Example:
        >>> import numpy as np
        >>> from vexplain.datasets import ArraySource
        >>> from vexplain.relevance import features
        >>> images = np.eye(2).repeat(5, axis=0).reshape(10, 1, 1, 2)  # five red ones, five green ones
        >>> labels = np.array([0, 1]).repeat(5)
        >>> source = ArraySource(images, labels, class_names=("red", "green"))
        >>> apply = lambda variables, images: images.mean((1, 2)) @ variables
        >>> relevance = learn_relevance(apply, np.eye(2), source, mu=1)
        >>> features(relevance, "green")
        (Feature(layer='pool_1', channel=1, weight=1.0),)
    """
    if not 0 < mu < math.inf:  # known before the pass over the images, which may take hours
        raise ValueError(f"mu: the bound on the L1 norm must be positive and finite, got {mu}")
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
    statistics = fold_epoch(
        update,
        init(),
        source,
        batch_size=batch_size,
        constants=variables,
        mesh=mesh,
        description=description,
    )
    return find_relevance(statistics, layout, mu=mu, nonnegative=nonnegative, class_names=source.class_names)
