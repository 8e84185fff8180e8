"""Scores heatmaps of any method against ground truth, in one streaming pass for all methods.

A method is any function `(variables, images, targets, keys) -> attributions`, with one key an image;
`methods_for` makes the usual ones for a network, and one's own stands beside them in the same dict. A signed
map is scored twice, by its positive part and by its absolute value, and its method is credited with
whichever is better over the dataset. Maps that are not finite are counted, and `summarize` raises for them.
"""

import difflib
import inspect
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
from vexplain.explanation import OPTIONS, check_options, explain
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
    num_not_finite: dict[str, Float[Array, ""]]  # images whose map held NaN or infinity, by method


def methods_for(apply: ApplyFn, table: LayerTable, relevance: Relevance, **options: Any) -> dict[str, Method]:
    """Returns the paper's method, its customary rivals, and controls, by name.

    Args:
        apply: the network.
        table: its layers.
        relevance: its relevant features.
        **options: of `explain`: `num_features`, `rules`, `on_uncovered`, `seed`, `combination`.
            `on_uncovered` holds for guided backpropagation too, which is the gradient where there is no ReLU.

    Raises:
        TypeError: an option that `explain` does not have.
        ValueError: an option of another value than `explain` takes, or a network without convolutions.
    """
    _check_names(options)
    check_options(**options)
    score, layer = class_score(apply), cam_layer(table)
    rules_options = {"on_uncovered": options.get("on_uncovered", "raise"), "on_unmatched": "ignore"}

    def recipe(variables, images, targets, keys):
        return explain(apply, variables, images, relevance, targets=targets, **options).heatmaps

    return {
        OURS: recipe,
        "gradient": lambda v, x, t, keys: gradient(score, v, x, t),
        "guided backprop": lambda v, x, t, keys: guided_backprop(score, v, x, t, **rules_options),
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

    Maps explain the predicted class. Each is shifted and scaled to [0, 1] before it is scored, so that its
    range does not count. Batches have "images", "masks", "indices" and optionally "weights" (0 = padding).

    Args:
        apply: the network.
        methods: by name; `(variables, images, targets, keys) -> (batch, height, width)` heatmaps of any
            range, or (batch, height, width, channels) signed attributions. `keys` has one key an image, and
            may be left alone.
        seed: of the methods that need randomness; the key of an image follows from it and the image's index,
            whatever batch the image is in.

    Raises:
        TypeError: a method does not take these four arguments.
        KeyError: (when `update` is traced) a batch without masks.
        ValueError: (when `update` is traced) a method returns maps of another shape.

    Example:
        >>> brightness = lambda variables, images, targets, keys: images.sum(-1)
        >>> init, update = heatmap_scores(lambda v, x: x.mean((1, 2)), {"brightness": brightness})
        >>> masks = jnp.zeros((1, 4, 4)).at[0, 1, 2].set(1.0)
        >>> batch = {"images": masks[..., None], "masks": masks, "indices": jnp.arange(1)}
        >>> print(summarize(update(init(), batch, None))["brightness"].best)
        1.0
    """
    for name, method in methods.items():
        _check_arguments(name, method)

    def init() -> ScoreState:
        zero = Sums(jnp.zeros(NUM_THRESHOLDS), jnp.zeros(2), jnp.zeros(2))
        readings = ("positive part", "absolute value")
        sums: dict[str, dict[str, Sums]] = {m: dict.fromkeys(readings, zero) for m in methods}
        return ScoreState(sums, jnp.zeros(()), dict.fromkeys(methods, jnp.zeros(())))

    def update(state: ScoreState, batch: Batch, variables: Variables) -> ScoreState:
        _check_batch(batch)
        images, masks = jnp.asarray(batch["images"]), jnp.asarray(batch["masks"])
        weights = jnp.asarray(batch.get("weights", jnp.ones(len(images))))
        targets = apply(variables, images).argmax(-1)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["indices"])
        sums, num_not_finite = {}, {}
        for name, method in methods.items():
            maps = _checked_maps(name, method(variables, images, targets, keys), images)
            is_finite = jnp.isfinite(maps).all(tuple(range(1, maps.ndim)))
            num_not_finite[name] = state.num_not_finite[name] + ((weights > 0) & ~is_finite).sum()
            sums[name] = {
                reading: jax.tree.map(jnp.add, state.sums[name][reading], _sums(heatmaps, masks, weights))
                for reading, heatmaps in _readings(maps).items()
            }
        return ScoreState(sums, state.num_images + weights.sum(), num_not_finite)

    return init, update


def summarize(state: ScoreState) -> dict[str, Score]:
    """Returns the score of each method, best area first, at its better reading.

    Raises:
        ValueError: no image was scored, or a method gave maps that are not finite.
    """
    count = float(state.num_images)
    if count < 1:
        raise ValueError("state: no image was scored")
    _check_finite(state, count)
    scores = {}
    for name, readings in state.sums.items():
        means = [_score(sums, count, reading) for reading, sums in readings.items()]
        best = max(means, key=lambda s: s.area)
        no_choice = all(np.allclose(s.curve, best.curve, rtol=0, atol=1e-6) for s in means)
        scores[name] = best._replace(reading="") if no_choice else best
    return dict(sorted(scores.items(), key=lambda item: -item[1].area))


def _check_names(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            near = difflib.get_close_matches(name, OPTIONS, 1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"options: explain has no {name!r}: expected some of {OPTIONS}{meant}")


def _check_arguments(name: str, method: Method) -> None:
    try:
        signature = inspect.signature(method)
    except ValueError:  # some built-in callables do not tell
        return
    try:
        signature.bind(*4 * (None,))
    except TypeError as error:
        raise TypeError(
            f"methods[{name!r}] takes {signature}: expected (variables, images, targets, keys); a method "
            "that draws nothing leaves `keys` alone"
        ) from error


def _check_batch(batch: Batch) -> None:
    for name in ("images", "masks", "indices"):
        if name not in batch:
            raise KeyError(
                f"batch: scoring heatmaps needs {name!r}, got {sorted(batch)}; an ArraySource gives them: "
                "ArraySource(images, labels, masks, class_names=...)"
            )


def _checked_maps(name: str, maps: Any, images: Array) -> Array:
    shape = getattr(maps, "shape", None)
    given = type(maps).__name__ if shape is None else f"shape {shape}"
    if shape is None or len(shape) not in (3, 4) or shape[:3] != images.shape[:3]:
        batch, height, width, _ = images.shape
        raise ValueError(
            f"methods[{name!r}] returned {given}: expected heatmaps ({batch}, {height}, {width}) or signed "
            f"attributions ({batch}, {height}, {width}, channels), of the size of the images"
        )
    return jnp.asarray(maps)


def _check_finite(state: ScoreState, count: float) -> None:
    spoiled = {name: int(n) for name, n in state.num_not_finite.items() if n > 0}
    if spoiled:
        found = ", ".join(f"{name!r} for {n}" for name, n in spoiled.items())
        raise ValueError(
            f"state: NaN or infinite heatmaps of {found} of {count:.0f} images; mend the method (a "
            "division by zero?), or leave it out"
        )


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
