"""The directives `attribution-method`, what the catalog says of one method, and `attribution-methods`, all.

The build fails for a method of the catalog without a page, for a page without a method, and for a page whose
heading is not the title of its method.
"""

from pathlib import Path

import catalog
import pictures
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import vexplain

_LOG = logging.getLogger(__name__)
_NO_PAGE = {"index"}


class Method(SphinxDirective):
    """`{attribution-method} grad_cam`: the picture of a method, and what the catalog says of it."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        method = vexplain.METHODS[self.arguments[0]]
        is_signed = method.sign == "signed"
        shown = "the positive part of the signed attributions" if is_signed else "the heatmap"
        lines = [
            f"```{{figure}} {_uri(self.config, method.name)}.png",
            f":alt: {method.title} of two flowers",
            ":class: strip",
            "",
            f"Two rendered flowers and {shown} for the predicted class, of a small network. The class is the",
            "color of one part.",
            "```",
            "",
            "```python",
            catalog.call_of(method, has_name=hasattr(vexplain, method.name)),
            "```",
            "",
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in catalog.facts(method).items()),
            "",
            "All arguments:",
            "",
            "```text",
            catalog.signature_of(method.function),
            "```",
        ]
        return self.parse_text_to_nodes("\n".join(lines))


class Methods(SphinxDirective):
    """`{attribution-methods}`: a small picture of every method, by kind, each a link to its page."""

    def run(self) -> list[nodes.Node]:
        pages = "\n".join(vexplain.METHODS)
        found = self.parse_text_to_nodes(f"```{{toctree}}\n:hidden:\n\n{pages}\n```")
        picture = f"![a rendered flower]({_uri(self.config, 'image')}_small.png)\n\nthe image"
        found.append(self._gallery([picture]))
        for kind, methods in catalog.by_kind(vexplain.METHODS).items():
            found.append(nodes.rubric("", f"{kind[0].upper()}{kind[1:]}"))
            found.append(self._gallery([self._linked(method) for method in methods]))
        return found

    def _linked(self, method) -> str:
        picture = f"![{method.title}]({_uri(self.config, method.name)}_small.png)"
        return f"[{picture}]({method.name}.md)\n\n[{method.title}]({method.name}.md)"

    def _gallery(self, texts: list[str]) -> nodes.container:
        tiles = [nodes.container("", *self.parse_text_to_nodes(text), classes=["tile"]) for text in texts]
        return nodes.container("", *tiles, classes=["gallery"])


def _uri(config, name: str) -> str:
    return f"/{config.method_pictures}/{name}"


def _check_and_draw(app) -> None:
    folder = Path(app.srcdir) / "methods"
    pages = {path.stem: path for path in folder.glob("*.md") if path.stem not in _NO_PAGE}
    try:
        catalog.check_pages(vexplain.METHODS, pages)
        for name, path in pages.items():
            catalog.check_title(vexplain.METHODS[name], path.read_text("utf-8"))
    except ValueError as error:
        raise ExtensionError(str(error)) from error
    drawn = pictures.draw(vexplain.METHODS, Path(app.srcdir) / "_build" / "pictures", say=_LOG.info)
    app.config.method_pictures = drawn.relative_to(app.srcdir).as_posix()


def setup(app) -> dict:
    """Adds the directives, and what is done before a build."""
    app.add_config_value("method_pictures", "", "env", str)
    app.add_directive("attribution-method", Method)
    app.add_directive("attribution-methods", Methods)
    app.connect("builder-inited", _check_and_draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
