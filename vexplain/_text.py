"""Tables as text, and as HTML for notebooks."""

import html
import re
from collections.abc import Sequence

_MOST = 40  # rows of a table in a notebook
_LINE = "border-bottom: 1px solid rgba(128, 128, 128, .35)"  # to be seen on white and on black


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table with a line under its header, columns as wide as they need.

    Args:
        header: one text a column.
        rows: of as many texts.

    Example:
        >>> print(aligned(["name", "kind"], [["relu_1", "relu"]]))
        name    kind
        ------------
        relu_1  relu
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str = "") -> str:
    """Returns a table for a notebook, in the colors of the notebook; of many rows the first 40.

    All text is plain text: what looks like HTML is shown as it is, and names in scripts that are written from
    right to left do not turn their surroundings. Columns of numbers are flush right.

    Args:
        header: one text a column.
        rows: of as many texts.
        caption: above the table.

    Example:
        >>> "<bdi>&lt;b&gt;</bdi>" in html_table(["name"], [["<b>"]])
        True
    """
    shown = rows[:_MOST]
    columns = zip(header, *shown, strict=True)
    sides = ["right" if len(c) > 1 and all(map(_is_number, c[1:])) else "left" for c in columns]
    look = f"padding: .3em 1.2em .3em 0; vertical-align: top; background: none; {_LINE}"

    def line(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} style="text-align: {side}; {look}"><bdi>{html.escape(cell)}</bdi></{tag}>'
            for cell, side in zip(cells, sides, strict=True)
        )

    look_above = "text-align: left; caption-side: top; padding-bottom: .4em"
    above = f'<caption style="{look_above}"><bdi>{html.escape(caption)}</bdi></caption>' if caption else ""
    more = len(rows) - len(shown)
    note = f'<p style="opacity: .7">and {more} more rows: print shows all</p>' if more else ""
    body = "".join(f"<tr>{line(row, 'td')}</tr>" for row in shown)
    return (
        f'<table style="border-collapse: collapse">{above}'
        f"<thead><tr>{line(header, 'th')}</tr></thead><tbody>{body}</tbody></table>{note}"
    )


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[-−]?[\d.,]+(e[-+]\d+)?\s?[%*-]?", cell) is not None
