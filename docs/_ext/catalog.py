"""What the pages of the methods say of each method, taken from the catalog `vexplain.METHODS`."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

_ARGUMENTS = {"key": "key=jax.random.key(0)", "relevance": "relevance=relevance"}  # for what a method needs


def check_pages(methods: Iterable[str], pages: Iterable[str]) -> None:
    """Raises ValueError unless each method has a page and each page is of a method.

    Args:
        methods: names in the catalog.
        pages: names of the files, without folder and ending.

    Example:
        >>> check_pages(["grad_cam", "lime"], ["grad_cam", "kernel_shap"])
        Traceback (most recent call last):
        ValueError: methods without a page in docs/methods: lime; pages without a method: kernel_shap
    """
    methods, pages = set(methods), set(pages)
    faults = []
    if methods - pages:
        faults.append(f"methods without a page in docs/methods: {', '.join(sorted(methods - pages))}")
    if pages - methods:
        faults.append(f"pages without a method: {', '.join(sorted(pages - methods))}")
    if faults:
        raise ValueError("; ".join(faults))


def check_title(method: Any, text: str) -> None:
    """Raises ValueError unless the page of a method has its title as heading.

    Args:
        method: of the catalog.
        text: of its page.
    """
    heading = text.lstrip().partition("\n")[0]
    if heading != f"# {method.title}":
        raise ValueError(
            f"docs/methods/{method.name}.md begins with {heading!r}: expected '# {method.title}'"
        )


def call_of(method: Any) -> str:
    """Returns the shortest call of a method.

    Args:
        method: of the catalog.
    """
    needed = [_ARGUMENTS[need] for need in method.needs if need in _ARGUMENTS]
    return f"vx.attribute({', '.join([repr(method.name), 'apply, variables, images', *needed])})".replace(
        "'", '"'
    )


def signature_of(function: Any) -> str:
    """Returns the signature of a function without types, one line for what all methods share.

    Args:
        function: of the catalog.
    """
    parameters = list(inspect.signature(function).parameters.values())
    shown = [
        p.name if p.default is p.empty else f"{p.name}={getattr(p.default, '__name__', repr(p.default))}"
        for p in parameters
    ]
    keywords = [n for n, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY]
    if keywords:
        shown.insert(keywords[0], "*")
    return f"{function.__name__}({', '.join(shown)})"


def entry_of(method: Any) -> str:
    """Returns the full name of the function in the reference of the API.

    Args:
        method: of the catalog.
    """
    package, room = method.function.__module__.split(".")[:2]
    return f"{package}.{room}.{method.function.__name__}"


def facts(method: Any) -> dict[str, str]:
    """Returns what the table at the top of a page says, as Markdown by name of the row.

    Args:
        method: of the catalog.
    """
    needs = [str(need) for need in method.needs]
    return {
        "kind": str(method.kind),
        "returns": str(method.sign),
        "passes": str(method.passes),
        "needs": ", ".join(needs) or "nothing but the network and the images",
        "reference": str(method.reference or "none"),
        "function": f"{{py:obj}}`{entry_of(method)}`",
    }


def by_kind(methods: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns the methods of each kind, in the order of the catalog.

    Args:
        methods: the catalog.
    """
    found: dict[str, list[Any]] = {}
    for method in methods.values():
        found.setdefault(str(method.kind), []).append(method)
    return found
