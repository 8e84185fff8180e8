"""Against SciPy's Spearman correlation and its average ranks, with ties."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vexplain.evaluation import part_effect_correlation, rank_correlation


def test_correlation_against_scipy(key):
    first = jax.random.normal(key, (3, 5, 7)).round(1)
    second = (first + jax.random.normal(jax.random.key(1), (3, 5, 7))).round()
    expected = [stats.spearmanr(np.ravel(a), np.ravel(b))[0] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(rank_correlation(first, second), expected, rtol=1e-5)


def test_the_order_alone_counts_even_in_many_pixels(key):
    maps = jax.random.uniform(key, (1, 224, 224))
    np.testing.assert_allclose(rank_correlation(maps, 5 + maps**3), 1, rtol=1e-5)
    np.testing.assert_allclose(rank_correlation(maps, -maps), -1, rtol=1e-5)


def test_what_orders_nothing_is_correlated_with_nothing(key):
    maps = jax.random.uniform(key, (2, 3, 5))
    np.testing.assert_array_equal(rank_correlation(maps, jnp.full((2, 3, 5), 0.1)), 0)


def test_parts_against_scipy(key):
    heatmaps = jax.random.uniform(key, (4, 6, 5))
    parts = np.random.default_rng(1).random((4, 7, 6, 5)).astype(np.float32)
    parts[:, 2] = 0  # a part that is not in sight
    effects = np.random.default_rng(2).integers(0, 4, (4, 7)) / 3  # with ties
    mass = (np.asarray(heatmaps)[:, None] * parts).sum((2, 3))
    expected = [stats.spearmanr(m, e)[0] for m, e in zip(mass, effects, strict=True)]
    found = part_effect_correlation(heatmaps, parts, effects)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_true_effects_painted_on_the_parts_are_in_order():
    parts = jnp.zeros((1, 3, 4, 6)).at[0, 0, 0, :3].set(1).at[0, 1, 2, 4].set(1).at[0, 2, 3].set(1)
    effects = jnp.array([[0.2, 3.0, -1.0]])
    painted = jnp.einsum("bp,bphw->bhw", effects, parts / parts.sum((2, 3), keepdims=True))
    np.testing.assert_allclose(part_effect_correlation(painted, parts, effects), 1, rtol=1e-6)
    np.testing.assert_allclose(part_effect_correlation(-painted, parts, effects), -1, rtol=1e-6)
