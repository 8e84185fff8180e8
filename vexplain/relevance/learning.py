"""The relevant features of a network over a source of images: one pass, then one regression a class."""

import collections
import logging
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from vexplain._checks import check_choice
from vexplain._keeping import Store, identity, kept
from vexplain.datasets import Source
from vexplain.datasets.sources import check_class_names
from vexplain.relevance._features import ON_EMPTY_CLASS, Relevance, find_relevance
from vexplain.relevance._moments import MOMENTS_LAYOUT
from vexplain.relevance._responses import Measure, check_measure
from vexplain.relevance.candidates import (
    MAX_GRAM_BYTES,
    candidate_layers,
    default_layers,
    gram_bytes,
    layout_of,
    response_fn,
)
from vexplain.relevance.layout import layout_size
from vexplain.relevance.statistics import Statistics, gram_statistics
from vexplain.streaming import Checkpoint, fold_epoch
from vexplain.streaming.checkpoints import digest
from vexplain.streaming.devices import Mesh, default_mesh
from vexplain.transforms import Layer, LayerTable
from vexplain.transforms import layers as layers_of
from vexplain.typing import ApplyFn, Variables

_LOG = logging.getLogger(__name__)
_MAX_NAMED = 10  # classes in a message; ImageNet has a thousand
_PASSES: Store = collections.OrderedDict()


