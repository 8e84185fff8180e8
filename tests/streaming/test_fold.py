"""The loop: exact resume after any kind of end, one compilation, many devices."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.streaming import Checkpoint, CheckpointError, fold
from vexplain.streaming.devices import data_mesh


class Walk(NamedTuple):
    total: jax.Array
    key: jax.Array
    half: jax.Array


def walk(state, batch):
    key, draw = jax.random.split(state.key)
    noise = jax.random.normal(draw, state.total.shape)
    total = jnp.tanh(state.total + batch["x"].sum(0) * noise)
    return Walk(total, key, (state.half + 1).astype(jnp.bfloat16))


def start():
    return Walk(jnp.zeros(3), jax.random.key(7), jnp.zeros((), jnp.bfloat16))


def batch_fn(t):
    return {"x": np.random.default_rng((5, t)).normal(size=(8, 3)).astype(np.float32)}


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        x, y = (jax.random.key_data(v) if jnp.issubdtype(v.dtype, jax.dtypes.prng_key) else v for v in (x, y))
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def test_fold_is_the_loop_and_keeps_the_callers_state():
    state = start()
    found = fold(walk, state, batch_fn, num_steps=5)
    expected = start()
    for t in range(5):
        expected = jax.jit(walk)(expected, batch_fn(t))
    assert_same(found, expected)
    np.testing.assert_array_equal(state.total, jnp.zeros(3))


def test_constants_are_passed_and_not_lost():
    weights = jnp.array(3.0)
    update = lambda s, b, w: s + w * b["x"].sum()  # noqa: E731
    for _ in range(2):
        assert fold(update, jnp.zeros(()), lambda t: {"x": jnp.ones(2)}, num_steps=4, constants=weights) == 24


def test_a_second_fold_does_not_trace_again():
    traces = []

    def update(state, batch):
        traces.append(1)
        return state + batch["x"].sum()

    for _ in range(3):
        fold(update, jnp.zeros(()), batch_fn, num_steps=4)
    assert len(traces) == 1


def test_eight_devices_give_the_result_of_one():
    one = fold(walk, start(), batch_fn, num_steps=6)
    eight = fold(walk, start(), batch_fn, num_steps=6, mesh=data_mesh(8))
    np.testing.assert_allclose(one.total, eight.total, rtol=1e-5)


@pytest.mark.parametrize("stop", [1, 4, 7, 9])
def test_resume_after_an_exception_is_bit_for_bit(tmp_path, stop):
    def failing(t):
        if t == stop:
            raise OSError("disk gone")
        return batch_fn(t)

    checkpoint = Checkpoint(tmp_path, every=3, fingerprint="a")
    with pytest.raises(OSError, match="disk gone"):
        fold(walk, start(), failing, num_steps=10, checkpoint=checkpoint)
    asked = []
    found = fold(
        walk,
        start(),
        lambda t: asked.append(t) or batch_fn(t),
        num_steps=10,
        checkpoint=checkpoint,
        mesh=data_mesh(2),
    )
    assert min(asked) == stop // 3 * 3
    np.testing.assert_allclose(found.total, fold(walk, start(), batch_fn, num_steps=10).total, rtol=1e-6)


def test_a_finished_fold_returns_at_once(tmp_path):
    checkpoint = Checkpoint(tmp_path, every=100)
    first = fold(walk, start(), batch_fn, num_steps=4, checkpoint=checkpoint)
    again = fold(walk, start(), lambda t: 1 / 0, num_steps=4, checkpoint=checkpoint)
    assert_same(first, again)


def _saved(tmp_path):
    checkpoint = Checkpoint(tmp_path, every=2, fingerprint="a")
    fold(walk, start(), batch_fn, num_steps=4, checkpoint=checkpoint)
    return checkpoint


def test_a_damaged_checkpoint_is_named_with_the_way_out(tmp_path):
    checkpoint = _saved(tmp_path)
    for path in (tmp_path / "4").rglob("*"):
        if path.is_file() and path.name not in ("_CHECKPOINT_METADATA", "commit_success.txt"):
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(
        CheckpointError, match=r"4 cannot be read: delete .*4 to go on from step 2 \(the cause: \w+: "
    ) as e:
        fold(walk, start(), batch_fn, num_steps=8, checkpoint=checkpoint)
    assert len(str(e.value).splitlines()) == 1


@pytest.mark.parametrize(("damaged", "other"), [("2", "4"), ("4", "2")])
def test_of_two_checkpoints_the_one_with_damaged_metadata_is_named(tmp_path, damaged, other):
    checkpoint = _saved(tmp_path)
    metadata = tmp_path / damaged / "_CHECKPOINT_METADATA"
    metadata.write_text(metadata.read_text().replace('"metrics"', '"metricS"'))
    with pytest.raises(
        CheckpointError, match=rf"/{damaged} cannot be read: delete .*/{damaged} to go on from step {other} "
    ):
        fold(walk, start(), batch_fn, num_steps=8, checkpoint=checkpoint)


def test_half_a_checkpoint_is_not_seen(tmp_path):
    checkpoint = _saved(tmp_path)
    (tmp_path / "6.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "6.orbax-checkpoint-tmp" / "garbage").write_text("half")
    found = fold(walk, start(), batch_fn, num_steps=8, checkpoint=checkpoint)
    assert_same(found, fold(walk, start(), batch_fn, num_steps=8))


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    _saved(tmp_path)
    with pytest.raises(CheckpointError, match="made with other settings \\('a', now 'b'\\)"):
        fold(walk, start(), batch_fn, num_steps=8, checkpoint=Checkpoint(tmp_path, fingerprint="b"))
    other = start()._replace(total=jnp.zeros(4))
    with pytest.raises(CheckpointError, match="holds another state"):
        fold(walk, other, batch_fn, num_steps=8, checkpoint=Checkpoint(tmp_path, fingerprint="a"))
    with pytest.raises(CheckpointError, match="step 4, beyond num_steps = 3"):
        fold(walk, start(), batch_fn, num_steps=3, checkpoint=Checkpoint(tmp_path, fingerprint="a"))


def test_bad_numbers():
    with pytest.raises(ValueError, match="num_steps is -1"):
        fold(walk, start(), batch_fn, num_steps=-1)
    with pytest.raises(ValueError, match="every is 0"):
        Checkpoint("x", every=0)


def test_the_bar_shows_rate_and_report(capsys):
    def slow(t):
        time.sleep(0.02)
        return batch_fn(t)

    fold(walk, start(), slow, num_steps=3, description="Walking", report=lambda s: {"half": s.half})
    shown = capsys.readouterr().err
    assert "Walking" in shown
    assert "3/3" in shown
    assert "half=3" in shown


def test_the_bar_of_a_resumed_and_of_a_finished_fold(tmp_path, capsys):
    options = {"checkpoint": Checkpoint(tmp_path, every=2), "description": "Walking"}
    fold(walk, start(), batch_fn, num_steps=4, **options)
    assert "resumed" not in capsys.readouterr().err
    fold(walk, start(), batch_fn, num_steps=6, **options)
    shown = capsys.readouterr().err
    assert "Walking, resumed at step 4:" in shown
    assert "6/6" in shown
    fold(walk, start(), lambda t: 1 / 0, num_steps=6, report=lambda s: {"half": s.half}, **options)
    shown = capsys.readouterr().err
    assert "Walking, resumed at step 6: 100%" in shown
    assert "6/6" in shown
    assert "half=6" in shown
