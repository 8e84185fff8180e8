"""The path over mu, its selection and the stability of features, where the relevant features are known."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso

from vexplain.relevance import (
    gram_statistics,
    jaccard_interval,
    merge_statistics,
    mu_lasso,
    mu_path,
    select_mu,
    stability,
)

NUM_CLASSES, NUM_FEATURES, NUM_PARTS, PART = 3, 40, 10, 60
PLANTED = np.array([[1, 7, 22], [3, 11, 30], [5, 19, 38]])


@pytest.fixture(scope="module")
def data():
    """Three features of each class are high in its images; 31 others are noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_PARTS * PART) % NUM_CLASSES
    responses = rng.gamma(2.0, 0.1, size=(len(labels), NUM_FEATURES))
    for label, planted in enumerate(PLANTED):
        responses[np.ix_(labels == label, planted)] += [0.5, 0.4, 0.3]
    return responses, labels


def respond(_, responses):
    return responses, responses[:, :NUM_CLASSES]


INIT, UPDATE, FINISH = gram_statistics(respond, NUM_FEATURES, NUM_CLASSES, labels="true")


def sums_of(responses, labels):
    batch = {"images": jnp.asarray(responses, jnp.float32), "labels": jnp.asarray(labels)}
    return FINISH(UPDATE(INIT(), batch, None))


@pytest.fixture(scope="module")
def parts(data):
    responses, labels = data
    return [
        sums_of(responses[start : start + PART], labels[start : start + PART])
        for start in range(0, len(labels), PART)
    ]


def test_the_path_is_that_of_single_solutions(data):
    responses, labels = data
    bounds = [3.0, 0.1, 0.5, 1.2]
    path = mu_path(sums_of(responses, labels), bounds)
    np.testing.assert_array_equal(path.bounds, sorted(bounds))
    indicators = np.eye(NUM_CLASSES)[labels]
    x = responses.astype(np.float32).astype(np.float64)
    for index, mu in enumerate(path.bounds):
        alone = mu_lasso(x.T @ x, x.T @ indicators, indicators.sum(0), mu=mu)
        np.testing.assert_allclose(path.weights[index], alone.weights, atol=1e-4)
        residuals = x @ path.weights[index] - indicators
        fits = 1 - (residuals**2).sum(0) / indicators.sum(0)
        np.testing.assert_allclose(path.fits[index], fits, atol=1e-5)
        np.testing.assert_array_equal(path.num_features[index], (path.weights[index] != 0).sum(0))
    assert np.all(np.diff(path.fits, axis=0) >= -1e-9)


def test_agreement_is_that_of_the_mean_responses(data):
    responses, labels = data
    path = mu_path(sums_of(responses, labels), [0.02, 1.0])
    assert path.agreement[-1] == 1
    swapped = np.where(labels == 1, 2, np.where(labels == 2, 1, 0))
    for index, weights in enumerate(path.weights):
        means = np.stack([responses[labels == c].mean(0) for c in range(NUM_CLASSES)])
        expected = ((means @ weights).argmax(1) == np.arange(NUM_CLASSES)).mean()
        np.testing.assert_allclose(path.agreement[index], expected)
    assert mu_path(sums_of(responses, swapped), [1.0]).agreement[0] == 1  # they are other weights


def test_a_class_without_images_has_no_features_on_the_path(data):
    responses, labels = data
    path = mu_path(sums_of(responses[labels != 1], labels[labels != 1]), [0.5, 1.0])
    assert not path.num_features[:, 1].any()
    assert not path.fits[:, 1].any()
    assert path.num_features[:, [0, 2]].all()


def test_cross_validation_is_that_of_the_images(data, parts):
    """Errors by scikit-learn's fit of the images themselves, at the penalty that has the same norm."""
    responses, labels = data
    found = select_mu(parts, [0.3, 0.9])
    held_out = np.arange(len(labels)) // PART == 2
    indicators = np.eye(NUM_CLASSES)[labels]
    x, y = responses[~held_out], indicators[~held_out]
    error = 0.0
    for label in range(NUM_CLASSES):
        penalty = mu_lasso(x.T @ x, x.T @ y, y.sum(0), mu=0.3).penalties[label]
        model = Lasso(penalty / (2 * len(x)), positive=True, fit_intercept=False, tol=1e-10, max_iter=100_000)
        predicted = model.fit(x, y[:, label]).predict(responses[held_out])
        error += ((predicted - indicators[held_out, label]) ** 2).sum()
    np.testing.assert_allclose(found.errors[2, 0], error / held_out.sum(), rtol=1e-4)


def test_the_selected_bound_finds_the_planted_features(data, parts):
    responses, labels = data
    bounds = np.geomspace(0.05, 20, 12)
    found = select_mu(parts, bounds)
    means = found.errors.mean(0)
    assert found.mu <= bounds[means.argmin()]  # never a larger model than the best
    assert means[np.searchsorted(bounds, found.mu)] <= found.threshold
    assert means[np.searchsorted(bounds, found.mu) - 1] > found.threshold  # and the smallest such
    weights = mu_path(sums_of(responses, labels), [found.mu]).weights[0]
    for label, planted in enumerate(PLANTED):
        largest = np.argsort(-weights[:, label])[:3]
        assert set(largest) == set(planted)


def test_planted_features_are_stable_and_noise_is_not(parts, data):
    found = stability(parts, mu=3.0, num_draws=20)
    for indices, repeats in ((found.leave_one_out, 10), (found.bootstrap, 20), (found.one_part, 10)):
        assert indices.shape == (repeats, NUM_CLASSES)
        assert indices.min() >= 0
        assert indices.max() <= 1
    # More images in common, more features in common.
    assert found.leave_one_out.mean() > found.bootstrap.mean() > found.one_part.mean()
    responses, labels = data
    shuffled = np.random.default_rng(1).permutation(labels)
    noise = [
        sums_of(responses[start : start + PART], shuffled[start : start + PART])
        for start in range(0, len(labels), PART)
    ]
    assert stability(noise, mu=3.0, num_draws=20).bootstrap.mean() < found.bootstrap.mean()


def test_jaccard_indices_by_hand(parts):
    """Of two parts the one left in is the one alone; the whole is both."""
    found = stability(parts[:2], mu=0.7, num_draws=4)
    np.testing.assert_array_equal(found.leave_one_out, found.one_part[::-1])
    whole = mu_path(_together(parts[:2]), [0.7]).weights[0] != 0
    alone = mu_path(parts[0], [0.7]).weights[0] != 0
    expected = [(w & a).sum() / (w | a).sum() for w, a in zip(whole.T, alone.T, strict=True)]
    np.testing.assert_allclose(found.one_part[0], expected)


def _together(parts):
    return functools.reduce(merge_statistics, parts)


def test_the_interval_is_that_of_the_repeats():
    indices = np.array([[0.0, 0.2], [0.4, 0.6], [0.8, 1.0]])  # means .1, .5, .9
    mean, low, high = jaccard_interval(indices, confidence=0.5)
    np.testing.assert_allclose([mean, low, high], [0.5, 0.3, 0.7])


def test_what_cannot_be_is_said(parts):
    with pytest.raises(ValueError, match="two or more disjoint parts of the images, got 1"):
        select_mu(parts[:1], [1.0])
    with pytest.raises(ValueError, match="two or more disjoint parts of the images, got 0"):
        stability([])
    with pytest.raises(ValueError, match="bounds is empty"):
        mu_path(parts[0], [])
    with pytest.raises(ValueError, match=r"mu: .* must be positive"):
        mu_path(parts[0], [0.0, 1.0])
