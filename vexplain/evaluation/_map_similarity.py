"""How alike two explanations of the same image are: the measures of the sanity checks.

Spearman's correlation of all pixels is `rank_correlation`; here are the structural similarity of two heatmaps
and the overlap of two sets of features.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from vexplain.datasets.filters import ssim_map
from vexplain.typing import Array, Float, Heatmaps


def heatmap_ssim(first: Heatmaps, second: Heatmaps) -> Float[Array, " batch"]:
    """Returns the structural similarity of two heatmaps, the mean over all pixels, in [-1, 1].

    Args:
        first: (batch, height, width) in [0, 1]; normalize signed or unbounded maps before.
        second: the same.

    References:
        Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to structural
        similarity, 2004, equation 13.
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, Section 3.

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

    Args:
        first: (batch, features), true where a feature is in the set: of an image, or of a class with
            `relevance.weights.T > 0`.
        second: the same of the other network or run.

    Returns:
        (batch,); 1 where both sets are empty, since they are equal.

    References:
        Jaccard, The distribution of the flora in the alpine zone, 1912.

    Example:
        >>> print(feature_jaccard(jnp.array([[True, True, False]]), jnp.array([[False, True, False]])))
        [0.5]
    """
    one, other = jnp.asarray(first), jnp.asarray(second)
    union = (one | other).sum(1)
    return jnp.where(union > 0, (one & other).sum(1) / jnp.maximum(union, 1), 1.0)
