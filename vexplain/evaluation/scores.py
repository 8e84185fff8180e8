"""Scores heatmaps of any method against ground truth, in one streaming pass for all methods.

Every score is kept for every image, so that methods can be compared on the same images. A signed map is
scored twice, by its positive part and by its absolute value, and its method is credited with whichever has
the larger IoU area over the dataset. All readings are shifted and scaled to [0, 1] before they are scored, so
that the range of a map does not count. Maps that are not finite are counted, and `summarize` raises for them.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.attribution import absolute_heatmaps, normalize_heatmaps, positive_heatmaps
from vexplain.evaluation._rank_correlation import part_effect_correlation
from vexplain.evaluation._relevance_mass import relevance_mass
from vexplain.evaluation.localization import NUM_THRESHOLDS, best_iou, iou_area, sorted_iou_curve
from vexplain.evaluation.methods import Method
from vexplain.evaluation.ranking import pointing_game, ranking_scores
from vexplain.evaluation.sorted_pixels import sort_pixels
from vexplain.typing import ApplyFn, Array, Batch, Float, Heatmaps, Int, Variables

SCORES = (
    "IoU area",
    "best IoU",
    "IoU at mask area",
    "relevance mass",
    "relevance rank",
    "pointing game",
    "mask AUC",
    "part-effect correlation",
)
CEILING = "true mask"
READINGS = ("positive part", "absolute value")


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """What the maps of a method score, image by image.

    All scores are in [0, 1], but for the part-effect correlation, which is in [-1, 1] and only there where
    the batches hold effects.

    Attributes:
        values: by name of the score, one for each image in their order, (images,).
        curve: mean intersection over union at the thresholds 0, 0.01, ..., 1.
        reading: "positive part" or "absolute value"; "" where both are the same map.
    """

    values: Mapping[str, np.ndarray]
    curve: np.ndarray
    reading: str

    def mean(self, name: str) -> float:
        """The mean over images of one of `SCORES`."""
        return float(self._of(name).mean())

    def standard_error(self, name: str) -> float:
        """The standard error of that mean; 0 where there is one image."""
        values = self._of(name)
        return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0

    def _of(self, name: str) -> np.ndarray:
        if name not in self.values:
            raise KeyError(f"no score {name!r} here: expected one of {list(self.values)}")
        return self.values[name]


class ScoreState(NamedTuple):
    """One row an image, by method and reading; a row of weight 0 is padding or a broken image."""

    values: dict[str, dict[str, Float[Array, "images scores"]]]
    curves: dict[str, dict[str, Float[Array, "thresholds"]]]  # noqa: F821  # sums over images
    weights: Float[Array, " images"]
    num_rows: Int[Array, ""]  # written so far
    num_scored: Int[Array, ""]  # images that weigh, those for which there was no row included
    num_not_finite: dict[str, Int[Array, ""]]  # images whose map held NaN or infinity, by method


def heatmap_scores(
    apply: ApplyFn, methods: Mapping[str, Method], *, num_images: int, seed: int = 0
) -> tuple[Callable[[], ScoreState], Callable[[ScoreState, Batch, Variables], ScoreState]]:
    """Returns the pair (init, update) that gives every image its `SCORES`, for `streaming.fold_epoch`.

    Batches have "images", "masks", "indices" and optionally "weights" (0 = padding), "targets" (the classes
    to explain; the predicted ones where they are missing), "part_masks" (batch, parts, height, width) and
    "part_effects" (batch, parts) or, with the correlation averaged over several ways to change a part,
    (batch, ways, parts), as `with_part_effects` adds them. The masks themselves are scored as one more
    method, `CEILING`: what a perfect map would reach.

    Args:
        apply: the network.
        methods: by name; `(variables, images, targets, keys) -> (batch, height, width)` heatmaps of any
            range, or (batch, height, width, channels) signed attributions. `keys` has one key an image, and
            may be left alone.
        num_images: of the source, `len(source)`.
        seed: of the methods that need randomness; the key of an image follows from it and the image's index,
            whatever batch the image is in.

    Raises:
        TypeError: a method does not take these four arguments.
        KeyError: (when `update` is traced) a batch without masks or indices.
        ValueError: no image, a method of the name `CEILING`, or (when `update` is traced) a method that
            returns maps of another shape.

    Example:
        >>> brightness = lambda variables, images, targets, keys: images.sum(-1)
        >>> network = lambda variables, images: images.mean((1, 2))
        >>> init, update = heatmap_scores(network, {"brightness": brightness}, num_images=1)
        >>> masks = jnp.zeros((1, 4, 4)).at[0, 1, 2].set(1.0)
        >>> batch = {"images": masks[..., None], "masks": masks, "indices": jnp.arange(1)}
        >>> print(summarize(update(init(), batch, None))["brightness"].mean("best IoU"))
        1.0
    """
    _check_methods(methods, num_images)

    def init() -> ScoreState:
        names = (*methods, CEILING)
        empty, zero = jnp.zeros((num_images, len(SCORES))), jnp.zeros((), jnp.int32)
        return ScoreState(
            {name: dict.fromkeys(READINGS, empty) for name in names},
            {name: dict.fromkeys(READINGS, jnp.zeros(NUM_THRESHOLDS)) for name in names},
            jnp.zeros(num_images),
            zero,
            zero,
            dict.fromkeys(names, zero),
        )

    def update(state: ScoreState, batch: Batch, variables: Variables) -> ScoreState:
        _check_batch(batch)
        return _updated(state, batch, _maps(apply, methods, batch, variables, seed))

    return init, update


def summarize(state: ScoreState) -> dict[str, Score]:
    """Returns the scores of each method at its better reading, the largest mean IoU area first.

    Raises:
        ValueError: no image was scored, more than `num_images` were, or a method gave maps that are not
            finite.
    """
    counts = np.asarray(state.weights) > 0
    num_scored = int(state.num_scored)
    if not num_scored:
        raise ValueError("state: no image was scored")
    if num_scored > counts.sum():
        raise ValueError(
            f"num_images is {len(counts)}: {num_scored} images were scored after all; pass len(source) to "
            "heatmap_scores, and begin each pass with init()"
        )
    _check_finite(state, num_scored)
    scores = {name: _better_reading(state, name, counts) for name in state.values}
    return dict(sorted(scores.items(), key=lambda item: -item[1].mean("IoU area")))


def _better_reading(state: ScoreState, name: str, counts: np.ndarray) -> Score:
    readings = {r: np.asarray(v, np.float64)[counts] for r, v in state.values[name].items()}
    reading = max(readings, key=lambda r: readings[r][:, 0].mean())
    values = readings[reading]
    no_choice = all(np.allclose(v, values, rtol=0, atol=1e-6, equal_nan=True) for v in readings.values())
    known = {s: values[:, n] for n, s in enumerate(SCORES) if not np.isnan(values[:, n]).all()}
    curve = np.asarray(state.curves[name][reading], np.float64) / counts.sum()
    return Score(known, curve, "" if no_choice else reading)


def _maps(
    apply: ApplyFn, methods: Mapping[str, Method], batch: Batch, variables: Variables, seed: int
) -> dict[str, Array]:
    images = jnp.asarray(batch["images"])
    targets = jnp.asarray(batch["targets"]) if "targets" in batch else apply(variables, images).argmax(-1)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["indices"])
    maps = {
        name: _checked_maps(name, method(variables, images, targets, keys), images)
        for name, method in methods.items()
    }
    return maps | {CEILING: jnp.asarray(batch["masks"])}


def _updated(state: ScoreState, batch: Batch, maps: Mapping[str, Array]) -> ScoreState:
    size = len(batch["images"])
    counts = jnp.asarray(batch.get("weights", jnp.ones(size))) > 0
    rows = state.num_rows + jnp.arange(size)  # padding at the end may have none, and is dropped
    found = _scored_readings([_readings(m) for m in maps.values()], batch)
    values, curves, num_not_finite = {}, {}, {}
    for place, (name, raw) in enumerate(maps.items()):
        is_finite = jnp.isfinite(raw).all(tuple(range(1, raw.ndim)))
        num_not_finite[name] = state.num_not_finite[name] + (counts & ~is_finite).sum()
        values[name], curves[name] = {}, {}
        for n, reading in enumerate(READINGS):
            scores, curve = (found_of[place, n] for found_of in found)
            values[name][reading] = state.values[name][reading].at[rows].set(scores, mode="drop")
            added = jnp.where(counts[:, None], curve, 0).sum(0)
            curves[name][reading] = state.curves[name][reading] + added
    weights = state.weights.at[rows].set(counts.astype(state.weights.dtype), mode="drop")
    num_scored = state.num_scored + counts.sum()
    return ScoreState(values, curves, weights, state.num_rows + size, num_scored, num_not_finite)


def _readings(maps: Array) -> tuple[Heatmaps, Heatmaps]:
    if maps.ndim == 3:
        heatmaps = normalize_heatmaps(maps)
        return heatmaps, heatmaps
    return positive_heatmaps(maps), absolute_heatmaps(maps)


def _scored_readings(
    readings: list[tuple[Heatmaps, Heatmaps]], batch: Batch
) -> tuple[Float[Array, "methods 2 batch scores"], Float[Array, "methods 2 batch thresholds"]]:
    """Scores one method after the other, by one compiled body; where both readings are one map, only once."""

    def both(pair):
        scored = _scored(pair[0], batch)
        is_same = (pair[0] == pair[1]).all()
        others = jax.lax.cond(is_same, lambda: scored, lambda: _scored(pair[1], batch))
        return tuple(jnp.stack(parts) for parts in zip(scored, others, strict=True))

    return jax.lax.map(both, jnp.stack([jnp.stack(pair) for pair in readings]))


def _scored(
    heatmaps: Heatmaps, batch: Batch
) -> tuple[Float[Array, "batch scores"], Float[Array, "batch thresholds"]]:
    """Returns `SCORES` and the IoU curve of each image, most of it from one sort."""
    masks = jnp.asarray(batch["masks"])
    pixels = sort_pixels(heatmaps, masks)
    curve, ranking = sorted_iou_curve(pixels), ranking_scores(pixels)
    effects = jnp.full(len(heatmaps), jnp.nan)
    if "part_effects" in batch:
        effects = _part_scores(heatmaps, jnp.asarray(batch["part_masks"]), jnp.asarray(batch["part_effects"]))
    found = {
        "IoU area": iou_area(curve),
        "best IoU": best_iou(curve),
        "IoU at mask area": ranking.iou_at_mask_area,
        "relevance mass": relevance_mass(heatmaps, masks),
        "relevance rank": ranking.relevance_rank,
        "pointing game": pointing_game(heatmaps, masks),
        "mask AUC": ranking.mask_auc,
        "part-effect correlation": effects,
    }
    return jnp.stack([found[name] for name in SCORES], axis=1), curve


def _part_scores(heatmaps: Heatmaps, masks: Array, effects: Array) -> Float[Array, " batch"]:
    if effects.ndim == 2:
        return part_effect_correlation(heatmaps, masks, effects)
    each = [part_effect_correlation(heatmaps, masks, effects[:, n]) for n in range(effects.shape[1])]
    return jnp.stack(each).mean(0)


def _check_methods(methods: Mapping[str, Method], num_images: int) -> None:
    if num_images < 1:
        raise ValueError(f"num_images is {num_images}: expected len(source), 1 or more")
    if CEILING in methods:
        raise ValueError(f"methods has {CEILING!r}, which is scored anyhow: give yours another name")
    for name, method in methods.items():
        try:
            signature = inspect.signature(method)
        except ValueError:  # some built-in callables do not tell
            continue
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


def _check_finite(state: ScoreState, count: int) -> None:
    spoiled = {name: int(n) for name, n in state.num_not_finite.items() if n > 0}
    if spoiled:
        found = ", ".join(f"{name!r} for {n}" for name, n in spoiled.items())
        raise ValueError(
            f"state: NaN or infinite heatmaps of {found} of {count} images; mend the method (a division by "
            "zero?), or leave it out"
        )
