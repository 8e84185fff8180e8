"""Metrics as functions that are compiled once for a network, a method and the options, and then only run."""

import collections
import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from vexplain._checks import check_image_form
from vexplain._keeping import Store, identity, kept
from vexplain.evaluation._regions import count_regions

_PROGRAMS: Store = collections.OrderedDict()
_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled_metric(function: _Function) -> _Function:
    """Returns a metric that is compiled as a whole where its arguments are concrete.

    Arrays among the arguments, and in pytrees of them, are arguments of the program; all else (functions, the
    options) tells programs apart. Within a trace of the caller the function is called as it is.

    Args:
        function: of `images` and what else it needs, pure.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        leaves, treedef = jax.tree.flatten(given)
        check_image_form(given["images"])
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return function(**given)
        if isinstance(given.get("regions", 1), np.ndarray | jax.Array):
            given = given | {"num_regions": count_regions(given["regions"], given.get("num_regions"))}
            leaves, treedef = jax.tree.flatten(given)
        arrays = [leaf if isinstance(leaf, np.ndarray | jax.Array) else None for leaf in leaves]
        statics = [None if a is not None else leaf for a, leaf in zip(arrays, leaves, strict=True)]

        def make() -> Callable[[Any], Any]:
            def program(arrays: Any) -> Any:
                merged = [s if a is None else a for s, a in zip(statics, arrays, strict=True)]
                return function(**jax.tree.unflatten(treedef, merged))

            return jax.jit(program)

        name = (identity(function), identity(treedef), *map(identity, statics))
        return kept(_PROGRAMS, name, make)(arrays)

    return called  # type: ignore[return-value]
