"""Guided ReLUs put in by hand: what guided backpropagation of a foreign network is compared with.

`install` replaces `jax.nn.relu` and `jax.nn.relu6` by functions that ask, whenever they are traced, whether
the reference is wanted. It has to run before the packages are imported: many keep the function under a name
of their own.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

_PLAIN = {"relu": jax.nn.relu, "relu6": jax.nn.relu6}
_TOPS = {"relu": jnp.inf, "relu6": 6.0}
_calls: list[str] = []
_guided = False


def install(put: Callable[..., Any] = setattr) -> None:
    """Puts the functions in the place of JAX's, by `setattr` or by pytest's `monkeypatch.setattr`."""
    for name in _PLAIN:
        put(jax.nn, name, _switched(name))


@contextlib.contextmanager
def guided_by_hand() -> Iterator[list[str]]:
    """Traces in this context have guided ReLUs; yields the list of those that were traced."""
    global _guided
    _calls.clear()
    _guided = True
    try:
        yield _calls
    finally:
        _guided = False


def _switched(name: str) -> Any:
    def activation(x):
        if not _guided:
            return _PLAIN[name](x)
        _calls.append(name)
        return _guided_activation(x, _TOPS[name])

    activation.__name__ = name
    return activation


def _guided_activation(x: jax.Array, top: float) -> jax.Array:
    """min(max(x, 0), top), which sends back g · [0 < x < top] · [g > 0]."""

    @jax.custom_vjp
    def clipped(x):
        return jnp.clip(x, 0, top).astype(x.dtype)

    def backward(x, g):
        return (jnp.where((x > 0) & (x < top) & (g > 0), g, 0),)

    clipped.defvjp(lambda x: (clipped(x), x), backward)
    return clipped(x)
