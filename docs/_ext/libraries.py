"""The directive `comparison-of-libraries`: docs/libraries.toml as tables; each test in it must be there."""

import tomllib
from pathlib import Path

import comparison
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective


class Libraries(SphinxDirective):
    """`{comparison-of-libraries}`: a table for each part of the comparison."""

    def run(self) -> list[nodes.Node]:
        docs = Path(self.env.srcdir)
        self.env.note_dependency(str(docs / "libraries.toml"))
        content = tomllib.loads((docs / "libraries.toml").read_text("utf-8"))
        try:
            comparison.check(content, docs.parent)
        except ValueError as error:
            raise ExtensionError(f"docs/libraries.toml: {error}") from error
        found: list[nodes.Node] = []
        link = lambda test: comparison.link_of(test, docs.parent)  # noqa: E731
        for heading, text in comparison.as_markdown(content, link):
            table = nodes.container("", *self.parse_text_to_nodes(text), classes=["comparison"])
            found += [nodes.rubric("", heading), table]
        return found


def setup(app) -> dict:
    """Adds the directive."""
    app.add_directive("comparison-of-libraries", Libraries)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
