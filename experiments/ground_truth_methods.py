"""The methods of the ground-truth benchmark: those of the catalog, and with poolings resampled (*ours*)."""

import functools

from vexplain.catalog import METHODS, MethodFn
from vexplain.transforms import RESAMPLED_POOL

RESAMPLED = ", resampled pooling"  # behind the name of a method


def methods_named(names: tuple[str, ...] | None) -> dict[str, MethodFn]:
    """Returns the methods of the catalog by name; with `RESAMPLED` behind it, with RESAMPLED_POOL too.

    Args:
        names: of methods. If left out, all of the catalog but those that need attention, and those that have
            backward rules in both ways.

    Raises:
        KeyError: there is no method of a name.
        ValueError: a method without rules is to have one more.

    Example:
        >>> list(methods_named(("gradient", "deconvnet, resampled pooling")))
        ['gradient', 'deconvnet, resampled pooling']
    """
    if names is None:
        guided = (name for name, m in METHODS.items() if m.rules and f"resampled_{name}" not in METHODS)
        names = (*METHODS.without("attention"), *(f"{name}{RESAMPLED}" for name in guided))
    found = {}
    for name in names:
        method = METHODS[name.removesuffix(RESAMPLED)]
        if name.endswith(RESAMPLED):
            if method.rules is None:
                raise ValueError(f"methods: {name!r}, but {method.name} has no backward rules")
            found[name] = functools.partial(method.function, rules=method.rules | RESAMPLED_POOL)
        else:
            found[name] = method.function
    return found
