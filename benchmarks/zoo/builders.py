"""Makes a function of (variables, images) of a module of any library, and the shapes of its variables.

No weights are downloaded or initialized: `drawn` makes random ones where a measurement needs numbers.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.zoo.cases import BATCH

NUM_CLASSES = 10


class Built(NamedTuple):
    """A network, and `jax.ShapeDtypeStruct`s of its variables."""

    apply: Callable[[Any, Any], Any]
    shapes: Any


def drawn(shapes: Any, seed: int = 0) -> Any:
    """Returns random variables in JAX's precision: kernels by He's rule, scales near 1, the rest near 0."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path).lower()
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return np.zeros(leaf.shape, leaf.dtype)
        is_vector = leaf.size == max(leaf.shape, default=1)
        if is_vector and any(word in name for word in ("bias", "mean", "offset", "beta", "'b'")):
            value = rng.normal(0, 0.1, leaf.shape)
        elif is_vector:
            value = rng.uniform(0.8, 1.2, leaf.shape)
        else:
            fan_in = leaf.size / max(leaf.shape[0], leaf.shape[-1])
            value = rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
        return value

    return jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes))


def linen(network: Any, size: int, **options: Any) -> Built:
    """A Flax Linen module; `options` are what it wants for test time."""
    images = _images(size)
    rngs = {name: jax.random.key(0) for name in ("params", "dropout", "drop_path", "stochastic_depth")}
    init = functools.partial(network.init, **options)
    shapes = jax.eval_shape(init, rngs, images)
    return Built(functools.partial(network.apply, **options), shapes)


def nnx_module(make: Callable[[Any], Any]) -> Built:
    """A Flax NNX module, made by `make(rngs)`."""
    from flax import nnx

    from vexplain.classifiers import functionalize

    network = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    apply, shapes = functionalize(network)
    return Built(apply, shapes)


def equinox_module(make: Callable[[], Any], **options: Any) -> Built:
    """An Equinox module for one image, channels first."""
    import equinox as eqx

    network = eqx.nn.inference_mode(eqx.filter_eval_shape(make))
    shapes, static = eqx.partition(network, lambda leaf: hasattr(leaf, "dtype"))
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)

    def apply(variables, images):
        module = eqx.combine(variables, static)
        one = functools.partial(module, key=jax.random.key(0), **options)
        return jax.vmap(one)(images.transpose(0, 3, 1, 2))

    return Built(apply, shapes)


def keras_model(make: Callable[..., Any], *, is_eager: bool = False, **options: Any) -> Built:
    """A Keras 3 model on the JAX backend, made by `make`; `is_eager` where variables are given numbers."""
    import keras

    keras.config.set_floatx(str(jnp.result_type(float)))
    keras.config.set_dtype_policy(str(jnp.result_type(float)))
    keras.backend.clear_session()
    with contextlib.nullcontext() if is_eager else keras.StatelessScope(initialize_variables=False):
        model = make(**options)
    groups = (model.trainable_variables, model.non_trainable_variables)
    shapes = tuple(
        {f"{n:04d}/{v.path}": jax.ShapeDtypeStruct(v.shape, v.dtype) for n, v in enumerate(group)}
        for group in groups
    )

    def apply(variables, images):
        values = ([group[name] for name in names] for group, names in zip(variables, shapes, strict=True))
        return model.stateless_call(*values, images, training=False)[0]

    return Built(apply, shapes)


def haiku_module(make: Callable[[], Any], size: int) -> Built:
    """A Haiku module that is called with `is_training`."""
    import haiku as hk

    network = hk.without_apply_rng(hk.transform_with_state(lambda x: make()(x, is_training=False)))
    images = _images(size)
    # with is_training=True the first time, which is what makes the state
    first = hk.transform_with_state(lambda x: make()(x, is_training=True))
    shapes = jax.eval_shape(first.init, jax.random.key(0), images)
    return Built(lambda variables, images: network.apply(*variables, images)[0], shapes)


def _images(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((BATCH, size, size, 3), jnp.result_type(float))
