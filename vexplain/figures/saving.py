"""Figures as files and as bytes, the same for the same figure."""

import io
import os
from pathlib import Path

from matplotlib.figure import Figure

from vexplain._files import write_whole
from vexplain.figures.style import context

FORMATS = (".png", ".svg", ".pdf")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Returns the path of the file that now holds the figure.

    Args:
        figure: any figure of matplotlib.
        path: ends in .png, .svg or .pdf; its folder is made if it does not exist.

    Raises:
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"path ends in {path.suffix!r}: expected one of {FORMATS}, as in {path.stem}.png")
    return write_whole(path, figure_bytes(figure, path.suffix.lower()[1:]))


def png_bytes(figure: Figure) -> bytes:
    """Returns the figure as a PNG file in memory.

    Example:
        >>> png_bytes(Figure(figsize=(1, 1)))[1:4]
        b'PNG'
    """
    return figure_bytes(figure, "png")


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Returns the figure as a "png", "svg" or "pdf" file; the same figure gives the same bytes."""
    timeless = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with context():
        figure.savefig(buffer, format=kind, metadata=timeless[kind])
    return buffer.getvalue()
