"""Translations beside their inputs and the truth, model by model.

Columns are examples and rows say where an image comes from, so that an error is seen by looking down.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from vexplain.figures.images import pixels, tile
from vexplain.figures.sheet import text_width, wrap, write
from vexplain.figures.style import ACCENT, INK, MUTED, context, new_figure
from vexplain.typing import AnyArray

IMAGE, GAP, GROUP = 0.86, 0.07, 0.2  # inches; GROUP parts input, models and truth
MARGIN, FOOT = 0.3, 0.24
NAMES, LINE = 1.7, 0.17  # the widest name, the height of one of its lines
LEAST_ROW = 0.2
HIGHLIGHT: dict[str, Any] = {"weight": "bold", "color": ACCENT}


class _Row(NamedTuple):
    name: str
    images: np.ndarray
    look: dict[str, Any]  # of the name
    gap: float  # above the row, in inches


@context()
def translation_sheet(
    images: AnyArray,
    outputs: Mapping[str, AnyArray],
    *,
    truths: AnyArray | None = None,
    bold: str | None = None,
    max_columns: int = 12,
) -> Figure:
    """Returns a sheet with a column for each example: its input, what each model makes of it, and the truth.

    Args:
        images: (n, height, width, 1 or 3) in [0, 1], what was translated.
        outputs: by name of the model, (n, height, width, 1 or 3) in [0, 1], in the order they are shown.
        truths: (n, height, width, 1 or 3) in [0, 1], what the outputs should be.
        bold: the model whose name is bold and colored; none if left out.
        max_columns: the first so many examples are shown, and the foot of the sheet says of how many.

    Raises:
        ValueError: no example, no model, numbers of images that do not match, another shape, values beyond
            [0, 1], or `bold` is no model.

    Example:
        >>> images = np.zeros((2, 4, 4, 3))
        >>> figure = translation_sheet(images, {"VAE": images, "+ GAN": images}, truths=images, bold="VAE")
        >>> [text.get_text() for text in figure.texts]
        ['input', 'VAE', '+ GAN', 'truth']
    """
    if not outputs:
        raise ValueError('outputs is empty: give at least one model, {"name": its translations}')
    if bold is not None and bold not in outputs:
        raise ValueError(f"bold is {bold!r}: outputs has {list(outputs)}")
    shown = _checked(images, "images")
    rows = [_Row("input", shown, {"color": MUTED}, GAP)]
    for n, (name, output) in enumerate(outputs.items()):
        output = _checked(output, f"outputs[{name!r}]", count=len(shown))
        look = HIGHLIGHT if name == bold else {"color": INK}
        rows.append(_Row(name, output, look, GAP if n else GROUP))
    if truths is not None:
        rows.append(_Row("truth", _checked(truths, "truths", count=len(shown)), {"color": MUTED}, GROUP))
    return _sheet_of(rows, max_columns)


def _sheet_of(rows: Sequence[_Row], max_columns: int) -> Figure:
    if max_columns < 1:
        raise ValueError(f"max_columns is {max_columns}: expected 1 or more")
    total = len(rows[0].images)
    num_columns = min(total, max_columns)
    gutter = _gutter(rows)
    tops, top = [], MARGIN - rows[0].gap
    for row in rows:
        top += row.gap
        tops.append(top)
        top += max(LEAST_ROW, _height(row.images))
    width, is_cut = 2 * MARGIN + gutter + num_columns * (IMAGE + GAP) - GAP, num_columns < total
    figure = new_figure(width, top + MARGIN + FOOT * is_cut)
    for row, top in zip(rows, tops, strict=True):
        tall = _height(row.images)
        middle = top + max(LEAST_ROW, tall) / 2
        name = write(figure, MARGIN, middle, row.name, va="center", linespacing=1.15, **row.look)
        wrap(name, gutter - 0.2, num_lines=max(1, int(tall / LINE)))
        for n, image in enumerate(row.images[:num_columns]):
            left = MARGIN + gutter + n * (IMAGE + GAP)
            tile(figure, left, middle - tall / 2, IMAGE, tall, pixels(image))
    if is_cut:
        left, top = MARGIN + gutter, figure.get_figheight() - MARGIN - 0.13
        note = f"{num_columns} of {total} examples"
        write(figure, left, top, note, width=width - left - 0.1, color=MUTED, fontsize=8)
    return figure


def _height(images: np.ndarray) -> float:
    """Of images on the sheet, in inches; much taller ones become narrower."""
    return IMAGE * min(1.6, images.shape[-3] / images.shape[-2])


def _gutter(rows: Sequence[_Row]) -> float:
    """Room for the names in inches."""
    probe = new_figure(1, 1)
    return 0.2 + min(NAMES, max(text_width(write(probe, 0, 0, row.name, **row.look)) for row in rows))


def _checked(values: AnyArray, name: str, *, count: int | None = None) -> np.ndarray:
    if values.ndim != 4 or values.shape[-1] not in (1, 3):
        raise ValueError(
            f"{name} has shape {values.shape}: expected (n, height, width, 1 or 3); for one image "
            "pass x[None]"
        )
    if count is not None and len(values) != count:
        raise ValueError(f"{name} has {len(values)} images, but there are {count} inputs: one each")
    if 0 in values.shape:
        raise ValueError(f"{name} is empty, its shape is {values.shape}: give 1 image or more")
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {values.dtype}: expected floats in [0, 1]; divide by 255")
    checked = np.asarray(values, np.float32)
    low, high = float(checked.min()), float(checked.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(f"{name} holds NaN or infinite values: expected finite floats in [0, 1]")
    if low < 0 or high > 1:
        way_out = "divide 8-bit images by 255" if high > 2 else "clip it, or take tanh to (x + 1) / 2"
        raise ValueError(f"{name} goes from {low:g} to {high:g}: expected [0, 1]; {way_out}")
    return checked
