"""A planted dictionary is found again; codes are a layer, and the network stays what it was."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vexplain import GUIDED, edit, explain, features, grad_cam, layers, learn_relevance, read, with_rules
from vexplain.catalog import attribute
from vexplain.concepts import (
    SparseAutoencoder,
    autoencoding,
    decode,
    encode,
    learn_autoencoder,
    reconstruction,
    with_codes,
)
from vexplain.concepts.autoencoder_training import _objective
from vexplain.concepts.sparse_autoencoder import largest
from vexplain.datasets import ArraySource, shuffled_batches
from vexplain.relevance import feature_name
from vexplain.streaming import Checkpoint, fold

CHANNELS, CODES = 8, 12


def directions(seed, count, size):
    drawn = np.random.default_rng(seed).normal(size=(count, size))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def planted():
    """Images hold 24 codes, two of them active at a position; the network mixes them into 20 channels."""
    rng = np.random.default_rng(0)
    codes = np.zeros((96 * 9, 24), np.float32)
    for row in codes:
        row[rng.choice(24, 2, replace=False)] = rng.uniform(0.4, 1, 2)
    source = ArraySource(codes.reshape(96, 3, 3, 24), np.zeros(96, int), class_names=("all",))
    mixed = directions(1, 24, 20)
    return source, mixed, lambda variables, images: (images @ variables).mean((1, 2))


@pytest.fixture(scope="module")
def found(planted):
    source, mixed, apply = planted
    options = {"num_codes": 24, "num_active": 2, "epochs": 60, "batch_size": 16, "learning_rate": 0.03}
    return learn_autoencoder(apply, jnp.asarray(mixed, jnp.float32), source, "dense_1", **options)


def test_a_planted_dictionary_is_recovered(planted, found):
    source, mixed, apply = planted
    cosines = np.abs(mixed @ np.asarray(found.decoder).T).max(1)
    assert cosines.mean() >= 0.95
    np.testing.assert_allclose(np.linalg.norm(found.decoder, axis=1), 1, atol=1e-6)
    report = reconstruction(apply, jnp.asarray(mixed, jnp.float32), source, "dense_1", found, batch_size=40)
    assert report.unexplained < 0.05
    assert report.dead == 0
    assert report.num_active <= 2


def test_the_error_of_a_reconstruction_is_that_of_its_formula(planted, found):
    source, mixed, apply = planted
    variables = jnp.asarray(mixed, jnp.float32)
    wrong = SparseAutoencoder(
        found.encoder.at[:, 3:].set(0), found.decoder, found.bias + 0.1, found.num_active
    )
    report = reconstruction(apply, variables, source, "dense_1", wrong, batch_size=40)
    rows = (source.images @ mixed).reshape(-1, 20)
    z = np.asarray(encode(wrong, jnp.asarray(rows, jnp.float32)))
    left = rows - z @ np.asarray(wrong.decoder) - np.asarray(wrong.bias)
    assert report.unexplained == pytest.approx((left**2).sum() / ((rows - rows.mean(0)) ** 2).sum(), rel=1e-4)
    assert report.dead == pytest.approx((z == 0).all(0).mean())
    assert report.num_active == pytest.approx((z > 0).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float64])
def test_the_largest_numbers_are_those_of_a_sort(dtype):
    with jax.enable_x64(dtype == np.float64):
        values = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 7)), dtype)
        kept = np.asarray(jax.jit(lambda x: largest(x, 3))(values), np.float64)
        given = np.asarray(values, np.float64)
    bound = np.sort(given, -1)[..., -3:-2]
    np.testing.assert_array_equal(kept, np.where(given >= bound, np.maximum(given, 0), 0))


def test_of_equal_numbers_all_stay_and_nan_is_not_hidden():
    values = jnp.array([[2.0, 1.0, 1.0, 0.0], [-1.0, -2.0, 3.0, -0.0], [1.0, jnp.nan, 2.0, 3.0]])
    kept = np.asarray(largest(values, 2))
    np.testing.assert_array_equal(kept[:2], [[2, 1, 1, 0], [0, 0, 3, 0]])
    assert np.isnan(kept[2, 1])


def test_dead_codes_learn_what_the_others_leave_and_others_do_not():
    """Code 0 explains the first channel; of the two idle codes the dead one learns the second."""
    autoencoder = SparseAutoencoder(
        jnp.array([[1.0, 0.0, 0.0], [0.0, 0.1, 0.1]]),
        jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]),
        jnp.zeros(2),
        num_active=1,
    )
    rows = jnp.array([[[1.0, 0.5]]])
    derivative = jax.jit(jax.grad(_objective, has_aux=True))
    gradient = derivative(autoencoder, rows, jnp.ones((1, 1)), jnp.array([False, True, False]))[0]
    # 1/32 |e - z d|² with e = (0, 0.5), z = 0.05: its derivative by z is -2 (0.5 - 0.05) / 32.
    expected = -2 * 0.45 / 32
    np.testing.assert_allclose(gradient.encoder[:, 1], [expected, 0.5 * expected], rtol=1e-6)
    np.testing.assert_array_equal(gradient.encoder[:, 2], 0)
    np.testing.assert_array_equal(gradient.decoder[2], 0)


def test_a_training_that_was_interrupted_ends_with_the_same_autoencoder(planted, tmp_path):
    source, mixed, apply = planted
    init, update, finish = autoencoding(
        apply, "dense_1", optax.adam(0.01), num_codes=5, num_active=2, num_positions=4, dead_after=50
    )
    variables = jnp.asarray(mixed, jnp.float32)
    batch_fn, _ = shuffled_batches(source, 8, seed=0)
    state = jax.jit(init)(variables, batch_fn(0)["images"])
    run = functools.partial(fold, update, state, batch_fn, constants=variables)
    whole = finish(run(num_steps=4))
    checkpoint = Checkpoint(tmp_path / "training", every=1)
    run(num_steps=2, checkpoint=checkpoint)
    resumed = finish(run(num_steps=4, checkpoint=checkpoint))
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


# ------------------------------------------------------------------------- the codes as a layer


def network(variables, images):
    """A convolution, a ReLU, a convolution without one, and the mean of positions."""
    options = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    first, second = variables["kernels"]
    x = jax.nn.relu(jax.lax.conv_general_dilated(images, first, (2, 1), **options))
    return jax.lax.conv_general_dilated(x, second, (2, 1), **options).mean((1, 2)) @ variables["head"]


@pytest.fixture(scope="module")
def coded():
    rng = np.random.default_rng(2)
    kernels = [rng.normal(size=(3, 3, a, b)) / 4 for a, b in ((3, 5), (5, CHANNELS))]
    variables = {"kernels": kernels, "head": rng.normal(size=(CHANNELS, 4))}
    decoder = directions(3, CODES, CHANNELS)
    autoencoder = SparseAutoencoder(decoder.T, decoder, rng.normal(size=CHANNELS) / 10, num_active=3)
    variables, autoencoder = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (variables, autoencoder))
    images = jnp.asarray(rng.uniform(size=(3, 11, 7, 3)), jnp.float32)
    return with_codes(network, "conv_2"), variables, autoencoder, images


def test_outputs_are_the_same_bit_for_bit(coded):
    apply, variables, autoencoder, images = coded
    before = np.asarray(jax.jit(network)(variables, images))
    after = np.asarray(jax.jit(apply)((variables, autoencoder), images))
    np.testing.assert_array_equal(before.view(np.int32), after.view(np.int32))


def test_the_table_has_the_codes_where_the_layer_is_and_all_names_that_it_had(coded):
    apply, variables, autoencoder, images = coded
    table, before = layers(apply, (variables, autoencoder), images), layers(network, variables, images)
    codes, row = table["codes"], before["conv_2"]
    assert (codes.grid, codes.fields, codes.num_channels) == (row.grid, row.fields, CODES)
    assert [name for name in table.names if not name.startswith("codes")] == list(before.names)
    assert before.last_map == "conv_2"
    assert table.last_map == "codes/output"  # the same values


def test_codes_are_those_of_the_activations_and_an_edit_moves_the_outputs_by_the_decoder(coded):
    apply, variables, autoencoder, images = coded

    @jax.jit
    def run(variables, autoencoder, images):
        found = read(network, ["conv_2"])(variables, images)[1]["conv_2"]
        outputs, codes = read(apply, ["codes"])((variables, autoencoder), images)
        more = edit(apply, {"codes": lambda z: z.at[..., 4].add(0.5)})
        expected = encode(autoencoder, found), autoencoder.decoder[4] @ variables["head"] / 2
        return codes["codes"], more((variables, autoencoder), images) - outputs, expected

    codes, moved, (expected_codes, expected_move) = run(variables, autoencoder, images)
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_allclose(moved, np.broadcast_to(expected_move, moved.shape), atol=1e-5)


def test_maps_of_the_whole_network_stay_and_those_of_codes_have_their_closed_form(coded):
    apply, variables, autoencoder, images = coded
    both = (variables, autoencoder)
    for name in ("gradient", "lrp"):
        first = attribute(name, network, variables, images, 1)
        np.testing.assert_allclose(attribute(name, apply, both, images, 1), first, atol=1e-7, rtol=1e-5)
    # The score is the mean over positions of a · w, so that its derivative by code k is d_k · w / positions.
    maps = grad_cam(apply, both, images, 1, layer="codes", interpolation=None)
    weights = np.asarray(autoencoder.decoder) @ np.asarray(variables["head"])[:, 1] / maps[0].size
    codes = np.asarray(read(apply, ["codes"])(both, images)[1]["codes"])
    np.testing.assert_allclose(maps, np.maximum(codes @ weights, 0), atol=1e-6)


def test_tokens_have_codes_at_the_class_token_too_and_a_grid_without_it():
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.normal(size=(3, CHANNELS)), jnp.float32)

    def apply(variables, images):
        tokens = images.reshape(len(images), -1, 3) @ variables
        tokens = jnp.concatenate([jnp.ones((len(images), 1, CHANNELS)), tokens], axis=1)
        return jax.nn.relu(tokens).mean(1) @ jnp.ones((CHANNELS, 2))

    decoder = jnp.asarray(directions(3, CODES, CHANNELS), jnp.float32)
    autoencoder = SparseAutoencoder(decoder.T, decoder, jnp.zeros(CHANNELS), num_active=2)
    images = jnp.asarray(rng.uniform(size=(2, 3, 5, 3)), jnp.float32)
    both = (weights, autoencoder)
    coded = with_codes(apply, "relu_1", name="z")
    np.testing.assert_array_equal(jax.jit(coded)(both, images), jax.jit(apply)(weights, images))
    assert layers(coded, both, images)["z"].grid == (3, 5)
    assert read(coded, ["z"])(both, images)[1]["z"].shape == (2, 16, CODES)


def test_the_planted_code_is_relevant_and_explains_where_it_is():
    """Which of three directions is there decides the class; each channel takes part in all of them."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = np.zeros((60, 6, 6, 5), np.float32)
    for n, label in enumerate(labels):
        images[n, rng.integers(6), rng.integers(6), label] = 1
        images[n, rng.integers(6), rng.integers(6), 3 + n % 2] = 1  # of no class
    images[0], images[0, 1:3, 1:3, 0] = 0, 1
    mixed = directions(1, 5, 4)
    autoencoder = SparseAutoencoder(mixed.T * 2, mixed, np.zeros(4), num_active=1)
    variables, autoencoder = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (mixed, autoencoder))
    apply = lambda variables, images: (images @ variables).sum((1, 2)) @ variables[:3].T  # noqa: E731
    coded, both = with_codes(apply, "dense_1"), (variables, autoencoder)
    source = ArraySource(images, labels, class_names=("a", "b", "c"))
    found = learn_relevance(coded, both, source, layers=["codes"], labels="true", mu=2, batch_size=20)
    for n in range(3):
        assert (features(found, n)[0].layer, features(found, n)[0].channel) == ("codes", n)
    explanation = explain(coded, both, images[:1], 0, relevance=found, num_features=1, rules=GUIDED)
    assert feature_name(found, explanation.features.indices[0, 0]) == "codes[0]"
    np.testing.assert_array_equal(np.asarray(explanation.heatmaps[0]) > 0.5, images[0, ..., 0] > 0.5)


