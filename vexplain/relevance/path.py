"""How the relevant features depend on the bound mu, which mu to take, and how far the choice would be another
with other images: all from the sums of parts of a dataset, without a second pass over the images.

The sums of disjoint parts add up. So those of all parts but one are a training set and those of the one its
held-out set (cross-validation), those of parts drawn with replacement are a bootstrap sample, and those of
one part of ten are what a tenth of the images gives.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from vexplain.relevance.lasso import mu_lasso
from vexplain.relevance.statistics import Statistics


class MuPath(NamedTuple):
    """The solutions for several bounds, in ascending order of mu."""

    bounds: Float[np.ndarray, " bounds"]
    weights: Float[np.ndarray, "bounds features classes"]
    num_features: Int[np.ndarray, "bounds classes"]  # with a weight that is not zero
    fits: Float[np.ndarray, "bounds classes"]  # R^2: 1 - squared error / sum l^2
    agreement: Float[np.ndarray, " bounds"]  # of class means, see `mu_path`


class SelectedMu(NamedTuple):
    """The bound that cross-validation takes."""

    mu: float
    bounds: Float[np.ndarray, " bounds"]
    errors: Float[np.ndarray, "parts bounds"]  # squared error on the part held out, over its sum of l^2
    threshold: float  # what the mean error must not exceed: the least one and its standard error


class Stability(NamedTuple):
    """Jaccard indices of the selected features with those of all images: 1 where they are the same."""

    leave_one_out: Float[np.ndarray, "parts classes"]  # all parts but one
    bootstrap: Float[np.ndarray, "draws classes"]  # as many parts, drawn with replacement
    one_part: Float[np.ndarray, "parts classes"]  # one part alone; of ten parts: 10 % of the images


class _Sums(NamedTuple):
    gram: np.ndarray
    cross: np.ndarray
    counts: np.ndarray


def mu_path(
    statistics: Statistics, bounds: Sequence[float | int] | np.ndarray, *, nonnegative: bool = True
) -> MuPath:
    """The mu-lasso for several mu, each started at the solution of the last smaller one.

        fit       = 1 - ||X^T w_j - l_j||^2 / ||l_j||^2                             (R^2 without a mean)
        agreement = share of images whose class j has  argmax_i <w_i, mean of x over class j> = j   (*ours*)

    Whether the regression's largest score is the network's class in each single image cannot be had from the
    sums: that needs `responses @ weights` of every image. The agreement here is that of the mean response of
    each class, which can: whether the features tell the classes apart on average.

    Args:
        statistics: the sums over all images, from `gram_statistics`. A class without images has weights 0,
            fit 0.
        bounds: the values of mu, positive; sorted here.
        nonnegative: demand weights >= 0.

    Raises:
        ValueError: no bound; and what `mu_lasso` raises.

    Example:
        >>> cross = np.array([[3.0, 0.0], [1.0, 2.0], [2.0, 0.0]])
        >>> path = mu_path(Statistics(np.eye(3), cross, np.array([14.0, 4.0]), np.array(18.0)), [1, 3, 10])
        >>> path.num_features.tolist()
        [[1, 1], [2, 1], [3, 1]]
        >>> path.fits.round(2).tolist()
        [[0.36, 0.75], [0.79, 1.0], [1.0, 1.0]]
    """
    sums = _sums([statistics], [1.0])
    ascending = _ascending(bounds)
    weights = _solved_path(sums, ascending, nonnegative)
    errors = np.stack([_squared_errors(sums, some) for some in weights])
    safe = np.where(sums.counts > 0, sums.counts, 1)
    scores = np.einsum("bmi,mj->bij", weights, sums.cross / safe)
    is_right = scores.argmax(1) == np.arange(len(safe))
    return MuPath(
        bounds=ascending,
        weights=weights,
        num_features=np.count_nonzero(weights, axis=1),
        fits=np.where(sums.counts > 0, 1 - errors / safe, 0.0),
        agreement=(is_right * sums.counts).sum(1) / sums.counts.sum(),
    )


def select_mu(
    parts: Sequence[Statistics], bounds: Sequence[float | int] | np.ndarray, *, nonnegative: bool = True
) -> SelectedMu:
    """The smallest mu whose cross-validated error is within one standard error of the least.

    Each part is held out in turn, the regression solved from the sums of the others, and its squared error on
    the part taken from the part's own sums. The error alone would choose the largest model that does not
    overfit; features are to be looked at, so that the fewest are taken whose error is not distinguishable
    from the least (Breiman and others call it the one-standard-error rule). The standard error is that of the
    parts, which overlap in their training images and so vary a little too little: more parts do not hurt.

    Args:
        parts: the sums of disjoint parts of the images, two or more; ten are usual. Each is a random part:
            images in order of their class would leave whole classes out.
        bounds: the values of mu to choose from.
        nonnegative: demand weights >= 0.

    Raises:
        ValueError: fewer than two parts, no bound; and what `mu_lasso` raises.

    References:
        Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984, section 3.4.3.
        Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 2009, section 7.10.

    Example:
        >>> part = Statistics(np.eye(2), np.eye(2), np.ones(2), np.array(2.0))
        >>> select_mu([part, part], [0.5, 1, 2]).mu
        1.0
    """
    _check_parts(parts)
    ascending = _ascending(bounds)
    errors = np.zeros((len(parts), len(ascending)))
    for index, part in enumerate(parts):
        weights = _solved_path(_sums(parts, _all_but(index, len(parts))), ascending, nonnegative)
        held_out = _sums([part], [1.0])
        errors[index] = [_squared_errors(held_out, some).sum() for some in weights]
        errors[index] /= held_out.counts.sum()
    means = errors.mean(0)
    best = int(means.argmin())
    threshold = float(means[best] + errors[:, best].std(ddof=1) / np.sqrt(len(parts)))
    chosen = float(ascending[np.flatnonzero(means <= threshold)[0]])
    return SelectedMu(chosen, ascending, errors, threshold)


def stability(
    parts: Sequence[Statistics],
    *,
    mu: float | int = 10.0,
    nonnegative: bool = True,
    num_draws: int = 100,
    seed: int = 0,
) -> Stability:
    """How much the selected features of each class stay the same with other images.

        Jaccard index of two sets of features = |both| / |either|, and 1 where neither has one

    Args:
        parts: the sums of disjoint random parts of the images, two or more.
        mu: bound on the L1 norm of each class.
        nonnegative: demand weights >= 0.
        num_draws: bootstrap samples. They draw whole parts, which is a bootstrap of blocks of images.
        seed: of the draws.

    Raises:
        ValueError: fewer than two parts; and what `mu_lasso` raises.

    References:
        Meinshausen, Bühlmann, Stability selection, 2010. Jaccard, The distribution of the flora, 1912.

    Example:
        >>> part = Statistics(np.eye(2), np.eye(2), np.ones(2), np.array(2.0))
        >>> jaccard_interval(stability([part, part, part], mu=1, num_draws=5).bootstrap)
        (1.0, 1.0, 1.0)
    """
    _check_parts(parts)
    num_parts, start = len(parts), None

    def selected(weights_of_parts: np.ndarray) -> Bool[np.ndarray, "features classes"]:
        sums = _sums(parts, weights_of_parts)
        return _solved(sums, float(mu), nonnegative, start) != 0

    start = _solved(_sums(parts, np.ones(num_parts)), float(mu), nonnegative, None)
    everything = start != 0
    draws = np.random.default_rng(seed).multinomial(num_parts, np.full(num_parts, 1 / num_parts), num_draws)
    one_each = np.eye(num_parts)
    return Stability(
        leave_one_out=np.stack([_jaccard(selected(1 - one), everything) for one in one_each]),
        bootstrap=np.stack([_jaccard(selected(draw), everything) for draw in draws]),
        one_part=np.stack([_jaccard(selected(one), everything) for one in one_each]),
    )


def jaccard_interval(
    indices: Float[np.ndarray, "repeats classes"], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """The mean of Jaccard indices, and its percentile interval over the repeats: (mean, low, high).

    Args:
        indices: one of the arrays of `Stability`, (repeats, classes). The interval is that of the repeats'
            means over the classes. Of "bootstrap" it is a percentile bootstrap confidence interval; of the
            others it shows how far the parts differ.
        confidence: of the interval, 0 to 1.

    Example:
        >>> jaccard_interval(np.array([[0.0, 0.2], [0.4, 0.6], [0.8, 1.0]]), confidence=0.5)
        (0.5, 0.3, 0.7)
    """
    means = indices.mean(1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return round(float(means.mean()), 12), round(float(low), 12), round(float(high), 12)


def _jaccard(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    either = (first | second).sum(0)
    return np.where(either > 0, (first & second).sum(0) / np.maximum(either, 1), 1.0)


def _all_but(index: int, number: int) -> np.ndarray:
    return np.where(np.arange(number) == index, 0.0, 1.0)


def _sums(parts: Sequence[Statistics], weights: Sequence[float] | np.ndarray) -> _Sums:
    """The weighted sums of some parts, in float64."""
    gram, cross, counts = 0.0, 0.0, 0.0
    for part, weight in zip(parts, weights, strict=True):
        if weight:
            gram = gram + weight * part.gram
            cross = cross + weight * part.cross
            counts = counts + weight * part.counts
    return _Sums(*map(np.asarray, (gram, cross, counts)))


def _solved_path(sums: _Sums, bounds: np.ndarray, nonnegative: bool) -> np.ndarray:
    found: list[np.ndarray] = []
    for mu in bounds:
        found.append(_solved(sums, float(mu), nonnegative, found[-1] if found else None))
    return np.stack(found)


def _solved(sums: _Sums, mu: float, nonnegative: bool, start: np.ndarray | None) -> np.ndarray:
    """The weights of all classes, zero where a class has no image."""
    weights, has_images = np.zeros_like(sums.cross), sums.counts > 0
    weights[:, has_images] = mu_lasso(
        sums.gram,
        sums.cross[:, has_images],
        sums.counts[has_images],
        mu=mu,
        nonnegative=nonnegative,
        start=None if start is None else start[:, has_images],
        check=start is None,
    ).weights
    return weights


def _squared_errors(sums: _Sums, weights: np.ndarray) -> np.ndarray:
    """||X^T w_j - l_j||^2 of each class."""
    used = np.flatnonzero(weights.any(1))
    few = weights[used]
    squares = np.einsum("mc,mc->c", few, sums.gram[np.ix_(used, used)] @ few)
    return sums.counts - 2 * np.einsum("mc,mc->c", few, sums.cross[used]) + squares


def _ascending(bounds: Sequence[float | int] | np.ndarray) -> np.ndarray:
    ascending = np.unique(np.asarray(bounds, np.float64))
    if not len(ascending):
        raise ValueError("bounds is empty: give the values of mu, for instance np.geomspace(0.1, 10, 10)")
    return ascending


def _check_parts(parts: Sequence[Statistics]) -> None:
    if len(parts) < 2:
        raise ValueError(
            f"parts: expected the sums of two or more disjoint parts of the images, got {len(parts)}; run "
            "the pass of `gram_statistics` over each part by itself"
        )
