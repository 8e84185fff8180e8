"""Relevance that was planted is found: one channel decides each class, others only distract."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from vexplain.datasets import ArraySource, subset
from vexplain.relevance import (
    candidate_layers,
    features,
    layout_of,
    learn_relevance,
    learning,
    mu_lasso,
    num_features,
    response_fn,
)
from vexplain.streaming.devices import data_mesh
from vexplain.transforms import layers

NAMES = ("lily", "rose", "oak")
NUM_IMAGES = 45
ORDER = jnp.array([3, 5, 0, 4, 1, 2])  # channel of conv_1 that sees each color of the images
SPEAKING = (3, 5, 0)  # channels of conv_1 that see the colors 0, 1, 2, which decide


def planted():
    """Color c is above one half where the class is c, and below elsewhere; colors 3 to 5 are noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_IMAGES) % 3
    images = rng.uniform(0.05, 0.45, (NUM_IMAGES, 5, 4, 6)).astype(np.float32)
    images[..., 3:] += 0.1
    for n, label in enumerate(labels):
        images[n, ..., label] += 0.5
    return ArraySource(images, labels, class_names=NAMES)


def make_network(heads):
    """A change of order, a threshold, and a head in which color c speaks for class heads[c].

    Before the threshold all colors are as strong as each other: the convolution tells nothing.
    """
    kernel = jnp.zeros((1, 1, 6, 6)).at[0, 0, jnp.arange(6), ORDER].set(1.0)
    head = jnp.zeros((6, 3)).at[jnp.array(SPEAKING), jnp.array(heads)].set(1.0)

    def apply(variables, images):
        kernel, head = variables
        x = jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(x - 0.5).mean((1, 2)) @ head

    return apply, (kernel, head)


@pytest.fixture(scope="module")
def source():
    return planted()


@pytest.fixture(scope="module")
def network():
    return make_network((0, 1, 2))


@pytest.fixture(scope="module")
def chosen(network, source):
    """All candidates but the pooled copy, which is as relevant as its original."""
    table = layers(*network, source[[0]]["images"])
    assert table.names == ("conv_1", "relu_1", "pool_1", "dense_1")
    return [table["conv_1"], table["relu_1"]]


@pytest.fixture(scope="module")
def learned(network, source, chosen):
    return learn_relevance(*network, source, layers=chosen, mu=1, batch_size=16)


def test_exactly_the_planted_features_are_found(learned):
    assert learned.class_names == NAMES
    assert learned.layout == (("conv_1", 6), ("relu_1", 6))
    for c, channel in enumerate(SPEAKING):
        (found,) = features(learned, c)
        assert (found.layer, found.channel) == ("relu_1", channel)
        assert found.weight == pytest.approx(1)
    assert (learned.gaps <= 1e-6).all()


def test_one_of_a_channels_copies_is_taken_where_asked_for(network, source, learned):
    """The pooled map of a channel says what its ReLU says."""
    options = {"layers": ["conv_1", "relu_1", "pool_1"], "mu": 1, "batch_size": 16}
    one = learn_relevance(*network, source, **options, copies="one", solver="device")
    np.testing.assert_allclose(one.weights[:12], learned.weights, atol=1e-6)
    assert not one.weights[12:].any()


@pytest.mark.parametrize(("batch_size", "num_devices"), [(NUM_IMAGES, 1), (8, 8), (64, 8)])
def test_batches_and_devices_do_not_matter(batch_size, num_devices, network, source, chosen, learned):
    found = learn_relevance(
        *network, source, layers=chosen, mu=1, batch_size=batch_size, mesh=data_mesh(num_devices)
    )
    np.testing.assert_array_equal(found.weights != 0, learned.weights != 0)
    np.testing.assert_allclose(found.weights, learned.weights, rtol=1e-4)
    np.testing.assert_allclose(found.penalties, learned.penalties, rtol=1e-4)


def test_the_regression_is_that_of_all_responses(network, source, chosen):
    """Where mu does not limit it, non-negative least squares; the layers are all candidates."""
    found = learn_relevance(*network, source, mu=1000, batch_size=16)
    every = candidate_layers(layers(*network, source[[0]]["images"]))
    assert found.layout == layout_of(every)
    x = np.asarray(response_fn(network[0], every)(network[1], source[np.arange(NUM_IMAGES)]["images"])[0])
    for c in range(3):
        indicator = (source.labels == c).astype(float)
        least = nnls(x.astype(float), indicator)[1] ** 2
        residual = ((x @ found.weights[:, c] - indicator) ** 2).sum()
        assert residual == pytest.approx(least, abs=1e-4)
        assert np.abs(found.weights[:, c]).sum() < 1000


