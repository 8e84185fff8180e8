"""The bootstrap interval of a mean is about that of the normal approximation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vexplain.evaluation import bootstrap_interval, paired_bootstrap_interval, stratified_bootstrap_intervals


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


def test_paired_interval_against_scipy(key):
    rng = np.random.default_rng(2)
    hardness = rng.normal(0, 5, 60)
    values, others = hardness + rng.normal(1, 1, 60), hardness + rng.normal(0, 1, 60)

    def difference(a, b, axis):
        return a.mean(axis) - b.mean(axis)

    expected = stats.bootstrap(
        (values, others), difference, paired=True, method="percentile", n_resamples=4000, rng=3
    ).confidence_interval
    found = paired_bootstrap_interval(key, jnp.asarray(values), jnp.asarray(others), num_resamples=4000)
    np.testing.assert_allclose(found, expected, atol=0.05)
    alone = bootstrap_interval(key, jnp.asarray(values))
    assert 0 < found[0] < found[1] < alone[1] - alone[0], "pairing takes the hardness of the images out"


def test_paired_interval_of_a_method_with_itself_is_zero(key):
    values = jax.random.normal(key, (20,))
    found = paired_bootstrap_interval(key, values, values, statistic_fn=jnp.median, num_resamples=50)
    np.testing.assert_array_equal(found, 0)
    with pytest.raises(ValueError, match="values is empty"):
        paired_bootstrap_interval(key, jnp.ones(0), jnp.ones(0))


def test_many_paired_intervals_at_once_are_those_of_one_at_a_time(key):
    rng = np.random.default_rng(4)
    values, others = (jnp.asarray(rng.normal(size=(23, 3)), jnp.float32) for _ in range(2))
    found = stratified_bootstrap_intervals(key, [values - others], num_resamples=200, coverage=0.8)
    options = {"num_resamples": 200, "coverage": 0.8}
    drawn = jax.random.fold_in(key, 0)
    for n in range(3):
        expected = paired_bootstrap_interval(drawn, values[:, n], others[:, n], **options)
        np.testing.assert_allclose(found[n], expected, atol=1e-5)


def test_strata_count_alike_whatever_their_size(key):
    """Normal approximation: the variance of the mean over strata is Σ var_s / n_s / S²."""
    rng = np.random.default_rng(5)
    strata = [rng.normal(1, 2, (400, 2)), rng.normal(5, 0.1, (90, 2)), rng.normal(0, 1, (150, 2))]
    found = stratified_bootstrap_intervals(key, [jnp.asarray(s, jnp.float32) for s in strata])
    mean = np.mean([s.mean(0) for s in strata], axis=0)
    error = np.sqrt(sum(s.var(0) / len(s) for s in strata)) / 3
    expected = np.stack([mean - 1.96 * error, mean + 1.96 * error], axis=1)
    np.testing.assert_allclose(found, expected, atol=0.25 * error.max())
    with pytest.raises(ValueError, match=r"strata have \[3, 0\] examples"):
        stratified_bootstrap_intervals(key, [jnp.ones((3, 2)), jnp.ones((0, 2))])
