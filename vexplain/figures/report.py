"""The report: one HTML file that needs no other, for a browser, a phone or a printer."""

import dataclasses
import importlib.metadata
import importlib.resources
import os
import platform
import re
import struct
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from vexplain._files import write_whole
from vexplain.figures.saving import png_bytes
from vexplain.figures.style import DPI

PNG = b"\x89PNG\r\n\x1a\n"
CSS_DPI = 100  # pixels of the page an inch of a figure; text of figures is then as large as that of the page


class Picture(NamedTuple):
    """A figure of the report, its caption, and a description for readers who cannot see it."""

    image: Figure | bytes  # bytes of a PNG file
    caption: str
    alt: str
    name: str = ""  # of the file that `save_pictures` writes, without its ending; none if empty


class Table(NamedTuple):
    """A table of the report; columns that hold numbers only are set flush right."""

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]  # shown by `str`
    caption: str = ""
    bold_rows: Sequence[int] = ()  # numbers of rows, from 0


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report."""

    title: str
    paragraphs: Sequence[str] = ()
    figures: Sequence[Picture] = ()
    table: Table | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report contains. All text is plain text.

    Attributes:
        title: of the report.
        lead: one paragraph: what was done and what came out.
        key_figures: (label, value, note) of the numbers to see first; about four.
        sections: in order.
        settings: what the run was called with.
        versions: of Python, packages and devices, see `package_versions`.
    """

    title: str
    lead: str
    key_figures: Sequence[tuple[str, str, str]] = ()
    sections: Sequence[Section] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def write_report(path: str | os.PathLike[str], report: Report) -> Path:
    """Returns the path of the HTML file that now holds the report.

    Images are inside the file; it loads nothing and runs nothing.

    Args:
        path: ends in .html; its folder is made if it does not exist.
        report: its content.

    Raises:
        ValueError: another ending, a picture that is no PNG, a table whose rows and header differ in length.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path ends in {path.suffix!r}: expected .html, as in {path.stem}.html")
    return write_whole(path, rendered(report).encode())


def save_pictures(folder: str | os.PathLike[str], report: Report) -> list[Path]:
    """Returns the paths of the PNG files that now hold the named pictures of a report.

    Args:
        folder: made if it does not exist.
        report: whose pictures are saved.
    """
    pictures = [picture for section in report.sections for picture in section.figures if picture.name]
    return [write_whole(Path(folder) / f"{picture.name}.png", _png(picture)) for picture in pictures]


def rendered(report: Report) -> str:
    """Returns the HTML text of a report.

    Example:
        >>> "<h1>Cats &amp; dogs</h1>" in rendered(Report("Cats & dogs", "What was learned."))
        True
    """
    template = importlib.resources.files("vexplain.figures").joinpath("report.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    anchors = _anchors([section.title for section in report.sections])
    sections = [
        {
            "anchor": anchor,
            "title": section.title,
            "paragraphs": section.paragraphs,
            "figures": [_embedded(picture) for picture in section.figures],
            "table": None if section.table is None else _table(section.table),
        }
        for anchor, section in zip(anchors, report.sections, strict=True)
    ]
    return environment.from_string(template).render(report=report, sections=sections)


def package_versions(names: Sequence[str]) -> dict[str, str]:
    """Returns the version of Python and of each package, by its name in `pip install`.

    Example:
        >>> package_versions(["no-such-package"])["no-such-package"]
        'not installed'
    """
    versions = {"Python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _embedded(picture: Picture) -> dict[str, Any]:
    png = _png(picture)
    width, height = struct.unpack(">II", png[16:24])
    dpi = DPI if isinstance(picture.image, bytes) else picture.image.dpi
    scale = CSS_DPI / dpi
    return {
        "source": "data:image/png;base64," + b64encode(png).decode(),
        "width": round(width * scale),
        "height": round(height * scale),
        "caption": picture.caption,
        "alt": picture.alt,
    }


def _png(picture: Picture) -> bytes:
    png = picture.image if isinstance(picture.image, bytes) else png_bytes(picture.image)
    if not png.startswith(PNG):
        raise ValueError(f"figure {picture.caption!r}: its bytes are no PNG file; pass a Figure or a PNG")
    return png


def _table(table: Table) -> dict[str, Any]:
    for row in table.rows:
        if len(row) != len(table.header):
            raise ValueError(f"table row {list(row)} has {len(row)} cells, the header {len(table.header)}")
    cells = [[str(cell) for cell in row] for row in table.rows]
    columns = list(zip(*cells, strict=True)) or [()] * len(table.header)
    return {
        "header": table.header,
        "rows": cells,
        "caption": table.caption,
        "bold_rows": table.bold_rows,
        "is_number": [
            all(re.match(r"[-−+±]?\s?[\d.]|[–—-]?$", cell) for cell in column) for column in columns
        ],
    }


def _anchors(titles: Sequence[str]) -> list[str]:
    anchors: list[str] = []
    for title in titles:
        anchor = "-".join(re.findall(r"\w+", title.lower())) or "section"
        while anchor in anchors:
            anchor += "-again"
        anchors.append(anchor)
    return anchors
