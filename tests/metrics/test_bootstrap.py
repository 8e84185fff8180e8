"""The bootstrap interval of a mean is about that of the normal approximation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.metrics import bootstrap_interval


def test_interval_of_a_mean(key):
    values = jnp.asarray(np.random.default_rng(1).normal(10, 3, 400))
    low, high = bootstrap_interval(key, values)
    error = float(values.std()) / 20
    np.testing.assert_allclose(low, values.mean() - 1.96 * error, atol=0.2 * error)
    np.testing.assert_allclose(high, values.mean() + 1.96 * error, atol=0.2 * error)
    narrow = bootstrap_interval(key, values, coverage=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_other_statistics_and_degenerate_values(key):
    skewed = jnp.array([0.0] * 60 + [90.0] * 40)
    np.testing.assert_array_equal(
        bootstrap_interval(key, skewed, statistic_fn=jnp.median, coverage=0.9), [0, 0]
    )
    np.testing.assert_array_equal(bootstrap_interval(key, jnp.ones(1), num_resamples=7), [1, 1])
    with pytest.raises(ValueError, match="values is empty"):
        bootstrap_interval(key, jnp.ones(0))


def test_the_key_decides(key):
    values = jnp.arange(20.0)
    one, same = bootstrap_interval(key, values), bootstrap_interval(key, values)
    np.testing.assert_array_equal(one, same)
    assert (one != bootstrap_interval(jax.random.key(7), values)).any()
