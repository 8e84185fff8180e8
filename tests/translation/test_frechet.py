"""The Fréchet distance of Gaussians whose moments are known, and by the matrix root of SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

from vexplain.translation import frechet_distance


def with_moments(seed, mean, deviations, num=40):
    """Points of exactly that mean and diagonal covariance."""
    noise = np.random.default_rng(seed).standard_normal((num, len(mean)))
    whitened = np.linalg.qr(noise - noise.mean(0))[0] * np.sqrt(num - 1)
    return jnp.asarray(mean + whitened * deviations)


def test_closed_form_of_diagonal_gaussians():
    mean, true_mean = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, -1.0])
    deviations, true_deviations = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 1.0])
    features = with_moments(0, mean, deviations)
    others = with_moments(1, true_mean, true_deviations, num=60)
    expected = ((mean - true_mean) ** 2).sum() + ((deviations - true_deviations) ** 2).sum()
    np.testing.assert_allclose(frechet_distance(features, others), expected, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(frechet_distance)(others, features), expected, rtol=1e-4)


def test_against_the_matrix_root():
    random = np.random.default_rng(0)
    a = random.standard_normal((30, 5)) @ random.standard_normal((5, 5))
    b = random.standard_normal((50, 5)) + 0.5
    root = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    np.testing.assert_allclose(jax.jit(frechet_distance)(a, b), expected, rtol=1e-4)


def test_a_set_is_at_distance_zero_from_itself_even_with_fewer_examples_than_features():
    features = np.random.default_rng(0).standard_normal((4, 9))
    np.testing.assert_allclose(jax.jit(frechet_distance)(features, features), 0, atol=1e-4)
    np.testing.assert_allclose(jax.jit(frechet_distance)(features, features + 2), 36, rtol=1e-4)


def test_one_example_has_no_covariance():
    with pytest.raises(ValueError, match="true_features 1 examples"):
        frechet_distance(jnp.ones((3, 2)), jnp.ones((1, 2)))
