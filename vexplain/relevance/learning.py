"""The relevant features of a network over a source of images: one pass, then one regression a class."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from vexplain.datasets import Source
from vexplain.relevance.candidates import candidate_layers, layout_of, response_fn
from vexplain.relevance.features import Relevance, find_relevance
from vexplain.relevance.layout import layout_size
from vexplain.relevance.statistics import Statistics, gram_statistics
from vexplain.sharding import Mesh
from vexplain.streaming import fold_epoch
from vexplain.transforms import Layer, layers
from vexplain.typing import ApplyFn, Variables


def learn_relevance(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    *,
    rows: Sequence[Layer | str] | None = None,
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
        source: labeled images, usually those that it was trained on; `ArraySource` makes one of arrays.
        rows: the layers whose channels are candidates, by name or from the layer table; `candidate_layers` of
            the whole network if left out.
        mu: bound on the L1 norm of each class's weights, positive; larger finds more features.
        nonnegative: demand weights >= 0.
        labels: regress on the "predicted" class or on the "true" one.
        batch_size: images a step.
        max_gram_bytes: largest Gram matrix that is allowed.
        mesh: devices; one if left out.
        description: of the progress bar; `None` shows none.

    Raises:
        ValueError: no source or an empty one, too many features for `max_gram_bytes`, a class without images,
            `mu` not positive.
        KeyError: a name in `rows` that no layer has.

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
    _check(source, mu)  # known before the pass over the images, which may take hours
    chosen = _chosen_layers(apply, variables, source, rows)
    layout = layout_of(chosen)
    init, update, _ = gram_statistics(
        response_fn(apply, chosen),
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
    _check_every_class_has_images(statistics, source.class_names, labels)
    return find_relevance(statistics, layout, mu=mu, nonnegative=nonnegative, class_names=source.class_names)


def _chosen_layers(
    apply: ApplyFn, variables: Variables, source: Source, rows: Sequence[Layer | str] | None
) -> list[Layer]:
    if isinstance(rows, str):
        raise ValueError(f"rows is the text {rows!r}: pass a list, [{rows!r}]")
    if rows is not None and not len(rows):
        raise ValueError("rows is empty: name the layers, or leave it out for all candidates")
    given = [row for row in rows or () if isinstance(row, Layer)]
    if rows is not None and len(given) == len(rows):
        return given
    table = layers(apply, variables, source[[0]]["images"])
    if rows is None:
        return list(candidate_layers(table))
    return [row if isinstance(row, Layer) else table[row] for row in rows]


def _check(source: Any, mu: Any) -> None:
    if not isinstance(mu, numbers.Real) or not 0 < float(mu) < math.inf:
        raise ValueError(f"mu: the bound on the L1 norm must be a number, positive and finite, got {mu!r}")
    if isinstance(source, Mapping) or not isinstance(source, Source):
        raise ValueError(
            f"source is a {type(source).__name__}: expected a source of labeled images; for arrays pass "
            "vexplain.ArraySource(images, labels, class_names=...)"
        )
    if not len(source):
        raise ValueError("source holds no image: the relevant features are found from images of every class")


def _check_every_class_has_images(
    statistics: Statistics, class_names: Sequence[str], labels: Literal["predicted", "true"]
) -> None:
    counts = np.asarray(statistics.counts)
    empty = ", ".join(repr(name) for name, count in zip(class_names, counts, strict=True) if count == 0)
    if empty and labels == "true":
        raise ValueError(f"source: no image of class {empty}: give images of it, or leave the class out")
    if empty:
        raise ValueError(
            f"source: no image of class {empty} by the prediction of the network: use more images, train it "
            'longer, or regress on the true classes by labels="true"'
        )
