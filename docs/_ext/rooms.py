"""The directive `room`: a package's docstring, a table of its public names, and the docstring of each."""

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from docstrings import converted
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def public_names(package: str) -> Iterator[tuple[str, Any]]:
    """Yields the name and the value of what a package offers, in alphabetical order.

    Modules and what other libraries made are left out.

    Args:
        package: for instance "vexplain.attribution".
    """
    module = importlib.import_module(package)
    for name in sorted(dir(module), key=str.lower):
        value = getattr(module, name)
        home = getattr(value, "__module__", None) or ""
        is_its_own = home == package or (hasattr(module, "__path__") and home.startswith("vexplain"))
        if name[0] != "_" and not inspect.ismodule(value) and is_its_own:
            yield name, value


def first_sentence(value: Any) -> str:
    """Returns the sentence that opens the docstring of an object, as reStructuredText in one line.

    Args:
        value: a function, a class or another object.
    """
    if not (inspect.isroutine(value) or inspect.isclass(value)):
        return f"An instance of `{type(value).__name__}`."
    opening = (inspect.getdoc(value) or "").partition("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<!\.)\.\s", opening)[0]  # an ellipsis ends no sentence
    sentence = sentence if sentence.endswith("...") else sentence.rstrip(".:") + "."
    return converted([sentence])[0] if opening else ""


class Room(SphinxDirective):
    """`.. room:: vexplain.attribution`; with `:also-in:`, names of these packages are links to them."""

    required_arguments = 1
    option_spec: ClassVar = {"also-in": str.split}

    def run(self) -> list[nodes.Node]:
        package = self.arguments[0]
        entries = list(public_names(package))
        elsewhere = {
            id(value): f"{room}.{name}"
            for room in self.options.get("also-in", ())
            for name, value in public_names(room)
        }
        lines = [f".. py:module:: {package}", "", *converted(_docstring(package)), ""]
        lines += [".. list-table::", "   :widths: 30 70", "   :class: names", ""]
        for name, value in entries:
            target = elsewhere.get(id(value), f"{package}.{name}")
            lines += [f"   * - :py:obj:`{name} <{target}>`", f"     - {first_sentence(value)}"]
        lines.append("")
        for name, value in entries:
            if id(value) not in elsewhere:
                lines += _entry(package, name, value)
        return self.parse_text_to_nodes("\n".join(lines))


def _docstring(package: str) -> list[str]:
    return (inspect.getdoc(importlib.import_module(package)) or "").split("\n")


def _entry(package: str, name: str, value: Any) -> list[str]:
    if inspect.isclass(value):
        return [f".. autoclass:: {package}.{name}", "   :members:", ""]
    if inspect.isroutine(value):
        return [f".. autofunction:: {package}.{name}", ""]
    return [f".. py:data:: {name}", f"   :module: {package}", "", f"   {first_sentence(value)}", ""]


def setup(app) -> dict:
    """Adds the directive."""
    app.add_directive("room", Room)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
