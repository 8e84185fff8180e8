"""What attributions of any network should fulfill: completeness, no mass without effect, shift invariance."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vexplain._checks import check_positive
from vexplain.attribution import Score, logit
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.catalog import MethodFn
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation._regions import (
    Keys,
    Maps,
    Regions,
    as_regions,
    check_maps,
    image_keys,
    of_each_region,
)
from vexplain.evaluation.robustness import explained_targets, norm
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Images, PyTree, Targets, Variables


@compiled_metric
def completeness_gap(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    attributions: Maps,
    *,
    score: Score = logit,
    baseline: float | AnyArray = 0.0,
) -> Float[Array, " batch"]:
    """Returns how far the sum of the attributions is from what the score gains over a baseline.

        | Σ_p a_p - (y(x) - y(baseline)) |

    Quantus returns whether it is exactly 0, which rounding decides.

    Args:
        attributions: (batch, height, width), signed; summed over channels.
        baseline: from which the method measures: a number, (channels,), or what broadcasts to the images.

    Returns:
        (batch,), 0 or more in the unit of the score, lower is better; 0 where completeness holds.

    References:
        Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks, ICML 2017, Proposition 1.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.array([[[[0.5], [1.0]]]])
        >>> print(completeness_gap(apply, None, images, None, 2 * images[..., 0], score=total))
        [1.5]
    """
    images = jnp.asarray(images)
    attributions = check_maps("attributions", attributions, images)
    without = apply(variables, broadcast_baseline(baseline, images))
    gain = score(apply(variables, images), targets) - score(without, targets)
    return jnp.abs(attributions.sum((1, 2)) - gain)


@compiled_metric
def non_sensitivity(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    attributions: Maps,
    *,
    key: Keys,
    score: Score = logit,
    regions: Regions = 8,
    num_regions: int | None = None,
    num_samples: int = 5,
    threshold: float = 1e-5,
) -> Float[Array, " batch"]:
    """Returns how many regions have mass without effect, or effect without mass.

        | A₀ △ X₀ |,   A₀ = { R : Σ_{p in R} |a_p| <= t Σ_p |a_p| },
                       X₀ = { R : E_z[ (y(x) - y(x with z at R))² ] <= t² y(x)² },    z uniform in [0, 1]

    The paper takes single features and exact zeros; regions and the threshold are *ours*, since rounding
    leaves no exact zero. Quantus has one threshold in the units of the map and of the score, and counts
    negative attributions as none.

    Args:
        attributions: (batch, height, width), signed; summed over channels.
        regions: the size of square patches, or the numbers of a segmentation, as in `faithfulness`.
        num_regions: how many regions there are, where they are traced.
        num_samples: how often the pixels of a region are drawn.
        threshold: t, the share that no longer counts as zero.

    Returns:
        (batch,) from 0 to the number of regions, lower is better.

    References:
        Nguyen, Martínez, On quantitative aspects of model interpretability, 2020, Section 3.1.

    Example:
        >>> apply, total = lambda variables, images: images[:, :, 0].sum((1, 2)), lambda outputs, _: outputs
        >>> images, attributions = jnp.full((1, 2, 3, 1), 0.5), jnp.ones((1, 2, 3))
        >>> options = {"score": total, "regions": 1, "key": jax.random.key(0)}
        >>> print(non_sensitivity(apply, None, images, None, attributions, **options))  # two columns too many
        [4.]
    """
    check_positive(num_samples=num_samples)
    images = jnp.asarray(images)
    sizes = jnp.abs(check_maps("attributions", attributions, images))
    places, count = as_regions(regions, sizes, num_regions)
    keys = image_keys("non_sensitivity", key, len(images))
    whole = score(apply(variables, images), targets)

    def effect(region):
        inside = (places == region)[..., None]

        def of_draw(n):
            drawn = jax.vmap(lambda key: jax.random.fold_in(key, region * num_samples + n))(keys)
            noise = jax.vmap(lambda key: jax.random.uniform(key, images.shape[1:], images.dtype))(drawn)
            return (whole - score(apply(variables, jnp.where(inside, noise, images)), targets)) ** 2

        return jax.lax.map(of_draw, jnp.arange(num_samples)).mean(0)

    effects = jax.lax.map(effect, jnp.arange(count)).T
    masses = of_each_region(sizes, places, count)
    has_no_mass = masses <= threshold * masses.sum(1, keepdims=True)
    has_no_effect = effects <= (threshold * whole[:, None]) ** 2
    return (has_no_mass != has_no_effect).sum(1).astype(images.dtype)


@compiled_metric
def input_invariance(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    score: Score = logit,
    key: Keys = None,
    shift: float = 0.1,
) -> Float[Array, " batch"]:
    """Returns how much the map changes when a constant is added to the images and taken off in the network.

        ‖a'(x + s) - a(x)‖ / ‖a(x)‖,    a' of the network f'(x) = f(x - s),    f'(x + s) = f(x)

    Both networks compute the same, so the maps should be equal. Methods that measure from a fixed baseline or
    multiply by the image fail, as in the paper: the baseline is not moved. Quantus returns
    whether all values are equal.

    Args:
        method: a function of the signature of all methods.
        key: for methods that draw, one, or one an image.
        shift: s, in the unit of the images.

    Returns:
        (batch,), 0 or more, lower is better; 0 where the map is invariant.

    References:
        Kindermans et al., The (Un)reliability of Saliency Methods, 2019, Section 2.

    Example:
        >>> from vexplain.attribution import gradient, input_x_gradient
        >>> apply, images = lambda variables, images: images.sum((1, 2)), jnp.full((1, 2, 2, 2), 0.5)
        >>> methods = (gradient, input_x_gradient)
        >>> print(*(input_invariance(method, apply, None, images, 0).round(3) for method in methods))
        [0.] [0.2]
    """
    images = jnp.asarray(images)
    keys = None if key is None else image_keys("input_invariance", key, len(images))
    targets = explained_targets(apply, variables, images, targets, score)
    explained = functools.partial(method, score=score, key=keys)

    def moved(variables: Any, images: Any) -> Any:
        return apply(variables, images - shift)

    # Within a trace the images may leave [0, 1].
    first = explained(apply, variables, images, targets)
    second = explained(moved, variables, images + shift, targets)
    size = norm(first)
    return jnp.where(size > 0, norm(second - first) / jnp.where(size > 0, size, 1), norm(second))
