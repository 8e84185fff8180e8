"""Whether the pixels of the true region rank above the others, whatever values the map gives them.

A threshold sweep rewards a map for its scale as well as its order. These scores see the order alone: they
compare the true region with as many of the highest pixels, or with one, or with all in turn.

Equal values have no order, and a map with many zeros has many. All scores here give the expected value under
random order of equal pixels, so that the order in memory does not decide: a pixel at the threshold is covered
in part, each by the same share, and a map that is the same everywhere scores what chance would.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.evaluation.sorted_pixels import SortedPixels, sort_pixels
from vexplain.typing import Array, Float, Int, Masks

_Maps = Float[Array, "batch height width"]  # of any sign: only their order counts


class RankingScores(NamedTuple):
    """What the order of the pixels scores; each (batch,) in [0, 1]."""

    iou_at_mask_area: Float[Array, " batch"]
    relevance_rank: Float[Array, " batch"]
    mask_auc: Float[Array, " batch"]


def ranking_scores(pixels: SortedPixels) -> RankingScores:
    """Returns the scores of the functions of the same names below, all from one sort.

    Args:
        pixels: from `sort_pixels`.

    Example:
        >>> pixels = sort_pixels(jnp.array([[[0.9, 0.3, 0.3, 0.2]]]), jnp.array([[[1.0, 1.0, 0.0, 0.0]]]))
        >>> print(*ranking_scores(pixels))
        [0.6] [0.75] [0.875]
    """
    first, last = _places_of_equals(pixels.values)
    area = pixels.is_inside.sum(1)
    inside = _inside_highest(pixels, area, first, last)
    iou = inside / jnp.maximum(2 * area - inside, 1)
    return RankingScores(iou, inside / jnp.maximum(area, 1), _auc(pixels, first, last))


def iou_at_mask_area(heatmaps: _Maps, masks: Masks) -> Float[Array, " batch"]:
    """Returns the intersection over union with the mask, at the threshold that covers the area of the mask.

    The region is the |M| highest pixels, with M = {mask >= 0.5}; IoU = i / (2 |M| - i), where i of them are
    inside. The threshold needs no choice, and a map that is too wide and one that is too narrow are compared
    at the same area (*ours*). Pixels equal to the threshold are covered by the share that completes the area,
    so that a constant map has i = |M|² / (number of pixels).

    Args:
        heatmaps: (batch, height, width), of any sign.
        masks: (batch, height, width), coverage of the true region in [0, 1].

    Returns:
        (batch,) in [0, 1]; 0 for an empty mask.

    Example:
        >>> masks = jnp.array([[[1.0, 1.0, 0.0, 0.0]]])
        >>> print(iou_at_mask_area(jnp.array([[[0.9, 0.1, 0.8, 0.2]]]), masks).round(3))
        [0.333]
        >>> print(iou_at_mask_area(jnp.array([[[0.5, 0.5, 0.5, 0.5]]]), masks).round(3))
        [0.333]
    """
    return ranking_scores(sort_pixels(heatmaps, masks)).iou_at_mask_area


def relevance_rank(heatmaps: _Maps, masks: Masks) -> Float[Array, " batch"]:
    """Returns the share of the |M| highest pixels that are inside the mask M: relevance rank accuracy.

    Args:
        heatmaps: (batch, height, width), of any sign; pass absolute values where the sign should not count.
        masks: (batch, height, width), coverage of the true region in [0, 1].

    Returns:
        (batch,) in [0, 1]; 0 for an empty mask.

    References:
        Arras, Osman, Samek, CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural network
        explanations, 2022.

    Example:
        >>> print(relevance_rank(jnp.array([[[0.9, 0.1, 0.8, 0.2]]]), jnp.array([[[1.0, 1.0, 0.0, 0.0]]])))
        [0.5]
    """
    return ranking_scores(sort_pixels(heatmaps, masks)).relevance_rank


def top_k_precision(heatmaps: _Maps, masks: Masks, *, k: int) -> Float[Array, " batch"]:
    """Returns the share of the k highest pixels that are inside the mask: top-k intersection.

    Args:
        heatmaps: (batch, height, width), of any sign.
        masks: (batch, height, width), coverage of the true region in [0, 1].
        k: how many pixels, from 1 to all.

    Raises:
        ValueError: `k` is less than 1 or more than the pixels of a map.

    References:
        Theiner, Müller-Budack, Ewerth, Interpretable Semantic Photo Geolocation, WACV 2022.

    Example:
        >>> heatmaps, masks = jnp.array([[[0.9, 0.1, 0.8]]]), jnp.array([[[1.0, 1.0, 0.0]]])
        >>> print(top_k_precision(heatmaps, masks, k=1))
        [1.]
    """
    num_pixels = heatmaps.shape[1] * heatmaps.shape[2]
    if not 1 <= k <= num_pixels:
        raise ValueError(f"k is {k}: expected a number of pixels from 1 to {num_pixels}")
    pixels = sort_pixels(heatmaps, masks)
    return _inside_highest(pixels, jnp.full(len(heatmaps), k), *_places_of_equals(pixels.values)) / k


def pointing_game(heatmaps: _Maps, masks: Masks, *, tolerance: float = 0.0) -> Float[Array, " batch"]:
    """Returns 1 where the highest pixel is in the mask or near it, else 0.

    Where several pixels share the maximum, it is the share of them that hit.

    Args:
        heatmaps: (batch, height, width), of any sign.
        masks: (batch, height, width), coverage of the true region in [0, 1].
        tolerance: how far from the mask still is a hit, in pixels between centers. The published protocol
            allows 15 on photographs; here nothing is allowed unless asked for.

    Returns:
        (batch,) in [0, 1]; 0 for an empty mask.

    Raises:
        ValueError: `tolerance` is negative.

    References:
        Zhang et al., Top-down Neural Attention by Excitation Backprop, ECCV 2016.

    Example:
        >>> heatmaps, masks = jnp.array([[[0.1, 0.2, 0.9]]]), jnp.array([[[0.0, 1.0, 0.0]]])
        >>> print(pointing_game(heatmaps, masks), pointing_game(heatmaps, masks, tolerance=1.0))
        [0.] [1.]
    """
    if tolerance < 0:
        raise ValueError(f"tolerance is {tolerance}: expected a number of pixels, 0 or more")
    region = _widened(jnp.asarray(masks) >= 0.5, tolerance)
    is_highest = heatmaps == heatmaps.max((1, 2), keepdims=True)
    return (is_highest & region).sum((1, 2)) / jnp.maximum(is_highest.sum((1, 2)), 1)


def mask_auc(heatmaps: _Maps, masks: Masks) -> Float[Array, " batch"]:
    """Returns the chance that a pixel of the mask is higher than one outside: the area under the ROC curve.

    AUC = (R - |M| (|M| + 1) / 2) / (|M| (N - |M|)), where R is the sum of the ranks of the pixels in M, and
    equal values share the mean of their ranks: the statistic of Mann and Whitney.

    Args:
        heatmaps: (batch, height, width), of any sign.
        masks: (batch, height, width), coverage of the true region in [0, 1].

    Returns:
        (batch,) in [0, 1]; 0.5 is chance, and is returned where the mask is empty or the whole image.

    References:
        Fawcett, An introduction to ROC analysis, 2006, Section 7.

    Example:
        >>> print(mask_auc(jnp.array([[[0.9, 0.3, 0.3, 0.2]]]), jnp.array([[[1.0, 1.0, 0.0, 0.0]]])))
        [0.875]
    """
    return ranking_scores(sort_pixels(heatmaps, masks)).mask_auc


def _places_of_equals(
    values: Float[Array, "batch pixels"],
) -> tuple[Int[Array, "batch pixels"], Int[Array, "batch pixels"]]:
    """Returns for each place in the order the first and the last place with the same value, from 0."""
    places = jnp.arange(values.shape[1])
    differs = values[:, 1:] != values[:, :-1]
    border = jnp.ones((len(values), 1), bool)
    is_first, is_last = (jnp.concatenate(parts, 1) for parts in ((border, differs), (differs, border)))
    first = jax.lax.cummax(jnp.where(is_first, places, 0), axis=1)
    last = jax.lax.cummin(jnp.where(is_last, places, values.shape[1] - 1), axis=1, reverse=True)
    return first, last


def _inside_highest(
    pixels: SortedPixels,
    counts: Int[Array, " batch"],
    first: Int[Array, "batch pixels"],
    last: Int[Array, "batch pixels"],
) -> Float[Array, " batch"]:
    """Returns how many of the `counts` highest pixels are inside; of those at the threshold, their share."""
    num_pixels = pixels.values.shape[1]
    threshold = jnp.clip(num_pixels - counts, 0, num_pixels - 1)[:, None]
    begin, end = (jnp.take_along_axis(of, threshold, axis=1) for of in (first, last))
    places = jnp.arange(num_pixels)
    above = (pixels.is_inside & (places > end)).sum(1)
    level = (pixels.is_inside & (places >= begin) & (places <= end)).sum(1)
    missing = counts - (num_pixels - 1 - end[:, 0])
    share = missing / (end - begin + 1)[:, 0]
    return jnp.where(counts > 0, above + share * level, 0)


def _auc(
    pixels: SortedPixels, first: Int[Array, "batch pixels"], last: Int[Array, "batch pixels"]
) -> Float[Array, " batch"]:
    num_inside = pixels.is_inside.sum(1)
    num_outside = pixels.values.shape[1] - num_inside
    ranks = (first + last) / 2 + 1
    mean_rank = (ranks * pixels.is_inside).sum(1) / jnp.maximum(num_inside, 1)
    auc = (mean_rank - (num_inside + 1) / 2) / jnp.maximum(num_outside, 1)
    return jnp.where((num_inside > 0) & (num_outside > 0), auc, 0.5)


def _widened(region: Array, tolerance: float) -> Array:
    """Returns every pixel within `tolerance` of a region: a dilation by a disc."""
    reach = int(min(tolerance, sum(region.shape[1:])))  # nothing is farther away than that
    if not reach:
        return region
    offsets = np.arange(-reach, reach + 1)
    disc = np.hypot(offsets[:, None], offsets) <= tolerance
    found = jax.lax.conv_general_dilated(
        region[..., None].astype(jnp.float32),
        jnp.asarray(disc, jnp.float32)[..., None, None],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return found[..., 0] > 0.5
