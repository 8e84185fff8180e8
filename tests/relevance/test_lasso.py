import numpy as np
import pytest
from scipy.optimize import linprog, nnls
from sklearn.linear_model import Lasso

from tests.relevance.oracles import (
    duality_gap,
    near_duplicate_features,
    objective,
    projected_gradient,
)
from vexplain.relevance import mu_lasso
from vexplain.relevance.lasso import LassoSolution


def _sums(responses, indicators, dtype=np.float64):
    responses, indicators = responses.astype(dtype), indicators.astype(dtype)
    return responses.T @ responses, responses.T @ indicators, indicators.sum(axis=0)


@pytest.fixture(scope="module")
def data():
    return near_duplicate_features(num_images=211, num_bases=15, num_classes=4, noise=1e-2, seed=0)


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("mu", [0.3, 2.0, 10.0])
def test_projected_gradient_finds_nothing_better(data, mu, nonnegative):
    gram, cross, counts = _sums(*data)
    found = mu_lasso(gram, cross, counts, mu=mu, nonnegative=nonnegative)
    for label in range(4):
        slow = projected_gradient(gram, cross[:, label], mu=mu, nonnegative=nonnegative, num_steps=3000)
        best = objective(gram, cross[:, label], slow)
        mine = objective(gram, cross[:, label], found.weights[:, label])
        assert mine <= best + 1e-9 * counts[label]
        assert best - mine <= 1e-2 * counts[label]  # the oracle is slow, but not elsewhere


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("mu", [0.5, 2.0])
def test_scikit_learn_agrees_through_the_penalty(data, mu, nonnegative):
    responses, indicators = data
    found = mu_lasso(*_sums(responses, indicators), mu=mu, nonnegative=nonnegative)
    for label in range(4):
        assert found.penalties[label] > 0
        # scikit-learn minimizes ||y - X w||^2 / (2 n) + alpha ||w||_1.
        oracle = Lasso(
            alpha=found.penalties[label] / (2 * len(responses)),
            positive=nonnegative,
            fit_intercept=False,
            tol=1e-10,
            max_iter=200_000,
        ).fit(responses, indicators[:, label])
        np.testing.assert_allclose(found.weights[:, label], oracle.coef_, atol=2e-4 * mu)
        np.testing.assert_allclose(found.norms[label], mu, rtol=1e-12)


@pytest.mark.parametrize("nonnegative", [True, False])
def test_orthonormal_design_is_a_soft_threshold(nonnegative):
    linear = np.array([[3.0], [-2.5], [1.0], [0.25], [0.0]])
    found = mu_lasso(np.eye(5), linear, np.array([20.0]), mu=3.0, nonnegative=nonnegative)
    magnitudes = linear if nonnegative else np.abs(linear)
    # Thresholds by hand: (3 - t) + (1 - t)_+ = 3 and (3 - t) + (2.5 - t) + (1 - t)_+ = 3.
    threshold = 0.5 if nonnegative else 1.25
    expected = np.sign(linear) * np.maximum(magnitudes - threshold, 0)
    np.testing.assert_allclose(found.weights, expected, atol=1e-14)
    np.testing.assert_array_equal(found.weights[expected == 0], 0)  # exact zeros
    np.testing.assert_allclose(found.penalties, 2 * threshold)


@pytest.mark.parametrize("nonnegative", [True, False])
def test_karush_kuhn_tucker_conditions(data, nonnegative):
    gram, cross, counts = _sums(*data)
    found = mu_lasso(gram, cross, counts, mu=3.0, nonnegative=nonnegative)
    gradient = 2 * (gram @ found.weights - cross)
    for label in range(4):
        weights, penalty = found.weights[:, label], found.penalties[label]
        support = weights != 0
        slack = 1e-7 * counts[label]
        assert 0 < support.sum() < 30
        np.testing.assert_allclose(gradient[support, label], -penalty * np.sign(weights[support]), atol=slack)
        steepest = -gradient[:, label] if nonnegative else np.abs(gradient[:, label])
        assert steepest.max() <= penalty + slack


@pytest.mark.parametrize("num_images", [211, 23])
def test_without_an_active_bound_it_is_nonnegative_least_squares(num_images):
    responses, indicators = near_duplicate_features(
        num_images=num_images, num_bases=15, num_classes=4, noise=1e-2, seed=1
    )
    found = mu_lasso(*_sums(responses, indicators), mu=1e4)
    assert np.all(found.penalties == 0)
    assert np.all(found.norms < 1e4)
    for label in range(4):
        _, residual = nnls(responses, indicators[:, label])
        mine = np.linalg.norm(responses @ found.weights[:, label] - indicators[:, label])
        np.testing.assert_allclose(mine, residual, atol=1e-4)


