"""Any methods by any metrics, in one pass over a source: means, intervals, paired differences and ranks.

The maps of a batch are made once, and all metrics look at the same ones: methods are compared on the same
images.
"""

import functools
import inspect
import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain.attribution import Score as ScoreOfOutputs
from vexplain.attribution import logit
from vexplain.attribution.scores import predicted_targets
from vexplain.catalog import MethodFn, Methods, as_methods
from vexplain.datasets import Source
from vexplain.evaluation._evaluation import Evaluation
from vexplain.evaluation.comparison import check_resampling
from vexplain.evaluation.explained_network import (
    SIGNS,
    ExplainedNetwork,
    Sample,
    as_heatmaps,
    attributions_of,
    check_signs,
    with_relevance,
)
from vexplain.evaluation.metrics import GIVEN, Metric, Metrics, as_metrics
from vexplain.evaluation.scores import raise_for_not_finite
from vexplain.streaming import Checkpoint, fold_epoch
from vexplain.typing import ApplyFn, Array, Batch, Float, Int, Variables

_LOG = logging.getLogger(__name__)


class _State(NamedTuple):
    values: dict[str, Float[Array, "images methods"]]
    weights: Float[Array, " images"]
    num_rows: Int[Array, ""]
    num_not_finite: Int[Array, " methods"]
    num_bad_targets: Int[Array, ""]
    num_bad_masks: Int[Array, ""]
    num_empty_masks: Int[Array, ""]


