"""Bootstrap intervals against the normal approximation, SciPy, and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vexplain.evaluation import bootstrap_intervals


def interval(key, values, **options):
    """Of the mean of one column in one stratum."""
    return bootstrap_intervals(key, [jnp.asarray(values, jnp.float32)[:, None]], **options)[0]


def test_interval_of_a_mean(key):
    values = np.random.default_rng(1).normal(10, 3, 400)
    low, high = interval(key, values)
    error = float(values.std()) / 20
    np.testing.assert_allclose(low, values.mean() - 1.96 * error, atol=0.2 * error)
    np.testing.assert_allclose(high, values.mean() + 1.96 * error, atol=0.2 * error)
    narrow = interval(key, values, coverage=0.5)
    assert low < narrow[0] < narrow[1] < high
    assert np.isnan(interval(key, np.ones(1), num_resamples=7)).all()  # nothing is known of the spread


def test_the_key_decides(key):
    values = np.random.default_rng(6).normal(size=20)
    one, same = interval(key, values), interval(key, values)
    np.testing.assert_array_equal(one, same)
    assert (one != interval(jax.random.key(7), values)).any()


def test_paired_interval_against_scipy(key):
    rng = np.random.default_rng(2)
    hardness = rng.normal(0, 5, 60)
    values, others = hardness + rng.normal(1, 1, 60), hardness + rng.normal(0, 1, 60)

    def difference(a, b, axis):
        return a.mean(axis) - b.mean(axis)

    expected = stats.bootstrap(
        (values, others), difference, paired=True, method="percentile", n_resamples=4000, rng=3
    ).confidence_interval
    found = interval(key, values - others, num_resamples=4000)
    np.testing.assert_allclose(found, expected, atol=0.05)
    alone = interval(key, values)
    assert 0 < found[0] < found[1] < alone[1] - alone[0], "pairing takes the hardness of the images out"


def test_many_intervals_at_once_are_those_of_one_at_a_time(key):
    values = np.random.default_rng(4).normal(size=(23, 3))
    options = {"num_resamples": 200, "coverage": 0.8}
    found = bootstrap_intervals(key, [jnp.asarray(values, jnp.float32)], **options)
    for n in range(3):
        np.testing.assert_allclose(found[n], interval(key, values[:, n], **options), atol=1e-5)


def test_strata_count_alike_whatever_their_size(key):
    """Normal approximation: the variance of the mean over strata is Σ var_s / n_s / S²."""
    rng = np.random.default_rng(5)
    strata = [rng.normal(1, 2, (400, 2)), rng.normal(5, 0.1, (90, 2)), rng.normal(0, 1, (150, 2))]
    found = bootstrap_intervals(key, [jnp.asarray(s, jnp.float32) for s in strata])
    mean = np.mean([s.mean(0) for s in strata], axis=0)
    error = np.sqrt(sum(s.var(0) / len(s) for s in strata)) / 3
    expected = np.stack([mean - 1.96 * error, mean + 1.96 * error], axis=1)
    np.testing.assert_allclose(found, expected, atol=0.25 * error.max())
    with pytest.raises(ValueError, match=r"strata have \[3, 0\] examples"):
        bootstrap_intervals(key, [jnp.ones((3, 2)), jnp.ones((0, 2))])
