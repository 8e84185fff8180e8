"""Does a map say what the score would lose? Correlations of a map's mass with the effect of replacing pixels.

Where a region weighs much in the map, replacing it should change the score much. The metrics differ in what
is replaced (drawn subsets, groups in the order of the map, squares), by what, and in how mass and effect are
compared. One of them alone is no verdict: a replaced pixel is something that the network was not trained on.

In all functions:
    heatmaps: (batch, height, width), of any sign; the *sum* of its values over a region is its mass.
    baseline: what replaces a pixel: a number, (channels,), or an array that broadcasts to the images.
    regions: what is replaced together: the size of square patches, or integers (height, width) or (batch,
        height, width), the regions of a segmentation.
    num_regions: how many regions there are, where they are traced.
    key: one, or one an image: then the draws of an image do not depend on its batch.

All are pure and traced once, `jax.jit` compiles them; draws go one after the other, so that memory does not
depend on their number.
"""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain.attribution import Score, logit
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation._pixel_flipping import flipped_counts, flipping_positions, pixel_flipping
from vexplain.evaluation._regions import (
    Keys,
    Maps,
    Regions,
    as_regions,
    check_correlation,
    check_maps,
    check_several,
    image_keys,
    subset_effects,
)
from vexplain.evaluation.similarity import correlation as pearson
from vexplain.evaluation.similarity import rank_correlation
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Images, PyTree, Variables


