"""Where an encoder sees what two images have in common, scored against the true mask of the object."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.cue_conflict_measures import in_batches
from vexplain import relevance
from vexplain.attribution import normalize_heatmaps, positive_heatmaps, similarity
from vexplain.catalog import METHODS, attribute
from vexplain.datasets.cue_objects import CUES, CueSource, render_factors
from vexplain.datasets.sources import rounded
from vexplain.evaluation import bootstrap_intervals, iou_area, iou_curve

SAME, OTHER, CLUSTER, NONE = "the same object", "another object", "its cluster", "nothing"
CONTROLS = ("center_gaussian", "sobel_edges", "random_map")
_NUM_SHOWN = 5


class Views(NamedTuple):
    """Test images with their masks, and of each another one of the same object in another pose."""

    images: np.ndarray
    masks: np.ndarray
    others: np.ndarray


def two_views(source: CueSource, count: int) -> Views:
    """The first images of a source, and images of the same shape, texture and color, with all else anew."""
    first = source.factors(np.arange(count))
    poses = source.factors((np.arange(count) + count // 2 + 1) % len(source))
    others = poses._replace(**{cue: getattr(first, cue) for cue in CUES})
    render = jax.jit(functools.partial(jax.lax.map, lambda one: _rendered(one, source)))
    batch = source[np.arange(count)]
    return Views(np.asarray(batch["images"]), np.asarray(batch["masks"]), np.asarray(render(others)))


def nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The number of the nearest center of each point."""
    return ((points[:, None] - centers) ** 2).sum(-1).argmin(1)


def measure_maps(
    methods: tuple[str, ...],
    group_methods: tuple[str, ...],
    asked: Any,
    variables: Any,
    centers: np.ndarray,
    found: Any,
    views: Views,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows with the IoU area of each method and what it explained, and a sheet of maps by image.

    Args:
        methods: of the catalog, for the similarity to another image.
        group_methods: of the catalog, for the cluster of the image; they take its relevant features.
        asked: the network, as an encoder and with a score for each cluster.
        variables: of the encoder.
        centers: of the clusters.
        found: the relevant features of the clusters.
        views: the images.
    """
    embedded = in_batches(asked.embed, variables, views.others)
    vectors = {SAME: embedded, OTHER: np.roll(embedded, 1, axis=0)}  # labels take turns: of another shape
    maps = {
        (name, what): _heatmaps(asked.apply, variables, views.images, name, similarity(vector))
        for what, vector in vectors.items()
        for name in methods
    }
    clusters = nearest(in_batches(asked.embed, variables, views.images), centers)
    has_features = np.flatnonzero(relevance.num_features(found)[clusters] > 0)
    for name in group_methods:
        maps[name, CLUSTER] = np.zeros(views.masks.shape, np.float32)
        if len(has_features):
            shown = attribute(
                name,
                asked.grouped,
                (variables, jnp.asarray(centers)),
                views.images[has_features],
                clusters[has_features],
                relevance=found,
            )
            maps[name, CLUSTER][has_features] = np.asarray(shown)
    for name in CONTROLS:
        key = jax.random.key(0) if "key" in METHODS[name].needs else None
        maps[name, NONE] = np.asarray(
            normalize_heatmaps(METHODS[name].function(None, None, views.images, key=key))
        )
    area = jax.jit(lambda shown, masks: iou_area(iou_curve(shown, masks)))
    areas = {pair: np.asarray(area(jnp.asarray(shown), views.masks)) for pair, shown in maps.items()}
    columns = jnp.stack([jnp.asarray(values) for values in areas.values()], axis=1)
    intervals = np.asarray(jax.jit(bootstrap_intervals)(jax.random.key(0), [columns]))
    rows = [
        {
            "method": METHODS[name].title,
            "explained": what,
            "area": float(values.mean()),
            "interval": interval.tolist(),
        }
        for ((name, what), values), interval in zip(areas.items(), intervals, strict=True)
    ]
    return rows, _sheet(maps, areas, methods, views)


def _heatmaps(apply: Any, variables: Any, images: np.ndarray, name: str, score: Any) -> np.ndarray:
    shown = attribute(name, apply, variables, images, score=score)
    return np.asarray(positive_heatmaps(shown) if shown.ndim == 4 else normalize_heatmaps(shown))


def _sheet(maps: Any, areas: Any, methods: tuple[str, ...], views: Views) -> dict[str, dict[str, np.ndarray]]:
    """The first images, each of another shape, with the map of the best method for each question."""
    best = max(methods, key=lambda name: areas[name, SAME].mean())
    title = METHODS[best].title
    rows = {}
    for n in range(min(_NUM_SHOWN, len(views.images))):
        other = (n - 1) % len(views.images)
        rows[f"image {n + 1}"] = {
            "image": views.images[n],
            "the same object": views.others[n],
            f"{title}: similarity to it": maps[best, SAME][n],
            "another object": views.others[other],
            f"{title}: similarity to that": maps[best, OTHER][n],
            **{f"{METHODS[m].title}: its cluster": maps[m, what][n] for m, what in maps if what == CLUSTER},
            "true mask": views.masks[n],
        }
    return rows


def _rendered(factors: Any, source: CueSource) -> Any:
    return rounded(render_factors(factors, size=source.size, samples=source.samples)[0])
