"""Shows defaults in signatures as a user writes them: `score=logit`, `rules=GUIDED | RESAMPLED_STRIDE`.

Sphinx reads them from the source of a function, which the signature of a method is not in: it is made for it.
"""

import inspect
from typing import Any

from vexplain.transforms import Rule, Rules


class _Text(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def shown(default: Any) -> Any:
    """Returns a default whose `repr` is the text to show.

    Example:
        >>> shown(len), shown(0.5)
        (len, 0.5)
    """
    if isinstance(default, Rule):
        return _Text(default.name)
    if isinstance(default, Rules):
        return _Text(" | ".join(rule.name for rule in default.rules))
    is_named = callable(default) and "<" not in getattr(default, "__name__", "<")
    return _Text(default.__name__) if is_named else default


def _shorten(app: Any, function: Any, bound_method: bool) -> None:
    if not inspect.isfunction(function):
        return
    signature = inspect.signature(function)
    parameters = [
        p if p.default is p.empty else p.replace(default=shown(p.default))
        for p in signature.parameters.values()
    ]
    function.__signature__ = signature.replace(parameters=parameters)


def setup(app: Any) -> dict[str, bool]:
    """Registers the extension with Sphinx."""
    app.connect("autodoc-before-process-signature", _shorten)
    return {"parallel_read_safe": True}