def test_a_larger_bound_lets_in_more_features():
    responses, indicators = near_duplicate_features(
        num_images=400, num_bases=40, num_classes=3, noise=0.3, seed=2
    )
    sums = _sums(responses, indicators)
    counts = [
        np.count_nonzero(mu_lasso(*sums, mu=mu, nonnegative=False).weights) for mu in (0.1, 0.5, 2.0, 8.0)
    ]
    assert counts == sorted(counts)
    assert counts[-1] > 3 * counts[0]


@pytest.mark.parametrize("seed", range(30))
def test_singular_and_noisy_sums_are_solved(seed):
    """Equal, nearly equal, summed, constant and dead features, few images, rounded to float32."""
    rng = np.random.default_rng(seed)
    num_images, num_bases = int(rng.integers(3, 60)), int(rng.integers(2, 25))
    bases = np.abs(rng.normal(size=(num_images, num_bases))) * 10.0 ** rng.uniform(-3, 0, size=num_bases)
    responses = np.concatenate(
        [
            bases,
            bases[:, ::-1],
            bases * (1 + 1e-6 * rng.normal(size=bases.shape)),
            bases @ np.abs(rng.normal(size=(num_bases, 2))),
            np.ones((num_images, 1)),
            np.zeros((num_images, 2)),
        ],
        axis=1,
    )
    responses /= np.linalg.norm(responses, axis=1, keepdims=True)
    gram, cross, counts = _sums(responses, np.eye(3)[np.arange(num_images) % 3], np.float32)
    gram = gram * (1 + 1e-7 * rng.normal(size=gram.shape)).astype(np.float32)
    mu, nonnegative = float(10.0 ** rng.uniform(-1, 3)), bool(seed % 2)
    found = mu_lasso(gram, cross, counts, mu=mu, nonnegative=nonnegative)
    symmetric = (gram.astype(np.float64) + gram.T) / 2
    for label in range(3):
        weights, linear = found.weights[:, label], cross[:, label].astype(np.float64)
        gap = duality_gap(symmetric, linear, weights, mu=mu, nonnegative=nonnegative)
        assert gap <= 1e-6 * counts[label]
        np.testing.assert_allclose(gap / counts[label], found.gaps[label], atol=1e-9)
        assert np.abs(weights).sum() <= mu * (1 + 1e-15)
        assert not nonnegative or weights.min() >= 0
        assert not weights[-2:].any()


def test_scale_of_the_data_set_does_not_matter(data):
    gram, cross, counts = _sums(*data)
    small = mu_lasso(gram, cross, counts, mu=3.0)
    large = mu_lasso(1e5 * gram, 1e5 * cross, 1e5 * counts, mu=3.0)
    np.testing.assert_allclose(large.weights, small.weights, atol=1e-7)
    np.testing.assert_allclose(large.penalties, 1e5 * small.penalties, rtol=1e-6)


def test_a_class_that_nothing_indicates_gets_no_features():
    found = mu_lasso(np.eye(2), np.array([[1.0, -1.0], [2.0, 0.0]]), np.array([5.0, 1.0]), mu=10)
    assert isinstance(found, LassoSolution)
    np.testing.assert_array_equal(found.weights, [[1.0, 0.0], [2.0, 0.0]])
    np.testing.assert_array_equal(found.gaps[1], 0)


def test_an_unfinished_solution_is_not_returned(data):
    with pytest.raises(RuntimeError, match=r"class 'lily': .*duality gap.*raise max_steps"):
        mu_lasso(*_sums(*data), class_names=("lily", "rose", "oak", "fir"), max_steps=2)


@pytest.mark.parametrize("mu", [0, -1.0, float("nan"), float("inf")])
def test_mu_must_be_positive(data, mu):
    with pytest.raises(ValueError, match=r"mu: .* must be positive and finite"):
        mu_lasso(*_sums(*data), mu=mu)


def test_bad_sums_raise(data):
    gram, cross, counts = _sums(*data)
    names = ("lily", "rose", "oak", "fir")
    for bad in (np.nan, np.inf):
        spoiled = gram.copy()
        spoiled[3, 5] = bad
        with pytest.raises(ValueError, match="gram: holds NaN or infinity"):
            mu_lasso(spoiled, cross, counts)
        with pytest.raises(ValueError, match="cross: holds NaN or infinity"):
            mu_lasso(gram, cross * bad, counts)
    with pytest.raises(ValueError, match="no image of class 'rose', 'fir'"):
        mu_lasso(gram, cross, counts * [1, 0, 1, 0], class_names=names)
    with pytest.raises(ValueError, match=r"expected \(features, features\)"):
        mu_lasso(gram[:, :-1], cross, counts)
    with pytest.raises(ValueError, match="counts: expected shape"):
        mu_lasso(gram, cross, counts[:3])
    with pytest.raises(ValueError, match=r"class_names: expected 4 names"):
        mu_lasso(gram, cross, counts, class_names=names[:2])


