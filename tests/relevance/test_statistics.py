import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vexplain.relevance import Statistics, gram_statistics
from vexplain.relevance.statistics import merge as merge_statistics

NUM_FEATURES, NUM_CLASSES = 5, 3


def _response_fn(variables, images):
    return images @ variables["features"], images @ variables["classes"]


def _variables(key):
    first, second = jax.random.split(key)
    return {
        "features": jax.random.normal(first, (4, NUM_FEATURES)),
        "classes": jax.random.normal(second, (4, NUM_CLASSES)),
    }


def _batch(key, size):
    first, second = jax.random.split(key)
    return {
        "images": jax.random.normal(first, (size, 4)),
        "labels": jax.random.randint(second, (size,), 0, NUM_CLASSES),
        "weights": jnp.ones(size),
    }


def _oracle(variables, batch, labels):
    images, keep = np.asarray(batch["images"], np.float64), np.asarray(batch["weights"]) > 0
    responses = (images @ np.asarray(variables["features"], np.float64))[keep]
    logits = (images @ np.asarray(variables["classes"], np.float64))[keep]
    classes = logits.argmax(1) if labels == "predicted" else np.asarray(batch["labels"])[keep]
    indicators = np.eye(NUM_CLASSES)[classes]
    return responses.T @ responses, responses.T @ indicators, indicators.sum(0)


@pytest.mark.parametrize("labels", ["predicted", "true"])
def test_sums_are_those_of_the_real_examples(key, labels):
    variables, batch = _variables(key), _batch(jax.random.fold_in(key, 1), 9)
    batch["weights"] = batch["weights"].at[jnp.array([0, 7])].set(0.0)
    gram, cross, counts = _oracle(variables, batch, labels)
    batch["images"] = batch["images"].at[7].set(jnp.nan)  # padding may hold anything
    init, update, _ = gram_statistics(_response_fn, NUM_FEATURES, NUM_CLASSES, labels=labels)
    state = jax.jit(update)(init(), batch, variables)
    np.testing.assert_allclose(state.gram, gram, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.cross, cross, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.counts, counts)
    assert float(state.total) == 7


def test_merge_equals_one_stream(key):
    variables = _variables(key)
    batches = [_batch(jax.random.fold_in(key, index), 6) for index in range(1, 5)]
    init, update, merge = gram_statistics(_response_fn, NUM_FEATURES, NUM_CLASSES)
    update = jax.jit(update)
    states = [update(init(), batch, variables) for batch in batches]
    stream = init()
    for batch in batches:
        stream = update(stream, batch, variables)
    left = merge(merge(merge(states[0], states[1]), states[2]), states[3])
    right = merge(states[0], merge(states[1], merge(states[2], states[3])))
    for other in (left, right):
        for name in ("gram", "cross"):
            np.testing.assert_allclose(
                np.float64(getattr(other, name)) + getattr(other, f"{name}_residual"),
                np.float64(getattr(stream, name)) + getattr(stream, f"{name}_residual"),
                rtol=1e-12,
                atol=1e-12,
            )
        np.testing.assert_array_equal(other.counts, stream.counts)
    assert update._cache_size() == 1


def test_a_long_stream_loses_nothing():
    """2^25 + 1 is no float32: plain sums would stay at 2^25 however many ones are added."""
    init, update, _ = gram_statistics(lambda _, x: (x, x), 1, 1)
    start = init()._replace(gram=jnp.full((1, 1), 2.0**25), cross=jnp.full((1, 1), 2.0**25))
    batch = {"images": jnp.ones((1, 1)), "weights": jnp.ones(1)}
    state = jax.jit(
        lambda state: jax.lax.fori_loop(0, 1001, lambda _, carry: update(carry, batch, ()), state)
    )(start)
    for name in ("gram", "cross"):
        exact = np.float64(getattr(state, name)) + np.float64(getattr(state, f"{name}_residual"))
        np.testing.assert_array_equal(exact, 2**25 + 1001)
    twice = merge_statistics(state, state)
    assert np.float64(twice.gram[0, 0]) + np.float64(twice.gram_residual[0, 0]) == 2**26 + 2002


def test_eight_devices_give_the_sums_of_one(key):
    variables, batch = _variables(key), _batch(jax.random.fold_in(key, 1), 24)
    init, update, _ = gram_statistics(_response_fn, NUM_FEATURES, NUM_CLASSES, labels="true")
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharded = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    whole = NamedSharding(mesh, PartitionSpec())
    found = jax.jit(update, out_shardings=whole)(
        jax.device_put(init(), whole), sharded, jax.device_put(variables, whole)
    )
    assert len(found.gram.sharding.device_set) == 8
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        found._replace(gram_residual=0.0, cross_residual=0.0),
        jax.jit(update)(init(), batch, variables)._replace(gram_residual=0.0, cross_residual=0.0),
    )


def test_what_is_not_finite_reaches_the_sums(key):
    variables, batch = _variables(key), _batch(key, 4)
    init, update, _ = gram_statistics(
        lambda v, x: (x @ v["features"], (x @ v["classes"]).at[2, 0].set(jnp.nan)), 5, 3
    )
    assert bool(np.isnan(jax.jit(update)(init(), batch, variables).cross).all())


def test_the_size_of_the_gram_matrix_is_bounded():
    with pytest.raises(ValueError, match=r"m = 40000 .*5.96 GiB.*convolutional.*raise max_gram"):
        gram_statistics(_response_fn, 40_000, 3)
    gram_statistics(_response_fn, 100, 3, max_gram_bytes=40_000)
    with pytest.raises(ValueError, match="max_gram_bytes = 39,999"):
        gram_statistics(_response_fn, 100, 3, max_gram_bytes=39_999)


def test_state_can_be_donated():
    init, *_ = gram_statistics(_response_fn, 3, 3)  # equal shapes must not share a buffer
    state = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)(init())
    assert isinstance(state, Statistics)


@pytest.mark.parametrize(
    ("num_features", "num_classes", "labels", "error", "message"),
    [
        (6, 3, "predicted", ValueError, r"responses of shape \(batch, 6\), got \(4, 5\)"),
        (5, 2, "predicted", ValueError, r"logits of shape \(batch, 2\), got \(4, 3\)"),
        (5, 3, "true", KeyError, 'needs "labels"'),
    ],
)
def test_disagreeing_inputs_raise(key, num_features, num_classes, labels, error, message):
    batch = {"images": jnp.ones((4, 4))}
    init, update, _ = gram_statistics(_response_fn, num_features, num_classes, labels=labels)
    with pytest.raises(error, match=message):
        update(init(), batch, _variables(key))
