"""The sums of a pass against sums in float64, in blocks and panels, on one device and on eight."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from vexplain.datasets import ArraySource
from vexplain.relevance import (
    MOMENTS_LAYOUT,
    Statistics,
    gram_statistics,
    merge_statistics,
    mu_lasso,
    statistics,
)
from vexplain.streaming import Checkpoint, fold, fold_epoch
from vexplain.streaming.devices import data_mesh, laid_out, shard_batch

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


def _given(num_features):
    """Responses and logits that are the images themselves."""
    return lambda _, images: (images[:, :num_features], images[:, num_features:])


def _sums(responses, indicators, batch_size, **options):
    """The statistics of a stream of arrays, the last batch filled up."""
    rows = np.concatenate([responses, indicators], axis=1).astype(np.float32)
    init, update, finish = gram_statistics(
        _given(responses.shape[1]), responses.shape[1], indicators.shape[1], **options
    )
    update, state = jax.jit(update, donate_argnums=0), init()
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        missing = batch_size - len(part)
        batch = {
            "images": np.pad(part, [(0, missing), (0, 0)], constant_values=np.nan),
            "weights": np.arange(batch_size) < len(part),
        }
        state = update(state, batch, ())
    return finish(state)


@pytest.mark.parametrize("labels", ["predicted", "true"])
def test_sums_are_those_of_the_real_examples(key, labels):
    variables, batch = _variables(key), _batch(jax.random.fold_in(key, 1), 9)
    batch["weights"] = batch["weights"].at[jnp.array([0, 7])].set(0.0)
    gram, cross, counts = _oracle(variables, batch, labels)
    batch["images"] = batch["images"].at[7].set(jnp.nan)  # padding may hold anything
    init, update, finish = gram_statistics(_response_fn, NUM_FEATURES, NUM_CLASSES, labels=labels)
    found = finish(jax.jit(update)(init(), batch, variables))
    np.testing.assert_allclose(found.gram, gram, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.cross, cross, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.counts, counts)
    assert float(found.total) == 7


def test_images_count_by_their_weights(key):
    variables, batch = _variables(key), _batch(jax.random.fold_in(key, 1), 6)
    twice = {name: jnp.repeat(values, 2, axis=0) for name, values in batch.items()}
    init, update, finish = gram_statistics(_response_fn, NUM_FEATURES, NUM_CLASSES)
    update = jax.jit(update)
    found = finish(update(init(), batch | {"weights": jnp.full(6, 2.0)}, variables))
    for a, b in zip(found, finish(update(init(), twice, variables)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch_size", [3, 8, 20, 50])
def test_neither_blocks_nor_panels_change_the_sums(batch_size, monkeypatch):
    """Batches that divide the block or do not, that fill it, and that are larger than it."""
    rng = np.random.default_rng(0)
    responses = rng.uniform(size=(107, 11)) + np.arange(11)
    indicators = np.eye(4)[rng.integers(0, 4, 107)]
    monkeypatch.setattr(statistics, "_PANEL", 3)  # 5 panels of 3, the last with one feature
    found = _sums(responses, indicators, batch_size, block_size=20)
    rounded = responses.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(found.gram, rounded.T @ rounded, rtol=1e-7)
    np.testing.assert_allclose(found.cross, rounded.T @ indicators, rtol=1e-7)
    np.testing.assert_array_equal(found.counts, indicators.sum(0))
    np.testing.assert_array_equal(found.gram, found.gram.T)
    assert found.total == 107


@pytest.mark.parametrize(
    ("mean", "deviation", "precision", "most"),
    [(100, 0.01, "float64", 1e-7), (1000, 1, "float64", 1e-9), (100, 0.01, "float32", 1e-6)],
)
def test_features_that_hardly_vary_keep_their_digits(mean, deviation, precision, most):
    rng = np.random.default_rng(1)
    means = mean + deviation * rng.normal(size=40)
    labels = np.sort(rng.integers(0, 4, 5000))  # class after class, as image folders have them
    raised = deviation * np.eye(4)[labels] @ rng.normal(size=(4, 40))
    drawn = (means + raised + deviation * rng.normal(size=(5000, 40))).astype(np.float32).astype(np.float64)
    found = _sums(drawn, np.eye(4)[labels], 64, block_size=500, precision=precision)
    exact = drawn.T @ drawn
    np.testing.assert_allclose(found.cross, drawn.T @ np.eye(4)[labels], rtol=1e-12)
    assert np.abs(found.gram - exact).max() < 1e-7 * np.abs(exact).max()
    center, deviations = drawn.mean(0), drawn.std(0)
    about_mean = found.gram - 5000 * np.outer(center, center)
    centered = (drawn - center).T @ (drawn - center)
    error = np.abs(about_mean - centered) / (5000 * np.outer(deviations, deviations))
    # The host has 16 digits of numbers that are (mean / deviation)^2 as large, 10^8 at most.
    assert error.max() < most


def test_the_gap_holds_for_the_data():
    """Features of mean 1000 and deviation 1, for which sums of squares in float32 gave a wrong gap."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 4, 3000)
    indicators = np.eye(4)[labels]
    drawn = 1000 + 0.5 * indicators @ rng.uniform(size=(4, 30)) + rng.normal(size=(3000, 30))
    drawn = drawn.astype(np.float32).astype(np.float64)
    found = _sums(drawn, indicators, 64)
    for nonnegative in (True, False):
        solution = mu_lasso(found.gram, found.cross, found.counts, mu=10, nonnegative=nonnegative)
        gradient = 2 * drawn.T @ (drawn @ solution.weights - indicators)
        slopes = -gradient if nonnegative else np.abs(gradient)
        gaps = np.sum(gradient * solution.weights, axis=0) + 10 * np.maximum(0, slopes.max(0))
        assert np.abs(gaps / indicators.sum(0) - solution.gaps).max() < 1e-6


