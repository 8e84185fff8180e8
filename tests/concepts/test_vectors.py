"""Concept activation vectors: scikit-learn's classifier, closed forms, planted concepts, SciPy's t-test."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

import vexplain as vx
from tests.transforms import networks
from vexplain.concepts import ConceptScores, ConceptVectors, concept_sensitivity, concept_vectors, tcav
from vexplain.concepts._classifiers import Images, fit_classifiers
from vexplain.concepts._layers import JoinedSource, check_source
from vexplain.datasets import ArraySource

EXACT = {"rtol": 1e-10, "atol": 1e-12}


def vectors_of(vectors, layer, pooling="mean"):
    """Vectors (concepts, runs, size) that no one fitted; all of their held-out images are right."""
    return ConceptVectors(
        vectors,
        np.ones(vectors.shape[:2]),
        vectors[0],
        np.full(vectors.shape[1], 0.5),
        tuple("abcdef"[: len(vectors)]),
        (9,) * len(vectors),
        layer,
        pooling,
    )


def source_of(images, labels=None, class_names=("x",)):
    labels = np.zeros(len(images), int) if labels is None else labels
    return ArraySource(images.astype(np.float32), labels, class_names=class_names)


# ------------------------------------------------------------------------------- the classifiers


def test_all_classifiers_are_those_of_scikit_learn(float64, rng):
    features = rng.normal(size=(40, 5)) * np.array([1, 3, 0.2, 1, 1]) * 7
    rows = np.stack([rng.permutation(40)[:24] for _ in range(3)])
    is_positive = np.broadcast_to(np.arange(24) < 12, rows.shape)
    features[rows[0][:12]] += 4  # the first can be told, the others by chance
    is_held_out = np.stack([np.arange(24) % 12 < held for held in (3, 4, 4)])
    is_used = np.arange(24) != 23  # the last one is in neither part
    parts = ~is_held_out & is_used, is_held_out & is_used
    sets = [Images(rows, is_positive, part.astype(float)) for part in parts]
    found = fit_classifiers(jnp.asarray(features), *sets, penalty=0.05)
    for n in range(3):
        images, truth, training, held = features[rows[n]], is_positive[n], parts[0][n], parts[1][n]
        centered = images - images[training].mean(0)
        scaled = centered / np.sqrt((centered[training] ** 2).sum(1).mean())
        model = LogisticRegression(C=1 / (0.05 * training.sum()), solver="newton-cholesky", tol=1e-12)
        model.fit(scaled[training], truth[training])
        expected = model.coef_[0] / np.linalg.norm(model.coef_)
        np.testing.assert_allclose(found.normals[n], expected, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(found.accuracies[n], model.score(scaled[held], truth[held]), **EXACT)


# ----------------------------------------------------------------------------- the sensitivities


def test_sensitivities_of_a_linear_head_are_products_with_its_weights(float64, rng):
    dense, images = rng.normal(size=(4, 3)), rng.uniform(0.1, 1, size=(2, 3, 5, 4))
    whole = rng.normal(size=(60, 3))
    vectors = rng.normal(size=(2, 2, 4)), rng.normal(size=(2, 2, 60))
    targets = np.array([2, 0])
    pooled = lambda w, x: jax.nn.relu(x).mean((1, 2)) @ w  # noqa: E731
    flat = lambda w, x: jax.nn.relu(x).reshape(len(x), -1) @ w  # noqa: E731
    found = concept_sensitivity(pooled, dense, images, targets, vectors=vectors_of(vectors[0], "relu_1"))
    np.testing.assert_allclose(found, np.moveaxis(vectors[0] @ dense[:, targets], -1, 0), **EXACT)
    at_all_positions = vectors_of(vectors[1], "relu_1", "none")
    found = concept_sensitivity(flat, whole, images, targets, vectors=at_all_positions)
    np.testing.assert_allclose(found, np.moveaxis(vectors[1] @ whole[:, targets], -1, 0), **EXACT)


def test_a_sensitivity_of_tokens_is_the_difference_quotient(float64, rng):
    apply, variables = networks.attention_network()
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
    images, vector = rng.uniform(size=(2, 16, 12, 3)), rng.normal(size=6)
    row = vx.layers(apply, variables, images)[vx.cam_layer(vx.layers(apply, variables, images))]
    assert row.shape[1] == row.num_positions + 1  # the class token is left as it is
    step, positions = 1e-5, np.arange(row.shape[1]) > 0

    @jax.jit
    def quotient(variables, images):
        moved = [
            vx.edit(apply, {row.name: lambda a, s=s: a + s * positions[None, :, None] * vector})
            for s in (step, -step)
        ]
        return sum(s * m(variables, images) for s, m in zip((1, -1), moved, strict=True)) / (2 * step)

    found = concept_sensitivity(
        apply, variables, images, targets=3, vectors=vectors_of(vector[None, None], row.name)
    )
    np.testing.assert_allclose(found[:, 0, 0], quotient(variables, images)[:, 3], rtol=1e-6, atol=1e-9)


# ------------------------------------------------------------------------------ planted concepts


def channels_last_network(w, images):
    return jax.nn.relu(images).mean((1, 2)) @ w


def channels_first_network(w, images):
    return jax.nn.relu(jnp.moveaxis(images, -1, 1)).mean((2, 3)) @ w


def bright(rng, channel, count=12):
    images = rng.uniform(0, 0.5, size=(count, 3, 4, 4))
    images[..., channel] += 0.5
    return source_of(images)


@pytest.fixture(scope="module")
def case():
    """Class 0 counts channel 0 for it, class 1 against it; channel 1 counts for neither; "none" is noise."""
    rng = np.random.default_rng(0)
    w = np.array([[1, -1], [0, 0], [0.5, 0.1], [-0.2, 0.3]], np.float32)
    noise = rng.uniform(0, 0.5, size=(150, 3, 4, 4))
    anything = source_of(noise, np.arange(150) % 2, ("first", "second"))
    concepts = {"used": bright(rng, 0), "unused": bright(rng, 1, 14), "none": source_of(noise[:12])}
    vectors = concept_vectors(channels_last_network, w, concepts, anything, layer="relu_1", num_runs=6)
    return w, anything, concepts, vectors


def test_planted_concepts_are_found(case):
    w, anything, _, vectors = case
    means = np.asarray(vectors.vectors).mean(1)
    assert means[:2].argmax(1).tolist() == [0, 1]
    np.testing.assert_allclose(np.linalg.norm(vectors.vectors, axis=-1), 1, rtol=1e-5)
    assert np.asarray(vectors.accuracies)[:2].min() == 1
    assert vectors.is_above_chance.tolist()[:2] == [[True] * 6] * 2
    assert vectors.num_held_out == (4, 5, 4)
    found = tcav(channels_last_network, w, vectors, anything)
    assert found.num_images.tolist() == [75, 75]
    np.testing.assert_array_equal(found.means[:, 0], [1, 0])
    sign = np.asarray(vectors.vectors) @ w > 0  # of a linear network the derivative of every image
    np.testing.assert_array_equal(found.scores, np.moveaxis(sign, -1, 0))
    assert found.is_significant()[:, 2].tolist() == [False, False]
    assert "vectors at chance" in str(found)
    assert "4 of 6" not in str(vectors)


def test_a_concept_of_noise_is_said_to_be_none(case, caplog):
    w, anything, concepts, _ = case
    with caplog.at_level(logging.WARNING):
        concept_vectors(channels_last_network, w, concepts, anything, layer="relu_1", num_runs=6)
    (record,) = caplog.records
    assert "in layer 'relu_1' most vectors of these concepts" in record.getMessage()
    assert "stand for no concept: 'none' (0." in record.getMessage()


def test_channels_first_and_any_batch_size_give_the_same_without_compiling_again(case, compilations):
    w, anything, concepts, vectors = case
    options = {"layer": "relu_1", "num_runs": 6, "batch_size": 7}
    found = concept_vectors(channels_first_network, w, concepts, anything, **options)
    np.testing.assert_allclose(found.vectors, vectors.vectors, atol=1e-4)
    scores = tcav(channels_last_network, w, vectors, anything, batch_size=11)
    np.testing.assert_array_equal(scores.scores, tcav(channels_last_network, w, vectors, anything).scores)
    with compilations() as compiled:
        tcav(channels_last_network, -w, vectors, anything)
    assert not compiled


def test_unreadable_images_and_several_devices_change_nothing(case):
    w, anything, concepts, vectors = case
    images = np.concatenate([concepts["used"].images, np.zeros((3, 3, 4, 4), np.float32)])
    weights = (np.arange(15) < 12).astype(np.float32)
    broken = ArraySource(images, np.zeros(15, int), class_names=("x",), extras={"weights": weights})
    mesh = vx.data_mesh(4)
    found = concept_vectors(
        channels_last_network, w, {"used": broken}, anything, layer="relu_1", num_runs=6, mesh=mesh
    )
    assert found.num_held_out == (4,)
    np.testing.assert_array_equal(found.accuracies, 1)  # black images would not be on the side of the bright
    weights = (np.arange(150) >= 40).astype(np.float32)
    fewer = ArraySource(
        anything.images, anything.labels, class_names=anything.class_names, extras={"weights": weights}
    )
    scores = tcav(channels_last_network, w, vectors, fewer, mesh=mesh)
    assert scores.num_images.tolist() == [55, 55]
    np.testing.assert_array_equal(scores.scores, tcav(channels_last_network, w, vectors, anything).scores)


def test_the_test_is_welchs_of_scipy_times_the_number_of_concepts(rng):
    scores, random_scores = rng.uniform(0.5, 0.8, size=(2, 3, 8)), rng.uniform(size=(2, 8))
    scores[1, 1], scores[1, 2], random_scores[1] = 1, 0.5, 0.5  # the same in every run
    found = ConceptScores(scores, random_scores, np.array([4, 0]), tuple("abc"), ("x", "y"), np.ones(3, bool))
    for c in range(3):
        expected = stats.ttest_ind(scores[0, c], random_scores[0], equal_var=False).pvalue
        np.testing.assert_allclose(found.p_values[0, c], min(3 * expected, 1), **EXACT)
    assert np.isnan(found.p_values[1]).all()  # of no image
    found = dataclasses.replace(found, num_images=np.array([4, 4]))
    assert found.p_values[1, 1:].tolist() == [0, 1]
    assert found.is_significant()[1, 1:].tolist() == [True, False]
    assert not dataclasses.replace(found, is_above_chance=np.zeros(3, bool)).is_significant().any()


# --------------------------------------------------------------------------------------- refusals


def test_what_cannot_be_asked_is_named(case, rng):
    w, anything, concepts, _ = case

    def fit(*, apply=channels_last_network, concepts=concepts, random=anything, layer="relu_1", **options):
        return concept_vectors(apply, w, concepts, random, layer=layer, **options)

    with pytest.raises(ValueError, match="concepts is"):
        fit(concepts=anything)
    with pytest.raises(ValueError, match="source is a ndarray: expected a source of images"):
        check_source("source", np.ones((12, 3, 4, 4)))
    with pytest.raises(ValueError, match=r"concepts\['a'\] is a ndarray: expected a source"):
        fit(concepts={"a": np.ones((12, 3, 4, 4))})
    with pytest.raises(ValueError, match="random holds 20 images: expected 28 or more"):
        fit(random=source_of(rng.uniform(size=(20, 3, 4, 4))))
    with pytest.raises(ValueError, match="7 readable images of one, of which 2 are held out"):
        fit(concepts={"a": bright(rng, 0, 7)})
    with pytest.raises(ValueError, match="num_runs is 1: expected 2 or more"):
        fit(num_runs=1)
    with pytest.raises(ValueError, match="penalty is 0"):
        fit(penalty=0)
    with pytest.raises(KeyError, match="relu_9"):
        fit(layer="relu_9")
    with pytest.raises(ValueError, match="the same activations for all images"):
        fit(apply=lambda w, x: jax.nn.relu(x - 2).mean((1, 2)) @ w)
    with pytest.raises(ValueError, match="expected one size for all"):
        JoinedSource({"a": anything, "b": source_of(np.ones((3, 5, 4, 4)))})


def test_vectors_of_another_network_or_of_no_use_are_refused(case):
    w, anything, _, vectors = case
    with pytest.raises(ValueError, match="vectors have 3 numbers, and layer 'relu_1' has 4 features"):
        tcav(channels_last_network, w, vectors_of(np.ones((1, 2, 3)), "relu_1"), anything)
    with pytest.raises(ValueError, match="source has 2 class_names, and score tells 3 classes"):
        tcav(channels_last_network, np.ones((4, 3), np.float32), vectors, anything, labels="predicted")
    with pytest.raises(ValueError, match="the score of no image depends on its positions"):
        tcav(channels_last_network, 0 * w, vectors, anything)
