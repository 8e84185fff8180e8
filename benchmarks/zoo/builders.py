"""Makes the networks of each package: a function of (variables, images), and the shapes of the variables.

No weights are downloaded or initialized: `drawn` makes random ones where a measurement needs numbers.
"""

import collections
import functools
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

NUM_CLASSES = 10
BATCH = 5  # of what is traced: a prime, that no other axis has by chance


class Built(NamedTuple):
    """A network, and `jax.ShapeDtypeStruct`s of its variables."""

    apply: Callable[[Any, Any], Any]
    shapes: Any


def drawn(shapes: Any, seed: int = 0) -> Any:
    """Returns random variables: in the precision that JAX has: kernels by He's rule, scales near 1, the rest near 0."""
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
        return jnp.asarray(value)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def _is_float(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _images(size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((BATCH, size, size, 3), jnp.result_type(float))


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
    shapes, static = eqx.partition(network, _is_float)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)

    def apply(variables, images):
        module = eqx.combine(variables, static)
        one = functools.partial(module, key=jax.random.key(0), **options)
        return jax.vmap(one)(images.transpose(0, 3, 1, 2))

    return Built(apply, shapes)


def keras_model(make: Callable[..., Any], **options: Any) -> Built:
    """A Keras 3 model on the JAX backend, made by `make`; its variables by their paths."""
    import keras

    keras.config.set_floatx(str(jnp.result_type(float)))
    keras.config.set_dtype_policy(str(jnp.result_type(float)))
    keras.backend.clear_session()
    with keras.StatelessScope(initialize_variables=False):
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


# --------------------------------------------------------------------------------- package by package


def keras_application(network: str, size: int, **options: Any) -> Built:
    """A network of `keras.applications`, with logits as its outputs."""
    keras = _keras()
    make = getattr(keras.applications, network)
    options |= {"weights": None, "classes": NUM_CLASSES, "classifier_activation": None}
    return keras_model(make, input_shape=(size, size, 3), **options)


def k3im(network: str, size: int, **options: Any) -> Built:
    """`k3im`: transformers and mixers in Keras 3."""
    _keras()
    module, function = network.split(".")
    make = getattr(importlib.import_module(f"k3im.{module}"), function)
    return keras_model(make, num_classes=NUM_CLASSES, **options)


def keras_vision(network: str, size: int, **options: Any) -> Built:
    """`keras-vision`: MobileViT and FastViT in Keras 3."""
    _keras()
    module, function = network.split(".")
    make = getattr(importlib.import_module(f"keras_vision.{module}"), function)
    return keras_model(make, num_classes=NUM_CLASSES, input_shape=(size, size, 3), **options)


def _keras() -> Any:
    os.environ["KERAS_BACKEND"] = "jax"  # before it is imported
    import keras

    return keras


def haiku_net(network: str, size: int) -> Built:
    """`haiku.nets` of dm-haiku."""
    import haiku as hk

    return haiku_module(lambda: getattr(hk.nets, network)(num_classes=NUM_CLASSES), size)


def jax_resnet(network: str, size: int) -> Built:
    """`jax-resnet` in Flax Linen; batch statistics are used as they are where they cannot be changed."""
    import jax_resnet as package

    module = getattr(package, network)(n_classes=NUM_CLASSES)
    return Built(functools.partial(module.apply, mutable=False), linen(module, size).shapes)


def flaxmodels(network: str, size: int) -> Built:
    """`flaxmodels` in Flax Linen, which subtracts the mean itself."""
    import flaxmodels as package

    options = {"output": "logits", "pretrained": None, "num_classes": NUM_CLASSES}
    module = getattr(package, network)(dtype=str(jnp.result_type(float)), **options)
    return linen(module, size, train=False)


def flaim(network: str, size: int) -> Built:
    """`flaim` in Flax Linen."""
    jax.random.KeyArray = jax.Array  # the name of 2023 for the type, in its annotations
    import flaim.models.factory

    options = dict(flaim.models.factory.CONFIGS[network])
    make = options.pop("model_cls")
    options.pop("norm_stats", None)
    module = make(**options | {"n_classes": NUM_CLASSES})
    knows_training = "training" in inspect.signature(module.__call__).parameters
    return linen(module, size, **({"training": False} if knows_training else {}))


def jax_models(network: str, size: int, **options: Any) -> Built:
    """`jax-models` in Flax Linen."""
    import jax_models as package

    module = package.load_model(network, attach_head=True, num_classes=NUM_CLASSES, **options)
    with _numbers_at_tracing():
        built = linen(module, size, deterministic=True)

    def apply(variables, images):
        with _numbers_at_tracing():
            return built.apply(variables, images)

    return Built(apply, built.shapes)


def _numbers_at_tracing() -> Any:
    """Networks of 2022 that ask for `.item()` of a `jnp.linspace` while they are traced get NumPy's."""
    return mock.patch.object(jnp, "linspace", np.linspace)


def equimo(network: str, size: int, **options: Any) -> Built:
    """`equimo` in Equinox."""
    import equimo.models as package

    options |= {"num_classes": NUM_CLASSES, "key": jax.random.key(0)}
    return equinox_module(functools.partial(getattr(package, network), **options))


def eqxvision(network: str, size: int, eager: bool = False) -> Built:
    """`eqxvision` in Equinox: torchvision's networks; `eager` for one whose constructor computes its widths in JAX."""
    _put_back_equinox_experimental()
    import eqxvision.models as package

    def make():
        with jax.ensure_compile_time_eval() if eager else _numbers_at_tracing():
            return getattr(package, network)(num_classes=NUM_CLASSES)

    return equinox_module(make)


def _put_back_equinox_experimental() -> None:
    """`eqxvision` is of 2023 and asks for a batch normalization that Equinox no longer has; this is its test time."""
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
    eqx.experimental = sys.modules["equinox.experimental"] = module


def jimm(network: str, size: int, **options: Any) -> Built:
    """`jax-image-models` in Flax NNX, which wants a mesh for its parameters."""
    import jimm.models as package

    automatic = (jax.sharding.AxisType.Auto,)
    jax.set_mesh(jax.make_mesh((1,), ("fsdp",), axis_types=automatic))
    make = getattr(package, network)
    return nnx_module(lambda rngs: make(NUM_CLASSES, img_size=size, rngs=rngs, **options))


def lpips_nnx(network: str, size: int) -> Built:
    """`lpips-nnx`: VGG-16 without a head, in Flax NNX; the mean of its last map, mixed, makes scores."""
    import lpips_nnx.vgg as package
    from flax import nnx

    zeros = collections.defaultdict(lambda: {"kernel": 0.0, "bias": 0.0})
    package.load_vgg16_weights = lambda: zeros  # it loads its weights in the constructor
    graph, shapes = nnx.split(nnx.eval_shape(lambda: getattr(package, network)(rngs=nnx.Rngs(0))))
    head = jax.ShapeDtypeStruct((512, NUM_CLASSES), jnp.float32)

    def apply(variables, images):
        return nnx.merge(graph, variables[0])(images)[-1].mean((1, 2)) @ variables[1]

    return Built(apply, (nnx.to_pure_dict(shapes), head))


BUILDERS: dict[str, Callable[..., Built]] = {
    "keras": keras_application,
    "k3im": k3im,
    "keras-vision": keras_vision,
    "dm-haiku": haiku_net,
    "jax-resnet": jax_resnet,
    "flaxmodels": flaxmodels,
    "flaim": flaim,
    "jax-models": jax_models,
    "equimo": equimo,
    "eqxvision": eqxvision,
    "jax-image-models": jimm,
    "lpips-nnx": lpips_nnx,
}
