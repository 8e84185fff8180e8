"""How sure a mean over examples is: its interval under resampling of the examples."""

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