def test_predicted_and_true_labels_differ_where_the_network_errs(source, chosen):
    """Its head takes lilies for roses and roses for lilies."""
    apply, variables = make_network((1, 0, 2))
    options = {"layers": chosen, "mu": 1, "batch_size": 16}
    predicted = learn_relevance(apply, variables, source, **options)
    true = learn_relevance(apply, variables, source, labels="true", **options)
    chosen = {
        name: [features(r, c)[0].channel for c in range(3)] for name, r in (("p", predicted), ("t", true))
    }
    assert chosen == {"p": [SPEAKING[1], SPEAKING[0], SPEAKING[2]], "t": list(SPEAKING)}
    assert num_features(predicted).tolist() == num_features(true).tolist() == [1, 1, 1]


def test_another_measure_of_the_responses_is_kept_with_the_features(network, source, chosen):
    apply, variables = network
    options = {"layers": chosen, "mu": 3, "batch_size": 16}
    energy = learn_relevance(apply, variables, source, **options)
    found = learn_relevance(apply, variables, source, measure="maximum", **options)
    assert (energy.measure, found.measure) == ("energy", "maximum")
    images = source[np.arange(NUM_IMAGES)]["images"]
    x, logits = response_fn(apply, chosen, measure="maximum")(variables, images)
    x, onehot = np.asarray(x, np.float64), np.eye(3)[np.asarray(logits).argmax(1)]
    expected = mu_lasso(x.T @ x, x.T @ onehot, onehot.sum(0), mu=3)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-5)
    assert not np.allclose(energy.weights, expected.weights, atol=1e-3)


def test_a_class_without_images_is_named(source, chosen):
    apply, variables = make_network((0, 0, 2))  # never says "rose"
    with pytest.raises(
        ValueError, match=r"no image of class 'rose' by the prediction.*train it longer.*true"
    ) as e:
        learn_relevance(apply, variables, source, layers=chosen, batch_size=16)
    assert 'labels="true"' in str(e.value)
    few = ArraySource(source.images[::3], source.labels[::3], class_names=NAMES)
    with pytest.raises(ValueError, match="no image of class 'rose', 'oak': give images of it") as e:
        learn_relevance(apply, variables, few, layers=chosen, labels="true", batch_size=16)
    assert "labels=" not in str(e.value)


def test_a_class_without_images_may_be_left_out(source, chosen, learned, caplog):
    """The others get what they get in a data set that never had it; the class keeps its number."""
    apply, variables = make_network((0, 0, 2))
    found = learn_relevance(
        apply, variables, source, layers=chosen, mu=1, batch_size=16, on_empty_class="leave_out"
    )
    assert found.class_names == NAMES
    assert num_features(found)[1] == found.gaps[1] == found.penalties[1] == 0
    assert "left out, for no image is of this class by its predicted label: 'rose'" in caplog.text
    np.testing.assert_allclose(found.weights[:, 2], learned.weights[:, 2], rtol=1e-4)


def test_the_only_class_with_images_has_nothing_it_could_be_told_from(
    network, source, chosen, caplog, monkeypatch
):
    few = subset(source, np.arange(0, NUM_IMAGES, 3))
    monkeypatch.setattr(learning, "_MAX_NAMED", 1)
    found = learn_relevance(
        *network, few, layers=chosen, labels="true", batch_size=16, on_empty_class="leave_out"
    )
    assert found.weights.shape == (12, 3)
    assert not found.weights.any()
    assert "by its true label: 'rose' and 1 more" in caplog.text
    assert "by its true label every image is of class 'lily'" in caplog.text


def test_without_layers_the_default_is_that_of_the_table_and_its_size_is_told(network, source, caplog):
    options = {"mu": 1, "batch_size": 16}
    caplog.set_level("INFO", logger="vexplain")
    everything = learn_relevance(*network, source, **options)
    assert everything.layout == (("conv_1", 6), ("relu_1", 6), ("pool_1", 6))
    assert "18 features of 3 layers make a Gram matrix of 1,296 bytes" in caplog.text
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    few = learn_relevance(*network, source, max_gram_bytes=1295, **options)
    assert few.layout == (("relu_1", 6),)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "all 18 features" in warning
    assert "6 features of 1 layer make a Gram matrix of 144 bytes" in warning
    with pytest.raises(ValueError, match=r"6 features of 1 layer .* Use fewer layers: name some, as in"):
        learn_relevance(*network, source, max_gram_bytes=143, **options)


