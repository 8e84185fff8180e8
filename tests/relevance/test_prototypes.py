"""Groups of images as classes: of an encoder without classes, by clusters and by attributes."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from vexplain import GUIDED, explain, features, learn_relevance, relevant_evidence
from vexplain.datasets import ArraySource, with_extras
from vexplain.relevance import feature_name, group_prototypes, num_features, response_fn, with_prototypes
from vexplain.transforms import layers

NAMES = ("red", "green", "blue")
EMBEDDING = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def encoder(variables, images):
    """Five numbers an image, and no class."""
    return jax.nn.relu(images - 0.2).mean((1, 2)) @ variables


@pytest.fixture(scope="module")
def source():
    """Each image has a square of one color or of two, or none; its label says nothing."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 0.3, (36, 4, 4, 3)).astype(np.float32)
    present = np.array([[n & 1, n & 2, n & 4] for n in range(8)] * 5)[:36] > 0
    images[:, 1:3, 1:3] += 0.6 * present[:, None, None]
    arrays = ArraySource(images, np.zeros(36, int), class_names=("all",))
    return with_extras(arrays, {"colors": present.astype(np.int32), "first": present.argmax(1)})


def test_the_largest_score_is_that_of_the_nearest_prototype():
    rng = np.random.default_rng(0)
    outputs, prototypes = (rng.normal(size=(n, 5)).astype(np.float32) for n in (40, 7))
    images = np.zeros((40, 1, 1, 1), np.float32)
    grouped = with_prototypes(lambda variables, images: variables)
    scores = np.asarray(grouped((jnp.asarray(outputs), prototypes), images))
    distances = ((outputs[:, None] - prototypes) ** 2).sum(-1)
    np.testing.assert_allclose(scores, ((outputs**2).sum(1)[:, None] - distances) / 2, atol=1e-5)
    np.testing.assert_array_equal(scores.argmax(1), distances.argmin(1))
    assert with_prototypes(encoder) == with_prototypes(encoder)  # compiled once


@pytest.mark.parametrize("labels", ["colors", "first"])
def test_prototypes_are_the_means_of_groups(labels, source):
    found = group_prototypes(encoder, EMBEDDING, source, labels=labels, num_groups=3, batch_size=16)
    batch = source[np.arange(36)]
    outputs = np.asarray(encoder(EMBEDDING, batch["images"]))
    for n in range(3):
        members = batch["colors"][:, n] > 0 if labels == "colors" else batch["first"] == n
        np.testing.assert_allclose(found[n], outputs[members].mean(0), rtol=1e-4, atol=1e-6)


def test_attributes_that_images_share_are_regressed_one_by_one(source):
    """Where mu does not limit it, non-negative least squares of each column of the matrix."""
    grouped, variables = with_prototypes(encoder), (EMBEDDING, np.eye(5, dtype=np.float32)[:3])
    options = {"labels": "colors", "class_names": NAMES, "batch_size": 16}
    found = learn_relevance(grouped, variables, source, **options, mu=1000, layers=["relu_1"])
    batch, table = source[np.arange(36)], layers(grouped, variables, source[[0]]["images"])
    x = np.asarray(response_fn(grouped, [table["relu_1"]])(variables, batch["images"])[0], float)
    for n in range(3):
        wanted = nnls(x, batch["colors"][:, n].astype(float))[0]
        np.testing.assert_allclose(found.weights[:, n], wanted, rtol=1e-3, atol=1e-4)
        assert features(found, NAMES[n])[0].channel == n


def test_the_clusters_of_an_encoder_are_explained_end_to_end(source):
    """The centers are those of one color each; an image is explained by its color, where it is."""
    centers = group_prototypes(encoder, EMBEDDING, source, labels="first", num_groups=3)
    grouped, variables = with_prototypes(encoder), (EMBEDDING, centers)
    options = {"class_names": NAMES, "layers": ["relu_1"], "mu": 2}
    found = learn_relevance(grouped, variables, source, **options)
    images = source[np.array([1, 2, 4])]["images"]
    explanation = explain(grouped, variables, images, relevance=found, num_features=1, rules=GUIDED)
    np.testing.assert_array_equal(explanation.targets, [0, 1, 2])
    for n in range(3):
        assert feature_name(found, explanation.features.indices[n, 0]) == f"relu_1[{n}]"
        square = np.asarray(explanation.heatmaps[n]) > 0.3
        np.testing.assert_array_equal(square, np.pad(np.ones((2, 2), bool), 1))
    assert relevant_evidence(grouped, variables, images, [0, 1, 2], relevance=found).shape == (3, 4, 4)


def test_a_group_of_all_images_has_no_relevant_feature_and_is_named(source, caplog):
    every = with_extras(source, {"groups": np.stack([np.ones(36), np.arange(36) % 8 > 3], 1)})
    grouped, variables = with_prototypes(encoder), (EMBEDDING, np.zeros((2, 5), np.float32))
    options = {"labels": "groups", "class_names": ("any", "blue"), "layers": ["relu_1"]}
    with caplog.at_level(logging.WARNING):
        found = learn_relevance(grouped, variables, every, **options)
    assert "every image is of class 'any'" in caplog.text
    assert num_features(found)[0] == 0
    assert features(found, "blue")[0].channel == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apply": encoder, "variables": EMBEDDING}, "such as an encoder, becomes one of them by vexplain"),
        ({"labels": "shapes"}, "needs .*shapes.*got .*colors.*first"),
        ({"labels": "halves"}, "'halves' holds other numbers than 0 and 1"),
        ({"class_names": ("red", "green")}, r"response_fn: expected logits of shape \(batch, 2\)"),
        ({"class_names": ("red", "red", "blue")}, "'red' more than once"),
        ({"labels": "wide"}, r"has shape \(16, 5\).*zeros and ones, \(batch, 3\)"),
    ],
)
def test_mistakes_are_named(change, message, source):
    extras = {"halves": np.full((36, 3), 0.5), "wide": np.zeros((36, 5))}
    options = {"apply": with_prototypes(encoder), "variables": (EMBEDDING, np.zeros((3, 5), np.float32))}
    options |= {"labels": "colors", "class_names": NAMES, "layers": ["relu_1"], "batch_size": 16} | change
    apply, variables = options.pop("apply"), options.pop("variables")
    with pytest.raises((ValueError, KeyError), match=message):
        learn_relevance(apply, variables, with_extras(source, extras), **options)


def test_prototypes_need_vectors_and_an_image_of_every_group(source):
    with pytest.raises(ValueError, match=r"no image of groups \[3\] by 'first'"):
        group_prototypes(encoder, EMBEDDING, source, labels="first", num_groups=4)
    with pytest.raises(ValueError, match="one vector an image"):
        group_prototypes(lambda v, x: x, None, source, labels="first", num_groups=3)
    with pytest.raises(TypeError, match=r"expected the pair \(variables of the network, prototypes\)"):
        with_prototypes(encoder)(EMBEDDING, source[[0]]["images"])
    with pytest.raises(ValueError, match=r"expected \(batch, size\) and \(groups, size\)"):
        with_prototypes(encoder)((EMBEDDING, np.zeros((2, 4))), source[[0]]["images"])
