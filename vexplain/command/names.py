"""Names that a command line may have, known without what takes seconds to import."""

import ast
import difflib
import functools
import importlib.resources
from collections.abc import Sequence

DEFAULT_METHODS = ("relevant_evidence", "relevant_features")
SCORES = ("logit", "probability", "margin")
AGAINST = "against:"  # and the class that a score is held against


def method_names() -> tuple[str, ...]:
    """Returns the names of the methods of the catalog, read from its source: to import it takes seconds.

    Example:
        >>> method_names()[:2]
        ('relevant_features', 'resampled_relevant_features')
    """
    return tuple(_needs_by_name())


def customary_names() -> tuple[str, ...]:
    """Returns the names of the methods that are scored where none is named, see `Catalog.customary`.

    Example:
        >>> "grad_cam" in customary_names(), "rise" in customary_names()
        (True, False)
    """
    left_out = {"attention", "many passes"}
    return tuple(name for name, needs in _needs_by_name().items() if not left_out & set(needs))


@functools.lru_cache(maxsize=1)
def _needs_by_name() -> dict[str, tuple[str, ...]]:
    source = importlib.resources.files("vexplain").joinpath("catalog.py").read_text("utf-8")
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    rows = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "Method" and c.args]
    rows.sort(key=lambda row: row.lineno)
    return {
        row.args[0].attr: ast.literal_eval(row.args[6]) if len(row.args) > 6 else ()
        for row in rows
        if isinstance(row.args[0], ast.Attribute)
    }


def check_methods(names: Sequence[str]) -> None:
    """Raises ValueError unless the names are one or more of the catalog, each once."""
    if not names:
        raise ValueError("--method has no name behind it: expected one or more; vexplain methods lists them")
    for name in names:
        if name not in method_names():
            near = difflib.get_close_matches(name, method_names(), 2)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            raise ValueError(f"--method is {name!r}: {meant}vexplain methods lists all of them")
        if names.count(name) > 1:
            raise ValueError(f"--method has {name!r} more than once")


def check_score(name: str) -> None:
    """Raises ValueError for a score of another form than one that is known."""
    if name not in SCORES and ":" not in name.strip(":"):
        raise ValueError(
            f"--score is {name!r}: expected one of {', '.join(SCORES)}, against:CLASS, or "
            "package.module:function"
        )
