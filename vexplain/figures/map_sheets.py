"""Heatmaps in rows and columns, pixel by pixel: for what an overlay would hide, such as a grid."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from vexplain.figures.images import pixels, show
from vexplain.figures.sheet import place, wrap, write
from vexplain.figures.style import HEAT, INK, MUTED, context, new_figure
from vexplain.typing import AnyArray

CELL, GAP, MARGIN, NAMES, HEADER = 1.2, 0.08, 0.3, 1.35, 0.78  # inches


@context()
def map_sheet(rows: Mapping[str, Mapping[str, AnyArray]]) -> Figure:
    """Returns a sheet of images and heatmaps; columns are matched by name, and what a row lacks stays empty.

    Args:
        rows: by the name of the row, its cells by the name of the column, in the order of the first row. A
            cell is a heatmap (height, width) or an image (height, width, 1 or 3), in [0, 1].

    Raises:
        ValueError: no row, a cell with another number of axes, or values beyond [0, 1].

    Example:
        >>> figure = map_sheet({"conv_1": {"image": np.ones((4, 4, 3)), "map": np.eye(4)}})
        >>> [text.get_text().strip() for text in figure.texts], len(figure.axes)
        (['image', 'map', 'conv_1'], 2)
    """
    if not rows:
        raise ValueError('rows is empty: give at least one, {"name": {"column": heatmap}}')
    columns = list(next(iter(rows.values())))
    width = MARGIN + NAMES + len(columns) * (CELL + GAP) - GAP + MARGIN
    figure = new_figure(width, HEADER + len(rows) * (CELL + GAP) - GAP + MARGIN)
    lefts = [MARGIN + NAMES + n * (CELL + GAP) for n in range(len(columns))]
    for left, column in zip(lefts, columns, strict=True):
        text = write(figure, left, HEADER - 0.06, column, fontsize=8.5, color=MUTED, va="bottom")
        wrap(text, CELL, num_lines=3)
    for n, (name, cells) in enumerate(rows.items()):
        top = HEADER + n * (CELL + GAP)
        wrap(write(figure, MARGIN, top + 0.04, name, fontsize=9, color=INK), NAMES - 0.12, num_lines=4)
        for left, column in zip(lefts, columns, strict=True):
            if column in cells:
                show(place(figure, left, top, CELL, CELL), _colors(cells[column], f"{name}, {column}"))
    return figure


def _colors(cell: AnyArray, name: str) -> np.ndarray:
    values = np.asarray(cell, np.float64)
    if values.ndim not in (2, 3):
        raise ValueError(
            f"{name!r} has shape {values.shape}: expected a heatmap (height, width) or an image (height, "
            "width, 1 or 3)"
        )
    if not (values.min() >= 0 and values.max() <= 1):  # also where NaN
        raise ValueError(f"{name!r} goes from {values.min():g} to {values.max():g}: expected [0, 1]")
    return HEAT(values)[..., :3] if values.ndim == 2 else pixels(values)
