"""Training against a hand-written loop; padding, divergence and devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from vexplain import training
from vexplain.classifiers import FlowerNet, functionalize
from vexplain.datasets import ArraySource, shuffled_batches
from vexplain.sharding import data_mesh
from vexplain.streaming import fold


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables


@pytest.fixture
def batch(key):
    images = jax.random.uniform(key, (8, 2, 3, 1))
    return {"images": images, "labels": jnp.array([0, 1, 2, 0, 1, 2, 2, 1])}


def test_one_step_against_the_closed_form(batch):
    init, update = training.supervised(linear, optax.sgd(0.5))
    variables = jax.random.normal(jax.random.key(1), (6, 3))
    state = update(init(variables), batch)
    x = np.asarray(batch["images"]).reshape(8, -1)
    error = np.asarray(jax.nn.softmax(x @ variables)) - np.eye(3)[np.asarray(batch["labels"])]
    np.testing.assert_allclose(state.variables, variables - 0.5 * x.T @ error / 8, rtol=1e-5, atol=1e-6)
    expected = (np.asarray(x @ variables).argmax(1) == np.asarray(batch["labels"])).mean()
    np.testing.assert_allclose(state.accuracy, expected, rtol=1e-6)


def test_padding_changes_nothing(batch):
    init, update = training.supervised(linear, optax.sgd(0.5))
    padded = {k: jnp.concatenate([v, v[:3] * 0 + v[0]]) for k, v in batch.items()}
    padded["weights"] = jnp.array([1.0] * 8 + [0.0] * 3)
    a, b = update(init(jnp.ones((6, 3))), batch), update(init(jnp.ones((6, 3))), padded)
    np.testing.assert_allclose(a.variables, b.variables, rtol=1e-5)
    counts = training.confusion(linear, 3)[1](jnp.zeros((3, 3)), padded, a.variables)
    assert counts.sum() == 8


def test_a_loss_that_is_not_finite_stops_with_its_step(batch):
    init, update = training.supervised(linear, optax.sgd(0.5))
    good = init(jnp.ones((6, 3)))
    bad = {**batch, "images": batch["images"].at[3, 0, 0, 0].set(jnp.nan)}
    state = update(update(update(good, batch), bad), batch)
    np.testing.assert_array_equal(state.variables, update(good, batch).variables)
    with pytest.raises(training.TrainingDiverged, match=r"not finite at step 1.*learning rate"):
        training.training_report(state)
    assert set(training.training_report(update(good, batch))) == {"loss", "accuracy"}


def _flower_source():
    rng = np.random.default_rng(0)
    return ArraySource(
        rng.uniform(size=(32, 8, 8, 3)), rng.integers(0, 4, 32), class_names=("a", "b", "c", "d")
    )


def _trained(mesh=None, seed=0, **options):
    apply, variables = functionalize(FlowerNet(4, image_size=8, widths=(3, 4, 5), rngs=nnx.Rngs(seed)))
    init, update = training.supervised(apply, optax.adam(1e-2))
    batch_fn, _ = shuffled_batches(_flower_source(), 16, seed=seed)
    return fold(update, init(variables), batch_fn, mesh=mesh, num_steps=options.pop("num_steps", 4)).variables


def test_same_seed_same_weights_and_another_seed_others():
    first, second, third = _trained(), _trained(), _trained(seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not np.allclose(jax.tree.leaves(first)[0], jax.tree.leaves(third)[0])


def test_a_step_on_eight_devices_is_the_step_on_one():
    one, eight = _trained(num_steps=1), _trained(data_mesh(8), num_steps=1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, eight)
