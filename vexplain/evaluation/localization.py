"""How well a map finds the true region: at every threshold, and by the order of its pixels alone.

A heatmap in [0, 1] becomes a region by a threshold, and the intersection over union of that region with the
true mask is followed over a sweep of thresholds: the area under this curve is the score of the ICLR 2019
paper. A sweep rewards a map for its scale as well as its order. The other scores see the order alone: they
compare the mask with as many of the highest pixels, or with one, or with all in turn.

A region above a threshold is a piece at the end of the sorted pixels, so that one sort serves all scores.
Equal values have no order: scores of the order are expected values under random order of equal pixels. A map
that is the same everywhere scores there what chance would; in a sweep, 0 above threshold 0.

In all functions:
    heatmaps: (batch, height, width), of any sign; in [0, 1] for `iou_curve`.
    masks: (batch, height, width), coverage of the true region in [0, 1]; the region is M = {mask >= 0.5}.
    pixels: from `sort_pixels`.
    curve: what `iou_curve` returned.
Scores are (batch,) in [0, 1], and 0 for an empty mask unless they say otherwise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Heatmaps, Int, Masks, Shaped

NUM_THRESHOLDS = 101  # 0, 0.01, ..., 1
_MAGNITUDE = np.int32(0x7FFFFFFF)
_SIGN = np.int32(-(2**31))
_LIMIT = np.nextafter(np.float32(2), np.float32(0))  # twice its bits still are an integer of 32 bits
_Maps = Float[Array, "batch height width"]  # of any sign: only their order counts
_Places = Int[Array, "batch pixels"]


class SortedPixels(NamedTuple):
    """The values of each map in ascending order, and whether the pixels are in the mask."""

    values: Float[Array, "batch pixels"]
    is_inside: Shaped[Array, "batch pixels"]  # bool


class RankingScores(NamedTuple):
    """What the order of the pixels scores; each (batch,) in [0, 1]."""

    iou_at_mask_area: Float[Array, " batch"]
    relevance_rank: Float[Array, " batch"]
    mask_auc: Float[Array, " batch"]


def sort_pixels(heatmaps: _Maps, masks: Masks) -> SortedPixels:
    """Returns the pixels of each map in ascending order of their values, with the truth of each.

    Equal values stay equal. A value below 1e-38 of the largest of its map counts as zero.

    Example:
        >>> print(*sort_pixels(jnp.array([[[0.5, -1.0, 0.25]]]), jnp.array([[[1.0, 0.0, 0.0]]])))
        [[-1.    0.25  0.5 ]] [[False False  True]]
    """
    batch = len(heatmaps)
    values, is_inside = heatmaps.reshape(batch, -1), (jnp.asarray(masks) >= 0.5).reshape(batch, -1)
    if values.dtype == jnp.float64:  # has no room for another bit
        return SortedPixels(*jax.lax.sort((values, is_inside), dimension=1, num_keys=1))
    # Integers of one array sort many times faster than floats or pairs: so the truth travels as the last bit
    # of an integer that orders as the float does.
    values = values.astype(jnp.float32)
    largest = jnp.where(jnp.isfinite(values), jnp.abs(values), 0).max(1, keepdims=True)
    exponent = jnp.frexp(largest)[1]
    keys = _ordered_integers(jnp.clip(jnp.ldexp(values, -exponent), -_LIMIT, _LIMIT))
    packed = jax.lax.sort(2 * keys + is_inside, dimension=1, is_stable=False)
    return SortedPixels(jnp.ldexp(_floats(packed >> 1), exponent), (packed & 1).astype(bool))


def iou_curve(heatmaps: Heatmaps, masks: Masks) -> Float[Array, "batch thresholds"]:
    """Returns the intersection over union with the mask at the thresholds 0, 0.01, ..., 1: (batch, 101).

    IoU_t = |{h >= t} ∩ M| / |{h >= t} ∪ M|; 0 where the union is empty (*paper*, Oramas et al., 2019, Section
    4.3; number of thresholds and mask coverage *ours*).

    Example:
        >>> heatmaps = jnp.array([[[1.0, 0.5], [0.0, 0.0]]])
        >>> masks = jnp.array([[[1.0, 0.0], [0.0, 0.0]]])
        >>> curve = iou_curve(heatmaps, masks)
        >>> print(curve[0, 0], curve[0, 50], curve[0, 51])
        0.25 0.5 1.0
    """
    return sorted_iou_curve(sort_pixels(heatmaps, masks))


def sorted_iou_curve(pixels: SortedPixels) -> Float[Array, "batch thresholds"]:
    """Returns what `iou_curve` does, for pixels that are sorted already."""
    num_pixels = pixels.values.shape[1]
    thresholds = jnp.linspace(0, 1, NUM_THRESHOLDS, dtype=pixels.values.dtype)
    below = jax.vmap(lambda row: jnp.searchsorted(row, thresholds))(pixels.values)
    inside_up_to = jnp.pad(jnp.cumsum(pixels.is_inside, axis=1), ((0, 0), (1, 0)))
    area = inside_up_to[:, -1:]
    intersection = area - jnp.take_along_axis(inside_up_to, below, axis=1)
    union = num_pixels - below + area - intersection
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1), 0.0)


def iou_area(curve: Float[Array, "batch thresholds"]) -> Float[Array, " batch"]:
    """Returns the area under IoU curves by the trapezoidal rule (*paper*).

    Example:
        >>> print(iou_area(jnp.linspace(0, 1, 101)[None]))
        [0.5]
    """
    return ((curve[:, 1:] + curve[:, :-1]) / 2).mean(1)


def best_iou(curve: Float[Array, "batch thresholds"]) -> Float[Array, " batch"]:
    """Returns the largest value of IoU curves: at the best threshold of each image, unknown beforehand.

    Example:
        >>> print(best_iou(jnp.array([[0.25, 0.5, 0.0]])))
        [0.5]
    """
    return curve.max(1)


def ranking_scores(pixels: SortedPixels) -> RankingScores:
    """Returns the scores of the functions of the same names below, all from one sort.

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

    IoU = i / (2 |M| - i), where i of the |M| highest pixels are inside (*ours*): maps that are too wide and
    too narrow are compared at the same area. Pixels equal to the threshold are covered by the share that
    completes the area, so that a constant map has i = |M|² / (number of pixels).

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

    References:
        Arras, Osman, Samek, CLEVR-XAI (see `relevance_mass`), 2022.

    Example:
        >>> print(relevance_rank(jnp.array([[[0.9, 0.1, 0.8, 0.2]]]), jnp.array([[[1.0, 1.0, 0.0, 0.0]]])))
        [0.5]
    """
    return ranking_scores(sort_pixels(heatmaps, masks)).relevance_rank


def top_k_precision(heatmaps: _Maps, masks: Masks, *, k: int) -> Float[Array, " batch"]:
    """Returns the share of the k highest pixels that are inside the mask: top-k intersection.

    Args:
        k: how many pixels, from 1 to all.

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
    """Returns 1 where the highest pixel is in the mask or near it, else 0; of equal ones, the share that is.

    Args:
        tolerance: how far from the mask still is a hit, in pixels between centers; the published protocol
            allows 15 on photographs.

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
    equal values share the mean of their ranks: the statistic of Mann and Whitney. 0.5 is chance, and is
    returned where the mask is empty or the whole image.

    References:
        Fawcett, An introduction to ROC analysis, 2006, Section 7.

    Example:
        >>> print(mask_auc(jnp.array([[[0.9, 0.3, 0.3, 0.2]]]), jnp.array([[[1.0, 1.0, 0.0, 0.0]]])))
        [0.875]
    """
    return ranking_scores(sort_pixels(heatmaps, masks)).mask_auc


