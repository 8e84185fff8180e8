"""How alike two explanations of the same image are, one value per example: what the sanity checks measure.

In all functions:
    first: (batch, ...). Heatmaps are in [0, 1] (normalize signed or unbounded maps before); of features, true
        where one is in the set of an image, or of a class with `relevance.weights.T > 0`.
    second: the same, of the other map, network or run.
"""

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import rankdata
from jaxtyping import Bool

from vexplain.datasets.filters import ssim_map
from vexplain.typing import Array, Float, Heatmaps, Shaped


def rank_correlation(
    first: Shaped[Array, "batch *values"],  # noqa: F821
    second: Shaped[Array, "batch *values"],  # noqa: F821
) -> Float[Array, " batch"]:
    """Returns Spearman's rank correlation of two arrays over all axes but the first.

    Pearson's r of the ranks, in [-1, 1]; equal values share the mean of their ranks, and an array that is the
    same everywhere orders nothing: 0.

    References:
        Spearman, The proof and measurement of association between two things, 1904.
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, Section 3.

    Example:
        >>> print(rank_correlation(jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[0.3, 0.1, 0.2]])))
        [-0.5]
    """
    a, b = (rankdata(values.reshape(len(values), -1), axis=1) for values in (first, second))
    return correlation(a / a.shape[1], b / b.shape[1])  # the squares of large ranks would lose digits


def correlation(
    first: Float[Array, "batch values"], second: Float[Array, "batch values"]
) -> Float[Array, " batch"]:
    """Returns Pearson's correlation of each example; 0 where one of the two is the same everywhere.

    Example:
        >>> print(correlation(jnp.array([[0.0, 1.0, 2.0]]), jnp.array([[5.0, 3.0, 1.0]])))
        [-1.]
    """
    varies = (jnp.ptp(first, axis=1) > 0) & (jnp.ptp(second, axis=1) > 0)  # a rounded mean would not tell
    a, b = (values - values.mean(1, keepdims=True) for values in (first, second))
    scale = jnp.sqrt((a**2).sum(1) * (b**2).sum(1))
    defined = varies & (scale > 0)
    return jnp.where(defined, (a * b).sum(1) / jnp.where(defined, scale, 1), 0)


def heatmap_ssim(first: Heatmaps, second: Heatmaps) -> Float[Array, " batch"]:
    """Returns the structural similarity of two heatmaps, the mean over all pixels, in [-1, 1].

    References:
        Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to structural
        similarity, 2004, equation 13.

    Example:
        >>> heatmaps = jnp.linspace(0, 1, 42).reshape(1, 6, 7)
        >>> print(heatmap_ssim(heatmaps, heatmaps).round(3), bool(heatmap_ssim(heatmaps, 1 - heatmaps) < 0))
        [1.] True
    """
    return ssim_map(first[..., None], second[..., None]).mean((1, 2, 3))


def feature_jaccard(
    first: Bool[Array | np.ndarray, "batch features"], second: Bool[Array | np.ndarray, "batch features"]
) -> Float[Array, " batch"]:
    """Returns the Jaccard index |A ∩ B| / |A ∪ B| of two sets of selected features, in [0, 1].

    It is 1 where both sets are empty, since they are equal.

    Example:
        >>> print(feature_jaccard(jnp.array([[True, True, False]]), jnp.array([[False, True, False]])))
        [0.5]
    """
    one, other = jnp.asarray(first), jnp.asarray(second)
    union = (one | other).sum(1)
    return jnp.where(union > 0, (one & other).sum(1) / jnp.maximum(union, 1), 1.0)
