"""Scores heatmaps of any method against ground truth, in one streaming pass for all methods.

Every score is kept for every image, so that methods can be compared on the same images. A signed map is
scored by two sign conventions, its positive part and its absolute value, and the one with the larger IoU
area over the dataset counts. Maps are shifted and scaled to [0, 1] before they are scored, so that their
range does not count. Maps that are not finite are counted, and `summarize` raises for them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain import attribution
from vexplain._text import html_table
from vexplain.attribution import logit
from vexplain.catalog import Methods, as_methods
from vexplain.evaluation.concentration import relevance_mass
from vexplain.evaluation.explained_network import (
    SIGNS,
    ExplainedNetwork,
    Sample,
    as_heatmaps,
    attributions_of,
)
from vexplain.evaluation.localization import (
    NUM_THRESHOLDS,
    best_iou,
    iou_area,
    pointing_game,
    ranking_scores,
    sort_pixels,
    sorted_iou_curve,
)
from vexplain.evaluation.part_truth import part_effect_correlation
from vexplain.typing import ApplyFn, Array, Batch, Float, Heatmaps, Int

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


@dataclasses.dataclass(frozen=True, eq=False)
class Score:
    """What the maps of a method score, image by image.

    All scores are in [0, 1], but for the part-effect correlation, which is in [-1, 1] and only there where
    the batches hold effects.

    Attributes:
        values: by name of the score, one for each image in their order, (images,).
        curve: mean intersection over union at the thresholds 0, 0.01, ..., 1.
        sign: the convention, "positive part" or "absolute value"; "" where both are the same map.
    """

    values: Mapping[str, np.ndarray]
    curve: np.ndarray
    sign: str

    def _repr_html_(self) -> str:
        rows = [(name, f"{self.mean(name):.3f}", f"{self.standard_error(name):.3f}") for name in self.values]
        count = max((len(values) for values in self.values.values()), default=0)
        caption = f"{count} images" + (f", {self.sign} of the maps" if self.sign else "")
        return html_table(("score", "mean", "standard error"), rows, caption=caption)

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
    """One entry an image, by method and sign convention; one of weight 0 is padding or a broken image."""

    values: dict[str, dict[str, Float[Array, "images scores"]]]
    curves: dict[str, dict[str, Float[Array, "thresholds"]]]  # noqa: F821  # sums over images
    weights: Float[Array, " images"]
    num_rows: Int[Array, ""]  # written so far
    num_scored: Int[Array, ""]  # images that weigh, those beyond num_images included
    num_not_finite: dict[str, Int[Array, ""]]  # images whose map held NaN or infinity, by method


def heatmap_scores(
    apply: ApplyFn,
    methods: Methods | None = None,
    *,
    num_images: int,
    score: attribution.Score = logit,
    seed: int = 0,
) -> tuple[Callable[[], ScoreState], Callable[[ScoreState, Batch, ExplainedNetwork], ScoreState]]:
    """Returns `(init, update)` that gives every image its `SCORES`, for `streaming.fold_epoch`.

    Batches have "images", "masks", "indices" and optionally "weights" (0 = padding), "targets" (the predicted
    classes where they are missing), "part_masks" (batch, parts, height, width) and "part_effects" (batch,
    parts), as `with_part_effects` adds them; with effects (batch, ways, parts) the correlation is averaged
    over the ways to change a part. The masks themselves are scored as one more method, `CEILING`: what a
    perfect map would reach.

    Args:
        methods: as `as_methods` takes them; all of the catalog if left out.
        num_images: of the source, `len(source)`.
        seed: of methods that draw; the key of an image follows from it and the image's index.

    Returns:
        `init()` and `update(state, batch, network)`; the network is an `ExplainedNetwork`, the constants of
        the pass.

    Example:
        >>> def brightness(apply, variables, images, targets=None, *, score=logit, key=None):
        ...     return images.sum(-1)
        >>> network = lambda variables, images: jnp.zeros((len(images), 2))
        >>> init, update = heatmap_scores(network, brightness, num_images=1)
        >>> masks = jnp.zeros((1, 4, 4)).at[0, 1, 2].set(1.0)
        >>> batch = {"images": masks[..., None], "masks": masks, "indices": jnp.arange(1)}
        >>> print(summarize(update(init(), batch, ExplainedNetwork(None)))["brightness"].mean("best IoU"))
        1.0
    """
    functions = as_methods(methods)
    if num_images < 1:
        raise ValueError(f"num_images is {num_images}: expected len(source), 1 or more")
    if CEILING in functions:
        raise ValueError(f"methods has {CEILING!r}, which is scored anyhow: give yours another name")

    def init() -> ScoreState:
        names = (*functions, CEILING)
        empty, zero = jnp.zeros((num_images, len(SCORES))), jnp.zeros((), jnp.int32)
        return ScoreState(
            {name: dict.fromkeys(SIGNS, empty) for name in names},
            {name: dict.fromkeys(SIGNS, jnp.zeros(NUM_THRESHOLDS)) for name in names},
            jnp.zeros(num_images),
            zero,
            zero,
            dict.fromkeys(names, zero),
        )

    def update(state: ScoreState, batch: Batch, network: ExplainedNetwork) -> ScoreState:
        _check_batch(batch)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), batch["indices"])
        sample = Sample(jnp.asarray(batch["images"]), batch.get("targets"), keys)
        maps = attributions_of(apply, functions, network, sample, score)
        return _updated(state, batch, maps | {CEILING: jnp.asarray(batch["masks"])})

    return init, update


def summarize(state: ScoreState) -> dict[str, Score]:
    """Returns the scores of each method at its better sign convention, the largest mean IoU area first.

    Raises:
        ValueError: no image was scored, more than `num_images` were, or maps that are not finite.
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
    raise_for_not_finite(state.num_not_finite, num_scored)
    scores = {name: _of_better_sign(state, name, counts) for name in state.values}
    return dict(sorted(scores.items(), key=lambda item: -item[1].mean("IoU area")))


