"""Makes the networks of each package: a function of (variables, images), and the shapes of the variables.

No weights are downloaded or initialized: `drawn` makes random ones where a measurement needs numbers.
"""

import functools
import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

NUM_CLASSES = 10


class Built(NamedTuple):
    """A network, and `jax.ShapeDtypeStruct`s of its variables."""

    apply: Callable[[Any, Any], Any]
    shapes: Any


def drawn(shapes: Any, seed: int = 0) -> Any:
    """Returns random variables: kernels by He's rule, scales near 1, the rest near 0."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path).lower()
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.zeros(leaf.shape, leaf.dtype)
        is_vector = leaf.size == max(leaf.shape, default=1)
        if is_vector and any(word in name for word in ("bias", "mean", "offset", "beta", "'b'")):
            value = rng.normal(0, 0.1, leaf.shape)
        elif is_vector:
            value = rng.uniform(0.8, 1.2, leaf.shape)
        else:
            fan_in = leaf.size / max(leaf.shape[0], leaf.shape[-1])
            value = rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
        return jnp.asarray(value, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def linen(network: Any, size: int, **options: Any) -> Built:
    """A Flax Linen module; `options` are what it wants for test time."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    rngs = {name: jax.random.key(0) for name in ("params", "dropout", "drop_path", "stochastic_depth")}
    init = functools.partial(network.init, **options)
    shapes = jax.eval_shape(init, rngs, images)
    shapes = {name: shapes[name] for name in ("params", "batch_stats") if name in shapes}
    return Built(lambda variables, images: network.apply(variables, images, **options), shapes)


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
    shapes, static = eqx.partition(network, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))

    def apply(variables, images):
        module = eqx.combine(variables, static)
        one = functools.partial(module, key=jax.random.key(0), **options)
        return jax.vmap(one)(images.transpose(0, 3, 1, 2))

    return Built(apply, shapes)


def keras_model(model: Any) -> Built:
    """A Keras 3 model on the JAX backend; its variables by their paths."""
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
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    # with is_training=True the first time, which is what makes the state
    first = hk.transform_with_state(lambda x: make()(x, is_training=True))
    shapes = jax.eval_shape(first.init, jax.random.key(0), images)
    return Built(lambda variables, images: network.apply(*variables, images)[0], shapes)


# --------------------------------------------------------------------------------- package by package


def keras_application(name: str, size: int, **options: Any) -> Built:
    """A network of `keras.applications`, with logits as its outputs."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    make = getattr(keras.applications, name)
    return keras_model(
        make(weights=None, input_shape=(size, size, 3), classes=NUM_CLASSES, classifier_activation=None, **options)
    )


def haiku_net(name: str, size: int) -> Built:
    import haiku as hk

    return haiku_module(lambda: getattr(hk.nets, name)(num_classes=NUM_CLASSES), size)


def jax_resnet(name: str, size: int) -> Built:
    import jax_resnet as package

    built = linen(getattr(package, name)(n_classes=NUM_CLASSES), size)
    network = getattr(package, name)(n_classes=NUM_CLASSES)
    return Built(functools.partial(network.apply, mutable=False), built.shapes)


def flaxmodels(name: str, size: int) -> Built:
    import flaxmodels as package

    options = {"include_head": True} if name.startswith("VGG") else {}
    network = getattr(package, name)(
        output="logits", pretrained=None, normalize=True, num_classes=NUM_CLASSES, **options
    )
    return linen(network, size, train=False)


def flaim(name: str, size: int) -> Built:
    jax.random.KeyArray = jax.Array  # the name of 2023 for the type, in its annotations
    import flaim as package  # noqa: F401

    config = dict(importlib.import_module("flaim.models.factory").CONFIGS[name])
    network = config.pop("model_cls")
    config.pop("norm_stats", None)
    network = network(**config | {"n_classes": NUM_CLASSES})
    import inspect

    options = {"training": False} if "training" in inspect.signature(network.__call__).parameters else {}
    return linen(network, size, **options)


def jax_models(name: str, size: int) -> Built:
    import jax_models as package

    network = package.load_model(name, attach_head=True, num_classes=NUM_CLASSES)
    return linen(network, size, deterministic=True)


def equimo(name: str, **options: Any) -> Built:
    import equimo.models as package

    make = functools.partial(getattr(package, name), num_classes=NUM_CLASSES, key=jax.random.key(0), **options)
    return equinox_module(make)


def eqxvision(name: str, **options: Any) -> Built:
    _put_back_equinox_experimental()
    import eqxvision.models as package

    make = functools.partial(getattr(package, name), num_classes=NUM_CLASSES, key=jax.random.key(0), **options)
    return equinox_module(make)


def _put_back_equinox_experimental() -> None:
    """`eqxvision` is of 2023 and asks for a batch normalization that Equinox no longer has: at test time, this."""
    import sys
    import types

    import equinox as eqx

    class BatchNorm(eqx.Module):
        weight: Any
        bias: Any
        mean: Any
        variance: Any
        eps: float = eqx.field(static=True)

        def __init__(self, input_size, axis_name="batch", eps=1e-5, **_):
            self.weight, self.variance = jnp.ones(input_size), jnp.ones(input_size)
            self.bias, self.mean, self.eps = jnp.zeros(input_size), jnp.zeros(input_size), eps

        def __call__(self, x, *, key=None, inference=None):
            scale = self.weight * jax.lax.rsqrt(self.variance + self.eps)
            return (x - self.mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]

    module = types.ModuleType("equinox.experimental")
    module.BatchNorm = BatchNorm
    eqx.experimental = module
    sys.modules["equinox.experimental"] = module


def jimm_vit(size: int, **options: Any) -> Built:
    from jimm.models import VisionTransformer

    return nnx_module(lambda rngs: VisionTransformer(NUM_CLASSES, img_size=size, rngs=rngs, **options))


def lpips_vgg() -> Built:
    import collections

    import lpips_nnx.vgg as package
    from flax import nnx

    zeros = collections.defaultdict(lambda: {"kernel": 0.0, "bias": 0.0})
    package.load_vgg16_weights = lambda: zeros  # it loads its weights in the constructor
    graph, shapes = nnx.split(nnx.eval_shape(lambda: package.VGG16Features(rngs=nnx.Rngs(0))))
    head = jax.ShapeDtypeStruct((512, NUM_CLASSES), jnp.float32)

    def apply(variables, images):
        return nnx.merge(graph, variables[0])(images)[-1].mean((1, 2)) @ variables[1]

    return Built(apply, (nnx.to_pure_dict(shapes), head))
