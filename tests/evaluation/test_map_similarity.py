"""Against the structural similarity by its definition, and scikit-learn's Jaccard score."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage
from sklearn.metrics import jaccard_score

from vexplain.evaluation import feature_jaccard, heatmap_ssim


def test_ssim_by_its_definition(key):
    first = jax.random.uniform(key, (2, 13, 16))
    second = jnp.clip(first + 0.3 * jax.random.normal(jax.random.key(1), (2, 13, 16)), 0, 1)

    def smooth(x):
        return ndimage.gaussian_filter(x, 1.5, radius=5, mode="reflect")

    for a, b, found in zip(first, second, heatmap_ssim(first, second), strict=True):
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        mean_x, mean_y, c_1, c_2 = smooth(x), smooth(y), 1e-4, 9e-4
        covariance, spread = smooth(x * y) - mean_x * mean_y, smooth(x**2 + y**2) - mean_x**2 - mean_y**2
        structure = (2 * covariance + c_2) / (spread + c_2)
        expected = (2 * mean_x * mean_y + c_1) / (mean_x**2 + mean_y**2 + c_1) * structure
        np.testing.assert_allclose(found, expected.mean(), rtol=1e-4)
    np.testing.assert_allclose(heatmap_ssim(first, first), 1, rtol=1e-5)


def test_jaccard_against_scikit_learn():
    first, second = np.random.default_rng(0).random((2, 4, 11)) < 0.4
    expected = [jaccard_score(a, b) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(feature_jaccard(first, second), expected, rtol=1e-6)


def test_empty_sets_are_equal():
    none, some = jnp.zeros((1, 3), bool), jnp.array([[True, False, False]])
    assert feature_jaccard(none, none) == 1
    assert feature_jaccard(none, some) == 0