@compiled_metric
def faithfulness_correlation(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: Maps,
    *,
    key: Keys,
    score: Score = logit,
    share: float = 0.2,
    num_samples: int = 100,
    regions: Regions = 1,
    num_regions: int | None = None,
    baseline: float | AnyArray = 0.0,
    correlation: Literal["pearson", "spearman"] = "pearson",
) -> Float[Array, " batch"]:
    """Returns the correlation of the mass of random subsets with what the score loses without them.

        corr_S( Σ_{i in S} h_i,  y(x) - y(x with baseline at S) ),    S drawn among all subsets of one size

    With square regions, a share of 0.2 and "spearman" it is MuFidelity as Xplique computes it.

    Args:
        share: of the regions that are in a subset, in (0, 1); at least one is, and one is not.
        num_samples: how many subsets.
        correlation: "pearson" (*paper*) or "spearman".

    Returns:
        (batch,) in [-1, 1], higher is better; 0 where all subsets have the same mass, or lose the same.

    References:
        Bhatt, Weller, Moura, Evaluating and Aggregating Feature-based Model Explanations, IJCAI 2020,
        Definition 3.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.arange(12.0).reshape(1, 3, 4, 1) / 12
        >>> found = faithfulness_correlation(
        ...     apply, None, images, None, images[..., 0], score=total, key=jax.random.key(0)
        ... )
        >>> print(found.round(3))
        [1.]
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}: expected a share of the regions in (0, 1)")
    check_correlation(correlation)
    images = jnp.asarray(images)
    heatmaps = check_maps("heatmaps", heatmaps, images)
    found = as_regions(regions, heatmaps, num_regions)
    check_several(found[1])
    size = int(np.clip(round(share * found[1]), 1, found[1] - 1))
    draws = jnp.arange(num_samples), jnp.full(num_samples, size)
    keys = image_keys("faithfulness_correlation", key, len(images))
    cover = broadcast_baseline(baseline, images)
    mass, loss = subset_effects(apply, variables, images, targets, cover, score, heatmaps, found, keys, draws)
    return (pearson if correlation == "pearson" else rank_correlation)(mass.T, loss.T)


@compiled_metric
def sensitivity_n(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: Maps,
    *,
    key: Keys,
    score: Score = logit,
    shares: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.4, 0.8),
    num_samples: int = 100,
    regions: Regions = 1,
    num_regions: int | None = None,
    baseline: float | AnyArray = 0.0,
) -> Float[Array, "batch shares"]:
    """Returns the correlation of the mass of random subsets of n regions with their effect, for several n.

    The curve of `faithfulness_correlation` over the size of the subsets, by Pearson's r. Quantus takes no
    random subsets: it removes pixels in the order of the map, and correlates over images instead of subsets.

    Args:
        shares: n as shares of the regions, in (0, 1) each; the paper goes from one pixel to 0.8.
        num_samples: how many subsets of each size.

    Returns:
        (batch, shares) in [-1, 1], higher is better; 1 for all n where completeness holds for every subset.

    References:
        Ancona, Ceolini, Öztireli, Gross, Towards better understanding of gradient-based attribution methods
        for deep neural networks, ICLR 2018, Section 4.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.arange(12.0).reshape(1, 3, 4, 1) / 12
        >>> arguments = (apply, None, images, None, images[..., 0])
        >>> print(
        ...     sensitivity_n(*arguments, score=total, shares=(0.1, 0.5), key=jax.random.key(0)).round(3)
        ... )
        [[1. 1.]]
    """
    if not shares or not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares is {shares}: expected shares of the regions, in (0, 1) each")
    images = jnp.asarray(images)
    heatmaps = check_maps("heatmaps", heatmaps, images)
    found = as_regions(regions, heatmaps, num_regions)
    check_several(found[1])
    sizes = np.clip(np.round(np.array(shares) * found[1]).astype(int), 1, found[1] - 1)
    count = len(sizes) * num_samples
    draws = jnp.arange(count), jnp.repeat(jnp.asarray(sizes), num_samples)
    keys = image_keys("sensitivity_n", key, len(images))
    cover = broadcast_baseline(baseline, images)
    effects = subset_effects(apply, variables, images, targets, cover, score, heatmaps, found, keys, draws)
    mass, loss = (values.reshape(len(sizes), num_samples, -1).swapaxes(1, 2) for values in effects)
    return jax.vmap(pearson)(mass, loss).T


@compiled_metric
def monotonicity(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: Maps,
    *,
    score: Score = logit,
    num_steps: int | None = None,
    pixels_per_step: int | None = None,
    baseline: float | AnyArray = 0.0,
) -> Float[Array, " batch"]:
    """Returns 1 where the score never falls while pixels come back from the lowest to the highest, else 0.

        all_s [ y(x_{s+1}) >= y(x_s) ],    x_0 = baseline, then the lowest pixels of the map first

    A coarse measure, for one small fall in many steps counts as many. Quantus 0.6.0 puts the baseline where
    the image should come back: its value is always 1.

    Args:
        num_steps: into how many steps the pixels are divided; this or `pixels_per_step`.
        pixels_per_step: how many come back in a step.

    Returns:
        (batch,) of 0 and 1, higher is better.

    References:
        Arya et al., One Explanation Does Not Fit All: A Toolkit and Taxonomy of AI Explainability Techniques,
        2019, Section 5.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.array([[[[0.5], [1.0], [0.25]]]])
        >>> print(monotonicity(apply, None, images, None, images[..., 0], score=total, num_steps=3))
        [1.]
    """
    heatmaps = check_maps("heatmaps", heatmaps, images)
    options: dict[str, Any] = {"num_steps": num_steps, "pixels_per_step": pixels_per_step}
    curve = pixel_flipping(
        apply,
        variables,
        images,
        targets,
        -heatmaps,
        score=score,
        baseline=baseline,
        mode="insertion",
        **options,
    )
    return (jnp.diff(curve.scores, axis=1) >= 0).all(1).astype(curve.scores.dtype)


@compiled_metric
def monotonicity_correlation(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: Maps,
    *,
    key: Keys,
    score: Score = logit,
    num_steps: int | None = None,
    pixels_per_step: int | None = None,
    num_samples: int = 10,
) -> Float[Array, " batch"]:
    """Returns the rank correlation of the mass of groups of pixels with how uncertain the score is of them.

        ρ_S( Σ_{p in g} |h_p|,  E_z [ (y(x) - y(x with z at g))² ] ),    z uniform in [0, 1]

    over groups g of pixels by falling |h|. The paper takes single features and any loss; the expectation is a
    mean over draws. Quantus divides by y(x)², which changes no rank.

    Args:
        num_steps: how many groups; this or `pixels_per_step`.
        pixels_per_step: how many pixels form a group.
        num_samples: how often the pixels of a group are drawn.

    Returns:
        (batch,) in [-1, 1], higher is better; 0 where all groups are alike.

    References:
        Nguyen, Martínez, On quantitative aspects of model interpretability, 2020, Section 3.2.

    Example:
        >>> images = jnp.array([[[[0.1], [1.0], [0.7]]]])
        >>> found = monotonicity_correlation(
        ...     lambda weights, images: (weights * images).sum((1, 2, 3)),
        ...     jnp.array([[[1.0], [9.0], [3.0]]]),
        ...     images,
        ...     None,
        ...     jnp.array([[[1.0, 9.0, 3.0]]]),
        ...     score=lambda outputs, targets: outputs,
        ...     pixels_per_step=1,
        ...     key=jax.random.key(0),
        ... )
        >>> print(found)
        [1.]
    """
    check_positive(num_samples=num_samples)
    images = jnp.asarray(images)
    sizes = jnp.abs(check_maps("heatmaps", heatmaps, images))
    counts = flipped_counts(sizes[0].size, num_steps, pixels_per_step)
    positions = flipping_positions(sizes, None)
    keys = image_keys("monotonicity_correlation", key, len(images))
    whole = score(apply(variables, images), targets)

    def of_group(bounds):
        start, stop, number = bounds
        inside = (positions >= start) & (positions < stop)

        def of_draw(n):
            drawn = _uniform(keys, number * num_samples + n, images)
            left = score(apply(variables, jnp.where(inside[..., None], drawn, images)), targets)
            return (whole - left) ** 2

        return (inside * sizes).sum((1, 2)), jax.lax.map(of_draw, jnp.arange(num_samples)).mean(0)

    mass, spread = jax.lax.map(of_group, (counts[:-1], counts[1:], jnp.arange(len(counts) - 1)))
    return rank_correlation(mass.T, spread.T)


def _uniform(keys: Any, number: Any, images: Array) -> Array:
    """Returns noise in [0, 1] of the shape of the images, each from its own key."""

    def one(key, image):
        return jax.random.uniform(jax.random.fold_in(key, number), image.shape, image.dtype)

    return jax.vmap(one)(keys, images)