def test_merged_parts_are_the_whole():
    rng = np.random.default_rng(3)
    responses = rng.uniform(size=(90, 6)) + 10 * np.arange(90)[:, None]  # every part has other means
    indicators = np.eye(3)[rng.integers(0, 3, 90)]
    parts = [_sums(responses[i : i + 30], indicators[i : i + 30], 16) for i in (0, 30, 60)]
    whole = _sums(responses, indicators, 16)
    first = merge_statistics(merge_statistics(parts[0], parts[1]), parts[2])
    second = merge_statistics(parts[2], merge_statistics(parts[1], parts[0]))
    for merged in (first, second):
        np.testing.assert_allclose(merged.gram, whole.gram, rtol=1e-7)
        np.testing.assert_allclose(merged.cross, whole.cross, rtol=1e-7)
        np.testing.assert_array_equal(merged.counts, whole.counts)
        assert merged.total == whole.total == 90
    np.testing.assert_allclose(first.gram, second.gram, rtol=1e-14)
    with pytest.raises(ValueError, match=r"second: .*\(6, 2\) cannot be merged with those of \(6, 3\)"):
        merge_statistics(whole, whole._replace(cross=whole.cross[:, :2]))


def test_a_long_stream_loses_nothing():
    """2^25 + 1 is no float32: plain sums would stay at 2^25 however many ones are added."""
    init, update, finish = gram_statistics(_given(1), 1, 1, block_size=1)
    large = np.float32(2**25)
    start = init()._replace(counts=np.array([[large, large], [0, 0]]), origin=np.array([2], np.float32))
    batch = {"images": jnp.full((1, 2), 2.0), "weights": jnp.ones(1)}
    found = finish(
        jax.jit(lambda state: jax.lax.fori_loop(0, 1001, lambda _, carry: update(carry, batch, ()), state))(
            start
        )
    )
    assert found.total == found.counts[0] == 2**25 + 1001
    assert found.gram[0, 0] == 4 * found.total
    assert found.cross[0, 0] == 2 * found.total


def test_eight_devices_give_the_sums_of_one(key):
    variables = _variables(key)
    images = np.asarray(jax.random.uniform(key, (43, 4)))
    source = ArraySource(images[:, None, None], np.arange(43) % 3, class_names=("a", "b", "c"))
    found = []
    for num_devices in (1, 8):
        mesh = data_mesh(num_devices)
        init, update, finish = gram_statistics(
            lambda variables, images: _response_fn(variables, images[:, 0, 0]),
            NUM_FEATURES,
            NUM_CLASSES,
            labels="true",
            block_size=32,
            mesh=mesh,
        )
        options = {"batch_size": 16, "constants": variables, "mesh": mesh, "layouts": MOMENTS_LAYOUT}
        found.append(finish(fold_epoch(update, init(), source, **options)))
    np.testing.assert_allclose(found[1].gram, found[0].gram, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1].cross, found[0].cross, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found[1].counts, found[0].counts)
    assert found[1].total == found[0].total == 43