# ----------------------------------------------------------------------------------- mistakes


def test_mistakes_are_named(coded):
    apply, variables, autoencoder, images = coded
    with pytest.raises(TypeError, match=r"expected the pair \(variables of the network, autoencoder\)"):
        apply(variables, images)
    with pytest.raises(TypeError, match="autoencoder is a dict"):
        apply((variables, {}), images)
    with pytest.raises(ValueError, match="the network has a layer of this name"):
        with_codes(network, "conv_2", name="relu_1")((variables, autoencoder), images)
    with pytest.raises(ValueError, match="activations have 5 channels, and the autoencoder is of 8"):
        with_codes(network, "conv_1")((variables, autoencoder), images)
    with pytest.raises(ValueError, match="num_active is 9: expected at most num_codes = 4"):
        autoencoding(network, "conv_2", optax.sgd(1), num_codes=4, num_active=9)
    source = ArraySource(np.zeros((4, 11, 7, 3)), np.zeros(4, int), class_names=("all",))
    with pytest.raises(ValueError, match="'relu_1' has the same activation at every position"):
        learn_autoencoder(network, variables, source, "relu_1", num_codes=4, num_active=1, batch_size=4)
    assert with_codes(network, "conv_2") == apply  # compiled once
    assert repr(autoencoder) == "SparseAutoencoder(12 codes of 8 channels, 3 active)"
    np.testing.assert_allclose(decode(autoencoder, jnp.zeros(CODES)), autoencoder.bias)


def test_a_choice_that_compares_with_its_own_bits_is_no_activation_function_and_others_are():
    """The rule of guided backpropagation passes the first, and says nothing of a threshold of its own."""
    images = jnp.full((1, 2, 2, 3), 0.5)
    grouped = lambda v, x: largest(x @ v, 2).sum((1, 2))  # noqa: E731
    assert jnp.isfinite(with_rules(grouped, GUIDED)(jnp.eye(3), images)).all()
    thresholded = lambda v, x: jnp.where(x @ v > 0.3, x @ v, 0).sum((1, 2))  # noqa: E731
    with pytest.raises(ValueError, match="says nothing of"):
        with_rules(thresholded, GUIDED, on_unmatched="ignore")(jnp.eye(3), images)
