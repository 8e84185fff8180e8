"""What decides the rank of the paper's recipe: mu, the number of heatmaps K, the layers that are searched."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from vexplain.evaluation import Task
from vexplain.explanation import explain
from vexplain.metrics import best_iou, iou_area, iou_curve
from vexplain.relevance import (
    Relevance,
    candidate_layers,
    find_relevance,
    gram_statistics,
    layout_of,
    layout_size,
    num_features,
    response_fn,
)
from vexplain.streaming import fold_epoch
from vexplain.transforms import layers

MUS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
COUNTS = (1, 3, 5, 10)
LAYERS = ("all layers", "convolutions")
COMBINATIONS = ("maximum", "mean")
_BATCH = 20


def study_recipe(task: Task) -> list[dict[str, Any]]:
    """Returns IoU area and best IoU of the recipe on the test images for all settings.

    One pass over the training images serves all mu; the K best maps of an image serve all smaller K.

    Args:
        task: the network and its images.
    """
    rows, maps_fn = [], _maps_fn(task)
    table = layers(task.apply, task.variables, task.test[[0]]["images"])
    for which in LAYERS:
        chosen = candidate_layers(table, convolutional_only=which == "convolutions")
        layout = layout_of(chosen)
        responses, class_names = response_fn(task.apply, chosen), task.train.class_names
        init, update, _ = gram_statistics(responses, layout_size(layout), len(class_names))
        statistics = fold_epoch(update, init(), task.train, constants=task.variables)
        for mu in tqdm(MUS, desc=f"Study, {which}"):
            found = find_relevance(
                statistics, layout, mu=mu, class_names=class_names, on_empty_class="leave_out"
            )
            shared = {"layers": which, "mu": mu, "features_per_class": float(num_features(found).mean())}
            rows += [shared | scored for scored in _scored(task, functools.partial(maps_fn, found))]
    return rows


def _maps_fn(task: Task) -> Callable[[Relevance, Any], Any]:
    """(relevance, images) -> the K maps of each image, K the largest of `COUNTS`.

    The relevance is traced, so that a class without relevant features has maps of zeros.
    """

    @jax.jit
    def maps_fn(found, images):
        options = {"num_features": max(COUNTS), "on_uncovered": "gradient"}
        return explain(task.apply, task.variables, images, found, **options).maps

    return maps_fn


def _scored(task: Task, maps_fn: Callable[[Any], Any]) -> list[dict[str, Any]]:
    values: dict[tuple[int, str], list[Any]] = {}
    for start in range(0, len(task.test), _BATCH):
        batch = task.test[np.arange(start, min(start + _BATCH, len(task.test)))]
        maps = maps_fn(batch["images"])
        for count in COUNTS:
            for how, combined in zip(COMBINATIONS, _combined(maps, count), strict=True):
                values.setdefault((count, how), []).append(_area_and_best(combined, batch["masks"]))
    return [
        {"K": count, "combination": how}
        | dict(zip(("area", "best"), np.concatenate(v, 1).mean(1).tolist(), strict=True))
        for (count, how), v in values.items()
    ]


def _combined(maps: Any, count: int) -> tuple[Any, Any]:
    return maps[:, :count].max(1), maps[:, :count].mean(1)


@jax.jit
def _area_and_best(heatmaps, masks):
    curve = iou_curve(heatmaps, jnp.asarray(masks))
    return jnp.stack([iou_area(curve), best_iou(curve)])