def evaluate(
    methods: Methods,
    metrics: Metrics,
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    *,
    relevance: Any = None,
    score: ScoreOfOutputs = logit,
    signs: Mapping[str, str] | None = None,
    batch_size: int = 32,
    num_resamples: int = 1000,
    coverage: float = 0.95,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    description: str | None = None,
) -> Evaluation:
    """Returns what each method scores by each metric, in one streaming pass over the images of a source.

    One's own methods and metrics are functions of the same conventions as those of the catalogs.

    Args:
        methods: as `as_methods` takes them: names, functions of the signature of all methods, or a dict.
        metrics: as `as_metrics` takes them: names of `METRICS`, functions, `Metric`s, or a dict; see
            `vexplain.evaluation.metrics`.
        apply: the network.
        variables: its weights.
        source: the images; with "masks" where a metric needs them. Its batches may have "targets"; else the
            predicted class is explained.
        relevance: the relevant features, for methods that need them.
        score: what is explained, and what metrics follow unless they have a score of their own.
        signs: for signed maps, by method: "positive part" (where left out) or "absolute value".
        batch_size: images a step. Memory does not depend on how many images there are.
        num_resamples: of the bootstrap.
        coverage: of its intervals.
        seed: of methods and metrics that draw: the key of an image follows from it and the image's index; and
            of the bootstrap.
        checkpoint: of `fold_epoch`.
        description: of the progress bar; `None` shows none.

    Raises:
        KeyError: there is no method or metric of a name.
        ValueError: a metric needs masks that the source does not have, or an option that was not filled in,
            or returned something else than one value an image; maps are not finite; targets are no classes,
            masks are not in [0, 1].

    Images with an empty mask are left out of the metrics that need masks, with a warning.

    Example:
        >>> from vexplain.datasets import ArraySource
        >>> apply = lambda weights, images: images.mean((1, 2)) @ weights
        >>> images = np.random.default_rng(0).uniform(size=(6, 4, 4, 3)).astype("float32")
        >>> source = ArraySource(images, np.zeros(6, int), class_names=("a",))
        >>> found = evaluate(["gradient", "input_x_gradient"], "completeness_gap", apply, jnp.eye(3), source)
        >>> found.mean("completeness_gap", "input_x_gradient") < 1e-6
        True
        >>> found.ranking("completeness_gap").methods
        ('input_x_gradient', 'gradient')
    """
    functions, chosen, by_sign = as_methods(methods), as_metrics(metrics), dict(signs or {})
    check_signs(by_sign, tuple(functions))
    _check_options(chosen)
    check_positive(batch_size=batch_size)
    check_resampling(num_resamples, coverage)
    if not (count := len(source)):
        raise ValueError("source: it holds no image")
    names = tuple(functions)
    zero = jnp.zeros((), jnp.int32)
    state = _State(
        {name: jnp.zeros((count, len(names))) for name in chosen},
        jnp.zeros(count),
        zero,
        jnp.zeros(len(names), jnp.int32),
        zero,
        zero,
        zero,
    )

    def update(state: _State, batch: Batch, network: ExplainedNetwork) -> _State:
        _check_batch(batch, chosen)
        images = jnp.asarray(batch["images"])
        counts = jnp.asarray(batch.get("weights", jnp.ones(len(images)))) > 0
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["indices"])
        targets, outputs = batch.get("targets"), apply(network.variables, images)
        bad_targets = _out_of_range(targets, outputs)
        if targets is None:
            targets = predicted_targets(score, outputs)
        raw = attributions_of(apply, functions, network, Sample(images, targets, keys), score)
        given = {
            "apply": apply,
            "variables": network.variables,
            "images": images,
            "targets": targets,
            "masks": batch.get("masks"),
            "score": score,
            "key": keys,
        }
        found = _measured(chosen, functions, network, given, raw, by_sign)
        is_empty = ~jnp.asarray(batch["masks"]).any((1, 2)) if "masks" in batch else jnp.zeros((), bool)
        for name, metric in chosen.items():
            if "masks" in metric.needs:
                found[name] = jnp.where(is_empty, jnp.nan, found[name])
        rows = state.num_rows + jnp.arange(len(images))
        is_finite = jnp.stack([jnp.isfinite(m).all(tuple(range(1, m.ndim))) for m in raw.values()])
        return _State(
            {name: state.values[name].at[rows].set(found[name].T, mode="drop") for name in chosen},
            state.weights.at[rows].set(counts.astype(state.weights.dtype), mode="drop"),
            state.num_rows + len(images),
            state.num_not_finite + (counts & ~is_finite).sum(1),
            state.num_bad_targets + (counts & bad_targets).sum(),
            state.num_bad_masks + (counts & _is_no_mask(batch.get("masks"))).sum(),
            state.num_empty_masks + (counts & is_empty).sum(),
        )

    state = fold_epoch(
        update,
        state,
        source,
        batch_size=min(batch_size, count),
        constants=jax.tree.map(jnp.asarray, ExplainedNetwork(variables, relevance)),
        checkpoint=checkpoint,
        description=description,
    )
    is_scored = np.asarray(state.weights) > 0
    for num_bad, what in (
        (state.num_bad_targets, "'targets' that are no class of the network"),
        (state.num_bad_masks, "'masks' outside [0, 1]"),
    ):
        if num_bad:
            raise ValueError(f"source: {int(num_bad)} of {int(is_scored.sum())} images have {what}")
    raise_for_not_finite(dict(zip(names, state.num_not_finite, strict=True)), int(is_scored.sum()))
    of_masks = [name for name, metric in chosen.items() if "masks" in metric.needs]
    if of_masks and state.num_empty_masks:
        _LOG.warning(
            "%d of %d images have a mask without a region and are left out of %s",
            *(int(state.num_empty_masks), int(is_scored.sum()), ", ".join(of_masks)),
        )
    values = {}
    for name in chosen:
        of_metric = np.asarray(state.values[name], np.float64)[is_scored]
        of_metric = of_metric[np.isfinite(of_metric).all(1)]
        values[name] = {method: of_metric[:, n] for n, method in enumerate(names)}
    return Evaluation(values, chosen, int(is_scored.sum()), num_resamples, coverage, seed)


