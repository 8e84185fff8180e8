"""What a traced function is, as a short text: the same for the same program with the same constants."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.core import Tracer
from jax.extend import core

from vexplain.transforms.program import trace

_ADDRESS = re.compile(r"0x[0-9a-f]+")  # of functions, which differ from run to run


def program_fingerprint(fn: Callable[..., Any], args: Sequence[Any]) -> str:
    """Returns hexadecimal digits that tell the program of `fn(*args)` and all of its constants from others.

    Arrays that a function holds (in a closure, in its module) are constants of its program.

    Args:
        fn: any traceable function of (variables, images, ...).
        args: arrays or `jax.ShapeDtypeStruct`s; only their shapes count.

    Example:
        >>> import jax.numpy as jnp
        >>> ones, twos, image = jnp.ones(3), 2 * jnp.ones(3), jnp.zeros((1, 2, 2, 3))
        >>> first, again, other = (
        ...     program_fingerprint(lambda v, x, w=w: x @ w, (None, image)) for w in (ones, ones, twos)
        ... )
        >>> first == again, first == other
        (True, False)
    """
    program = trace(fn, args).jaxpr
    found = hashlib.sha256(_ADDRESS.sub("", str(program)).encode())
    for constant in _constants(program):
        if not isinstance(constant, Tracer):
            array = np.ascontiguousarray(constant)
            found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def _constants(program: core.ClosedJaxpr) -> Iterator[Any]:
    yield from program.consts
    for eqn in program.jaxpr.eqns:
        for param in eqn.params.values():
            for part in param if isinstance(param, (tuple, list)) else (param,):
                if isinstance(part, core.ClosedJaxpr):
                    yield from _constants(part)
                elif isinstance(part, core.Jaxpr):
                    yield from _constants(core.ClosedJaxpr(part, ()))
