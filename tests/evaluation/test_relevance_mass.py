"""Values of Quantus 0.6.0 in each convention, SciPy's entropy, and the Gini index as a mean difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tests.evaluation.heatmap_case import ATTRIBUTIONS, CANCELING, MASKS
from vexplain.evaluation import complexity, effective_complexity, relevance_mass, sparseness


@pytest.mark.parametrize(
    ("convention", "expected"), [("signed", 0.885714), ("absolute", 0.5636), ("positive", 0.6889)]
)
def test_mass_in_each_convention(convention, expected):
    found = relevance_mass(ATTRIBUTIONS, MASKS, convention=convention)
    np.testing.assert_allclose(found, expected, atol=5e-5)


def test_only_a_signed_total_leaves_the_unit_interval():
    np.testing.assert_allclose(relevance_mass(CANCELING, MASKS, convention="signed"), 15.5, rtol=1e-5)
    np.testing.assert_allclose(relevance_mass(CANCELING, MASKS), 3.1 / 3.9, rtol=1e-6)


def test_mass_of_nothing_is_zero():
    balanced = jnp.zeros((1, 4, 4)).at[0, 1, :2].set(jnp.array([1.0, -1.0]))
    assert relevance_mass(balanced, MASKS, convention="signed") == 0
    assert relevance_mass(-jnp.abs(ATTRIBUTIONS), MASKS) == 0
    assert relevance_mass(ATTRIBUTIONS, jnp.zeros_like(MASKS)) == 0
    with pytest.raises(ValueError, match="convention is 'sum': expected one of"):
        relevance_mass.__wrapped__(ATTRIBUTIONS, MASKS, convention="sum")


def test_spread_against_quantus():
    np.testing.assert_allclose(sparseness(ATTRIBUTIONS), 0.486363, atol=1e-6)
    np.testing.assert_allclose(complexity(ATTRIBUTIONS), 2.363859, atol=1e-6)
    np.testing.assert_array_equal(effective_complexity(ATTRIBUTIONS), 14)
    np.testing.assert_array_equal(effective_complexity(ATTRIBUTIONS, threshold=0.45), 5)


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_spread_by_definition_at_any_scale(scale, key):
    attributions = jax.random.normal(key, (3, 5, 7))
    sizes = np.abs(np.asarray(attributions, np.float64)).reshape(3, -1)
    differences = np.abs(sizes[:, :, None] - sizes[:, None]).mean((1, 2))
    np.testing.assert_allclose(sparseness(scale * attributions), differences / 2 / sizes.mean(1), rtol=1e-5)
    np.testing.assert_allclose(complexity(scale * attributions), stats.entropy(sizes, axis=1), rtol=1e-5)


def test_a_map_of_zeros_is_an_even_map():
    nothing = jnp.zeros((1, 3, 5))
    np.testing.assert_allclose(sparseness(nothing), 0, atol=1e-6)
    np.testing.assert_allclose(complexity(nothing), np.log(15), rtol=1e-6)
