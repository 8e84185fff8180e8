"""Linear models of the score as a function of which features are kept.

They are fitted to the scores of many coalitions of features: see `vexplain.attribution.shapley` for v, N
and S. Every pixel carries the coefficient of its feature.

In all functions:
    features: what is kept or covered as one, see `vexplain.attribution.perturbation`: a grid of patches, by
        its (rows, columns) or one number for both; "pixel", "channel" or "superpixel"; labels of the pixels.
    baseline: what covers: a number, (channels,), or an array that broadcasts to the images.
    num_at_once: perturbed copies of each image in a pass; by default 16 of one image, else one.
Features or a baseline that do not fit the images, or a count less than 1, raise ValueError.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.masking import Game, coalition, game
from vexplain.attribution.partitions import Features, known_features
from vexplain.typing import AnyArray, Array, Float, Shaped, Targets

_MOST_FEATURES = 2048  # of a regression, which solves equations for each image
_SWEEPS = 100  # of coordinate descent
_Maps = Float[Array, "batch height width _channels"]


@attribution_method(before=known_features)
def lime(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    key: Shaped[Array, " batch"],
    features: Features = "superpixel",
    num_masks: int = 1000,
    kernel_width: float | None = 0.25,
    penalty: str = "ridge",
    alpha: float = 1.0,
    baseline: float | AnyArray = 0.0,
    num_at_once: int | None = None,
) -> _Maps:
    """Returns the coefficients of a linear model that was fitted to the scores around an image.

    With z which of the d features are kept, each with probability 1/2, v(z) the score, and π(z) how close
    z is to the whole image,

        π(z) = exp(-D(z)² / (2 width²)),    D(z) = 1 - √(|z| / d), the cosine distance from z to all ones
        ridge:  argmin over β_0, β of Σ_z π(z) (v(z) - β_0 - zᵀβ)² + α |β|²
        lasso:  argmin over β_0, β of Σ_z π(z) (v(z) - β_0 - zᵀβ)² / (2 Σ_z π(z)) + α |β|_1

    Where `num_masks` reaches 2^d, all z are taken once; else the first is the whole image. Of a linear score
    without penalty (α = 0), β_j is what covering the feature takes from it.

    Args:
        num_masks: values of z that are seen at most.
        kernel_width: width of π; `None` weighs all z alike.
        penalty: "ridge", as the authors' program has it, or "lasso", as Captum's, which is found by 100
            sweeps of coordinate descent.
        alpha: α, 0 or more, in the units of the score.

    Raises:
        ValueError: no such penalty, a negative `alpha`, a width that is not positive, or more than 2,048
            features.

    References:
        Ribeiro, Singh, Guestrin, "Why Should I Trust You?", KDD 2016, Equation 1 and Section 3.4.

    Example:
        >>> apply = lambda variables, images: images.sum((1, 2))
        >>> images, options = jnp.array([[[[0.5, 0.0], [1.0, 0.0]]]]), {"features": (1, 2), "alpha": 0.0}
        >>> maps = lime(apply, None, images, targets=0, key=jax.random.key(0), **options)
        >>> print(maps.ravel().round(5))
        [0.5 1. ]
    """
    check_choice("penalty", penalty, ("ridge", "lasso"))
    check_positive(num_masks=num_masks)
    if alpha < 0:
        raise ValueError(f"alpha is {alpha}: expected 0 or more")
    if kernel_width is not None and kernel_width <= 0:
        raise ValueError(f"kernel_width is {kernel_width}: expected a positive number, or None")
    played = game(network, images, targets, features, baseline)
    d, width, whole = _few(played), kernel_width or math.inf, network.scores(images, targets)
    is_all = 2**d <= num_masks

    def term(n):
        if is_all:
            kept = _of_each(coalition(n, d), key)
        else:
            kept = _drawn(key, n, lambda k: jax.random.bernoulli(k, shape=(d,))) | (n == 0)
        z = kept.astype(whole.dtype)
        weight = jnp.exp(-((1 - jnp.sqrt(z.mean(1, keepdims=True))) ** 2) / (2 * width**2))
        change = weight * (played.scores(kept) - whole)[:, None]
        return weight, weight * z, change, change * z, _outer(weight * z, z)

    total, *sums, gram = played.covered.total(term, 2**d if is_all else num_masks, num_at_once)
    z, change, slopes = (found / total for found in sums)
    gram, slopes = gram / total[:, :, None] - _outer(z, z), slopes - change * z
    if penalty == "lasso":
        return played.as_map(jax.vmap(_lasso, (0, 0, None))(gram, slopes, alpha))
    ridge = alpha / total[:, :, None] * jnp.eye(d, dtype=gram.dtype)
    return played.as_map(_solved(gram + ridge, slopes))


@attribution_method(before=known_features)
def kernel_shap(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    key: Shaped[Array, " batch"],
    features: Features = "superpixel",
    num_masks: int = 2048,
    baseline: float | AnyArray = 0.0,
    num_at_once: int | None = None,
) -> _Maps:
    """Returns Shapley values as the solution of a weighted regression on coalitions.

    With z the indicator of a coalition S of s features, 0 < s < d,

        φ = argmin Σ_z π(s) (v(∅) + zᵀφ - v(S))²    such that Σ_j φ_j = v(N) - v(∅),
        π(s) = (d - 1) / (C(d, s) s (d - s))                                            Theorem 2

    Over all coalitions, where `num_masks` reaches their number, these are the Shapley values; else coalitions
    are drawn by π, in pairs of one and its complement, and count alike.

    Args:
        num_masks: coalitions that are seen at most; at least twice the number of features, or all.

    Raises:
        ValueError: `num_masks` is too small, or there are more than 2,048 features.

    References:
        Lundberg and Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017; Covert and Lee,
        Improving KernelSHAP, AISTATS 2021, for the pairs.

    Example:
        >>> apply = lambda variables, images: images.prod((1, 2))
        >>> images, options = jnp.array([[[[0.5, 1.0], [1.0, 1.0]]]]), {"features": (1, 2)}
        >>> maps = kernel_shap(apply, None, images, targets=0, key=jax.random.key(0), **options)
        >>> print(maps.ravel().round(6))
        [0.25 0.25]
    """
    played = game(network, images, targets, features, baseline)
    d, (empty, whole) = _few(played), played.ends()
    share, sizes = (whole - empty)[:, None] / d, np.arange(1, d)
    if d == 1:
        return played.as_map(share)
    is_all = 2**d - 2 <= num_masks
    if not is_all and num_masks < 2 * d:
        raise ValueError(f"num_masks is {num_masks}: expected at least {2 * d} for {d} features")
    of_size = (d - 1) / (sizes * (d - sizes))  # π times the number of coalitions

    def drawn(k):
        of_sizes, of_places = jax.random.split(k)
        return jax.random.permutation(of_places, d) <= jax.random.categorical(of_sizes, jnp.log(of_size))

    def term(n):
        if is_all:
            kept = _of_each(coalition(n + 1, d), key)
            weights = jnp.asarray(of_size / [math.comb(d, s) for s in sizes], share.dtype)
            weight = weights[kept.sum(1, keepdims=True) - 1]
        else:
            kept, weight = _drawn(key, n // 2, drawn) ^ (n % 2 == 1), 1
        size = kept.sum(1, keepdims=True).astype(share.dtype)
        z = kept - size / d  # without the part along (1, ..., 1), which the sum of all values fixes
        rest = (played.scores(kept) - empty)[:, None] - size * share
        return _outer(weight * z, z), weight * z * rest

    count = 2**d - 2 if is_all else num_masks
    return played.as_map(share + _solved(*played.covered.total(term, count, num_at_once)))


def _few(played: Game) -> int:
    """The number of features, which is not too large for a regression."""
    if (d := played.num_features) > _MOST_FEATURES:
        raise ValueError(
            f"features are {d}: expected at most {_MOST_FEATURES}, as a regression solves so many equations "
            "for each image; take fewer, or feature_ablation or shapley_sampling"
        )
    return d


def _of_each(values: Array, key: Array) -> Array:
    return jnp.broadcast_to(values, (len(key), len(values)))


def _drawn(key: Array, n: Any, draw: Any) -> Array:
    return jax.vmap(lambda k: draw(jax.random.fold_in(k, n)))(key)


def _outer(first: Array, second: Array) -> Array:
    return first[:, :, None] * second[:, None, :]


def _solved(gram: Array, slopes: Array) -> Array:
    """The shortest solution of gram · x = slopes, of each image."""
    return jnp.einsum("bij,bj->bi", jnp.linalg.pinv(gram, hermitian=True), slopes, precision="highest")


def _lasso(gram: Array, slopes: Array, alpha: float) -> Array:
    """argmin over x of xᵀ gram x / 2 - xᵀ slopes + alpha |x|_1."""

    def step(n, x):
        j = n % len(x)
        rest = slopes[j] - jnp.vdot(gram[j], x, precision="highest") + gram[j, j] * x[j]
        shrunk = jnp.sign(rest) * jnp.maximum(jnp.abs(rest) - alpha, 0)
        is_seen = gram[j, j] > 0  # else the feature was always kept, or always covered
        return x.at[j].set(jnp.where(is_seen, shrunk / jnp.where(is_seen, gram[j, j], 1), 0))

    return jax.lax.fori_loop(0, _SWEEPS * len(slopes), step, jnp.zeros_like(slopes))
