"""Figures of shape translation: how training went, and the way from one image to another.

Losses differ by orders of magnitude, so that each has a panel of its own.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from vexplain.figures import style
from vexplain.figures.images import checked_images, pixels, tile
from vexplain.figures.sheet import fit, place, text_width, write
from vexplain.typing import AnyArray

COLUMNS, PANEL, TALL = 3, 2.6, 1.35  # inches
MARGIN, TICKS, ROOM = 0.3, 0.55, 0.36  # TICKS: room for the values beside a panel, ROOM: between columns
TITLE, FOOT = 0.3, 0.42  # above a panel, and below it
COLOR = style.RIVALS[0]
SIDE, GAP, GROUP = 0.86, 0.07, 0.2  # of an image, between two, and between the ends and the steps


@style.context()
def loss_curves(
    history: Mapping[str, Sequence[float | int] | AnyArray], *, steps: Sequence[int] | AnyArray
) -> Figure:
    """Returns a panel for each loss over the steps of training, with its last value.

    An axis is logarithmic where the values are positive and span more than a decade. Values that are not
    finite leave a gap, and a last value that is not finite is red.

    Args:
        history: by name of the loss, its values, one a step; at least one is needed.
        steps: at which the losses were noted, increasing.

    Raises:
        ValueError: there is no loss or no step, numbers that do not match, or steps that do not increase.

    Example:
        >>> figure = loss_curves({"cycle": [2.0, 0.5, 0.1], "KL": [3, 4, 5]}, steps=[0, 100, 200])
        >>> [axes.get_yscale() for axes in figure.axes]
        ['log', 'linear']
        >>> [text.get_text() for text in figure.texts][:2]
        ['0.1', 'cycle']
    """
    at, losses = _checked(history, steps)
    num_columns = min(COLUMNS, len(losses))
    num_rows = math.ceil(len(losses) / num_columns)
    pitch = TICKS + PANEL + ROOM
    height = 2 * MARGIN - 0.1 + num_rows * (TITLE + TALL + FOOT)
    figure = style.new_figure(2 * MARGIN - ROOM + num_columns * pitch, height)
    for n, (name, values) in enumerate(losses.items()):
        row, column = divmod(n, num_columns)
        left, top = MARGIN + TICKS + column * pitch, MARGIN - 0.1 + row * (TITLE + TALL + FOOT)
        _heading(figure, left, top, name, float(values[-1]))
        axes = place(figure, left, top + TITLE, PANEL, TALL)
        style.quiet_axes(axes, grid="y")
        axes.tick_params(labelsize=8)
        is_lowest = n + num_columns >= len(losses)
        _steps_axis(axes, at, is_lowest=is_lowest)
        _values_axis(axes, values)
        axes.plot(at, values, color=COLOR, linewidth=1.2, solid_joinstyle="round", zorder=3)
        axes.plot(at[-1:], values[-1:], "o", color=COLOR, markersize=4.5, clip_on=False, zorder=4)
    return figure


def _heading(figure: Figure, left: float, top: float, name: str, last: float) -> None:
    color = style.INK if math.isfinite(last) else style.WRONG
    value = write(figure, left + PANEL, top, number(last), ha="right", color=color)
    title = write(figure, left, top, name, weight="bold", color=style.INK)
    fit(title, PANEL - text_width(value) - 0.15)


def _steps_axis(axes: Axes, at: np.ndarray, *, is_lowest: bool) -> None:
    first, last = float(at[0]), float(at[-1])
    limits = (first, last) if last > first else (first - 1, first + 1)
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(*limits, integer=True)))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda x, _: f"{x / 1000:g}k" if abs(x) >= 1000 else f"{x:g}")
    )
    axes.tick_params(labelbottom=is_lowest)
    if is_lowest:
        axes.set_xlabel("step", labelpad=2, loc="left", fontsize=8)


def _values_axis(axes: Axes, values: np.ndarray) -> None:
    """Chooses scale, limits and few ticks; a little room keeps the line off the borders."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    is_log = low > 0 and high > 10 * low
    if is_log:
        room = (high / low) ** 0.06
        low, high = low / room, high * room
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
        low, high = low - room, high + room
    ticks = _log_ticks(low, high) if is_log else _ticks(low, high)
    digits = 3 if is_log else _num_digits(ticks)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y, digits=digits)))


def _ticks(low: float, high: float, *, integer: bool = False) -> list[float]:
    values = MaxNLocator(4, integer=integer).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]


def _num_digits(ticks: list[float]) -> int:
    """Enough of them to tell neighboring ticks apart."""
    step = min(np.diff(ticks), default=0)
    return max(3, 1 + math.ceil(math.log10(max(map(abs, ticks)) / step))) if step > 0 else 3


