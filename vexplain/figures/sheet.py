"""A sheet: a figure whose contents are placed so that nothing overlaps.

All lengths are in inches, all places distances from the left and the upper border. Text that gets a width is
made smaller, then shortened in its middle, until it fits.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from vexplain.figures.style import Inches, drawable

SMALLEST = 0.78  # of the wanted font size; below that, text is shortened


def place(figure: Figure, left: Inches, top: Inches, width: Inches, height: Inches) -> Axes:
    """Returns new axes at a place of the figure."""
    full_width, full_height = figure.get_size_inches()
    corner = (left / full_width, 1 - (top + height) / full_height)
    return figure.add_axes((*corner, width / full_width, height / full_height))


def write(
    figure: Figure, left: Inches, top: Inches, text: str, *, width: Inches | None = None, **look: Any
) -> Text:
    """Returns text written at a place of the figure, which is its upper left corner unless `look` differs.

    Args:
        figure: to write on.
        left: of the text.
        top: of the text.
        text: may have several lines.
        width: that the text must not exceed.
        **look: properties of `matplotlib.text.Text`.
    """
    full_width, full_height = figure.get_size_inches()
    look = {"va": "top", "ha": "left"} | look
    written = figure.text(left / full_width, 1 - top / full_height, drawable(text), **look)
    if width is not None:
        fit(written, width)
    return written


def rectangle(
    figure: Figure, left: Inches, top: Inches, width: Inches, height: Inches, **look: Any
) -> Rectangle:
    """Returns a rectangle drawn at a place of the figure, without a border unless `look` has one."""
    full_width, full_height = figure.get_size_inches()
    look = {"linewidth": 0} | look
    corner = (left / full_width, 1 - (top + height) / full_height)
    size = (width / full_width, height / full_height)
    drawn = Rectangle(corner, *size, transform=figure.transFigure, **look)
    figure.add_artist(drawn)
    return drawn


def fit(text: Text, width: Inches) -> None:
    """Makes text smaller, then shorter, until it is no wider than `width`."""
    wanted = text_width(text)
    if wanted <= width:
        return
    text.set_fontsize(float(text.get_fontsize()) * max(SMALLEST, 0.99 * width / wanted))
    full = text.get_text().split("\n")
    longest = max(map(len, full))
    while longest > 3 and text_width(text) > width:
        longest -= 1
        text.set_text("\n".join(shortened(line, longest) for line in full))


def fit_alike(texts: Sequence[Text], width: Inches) -> None:
    """Makes texts fit as `fit` does, and gives them all the size of the smallest."""
    for text in texts:
        fit(text, width)
    smallest = min((float(text.get_fontsize()) for text in texts), default=0)
    for text in texts:
        text.set_fontsize(smallest)


def wrap(text: Text, width: Inches, *, num_lines: int) -> None:
    """Breaks a line of text between words into `num_lines` at most; what is still too wide is made to fit."""
    first, *rest = text.get_text().split() or [""]
    lines = [first]
    for word in rest:
        text.set_text(f"{lines[-1]} {word}")
        if text_width(text) <= width or len(lines) == num_lines:
            lines[-1] = text.get_text()
        else:
            lines.append(word)
    text.set_text("\n".join(lines))
    fit(text, width)


def shortened(text: str, length: int) -> str:
    """Returns text of at most `length` characters, 3 or more, with an ellipsis in place of its middle.

    Example:
        >>> shortened("upsampled activation", 9)
        'upsa…tion'
    """
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def text_width(text: Text) -> float:
    """Returns the width of text in inches."""
    figure = text.get_figure(root=True)
    assert figure is not None
    canvas = figure.canvas
    renderer = canvas.get_renderer() if isinstance(canvas, FigureCanvasAgg) else None
    return text.get_window_extent(renderer).width / figure.dpi
