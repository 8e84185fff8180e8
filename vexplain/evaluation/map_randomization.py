"""How alike maps are to those of another class, or of a network whose weights were shuffled, image by image.

The numbers beside which `sanity_checks` gives verdicts: there the relevant features are found again, controls
are compared and intervals decide. Here is one value an image for a table of metrics.

In all functions:
    method: a function of the signature of all methods.
    similarity: of two heatmaps in [0, 1]: `heatmap_ssim`, `rank_correlation`, or a function of one's own.
    sign: by which signed attributions are heatmaps, see `SIGNS`.
    key: one, or one an image.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.attribution import Score, logit
from vexplain.attribution.scores import num_classes_of
from vexplain.catalog import MethodFn
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation._regions import Keys, image_keys
from vexplain.evaluation.explained_network import SIGNS, as_heatmaps
from vexplain.evaluation.randomization import parameter_groups, randomized_variables
from vexplain.evaluation.robustness import explained_targets
from vexplain.evaluation.similarity import heatmap_ssim, rank_correlation
from vexplain.transforms import fast_in_loops
from vexplain.typing import ApplyFn, Array, Float, Heatmaps, Images, Targets, Variables

Similarity = Callable[[Heatmaps, Heatmaps], Float[Array, " batch"]]


@compiled_metric
def random_logit(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    key: Keys,
    score: Score = logit,
    similarity: Similarity = heatmap_ssim,
    sign: str = SIGNS[1],
) -> Float[Array, " batch"]:
    """Returns how alike the map of the class is to that of another class, drawn at random.

    Quantus draws the class too; the paper looks at one other class.

    Returns:
        (batch,), lower is better: a map that is the same for another class does not explain this one.

    References:
        Sixt, Granz, Landgraf, When Explanations Lie: Why Many Modified BP Attributions Fail, ICML 2020,
        Section 5.

    Example:
        >>> from vexplain.attribution import gradient
        >>> apply, images = lambda weights, images: images.reshape(1, -1) @ weights, jnp.ones((1, 12, 12, 1))
        >>> weights = jnp.stack([jnp.ones(144), jnp.arange(144.0)], axis=1)
        >>> print(random_logit(gradient, apply, weights, images, 0, key=jax.random.key(0)).round(1))
        [0.]
    """
    check_choice("sign", sign, SIGNS)
    images = jnp.asarray(images)
    keys = image_keys("random_logit", key, len(images))
    targets = explained_targets(apply, variables, images, targets, score)
    num_classes = num_classes_of(score, jax.eval_shape(apply, variables, images))
    if num_classes is None or num_classes < 2:
        raise ValueError("score has no classes: expected vexplain.logit, probability, margin or binary")
    draw = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 0), (), 1, num_classes))
    others = (jnp.asarray(targets) + draw(keys)) % num_classes
    explained = functools.partial(method, apply, variables, images, score=score, key=keys)
    return similarity(*(as_heatmaps(explained(of), sign) for of in (targets, others)))


@compiled_metric
def parameter_randomization(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    score: Score = logit,
    key: Keys = None,
    groups: Sequence[str] | None = None,
    similarity: Similarity = rank_correlation,
    sign: str = SIGNS[1],
    num_samples: int = 1,
    noise_level: float = 0.0,
    draw: Literal["permutation", "normal"] = "permutation",
    seed: int = 0,
) -> Float[Array, "batch stages"]:
    """Returns how alike the map is to that of the network with its weights shuffled, stage after stage: MPRT.

    With `num_samples` above 1 the maps are means over noisy copies of the image: smooth MPRT. The paper draws
    the weights anew as they were initialized; `randomized_variables` permutes them.

    Args:
        key: for methods that draw and for the noise.
        groups: the order of the cascade, for instance of `parameter_groups_from_output`: stage n shuffles the
            first n. All at once, in one stage, if left out: where the cascade ends.
        num_samples: how many noisy copies.
        noise_level: standard deviation of the noise, in the unit of the images.
        draw: see `randomized_variables`.
        seed: of the shuffling: one shuffled network for all images.

    Returns:
        (batch, stages), lower is better: a map that survives does not depend on what was learned.

    References:
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, Section 3.
        Hedström, Weber, Lapuschkin, Höhne, Sanity Checks Revisited, 2024 (smooth and efficient MPRT).

    Example:
        >>> from vexplain.attribution import gradient
        >>> apply = lambda variables, images: images.reshape(1, -1) @ variables["head"]
        >>> variables = {"head": jax.random.normal(jax.random.key(0), (144, 2))}
        >>> found = parameter_randomization(gradient, apply, variables, jnp.ones((1, 12, 12, 1)), 0)
        >>> found.shape, bool(found[0, 0] < 0.3)
        ((1, 1), True)
    """
    check_choice("sign", sign, SIGNS)
    _check_method("parameter_randomization", method)
    images = jnp.asarray(images)
    targets = explained_targets(apply, variables, images, targets, score)
    keys = None if key is None else image_keys("parameter_randomization", key, len(images))
    if num_samples > 1 and keys is None:
        raise ValueError("key is None: the noisy copies are drawn; pass key=jax.random.key(0)")

    def heatmaps(variables):
        def of_copy(n):
            copies = images
            if num_samples > 1:
                drawn = jax.vmap(lambda key: jax.random.fold_in(key, n))(keys)
                noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))(drawn)
                copies = images + noise_level * noise
            return method(apply, variables, copies, targets, score=score, key=keys)

        return as_heatmaps(jax.lax.map(fast_in_loops(of_copy), jnp.arange(num_samples)).mean(0), sign)

    order = parameter_groups(variables) if groups is None else tuple(groups)
    stages = [order] if groups is None else [order[: n + 1] for n in range(len(order))]
    own, network_key = heatmaps(variables), jax.random.key(seed)
    found = [
        similarity(own, heatmaps(randomized_variables(network_key, variables, groups=stage, draw=draw)))
        for stage in stages
    ]
    return jnp.stack(found, axis=1)


@compiled_metric
def efficient_parameter_randomization(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    score: Score = logit,
    key: Keys = None,
    sign: str = SIGNS[1],
    num_bins: int = 100,
    draw: Literal["permutation", "normal"] = "permutation",
    seed: int = 0,
) -> Float[Array, " batch"]:
    """Returns how much more complex the map is once all weights are shuffled: efficient MPRT.

        (ξ(a') - ξ(a)) / ξ(a),    ξ the entropy of a histogram of the values of the map

    with a' the map of the network with all weights shuffled: no similarity and no order of layers is chosen.

    Args:
        key: for methods that draw.
        num_bins: of the histogram over the range [0, 1] of the heatmap.
        draw: see `randomized_variables`.
        seed: of the shuffling.

    Returns:
        (batch,), higher is better; NaN for a map with one value only, which has no entropy.

    References:
        Hedström, Weber, Lapuschkin, Höhne, Sanity Checks Revisited, 2024, Section 4.2.

    Example:
        >>> from vexplain.attribution import gradient
        >>> apply = lambda variables, images: images.reshape(1, -1) @ variables["head"]
        >>> variables = {"head": jax.random.normal(jax.random.key(0), (144, 2))}
        >>> images = jnp.ones((1, 12, 12, 1))
        >>> found = efficient_parameter_randomization(gradient, apply, variables, images, 0)
        >>> bool(abs(found[0]) < 0.2)  # a permutation of independent weights is as complex
        True
    """
    check_choice("sign", sign, SIGNS)
    _check_method("efficient_parameter_randomization", method)
    images = jnp.asarray(images)
    targets = explained_targets(apply, variables, images, targets, score)
    keys = None if key is None else image_keys("efficient_parameter_randomization", key, len(images))
    shuffled = randomized_variables(jax.random.key(seed), variables, draw=draw)
    own, other = (
        histogram_entropy(
            as_heatmaps(method(apply, of, images, targets, score=score, key=keys), sign), num_bins=num_bins
        )
        for of in (variables, shuffled)
    )
    return jnp.where(own > 0, (other - own) / jnp.where(own > 0, own, 1), jnp.nan)


def histogram_entropy(heatmaps: Heatmaps, *, num_bins: int = 100) -> Float[Array, " batch"]:
    """Returns the entropy, in nats, of the values of each heatmap in equal bins over [0, 1].

    Args:
        heatmaps: (batch, height, width) in [0, 1].
        num_bins: how many.

    Example:
        >>> print(histogram_entropy(jnp.array([[[0.0, 1.0, 0.0, 1.0]]])).round(4))
        [0.6931]
    """
    bins = jnp.clip((heatmaps * num_bins).astype(int), 0, num_bins - 1).reshape(len(heatmaps), -1)
    counts = jax.vmap(lambda row: jnp.bincount(row, length=num_bins))(bins)
    shares = counts / bins.shape[1]
    return -(shares * jnp.log(jnp.where(shares > 0, shares, 1))).sum(1)


def _check_method(name: str, method: Any) -> None:
    if isinstance(method, functools.partial) and method.keywords.get("relevance") is not None:
        raise ValueError(
            f"method has a relevance: {name} would show the features of another network; pass it to "
            "sanity_checks, which finds them again"
        )