def _log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten, at most five; with threefold ones between where there would be one or two."""
    decades = np.arange(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
    if len(decades) > 2:
        return [10.0**k for k in decades[:: math.ceil(len(decades) / 5)]]
    between = [factor * 10.0**k for k in (decades[0] - 1, *decades) for factor in (1, 3)]
    return [value for value in between if low <= value <= high]


def number(value: float | int, *, digits: int = 3) -> str:
    """Returns a number, short and with a true minus sign.

    Args:
        value: may be infinite or NaN.
        digits: that count, at most; all before the point where the number is below 100 000.

    Example:
        >>> number(0.012345), number(-1e-7), number(24000), number(float("nan"))
        ('0.0123', '−1e−7', '24000', 'NaN')
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    before = len(str(int(abs(value)))) if 1 <= abs(value) < 100_000 else 0
    shown, _, power = f"{value:.{max(digits, before)}g}".partition("e")
    return (f"{shown}e{int(power)}" if power else shown).replace("-", "\N{MINUS SIGN}")


def _checked(
    history: Mapping[str, Sequence[float | int] | AnyArray], steps: Sequence[int] | AnyArray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    if not history:
        raise ValueError('history is empty: give at least one loss, {"name": its values}')
    at = np.asarray(steps)
    if at.ndim != 1 or not len(at):
        raise ValueError(f"steps has shape {at.shape}: expected (n,), with 1 step or more")
    if not (np.diff(at) > 0).all():
        raise ValueError("steps do not increase: sort them, and the losses with them")
    losses = {name: np.asarray(values, np.float64) for name, values in history.items()}
    for name, values in losses.items():
        if values.shape != at.shape:
            raise ValueError(
                f"history[{name!r}] has shape {values.shape}, but there are {len(at)} steps: one value each"
            )
    return at, losses


@style.context()
def interpolation_sheet(images: AnyArray) -> Figure:
    """Returns a sheet with a row for each example: the steps from one image to another, its ends framed.

    Args:
        images: (n, steps, height, width, 1 or 3) in [0, 1]; the first and the last step are the ends.

    Raises:
        ValueError: no example, fewer than 2 steps, another shape, or values beyond [0, 1].

    Example:
        >>> figure = interpolation_sheet(np.zeros((2, 5, 4, 4, 3)))
        >>> [text.get_text() for text in figure.texts]
        ['start', 'end']
    """
    if images.ndim != 5 or images.shape[1] < 2:
        raise ValueError(
            f"images has shape {images.shape}: expected (n, steps, height, width, 1 or 3), with 2 "
            "steps or more for the ends; for one example pass images[None]"
        )
    shown = checked_images(images.reshape(-1, *images.shape[2:])).reshape(images.shape)
    num_rows, num_steps = shown.shape[:2]
    tall, top = SIDE * min(1.6, shown.shape[2] / shown.shape[3]), MARGIN + 0.26
    lefts = [MARGIN + n * (SIDE + GAP) + (GROUP - GAP) * (n > 0) for n in range(num_steps)]
    lefts[-1] += (GROUP - GAP) * (num_steps > 2)
    figure = style.new_figure(lefts[-1] + SIDE + MARGIN, top + num_rows * (tall + GAP) - GAP + MARGIN)
    _ends(figure, lefts[0], lefts[-1] + SIDE)
    for n, steps in enumerate(shown):
        for k, image in enumerate(steps):
            frame, line = (style.INK, 1.3) if k in (0, num_steps - 1) else (style.FAINT, 0.6)
            place_of_step = (lefts[k], top + n * (tall + GAP), SIDE, tall)
            tile(figure, *place_of_step, pixels(image), frame=frame, line=line)
    return figure


def _ends(figure: Figure, left: float, right: float) -> None:
    """Names the ends, and draws the way between them."""
    look: dict[str, Any] = {"va": "center_baseline", "fontsize": 9, "weight": "bold", "color": style.INK}
    start = write(figure, left, MARGIN + 0.06, "start", **look)
    end = write(figure, right, MARGIN + 0.06, "end", ha="right", **look)
    width, height = figure.get_size_inches()
    way = (left + text_width(start) + 0.1, right - text_width(end) - 0.1)
    level = 1 - (MARGIN + 0.06) / height
    line = {"color": style.CONTROL, "linewidth": 0.8, "transform": figure.transFigure}
    figure.add_artist(Line2D([x / width for x in way], [level, level], **line))
    figure.add_artist(Line2D([way[1] / width], [level], marker=">", markersize=4, markeredgewidth=0, **line))
