"""Percentile bootstrap confidence intervals of means over images, or of differences of methods."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vexplain.typing import Array, Float, Key


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
    the interval leaves (1 - coverage) / 2 of the means out on each side. With the difference of two methods
    on the same images in a column it is a paired bootstrap: what makes an image hard for both cancels, and an
    interval without 0 is a difference at the level 1 - coverage. Only the examples vary: what training with
    another seed would change is not in it. How often each example was drawn is a matrix, and all means are
    its products.

    Args:
        key: of the resampling.
        strata: (examples, columns) of each stratum, for instance of each data set; examples may differ in
            number. A stratum counts as much as another, whatever its size.
        num_resamples: how often they are drawn.
        coverage: of the intervals, in (0, 1).

    Raises:
        ValueError: no stratum, or one without examples.

    References:
        Efron, Tibshirani, An introduction to the bootstrap, 1993, chapters 8 and 13.

    Example:
        >>> differences = jnp.stack([jnp.full(50, 2.0), jnp.arange(50.0)], axis=1)
        >>> print(bootstrap_intervals(jax.random.key(0), [differences])[0])
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
