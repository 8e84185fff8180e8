"""The report: an HTML page for a browser, a phone or a printer, in one file.

With a gallery it has pictures in files beside it, unless they are to be inside. Nothing is loaded from
elsewhere, and no code runs but the script of the gallery: the policy of the page has the digest of it.
"""

import dataclasses
import hashlib
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
import markupsafe
from matplotlib.figure import Figure

from vexplain._files import write_whole
from vexplain.figures.gallery import Gallery, gallery_json, heat_tables
from vexplain.figures.saving import png_bytes
from vexplain.figures.style import DPI

PNG = b"\x89PNG\r\n\x1a\n"
CSS_DPI = 100  # pixels of the page an inch of a figure; text of figures is then as large as that of the page


class Picture(NamedTuple):
    """A figure of the report, its caption, and a description for readers who cannot see it."""

    image: (
        Figure | bytes
    )  # bytes of a PNG file, shown as large as it says, at 200 pixels an inch if it does not
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
        gallery: a card for each image and a sheet for each class, before the sections.
    """

    title: str
    lead: str
    key_figures: Sequence[tuple[str, str, str]] = ()
    sections: Sequence[Section] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gallery: Gallery | None = None


def write_report(path: str | os.PathLike[str], report: Report, *, is_single_file: bool = False) -> Path:
    """Returns the path of the HTML file that now holds the report.

    The figures of sections are inside the file.

    Args:
        path: ends in .html; its folder is made if it does not exist. Pictures of a gallery are below it.
        report: its content.
        is_single_file: the pictures of a gallery are inside too.

    Raises:
        ValueError: another ending, a picture that is no PNG, a table whose rows and header differ in length,
            a card with a feature that is not in the sheet of its class.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"path ends in {path.suffix!r}: expected .html, as in {path.stem}.html")
    return write_whole(path, rendered(report, path.parent, is_single_file=is_single_file).encode())


def save_pictures(folder: str | os.PathLike[str], report: Report) -> Report:
    """Returns a report whose named pictures are drawn, and in PNG files: `write_report` embeds the same.

    Args:
        folder: made if it does not exist; the picture "losses" is its file losses.png.
        report: whose pictures are saved.

    Raises:
        ValueError: a picture that is no PNG.
    """

    def saved(picture: Picture) -> Picture:
        if not picture.name:
            return picture
        png = _png(picture)
        write_whole(Path(folder) / f"{picture.name}.png", png)
        return picture._replace(image=png)

    sections = [
        dataclasses.replace(s, figures=[saved(picture) for picture in s.figures]) for s in report.sections
    ]
    return dataclasses.replace(report, sections=sections)


def rendered(report: Report, folder: Path | None = None, *, is_single_file: bool = True) -> str:
    """Returns the HTML text of a report.

    Args:
        report: its content.
        folder: of the page, which the files of a gallery are relative to; the current one if left out.
        is_single_file: the pictures of a gallery are inside.

    Example:
        >>> "<h1>Cats &amp; dogs</h1>" in rendered(Report("Cats & dogs", "What was learned."))
        True
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = _file("report.html.jinja")
    taken = re.findall(r' id="([\w-]+)"', template)
    anchors = _anchors([section.title for section in report.sections], taken)
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
    gallery, style, script = "", _file("report.css"), ""
    widths = sorted({figure["width"] for section in sections for figure in section["figures"]})
    style += "".join(f".w{width} {{ --width: {width}; }}\n" for width in widths)
    if report.gallery is not None:
        gallery = gallery_json(report.gallery, folder or Path(), is_single_file=is_single_file)
        style, script = style + _file("gallery.css"), _file("gallery.js")
    return environment.from_string(template).render(
        report=report,
        sections=sections,
        policy=_policy(style, script, has_files=bool(gallery) and not is_single_file),
        style=markupsafe.Markup(style),
        script=markupsafe.Markup(script),
        gallery=markupsafe.Markup(gallery),
        heat=heat_tables(),
    )


def _file(name: str) -> str:
    return importlib.resources.files("vexplain.figures").joinpath(name).read_text("utf-8")


def _policy(style: str, script: str, *, has_files: bool) -> str:
    """What a browser may load and run: pictures, and this very style and script."""
    kinds = {
        "default-src": "'none'",
        "img-src": "data: 'self' file:" if has_files else "data:",  # some browsers: no file is 'self'
        "style-src": _digest(style),
        "script-src": _digest(script) if script else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{kind} {allowed}" for kind, allowed in kinds.items())


def _digest(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


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
    scale = CSS_DPI / _pixels_an_inch(png)
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


def _pixels_an_inch(png: bytes) -> float:
    """Returns what a PNG file says of its resolution; `DPI` where it says nothing."""
    head = png[: png.find(b"IDAT")]
    _, is_said, said = head.partition(b"pHYs")
    if not is_said:
        return DPI
    across, _, unit = struct.unpack(">IIB", said[:9])
    return 0.0254 * across if unit == 1 and across else DPI  # unit 1: pixels a meter


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


def _anchors(titles: Sequence[str], taken: Sequence[str]) -> list[str]:
    anchors = list(taken)
    for title in titles:
        anchor = "-".join(re.findall(r"\w+", title.lower())) or "section"
        while anchor in anchors:
            anchor += "-again"
        anchors.append(anchor)
    return anchors[len(taken) :]
