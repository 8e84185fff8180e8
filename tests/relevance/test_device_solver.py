"""The mu-lasso of all classes at once, in JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.relevance.oracles import duality_gap, near_duplicate_features
from vexplain.relevance import mu_lasso, solve_on_device
from vexplain.streaming.devices import data_mesh

NUM_CLASSES = 8


def make_sums(num_bases=15, num_images=211, seed=0, scales=None, dtype=np.float64):
    responses, indicators = near_duplicate_features(
        num_images=num_images, num_bases=num_bases, num_classes=NUM_CLASSES, noise=1e-2, seed=seed
    )
    if scales is not None:
        responses = responses * scales
    responses = responses.astype(dtype)
    indicators = indicators.astype(dtype)
    return responses.T @ responses, responses.T @ indicators, indicators.sum(0)


@pytest.fixture(scope="module")
def sums():
    return make_sums()


def check(sums, found, *, mu, nonnegative, tolerance=1e-6):
    gram, cross, counts = (np.asarray(x, np.float64) for x in sums)
    for label in range(cross.shape[1]):
        weights = np.asarray(found.weights[:, label], np.float64)
        gap = duality_gap(gram, cross[:, label], weights, mu=mu, nonnegative=nonnegative)
        assert gap <= tolerance * counts[label]
        assert np.abs(weights).sum() <= mu * (1 + 1e-15)
        assert not nonnegative or weights.min() >= 0


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("mu", [0.3, 3.0, 1e4])
def test_it_finds_what_the_host_finds(sums, mu, nonnegative):
    device = mu_lasso(*sums, mu=mu, nonnegative=nonnegative, solver="device")
    host = mu_lasso(*sums, mu=mu, nonnegative=nonnegative)
    check(sums, device, mu=mu, nonnegative=nonnegative)
    np.testing.assert_array_equal(device.weights != 0, host.weights != 0)
    np.testing.assert_allclose(device.weights, host.weights, atol=1e-7 * min(mu, 100))
    # The host certifies, and has nothing to add; where the bound is not reached it looks for the least norm.
    assert (device.num_steps <= (device.penalties == 0)).all()


def test_the_pure_function_is_exact_in_float64(sums):
    with jax.enable_x64(True):
        found = solve_on_device(*map(jnp.asarray, sums), mu=3.0, num_working=45, target_gap=1e-10)
    assert found.weights.dtype == np.float64
    check(sums, found, mu=3.0, nonnegative=True, tolerance=1e-9)
    host = mu_lasso(*sums, mu=3.0)
    np.testing.assert_array_equal(np.asarray(found.weights) != 0, host.weights != 0)  # exact zeros
    np.testing.assert_allclose(found.penalties, host.penalties, rtol=1e-6)
    assert np.asarray(found.gaps).max() < 1e-10


@pytest.mark.parametrize("nonnegative", [True, False])
def test_without_float64_the_host_certifies_the_last_digits(sums, nonnegative, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")  # whose programs know float32 only
    found = mu_lasso(*sums, mu=3.0, nonnegative=nonnegative, solver="device")
    check(sums, found, mu=3.0, nonnegative=nonnegative, tolerance=1e-9)
    fresh = mu_lasso(*sums, mu=3.0, nonnegative=nonnegative)
    np.testing.assert_allclose(found.weights, fresh.weights, atol=1e-6)
    assert found.num_steps.sum() < fresh.num_steps.sum()  # it goes on from what the device found


def test_float32_gaps_are_those_that_float64_measures(sums):
    found = solve_on_device(*(jnp.asarray(x, jnp.float32) for x in sums), mu=3.0, num_working=45)
    gram, cross, counts = sums
    for label in range(NUM_CLASSES):
        weights = np.asarray(found.weights[:, label], np.float64)
        gap = duality_gap(gram, cross[:, label], weights, mu=3.0, nonnegative=True)
        np.testing.assert_allclose(found.gaps[label], gap / counts[label], atol=1e-5)
        assert gap <= 1e-4 * counts[label]


@pytest.mark.parametrize("nonnegative", [True, False])
def test_equal_dead_and_ill_scaled_features(nonnegative):
    """Copies of equal and of other size, dead and mixed features, few images, sizes from 1e-6 to 1e6."""
    rng = np.random.default_rng(0)
    bases = np.abs(rng.normal(size=(23, 15)))
    responses = np.concatenate([bases, bases, 3 * bases, np.zeros((23, 5)), bases @ rng.random((15, 7))], 1)
    responses[:, :15] *= 10.0 ** np.linspace(-6, 6, 15)
    indicators = np.eye(NUM_CLASSES)[np.arange(23) % NUM_CLASSES]
    sums = responses.T @ responses, responses.T @ indicators, indicators.sum(0)
    for mu in (1e-3, 2.0):
        found = mu_lasso(*sums, mu=mu, nonnegative=nonnegative, solver="device")
        check(sums, found, mu=mu, nonnegative=nonnegative)
        assert not found.weights[45:50].any()


def test_working_sets_grow_with_the_support():
    rng = np.random.default_rng(1)
    responses = rng.normal(size=(400, 100))
    indicators = np.eye(NUM_CLASSES)[rng.integers(NUM_CLASSES, size=400)]
    sums = responses.T @ responses, responses.T @ indicators, indicators.sum(0)
    found = mu_lasso(*sums, mu=50.0, nonnegative=False, solver="device")
    assert (found.weights != 0).sum(0).min() > 64  # more than the first working sets hold
    check(sums, found, mu=50.0, nonnegative=False)
    assert found.num_steps.max() == 0
    with jax.enable_x64(True):
        short = solve_on_device(*map(jnp.asarray, sums), mu=50.0, nonnegative=False, num_working=64)
    assert np.asarray(short.gaps).min() > 1e-6  # too few, and the gap says so


def test_classes_are_sharded_over_eight_devices(sums):
    """Each device has its classes, with G on all of them, or with a part of its rows on each."""
    one = solve_on_device(*(jnp.asarray(x, jnp.float32) for x in sums), mu=3.0, num_working=45)
    mesh = data_mesh(8)
    by_class, rows, whole = (
        NamedSharding(mesh, PartitionSpec(*names)) for names in ((None, "data"), ("data",), ())
    )
    gram, cross, counts = (jnp.asarray(x, jnp.float32) for x in sums)
    counts, cross = jax.device_put(counts, rows), jax.device_put(cross, by_class)
    whole_gram = jax.device_put(gram, whole)
    found = solve_on_device(whole_gram, cross, counts, mu=3.0, num_working=45)
    assert found.weights.sharding.is_equivalent_to(by_class, 2)
    np.testing.assert_allclose(found.weights, one.weights, atol=1e-4)
    padded = jnp.pad(gram, ((0, 3), (0, 3)))  # 48 rows, 12 on each device
    split = solve_on_device(
        jax.device_put(padded, rows), jnp.pad(cross, ((0, 3), (0, 0))), counts, mu=3.0, num_working=45
    )
    np.testing.assert_allclose(split.weights[:45], one.weights, atol=1e-4)


def test_another_bound_compiles_nothing(sums, compilations):
    arrays = tuple(jnp.asarray(x, jnp.float32) for x in sums)
    solve_on_device(*arrays, mu=3.0, num_working=45)
    with compilations() as found:
        solve_on_device(*arrays, mu=0.5, num_working=45)
    assert not found


def test_a_program_may_hold_it(sums):
    arrays = tuple(jnp.asarray(x, jnp.float32) for x in sums)

    @jax.jit
    def path(bounds, arrays):
        return jax.lax.map(lambda mu: solve_on_device(*arrays, mu=mu, num_working=45).weights, bounds)

    weights = path(jnp.array([0.3, 3.0]), arrays)
    for mu, some in zip((0.3, 3.0), weights, strict=True):
        host = mu_lasso(*sums, mu=mu)
        np.testing.assert_allclose(some, host.weights, atol=1e-3)
        np.testing.assert_array_less(np.abs(some).sum(0), mu * (1 + 1e-6))
