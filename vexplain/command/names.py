"""Names that a command line may have, known without what takes seconds to import."""

import ast
import difflib
import functools
import importlib.resources
from collections.abc import Sequence

DEFAULT_METHODS = ("relevant_evidence", "relevant_features")
SCORES = ("logit", "probability", "margin")
AGAINST = "against:"  # and the class that a score is held against


@functools.lru_cache(maxsize=1)
def method_names() -> tuple[str, ...]:
    """Returns the names of the methods of the catalog, read from its source: to import it takes seconds.

    Example:
        >>> method_names()[:2]
        ('relevant_features', 'relevant_evidence')
    """
    source = importlib.resources.files("vexplain").joinpath("catalog.py").read_text("utf-8")
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    rows = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "Method" and c.args]
    rows.sort(key=lambda row: row.lineno)
    return tuple(row.args[0].attr for row in rows if isinstance(row.args[0], ast.Attribute))


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
