"""Shuffled weights keep their statistics, and what is shuffled follows from the stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.transforms import networks
from vexplain.attribution import normalize_heatmaps
from vexplain.classifiers import functionalize
from vexplain.evaluation import (
    heatmap_ssim,
    parameter_groups,
    parameter_groups_from_output,
    randomized_variables,
    rank_correlation,
)
from vexplain.evaluation.changed_networks import shuffled_sets

SHAPES = {"conv": {"bias": (4,), "kernel": (3, 2, 3, 4)}, "dense": {"kernel": (4, 5)}}


@pytest.fixture
def variables():
    rng = np.random.default_rng(0)
    drawn = jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(0.3, 2, shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    return {**drawn, "norm": {"variance": jnp.linspace(0.5, 4, 50), "steps": jnp.arange(3)}}


def test_a_permutation_moves_the_weights_and_keeps_their_values(key, variables):
    found = randomized_variables(key, variables)
    for old, new in zip(jax.tree.leaves(variables), jax.tree.leaves(found), strict=True):
        assert old.shape == new.shape
        assert old.dtype == new.dtype
        np.testing.assert_array_equal(np.sort(np.ravel(old)), np.sort(np.ravel(new)))
    assert (found["conv"]["kernel"] != variables["conv"]["kernel"]).mean() > 0.9
    np.testing.assert_array_equal(found["norm"]["steps"], [0, 1, 2])


def test_new_draws_have_the_mean_and_deviation_of_their_leaf_and_keep_variances_positive(key, variables):
    weights = {
        **variables,
        "wide": jnp.asarray(np.random.default_rng(1).normal(-1, 3, (60, 70)), jnp.float32),
    }
    found = randomized_variables(key, weights, draw="normal")
    new, old = found["wide"], weights["wide"]
    np.testing.assert_allclose([new.mean(), new.std()], [old.mean(), old.std()], atol=0.15)
    assert not np.isin(new, old).any()
    np.testing.assert_array_equal(jnp.sort(found["norm"]["variance"]), variables["norm"]["variance"])


def test_the_key_and_the_groups_decide(key, variables):
    every = randomized_variables(key, variables)
    one = randomized_variables(key, variables, groups=["dense"])
    np.testing.assert_array_equal(one["dense"]["kernel"], every["dense"]["kernel"])
    np.testing.assert_array_equal(one["conv"]["kernel"], variables["conv"]["kernel"])
    other = randomized_variables(jax.random.key(1), variables, groups=["dense"])
    assert (other["dense"]["kernel"] != one["dense"]["kernel"]).any()
    with pytest.raises(KeyError, match="no 'head': expected some of"):
        randomized_variables(key, variables, groups=["head"])


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_stages(mode, key, variables):
    stages = shuffled_sets(["dense", "conv"], mode)
    changed = {
        name: {g for g in SHAPES if (shuffled[g]["kernel"] != variables[g]["kernel"]).any()}
        for name, groups in stages.items()
        for shuffled in [randomized_variables(key, variables, groups=groups)]
    }
    last = {"dense", "conv"} if mode == "cascading" else {"conv"}
    assert changed == {"dense": {"dense"}, "conv": last}


def test_groups_are_the_layers_and_come_from_the_output_down(key):
    images = jnp.ones((1, 13, 11, 3))
    apply, variables = networks.linen_network()
    assert parameter_groups_from_output(apply, variables, images) == (
        "params/Dense_0",
        "params/GroupNorm_0",
        "params/Conv_1",
        "params/Conv_0",
    )
    apply, variables = networks.plain_network()
    assert parameter_groups(variables) == ("0", "1", "2")
    assert parameter_groups_from_output(apply, variables, images) == ("2", "1", "0")


def test_groups_of_an_nnx_network_with_branches():
    apply, variables = functionalize(networks.Blocks(nnx.Rngs(0)))
    head, *branches, norm, stem = parameter_groups_from_output(apply, variables, jnp.ones((1, 13, 11, 3)))
    assert (head, norm, stem) == ("head", "norm", "stem")
    assert set(branches) == {"left", "right"}
    _, state = networks.nnx_network()
    assert set(parameter_groups(state)) == {"head", "left", "norm", "right", "stem"}


def test_class_sensitivity_of_a_linear_network_is_the_correlation_of_its_weights(key):
    """Two classes with opposite weights have opposite signed maps."""
    maps = normalize_heatmaps(jax.random.normal(key, (3, 16, 15)))
    np.testing.assert_allclose(rank_correlation(maps, 1 - maps), -1, rtol=1e-5)
    assert (heatmap_ssim(maps, 1 - maps) < 0).all()
