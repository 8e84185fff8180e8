"""Whether one method is better than another: differences on the same images, with their intervals.

Images differ more than methods do, so methods are compared image by image (a paired bootstrap). Over several
tasks (data sets, networks) the mean over tasks is compared, with the images of each task drawn again within
it, so that a large task counts no more than a small one.

An interval is for one difference: among the many of a table some leave out 0 by chance. Only the images vary:
what training another network would change is in none of them.
"""

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain.evaluation.scores import SCORES, Score
from vexplain.typing import Array, Float, Key


class Difference(NamedTuple):
    """The mean score of a method minus that of the reference, and its interval."""

    mean: float
    low: float
    high: float

    @property
    def is_above(self) -> bool:
        """Significantly above the reference."""
        return self.low > 0

    @property
    def is_below(self) -> bool:
        return self.high < 0


def compare(
    tasks: Mapping[str, Mapping[str, Score]],
    reference: str,
    *,
    num_resamples: int = 1000,
    coverage: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, Difference]]:
    """Returns by method and score how far each method is above a reference, in the mean over tasks.

    Only what is scored in every task is compared.

    Args:
        tasks: by name of the task, the scores of the methods in it, as `summarize` returned them.
        reference: the name of the method that the others are compared with.
        num_resamples: of `bootstrap_intervals`, and so is `coverage`.
        coverage: in (0, 1).
        seed: of the resampling.

    Example:
        >>> curve, values = np.zeros(101), np.linspace(0, 1, 9)
        >>> scores = {
        ...     "ours": Score({"best IoU": values}, curve, ""),
        ...     "gradient": Score({"best IoU": values - 0.25}, curve, ""),
        ... }
        >>> difference = compare({"flowers": scores}, "ours")["gradient"]["best IoU"]
        >>> round(difference.mean, 3), difference.is_below
        (-0.25, True)
    """
    check_resampling(num_resamples, coverage)
    if not tasks:
        raise ValueError("tasks is empty: expected the scores of one or more")
    for name, scores in tasks.items():
        _check_scores(name, scores, reference)
    everywhere = list(tasks.values())
    methods = [m for m in everywhere[0] if m != reference and all(m in scores for scores in everywhere)]
    known = [*SCORES, *(name for name in everywhere[0][reference].values if name not in SCORES)]
    names = [s for s in known if all(s in scores[m].values for scores in everywhere for m in scores)]
    if not methods or not names:
        return {method: {} for method in methods}
    strata = [_differences(scores, methods, names, reference) for scores in everywhere]
    intervals = bootstrap_intervals(
        jax.random.key(seed),
        [jnp.asarray(values, jnp.float32) for values in strata],
        num_resamples=num_resamples,
        coverage=coverage,
    )
    means = np.mean([values.mean(0) for values in strata], axis=0)
    found = np.concatenate([means[:, None], np.asarray(intervals)], axis=1).reshape(-1, len(names), 3)
    return {
        method: {name: Difference(*map(float, row)) for name, row in zip(names, rows, strict=True)}
        for method, rows in zip(methods, found, strict=True)
    }


def check_resampling(num_resamples: int, coverage: float) -> None:
    """Raises ValueError unless both may be those of a bootstrap interval."""
    check_positive(num_resamples=num_resamples)
    _check_coverage(coverage)


def _check_coverage(coverage: float) -> None:
    if not 0 < coverage < 1:
        raise ValueError(f"coverage is {coverage}: expected a number in (0, 1), as 0.95")


@functools.partial(jax.jit, static_argnames=("num_resamples", "coverage"))
def bootstrap_intervals(
    key: Key,
    strata: Sequence[Float[Array, "_examples columns"]],
    *,
    num_resamples: int = 1000,
    coverage: float = 0.95,
) -> Float[Array, "columns 2"]:
    """Returns the percentile bootstrap intervals (low, high) of many means at once: over strata of means.

        (1/S) Σ_s (1/n_s) Σ_i values_{s,i}

    The examples of each stratum are drawn again within it, with replacement and the same for all columns;
    the interval leaves (1 - coverage) / 2 of the means out on each side. With the differences of two methods
    on the same images in a column it is a paired bootstrap, and an interval without 0 is a difference at the
    level 1 - coverage. A stratum of a single example says nothing of its spread: then intervals are NaN.

    Args:
        strata: (examples, columns) of each stratum, for instance of each data set, one or more; examples may
            differ in number, and each stratum counts alike.
        num_resamples: how often they are drawn.
        coverage: of the intervals, in (0, 1).

    References:
        Efron, Tibshirani, An introduction to the bootstrap, 1993, chapters 8 and 13.

    Example:
        >>> differences = jnp.stack([jnp.full(50, 2.0), jnp.arange(50.0)], axis=1)
        >>> print(bootstrap_intervals(jax.random.key(0), [differences])[0])
        [2. 2.]
    """
    check_resampling(num_resamples, coverage)
    means = bootstrap_means(key, strata, num_resamples=num_resamples)
    levels = jnp.array([(1 - coverage) / 2, (1 + coverage) / 2])
    intervals = jnp.quantile(means, levels, axis=0).T
    return intervals if min(map(len, strata)) > 1 else jnp.full_like(intervals, jnp.nan)


