"""Scores heatmaps of any method against ground truth, in one streaming pass for all methods.

A method is any function `(variables, images, targets, key) -> attributions`; `methods_for` makes the usual
ones for a network. A signed map is scored twice, by its positive part and by its absolute value, and its method
is credited with whichever is better over the dataset.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.attribution import (
    absolute_heatmaps,
    cam_layer,
    class_score,
    grad_cam,
    gradient,
    guided_backprop,
    normalize_heatmaps,
    positive_heatmaps,
    random_map,
    sobel_edges,
    upsampled_activation,
)
from vexplain.explanation import explain
from vexplain.metrics import best_iou, iou_area, iou_curve
from vexplain.relevance import Relevance
from vexplain.transforms import LayerTable
from vexplain.typing import ApplyFn, Array, Batch, Float, Variables

Method = Callable[..., Any]  # (variables, images, targets, key) -> (batch, height, width[, channels])
CONTROLS = ("random map", "Sobel edges")
OURS = "relevant features (paper)"


class Sums(NamedTuple):
    """Sums over images of what a map scores."""

    curve: Float[Array, "thresholds"]  # noqa: F821
    area: Float[Array, "2"]  # sum and sum of squares
    best: Float[Array, "2"]


class Score(NamedTuple):
    """Means over images, with standard errors. All in [0, 1]."""

    area: float
    area_error: float
    best: float
    best_error: float
    curve: np.ndarray
    reading: str  # "positive part" or "absolute value", where that was a choice


class ScoreState(NamedTuple):
    """By method and reading."""

    sums: dict[str, dict[str, Sums]]
    count: Float[Array, ""]


def methods_for(apply: ApplyFn, table: LayerTable, relevance: Relevance, **options: Any) -> dict[str, Method]:
    """Returns the paper's method, its customary rivals, and controls, by name.

    Args:
        apply: the network.
        table: its layers.
        relevance: its relevant features.
        **options: of `explain`, for instance `num_features`.
    """
    score, layer = class_score(apply), cam_layer(table)

    def recipe(variables, images, targets, key):
        return explain(apply, variables, images, relevance, targets=targets, **options).heatmaps

    return {
        OURS: recipe,
        "gradient": lambda v, x, t, key: gradient(score, v, x, t),
        "guided backprop": lambda v, x, t, key: guided_backprop(score, v, x, t),
        f"Grad-CAM ({layer})": lambda v, x, t, key: grad_cam(score, v, x, t, layer=layer),
        f"upsampled activation ({layer})": lambda v, x, t, key: upsampled_activation(
            score, v, x, t, layer=layer
        ),
        "Sobel edges": lambda v, x, t, key: sobel_edges(x),
        "random map": lambda v, x, t, key: random_map(key, x),
    }


def heatmap_scores(
    apply: ApplyFn, methods: Mapping[str, Method], *, seed: int = 0
) -> tuple[Callable[[], ScoreState], Callable[[ScoreState, Batch, Variables], ScoreState]]:
    """Returns the pair (init, update) that scores methods by IoU, for `streaming.fold`.

    Maps explain the predicted class. Batches have "images", "masks", "indices" and optionally "weights" (0 =
    padding).

    Args:
        apply: the network.
        methods: by name; `(variables, images, targets, key) -> (batch, height, width)` heatmaps in [0, 1], or
            (batch, height, width, channels) signed attributions.
        seed: of the methods that need randomness; the key of a batch follows from its first index.
    """

    def init() -> ScoreState:
        zero = Sums(jnp.zeros(101), jnp.zeros(2), jnp.zeros(2))
        readings = ("positive part", "absolute value")
        return ScoreState({m: dict.fromkeys(readings, zero) for m in methods}, jnp.zeros(()))

    def update(state: ScoreState, batch: Batch, variables: Variables) -> ScoreState:
        images, masks = batch["images"], batch["masks"]
        weights = batch.get("weights", jnp.ones(len(images)))
        targets = apply(variables, images).argmax(-1)
        key = jax.random.fold_in(jax.random.key(seed), batch["indices"][0])
        sums = {}
        for name, method in methods.items():
            maps = _readings(method(variables, images, targets, key))
            sums[name] = {
                reading: jax.tree.map(jnp.add, state.sums[name][reading], _sums(heatmaps, masks, weights))
                for reading, heatmaps in maps.items()
            }
        return ScoreState(sums, state.count + weights.sum())

    return init, update


def summarize(state: ScoreState) -> dict[str, Score]:
    """Returns the score of each method, best area first, at its better reading.

    Raises:
        ValueError: no image was scored.
    """
    count = float(state.count)
    if count < 1:
        raise ValueError("state: no image was scored")
    scores = {}
    for name, readings in state.sums.items():
        means = {r: _score(sums, count, r) for r, sums in readings.items()}
        scores[name] = max(means.values(), key=lambda s: s.area)
    return dict(sorted(scores.items(), key=lambda item: -item[1].area))


def _readings(maps: Array) -> dict[str, Array]:
    if maps.ndim == 3:
        heatmaps = normalize_heatmaps(maps)
        return {"positive part": heatmaps, "absolute value": heatmaps}
    return {"positive part": positive_heatmaps(maps), "absolute value": absolute_heatmaps(maps)}


def _sums(heatmaps: Array, masks: Array, weights: Array) -> Sums:
    curve = iou_curve(heatmaps, masks)
    area, best = iou_area(curve), best_iou(curve)
    return Sums(
        (curve * weights[:, None]).sum(0),
        jnp.stack([(area * weights).sum(), (area**2 * weights).sum()]),
        jnp.stack([(best * weights).sum(), (best**2 * weights).sum()]),
    )


def _score(sums: Sums, count: float, reading: str) -> Score:
    area, best = np.asarray(sums.area, np.float64), np.asarray(sums.best, np.float64)

    def mean_and_error(total):
        mean = total[0] / count
        variance = max(total[1] / count - mean**2, 0.0)
        return mean, float(np.sqrt(variance / count))

    return Score(*mean_and_error(area), *mean_and_error(best), np.asarray(sums.curve) / count, reading)
