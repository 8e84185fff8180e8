"""How the score falls when whole regions are taken in the order of a map: patches or superpixels.

Single pixels that are replaced leave a pattern that no photograph has; regions remove what an object consists
of. The region with the most mass goes first. A curve and one number each:

    selectivity             the curve of the score and the area under it
    region_perturbation     AOPC: the mean fall over the first regions, replaced by noise
    irof                    the area over the curve, relative to the score of the image

In all functions:
    heatmaps: (batch, height, width), of any sign.
    regions: the size of square patches, or integers (height, width) or (batch, height, width), the regions of
        a segmentation; numbers that an image does not have come last.
    num_regions: how many regions there are, where they are traced.
    baseline: what replaces a region: a number, (channels,), or an array that broadcasts to the images.
"""

import jax
import jax.numpy as jnp

from vexplain.attribution import Score, logit, probability
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation._pixel_flipping import FlippingCurve
from vexplain.evaluation._regions import (
    Keys,
    Maps,
    Regions,
    as_regions,
    at_pixels,
    check_maps,
    image_keys,
    of_each_region,
)
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Images, PyTree, Shaped, Variables


@compiled_metric
def selectivity(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: Maps,
    *,
    score: Score = logit,
    regions: Regions = 8,
    num_regions: int | None = None,
    baseline: float | AnyArray = 0.0,
) -> FlippingCurve:
    """Returns the score after each region that is replaced, the one with the most mass first, and the area.

    Pixel flipping by regions: with R_1, ..., R_L by falling Σ_{p in R} h_p,

        score_l = y(x with baseline at R_1 ∪ ... ∪ R_l),    area by the trapezoidal rule over l / L

    A low area is better. Quantus returns the scores l = 1, ..., L and no area, and takes the minimum of the
    image for "black" (`darkest_values`).

    References:
        Montavon, Samek, Müller, Methods for interpreting and understanding deep neural networks, 2018,
        Section 7.2.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.array([[[[1.0], [1.0], [4.0], [4.0]]]])
        >>> curve = selectivity(apply, None, images, None, images[..., 0], score=total, regions=2)
        >>> print(curve.scores, curve.area)
        [[10.  2.  0.]] [3.5]
    """
    heatmaps = check_maps("heatmaps", heatmaps, images)
    found = as_regions(regions, heatmaps, num_regions)
    ranks = _ranks(of_each_region(heatmaps, *found), *found)
    scores = _scores(apply, variables, images, targets, score, ranks, baseline, found[1])
    return _curve(scores)


@compiled_metric
def region_perturbation(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: Maps,
    *,
    key: Keys,
    score: Score = logit,
    regions: Regions = 9,
    num_regions: int | None = None,
    num_steps: int = 100,
) -> Float[Array, " batch"]:
    """Returns the mean fall of the score while the first regions are replaced by noise: AOPC.

        AOPC = 1/(L + 1) Σ_{l=0}^{L} (y(x) - y(x_l)),    x_l = x with uniform noise at R_1 ∪ ... ∪ R_l

    with regions of 9 × 9 pixels and L = 100 in the paper, which averages over draws of the noise; here it is
    one draw an image. Quantus returns the falls for l = 1, ..., L and no mean of them.

    Args:
        key: of the noise, uniform in [0, 1]: one, or one an image.
        num_steps: L; no more than there are regions.

    Returns:
        (batch,) in the unit of the score, higher is better.

    References:
        Samek, Binder, Montavon, Lapuschkin, Müller, Evaluating the visualization of what a deep neural
        network has learned, 2017, Equation 12.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.array([[[[1.0], [1.0], [9.0], [9.0]]]])
        >>> arguments = (apply, None, images, None)
        >>> options = {"score": total, "regions": 2, "num_steps": 1, "key": jax.random.key(0)}
        >>> found = [region_perturbation(*arguments, s * images[..., 0], **options) for s in (1, -1)]
        >>> bool(found[0] > found[1])
        True
    """
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}: expected 1 or more regions")
    images = jnp.asarray(images)
    heatmaps = check_maps("heatmaps", heatmaps, images)
    found = as_regions(regions, heatmaps, num_regions)
    keys = image_keys("region_perturbation", key, len(images))
    noise = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype))(keys)
    ranks = _ranks(of_each_region(heatmaps, *found), *found)
    count = min(num_steps, found[1])
    scores = _scores(apply, variables, images, targets, score, ranks, noise, count)
    return (scores[:, :1] - scores).mean(1)


@compiled_metric
def irof(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: Maps,
    *,
    score: Score = probability,
    regions: Regions = 16,
    num_regions: int | None = None,
    baseline: float | AnyArray | None = None,
) -> Float[Array, " batch"]:
    """Returns the area over the curve of the relative score, by regions of falling mean: IROF.

        IROF = 1 - ∫ y(x_l) / y(x) d(l / L)

    The paper takes superpixels (SLIC) and the mean color of the image for a region that is removed: pass the
    numbers of a segmentation as `regions`. Quantus does not divide by L, so that its value grows with the
    number of regions.

    Args:
        score: positive: the relative score of a logit means nothing.
        baseline: the mean color of each image if left out.

    Returns:
        (batch,), at most 1, higher is better; negative where the score rises.

    References:
        Rieger, Hansen, IROF: a low resource evaluation metric for explanation methods, 2020.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.array([[[[1.0], [1.0], [4.0], [4.0]]]])
        >>> found = irof(
        ...     apply, None, images, None, images[..., 0], score=total, regions=2, baseline=0.0
        ... )
        >>> print(found.round(2))
        [0.65]
    """
    images = jnp.asarray(images)
    heatmaps = check_maps("heatmaps", heatmaps, images)
    places, count = as_regions(regions, heatmaps, num_regions)
    areas = of_each_region(jnp.ones_like(heatmaps), places, count)
    means = of_each_region(heatmaps, places, count) / jnp.maximum(areas, 1)
    cover = images.mean((1, 2), keepdims=True) if baseline is None else baseline
    ranks = _ranks(means, places, count)
    area = _curve(_scores(apply, variables, images, targets, score, ranks, cover, count))
    return 1 - area.area / area.scores[:, 0]


def _ranks(values: Float[Array, "batch regions"], places: Array, count: int) -> Array:
    """Returns the place of the region of each pixel in the order of falling values, from 0."""
    is_there = of_each_region(jnp.ones(places.shape), places, count) > 0
    falling = jnp.where(is_there, -values, jnp.inf)
    return at_pixels(jnp.argsort(jnp.argsort(falling, axis=1), axis=1), places)


def _scores(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    score: Score,
    ranks: Shaped[Array, "batch height width"],
    baseline: float | AnyArray,
    count: int,
) -> Float[Array, "batch steps"]:
    """Returns the score with none, one, ... `count` regions replaced, one after the other."""
    images = jnp.asarray(images)
    cover = broadcast_baseline(baseline, images)

    def score_after(number):
        covered = jnp.where(ranks[..., None] < number, cover, images)
        return score(apply(variables, covered), targets)

    return jax.lax.map(score_after, jnp.arange(count + 1)).T


def _curve(scores: Float[Array, "batch steps"]) -> FlippingCurve:
    shares = jnp.linspace(0, 1, scores.shape[1], dtype=scores.dtype)
    return FlippingCurve(scores, jnp.trapezoid(scores, shares, axis=1), shares)
