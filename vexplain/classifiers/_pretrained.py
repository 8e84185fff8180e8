"""The published networks by name, with weights from a file and their preprocessing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from vexplain.classifiers._functionalize import functionalize
from vexplain.classifiers.alexnet import VGGF, AlexNet
from vexplain.classifiers.convnext import ConvNeXt
from vexplain.classifiers.layers import IMAGENET_MEAN, IMAGENET_STD
from vexplain.classifiers.names import NAMES
from vexplain.classifiers.resnet import ResNet
from vexplain.classifiers.vgg import VGG
from vexplain.classifiers.vit import VisionTransformer
from vexplain.classifiers.weights import best_dialect, place_weights, read_weights
from vexplain.datasets import Resizing
from vexplain.typing import ApplyFn, Variables

_NETWORKS: dict[str, Callable[..., nnx.Module]] = {
    "alexnet": AlexNet,
    "vgg_f": VGGF,
    "vgg16": lambda *args, **options: VGG((2, 2, 3, 3, 3), *args, **options),
    "vgg19": lambda *args, **options: VGG((2, 2, 4, 4, 4), *args, **options),
    "resnet18": lambda *args, **options: ResNet((2, 2, 2, 2), *args, uses_bottlenecks=False, **options),
    "resnet50": lambda *args, **options: ResNet((3, 4, 6, 3), *args, **options),
    "convnext_tiny": lambda *args, **options: ConvNeXt((3, 3, 9, 3), *args, **options),
    "vit_b_16": VisionTransformer,
}

_HALF = (0.5, 0.5, 0.5)
# Resizing, mean and standard deviation of the default weights of each framework.
_PREPROCESSING = {
    ("convnext_tiny", "torchvision"): (Resizing(224, 236), IMAGENET_MEAN, IMAGENET_STD),
    ("convnext_tiny", "timm"): (Resizing(224, 235, "bicubic"), IMAGENET_MEAN, IMAGENET_STD),
    ("resnet50", "torchvision"): (Resizing(224, 232), IMAGENET_MEAN, IMAGENET_STD),
    ("vit_b_16", "timm"): (Resizing(224, 248, "bicubic"), _HALF, _HALF),
    ("vgg_f", "matconvnet"): (Resizing(224, 256, "bicubic"), None, None),
}
_USUAL = (Resizing(224, 256), IMAGENET_MEAN, IMAGENET_STD)


class Pretrained(NamedTuple):
    """A network with weights.

    Attributes:
        apply: `apply(variables, images) -> logits`, images in [0, 1]; mean and scale are inside.
        variables: its weights.
        resizing: of image files, for `image_folder` and `from_tfds`.
    """

    apply: ApplyFn
    variables: Variables
    resizing: Resizing


def build(name: str, *, num_classes: int = 1000, seed: int = 0, **options: Any) -> Pretrained:
    """Returns a published network with random weights.

    Args:
        name: one of `NAMES`.
        num_classes: of the scores.
        seed: of the weights.
        **options: of the network's class, for instance `width` of `ResNet`.

    Raises:
        ValueError: there is no such network.

    Example:
        >>> apply, variables, resizing = build("resnet18", num_classes=10, width=4)
        >>> jax.eval_shape(apply, variables, np.zeros((2, 32, 32, 3), np.float32)).shape
        (2, 10)
    """
    module = _network(name)(num_classes, rngs=nnx.Rngs(seed), **options)
    return Pretrained(*functionalize(module), _preprocessing(name, "torchvision")[0])


def pretrained(
    name: str, weights: str | Path, *, num_classes: int | None = None, seed: int = 0, **options: Any
) -> Pretrained:
    """Returns a published network with the weights of a file.

    The number of classes is that of the file. Mean, standard deviation and resizing are those of the default
    weights of the framework that the names in the file are of; weights of another training recipe may need
    others: `mean` and `std` are options, and the resizing is a field of what is returned.

    Args:
        name: one of `NAMES`.
        weights: a `.safetensors` file with names of torchvision or timm, or MatConvNet's `.mat`.
        num_classes: another number than the file's initializes the layer of the scores anew, for fine-tuning.
        seed: of a layer that is initialized anew.
        **options: of the network's class, for instance `mean` and `std`, or `image_size` of a transformer.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: there is no such network, the file is a pickle or broken, or it does not fit: all names
            and shapes that do not are listed.
        ModuleNotFoundError: the library that reads the file is not installed.
    """
    make = _network(name)
    arrays = read_weights(weights)
    unfilled = _abstract(make, 1, options)
    dialect = best_dialect(unfilled, arrays)
    resizing, mean, std = _preprocessing(name, dialect)
    given = {"mean": mean, "std": std} if mean is not None else {}
    given |= {"normalization": param} if (param := _normalization(name, arrays)) else {}
    if dialect == "matconvnet" and name != "vgg_f":
        average = arrays.get("average_image")
        mean = tuple(average.reshape(-1, 3).mean(0) / 255) if average is not None else IMAGENET_MEAN
        given |= {"mean": tuple(map(float, mean)), "std": (1 / 255,) * 3}
    given |= options
    names = getattr(unfilled, f"{dialect}_names")()
    scores = names["fc"] if "fc" in names else names["fc8"]
    known = len(arrays.get(f"{scores}.bias", range(1000)))
    if num_classes is not None and num_classes != known:
        arrays = _with_new_scores(arrays, scores, num_classes, seed)
    module = _abstract(make, num_classes or known, given)
    variables = place_weights(module, arrays, dialect, source=str(weights))
    apply, _ = functionalize(module)
    return Pretrained(apply, jax.tree.map(_concrete, variables), resizing)


def _network(name: str) -> Callable[..., nnx.Module]:
    if name not in _NETWORKS:
        raise ValueError(f"name is {name!r}: expected one of {', '.join(NAMES)}")
    return _NETWORKS[name]


def _preprocessing(name: str, dialect: str) -> tuple[Resizing, Any, Any]:
    return _PREPROCESSING.get((name, dialect), _USUAL)


def _abstract(make: Callable[..., nnx.Module], num_classes: int, options: Any) -> Any:
    """The module with abstract weights, as drawing them takes seconds."""
    return nnx.eval_shape(lambda: make(num_classes, rngs=_SameKey(0), **options))


class _SameKey(nnx.Rngs):
    """One key for all parameters: only shapes are wanted, and tracing new keys takes most of the time."""

    def params(self) -> jax.Array:
        return self["default"].key[...]


def _with_new_scores(arrays: Any, scores: str, num_classes: int, seed: int) -> dict[str, Any]:
    """The arrays with random weights of another number of classes, of the scale of the old ones."""
    old = np.asarray(arrays[f"{scores}.weight"])
    axis = old.shape.index(len(arrays[f"{scores}.bias"]))  # the first axis in PyTorch, the last in MatConvNet
    shape = (*old.shape[:axis], num_classes, *old.shape[axis + 1 :])
    new = np.random.default_rng(seed).normal(0, old.std(), shape).astype(np.float32)
    return {**arrays, f"{scores}.weight": new, f"{scores}.bias": np.zeros(num_classes, np.float32)}


def _normalization(name: str, arrays: Any) -> tuple[int, float, float, float] | None:
    found = {tuple(map(float, a)) for key, a in arrays.items() if key.endswith(".param")}
    if name != "vgg_f" or not found:
        return None
    if len(found) > 1:
        raise ValueError(
            f"the file's normalizations differ, {sorted(found)}: this network has one for all of them"
        )
    size, kappa, alpha, beta = found.pop()
    return int(size), kappa, alpha, beta


def _concrete(leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):  # VGG-F's mean, which a file may leave out
        leaf = np.broadcast_to(np.asarray(IMAGENET_MEAN, leaf.dtype), leaf.shape)
    return jax.device_put(leaf)  # jnp.asarray compiles a program for each shape
