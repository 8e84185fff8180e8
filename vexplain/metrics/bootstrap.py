"""How sure a mean over examples is, or a difference of two: its interval under resampled examples."""

from collections.abc import Callable

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
