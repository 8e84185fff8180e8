"""What the pages of the methods say of each method, taken from the catalog `vexplain.METHODS`."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

_ARGUMENTS = {"key": "key=jax.random.key(0)", "relevance": "relevance=relevance"}  # for what a method needs
_NEEDS = {  # in words, with what is taken where it is left out
    "layer": "a layer, `layer=`; the customary one if left out",
    "relevance": "relevant features, `relevance=`, from `vx.learn_relevance`",
    "key": "a random key, `key=`",
    "baseline": "a baseline, `baseline=`; 0, a black image, if left out",
    "attention": "attention of all tokens to all, as a Vision Transformer has it",
    "many passes": "hundreds of passes through the network",
    "ReLUs": 'ReLUs, or `on_uncovered="gradient"`',
}
_SIGNS = {
    "signed": "signed attributions, (batch, height, width, channels)",
    "positive": "heatmaps, (batch, height, width)",
}
_SHARED = ("score", "key")  # the keywords of all methods


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
    """Raises ValueError unless the page of a method has its title as heading, with a capital letter.

    Args:
        method: of the catalog.
        text: of its page.
    """
    heading, expected = text.lstrip().partition("\n")[0], f"# {method.title[0].upper()}{method.title[1:]}"
    if heading != expected:
        raise ValueError(f"docs/methods/{method.name}.md begins with {heading!r}: expected {expected!r}")


def call_of(method: Any, *, has_name: bool) -> str:
    """Returns the shortest call of a method, by its name in `vexplain` if it has one there.

    Args:
        method: of the catalog.
        has_name: whether `vexplain` has it as an attribute.
    """
    given = ["apply", "variables", "images", *(_ARGUMENTS[n] for n in method.needs if n in _ARGUMENTS)]
    if has_name:
        return f"maps = vx.{method.name}({', '.join(given)})"
    return f'maps = vx.attribute("{method.name}", {", ".join(given)})'


def signature_of(function: Any) -> str:
    """Returns the signature of a function without types, its own options on lines of their own.

    Args:
        function: of the catalog.

    Example:
        >>> print(signature_of(check_pages))
        check_pages(methods, pages)
    """
    parameters = list(inspect.signature(function).parameters.values())
    options = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    first = ", ".join(map(_written, parameters[: len(parameters) - len(options)]))
    if not options:
        return f"{function.__name__}({first})"
    shared = [p for p in options if p.name in _SHARED]
    own = [p for p in options if p.name not in _SHARED]
    second = ", ".join(["*", *map(_written, shared)])
    lines = [first, second, *map(_written, own)]
    return f"{function.__name__}(\n" + "".join(f"    {line},\n" for line in lines) + ")"


def _written(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return parameter.name
    if hasattr(value, "rules"):  # backward rules, joined
        shown = " | ".join(rule.name for rule in value.rules)
    else:
        shown = getattr(value, "__name__", None) or getattr(value, "name", None) or repr(value)
    return f"{parameter.name}={shown}"


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
    needs = "; ".join(_NEEDS.get(need, need) for need in method.needs)
    is_blind = method.kind == "control"
    return {
        "kind": method.kind,
        "returns": _SIGNS.get(method.sign, method.sign),
        "passes": "none" if is_blind else f"{method.passes}, with f forward and b backward",
        "needs": needs or ("the images" if is_blind else "the network and the images"),
        "reference": method.reference,
        "function": f"{{py:obj}}`{entry_of(method)}`",
    }


def by_kind(methods: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns the methods of each kind, in the order of the catalog.

    Args:
        methods: the catalog.
    """
    found: dict[str, list[Any]] = {}
    for method in methods.values():
        found.setdefault(method.kind, []).append(method)
    return found
