"""Training: the ladder computes what it names, devices agree, divergence stops, resuming is exact."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vexplain.streaming import Checkpoint, TrainingDiverged, fold
from vexplain.streaming.devices import data_mesh
from vexplain.translation import (
    NetworkSettings,
    Translator,
    Weights,
    adversarial_training,
    gradient_penalty,
    translation_report,
)

TRANSLATOR = Translator(NetworkSettings(image_size=16, width=4, latent_size=6))
ONLY_VAES = Weights(gan=0.0, cycle=0.0, color=0.0)
ALL = Weights(
    kl_cycle=0.01,
    gram=1.0,
    latent=0.1,
    low_pass=1.0,
    pose=1.0,
    offset=1.0,
    identity=1.0,
    paired=1.0,
    cycle_noise=0.1,
)


def batch_fn(t):
    rng = np.random.default_rng(t)
    return {d: rng.uniform(0, 1, (8, 16, 16, 3)).astype(np.float32) for d in "ab"}


CYCLE = dataclasses.replace(ONLY_VAES, gan=1.0, cycle=1.0, cycle_noise=0.0)


@functools.cache  # a step takes long to compile: equal ones are the same function
def started(weights, **options):
    init, update = adversarial_training(TRANSLATOR, weights, optax.adam(1e-3, 0.5), **options)
    return jax.jit(init)(TRANSLATOR.init(jax.random.key(0))), update


def losses(weights, **options):
    """Of one step, which is not compiled as far as it changes the variables."""
    state, update = started(weights, **options)
    return jax.jit(lambda state, batch: update(state, batch).losses)(state, batch_fn(0))


def assert_equal(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 0, "atol": 0}))


def test_one_step_on_one_device_is_one_step_on_eight():
    state, update = started(ALL)
    one, eight = (
        jax.device_get(fold(update, state, batch_fn, num_steps=1, mesh=data_mesh(n))) for n in (1, 8)
    )
    assert_equal(one.losses, eight.losses, rtol=1e-4, atol=1e-5)
    assert_equal(one.variables, eight.variables, rtol=0, atol=2.1e-3)  # Adam's first step is ± the rate
    changed = [
        np.abs(a - b) > 1e-4
        for a, b in zip(*map(jax.tree.leaves, (one.variables, eight.variables)), strict=True)
    ]
    assert np.concatenate([c.ravel() for c in changed]).mean() < 0.01  # slopes of nearly zero may turn


def test_the_lowest_rung_is_two_vaes_and_nothing_else():
    state, update = started(ONLY_VAES, average_decay=0.5)
    assert set(state.losses) == {"reconstruction", "kl"}
    after = jax.jit(update)(state, batch_fn(0))
    assert_equal(after.variables.discriminator, state.variables.discriminator)
    program = str(jax.make_jaxpr(update)(state, batch_fn(0)))
    full = str(jax.make_jaxpr(started(ALL)[1])(started(ALL)[0], batch_fn(0)))
    assert program.count("conv_general_dilated") < full.count("conv_general_dilated") / 3


def test_each_rung_adds_its_losses():
    for change, names in (
        ({"gan": 1.0}, {"gan", "discriminator", "penalty"}),
        ({"cycle": 1.0}, {"cycle"}),
        ({"gan": 1.0, "penalty": 0.0}, {"gan", "discriminator"}),
        ({"low_pass": 1.0}, {"low_pass"}),
        ({"pose": 1.0}, {"pose"}),
        ({"offset": 1.0}, {"offset"}),
        ({"paired": 1.0}, {"paired"}),
        ({"identity": 1.0}, {"identity"}),
    ):
        state, update = started(dataclasses.replace(ONLY_VAES, **change))
        assert set(state.losses) == {"reconstruction", "kl"} | names
        assert jax.eval_shape(update, state, batch_fn(0)).losses.keys() == state.losses.keys()


def test_the_penalty_is_that_of_every_fourth_image():
    state, update = started(CYCLE)
    after = jax.jit(update)(state, batch_fn(0))
    critic = state.variables.discriminator
    expected = 0.0
    for domain in "ab":
        score_fn = functools.partial(TRANSLATOR.discriminate, critic, domain=domain)
        penalties = jax.jit(functools.partial(gradient_penalty, score_fn))(batch_fn(0)[domain][::4])
        expected += float(np.mean(penalties))
    np.testing.assert_allclose(after.losses["penalty"], expected, rtol=1e-4)


def test_noise_on_the_way_back_changes_what_comes_back_and_nothing_else():
    clean, noisy = losses(CYCLE), losses(dataclasses.replace(CYCLE, cycle_noise=0.3))
    for name in ("reconstruction", "kl", "gan", "discriminator"):
        np.testing.assert_allclose(noisy[name], clean[name], rtol=1e-5)
    assert abs(float(noisy["cycle"] - clean["cycle"])) > 1e-4


def test_training_learns_to_reconstruct():
    """Images of one color each: what is left of the error after a few hundred steps."""
    flat = {d: np.random.default_rng(3).uniform(0, 1, (8, 1, 1, 3)).astype(np.float32) for d in "ab"}
    images = {d: np.broadcast_to(flat[d], (8, 16, 16, 3)) for d in "ab"}
    init, update = adversarial_training(TRANSLATOR, dataclasses.replace(ONLY_VAES, kl=0.0), optax.adam(3e-3))
    state = fold(update, init(TRANSLATOR.init(jax.random.key(0))), lambda t: images, num_steps=300)
    made = TRANSLATOR.reconstruct(state.variables.generator, images["a"], domain="a")
    assert float(jnp.abs(made - images["a"]).mean()) < np.abs(images["a"] - 0.5).mean() / 2


def test_a_killed_training_goes_on_bit_for_bit(tmp_path):
    state, update = started(ALL)
    whole = fold(update, state, batch_fn, num_steps=5)
    checkpoint = Checkpoint(tmp_path, every=2)

    def dies(t):
        if t == 3:
            raise KeyboardInterrupt
        return batch_fn(t)

    with pytest.raises(KeyboardInterrupt):
        fold(update, state, dies, num_steps=5, checkpoint=checkpoint)
    assert_equal(fold(update, state, batch_fn, num_steps=5, checkpoint=checkpoint), whole)


def test_the_average_follows_the_generator():
    state, update = started(ONLY_VAES, average_decay=0.5)
    expected = jax.device_get(state.average)
    for t in range(3):
        state = jax.jit(update)(state, batch_fn(0))
        decay = min(0.5, (1 + t) / (10 + t))
        weights = jax.device_get(state.variables.generator)
        expected = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, expected, weights)  # noqa: B023
    assert_equal(state.average, expected, rtol=1e-4, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_with_step_and_terms_and_keeps_the_variables():
    state, update = started(CYCLE)
    step = jax.jit(update)
    good = step(state, batch_fn(0))
    bad_batch = {"a": batch_fn(1)["a"] * np.nan, "b": batch_fn(1)["b"]}
    bad = step(step(good, bad_batch), batch_fn(2))
    assert_equal(bad.variables, good.variables)
    assert_equal(bad.average, good.average)
    with pytest.raises(TrainingDiverged, match=r"not finite at step 1: .*reconstruction"):
        translation_report(bad)
    assert set(translation_report(good)) == set(good.losses)


def test_the_noise_is_a_function_of_seed_and_step():
    state, update = started(ONLY_VAES, average_decay=0.5)
    a, b = (jax.jit(update)(state, batch_fn(0)) for _ in range(2))
    assert_equal(a.variables, b.variables)
    assert float(a.losses["reconstruction"]) != float(losses(ONLY_VAES, seed=1)["reconstruction"])


def test_bad_weights_are_named():
    with pytest.raises(ValueError, match=r"cycle is -1\.0: expected a weight of 0 or more"):
        Weights(cycle=-1.0)
    with pytest.raises(ValueError, match="kl is nan"):
        Weights(kl=float("nan"))
