"""What decides the rank of the paper's recipe: mu, the number of heatmaps K, the layers, the response."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from vexplain.evaluation import Task, best_iou, iou_area, iou_curve
from vexplain.relevance import (
    Explanation,
    Measure,
    Relevance,
    candidate_layers,
    combined_maps,
    explain,
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
SEARCHED: tuple[tuple[str, Measure], ...] = (  # layers, measure of a channel's response
    ("all layers", "energy"),  # as in the paper
    ("convolutions", "energy"),
    ("all layers", "norm"),
    ("all layers", "magnitude"),
    ("all layers", "maximum"),
)
COMBINATIONS = ("maximum", "mean")
_BATCH = 20


def study_recipe(task: Task) -> list[dict[str, Any]]:
    """Returns IoU area and best IoU of the recipe on the test images for all settings.

    One pass over the training images serves all mu; the K best maps of an image serve all smaller K.

    Args:
        task: the network and its images.
    """
    rows, explain_fn = [], _explain_fn(task)
    table = layers(task.apply, task.variables, task.test[[0]]["images"])
    for which, measure in SEARCHED:
        chosen = candidate_layers(table, convolutional_only=which == "convolutions")
        layout = layout_of(chosen)
        responses, class_names = response_fn(task.apply, chosen, measure=measure), task.train.class_names
        init, update, finish = gram_statistics(responses, layout_size(layout), len(class_names))
        statistics = finish(fold_epoch(update, init(), task.train, constants=task.variables))
        options = {"class_names": class_names, "on_empty_class": "leave_out", "measure": measure}
        for mu in tqdm(MUS, desc=f"Study, {which}, {measure}"):
            found = find_relevance(statistics, layout, mu=mu, **options)
            shared = {"layers": which, "measure": measure, "mu": mu}
            shared["features_per_class"] = float(num_features(found).mean())
            rows += [shared | scored for scored in _scored(task, functools.partial(explain_fn, found))]
    return rows


def _explain_fn(task: Task) -> Callable[[Relevance, Any], Explanation]:
    """(relevance, images) -> the K maps of each image with their features, K the largest of `COUNTS`.

    The relevance is traced, so that a class without relevant features has maps of zeros.
    """

    @jax.jit
    def explain_fn(found, images):
        options = {"num_features": max(COUNTS), "on_uncovered": "gradient"}
        return explain(task.apply, task.variables, images, relevance=found, **options)

    return explain_fn


def _scored(task: Task, explain_fn: Callable[[Any], Explanation]) -> list[dict[str, Any]]:
    values: dict[tuple[int, str], list[Any]] = {}
    for start in range(0, len(task.test), _BATCH):
        batch = task.test[np.arange(start, min(start + _BATCH, len(task.test)))]
        found = explain_fn(batch["images"])
        for count, how in itertools.product(COUNTS, COMBINATIONS):
            maps, features = jax.tree.map(lambda leaf, n=count: leaf[:, :n], (found.maps, found.features))
            scored = _area_and_best(combined_maps(maps, features, how), batch["masks"])
            values.setdefault((count, how), []).append(scored)
    return [
        {"K": count, "combination": how}
        | dict(zip(("area", "best"), np.concatenate(v, 1).mean(1).tolist(), strict=True))
        for (count, how), v in values.items()
    ]


@jax.jit
def _area_and_best(heatmaps, masks):
    curve = iou_curve(heatmaps, jnp.asarray(masks))
    return jnp.stack([iou_area(curve), best_iou(curve)])