def learn_relevance(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    *,
    layers: Sequence[Layer | str] | None = None,
    mu: float | int = 10.0,
    nonnegative: bool = True,
    labels: str = "predicted",
    class_names: Sequence[str] | None = None,
    batch_size: int = 64,
    on_empty_class: Literal["raise", "leave_out"] = "raise",
    measure: Measure = "energy",
    copies: Literal["all", "one"] = "all",
    solver: Literal["host", "device"] = "host",
    max_gram_bytes: int = MAX_GRAM_BYTES,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    description: str | None = None,
) -> Relevance:
    """Returns the relevant features of a network for every class of a source.

    The size of the search is logged before the pass: INFO, and a WARNING where not all layers fit.

    Args:
        source: labeled images, usually those that it was trained on; `ArraySource` makes one of arrays.
        layers: the layers whose channels are candidates, by name or from the layer table; `default_layers` of
            the network if left out: all of them, or the outputs of blocks where all would be too many.
        mu: bound on the L1 norm of each class's weights, positive; larger finds more features.
        nonnegative: demand weights >= 0.
        labels: regress on the "predicted" class, on the "true" one, or on any grouping of the images: the
            name of an array in the batches of the source (`with_extras` adds one), (batch,) integers, or
            (batch, groups) of 0 and 1 for images of several groups or none. The network has one score a
            group then; `with_prototypes` makes one of any encoder.
        class_names: of the groups; those of the source if left out.
        batch_size: images a step.
        on_empty_class: "raise" for a class that no image has (by its label, or by the prediction of the
            network), or "leave_out": such a class gets no relevant feature, and a WARNING names it. Where
            all images are of one class, no feature tells it from others, and it gets none either.
        measure: of the response of a channel: its "energy" (*paper*), or another one of `responses`.
        copies: "all" candidates, or "one" of a channel's copies, see `find_relevance`.
        solver: of the regression, on the "host" or the "device", see `mu_lasso`.
        max_gram_bytes: largest Gram matrix that is allowed; the devices share a little more, the host has
            twice that.
        mesh: devices; one if left out, or where there are several processes one of each.
        checkpoint: where the sums of the pass are saved, and where a pass that was interrupted goes on;
            `checkpoint.remove()` once the result is kept.
        description: of the progress bar; `None` shows none.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another pass.
        ValueError: an empty source, too many features, a class without images, `mu` not positive.

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
    check_measure(measure)
    check_choice("copies", copies, ("all", "one"))
    check_choice("solver", solver, ("host", "device"))
    mesh = default_mesh() if mesh is None else mesh
    _check(source, mu, on_empty_class)  # known before the pass over the images, which may take hours
    class_names = tuple(source.class_names if class_names is None else class_names)
    check_class_names(class_names)
    chosen = _chosen_layers(apply, variables, source, layers, batch_size, max_gram_bytes)
    layout = layout_of(chosen)
    # One pair for all weights of an architecture, so that its pass is compiled once.
    sizes = (layout_size(layout), len(class_names))
    name = (identity(apply), tuple(chosen), sizes, labels, identity(measure), max_gram_bytes, mesh)
    respond = response_fn(apply, chosen, measure=measure)
    options = {"labels": labels, "max_gram_bytes": max_gram_bytes, "mesh": mesh}
    init, update, finish = kept(_PASSES, name, lambda: gram_statistics(respond, *sizes, **options))
    state = fold_epoch(
        update,
        init(),
        source,
        batch_size=batch_size,
        constants=variables,
        mesh=mesh,
        checkpoint=checkpoint and checkpoint.of(**_facts(chosen, labels, measure)),
        layouts=MOMENTS_LAYOUT,
        description=description,
    )
    statistics, is_matrix = finish(state), _is_matrix(source, labels)
    if is_matrix and not np.isfinite(statistics.counts).all():
        raise ValueError(f"source: {labels!r} holds other numbers than 0 and 1; for integers pass (batch,)")
    _check_every_class_has_images(statistics, class_names, labels, on_empty_class)
    return find_relevance(
        statistics,
        layout,
        mu=mu,
        nonnegative=nonnegative,
        class_names=class_names,
        membership="any" if is_matrix else "one",
        on_empty_class=on_empty_class,
        measure=measure,
        copies=copies,
        solver=solver,
    )


def _is_matrix(source: Source, labels: str) -> bool:
    """Zeros and ones, of images of several groups or none."""
    return labels != "predicted" and np.ndim(source[[0]]["labels" if labels == "true" else labels]) == 2


def _facts(chosen: Sequence[Layer], labels: str, measure: Measure) -> dict[str, Any]:
    """What the sums of a pass depend on beside the images and the weights."""
    named = getattr(measure, "__qualname__", measure)
    searched = [(layer.name, layer.kind, layer.shape) for layer in chosen]
    return {"pass": "relevance", "layers": digest(searched), "labels": labels, "measure": named}


def _chosen_layers(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    layers: Sequence[Layer | str] | None,
    batch_size: int,
    max_gram_bytes: int,
) -> list[Layer]:
    if isinstance(layers, str):
        raise ValueError(f"layers is the text {layers!r}: pass a list, [{layers!r}]")
    if layers is not None and not len(layers):
        raise ValueError("layers is empty: name the layers, or leave it out for all candidates")
    given = [layer for layer in layers or () if isinstance(layer, Layer)]
    if layers is not None and len(given) == len(layers):
        chosen, table = given, None
    else:
        (image,) = source[[0]]["images"]
        # A batch as the pass takes it: its size may be a part of the network.
        batch = jax.ShapeDtypeStruct((batch_size, *image.shape), image.dtype)
        table = layers_of(apply, variables, batch)
        named = default_layers(table, max_gram_bytes=max_gram_bytes) if layers is None else layers
        chosen = [layer if isinstance(layer, Layer) else table[layer] for layer in named]
    if twice := [
        name for name, count in collections.Counter(layer.name for layer in chosen).items() if count > 1
    ]:
        raise ValueError(f"layers has {twice[0]!r} twice: name each layer once")
    _check_size(chosen, is_default=layers is None, max_gram_bytes=max_gram_bytes)
    _log_size(chosen, table if layers is None else None)
    return chosen


def _size(layers: Sequence[Layer]) -> str:
    """What a pass over some layers needs, in words."""
    num_features, size = sum(layer.num_channels for layer in layers), gram_bytes(layers)
    plural = "" if len(layers) == 1 else "s"
    large = f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size:,} bytes"
    return f"{num_features:,} features of {len(layers)} layer{plural} make a Gram matrix of {large}"


def _log_size(chosen: Sequence[Layer], table: LayerTable | None) -> None:
    _LOG.info("%s", _size(chosen))
    every = () if table is None else candidate_layers(table)
    if len(every) > len(chosen):
        _LOG.warning(
            "all %s; taken are the outputs of blocks, %s to %s: %s. Pass layers= for others",
            _size(every),
            chosen[0].name,
            chosen[-1].name,
            _size(chosen),
        )


def _check_size(chosen: Sequence[Layer], *, is_default: bool, max_gram_bytes: int) -> None:
    if gram_bytes(chosen) <= max_gram_bytes:
        return
    largest = sorted(chosen, key=lambda layer: -layer.num_channels)[:3]
    names = ", ".join(f"{layer.name} ({layer.num_channels:,})" for layer in largest)
    default = "" if is_default else "leave layers out, for the outputs of blocks; or "
    raise ValueError(
        f"layers: {_size(chosen)}, above max_gram_bytes = {max_gram_bytes:,}; the largest are {names}. Use "
        f"fewer layers: {default}name some, as in layers=[{chosen[-1].name!r}]; or raise max_gram_bytes"
    )


def _check(source: Any, mu: Any, on_empty_class: str) -> None:
    check_choice("on_empty_class", on_empty_class, ON_EMPTY_CLASS)
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
    statistics: Statistics, class_names: Sequence[str], labels: str, on_empty_class: str
) -> None:
    counts = statistics.counts
    if len(counts) > 1 and (counts > statistics.total - 0.5).any():
        only = class_names[int(counts.argmax())]
        _LOG.warning("no feature is relevant: by its %s label every image is of class %r", labels, only)
    absent = [repr(name) for name, count in zip(class_names, counts, strict=True) if count == 0]
    if not absent:
        return
    more = f" and {len(absent) - _MAX_NAMED} more" if len(absent) > _MAX_NAMED else ""
    empty = ", ".join(absent[:_MAX_NAMED]) + more
    if on_empty_class == "leave_out":
        _LOG.warning("left out, for no image is of this class by its %s label: %s", labels, empty)
        return
    if labels != "predicted":
        raise ValueError(
            f"source: no image of class {empty}: give images of it, or leave the class out by "
            'on_empty_class="leave_out"'
        )
    raise ValueError(
        f"source: no image of class {empty} by the prediction of the network: use more images, train it "
        'longer, regress on the true classes by labels="true", or leave the class out by '
        'on_empty_class="leave_out"'
    )
