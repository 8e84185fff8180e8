"""How well a heatmap covers the region that decides the class, where that region is known.

A heatmap in [0, 1] becomes a region by a threshold, and the intersection over union of that region with the
true mask is followed over a sweep of thresholds. The area under this curve is the score of the ICLR 2019
paper; its maximum says how well the map does at its best threshold, which nobody knows beforehand.

A map that is the same everywhere says nothing and counts as zero everywhere: it covers the whole image at
threshold 0 and nothing above it.
"""

import jax
import jax.numpy as jnp

from vexplain.evaluation.sorted_pixels import SortedPixels, sort_pixels
from vexplain.typing import Array, Float, Heatmaps, Masks

NUM_THRESHOLDS = 101  # 0, 0.01, ..., 1


def iou_curve(heatmaps: Heatmaps, masks: Masks) -> Float[Array, "batch thresholds"]:
    """Returns the intersection over union with the mask at each of 101 thresholds.

    IoU_t = |{h >= t} ∩ M| / |{h >= t} ∪ M| with M = {mask >= 0.5}; it is 0 where the union is empty (*paper*,
    Oramas et al., 2019, Section 4.3; number of thresholds and mask coverage *ours*).

    Args:
        heatmaps: (batch, height, width) in [0, 1].
        masks: (batch, height, width), coverage of the true region in [0, 1].

    Returns:
        (batch, 101) in [0, 1], for thresholds 0, 0.01, ..., 1.

    Example:
        >>> heatmaps = jnp.array([[[1.0, 0.5], [0.0, 0.0]]])
        >>> masks = jnp.array([[[1.0, 0.0], [0.0, 0.0]]])
        >>> curve = iou_curve(heatmaps, masks)
        >>> print(curve[0, 0], curve[0, 50], curve[0, 51])
        0.25 0.5 1.0
    """
    return sorted_iou_curve(sort_pixels(heatmaps, masks))


def sorted_iou_curve(pixels: SortedPixels) -> Float[Array, "batch thresholds"]:
    """Returns what `iou_curve` does, for pixels that are sorted already.

    Args:
        pixels: from `sort_pixels`, of heatmaps in [0, 1].
    """
    num_pixels = pixels.values.shape[1]
    thresholds = jnp.linspace(0, 1, NUM_THRESHOLDS, dtype=pixels.values.dtype)
    below = jax.vmap(lambda row: jnp.searchsorted(row, thresholds))(pixels.values)
    inside_up_to = jnp.pad(jnp.cumsum(pixels.is_inside, axis=1), ((0, 0), (1, 0)))
    area = inside_up_to[:, -1:]
    intersection = area - jnp.take_along_axis(inside_up_to, below, axis=1)
    union = num_pixels - below + area - intersection
    return jnp.where(union > 0, intersection / jnp.maximum(union, 1), 0.0)


def iou_area(curve: Float[Array, "batch thresholds"]) -> Float[Array, " batch"]:
    """Returns the area under IoU curves by the trapezoidal rule, in [0, 1].

    Args:
        curve: what `iou_curve` returned.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 4.3.

    Example:
        >>> print(iou_area(jnp.linspace(0, 1, 101)[None]))
        [0.5]
    """
    return ((curve[:, 1:] + curve[:, :-1]) / 2).mean(1)


def best_iou(curve: Float[Array, "batch thresholds"]) -> Float[Array, " batch"]:
    """Returns the largest value of IoU curves: the score at the best threshold of each image, in [0, 1].

    Args:
        curve: what `iou_curve` returned.

    Example:
        >>> print(best_iou(jnp.array([[0.25, 0.5, 0.0]])))
        [0.5]
    """
    return curve.max(1)
