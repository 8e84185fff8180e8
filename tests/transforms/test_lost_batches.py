"""Layers whose batch axis cannot be followed: rules find them by their operation, readings reach them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from vexplain.transforms import (
    DECONVNET,
    GUIDED,
    channels_last,
    edit,
    layers,
    matched_layers,
    read,
    with_rules,
)

SHAPE = (3, 5, 7, 4)
WEIGHTS = jax.random.normal(jax.random.key(3), (2, 4, 4))


def merged(activation, w, x):
    """The MLP of each pixel, over all pixels of all images."""
    x = activation(x.reshape(-1, 4) @ w[0]).reshape(x.shape)
    return activation(x @ w[1]).mean((1, 2))


def centered(activation, w, x):
    """What a normalization in training mode does."""
    x = activation(x @ w[0])
    x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 0.1)
    return activation(x @ w[1]).mean((1, 2))


def mapped(activation, w, x):
    return jax.lax.map(lambda image: activation(activation(image @ w[0]) @ w[1]).mean((0, 1)), x)


def mapped_vectors(activation, w, x):
    return jax.lax.map(lambda v: activation(activation(v @ w[0]) @ w[1]), x.mean((1, 2)))


def scanned(activation, w, x):
    """The images one after the other through a recurrence whose first state is a constant."""

    def step(state, image):
        new = activation(-state @ w[0])  # does not depend on the images yet, at the first step
        return new + image.mean((0, 1)) @ w[1], new

    last, states = jax.lax.scan(step, jnp.ones(4), x)
    return states + last


def mixed(activation, w, x):
    x = activation(x @ w[0])
    return activation((x - x.mean(0)) @ w[1]).mean((1, 2))


def one_number(activation, w, x):
    return activation(activation(x @ w[0]).mean((1, 2)) @ w[1, 0])[:, None]


NETWORKS = [merged, centered, mapped, mapped_vectors, scanned, mixed, one_number]


@jax.custom_vjp
def guided(x):
    return jnp.maximum(x, 0)


guided.defvjp(lambda x: (guided(x), x), lambda x, g: (g * (x > 0) * (g > 0),))


@jax.custom_vjp
def deconvolved(x):
    return jnp.maximum(x, 0)


deconvolved.defvjp(lambda x: (deconvolved(x), x), lambda x, g: (g * (g > 0),))


@pytest.mark.parametrize(("rule", "by_hand"), [(GUIDED, guided), (DECONVNET, deconvolved)])
@pytest.mark.parametrize("network", NETWORKS)
def test_rules_equal_a_network_written_with_them(network, rule, by_hand, key):
    def pulled_back(fn):
        out, send = jax.vjp(lambda x: fn(WEIGHTS, x), jax.random.normal(key, SHAPE))
        return send(jax.random.normal(jax.random.key(8), out.shape))[0]

    @jax.jit
    def gradients():
        ruled = pulled_back(with_rules(lambda w, x: network(jax.nn.relu, w, x), rule))
        return ruled, *(pulled_back(functools.partial(network, relu)) for relu in (by_hand, jax.nn.relu))

    found, expected, plain = gradients()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, plain, atol=1e-4)


@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.gelu, lambda x: x * jax.nn.sigmoid(x)])
@pytest.mark.parametrize("network", NETWORKS)
def test_uncovered_activations_raise(network, activation, key):
    with pytest.raises(ValueError, match=r"GUIDED says nothing of.*(tanh|gelu|silu)"):
        with_rules(lambda w, x: network(activation, w, x), GUIDED)(WEIGHTS, jnp.ones(SHAPE))


@pytest.mark.parametrize("network", NETWORKS)
def test_their_layers_are_listed_read_and_edited(network, key):
    images = jax.random.normal(key, SHAPE)
    apply = lambda w, x: network(jax.nn.relu, w, x)  # noqa: E731
    table = layers(apply, WEIGHTS, images)
    lost = [row for row in table.select("relu") if row.batch_axis is None]
    assert bool(lost) == (network is not merged)  # the pixels of all images are followed

    @jax.jit
    def evaluated(images):
        read_too = read(apply, [row.name for row in table])(WEIGHTS, images)
        no_relu = edit(apply, {row.name: jnp.zeros_like for row in table.select("relu")})
        return *read_too, no_relu(WEIGHTS, images), apply(WEIGHTS, images)

    logits, found, cut, expected = evaluated(images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    for row in lost:
        assert found[row.name].shape == row.shape
        assert found[row.name].min() >= 0
    assert not np.allclose(cut, logits)
    if not lost:
        return
    with pytest.raises(ValueError, match="has no batch axis that could be followed"):
        channels_last(found[lost[0].name], lost[0])


def test_merged_pixels_are_read_as_they_were_computed(key):
    images = jax.random.normal(key, SHAPE)
    found = read(lambda w, x: merged(jax.nn.relu, w, x), ["relu_1"])(WEIGHTS, images)[1]["relu_1"]
    np.testing.assert_allclose(found, jax.nn.relu(images.reshape(-1, 4) @ WEIGHTS[0]), rtol=1e-5)


class Residual(nnx.Module):
    """The parts of residual and transformer networks, normalized over batch, channels and groups."""

    def __init__(self, rngs, train=True):
        self.conv = nnx.Conv(4, 8, (3, 3), rngs=rngs)
        self.batch_norm = nnx.BatchNorm(8, use_running_average=not train, rngs=rngs)
        self.slow = nnx.BatchNorm(8, use_running_average=not train, use_fast_variance=False, rngs=rngs)
        self.layer_norm = nnx.LayerNorm(8, rngs=rngs)
        self.group_norm = nnx.GroupNorm(8, num_groups=2, rngs=rngs)
        self.rms_norm = nnx.RMSNorm(8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.squeeze = nnx.Linear(8, 8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 5, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.batch_norm(self.conv(images)))
        x = nnx.relu(x + self.slow(x))
        x = nnx.max_pool(x, (2, 2), (1, 1))
        x = x * nnx.sigmoid(self.squeeze(x.mean((1, 2))))[:, None, None]
        x = self.dropout(self.group_norm(self.layer_norm(x)))
        tokens = self.rms_norm(x.reshape(x.shape[0], -1, 8))
        tokens = tokens + self.attention(tokens)
        powers = jnp.exp(tokens - jax.lax.stop_gradient(tokens.max(-1, keepdims=True)))
        weights = powers / powers.sum(-1, keepdims=True)  # a softmax by hand
        norms = jnp.maximum(jnp.sqrt((tokens**2).sum(-1, keepdims=True)), 1e-6)
        return self.head(nnx.relu(weights * tokens / norms).mean(1))


@pytest.mark.parametrize("train", [True, False])
def test_normalizations_attention_and_gates_give_no_false_alarm(train, key):
    graph, state = nnx.split(nnx.jit(Residual, static_argnums=1)(nnx.Rngs(0), train))
    apply = lambda v, x: nnx.merge(graph, v, copy=True)(x)  # noqa: E731
    images = jax.random.normal(key, SHAPE)
    assert matched_layers(apply, GUIDED, state, images) == {"GUIDED": ("relu_1", "relu_2", "relu_3")}
    ruled = jax.jit(with_rules(apply, GUIDED))(state, images)
    np.testing.assert_array_equal(ruled, jax.jit(apply)(state, images))
    kinds = {row.kind for row in layers(apply, state, images)}
    assert kinds == {"conv", "norm", "relu", "add", "pool", "dense"}


def test_linen_normalization_in_training_mode_keeps_its_names(key):
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(6, (3, 3))(x)))
            x = nn.relu(nn.BatchNorm(use_running_average=False)(nn.Conv(6, (3, 3))(x)))
            return nn.Dense(5)(x.mean((1, 2)))

    net, images = Net(), jnp.ones(SHAPE)
    variables = jax.jit(net.init)(key, images)
    apply = lambda v, x: net.apply(v, x, mutable=["batch_stats"])  # noqa: E731
    table = layers(apply, variables, images)
    names = "Conv_0 BatchNorm_0 relu_1 Conv_1 BatchNorm_1 relu_2 pool_1 Dense_0"
    assert table.names == tuple(names.split())
    assert [row.batch_axis for row in table][:2] == [0, None]
    jax.eval_shape(with_rules(apply, GUIDED), variables, images)


@pytest.mark.parametrize(
    ("activation", "kind"),
    [
        (lambda x: jnp.maximum(x, 0.1 * x), "leaky_relu"),
        (lambda x: jnp.maximum(x @ WEIGHTS[0], x @ WEIGHTS[1]), "maxout"),
        (jnp.exp, "exp"),
        (lambda x: 1 / (1 + jnp.exp(-x)), "logistic"),
        (lambda x: x**2, "integer_pow"),
        (jnp.square, "square"),
        (lambda x: x**3, "integer_pow"),
    ],
)
def test_activations_written_by_hand_raise(activation, kind):
    def apply(variables, images):
        return jax.nn.relu(activation(images @ WEIGHTS[0])).mean((1, 2)) @ WEIGHTS[1]

    with pytest.raises(ValueError, match=rf"GUIDED says nothing of.*{kind}_1"):
        with_rules(apply, GUIDED)(None, jnp.ones(SHAPE))


@pytest.mark.parametrize(
    "harmless",
    [
        lambda x: jnp.maximum(x[:, ::2], jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0)))[:, 1::2]),
        lambda x: (
            x / (1 + 0.1 * jax.lax.reduce_window(x**2, 0.0, jax.lax.add, (1, 1, 1, 3), (1,) * 4, "SAME"))
        ),
        lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
        lambda x: x - jnp.log(jnp.exp(x).sum(-1, keepdims=True)),
        lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
        lambda x: x - jax.nn.logsumexp(x, -1)[..., None],
        lambda x: x * jax.lax.rsqrt(jnp.maximum(0.0, x.var(-1, keepdims=True)) + 1e-5),
        lambda x: x / jnp.maximum(x.std((1, 2, 3), keepdims=True), 0.1),
        lambda x: x / x.std(-1, keepdims=True, where=jnp.arange(4) > 1),
    ],
    ids=[
        "max pooling by hand",
        "local response",
        "norm",
        "log-softmax by hand",
        "softmax by hand",
        "log-sum-exp",
        "clipped variance",
        "clipped deviation",
        "masked deviation",
    ],
)
def test_powers_and_maxima_of_statistics_are_no_activations(harmless):
    apply = lambda v, x: jax.nn.relu(harmless(x)).mean((1, 2))  # noqa: E731
    table = layers(apply, None, jnp.ones(SHAPE))
    assert {row.kind for row in table} <= {"relu", "pool", "norm", "add"}
    assert table.select("relu").names == ("relu_1",)


def test_a_debug_print_is_no_layer(capfd):
    def apply(variables, images):
        jax.debug.print("{}", images.sum())
        return jax.nn.relu(images).mean((1, 2))

    assert layers(apply, None, jnp.ones(SHAPE)).names == ("relu_1", "pool_1")