def _places_of_equals(values: Float[Array, "batch pixels"]) -> tuple[_Places, _Places]:
    """Returns for each place in the order the first and the last place with the same value, from 0."""
    places = jnp.arange(values.shape[1])
    differs = values[:, 1:] != values[:, :-1]
    border = jnp.ones((len(values), 1), bool)
    is_first, is_last = (jnp.concatenate(parts, 1) for parts in ((border, differs), (differs, border)))
    first = jax.lax.cummax(jnp.where(is_first, places, 0), axis=1)
    last = jax.lax.cummin(jnp.where(is_last, places, values.shape[1] - 1), axis=1, reverse=True)
    return first, last


def _inside_highest(
    pixels: SortedPixels, counts: Int[Array, " batch"], first: _Places, last: _Places
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


def _auc(pixels: SortedPixels, first: _Places, last: _Places) -> Float[Array, " batch"]:
    num_inside = pixels.is_inside.sum(1)
    num_outside = pixels.values.shape[1] - num_inside
    ranks = (first + last) / 2 + 1
    mean_rank = (ranks * pixels.is_inside).sum(1) / jnp.maximum(num_inside, 1)
    auc = (mean_rank - (num_inside + 1) / 2) / jnp.maximum(num_outside, 1)
    return jnp.where((num_inside > 0) & (num_outside > 0), auc, 0.5)


def _ordered_integers(values: Float[Array, "batch pixels"]) -> Shaped[Array, "batch pixels"]:
    """Integers in the order of floats: the bits of a float, which begin with its sign; 0 for both zeros."""
    bits = jax.lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, -(bits & _MAGNITUDE), bits)


def _floats(keys: Shaped[Array, "batch pixels"]) -> Float[Array, "batch pixels"]:
    return jax.lax.bitcast_convert_type(jnp.where(keys < 0, -keys | _SIGN, keys), jnp.float32)


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
