"""CRAFT: planted factors, scikit-learn and SciPy, closed forms of Sobol indices, maps and importance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.decomposition import NMF

import vexplain as vx
from vexplain.concepts import (
    ConceptFactors,
    concept_crops,
    concept_factors,
    concept_importance,
    concept_maps,
    concept_network,
    nonnegative_factors,
    nonnegative_least_squares,
    total_sobol_indices,
)
from vexplain.datasets import ArraySource

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def factors_of(directions, layer="relu_1"):
    """Concepts that no one found."""
    nothing = np.zeros((1, len(directions)), np.float32)
    return ConceptFactors(directions, nothing, np.zeros((1, 3), int), np.zeros(()), (1, 1), layer)


# ------------------------------------------------------------------------------ the factorization


def test_planted_factors_are_recovered_up_to_order(float64, rng):
    """Where each factor has rows and columns that nothing else shows in, the factorization is unique."""
    directions = rng.uniform(0.2, 1, size=(2, 3, 7))
    directions[:, :, :3] *= np.eye(3)
    coefficients = rng.gamma(0.5, size=(2, 40, 3)) * np.array([5, 2, 1])
    coefficients[:, :6] *= np.repeat(np.eye(3), 2, axis=0)
    found = nonnegative_factors(coefficients @ directions, 3, tolerance=1e-6)
    lengths = np.linalg.norm(directions, axis=-1, keepdims=True)
    cosines = np.einsum("nik,njk->nij", found.directions, directions / lengths)
    place = cosines.argmax(1)  # of each planted direction
    assert np.sort(place, axis=1).tolist() == [[0, 1, 2]] * 2
    np.testing.assert_allclose(cosines.max(1), 1, atol=1e-5)
    again = np.take_along_axis(np.asarray(found.coefficients), place[:, None], 2)
    np.testing.assert_allclose(again, coefficients * lengths[..., 0][:, None], atol=0.02)
    assert found.relative_error.max() < 1e-4
    sizes = np.linalg.norm(found.coefficients, axis=1)
    assert (np.diff(sizes) <= 0).all()  # the largest first


def test_the_error_is_not_above_that_of_scikit_learn(float64, rng):
    matrix = rng.gamma(1.0, size=(30, 12))
    found = nonnegative_factors(matrix, 4, tolerance=1e-6, seed=1)
    errors = []
    for seed in range(4):
        model = NMF(4, init="random", random_state=seed, max_iter=3000, tol=1e-7)
        coefficients = model.fit_transform(matrix)
        errors.append(np.linalg.norm(matrix - coefficients @ model.components_) / np.linalg.norm(matrix))
    assert found.relative_error < min(errors) + 1e-4
    rebuilt = np.asarray(found.coefficients @ found.directions)
    measured = np.linalg.norm(matrix - rebuilt) / np.linalg.norm(matrix)
    np.testing.assert_allclose(found.relative_error, measured, rtol=1e-6)
    assert min(found.coefficients.min(), found.directions.min()) >= 0


def test_a_matrix_of_lower_rank_leaves_factors_zero_and_finite():
    matrix = np.outer([1, 2, 3, 0], [1, 0, 2]).astype(np.float32)
    found = nonnegative_factors(np.stack([matrix, 0 * matrix]), 2)
    assert np.isfinite(np.asarray(found.directions)).all()
    assert found.relative_error[0] < 1e-3
    assert not np.asarray(found.coefficients)[1].any()
    with pytest.raises(ValueError, match="num_factors is 4 and matrices has shape"):
        nonnegative_factors(matrix, 4)
    with pytest.raises(ValueError, match="matrices go down to -6"):
        nonnegative_factors(-matrix, 1)


def test_least_squares_are_those_of_scipy_with_the_derivative_of_the_solution(float64, rng):
    directions, rows = rng.normal(size=(5, 8)), rng.normal(size=(3, 4, 8))
    found = nonnegative_least_squares(rows, directions)
    expected = [scipy.optimize.nnls(directions.T, row)[0] for row in rows.reshape(-1, 8)]
    np.testing.assert_allclose(found.reshape(-1, 5), expected, **EXACT)
    assert (found == 0).any()
    weights, direction, step = rng.normal(size=5), rng.normal(size=8), 1e-6
    ends = [scipy.optimize.nnls(directions.T, rows[0, 0] + s * direction)[0] for s in (step, -step)]
    gradient = jax.grad(lambda row: nonnegative_least_squares(row, directions) @ weights)(rows[0, 0])
    quotient = (ends[0] - ends[1]) @ weights / (2 * step)
    np.testing.assert_allclose(gradient @ direction, quotient, rtol=1e-6)
    twice = nonnegative_least_squares(rows, np.concatenate([directions, directions[:1]]))  # dependent
    np.testing.assert_allclose(twice[..., 0] + twice[..., -1], found[..., 0], atol=1e-6)
    with pytest.raises(ValueError, match="expected"):
        nonnegative_least_squares(rows, directions.T)


# ----------------------------------------------------------------------------------- Sobol indices


def additive(x):
    return jnp.array([4, 2, 1, 0]) @ x


def ishigami(x):
    first, second, third = (2 * x[:3] - 1) * jnp.pi
    return jnp.sin(first) + 7 * jnp.sin(second) ** 2 + 0.1 * third**4 * jnp.sin(first) + 0 * x[3]


G_WEIGHTS = np.array([0, 1, 4.5, 99])


def g_function(x):
    return jnp.prod((jnp.abs(4 * x - 2) + G_WEIGHTS) / (1 + G_WEIGHTS))


def test_total_indices_are_the_closed_forms():
    of_ishigami = [0.5576, 0.4424, 0.2437, 0]  # a = 7, b = 0.1 (Saltelli et al., 2010)
    parts = 1 / (3 * (1 + G_WEIGHTS) ** 2)
    of_g = parts / (1 + parts) * np.prod(1 + parts) / (np.prod(1 + parts) - 1)
    functions = lambda x: jnp.stack([additive(x), ishigami(x), g_function(x), 0 * x[0] + 3])  # noqa: E731
    found = total_sobol_indices(functions, 4, num_designs=1024, designs_at_once=6144)
    np.testing.assert_allclose(found[0], np.array([16, 4, 1, 0]) / 21, atol=0.005)
    np.testing.assert_allclose(found[1], of_ishigami, atol=0.02)
    np.testing.assert_allclose(found[2], of_g, atol=0.02)
    assert not np.asarray(found[3]).any()  # of a constant
    with pytest.raises(ValueError, match="num_designs is 48: expected a power of 2"):
        total_sobol_indices(additive, 4, num_designs=48)


# --------------------------------------------------------------------------------- CRAFT on images


COLORS = np.array([[0.8, 0.4, 0.0, 0.1], [0.0, 0.3, 0.9, 0.0]])  # of the left and of the right half


def channels_last_network(w, images):
    return jax.nn.relu(images).mean((1, 2)) @ w


def channels_first_network(w, images):
    return jax.nn.relu(jnp.moveaxis(images, -1, 1)).mean((2, 3)) @ w


def token_network(w, images):
    """Patches of one pixel and a class token, in the mean of which all have the same weight."""
    tokens = jnp.concatenate([jnp.ones((len(images), 1, 4)), images.reshape(len(images), -1, 4)], 1)
    return jax.nn.relu(tokens).mean(1) @ w


def halves(rng, num_images):
    """Two colors side by side, each darker or brighter."""
    levels = rng.uniform(0.5, 1, size=(num_images, 1, 2, 1))
    columns = np.repeat(levels * COLORS, 5, axis=2)
    return np.repeat(columns, 6, axis=1).astype(np.float32)  # 6 × 10 pixels


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 2)).astype(np.float32)
    images = halves(rng, 12)
    source = ArraySource(images, np.zeros(12, int), class_names=("halves",))
    options = {"num_concepts": 2, "crop_size": 3, "crops_per_image": 6, "layer": "relu_1"}
    return w, images, source, options, concept_factors(channels_last_network, w, source, **options)


def test_planted_colors_are_the_concepts(case):
    _, images, source, _, found = case
    directions = COLORS / np.linalg.norm(COLORS, axis=1, keepdims=True)
    cosines = np.asarray(found.directions) @ directions.T
    np.testing.assert_allclose(cosines.max(0), 1, atol=2e-3)
    order = cosines.argmax(0)  # which concept is left, which right
    assert found.relative_error < 0.01
    assert found.coefficients.shape == (72, 2)
    crops = np.asarray(found.crops)
    assert crops.min(0).tolist() == [0, 0, 0]
    assert crops.max(0).tolist() == [11, 3, 7]
    for place, half in zip(order, (images[:, :, :5], images[:, :, 5:]), strict=True):
        best = concept_crops(found, source, int(place), num_crops=3)
        assert best.shape == (3, 3, 3, 4)
        np.testing.assert_allclose(best[0].mean((0, 1)), half.reshape(12, -1, 4)[:, 0].max(0), atol=0.05)
    assert "relative error 0.00" in str(found)


def test_channels_first_any_batch_size_and_other_weights_cost_and_change_nothing(case, compilations):
    w, _, source, options, found = case
    other = concept_factors(channels_first_network, w, source, batch_size=18, **options)
    np.testing.assert_allclose(other.directions, found.directions, atol=1e-3)
    np.testing.assert_array_equal(other.crops, found.crops)
    with compilations() as compiled:
        concept_factors(channels_last_network, w + 1, source, **options)
    assert not compiled


def test_unreadable_images_and_several_devices_change_nothing(case):
    w, images, _, options, found = case
    broken = np.concatenate([images[:6], np.full((2, 6, 10, 4), 0.5, np.float32), images[6:]])
    weights = (np.arange(14) // 2 != 3).astype(np.float32)  # 6 and 7 cannot be read
    given = ArraySource(broken, np.zeros(14, int), class_names=("halves",), extras={"weights": weights})
    other = concept_factors(channels_last_network, w, given, mesh=vx.data_mesh(4), **options)
    assert other.coefficients.shape == (72, 2)
    assert {6, 7}.isdisjoint(np.asarray(other.crops)[:, 0].tolist())
    np.testing.assert_allclose(other.directions, found.directions, atol=0.01)
    assert other.relative_error < 0.01


def test_maps_are_where_the_colors_are(case):
    w, images, _, _, _ = case
    given = factors_of(COLORS.astype(np.float32))
    maps = concept_maps(channels_last_network, w, images, factors=given)
    levels = images[:, :, :, None, :] / np.where(COLORS > 0, COLORS, np.inf)
    expected = np.zeros((12, 6, 10, 2))
    expected[:, :, :5, 0], expected[:, :, 5:, 1] = levels[:, :, :5, 0, 0], levels[:, :, 5:, 1, 2]
    np.testing.assert_allclose(maps, expected, atol=1e-5)
    means = concept_network(channels_last_network, given)(w, images)
    np.testing.assert_allclose(means, expected.mean((1, 2)), atol=1e-5)
    signed = vx.attribute("gradient", concept_network(channels_last_network, given), w, images, targets=1)
    np.testing.assert_allclose(signed[0, 0, 0], 0, atol=1e-6)  # where the other color alone is
    np.testing.assert_allclose(signed[0, 0, 9], np.linalg.pinv(COLORS[1:])[:, 0] / 60, atol=1e-6)


@pytest.mark.parametrize("apply", [channels_last_network, channels_first_network, token_network])
def test_importance_before_a_linear_head_is_the_squared_share(case, apply):
    """score = Σ m_i c_i with c_i = mean coefficient · (direction · weights): S_i = c_i² / Σ c²."""
    w, images, _, _, _ = case
    found = concept_importance(
        apply,
        w,
        images[:3],
        targets=1,
        factors=factors_of(COLORS.astype(np.float32)),
        num_designs=512,
        designs_at_once=512,
    )
    amounts = concept_network(channels_last_network, factors_of(COLORS.astype(np.float32)))(w, images[:3])
    squares = (np.asarray(amounts) * (COLORS @ w[:, 1])) ** 2
    np.testing.assert_allclose(found, squares / squares.sum(1, keepdims=True), atol=0.01)


def test_what_cannot_be_factorized_is_named(case):
    w, images, source, options, found = case
    signed = lambda w, x: jax.nn.relu(x @ -jnp.ones((4, 4))).mean((1, 2)) @ w  # noqa: E731
    with pytest.raises(ValueError, match=r"layer 'dense_1' has negative activations, .* take a ReLU: relu_1"):
        concept_factors(signed, w, source, **(options | {"layer": "dense_1"}))
    with pytest.raises(ValueError, match="layer 'relu_1' is 0 for all crops"):
        concept_factors(lambda w, x: jax.nn.relu(x - 1).mean((1, 2)) @ w, w, source, **options)
    with pytest.raises(ValueError, match="num_concepts is 9: expected at most"):
        concept_factors(channels_last_network, w, source, **(options | {"num_concepts": 9}))
    with pytest.raises(ValueError, match=r"crop_size is 7: expected 1 pixel up to .* \(6, 10\)"):
        concept_factors(channels_last_network, w, source, **(options | {"crop_size": 7}))
    with pytest.raises(ValueError, match="concept is 2: expected 0 to 1"):
        concept_crops(found, source, 2)
    with pytest.raises(ValueError, match="directions of 3 channels, and layer 'relu_1' has 4"):
        concept_maps(channels_last_network, w, images, factors=factors_of(np.ones((1, 3), np.float32)))
    with pytest.raises(ValueError, match="has no spatial axes"):
        concept_maps(signed, w, images, factors=factors_of(np.ones((1, 2), np.float32), "dense_2"))
