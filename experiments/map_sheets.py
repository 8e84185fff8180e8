"""Heatmaps in rows and columns, pixel by pixel: for what an overlay would hide, such as a grid."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from vexplain.figures.images import pixels, tile
from vexplain.figures.sheet import wrap, write
from vexplain.figures.style import HEAT, INK, MUTED, context, new_figure
from vexplain.typing import AnyArray

SIDE, GAP, MARGIN, NAMES, HEADER = 1.2, 0.08, 0.3, 1.35, 0.78  # inches


@context()
def map_sheet(rows: Mapping[str, Mapping[str, AnyArray]]) -> Figure:
    """Returns a sheet of images and heatmaps; columns are matched by name, and what a row lacks stays empty.

    Args:
        rows: by the name of the row, its pictures by the name of the column, in the order of the first row;
            heatmaps (height, width) or images (height, width, 1 or 3), in [0, 1].

    Raises:
        ValueError: no row, a picture with another number of axes, or values beyond [0, 1].
    """
    if not rows:
        raise ValueError('rows is empty: give at least one, {"name": {"column": heatmap}}')
    columns = list(next(iter(rows.values())))
    width = MARGIN + NAMES + len(columns) * (SIDE + GAP) - GAP + MARGIN
    figure = new_figure(width, HEADER + len(rows) * (SIDE + GAP) - GAP + MARGIN)
    lefts = [MARGIN + NAMES + n * (SIDE + GAP) for n in range(len(columns))]
    for left, column in zip(lefts, columns, strict=True):
        text = write(figure, left, HEADER - 0.06, column, fontsize=8.5, color=MUTED, va="bottom")
        wrap(text, SIDE, num_lines=3)
    for n, (name, pictures) in enumerate(rows.items()):
        top = HEADER + n * (SIDE + GAP)
        wrap(write(figure, MARGIN, top + 0.04, name, fontsize=9, color=INK), NAMES - 0.12, num_lines=4)
        for left, column in zip(lefts, columns, strict=True):
            if column in pictures:
                tile(figure, left, top, SIDE, SIDE, _colors(pictures[column], f"{name}, {column}"))
    return figure


def _colors(picture: AnyArray, name: str) -> np.ndarray:
    values = np.asarray(picture, np.float64)
    if values.ndim not in (2, 3):
        raise ValueError(
            f"{name!r} has shape {values.shape}: expected a heatmap (height, width) or an image (height, "
            "width, 1 or 3)"
        )
    if not (values.min() >= 0 and values.max() <= 1):  # also where NaN
        raise ValueError(f"{name!r} goes from {values.min():g} to {values.max():g}: expected [0, 1]")
    return HEAT(values)[..., :3] if values.ndim == 2 else pixels(values)