@pytest.mark.parametrize("nonnegative", [True, False])
def test_working_sets_grow_to_large_supports(nonnegative):
    """Two thirds of 300 features, which is several times what the first working set holds."""
    rng = np.random.default_rng(3)
    responses = rng.normal(size=(900, 300))
    truth = np.abs(rng.normal(size=(300, 40))) * (rng.random((300, 40)) < 2 / 3)
    targets = responses @ truth + 0.1 * rng.normal(size=(900, 40))
    sums = responses.T @ responses, responses.T @ targets, (targets**2).sum(0)
    mu = float(0.9 * np.abs(truth).sum(0).min())
    found = mu_lasso(*sums, mu=mu, nonnegative=nonnegative)
    assert (found.weights != 0).sum(0).min() > 100
    assert found.num_steps.max() < 40  # a step for each feature would be hundreds
    for label in range(40):
        weights = found.weights[:, label]
        gap = duality_gap(sums[0], sums[1][:, label], weights, mu=mu, nonnegative=nonnegative)
        assert gap <= 1e-9 * sums[2][label]


def test_a_start_changes_the_steps_and_not_the_solution(data):
    sums = _sums(*data)
    fresh = mu_lasso(*sums, mu=2.0)
    again = mu_lasso(*sums, mu=2.0, start=fresh.weights)
    assert again.num_steps.max() == 0
    np.testing.assert_array_equal(again.weights, fresh.weights)
    rng = np.random.default_rng(0)
    for start in (10 * fresh.weights, -fresh.weights, rng.normal(size=fresh.weights.shape)):
        found = mu_lasso(*sums, mu=2.0, start=start)
        np.testing.assert_allclose(found.weights, fresh.weights, atol=1e-6)
    with pytest.raises(ValueError, match=r"start: expected finite weights of shape \(45, 4\), got \(45, 3\)"):
        mu_lasso(*sums, start=fresh.weights[:, :3])
    with pytest.raises(ValueError, match="start: expected finite"):
        mu_lasso(*sums, start=fresh.weights * np.nan)


def test_without_a_look_at_all_of_g_the_solution_is_the_same(data):
    sums = _sums(*data)
    looked_at, not_looked_at = (mu_lasso(*sums, mu=2.0, check=check) for check in (True, False))
    for one, other in zip(looked_at, not_looked_at, strict=True):
        np.testing.assert_array_equal(one, other)
    asymmetric = sums[0] + np.triu(np.full_like(sums[0], 0.1), 1) - np.tril(np.full_like(sums[0], 0.1), -1)
    found = mu_lasso(asymmetric, *sums[1:], mu=2.0)
    np.testing.assert_allclose(found.weights, looked_at.weights, atol=1e-10)


def test_threads_and_their_number_change_nothing(data, monkeypatch):
    """40 classes are shared by threads; one core solves them one after another."""
    gram, cross, counts = _sums(*data)
    cross, counts = np.tile(cross, 10), np.tile(counts, 10)
    several = mu_lasso(gram, cross, counts, mu=2.0)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0}, raising=False)
    one = mu_lasso(gram, cross, counts, mu=2.0)
    np.testing.assert_array_equal(several.weights, one.weights)
    np.testing.assert_array_equal(one.weights, np.tile(one.weights[:, :4], 10))


@pytest.mark.parametrize("seed", range(3))
def test_of_many_solutions_the_one_of_least_norm_is_taken(seed):
    """With fewer images than features, and a bound that is not reached; linear programming has the norm."""
    rng = np.random.default_rng(seed)
    x = rng.gamma(0.5, 1.0, size=(40, 12))
    indicators = x.T @ (rng.random((40, 2)) * (rng.random((40, 2)) < 0.1))  # that weights >= 0 fit exactly
    counts = (indicators**2).sum(0)
    found = mu_lasso(x @ x.T, x @ indicators, counts, mu=50)
    assert (found.gaps <= 1e-7).all()
    for j, indicator in enumerate(indicators.T):
        least = linprog(np.ones(40), A_eq=x.T, b_eq=indicator).fun
        assert found.norms[j] == pytest.approx(least, rel=1e-4)
        assert np.count_nonzero(found.weights[:, j]) <= 12
