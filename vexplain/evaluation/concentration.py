"""Where the mass of a map lies: how much of it in the true region, along its border, and on how few pixels.

The values of a map count here and not only their order. The first two questions need a mask, the others none:
a map may be concise and wrong.

In all functions:
    attributions: (batch, height, width), signed.
    masks: (batch, height, width), coverage of the true region in [0, 1].
"""

from typing import Literal

import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.evaluation.similarity import correlation
from vexplain.typing import Array, Float, Heatmaps, Int, Masks

_CONVENTIONS = {"positive": lambda a: jnp.maximum(a, 0), "absolute": jnp.abs, "signed": lambda a: a}
_Maps = Float[Array, "batch height width"]  # signed


def relevance_mass(
    attributions: _Maps,
    masks: Masks,
    *,
    convention: Literal["positive", "absolute", "signed"] = "positive",
) -> Float[Array, " batch"]:
    """Returns the share of a map's mass that lies inside the mask: relevance mass accuracy.

    Σ_{p in M} r_p / Σ_p r_p with M = {mask >= 0.5}, and r = max(a, 0) unless asked otherwise: the measure was
    made for maps without negative values. Quantus offers r = |a| ("absolute") and r = a ("signed", where the
    "share" leaves [0, 1] wherever negative values cancel positive ones), to compare with published tables.

    Args:
        convention: "positive", "absolute" or "signed".

    Returns:
        (batch,); in [0, 1] unless "signed"; 0 where the total is 0.

    References:
        Arras, Osman, Samek, CLEVR-XAI: A benchmark dataset for the ground truth evaluation of neural network
        explanations, 2022.
        Hedström et al., Quantus: An Explainable AI Toolkit, 2023.

    Example:
        >>> attributions, masks = jnp.array([[[3.0, 1.0, -2.0]]]), jnp.array([[[1.0, 0.0, 0.0]]])
        >>> print(relevance_mass(attributions, masks))
        [0.75]
        >>> print(relevance_mass(attributions, masks, convention="signed"))
        [1.5]
    """
    check_choice("convention", convention, _CONVENTIONS)
    mass = _CONVENTIONS[convention](attributions)
    total = mass.sum((1, 2))
    inside = jnp.where(jnp.asarray(masks) >= 0.5, mass, 0).sum((1, 2))
    return jnp.where(total == 0, 0, inside / jnp.where(total == 0, 1, total))


def edge_correlation(heatmaps: Heatmaps, masks: Masks) -> Float[Array, " batch"]:
    """Returns the correlation over pixels of the slope of the heatmap with the slope of the mask (*ours*).

    Pearson's r of |∇h| and |∇m|, both by central differences. Blur spreads the slopes of h away from the
    border, a grid or speckle adds slopes where the mask has none: both lower it.

    Args:
        heatmaps: (batch, height, width); a scale and an offset change nothing.

    Returns:
        (batch,) in [-1, 1]; 0 where one of the two is flat.

    Example:
        >>> masks = jnp.zeros((1, 8, 8)).at[0, 2:6, 2:6].set(1.0)
        >>> print(edge_correlation(1 - masks, masks), edge_correlation(jnp.zeros((1, 8, 8)), masks))
        [1.] [0.]
    """
    return correlation(_slopes(jnp.asarray(heatmaps)), _slopes(jnp.asarray(masks)))


def sparseness(attributions: _Maps) -> Float[Array, " batch"]:
    """Returns the Gini index of the absolute values: 0 for an even map, 1 - 1/n for one pixel of n.

    G = Σ_i (2 i - n - 1) |a|_(i) / (n Σ_i |a|_(i)) with the values in ascending order, i = 1, ..., n. A map
    of zeros is even.

    References:
        Chalasani et al., Concise Explanations of Neural Networks using Adversarial Training, ICML 2020.

    Example:
        >>> print(sparseness(jnp.array([[[0.0, 0.0, 0.0, -2.0]], [[1.0, 1.0, 1.0, 1.0]]])))
        [0.75 0.  ]
    """
    ascending = jnp.sort(_shares(attributions), axis=1)
    count = ascending.shape[1]
    return ((2 * jnp.arange(1, count + 1) - count - 1) / count * ascending).sum(1)


def complexity(attributions: _Maps) -> Float[Array, " batch"]:
    """Returns the entropy of the absolute values as shares of their sum, in nats: low for a concise map.

    H = -Σ_p P_p ln P_p with P_p = |a_p| / Σ |a|, in [0, ln n]; ln n for a map of zeros, which is even.

    References:
        Bhatt, Weller, Moura, Evaluating and Aggregating Feature-based Model Explanations, IJCAI 2020.

    Example:
        >>> print(complexity(jnp.array([[[0.0, -2.0]], [[1.0, 1.0]]])).round(4))
        [0.     0.6931]
    """
    shares = _shares(attributions)
    return (shares * jnp.log(1 / jnp.where(shares > 0, shares, 1))).sum(1)


def effective_complexity(attributions: _Maps, *, threshold: float = 1e-5) -> Int[Array, " batch"]:
    """Returns how many pixels have an absolute value above a threshold.

    Args:
        threshold: what no longer counts as zero. The scale counts: normalize maps of several methods.

    References:
        Nguyen, Martínez, On quantitative aspects of model interpretability, 2020.

    Example:
        >>> print(effective_complexity(jnp.array([[[0.0, -2.0, 1e-6, 0.5]]])))
        [2]
    """
    return (jnp.abs(attributions) > threshold).sum((1, 2))


def _shares(attributions: Array) -> Float[Array, "batch pixels"]:
    """Returns the absolute values, which sum to one; those of a map of zeros are equal."""
    size = jnp.abs(attributions).reshape(len(attributions), -1)
    peak = size.max(1, keepdims=True)
    size = jnp.where(peak > 0, size / jnp.where(peak > 0, peak, 1), 1)  # no sum of tiny values underflows
    return size / size.sum(1, keepdims=True)


def _slopes(maps: Heatmaps) -> Float[Array, "batch pixels"]:
    down, across = jnp.gradient(maps, axis=(1, 2))
    return jnp.hypot(down, across).reshape(len(maps), -1)
