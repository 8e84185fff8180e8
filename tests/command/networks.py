"""A tiny network as a user would hand it to the command, in every form that it takes, and in bad ones."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from vexplain.datasets import Resizing


def _apply(variables, images):
    """Scores red, green and blue; a fourth class never wins."""
    x = jax.lax.conv_general_dilated(
        images, variables["kernel"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(x - 0.4).mean((1, 2)) @ variables["head"] + variables["bias"]


def _variables():
    kernel = np.zeros((3, 3, 3, 5), np.float32)
    kernel[1, 1] = np.eye(3, 5)
    kernel[..., 3:] = np.random.default_rng(0).uniform(0, 0.1, (3, 3, 3, 2))
    return {
        "kernel": jnp.asarray(kernel),
        "head": jnp.eye(5, 4).at[3:].set(0),
        "bias": jnp.array([0.0, 0, 0, -9]),
    }


def pair(weights):
    """The bias is what a file of weights holds."""
    variables = _variables()
    if weights is not None:
        variables["bias"] = jnp.asarray(np.load(weights))
    return _apply, variables


def sized(weights):
    return *pair(weights), Resizing(16, 20)


class _Module(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.head = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, images):
        return self.head(nnx.gelu(self.conv(images)).mean((1, 2)))


def module(weights):
    return _Module(nnx.Rngs(1))


def returns_nothing(weights):
    return None


def wants_weights(weights):
    with open(weights) as file:
        return file.read()


def one_logit(weights):
    """Is there more red than anything else?"""
    apply, variables = pair(None)
    return (
        lambda v, x: (s := apply(v, x))[:, :1] - s[:, 1:3].sum(1, keepdims=True),
        variables,
        Resizing(16, 20),
    )


def of_gray(weights):
    """Sees the luma alone: how bright is the middle?"""
    kernel = jnp.asarray(np.ones((3, 3, 1, 2), np.float32) / 9)

    def apply(variables, images):
        assert images.shape[-1] == 1
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(
            images, variables["kernel"], (1, 1), "SAME", dimension_numbers=dimensions
        )
        x = jax.nn.relu(x - jnp.array([0.0, 0.3])).mean((1, 2))
        return x * jnp.array([1.0, 6.0])

    return apply, {"kernel": kernel}, Resizing(16, 20)


def multi_label(weights):
    """Each color has a label of its own, and all that is bright has the fourth."""
    apply, variables = pair(None)

    def labels(variables, images):
        colors = 60 * (apply(variables, images)[:, :3] - 0.05)
        return jnp.concatenate([colors, 20 * (images.mean((1, 2, 3)) - 0.1)[:, None]], axis=1)

    return labels, variables, Resizing(16, 20)


def probabilities(weights):
    apply, variables = pair(None)
    return lambda v, x: jax.nn.softmax(apply(v, x)), variables, Resizing(16, 20)


def of_tokens(weights):
    """Sixteen tokens that a dense layer makes of the whole image: their places cannot be followed."""
    keys = jax.random.split(jax.random.key(3), 2)
    variables = [jax.random.normal(keys[0], (768, 96)) / 27, jax.random.normal(keys[1], (6, 4))]

    def apply(variables, images):
        tokens = jax.nn.relu((images.reshape(-1, 768) @ variables[0]).reshape(-1, 16, 6))
        return tokens.mean(1) @ variables[1]

    return apply, variables, Resizing(16, 20)


def keras_model(weights):
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(5, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4),
        ]
    )


def equinox_model(weights):
    import equinox as eqx

    class Network(eqx.Module):
        conv: eqx.nn.Conv2d
        dropout: eqx.nn.Dropout
        dense: eqx.nn.Linear

        def __init__(self, key):
            self.conv = eqx.nn.Conv2d(3, 5, 3, key=key)
            self.dropout = eqx.nn.Dropout(0.5)
            self.dense = eqx.nn.Linear(5, 4, key=key)

        def __call__(self, image):
            return self.dense(self.dropout(jax.nn.relu(self.conv(image))).mean((1, 2)))

    return Network(jax.random.key(0)), Resizing(16)


class _Linen(linen.Module):
    @linen.compact
    def __call__(self, images, train: bool = True):
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(linen.Conv(5, (3, 3))(images)))
        return linen.Dense(4)(linen.Dropout(0.5, deterministic=not train)(x).mean((1, 2)))


def linen_module(weights):
    module = _Linen()
    variables = module.init(jax.random.key(0), jnp.ones((1, 16, 16, 3)), train=False)
    return module, variables, Resizing(16)


def haiku_function(weights):
    import haiku as hk

    def network(images):
        x = jax.nn.relu(hk.Conv2D(5, 3)(images))
        return hk.Linear(4)(x.mean((1, 2)))

    made = hk.transform(network)
    return made, made.init(jax.random.key(0), jnp.ones((1, 16, 16, 3))), Resizing(16)


def haiku_with_state(weights):
    import haiku as hk

    def network(images, is_training=False):
        x = jax.nn.relu(hk.BatchNorm(True, True, 0.9)(hk.Conv2D(5, 3)(images), is_training))
        return hk.Linear(4)(x.mean((1, 2)))

    made = hk.transform_with_state(network)
    return made, made.init(jax.random.key(0), jnp.ones((1, 16, 16, 3)), is_training=True), Resizing(16)


def squared(outputs, targets):
    """A score of one's own."""
    return jnp.take_along_axis(outputs, targets[:, None], axis=1)[:, 0] ** 2


def in_a_closure(weights):
    """The variables are empty: the arrays are constants of the function."""
    variables = pair(weights)[1]
    return lambda _, images: _apply(variables, images), {}, Resizing(16, 20)


def takes_nothing():
    return pair(None)


def one_class(weights):
    apply, variables = pair(None)
    return apply, variables | {"bias": jnp.array([9.0, 0, 0, 0])}


def not_finite(weights):
    apply, variables = pair(None)
    return apply, variables | {"bias": jnp.array([jnp.nan, 0, 0, 0])}


def wrong_shape(weights):
    return lambda variables, images: images, ()


def only_large(weights):
    return lambda variables, images: images[:, :8, :8].reshape(-1, 192) @ variables, jnp.ones((192, 4))


not_a_function = 3