def test_none_of_eight_devices_has_the_whole_matrix():
    """40 features on 8 devices: each has 5 rows of half of G, and makes no array of the size of G."""
    mesh, m = data_mesh(8), 1600
    init, update, _ = gram_statistics(_given(m), m, 3, block_size=16, mesh=mesh)
    state = laid_out(init(), mesh, MOMENTS_LAYOUT)
    assert state.scatter.sharding.spec == PartitionSpec("data")
    batch = shard_batch({"images": np.ones((8, m + 3), np.float32)}, mesh)
    compiled = (
        jax.jit(lambda state, batch: update(state, batch, ()), donate_argnums=0).lower(state, batch).compile()
    )
    new = compiled(state, batch)
    shards = new.scatter.addressable_shards
    assert len({shard.device for shard in shards}) == 8
    assert {shard.data.nbytes for shard in shards} == {new.scatter.nbytes // 8}
    assert new.scatter.nbytes < 1.3 * 4 * m**2
    analysis: Any = compiled.memory_analysis()
    assert analysis.temp_size_in_bytes < 4 * m**2


def test_a_pass_on_eight_devices_that_was_cut_off_goes_on_bit_for_bit(tmp_path):
    """The block that is half full is a part of the checkpoint."""
    mesh, rows = data_mesh(8), np.random.default_rng(4).uniform(size=(80, 9)).astype(np.float32)
    init, update, finish = gram_statistics(_given(6), 6, 3, block_size=24, mesh=mesh)

    def run(num_steps, checkpoint=None):
        options = {"constants": (), "mesh": mesh, "layouts": MOMENTS_LAYOUT, "checkpoint": checkpoint}
        batch_fn = lambda t: {"images": rows[16 * t : 16 * t + 16]}  # noqa: E731
        return finish(fold(update, init(), batch_fn, num_steps=num_steps, **options))

    checkpoint = Checkpoint(tmp_path, every=1)
    run(2, checkpoint)
    for resumed, whole in zip(run(5, checkpoint), run(5), strict=True):
        np.testing.assert_array_equal(resumed, whole)


def test_what_is_not_finite_reaches_the_sums(key):
    variables, batch = _variables(key), _batch(key, 4)
    init, update, finish = gram_statistics(
        lambda v, x: (x @ v["features"], (x @ v["classes"]).at[2, 0].set(jnp.nan)), 5, 3
    )
    assert bool(np.isnan(finish(jax.jit(update)(init(), batch, variables)).cross).all())
    init, update, finish = gram_statistics(
        lambda v, x: ((x @ v["features"]).at[1, 2].set(jnp.inf), x @ v["classes"]), 5, 3
    )
    found = finish(jax.jit(update)(init(), batch, variables))
    assert np.isnan(found.gram[2]).all()
    assert np.isfinite(found.gram[3, 4])


def test_the_size_of_the_gram_matrix_is_bounded():
    with pytest.raises(ValueError, match=r"m = 40000 .*5.96 GiB.*convolutional.*raise max_gram"):
        gram_statistics(_response_fn, 40_000, 3)
    gram_statistics(_response_fn, 100, 3, max_gram_bytes=40_000)
    with pytest.raises(ValueError, match="max_gram_bytes = 39,999"):
        gram_statistics(_response_fn, 100, 3, max_gram_bytes=39_999)
    with pytest.raises(ValueError, match="block_size"):
        gram_statistics(_response_fn, 100, 3, block_size=0)


def test_one_program_serves_the_stream_and_the_state_stays_valid(key, compilations):
    variables, batch = _variables(key), _batch(key, 4)
    init, update, finish = gram_statistics(_response_fn, 5, 3, block_size=10)
    step = jax.jit(update)
    state = step(init(), batch, variables)
    first = again = finish(state)
    with compilations() as compiled:
        for _ in range(6):
            state = step(state, batch, variables)
            again = finish(state)
    assert not compiled
    assert isinstance(again, Statistics)
    np.testing.assert_allclose(again.gram, 7 * first.gram, rtol=1e-6)


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


def test_a_batch_that_eight_devices_cannot_share(key):
    init, update, _ = gram_statistics(_response_fn, 5, 3, mesh=data_mesh(8))
    with pytest.raises(ValueError, match=r"batch: 9 images, which 8 devices .* multiple of 8"):
        update(init(), _batch(key, 9), _variables(key))