def test_layers_may_be_given_by_name(network, source, chosen, learned):
    for given in (["conv_1", "relu_1"], [chosen[0], "relu_1"]):
        found = learn_relevance(*network, source, layers=given, mu=1, batch_size=16)
        assert found.layout == learned.layout
        np.testing.assert_array_equal(found.weights, learned.weights)
    with pytest.raises(KeyError, match=r"no layer 'relu_9'.*nearest names: relu_1"):
        learn_relevance(*network, source, layers=["relu_9"])
    with pytest.raises(ValueError, match="layers is empty: name the layers"):
        learn_relevance(*network, source, layers=[])
    with pytest.raises(ValueError, match="layers has 'relu_1' twice: name each layer once"):
        learn_relevance(*network, source, layers=["relu_1", "conv_1", "relu_1"])
    with pytest.raises(ValueError, match=r"layers is the text 'relu_1': pass a list, \['relu_1'\]"):
        learn_relevance(*network, source, layers="relu_1")


class Unreadable:
    """A source that must not be visited."""

    class_names = NAMES

    def __len__(self):
        return 10

    def __getitem__(self, indices):
        raise AssertionError("the images were read")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mu": 0}, "mu: .*positive and finite, got 0"),
        ({"mu": -2.5}, "mu: .*positive and finite, got -2.5"),
        ({"mu": float("inf")}, "mu: .*positive and finite, got inf"),
        ({"mu": float("nan")}, "mu: .*positive and finite, got nan"),
        (
            {"labels": "true", "max_gram_bytes": 575},
            r"12 features of 2 layers .* 576 bytes, .* = 575; .* conv_1 \(6\).* leave layers out.*raise",
        ),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_bad_options_are_named_before_any_image_is_read(options, message, network, chosen):
    with pytest.raises(ValueError, match=message):
        learn_relevance(*network, Unreadable(), layers=chosen, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"on_empty_class": "skip"}, "on_empty_class is 'skip': expected one of"),
        ({"mu": "5"}, "mu: .* must be a number, positive and finite, got '5'"),
        ({"source": {"images": np.zeros((3, 5, 4, 6))}}, "source is a dict: .*ArraySource"),
        ({"source": np.zeros((3, 5, 4, 6))}, "source is a ndarray: .*ArraySource"),
        (
            {"source": ArraySource(np.zeros((0, 5, 4, 6)), np.zeros(0, int), class_names=NAMES)},
            "source holds no image",
        ),
    ],
)
def test_arguments_of_another_type_are_named(change, message, network, source):
    without_type_checks = inspect.unwrap(learn_relevance)
    with pytest.raises(ValueError, match=message):
        without_type_checks(*network, **({"source": source} | change))


def test_a_network_that_cannot_be_hashed_is_learned_from_too_and_compiled_once(compilations):
    class Network:
        __hash__ = None
        sign = 1

        def __call__(self, variables, images):
            return images.mean((1, 2)) @ (self.sign * variables)

    images = np.eye(2, dtype=np.float32).repeat(3, axis=0).reshape(6, 1, 1, 2)
    source = ArraySource(images, np.array([0, 0, 0, 1, 1, 1]), class_names=("red", "green"))
    apply = Network()
    for sign in (1, -1):
        apply.sign = sign
        relevance = learn_relevance(apply, sign * np.eye(2), source, mu=1)
        assert [f.channel for f in features(relevance, "green")] == [1]
    with compilations() as found:
        learn_relevance(apply, -np.eye(2), source, mu=1)
    assert not found


def test_a_batch_size_may_be_a_part_of_the_network(key):
    """A network that reshapes to eight images is traced with eight, as the pass over the images calls it."""

    def apply(w, images):
        return jax.nn.relu(images.reshape(8, -1) @ w)

    w = jax.random.normal(key, (2 * 2 * 3, 2))
    images = np.asarray(jax.random.uniform(key, (16, 2, 2, 3)))
    source = ArraySource(images, np.arange(16) % 2, class_names=("a", "b"))
    found = learn_relevance(apply, w, source, batch_size=8, labels="true", layers=["dense_1"])
    assert found.layout == (("dense_1", 2),)


def test_a_dead_network_is_said_to_be_one(key, caplog):
    apply = lambda w, images: jax.nn.relu(-jnp.abs(w) - 1 + 0 * images.sum((1, 2))) @ jnp.eye(3)[:, :2]  # noqa: E731
    images = np.asarray(jax.random.uniform(key, (8, 2, 2, 3)))
    source = ArraySource(images, np.arange(8) % 2, class_names=("a", "b"))
    found = learn_relevance(apply, jnp.ones(3), source, labels="true", layers=["relu_1"])
    assert not found.weights.any()
    assert "the network is dead" in caplog.text
