"""Tables as text."""

from collections.abc import Sequence


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
