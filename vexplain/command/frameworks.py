"""Networks of the libraries that JAX has, as what a function of the user returns them: as (apply, variables).

A model of Keras or Equinox and a module of NNX are whole in themselves; a module of Linen and a transformed
function of Haiku come with their variables. A library is known by the class of what it made: none is imported
here that the user's own code has not imported.
"""

import dataclasses
import inspect
import sys
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from vexplain.classifiers import functionalize
from vexplain.datasets import Resizing
from vexplain.typing import ApplyFn, Variables

_AT_TEST_TIME = {
    "train": False,
    "training": False,
    "is_training": False,
    "deterministic": True,
    "use_running_average": True,
}


def as_apply(network: Any, variables: Any = None) -> tuple[ApplyFn, Variables, Resizing | None] | None:
    """Returns `apply(variables, images)`, the variables and where it is known the size of a network.

    Args:
        network: a module of NNX, a model of Keras or Equinox; or with its variables a module of Linen or a
            transformed function of Haiku.
        variables: of a network that does not hold them.

    Returns:
        None where the network is of no such library.

    Raises:
        ValueError: a network that cannot be a function of JAX arrays as it is.
    """
    if variables is None:
        if isinstance(network, nnx.Module):
            return (*functionalize(network), None)
        if _is_of(network, "keras", "Model"):
            return _of_keras(network)
        if _is_of(network, "equinox", "Module"):
            return (*_of_equinox(network), None)
        return None
    if isinstance(network, linen.Module):
        return _OfLinen(network), variables, None
    if _is_of(network, "haiku", "TransformedWithState"):
        return _OfHaiku(network, has_state=True), variables, None
    if _is_of(network, "haiku", "Transformed"):
        return _OfHaiku(network, has_state=False), variables, None
    return None


def _is_of(value: Any, library: str, name: str) -> bool:
    return any(c.__name__ == name and c.__module__.split(".")[0] == library for c in type(value).__mro__)


@dataclasses.dataclass(frozen=True)
class _OfLinen:
    """At test time, by the arguments that modules of Linen have for it."""

    module: linen.Module

    def __call__(self, variables: Variables, images: Any) -> Any:
        own = inspect.signature(type(self.module).__call__).parameters
        options: dict[str, Any] = {name: value for name, value in _AT_TEST_TIME.items() if name in own}
        return self.module.apply(variables, images, **options)


@dataclasses.dataclass(frozen=True)
class _OfHaiku:
    transformed: Any
    has_state: bool

    def __call__(self, variables: Variables, images: Any) -> Any:
        if self.has_state:
            return self.transformed.apply(*variables, None, images)[0]
        return self.transformed.apply(variables, None, images)


def _of_keras(model: Any) -> tuple[ApplyFn, Variables, Resizing | None]:
    backend = sys.modules["keras"].backend.backend()
    if backend != "jax":
        raise ValueError(
            f"the model is of Keras with the backend {backend!r}: expected 'jax'; set KERAS_BACKEND=jax"
        )
    shape = getattr(model, "input_shape", None)
    sizes = shape[1:3] if isinstance(shape, tuple) and len(shape) == 4 else (None, None)
    resizing = Resizing(sizes[0]) if sizes[0] == sizes[1] and sizes[0] is not None else None
    parts = (model.trainable_variables, model.non_trainable_variables)
    variables = tuple([jnp.asarray(variable.value) for variable in part] for part in parts)

    def apply(variables: Variables, images: Any) -> Any:
        return model.stateless_call(*variables, images, training=False)[0]

    return apply, variables, resizing


def _of_equinox(model: Any) -> tuple[ApplyFn, Variables]:
    """A model of one image with the channels first, as those of Equinox are."""
    equinox = sys.modules["equinox"]
    variables, static = equinox.partition(equinox.nn.inference_mode(model), equinox.is_array)

    def apply(variables: Variables, images: Any) -> Any:
        return jax.vmap(equinox.combine(variables, static))(images.transpose(0, 3, 1, 2))

    return apply, variables
