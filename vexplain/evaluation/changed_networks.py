"""The maps of a changed network beside those of the trained one: other weights, other labels, another class.

Two maps are compared only where that of the trained network varies: a constant map orders nothing, so that
there is nothing that could survive. A map that became constant counts 0: it shares nothing with the old one.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.evaluation.explained_network import ExplainedNetwork, HeatmapsFn, Sample
from vexplain.evaluation.localization import iou_area, iou_curve
from vexplain.evaluation.randomization import randomized_variables
from vexplain.evaluation.similarity import feature_jaccard, heatmap_ssim, rank_correlation
from vexplain.relevance import Relevance
from vexplain.typing import Array, Float, Heatmaps, Key, Labels, Masks, Variables

_LOG = logging.getLogger(__name__)


class MapSimilarity(NamedTuple):
    """How alike two maps of each image are, (batch,) each; NaN where the first is constant.

    Over several networks these are means. `chance_ssim` is the SSIM with the second map moved by half its
    height and width (*ours*): sparse maps have a high SSIM wherever their few points are, for their
    backgrounds agree.
    """

    rank_correlation: np.ndarray  # Spearman over all pixels, in [-1, 1]
    ssim: np.ndarray  # in [-1, 1]
    chance_ssim: np.ndarray
    is_gone: np.ndarray  # whether the second is constant though the first is not: 1, else 0

    @property
    def num_compared(self) -> int:
        return int(np.isfinite(self.ssim).sum())

    @property
    def means(self) -> tuple[float, float, float]:
        """Spearman, SSIM and SSIM by chance, over the images that are compared; NaN if none is."""
        compared = np.isfinite(self.ssim)
        if not compared.any():
            return (np.nan, np.nan, np.nan)
        rho, ssim, chance, _ = (float(values[compared].mean()) for values in self)
        return rho, ssim, chance

    @property
    def share_gone(self) -> float:
        """Of the images that are compared; NaN if none is."""
        return float(np.nanmean(self.is_gone)) if self.num_compared else np.nan

    @property
    def ssim_above_chance(self) -> float:
        """(SSIM - chance) / (1 - chance) of the means: 1 for equal maps, near 0 if they share no place."""
        _, ssim, chance = self.means
        return (ssim - chance) / max(1 - chance, 1e-6)


class Reference(NamedTuple):
    """The trained network with its maps, to which others are compared."""

    network: ExplainedNetwork
    sample: Sample
    masks: Masks
    heatmaps_fn: HeatmapsFn
    heatmaps: dict[str, Heatmaps]


class Comparison(NamedTuple):
    """What became of the explanations in another network; by method, arrays of the host."""

    similarities: dict[str, MapSimilarity]
    areas: dict[str, np.ndarray]  # IoU area with the masks, (batch,)
    jaccard: np.ndarray  # of the relevant features, (classes,)


def with_other_network(
    reference: Reference, other: ExplainedNetwork, *, targets: Labels | None = None
) -> Comparison:
    """Returns how the maps of another network differ from those of the trained one, for all methods.

    Args:
        reference: the trained network.
        other: variables of the same shapes, with their own relevant features.
        targets: the classes explained by the other; those of the reference when left out.
    """
    ours, theirs = reference.network.relevance, other.relevance
    if (ours.layout, ours.class_names, ours.measure) != (theirs.layout, theirs.class_names, theirs.measure):
        raise ValueError(
            f"relevance of the other network has layers {theirs.layers}, classes {theirs.class_names} and "
            f"measure {theirs.measure!r}: expected those of the trained one, {ours.layers}, "
            f"{ours.class_names} and {ours.measure!r}; learn it with the same layers, source and measure"
        )
    sample = reference.sample if targets is None else reference.sample._replace(targets=targets)
    heatmaps = reference.heatmaps_fn(other, sample)
    similarities = {
        name: MapSimilarity(*jax.device_get(_similarity(reference.heatmaps[name], maps)))
        for name, maps in heatmaps.items()
    }
    return Comparison(similarities, iou_areas(heatmaps, reference.masks), selected_jaccard(ours, theirs))


def with_control(reference: Reference, name: str) -> dict[str, MapSimilarity]:
    """Returns how alike the map of each method is to that of one of them, a control for instance."""
    return {
        method: MapSimilarity(*jax.device_get(_similarity(maps, reference.heatmaps[name])))
        for method, maps in reference.heatmaps.items()
    }


def iou_areas(heatmaps: dict[str, Heatmaps], masks: Masks) -> dict[str, np.ndarray]:
    """Returns the IoU area of each image, by method."""
    return {name: np.asarray(_area(maps, masks)) for name, maps in heatmaps.items()}


def selected_jaccard(first: Relevance, second: Relevance) -> np.ndarray:
    """Returns the Jaccard index of the relevant features of each class, (classes,).

    NaN where a class has none in one of the two networks: what was not selected is not shared.

    Example:
        >>> def relevance(*columns):
        ...     return Relevance(np.array(columns).T, None, None, 1.0, (("x", 3),), ("a", "b"))
        >>> print(selected_jaccard(relevance([1, 2, 0], [1, 0, 0]), relevance([0, 1, 0], [0, 0, 0])))
        [0.5 nan]
    """
    selected = [np.asarray(relevance.weights).T != 0 for relevance in (first, second)]
    index = np.array(feature_jaccard(*selected))
    index[~(selected[0].any(1) & selected[1].any(1))] = np.nan
    return index


def shuffled_sets(groups: Sequence[str], mode: str) -> dict[str, tuple[str, ...]]:
    """Returns by stage which groups are shuffled in it.

    Args:
        groups: in the order of the stages, from `parameter_groups_from_output`.
        mode: "cascading" or "independent".

    Example:
        >>> shuffled_sets(("head", "stem"), "cascading")
        {'head': ('head',), 'stem': ('head', 'stem')}
    """
    return {g: tuple(groups[: n + 1]) if mode == "cascading" else (g,) for n, g in enumerate(groups)}


def with_shuffled(
    reference: Reference,
    key: Key,
    sets: Sequence[tuple[str, ...]],
    *,
    relearn: Callable[[Variables], Relevance],
    targets_of: Callable[[Variables], Labels],
    draw: Literal["permutation", "normal"],
) -> dict[tuple[str, ...], Comparison]:
    """Returns the comparison for each set of groups; one that occurs twice is shuffled once.

    Args:
        reference: the trained network.
        sets: names of groups that are shuffled together.
        relearn: variables -> relevance of the changed network.
        targets_of: variables -> (batch,), the classes that the changed network is asked about.
        draw: see `randomized_variables`.
    """
    found = {}
    for groups in dict.fromkeys(sets):
        _LOG.info("shuffled: %s", ", ".join(groups))
        variables = randomized_variables(key, reference.network.variables, groups=groups, draw=draw)
        changed = ExplainedNetwork(variables, relearn(variables))
        found[groups] = with_other_network(reference, changed, targets=targets_of(variables))
    return found


@jax.jit
def _similarity(first: Heatmaps, second: Heatmaps) -> tuple[Float[Array, " batch"], ...]:
    """What `MapSimilarity` holds; NaN where the first map is constant."""
    first_varies, second_varies = (jnp.ptp(maps, axis=(1, 2)) > 0 for maps in (first, second))
    moved = jnp.roll(second, (second.shape[1] // 2, second.shape[2] // 2), axis=(1, 2))
    found = (rank_correlation(first, second), heatmap_ssim(first, second), heatmap_ssim(first, moved))
    measures = (*(jnp.where(second_varies, values, 0) for values in found), 1.0 - second_varies)
    return tuple(jnp.where(first_varies, values, jnp.nan) for values in measures)


@jax.jit
def _area(heatmaps: Heatmaps, masks: Masks) -> Float[Array, " batch"]:
    return iou_area(iou_curve(heatmaps, masks))
