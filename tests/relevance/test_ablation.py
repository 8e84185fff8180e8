"""Silenced channels against a network edited by hand; controls that are as large as what they control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.transforms import networks
from vexplain import classifiers
from vexplain.datasets import ArraySource, epoch_batches
from vexplain.relevance import ablation_accuracy, candidate_layers, random_masks, relevant_masks
from vexplain.relevance.ablation import with_silenced_channels
from vexplain.streaming import fold
from vexplain.streaming.devices import data_mesh
from vexplain.transforms import layers

RELEVANT = {"conv_1": (5, 1), "pool_1": (3,)}


@pytest.fixture(scope="module")
def network():
    apply, variables = networks.plain_network()
    shape = jax.ShapeDtypeStruct((1, 13, 11, 3), jnp.float32)
    return apply, variables, candidate_layers(layers(apply, variables, shape))


@pytest.fixture
def images(key):
    return jax.random.uniform(key, (5, 13, 11, 3))


def test_silenced_channels_are_those_of_a_network_edited_by_hand(network, images):
    apply, variables, rows = network
    silenced = jax.jit(with_silenced_channels(apply, rows))
    kernel, bias, dense = variables
    gone = np.array([5, 1])
    edited = (kernel.at[..., gone].set(0), bias.at[gone].set(0), dense.at[3].set(0))
    found = silenced((variables, relevant_masks(rows, RELEVANT)), images)
    np.testing.assert_allclose(found, apply(edited, images), rtol=1e-5, atol=1e-6)
    assert not np.allclose(found, apply(variables, images), atol=1e-3)
    untouched = silenced((variables, relevant_masks(rows, {})), images)
    np.testing.assert_allclose(untouched, apply(variables, images), rtol=1e-6, atol=1e-6)


def test_channels_are_found_whatever_the_order_of_axes(images, key):
    kernel = jax.random.normal(key, (4, 3, 3, 2))

    def apply(variables, images):
        x = lax.conv_general_dilated(images.transpose(0, 3, 1, 2), variables, (1, 1), "VALID")
        return jax.nn.relu(x).sum((2, 3))

    rows = [layers(apply, kernel, images)["conv_1"]]
    masks = relevant_masks(rows, {"conv_1": [2]})
    found = with_silenced_channels(apply, rows)((kernel, masks), images)
    np.testing.assert_allclose(found, apply(kernel, images).at[:, 2].set(0), rtol=1e-5)


def test_masks_are_zero_where_relevant(network):
    _, _, rows = network
    masks = relevant_masks(rows, RELEVANT)
    assert {name: np.flatnonzero(mask == 0).tolist() for name, mask in masks.items()} == {
        "conv_1": [1, 5],
        "relu_1": [],
        "pool_1": [3],
    }
    assert all(set(np.asarray(mask)) <= {0.0, 1.0} for mask in masks.values())


def test_random_masks_are_as_many_in_each_layer_and_follow_from_the_key(network):
    _, _, rows = network
    relevant = {"conv_1": (5, 1, 5), "pool_1": (3, 2, 0, 1)}  # a channel that is named twice is one
    keys = jax.random.split(jax.random.key(0), 14)
    draws = [random_masks(key, rows, relevant) for key in keys]
    for masks in draws:
        silent = {name: int((mask == 0).sum()) for name, mask in masks.items()}
        assert silent == {"conv_1": 2, "relu_1": 0, "pool_1": 4}
    again = random_masks(keys[0], rows, relevant)
    for name in again:
        np.testing.assert_array_equal(again[name], draws[0][name])
    silent = np.array([masks["conv_1"] == 0 for masks in draws])
    assert len({tuple(row) for row in silent}) > 5  # of 15 pairs
    assert silent.any(0).all()  # every channel has its turn, the relevant ones too
    both = {"conv_1": (1, 2), "relu_1": (1, 2)}
    pairs = [random_masks(key, rows, both) for key in keys[:4]]
    assert any((m["conv_1"] != m["relu_1"]).any() for m in pairs)  # layers are drawn independently


@pytest.mark.parametrize("make", [relevant_masks, lambda *a: random_masks(jax.random.key(0), *a)])
def test_what_there_is_not_cannot_be_silenced(make, network):
    _, _, rows = network
    with pytest.raises(ValueError, match=r"layers \['conv1'\] are not among layers, \['conv_1', 'relu_1'"):
        make(rows, {"conv1": (0,)})
    for beyond in (6, -1):
        with pytest.raises(ValueError, match=rf"'conv_1' has channels 0 to 5, got \[{beyond}\]"):
            make(rows, {"conv_1": (2, beyond)})


def test_all_masks_run_in_one_program_on_one_device_and_eight(network):
    plain, variables, rows = network
    traces = []
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(21, 13, 11, 3)).astype(np.float32)
    offset = plain(variables, images).mean(0)  # so that it says several classes

    def counted(variables, images):
        traces.append(1)
        return plain(variables, images) - offset

    predicted = np.asarray(counted(variables, images).argmax(-1))
    assert len(set(predicted)) > 2
    source = ArraySource(images, predicted, class_names=tuple("abcde"))
    init, update = ablation_accuracy(counted, rows, 5)
    batch_fn, num_steps = epoch_batches(source, 8)

    def counts(masks, num_devices=1):
        constants = (variables, masks)
        mesh = data_mesh(num_devices)
        return fold(update, init(), batch_fn, num_steps=num_steps, constants=constants, mesh=mesh)

    whole = relevant_masks(rows, {})
    assert classifiers.accuracy(counts(whole)) == 1  # the labels are the predictions
    once = len(traces)
    without = relevant_masks(rows, {"pool_1": (0, 2, 3)})
    kernel, bias, dense = variables
    edited = plain((kernel, bias, dense.at[jnp.array([0, 2, 3])].set(0)), images) - offset
    found = counts(without)
    expected = np.zeros((5, 5))
    np.add.at(expected, (predicted, np.asarray(edited.argmax(-1))), 1)
    np.testing.assert_array_equal(found, expected)
    assert 0 < classifiers.accuracy(found) < 1
    for seed in range(3):
        counts(random_masks(jax.random.key(seed), rows, {"pool_1": (0, 2, 3), "conv_1": (seed,)}))
    assert len(traces) == once
    np.testing.assert_array_equal(counts(without, num_devices=8), found)
