"""The network of a command line: a published one, or one that a function of the user makes."""

import dataclasses
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vexplain import classifiers
from vexplain.command.frameworks import as_apply
from vexplain.command.inputs import function_of
from vexplain.datasets import Resizing
from vexplain.typing import ApplyFn, Variables

_RETURNS = (
    "an NNX module, a Keras or Equinox model, or a pair: (Linen module, variables), (transformed "
    "Haiku function, variables) or (apply, variables) with apply(variables, images) -> logits"
)


class Model(NamedTuple):
    """A network, its name in the command line, and the size of its input and output."""

    name: str
    apply: ApplyFn
    variables: Variables  # shapes only, of a published network without weights
    resizing: Resizing
    num_classes: int


def load_model(name: str, weights: Path | None = None, size: int | None = None) -> Model:
    """Returns the network that a name stands for; a published one without weights has shapes only.

    Names are those of `vexplain.classifiers.NAMES`, or `package.module:function`. The size of the images, in
    pixels, is needed where the network does not come with a `Resizing`.

    Raises:
        ValueError: no such function, something else returned than it should, no size where it is needed, or a
            network that does not run on images of this size.
        FileNotFoundError: there is no such file of weights.
        ModuleNotFoundError: the module cannot be imported.
    """
    make = _of_function if ":" in name else _published
    apply, variables, resizing = make(name, weights)
    if size is not None:
        resizing = Resizing(size)
    if resizing is None:
        raise ValueError(f"--size is missing: {name} does not say how large its images are; pass --size N")
    if _runs(apply, variables, resizing.size, 1) and not _runs(apply, variables, resizing.size, 3):
        apply = _OfGray(apply)
    num_classes = _num_classes(name, apply, variables, resizing.size)
    if num_classes == 1:
        apply, num_classes = _OfTwo(apply), 2
    return Model(name, apply, variables, resizing, num_classes)


@dataclasses.dataclass(frozen=True)
class _OfGray:
    """A network of gray images, for color ones: their luma (ITU-R BT.601), which of gray ones is the gray."""

    apply: ApplyFn

    def __call__(self, variables: Variables, images: Any) -> Any:
        weights = jnp.array([0.299, 0.587, 0.114], images.dtype)
        return self.apply(variables, (images * weights).sum(-1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class _OfTwo:
    """A network with one score, of which the sigmoid is a probability, as one of two classes: no and yes.

    Each gets half of the score, with its sign, so that both have something to explain.
    """

    apply: ApplyFn

    def __call__(self, variables: Variables, images: Any) -> Any:
        score = self.apply(variables, images).reshape(len(images), 1) / 2
        return jnp.concatenate([-score, score], axis=1)


def _runs(apply: ApplyFn, variables: Variables, size: int, channels: int) -> bool:
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    try:
        jax.eval_shape(apply, variables, images)
    except Exception:  # the user's own code
        return False
    return True


def _published(name: str, weights: Path | None) -> Any:
    if weights is not None:
        return classifiers.pretrained(name, weights)
    kept = []

    def build():
        kept.append(classifiers.build(name))
        return kept[0].variables

    shapes = jax.eval_shape(build)  # drawing the weights takes long, and the layers do not need them
    return kept[0]._replace(variables=shapes)


def _of_function(name: str, weights: Path | None) -> tuple[ApplyFn, Variables, Resizing | None]:
    function, path = function_of("--model", name), None if weights is None else str(weights)
    try:
        made = function(path)
    except Exception as error:  # the user's own code: what it says, and where
        place = traceback.extract_tb(error.__traceback__)[-1]
        left_out = "" if weights else " (--weights was left out)"
        raise ValueError(
            f"--model {name} failed when it was called with weights={path!r}{left_out}: "
            f"{type(error).__name__}: {error} ({place.filename}, line {place.lineno}); it takes one "
            f"argument, the path of the weights or None, and returns {_RETURNS}"
        ) from error
    parts = made if _is_several(made) else (made,)
    resizing = parts[-1] if isinstance(parts[-1], Resizing) else None
    parts = parts[:-1] if resizing is not None else parts
    known = as_apply(*parts) if len(parts) in (1, 2) else None
    if known is not None:
        return (*known[:2], resizing or known[2])
    if len(parts) == 2 and callable(parts[0]):
        return (*parts, resizing)
    raise ValueError(f"--model {name} returned a {_described(made)}: expected {_RETURNS}")


def _is_several(made: Any) -> bool:
    """Is it a tuple with something in it, and not a function that Haiku transformed, which is a tuple too?"""
    return isinstance(made, tuple) and len(made) > 0 and not hasattr(made, "init")


def _described(value: Any) -> str:
    if _is_several(value):
        return f"tuple of {len(value)} ({', '.join(type(part).__name__ for part in value)})"
    return type(value).__name__


def _num_classes(name: str, apply: ApplyFn, variables: Variables, size: int) -> int:
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    try:
        logits = jax.eval_shape(apply, variables, images)
    except Exception as error:  # the user's own code
        raise ValueError(
            f"--model {name} does not run on images of {size} × {size} × 3 or × 1: {error}; another --size?"
        ) from error
    shape = getattr(logits, "shape", None)
    if shape == (2,):
        return 1
    if shape is None or len(shape) != 2 or shape[0] != 2:
        raise ValueError(
            f"--model {name} gave {_described(logits) if shape is None else shape} for 2 images: expected "
            "logits of shape (2, number of classes)"
        )
    return shape[1]