@functools.partial(jax.jit, static_argnames="num_resamples")
def bootstrap_means(
    key: Key, strata: Sequence[Float[Array, "_examples columns"]], *, num_resamples: int = 1000
) -> Float[Array, "resamples columns"]:
    """Returns the means of each resampling, of which `bootstrap_intervals` are quantiles.

    Args:
        strata: (examples, columns) of each stratum.
        num_resamples: how often examples are drawn.

    Example:
        >>> print(bootstrap_means(jax.random.key(0), [jnp.full((5, 1), 2.0)], num_resamples=2).ravel())
        [2. 2.]
    """
    if not strata or not all(len(values) for values in strata):
        raise ValueError(f"strata have {[len(v) for v in strata]} examples: expected one stratum with one")

    def drawn_means(key, values):
        count = len(values)
        drawn = jax.vmap(lambda k: jax.random.randint(k, (count,), 0, count))(
            jax.random.split(key, num_resamples)
        )
        # How often each example was drawn is a matrix, and all means are its products.
        times = jax.vmap(lambda rows: jnp.bincount(rows, length=count))(drawn)
        return jnp.matmul(times.astype(values.dtype), values, precision="highest") / count

    means = [drawn_means(jax.random.fold_in(key, n), values) for n, values in enumerate(strata)]
    return jnp.asarray(sum(means) / len(strata))


def wilson_interval(
    successes: Any, trials: Any, *, coverage: float = 0.95
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    """Returns Wilson's score interval (low, high) of a proportion of independent trials.

        (p + z²/2n ± z sqrt(p (1 - p)/n + z²/4n²)) / (1 + z²/n),    p = successes/n, n = trials

    with z the quantile (1 + coverage)/2 of the normal distribution. Within [0, 1], and not a point where all
    or none of the trials succeeded, as a bootstrap would be; NaN where there is no trial.

    Args:
        successes: counts of any shape.
        trials: counts of the same shape.
        coverage: in (0, 1).

    Raises:
        ValueError: more successes than trials, or a coverage out of range.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    Example:
        >>> low, high = wilson_interval(10, 10)
        >>> round(float(low), 3), float(high)
        (0.722, 1.0)
    """
    _check_coverage(coverage)
    k, n = np.asarray(successes, np.float64), np.asarray(trials, np.float64)
    if not ((k >= 0) & (k <= n)).all():
        raise ValueError(f"successes is {successes} of trials {trials}: expected 0 to trials")
    z = statistics.NormalDist().inv_cdf((1 + coverage) / 2)
    n = np.where(n > 0, n, np.nan)
    center, spread = k + z**2 / 2, z * np.sqrt(k * (n - k) / n + z**2 / 4)
    low, high = np.where(k == 0, 0 * n, (center - spread) / (n + z**2)), (center + spread) / (n + z**2)
    return low, np.where(k == n, 1 + 0 * n, high)


def _differences(
    scores: Mapping[str, Score], methods: list[str], names: list[str], reference: str
) -> np.ndarray:
    """(images, methods × scores)."""
    values = np.stack([[scores[m].values[name] for name in names] for m in methods])
    others = np.stack([scores[reference].values[name] for name in names])
    return np.moveaxis(values - others, -1, 0).reshape(others.shape[1], -1)


def _check_scores(task: str, scores: Mapping[str, Score], reference: str) -> None:
    if reference not in scores:
        raise KeyError(f"reference: no method {reference!r} in {task!r}: expected one of {list(scores)}")
    counts = {name: len(values) for name, s in scores.items() for values in s.values.values()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"{task!r} has scores of {min(counts.values())} to {max(counts.values())} images: expected those "
            "of the same images for every method, from one pass"
        )
