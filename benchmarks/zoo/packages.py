"""Makes the networks of each package by the name that they have there, for images of a size.

Nothing of theirs is changed, but for what a package of some years ago asks of JAX and no longer finds; each
such place says so.
"""

import collections
import functools
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.zoo.builders import (
    NUM_CLASSES,
    Built,
    equinox_module,
    haiku_module,
    keras_model,
    linen,
    nnx_module,
)


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
    names: Any = jax.random
    names.KeyArray = jax.Array  # the name of 2023 for the type, in its annotations
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


def eqxvision(network: str, size: int, is_eager: bool = False) -> Built:
    """`eqxvision` in Equinox; `is_eager` for a network whose constructor computes its widths in JAX."""
    _put_back_equinox_experimental()
    import eqxvision.models as package

    def make():
        with jax.ensure_compile_time_eval() if is_eager else _numbers_at_tracing():
            return getattr(package, network)(num_classes=NUM_CLASSES)

    return equinox_module(make)


def _put_back_equinox_experimental() -> None:
    """Batch normalization at test time, where `eqxvision` of 2023 asks for what Equinox no longer has."""
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

    package: Any = eqx
    module: Any = types.ModuleType("equinox.experimental")
    module.BatchNorm = BatchNorm
    package.experimental = sys.modules["equinox.experimental"] = module


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
