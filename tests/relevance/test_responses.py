import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.relevance import feature_layout, responses
from vexplain.relevance._responses import check_measure

LAYERS = ("conv_2", "conv_10", "dense_1")


@jax.jit
def _jitted(activations):
    return responses(activations, layers=LAYERS)


def _activations(*, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {
        "conv_2": jnp.asarray(rng.normal(size=(2, 5, 4, 3)), dtype),
        "conv_10": jnp.asarray(100 * rng.normal(size=(2, 3, 2, 7)), dtype),
        "dense_1": jnp.asarray(rng.normal(size=(2, 6)), dtype),
    }


def _energy(channel):
    return np.linalg.norm(channel.ravel()) ** 2


def _oracle(activations, of_channel=_energy):
    """The definition, image by image and channel by channel, in float64."""
    vectors = []
    for image in range(2):
        blocks = []
        for activation in activations.values():
            maps = np.moveaxis(np.asarray(activation[image], np.float64), -1, 0)
            energies = np.array([of_channel(channel) for channel in maps])
            blocks.append(energies / energies.sum())
        vector = np.concatenate(blocks)
        vectors.append(vector / np.linalg.norm(vector))
    return np.stack(vectors)


def test_responses_follow_the_definition():
    activations = _activations()
    found = responses(activations)
    assert found.shape == (2, 16)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, _oracle(activations), rtol=2e-6)
    np.testing.assert_allclose(_jitted(activations), found, rtol=2e-6)
    one_by_one = jax.vmap(_jitted)(jax.tree.map(lambda array: array[:, None], activations))
    np.testing.assert_allclose(one_by_one[:, 0], found, rtol=2e-6)


@pytest.mark.parametrize(
    ("measure", "of_channel"),
    [
        ("norm", lambda channel: np.linalg.norm(channel.ravel())),
        ("magnitude", lambda channel: np.abs(channel).sum()),
        ("maximum", lambda channel: np.abs(channel).max()),
    ],
)
def test_other_measures_of_a_channel(measure, of_channel):
    activations = _activations()
    found = jax.jit(functools.partial(responses, layers=LAYERS, measure=measure))(activations)
    np.testing.assert_allclose(found, _oracle(activations, of_channel), rtol=3e-6)


def test_the_norm_of_a_dead_channel_has_a_slope():
    activations = _activations()
    dead = dict(activations, conv_10=activations["conv_10"].at[..., 2].set(0))
    slope_of = lambda a: responses(a, layers=LAYERS, measure="norm")[:, 0].sum()  # noqa: E731
    gradient = jax.jit(jax.grad(slope_of))(dead)
    assert all(np.isfinite(leaf).all() for leaf in gradient.values())


def test_half_precision_is_squared_in_single_precision():
    activations = _activations(dtype=jnp.bfloat16)
    np.testing.assert_allclose(_jitted(activations), _oracle(activations), rtol=2e-6)


@pytest.mark.parametrize("scale", [1e20, 1e-20, 3e38 / 1e3, -7.0])
def test_the_scale_of_a_layer_does_not_matter(scale):
    activations = _activations()
    scaled = dict(activations, conv_10=activations["conv_10"] / 100 * scale)
    np.testing.assert_allclose(_jitted(scaled), _jitted(activations), rtol=1e-5)


def test_each_layer_has_the_same_share():
    found = np.asarray(_jitted(_activations()))
    totals = [found[:, :3].sum(1), found[:, 3:10].sum(1), found[:, 10:].sum(1)]
    np.testing.assert_allclose(totals[1:], [totals[0], totals[0]], rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("all_dead", [False, True])
def test_a_dead_layer_has_zero_responses_and_zero_gradients(all_dead):
    activations = _activations()
    activations["conv_10"] = activations["conv_10"].at[1].set(0.0)
    if all_dead:
        activations = jax.tree.map(lambda array: array.at[1].set(0.0), activations)
    found = np.asarray(_jitted(activations))
    np.testing.assert_array_equal(found[1, 3:10], 0)
    assert np.isfinite(found).all()
    assert found[1].any() != all_dead
    gradients = jax.jit(jax.grad(lambda tree: jnp.sum(responses(tree) ** 3)))(activations)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    np.testing.assert_array_equal(gradients["conv_10"][1], 0)


def test_the_gradient_is_that_of_the_definition(key):
    activations = {"dense_1": jax.random.normal(key, (1, 5))}
    weights = jnp.arange(1.0, 6.0)[None]

    def unscaled(tree):
        energies = tree["dense_1"] ** 2
        return jnp.sum(weights * energies / jnp.linalg.norm(energies))

    found = jax.jit(jax.grad(lambda tree: jnp.sum(weights * responses(tree))))(activations)
    np.testing.assert_allclose(
        found["dense_1"], jax.jit(jax.grad(unscaled))(activations)["dense_1"], rtol=1e-4, atol=1e-5
    )


def test_the_given_order_survives_jit():
    """A dict that crosses jit is sorted by name ("conv_10" first); named layers are not."""
    activations = _activations()
    jitted = _jitted(activations)
    np.testing.assert_allclose(jitted, responses(activations), rtol=1e-6)
    assert feature_layout(activations, layers=LAYERS) == feature_layout(activations)
    assert not np.allclose(jax.jit(responses)(activations), jitted)


def test_not_finite_activations_show():
    activations = _activations()
    activations["conv_2"] = activations["conv_2"].at[0, 1, 2, 0].set(jnp.inf)
    found = np.asarray(_jitted(activations))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.parametrize(
    ("activations", "layers", "message"),
    [
        ({}, None, "no layer was given"),
        ({"a": jnp.zeros((2, 3))}, (), "no layer was given"),
        ({"a": jnp.zeros((2, 3))}, ("b",), r"\['b'\] not among the activations, \['a'\]"),
        ({"a": jnp.zeros((2, 3))}, ("a", "a"), "each layer may be given once"),
        ({"a": jnp.zeros((2,))}, None, r"'a' needs the shape \(batch, \*spatial, channels\)"),
        ({"a": jnp.zeros((2, 3)), "b": jnp.zeros((4, 3))}, None, "batch sizes differ"),
        ({"a": jnp.zeros((2, 3), int)}, None, "'a' must be floating point, got int32"),
    ],
)
def test_bad_activations_raise(activations, layers, message):
    with pytest.raises(ValueError, match=message):
        responses(activations, layers=layers)


def test_another_measure_is_named():
    with pytest.raises(ValueError, match=r"measure is 'l2': expected one of .*'energy', 'norm'"):
        check_measure("l2")
