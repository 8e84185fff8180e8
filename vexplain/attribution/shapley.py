"""Shapley values of features: what each adds to the score, in the mean over the orders in which they come.

With N the d features of an image and v(S) the score of the image whose features S are kept and whose others
the baseline covers, the Shapley value of feature j is

    φ_j = Σ over S without j of |S|! (d - |S| - 1)! / d! (v(S with j) - v(S)),        Σ_j φ_j = v(N) - v(∅)

Every pixel carries the value of its feature.

In all functions:
    features: what is kept or covered as one, see `vexplain.attribution.perturbation`: a grid of patches, by
        its (rows, columns) or one number for both; "pixel", "channel" or "superpixel"; labels of the pixels.
    baseline: what covers: a number, (channels,), or an array that broadcasts to the images.
    num_at_once: perturbed copies of each image in a pass; by default 16 of one image, else one.
Features or a baseline that do not fit the images, or a count less than 1, raise ValueError.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.masking import coalition, game
from vexplain.attribution.partitions import Features, known_features
from vexplain.typing import AnyArray, Array, Float, Shaped, Targets

_MOST_EXACT = 16  # features, whose 65,536 coalitions are all seen
_Maps = Float[Array, "batch height width _channels"]


@attribution_method(before=known_features)
def exact_shapley(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    features: Features = 3,
    baseline: float | AnyArray = 0.0,
    num_at_once: int | None = None,
) -> _Maps:
    """Returns the Shapley values of few features, from the scores of all 2^d coalitions.

    The sum of the module is ordered by coalitions, each of which is seen once:

        φ_j = Σ_S v(S) (|S| - 1)! (d - |S|)! / d!     over S with j
            - Σ_S v(S) |S|! (d - |S| - 1)! / d!       over S without j

    Raises:
        ValueError: there are more than 16 features.

    References:
        Shapley, A Value for n-Person Games, 1953.

    Example:
        >>> apply = lambda variables, images: images.prod((1, 2))
        >>> images = jnp.array([[[[0.5, 1.0], [1.0, 1.0]]]])
        >>> print(exact_shapley(apply, None, images, targets=0, features=(1, 2)).ravel())
        [0.25 0.25]
    """
    played = game(network, images, targets, features, baseline)
    if (d := played.num_features) > _MOST_EXACT:
        raise ValueError(
            f"features are {d}, which have 2^{d} coalitions: expected at most {_MOST_EXACT}; take fewer, or "
            "kernel_shap or shapley_sampling"
        )
    with_j = np.array([0, *(1 / (d * math.comb(d - 1, s - 1)) for s in range(1, d + 1))])
    without_j = np.array([*(1 / (d * math.comb(d - 1, s)) for s in range(d)), 0])
    empty, _ = played.ends()

    def term(n):
        is_kept = coalition(n, d)
        size, value = is_kept.sum(), (played.scores(is_kept) - empty)[:, None]
        gained, lost = (jnp.asarray(w, value.dtype)[size] for w in (with_j, without_j))
        return value * jnp.where(is_kept, gained, -lost)

    return played.as_map(played.covered.total(term, 2**d, num_at_once))


@attribution_method(before=known_features)
def shapley_sampling(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    key: Shaped[Array, " batch"],
    features: Features = 8,
    num_permutations: int = 25,
    baseline: float | AnyArray = 0.0,
    num_at_once: int | None = None,
) -> _Maps:
    """Returns Shapley values estimated from random orders of the features.

    With S_π(j) the features that come before j in the order π, of n orders drawn evenly,

        φ_j ≈ 1/n Σ_π v(S_π(j) with j) - v(S_π(j))

    It is unbiased, and the values of an image sum to v(N) - v(∅) for any n.

    Args:
        num_permutations: n; each takes as many passes as there are features.

    References:
        Castro, Gómez, Tejada, Polynomial Calculation of the Shapley Value Based on Sampling, 2009; Štrumbelj
        and Kononenko, An Efficient Explanation of Individual Classifications, JMLR 2010.

    Example:
        >>> apply = lambda variables, images: images.sum((1, 2))
        >>> images, options = jnp.array([[[[0.5, 0.0], [1.0, 0.0]]]]), {"features": (1, 2)}
        >>> print(shapley_sampling(apply, None, images, targets=0, key=jax.random.key(0), **options).ravel())
        [0.5 1. ]
    """
    check_positive(num_permutations=num_permutations)
    played = game(network, images, targets, features, baseline)
    (empty, _), total, d = played.ends(), played.covered.total, played.num_features

    def of_permutation(n):
        places = jax.vmap(lambda k: jax.random.permutation(jax.random.fold_in(k, n), d))(key)

        def term(last):  # a coalition counts for the feature that came last, and against the next
            value = (played.scores(places <= last) - empty)[:, None]
            return value * ((places == last).astype(value.dtype) - (places == last + 1))

        return total(term, d, num_at_once)

    return played.as_map(total(of_permutation, num_permutations, 1) / num_permutations)
