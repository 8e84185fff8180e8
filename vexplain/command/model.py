"""The network that a command line names: published, or made by a function of the user's own."""

import importlib
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain import classifiers
from vexplain.classifiers import functionalize
from vexplain.datasets import Resizing
from vexplain.typing import ApplyFn, Variables

_RETURNS = (
    "an NNX module, or (apply, variables) with apply(variables, images) -> logits, or (apply, variables, "
    "resizing)"
)


class Model(NamedTuple):
    """A network as the steps take it.

    Attributes:
        name: as the command line has it.
        apply: `apply(variables, images) -> logits`, images in [0, 1].
        variables: its weights; shapes only, where the layers are all that is asked for.
        resizing: what images go through first.
        num_classes: of the scores.
    """

    name: str
    apply: ApplyFn
    variables: Variables
    resizing: Resizing
    num_classes: int


def load_model(
    name: str, weights: Path | None = None, size: int | None = None, *, needs_weights: bool = True
) -> Model:
    """Returns the network that a name stands for.

    Args:
        name: one of `vexplain.classifiers.NAMES`, or `package.module:function`. The module is also looked for
            in the current folder.
        weights: the file of weights.
        size: of the images, in pixels; needed where the network does not come with a `Resizing`.
        needs_weights: a published network without its weights is refused.

    Raises:
        ValueError: a name of neither form, no such function, something else returned than it should, no
            weights or size where they are needed, or a network that does not run on images of this size.
        FileNotFoundError: there is no such file of weights.
        ModuleNotFoundError: the module cannot be imported.
    """
    if weights is not None and not weights.exists():
        raise FileNotFoundError(f"--weights is {str(weights)!r}: there is no such file")
    if name in classifiers.NAMES:
        apply, variables, resizing = _published(name, weights, needs_weights)
    elif ":" in name:
        apply, variables, resizing = _of_function(name, weights)
    else:
        raise ValueError(
            f"--model is {name!r}: expected one of {', '.join(classifiers.NAMES)}, or package.module:function"
        )
    if size is not None:
        resizing = Resizing(size)
    if resizing is None:
        raise ValueError(f"--size is missing: {name} does not say how large its images are; pass --size N")
    return Model(name, apply, variables, resizing, _num_classes(name, apply, variables, resizing.size))


def _published(name: str, weights: Path | None, needs_weights: bool) -> Any:
    if weights is not None:
        return classifiers.pretrained(name, weights)
    if needs_weights:
        raise ValueError(
            f"--weights is missing: {name} has random weights without it, and nothing to explain; pass a "
            ".safetensors file of torchvision or timm, or a .mat file of MatConvNet"
        )
    kept = []

    def build():
        kept.append(classifiers.build(name))
        return kept[0].variables

    shapes = jax.eval_shape(build)  # drawing the weights takes long, and the layers do not need them
    return kept[0]._replace(variables=shapes)


def _of_function(name: str, weights: Path | None) -> tuple[ApplyFn, Variables, Resizing | None]:
    made = _called(name, _function(name), weights)
    if isinstance(made, nnx.Module):
        return (*functionalize(made), None)
    if isinstance(made, tuple) and len(made) in (2, 3) and callable(made[0]):
        apply, variables, *rest = made
        resizing = rest[0] if rest else None
        if resizing is None or isinstance(resizing, Resizing):
            return apply, variables, resizing
    raise ValueError(f"--model {name} returned a {_described(made)}: expected {_RETURNS}")


def _function(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # something that the module itself wants
        raise ModuleNotFoundError(
            f"--model {name}: there is no module {module!r}, neither installed nor in {Path.cwd()}; write "
            "package.module:function, without .py"
        ) from error
    function = getattr(found, attribute, None)
    if not callable(function):
        public = [key for key, value in vars(found).items() if callable(value) and key[0] != "_"]
        raise ValueError(
            f"--model {name}: module {module!r} has no function {attribute!r}; it has: "
            f"{', '.join(public[:12]) or 'none'}"
        )
    return function


def _called(name: str, function: Any, weights: Path | None) -> Any:
    try:
        return function(None if weights is None else str(weights))
    except TypeError as error:
        raise ValueError(
            f"--model {name} failed when it was called with {None if weights is None else str(weights)!r}: "
            f"{error}; it takes one argument, the path of the weights or None, and returns {_RETURNS}"
        ) from error


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return f"tuple of {len(value)} ({', '.join(type(part).__name__ for part in value)})"
    return type(value).__name__


def _num_classes(name: str, apply: ApplyFn, variables: Variables, size: int) -> int:
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    try:
        logits = jax.eval_shape(apply, variables, images)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(
            f"--model {name} does not run on images of {size} × {size} × 3: {error}; another --size?"
        ) from error
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 2:
        raise ValueError(
            f"--model {name} gave {_described(logits) if shape is None else shape} for 2 images: expected "
            "logits of shape (2, number of classes)"
        )
    return shape[1]
