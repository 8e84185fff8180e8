"""How sure a mean over examples is, or a difference of two: its interval under resampled examples."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from vexplain.typing import Array, Float, Key


def bootstrap_interval(
    key: Key,
    values: Float[Array, " batch"],
    *,
    statistic_fn: Callable[[Float[Array, " batch"]], Float[Array, ""]] = jnp.mean,
    num_resamples: int = 1000,
    coverage: float = 0.95,
) -> Float[Array, "2"]:
    """Returns the percentile interval (low, high) of a statistic of the examples.

    The examples are drawn again with replacement, `num_resamples` times; the interval leaves
    (1 - coverage) / 2 of the statistics out on each side. It speaks of the examples only: what training with
    another seed would change is not in it.

    Args:
        key: of the resampling.
        values: one score an example, from any metric of this room.
        statistic_fn: what is reported of them, for instance `jnp.median`.
        num_resamples: how often they are drawn.
        coverage: of the interval, in (0, 1).

    Raises:
        ValueError: no value.

    References:
        Efron, Tibshirani, An introduction to the bootstrap, 1993, chapter 13.

    Example:
        >>> low, high = bootstrap_interval(jax.random.key(0), jnp.arange(100.0))
        >>> bool(40 < low < 49.5 < high < 60)
        True
    """
    if not len(values):
        raise ValueError("values is empty: there is no statistic of no examples")

    def statistic(key):
        return statistic_fn(jax.random.choice(key, values, values.shape))

    statistics = jax.lax.map(statistic, jax.random.split(key, num_resamples))
    return jnp.quantile(statistics, jnp.array([(1 - coverage) / 2, (1 + coverage) / 2]))


def paired_bootstrap_interval(
    key: Key,
    values: Float[Array, " batch"],
    others: Float[Array, " batch"],
    *,
    statistic_fn: Callable[[Float[Array, " batch"]], Float[Array, ""]] = jnp.mean,
    num_resamples: int = 1000,
    coverage: float = 0.95,
) -> Float[Array, "2"]:
    """Returns the percentile interval (low, high) of the difference of two methods on the same examples.

    statistic(values) - statistic(others), with the *same* examples drawn for both: what makes an image hard
    for either method cancels, so that a small difference can be sure where the intervals of the two overlap.
    An interval without 0 is a difference at the level 1 - coverage.

    Args:
        key: of the resampling.
        values: one score an example, of the first method.
        others: the scores of the second, in the same order of examples.
        statistic_fn: what is compared, for instance `jnp.median`.
        num_resamples: how often the examples are drawn.
        coverage: of the interval, in (0, 1).

    Raises:
        ValueError: no value.

    References:
        Efron, Tibshirani, An introduction to the bootstrap, 1993, chapter 13.

    Example:
        >>> hardness = jnp.arange(100.0)
        >>> print(paired_bootstrap_interval(jax.random.key(0), hardness + 2, hardness).round(3))
        [2. 2.]
    """
    if not len(values):
        raise ValueError("values is empty: there is no difference over no examples")

    def statistic(key):
        drawn = jax.random.randint(key, values.shape, 0, len(values))
        return statistic_fn(values[drawn]) - statistic_fn(others[drawn])

    differences = jax.lax.map(statistic, jax.random.split(key, num_resamples))
    return jnp.quantile(differences, jnp.array([(1 - coverage) / 2, (1 + coverage) / 2]))


@functools.partial(jax.jit, static_argnames=("num_resamples", "coverage"))
def stratified_bootstrap_intervals(
    key: Key,
    strata: Sequence[Float[Array, "_examples columns"]],
    *,
    num_resamples: int = 1000,
    coverage: float = 0.95,
) -> Float[Array, "columns 2"]:
    """Returns the percentile intervals (low, high) of many means at once: of means over strata of means.

        (1/S) Σ_s (1/n_s) Σ_i values_{s,i}

    The examples of each stratum are drawn again within it, the same for all columns. With one stratum, and
    in each column the difference of two methods, it is `paired_bootstrap_interval` for all of them; how often
    each example was drawn is a matrix, and all means are its products.

    Args:
        key: of the resampling.
        strata: (examples, columns) of each stratum, for instance of each data set; examples may differ in
            number. A stratum counts as much as another, whatever its size.
        num_resamples: how often they are drawn.
        coverage: of the intervals, in (0, 1).

    Raises:
        ValueError: no stratum, or one without examples.

    References:
        Efron, Tibshirani, An introduction to the bootstrap, 1993, chapter 8.

    Example:
        >>> differences = jnp.stack([jnp.full(50, 2.0), jnp.arange(50.0)], axis=1)
        >>> print(stratified_bootstrap_intervals(jax.random.key(0), [differences])[0])
        [2. 2.]
    """
    if not strata or not all(len(values) for values in strata):
        raise ValueError(f"strata have {[len(v) for v in strata]} examples: expected one stratum with one")

    def drawn_means(key, values):
        count = len(values)
        drawn = jax.vmap(lambda k: jax.random.randint(k, (count,), 0, count))(
            jax.random.split(key, num_resamples)
        )
        times = jax.vmap(lambda rows: jnp.bincount(rows, length=count))(drawn)
        return jnp.matmul(times.astype(values.dtype), values, precision="highest") / count

    means = [drawn_means(jax.random.fold_in(key, n), values) for n, values in enumerate(strata)]
    levels = jnp.array([(1 - coverage) / 2, (1 + coverage) / 2])
    return jnp.quantile(sum(means) / len(strata), levels, axis=0).T
