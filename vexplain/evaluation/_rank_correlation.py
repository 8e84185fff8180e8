"""Whether two arrays put the same things in the same order: Spearman's correlation, one value per example.

Between two heatmaps it says how alike they are, whatever their scale (the sanity check of saliency maps).
Between the mass of a map on each part of an object and what happens when that part is really changed, it says
whether the map ranks the parts as the network does.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Shaped


def rank_correlation(
    first: Shaped[Array, "batch *values"],  # noqa: F821
    second: Shaped[Array, "batch *values"],  # noqa: F821
) -> Float[Array, " batch"]:
    """Returns Spearman's rank correlation of two arrays over all axes but the first.

    Pearson's r of the ranks; equal values share the mean of their ranks.

    Args:
        first: (batch, ...), for instance heatmaps; only the order of the values counts.
        second: the same shape.

    Returns:
        (batch,) in [-1, 1]; 0 where one of the two is the same everywhere, and so orders nothing.

    References:
        Spearman, The proof and measurement of association between two things, 1904.
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, Section 3.

    Example:
        >>> print(rank_correlation(jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[0.3, 0.1, 0.2]])))
        [-0.5]
    """
    a, b = (average_ranks(values.reshape(len(values), -1)) for values in (first, second))
    return correlation(a / a.shape[1], b / b.shape[1])  # the squares of large ranks would lose digits


def part_effect_correlation(
    heatmaps: Float[Array, "batch height width"],
    part_masks: Float[Array | np.ndarray, "batch parts height width"],
    effects: Float[Array | np.ndarray, "batch parts"],
) -> Float[Array, " batch"]:
    """Returns how well the mass of a map on each part ranks the parts by their true effect.

    Spearman's rank correlation over the parts of one image, between Σ_p mask_p h and the change of the score
    when the part is recolored or removed. That change is measured on the network, so that the truth is what
    the network uses and not what it should use.

    Args:
        heatmaps: (batch, height, width); only the order of the masses counts, not their scale.
        part_masks: (batch, parts, height, width), coverage of each part in [0, 1]. A part that an image does
            not show has mass 0.
        effects: (batch, parts), for instance the loss of the logit without the part.

    Returns:
        (batch,) in [-1, 1]; 0 where all masses or all effects are equal.

    References:
        Hesse, Schaub-Meyer, Roth, FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of
        Explainable AI Methods, ICCV 2023 (single deletion).

    Example:
        >>> parts = jnp.eye(3).reshape(1, 3, 1, 3)
        >>> heatmaps, effects = jnp.array([[[0.1, 0.2, 0.7]]]), jnp.array([[0.0, 2.0, 5.0]])
        >>> print(part_effect_correlation(heatmaps, parts, effects))
        [1.]
    """
    mass = jnp.einsum("bhw,bphw->bp", heatmaps, jnp.asarray(part_masks), precision="highest")
    return rank_correlation(mass, jnp.asarray(effects))


def average_ranks(values: Shaped[Array, "batch values"]) -> Float[Array, "batch values"]:
    """Returns the rank of each value in its row, from 1; equal values share the mean of their ranks.

    Args:
        values: (batch, values).

    Example:
        >>> print(average_ranks(jnp.array([[0.5, 0.1, 0.5, 0.9]])))
        [[2.5 1.  2.5 4. ]]
    """

    def one(row):
        ascending = jnp.sort(row)
        below, up_to = (jnp.searchsorted(ascending, row, side=side) for side in ("left", "right"))
        return (below + up_to + 1) / 2

    return jax.vmap(one)(values)


def correlation(
    first: Float[Array, "batch values"],
    second: Float[Array, "batch values"],
) -> Float[Array, " batch"]:
    """Returns Pearson's correlation of the rows of two arrays; 0 where a row is the same everywhere.

    Args:
        first: (batch, values).
        second: the same shape.

    Example:
        >>> print(correlation(jnp.array([[0.0, 1.0, 2.0]]), jnp.array([[5.0, 3.0, 1.0]])))
        [-1.]
    """
    varies = (jnp.ptp(first, axis=1) > 0) & (jnp.ptp(second, axis=1) > 0)  # a rounded mean would not tell
    a, b = (values - values.mean(1, keepdims=True) for values in (first, second))
    scale = jnp.sqrt((a**2).sum(1) * (b**2).sum(1))
    defined = varies & (scale > 0)
    return jnp.where(defined, (a * b).sum(1) / jnp.where(defined, scale, 1), 0)
