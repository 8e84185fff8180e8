"""Training in layers: losses by hand, devices agree, divergence stops, resuming is exact."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vexplain.datasets.shape_swap import paired_test
from vexplain.streaming import Checkpoint, TrainingDiverged, fold
from vexplain.streaming.devices import data_mesh
from vexplain.translation import translation_report
from vexplain.translation.layered import (
    Codes,
    LayeredSettings,
    LayeredTranslator,
    LayeredWeights,
    Layers,
    layered_training,
)
from vexplain.translation.layered.losses import LOSSES, Made, Truth

SETTINGS = LayeredSettings(image_size=16, width=4, carriers=("offsets",), num_waves=1)
TRANSLATOR = LayeredTranslator(SETTINGS)
# Without those that take long to compile; the smoke preset of the experiment trains with all of them.
LATE = ("cycle", "appearance", "contrast", "gram", "pose")
FEW = dataclasses.replace(LayeredWeights(), **dict.fromkeys(LATE, 0.0))


@functools.cache
def images():
    pairs = paired_test(32, size=16)
    return {"a": pairs.images_a, "b": pairs.images_b}


def batch_fn(t):
    chosen = np.random.default_rng(t).integers(0, 32, 8)
    return {d: x[chosen] for d, x in images().items()}


@functools.cache  # a step takes long to compile: equal ones are the same function
def started(weights=FEW):
    init, update = layered_training(TRANSLATOR, weights, optax.adam(1e-3, 0.5))
    return init(TRANSLATOR.init(jax.random.key(0))), update


@functools.cache
def stepped():
    """One step on one device, and the compiled step."""
    state, update = started()
    step = jax.jit(update)
    return step(state, batch_fn(0)), step


def assert_equal(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 0, "atol": 0}))


def test_two_devices_go_as_one_and_a_killed_training_goes_on(tmp_path):
    state, update = started()
    run = functools.partial(fold, update, state, mesh=data_mesh(2))
    (one, _), two = stepped(), run(batch_fn, num_steps=1)
    assert_equal(one.losses, two.losses, rtol=2e-3, atol=1e-4)
    whole, checkpoint = run(batch_fn, num_steps=2), Checkpoint(tmp_path, every=1)

    def dies(t):
        if t == 1:
            raise KeyboardInterrupt
        return batch_fn(t)

    with pytest.raises(KeyboardInterrupt):
        run(dies, num_steps=2, checkpoint=checkpoint)
    assert_equal(run(batch_fn, num_steps=2, checkpoint=checkpoint), whole)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_variables():
    good, step = stepped()
    bad = step(good, {"a": batch_fn(1)["a"] * np.nan, "b": batch_fn(1)["b"]})
    assert_equal(bad.variables, good.variables)
    assert_equal(bad.average, good.average)
    with pytest.raises(TrainingDiverged, match=r"not finite at step 1: .*reconstruction"):
        translation_report(bad)


def test_each_weight_adds_its_loss_and_no_other():
    state, _ = started()
    assert set(state.losses) == set(LOSSES) - {"paired", "fit", *LATE} | {"discriminator", "penalty"}
    none = dataclasses.replace(LayeredWeights(), **dict.fromkeys(LOSSES, 0.0))
    for change, names in (
        ({"hidden": 1.0}, {"hidden"}),
        ({"gan": 1.0, "penalty": 0.0}, {"gan", "discriminator"}),
        ({"paired": 1.0, "overlap": 1.0}, {"paired", "overlap"}),
    ):
        state, update = started(dataclasses.replace(none, **change))
        assert set(state.losses) == names
        assert jax.eval_shape(update, state, batch_fn(0)).losses.keys() == names


def test_losses_by_hand():
    random = np.random.default_rng(0)
    x, texture = (jnp.asarray(random.random((4, 9, 9, 3)), jnp.float32) for _ in range(2))
    mask, other = jnp.zeros((4, 9, 9)).at[:, 1:8, 2:8].set(1.0), jnp.zeros((4, 9, 9)).at[:, 3:9].set(1.0)
    code = jnp.eye(4)
    codes = Codes(code, jnp.zeros((4, 7)), (), jnp.zeros((4, 9, 9, 4)))
    turned = codes._replace(appearance=jnp.roll(code, 1, 0))
    layers = Layers(texture, other, x)
    made = Made(codes, layers._replace(coverage=mask), layers, texture, codes, turned, layers, None)
    truth = Truth(x, mask, lambda made: jnp.full(len(made.image), 0.25))
    found = jax.jit(
        lambda made: {name: loss_fn(made, truth) for name, loss_fn in LOSSES.items() if name != "fit"}
    )(made)
    error = np.abs(x - texture).mean(-1)
    both = error[:, 3:7, 3:7]  # within both, away from the first one's outline
    expected = {
        "coverage": 0.0,
        "reconstruction": (error * mask).mean(),
        "overlap": both.sum() / (both.size + 4),
        "cycle": (error * other).mean(),
        "gan": 0.75**2 / 2,
        "appearance": 1.0,
        "contrast": np.log(3 + np.exp(10.0)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-3, atol=1e-5, err_msg=name)
    squared = np.square(x - texture).mean(-1)[:, 2:7, 3:7]
    inner = error[:, 2:7, 3:7]
    np.testing.assert_allclose(found["hidden"], (inner + 4 * squared).sum() / (inner.size + 4), rtol=1e-3)
