"""Training against a hand-written loop; padding, divergence and devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from vexplain import classifiers
from vexplain.classifiers import FlowerNet, build_small, functionalize
from vexplain.datasets import ArraySource, shuffled_batches
from vexplain.streaming import CheckpointError, TrainingDiverged, fold, fold_epoch
from vexplain.streaming.devices import data_mesh


def linear(variables, images):
    return images.reshape(len(images), -1) @ variables


@pytest.fixture
def batch(key):
    images = np.random.default_rng(0).uniform(size=(8, 2, 3, 1)).astype(np.float32)
    return {"images": images, "labels": np.array([0, 1, 2, 0, 1, 2, 2, 1])}


def test_one_step_against_the_closed_form(batch):
    init, update = classifiers.supervised(linear, optax.sgd(0.5))
    variables = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    state = jax.jit(update)(init(variables), batch)
    x = np.asarray(batch["images"]).reshape(8, -1)
    powers = np.exp(x @ variables)
    error = powers / powers.sum(1, keepdims=True) - np.eye(3)[np.asarray(batch["labels"])]
    np.testing.assert_allclose(state.variables, variables - 0.5 * x.T @ error / 8, rtol=1e-5, atol=1e-6)
    expected = ((x @ variables).argmax(1) == np.asarray(batch["labels"])).mean()
    np.testing.assert_allclose(state.accuracy, expected, rtol=1e-6)


def test_padding_changes_nothing(batch):
    init, update = classifiers.supervised(linear, optax.sgd(0.5))
    padded = {k: np.concatenate([v, v[:3] * 0 + v[0]]) for k, v in batch.items()}
    padded["weights"] = np.array([1.0] * 8 + [0.0] * 3, np.float32)
    a, b = (jax.jit(update)(init(np.ones((6, 3), np.float32)), given) for given in (batch, padded))
    np.testing.assert_allclose(a.variables, b.variables, rtol=1e-5)
    counts = jax.jit(classifiers.confusion(linear, 3)[1])(np.zeros((3, 3)), padded, a.variables)
    assert counts.sum() == 8


def test_a_loss_that_is_not_finite_stops_with_its_step(batch):
    init, update = classifiers.supervised(linear, optax.sgd(0.5))
    update, good = jax.jit(update), init(np.ones((6, 3), np.float32))
    bad = {**batch, "images": batch["images"].copy()}
    bad["images"][3, 0, 0, 0] = np.nan
    state = update(update(update(good, batch), bad), batch)
    np.testing.assert_array_equal(state.variables, update(good, batch).variables)
    with pytest.raises(TrainingDiverged, match=r"not finite at step 1.*learning rate"):
        classifiers.training_report(state)
    assert set(classifiers.training_report(update(good, batch))) == {"loss", "accuracy"}


def _flower_source():
    rng = np.random.default_rng(0)
    return ArraySource(
        rng.uniform(size=(32, 8, 8, 3)), rng.integers(0, 4, 32), class_names=("a", "b", "c", "d")
    )


_with_adam = functools.cache(lambda apply: classifiers.supervised(apply, optax.adam(1e-2)))


def _trained(mesh=None, seed=0, **options):
    apply, variables = functionalize(FlowerNet(4, image_size=8, widths=(3, 4, 5), rngs=nnx.Rngs(seed)))
    init, update = _with_adam(apply)
    batch_fn, _ = shuffled_batches(_flower_source(), 16, seed=seed)
    return fold(update, init(variables), batch_fn, mesh=mesh, num_steps=options.pop("num_steps", 4)).variables


def test_same_seed_same_weights_and_another_seed_others():
    first, second, third = _trained(), _trained(), _trained(seed=1)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert not np.allclose(jax.tree.leaves(first)[0], jax.tree.leaves(third)[0])


def test_a_step_on_eight_devices_is_the_step_on_one():
    one, eight = _trained(num_steps=1), _trained(data_mesh(8), num_steps=1)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), one, eight)


# ------------------------------------------------------------------------------- what is not trained


class Normalized(linen.Module):
    @linen.compact
    def __call__(self, images):
        x = linen.Conv(4, (2, 2))(images)
        x = linen.BatchNorm(use_running_average=True)(x)
        return linen.Dense(3)(linen.relu(x).mean((1, 2)))


def no_statistics(path, leaf):
    return "batch_stats" not in str(path)


@pytest.fixture
def normalized(batch):
    net = Normalized()
    variables = jax.jit(net.init)(jax.random.key(2), batch["images"])
    steps = np.arange(4, dtype=np.float32)
    statistics = {"BatchNorm_0": {"mean": 0.1 * steps, "var": 0.01 + 0.01 * steps}}
    return net.apply, {**variables, "batch_stats": statistics}


def test_running_statistics_stay_as_they_are_and_the_rest_is_trained(normalized, batch):
    apply, variables = normalized
    init, update = classifiers.supervised(apply, optax.adam(0.1), trainable=no_statistics)
    state = init(variables)
    for _ in range(5):
        state = jax.jit(update)(state, batch)
    jax.tree.map(np.testing.assert_array_equal, state.variables["batch_stats"], variables["batch_stats"])
    moved = jax.tree.map(
        lambda a, b: not np.array_equal(a, b), state.variables["params"], variables["params"]
    )
    assert all(jax.tree.leaves(moved))
    assert jax.tree.structure(state.variables) == jax.tree.structure(variables)


def test_training_without_the_statistics_is_training_of_the_parameters_alone(normalized, batch):
    """Weight decay and a clip by the global norm see what is trained only."""
    apply, variables = normalized
    optimizer = optax.chain(optax.clip_by_global_norm(0.01), optax.adamw(0.1, weight_decay=0.1))
    init, update = classifiers.supervised(apply, optimizer, trainable=no_statistics)
    update = jax.jit(update)
    found = update(update(init(variables), batch), batch).variables
    alone = lambda params, images: apply({**variables, "params": params}, images)  # noqa: E731
    init, update = classifiers.supervised(alone, optimizer)
    update = jax.jit(update)
    expected = update(update(init(variables["params"]), batch), batch).variables
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found["params"], expected)


def test_what_is_not_trained_may_be_of_any_dtype(batch):
    variables = {"kernel": jnp.ones((6, 3)), "num_calls": jnp.array(7)}
    apply = lambda v, images: linear(v["kernel"], images)  # noqa: E731
    init, update = classifiers.supervised(apply, optax.sgd(0.5), trainable=lambda path, leaf: leaf.ndim == 2)
    state = jax.jit(update)(init(variables), batch)
    assert state.variables["num_calls"] == 7
    assert not np.array_equal(state.variables["kernel"], variables["kernel"])


def test_the_statistics_of_nnx_are_told_by_their_names(batch):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 4, (2, 2), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.head = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, images):
            return self.head(nnx.relu(self.norm(self.conv(images))).mean((1, 2)))

    apply, variables = functionalize(Net(nnx.Rngs(0)))
    trainable = lambda path, leaf: path[-1].key not in ("mean", "var")  # noqa: E731
    init, update = classifiers.supervised(apply, optax.adam(0.1), trainable=trainable)
    found = jax.jit(update)(init(variables), batch).variables
    for name, values in variables["norm"].items():
        is_statistic = name in ("mean", "var")
        assert np.array_equal(found["norm"][name], values) == is_statistic, name


def test_statistics_without_a_word_about_them_are_refused(normalized):
    apply, variables = normalized
    init, _ = classifiers.supervised(apply, optax.adam(0.1))
    with pytest.raises(ValueError, match=r"'batch_stats'.*pass trainable=lambda path, leaf: .*not in str"):
        init(variables)
    init, _ = classifiers.supervised(apply, optax.adam(0.1), trainable=lambda path, leaf: False)
    with pytest.raises(ValueError, match="trainable: it is False for every variable"):
        init(variables)


# ------------------------------------------------------------------------------- the usual training


class Interrupted(Exception):
    pass


class Watched:
    """A source that counts its batches, and fails at one of them."""

    def __init__(self, source, *, fails_at=None):
        self.source, self.fails_at, self.num_batches = source, fails_at, 0
        self.class_names = source.class_names

    def __len__(self):
        return len(self.source)

    def __getitem__(self, indices):
        if self.num_batches == self.fails_at:
            raise Interrupted
        self.num_batches += 1
        return self.source[indices]


def normalized_linear(variables, images):
    x = images.reshape(len(images), -1) - variables["norm"]["mean"]
    return x / jnp.sqrt(variables["norm"]["var"]) @ variables["kernel"]


@pytest.fixture
def to_train():
    statistics = {"mean": jnp.linspace(0, 1, 192), "var": jnp.linspace(1, 2, 192)}
    variables = {"norm": statistics, "kernel": jnp.zeros((192, 4))}
    return variables, {"epochs": 7, "batch_size": 16, "learning_rate": 0.01, "seed": 3}


def test_an_interrupted_training_ends_as_one_that_was_not(to_train, tmp_path):
    variables, options = to_train
    expected = classifiers.train(normalized_linear, variables, _flower_source(), **options)
    broken = Watched(_flower_source(), fails_at=11)
    with pytest.raises(Interrupted):
        classifiers.train(normalized_linear, variables, broken, directory=tmp_path, **options)
    watched = Watched(_flower_source())
    found = classifiers.train(normalized_linear, variables, watched, directory=tmp_path, **options)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert (
        watched.num_batches == 7
    )  # of 15, with eight images that tell the source: it went on from the fourth epoch
    again = classifiers.train(
        normalized_linear, variables, Watched(watched, fails_at=1), directory=tmp_path, **options
    )
    jax.tree.map(np.testing.assert_array_equal, again, expected)
    for change in ({"seed": 4}, {"epochs": 8}, {"learning_rate": 0.02}):
        other = {**options, **change, "directory": tmp_path}
        (name,) = change
        message = f"made with other settings .'{name} {options[name]}', now '{name} {change[name]}'"
        with pytest.raises(CheckpointError, match=message):
            classifiers.train(normalized_linear, variables, _flower_source(), **other)
    others = jax.tree.map(lambda leaf: leaf + 1, variables)
    with pytest.raises(CheckpointError, match="'constants "):
        classifiers.train(normalized_linear, others, _flower_source(), directory=tmp_path, **options)


def test_the_usual_training_is_adam_with_warmup_and_cosine_decay_of_all_but_statistics(to_train):
    variables, options = to_train
    found = classifiers.train(normalized_linear, variables, _flower_source(), **options)
    jax.tree.map(np.testing.assert_array_equal, found["norm"], variables["norm"])
    assert not np.array_equal(found["kernel"], variables["kernel"])

    num_steps = 14  # 32 images, 7 epochs; the first step of a warmup of one is at zero
    schedule = [0.0, *(0.01 * (1 + np.cos(np.pi * np.arange(num_steps - 1) / (num_steps - 1))) / 2)]
    kernel, first, second = np.zeros((192, 4)), np.zeros((192, 4)), np.zeros((192, 4))
    batch_fn, _ = shuffled_batches(_flower_source(), 16, seed=3)
    norm = jax.tree.map(np.asarray, variables["norm"])
    for t, rate in enumerate(schedule):  # Kingma and Ba, Adam, 2015, Algorithm 1
        batch = batch_fn(t)
        x = (batch["images"].reshape(16, -1) - norm["mean"]) / np.sqrt(norm["var"])
        logits = x @ kernel
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        gradient = x.T @ (shares - np.eye(4)[batch["labels"]]) / 16
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - 0.9 ** (t + 1)), second / (1 - 0.999 ** (t + 1))
        kernel -= rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
    np.testing.assert_allclose(found["kernel"], kernel, rtol=1e-3, atol=1e-5)


def test_the_network_without_pooling_learns_which_color_there_is():
    images = np.random.default_rng(0).random((24, 12, 12, 3)).astype(np.float32) / 4
    for label in range(3):
        images[label::3, 3:9, 4:8, label] += 0.7
    source = ArraySource(images, np.arange(24) % 3, class_names=("red", "green", "blue"))
    apply, variables = build_small("all_conv_net", 3, image_size=12, width=4)
    variables = classifiers.train(apply, variables, source, epochs=20, batch_size=24, learning_rate=0.03)
    init, update = classifiers.confusion(apply, 3)
    assert classifiers.accuracy(fold_epoch(update, init(), source, batch_size=24, constants=variables)) == 1


def test_training_for_no_epoch_is_refused_and_for_one_step_has_no_warmup(to_train):
    variables, options = to_train
    with pytest.raises(ValueError, match="epochs is 0: expected the number of passes"):
        classifiers.train(normalized_linear, variables, _flower_source(), **(options | {"epochs": 0}))
    one_step = options | {"epochs": 1, "batch_size": 32}
    found = classifiers.train(normalized_linear, variables, _flower_source(), **one_step)
    np.testing.assert_allclose(np.abs(found["kernel"]), 0.01, rtol=1e-3)  # a first step of Adam is the rate
