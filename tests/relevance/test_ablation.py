"""Networks without features against networks edited by hand; controls as large as what they control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.transforms import networks
from vexplain.attribution import logit, margin
from vexplain.datasets import ArraySource
from vexplain.relevance import (
    ablation_counts,
    candidate_layers,
    contribution_sums,
    feature_index,
    layout_of,
    layout_size,
    leading_features,
    matched_random,
    matched_top,
)
from vexplain.streaming import fold_epoch
from vexplain.streaming.devices import data_mesh
from vexplain.transforms import layers

LAYOUT = (("conv_1", 6), ("relu_1", 6), ("pool_1", 6))
SOME = [("conv_1", 5), ("conv_1", 1), ("pool_1", 3)]


@pytest.fixture(scope="module")
def network():
    """A network, less its mean scores so that it says several classes; its weights, its layers, images."""
    plain, variables = networks.plain_network()
    images = np.random.default_rng(0).uniform(size=(21, 13, 11, 3)).astype(np.float32)
    offset = plain(variables, images).mean(0)

    def apply(variables, images):
        return plain(variables, images) - offset

    return apply, variables, candidate_layers(layers(apply, variables, images[:1])), images


def _removed(*sets):
    """A row for each set of (layer, channel)."""
    rows = np.zeros((len(sets), layout_size(LAYOUT)), bool)
    for row, chosen in zip(rows, sets, strict=True):
        row[[feature_index(LAYOUT, layer, channel) for layer, channel in chosen]] = True
    return rows


def _counts(network, removed, references=None, num_devices=1, batch_size=8, **options):
    apply, variables, rows, images = network
    labels = np.asarray(apply(variables, images).argmax(-1))
    source = ArraySource(images, labels, class_names=tuple("abcde"))
    init, update = ablation_counts(apply, rows, 5, **options)
    return fold_epoch(
        update,
        init(len(removed)),
        source,
        batch_size=batch_size,
        constants=(variables, removed, references),
        mesh=data_mesh(num_devices),
    )


def test_removed_channels_are_those_of_a_network_edited_by_hand(network):
    apply, variables, rows, images = network
    assert layout_of(rows) == LAYOUT
    kernel, bias, dense = variables
    gone = np.array([5, 1])
    edited = (kernel.at[..., gone].set(0), bias.at[gone].set(0), dense.at[3].set(0))
    removed = _removed([], SOME, [("pool_1", 0), ("pool_1", 2)])
    found = _counts(network, removed)
    labels = np.asarray(apply(variables, images).argmax(-1))
    assert len(set(labels)) > 2
    expected = np.stack(
        [
            apply(weights, images).argmax(-1) == labels
            for weights in (variables, edited, (kernel, bias, dense.at[np.array([0, 2])].set(0)))
        ]
    )
    np.testing.assert_array_equal(found.images, np.bincount(labels, minlength=5))
    np.testing.assert_array_equal(found.correct, expected @ np.eye(5)[labels])
    np.testing.assert_array_equal(found.unchanged, found.correct)  # the labels are the predictions
    assert 0 < found.correct[1].sum() < found.correct[0].sum() == 21


def test_all_ablations_are_one_program_on_one_device_and_eight(network):
    removed = matched_random(jax.random.key(0), np.repeat(_removed(SOME), 7, axis=0), LAYOUT)
    once = _counts(network, removed)
    for options in ({"num_devices": 8}, {"at_once": 3}, {"batch_size": 24}):
        other = _counts(network, removed, **options)
        jax.tree.map(np.testing.assert_array_equal, other, once)


def test_a_channel_may_be_replaced_by_its_mean_or_by_that_of_another_image(network):
    apply, variables, _, images = network
    references = images[:4]
    everything = np.ones((1, layout_size(LAYOUT)), bool)
    mean = _counts(network, everything, references, replacement="mean")
    # All channels of all layers: one prediction for all images, that of the mean map.
    assert sorted(np.asarray(mean.correct[0] > 0)) == [False] * 4 + [True]
    other = _counts(network, everything, references, replacement="resampled", batch_size=21)
    labels = np.asarray(apply(variables, images).argmax(-1))
    expected = (labels[np.arange(21) % 4] == labels) @ np.eye(5)[labels]
    np.testing.assert_array_equal(other.correct[0], expected)
    nothing = _counts(network, ~everything, references, replacement="resampled")
    assert nothing.correct.sum() == 21


def test_channels_are_found_whatever_the_order_of_axes(key):
    images = jax.random.uniform(key, (5, 13, 11, 3))
    kernel = jax.random.normal(key, (4, 3, 3, 2))

    def apply(variables, images):
        x = lax.conv_general_dilated(images.transpose(0, 3, 1, 2), variables, (1, 1), "VALID")
        return jax.nn.relu(x).sum((2, 3))

    rows = [layers(apply, kernel, images)["conv_1"]]
    init, update = ablation_counts(apply, rows, 4)
    removed = ~np.eye(4, dtype=bool)  # one channel is left: its class is predicted where it is not dead
    labels = jnp.asarray((apply(kernel, images) > 0).argmax(-1))
    batch = {"images": images, "labels": labels}
    found = jax.jit(update)(init(4), batch, (kernel, removed, None))
    expected = [
        (apply(kernel * (np.arange(4) == q)[:, None, None, None], images).argmax(-1) == labels)
        for q in range(4)
    ]
    np.testing.assert_array_equal(found.correct, np.stack(expected) @ np.eye(4)[np.asarray(labels)])


def test_contributions_are_what_a_linear_layer_adds(network):
    """After the last pooling this network is linear: a channel adds its mean map times its weights."""
    apply, variables, rows, images = network
    source = ArraySource(images, np.zeros(21, int), class_names=tuple("abcde"))
    for score in (logit, margin):
        init, update = contribution_sums(apply, rows, 5, score=score)
        sums, magnitudes, counts = fold_epoch(update, init(), source, batch_size=8, constants=variables)
        outputs = apply(variables, images)
        targets = np.asarray(outputs.argmax(-1))
        np.testing.assert_array_equal(counts, np.bincount(targets, minlength=5))
        kernel, bias, dense = variables
        for channel in range(6):
            without = apply((kernel, bias, dense.at[channel].set(0)), images)
            expected = np.asarray(score(outputs, targets) - score(without, targets))
            at = feature_index(LAYOUT, "pool_1", channel)
            np.testing.assert_allclose(sums[at], expected @ np.eye(5)[targets], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(
                magnitudes[at], abs(expected) @ np.eye(5)[targets], rtol=1e-3, atol=1e-4
            )


def test_leading_features_are_those_of_the_highest_scores():
    scores = np.array([[0.1, 0.7, 0.7, -1.0], [4.0, 3.0, 2.0, 1.0]])
    found = leading_features(scores, [0, 1, 3, 9])
    assert found.shape == (2, 4, 4)
    assert found[0, 1].tolist() == [False, True, False, False]  # of equal ones the first
    assert found[0, 2].tolist() == [True, True, True, False]
    assert found.sum(-1).tolist() == [[0, 1, 3, 4]] * 2


def test_controls_are_as_many_in_each_layer():
    removed = _removed(SOME, [("relu_1", 0)])
    scores = np.arange(2.0 * layout_size(LAYOUT)).reshape(2, -1) % 7
    top = matched_top(scores, removed, LAYOUT)
    assert np.flatnonzero(top[0]).tolist() == [4, 5, 13]  # scores 0..5 | 6, 0..4 | 5, 6, 0..3
    assert top[1].sum() == top[1, 6:12].sum() == 1
    draws = matched_random(jax.random.key(0), np.repeat(removed[:1], 40, axis=0), LAYOUT)
    assert draws[:, :6].sum(1).tolist() == [2] * 40
    assert draws[:, 12:].sum(1).tolist() == [1] * 40
    assert not draws[:, 6:12].any()
    assert draws[:, :6].any(0).all()  # every channel has its turn, the relevant ones too
    assert len({tuple(row) for row in draws.tolist()}) > 20
    np.testing.assert_array_equal(
        draws, matched_random(jax.random.key(0), np.repeat(removed[:1], 40, axis=0), LAYOUT)
    )


def test_what_does_not_fit_raises(network):
    with pytest.raises(
        ValueError, match=r"removed: expected \(ablations, 18\), as 3 layers from conv_1 to pool_1"
    ):
        _counts(network, np.zeros((2, 17), bool))
    with pytest.raises(ValueError, match="removed: expected true or false for each feature, got int"):
        _counts(network, np.zeros((2, 18), int))
    with pytest.raises(ValueError, match="references: for replacement='mean' give images"):
        _counts(network, _removed([]), replacement="mean")
    with pytest.raises(ValueError, match="references: for replacement='zero' leave references out"):
        _counts(network, _removed([]), references=network[3])