def _of_better_sign(state: ScoreState, name: str, counts: np.ndarray) -> Score:
    by_sign = {sign: np.asarray(v, np.float64)[counts] for sign, v in state.values[name].items()}
    best = max(by_sign, key=lambda sign: by_sign[sign][:, 0].mean())
    values = by_sign[best]
    no_choice = all(np.allclose(v, values, rtol=0, atol=1e-6, equal_nan=True) for v in by_sign.values())
    known = {s: values[:, n] for n, s in enumerate(SCORES) if not np.isnan(values[:, n]).all()}
    curve = np.asarray(state.curves[name][best], np.float64) / counts.sum()
    return Score(known, curve, "" if no_choice else best)


def _updated(state: ScoreState, batch: Batch, maps: Mapping[str, Array]) -> ScoreState:
    size = len(batch["images"])
    counts = jnp.asarray(batch.get("weights", jnp.ones(size))) > 0
    rows = state.num_rows + jnp.arange(size)  # padding at the end may have none, and is dropped
    by_sign = [jnp.stack([as_heatmaps(m, sign) for sign in SIGNS]) for m in maps.values()]
    found = _scored_by_sign(jnp.stack(by_sign), batch)
    values, curves, num_not_finite = {}, {}, {}
    for place, (name, raw) in enumerate(maps.items()):
        is_finite = jnp.isfinite(raw).all(tuple(range(1, raw.ndim)))
        num_not_finite[name] = state.num_not_finite[name] + (counts & ~is_finite).sum()
        values[name], curves[name] = {}, {}
        for n, sign in enumerate(SIGNS):
            scores, curve = (found_of[place, n] for found_of in found)
            values[name][sign] = state.values[name][sign].at[rows].set(scores, mode="drop")
            added = jnp.where(counts[:, None], curve, 0).sum(0)
            curves[name][sign] = state.curves[name][sign] + added
    weights = state.weights.at[rows].set(counts.astype(state.weights.dtype), mode="drop")
    num_scored = state.num_scored + counts.sum()
    return ScoreState(values, curves, weights, state.num_rows + size, num_scored, num_not_finite)


def _scored_by_sign(
    maps: Float[Array, "methods 2 batch height width"], batch: Batch
) -> tuple[Float[Array, "methods 2 batch scores"], Float[Array, "methods 2 batch thresholds"]]:
    """Scores one method after the other, by one compiled body; where both signs are one map, only once."""

    def both(pair):
        scored = _scored(pair[0], batch)
        is_same = (pair[0] == pair[1]).all()
        others = jax.lax.cond(is_same, lambda: scored, lambda: _scored(pair[1], batch))
        return tuple(jnp.stack(parts) for parts in zip(scored, others, strict=True))

    return jax.lax.map(both, maps)


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


def _check_batch(batch: Batch) -> None:
    for name in ("images", "masks", "indices"):
        if name not in batch:
            raise KeyError(
                f"batch: scoring heatmaps needs {name!r}, got {sorted(batch)}; an ArraySource gives them: "
                "ArraySource(images, labels, masks, class_names=...)"
            )


def raise_for_not_finite(num_not_finite: Mapping[str, Any], count: int) -> None:
    """Raises ValueError where maps of a method were not finite.

    Args:
        num_not_finite: of how many images they were not, by method.
        count: how many images there are.
    """
    spoiled = {name: int(n) for name, n in num_not_finite.items() if n > 0}
    if spoiled:
        found = ", ".join(f"{name!r} for {n}" for name, n in spoiled.items())
        raise ValueError(
            f"state: NaN or infinite heatmaps of {found} of {count} images; mend the method (a division by "
            "zero?), or leave it out"
        )
