"""What is made once for a network and kept: compiled programs, under names that tell networks apart."""

import collections
import functools
import types
from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np

Store = collections.OrderedDict[Hashable, Any]

_MOST_KEPT = 128  # in each store; with a program goes its network


def kept(store: Store, name: Hashable, make: Callable[[], Any]) -> Any:
    """Returns what was made under a name, or is made now; of many things the oldest are forgotten.

    Args:
        store: where it is kept.
        name: made of what `identity` and `avals` return.
        make: called where there is nothing of this name.
    """
    found = store.pop(name) if name in store else make()
    store[name] = found
    while len(store) > _MOST_KEPT:
        store.popitem(last=False)
    return found


def identity(value: Any) -> Hashable:
    """Returns what tells a static value from others: itself where it has a hash by value, else the object
    and its attributes.

    A network of a class of its own may have no hash, and may be changed: an attribute that is set anew makes
    it another network. What is changed in place is not seen, as everywhere in JAX. What is returned holds
    the objects, so that no later one can be taken for them.

    Args:
        value: a function, an object, or anything that may be an option.

    Example:
        >>> identity(functools.partial(max, 1)) == identity(functools.partial(max, 1))
        True
        >>> identity([np.ones(2)]) == identity([np.ones(2)])
        False
    """
    if isinstance(value, types.MethodType):
        return (value.__func__, identity(value.__self__))
    if isinstance(value, functools.partial):
        named = sorted(value.keywords.items())
        return (identity(value.func), *map(identity, value.args), *((k, identity(v)) for k, v in named))
    if isinstance(value, tuple | list):
        return (type(value), *map(identity, value))
    try:
        hash(value)
    except TypeError:
        has_value = False
    else:
        has_value = isinstance(value, types.FunctionType) or type(value).__hash__ is not object.__hash__
    if has_value:
        return (type(value), value)
    return (_Itself(value), *((k, _Itself(v)) for k, v in getattr(value, "__dict__", {}).items()))


def avals(tree: Any, first_axis: int = 0) -> tuple[Hashable, ...]:
    """Structure, shapes and types of a tree of arrays."""
    leaves, treedef = jax.tree.flatten(tree)
    shapes = ((np.shape(leaf)[first_axis:], getattr(leaf, "dtype", type(leaf))) for leaf in leaves)
    return (treedef, jax.dtypes.canonicalize_dtype(np.float64), *shapes)


class _Itself:
    """Equal where it is of the same object, which lives as long: an address alone may be given to another."""

    def __init__(self, value: Any):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value
