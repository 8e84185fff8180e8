"""Scores heatmaps of any method against ground truth, in one streaming pass for all methods.

A method is any function `(variables, images, targets, keys) -> attributions`, with one key an image;
`methods_for` makes the usual ones for a network. A signed map is scored twice, by its positive part and by
its absolute value, and its method is credited with whichever is better over the dataset.
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
from vexplain.metrics.localization import NUM_THRESHOLDS
from vexplain.relevance import Relevance
from vexplain.transforms import LayerTable
from vexplain.typing import ApplyFn, Array, Batch, Float, Variables

Method = Callable[..., Any]  # (variables, images, targets, keys) -> (batch, height, width[, channels])
CONTROLS = ("random map", "Sobel edges")
OURS = "relevant features (paper)"


class Sums(NamedTuple):
    """Sums over images of what a map scores."""

    curve: Float[Array, "thresholds"]  # noqa: F821
    area: Float[Array, "2"]  # sum and sum of squares
    best: Float[Array, "2"]


class Score(NamedTuple):
    """Means over images, with standard errors (0 where there is one image). All in [0, 1]."""

    area: float
    area_error: float
    best: float
    best_error: float
    curve: np.ndarray
    reading: str  # "positive part" or "absolute value"; "" where both are the same map


class ScoreState(NamedTuple):
    """By method and reading."""

    sums: dict[str, dict[str, Sums]]
    num_images: Float[Array, ""]


def methods_for(apply: ApplyFn, table: LayerTable, relevance: Relevance, **options: Any) -> dict[str, Method]:
    """Returns the paper's method, its customary rivals, and controls, by name.

    Args:
        apply: the network.
        table: its layers.
        relevance: its relevant features.
        **options: of `explain`, for instance `num_features`.
    """
    score, layer = class_score(apply), cam_layer(table)

    def recipe(variables, images, targets, keys):
        return explain(apply, variables, images, relevance, targets=targets, **options).heatmaps

    return {
        OURS: recipe,
        "gradient": lambda v, x, t, keys: gradient(score, v, x, t),
        "guided backprop": lambda v, x, t, keys: guided_backprop(score, v, x, t),
        f"Grad-CAM ({layer})": lambda v, x, t, keys: grad_cam(score, v, x, t, layer=layer),
        f"upsampled activation ({layer})": lambda v, x, t, keys: upsampled_activation(
            score, v, x, t, layer=layer
        ),
        "Sobel edges": lambda v, x, t, keys: sobel_edges(x),
        "random map": lambda v, x, t, keys: jax.vmap(random_map)(keys, x[:, None])[:, 0],
    }


def heatmap_scores(
    apply: ApplyFn, methods: Mapping[str, Method], *, seed: int = 0
) -> tuple[Callable[[], ScoreState], Callable[[ScoreState, Batch, Variables], ScoreState]]:
    """Returns the pair (init, update) that scores methods by IoU, for `streaming.fold`.

    Maps explain the predicted class. Batches have "images", "masks", "indices" and optionally "weights" (0 =
    padding).

    Args:
        apply: the network.
        methods: by name; `(variables, images, targets, keys) -> (batch, height, width)` heatmaps in [0, 1],
            or (batch, height, width, channels) signed attributions. `keys` has one key an image.
        seed: of the methods that need randomness; the key of an image follows from it and the image's index,
            whatever batch the image is in.
    """

    def init() -> ScoreState:
        zero = Sums(jnp.zeros(NUM_THRESHOLDS), jnp.zeros(2), jnp.zeros(2))
        readings = ("positive part", "absolute value")
        return ScoreState({m: dict.fromkeys(readings, zero) for m in methods}, jnp.zeros(()))

    def update(state: ScoreState, batch: Batch, variables: Variables) -> ScoreState:
        images, masks = jnp.asarray(batch["images"]), jnp.asarray(batch["masks"])
        weights = batch.get("weights", jnp.ones(len(images)))
        targets = apply(variables, images).argmax(-1)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["indices"])
        sums = {}
        for name, method in methods.items():
            maps = _readings(method(variables, images, targets, keys))
            sums[name] = {
                reading: jax.tree.map(jnp.add, state.sums[name][reading], _sums(heatmaps, masks, weights))
                for reading, heatmaps in maps.items()
            }
        return ScoreState(sums, state.num_images + weights.sum())

    return init, update


def summarize(state: ScoreState) -> dict[str, Score]:
    """Returns the score of each method, best area first, at its better reading.

    Raises:
        ValueError: no image was scored.
    """
    count = float(state.num_images)
    if count < 1:
        raise ValueError("state: no image was scored")
    scores = {}
    for name, readings in state.sums.items():
        means = [_score(sums, count, reading) for reading, sums in readings.items()]
        best = max(means, key=lambda s: s.area)
        no_choice = all(np.allclose(s.curve, best.curve, rtol=0, atol=1e-6) for s in means)
        scores[name] = best._replace(reading="") if no_choice else best
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
        mean = float(total[0] / count)
        if count < 2:
            return mean, 0.0
        variance = max(total[1] - count * mean**2, 0.0) / (count - 1)
        return mean, float(np.sqrt(variance / count))

    return Score(*mean_and_error(area), *mean_and_error(best), np.asarray(sums.curve) / count, reading)