def _measured(
    metrics: Mapping[str, Metric],
    methods: Mapping[str, MethodFn],
    network: ExplainedNetwork,
    given: Mapping[str, Any],
    raw: Mapping[str, Array],
    signs: Mapping[str, str],
) -> dict[str, Float[Array, "methods batch"]]:
    """Returns the values of all metrics; those of maps by one compiled body for all methods."""
    shape = given["images"].shape
    of_maps = {name: metric for name, metric in metrics.items() if "method" not in metric.needs}
    found: dict[str, Array] = {}
    if of_maps:
        channels = [maps if maps.ndim == 4 else maps[..., None] for maps in raw.values()]
        stacked = (
            jnp.stack([as_heatmaps(maps, signs.get(name, SIGNS[0])) for name, maps in raw.items()]),
            jnp.stack([maps.sum(-1) for maps in channels]),
            jnp.stack([jnp.broadcast_to(maps, (*shape[:3], _channels(maps, shape))) for maps in channels]),
        )

        def of_method(maps):
            named = dict(zip(("heatmaps", "attributions", "channel_attributions"), maps, strict=True))
            return {name: _value(name, metric, {**given, **named}) for name, metric in of_maps.items()}

        found = jax.lax.map(of_method, stacked)
    for name, metric in metrics.items():
        if name not in of_maps:
            bound = [with_relevance(method, network) for method in methods.values()]
            found[name] = jnp.stack([_value(name, metric, {**given, "method": method}) for method in bound])
    return found


def _channels(maps: Array, shape: tuple[int, ...]) -> int:
    """As many as the image has, so that the maps of all methods are one array."""
    return shape[3] if maps.shape[3] == 1 else maps.shape[3]


def _value(name: str, metric: Metric, given: Mapping[str, Any]) -> Float[Array, " batch"]:
    found = metric.function(**{needed: given[needed] for needed in metric.needs})
    found = getattr(found, "area", found)
    count = len(given["images"])
    if getattr(found, "ndim", 0) not in (1, 2) or len(found) != count:
        shape = getattr(found, "shape", type(found).__name__)
        raise ValueError(f"metrics[{name!r}] returned {shape}: expected one value an image, ({count},)")
    return (found if found.ndim == 1 else found.mean(1)).astype(jnp.float32)


def _check_options(metrics: Mapping[str, Metric]) -> None:
    for name, metric in metrics.items():
        filled = metric.function.keywords if isinstance(metric.function, functools.partial) else {}
        for parameter in inspect.signature(metric.function).parameters.values():
            is_open = parameter.default is parameter.empty and parameter.name not in (*GIVEN, *filled)
            if is_open and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                raise ValueError(
                    f"metrics[{name!r}] needs {parameter.name!r}: pass functools.partial(function, "
                    f"{parameter.name}=...); what is filled in by itself are {GIVEN}"
                )


def _out_of_range(targets: Any, outputs: Any) -> Array:
    """Which targets are no class, where they are classes; a gather would take the nearest one instead."""
    is_classes = getattr(outputs, "ndim", 0) == 2 and getattr(targets, "ndim", 0) == 1
    if not is_classes or not jnp.issubdtype(targets.dtype, jnp.integer):
        return jnp.zeros((), bool)
    return (targets < 0) | (targets >= outputs.shape[1])


def _is_no_mask(masks: Any) -> Array:
    """Which masks hold something else than numbers in [0, 1]."""
    return jnp.zeros((), bool) if masks is None else ~((masks >= 0) & (masks <= 1)).all((1, 2))


def _check_batch(batch: Batch, metrics: Mapping[str, Metric]) -> None:
    if "masks" in batch and batch["masks"].shape != (shape := batch["images"].shape[:3]):
        raise ValueError(f"source: masks of shape {batch['masks'].shape}: expected {shape}, as images have")
    for name, metric in metrics.items():
        if "masks" in metric.needs and "masks" not in batch:
            raise ValueError(
                f"source has no masks, which metrics[{name!r}] needs: pass an ArraySource(images, labels, "
                "masks, class_names=...), or leave the metric out"
            )
