"""What is lost without the relevant features, beside what is lost without any others."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vexplain.figures import style
from vexplain.figures.sheet import place, text_width, write

WIDTH, MARGIN, NAMES, VALUES = 9.6, 0.3, 2.7, 0.85  # inches
TOP, TITLE, ROW, GAP = 0.66, 0.28, 0.34, 0.3
TICKS = np.linspace(0, 1, 6)


@style.context()
def ablation_bars(
    accuracy: float | int, groups: Mapping[str, tuple[float | int, Sequence[float | int]]]
) -> Figure:
    """Returns the accuracy without the relevant features, beside random ones and the intact network.

    Each draw of random features is a point, their mean the bar.

    Args:
        accuracy: of the intact network, in [0, 1].
        groups: by name, (accuracy without the relevant features, accuracies without random ones, one a draw).

    Raises:
        ValueError: there is no group, a group without draws, or an accuracy beyond [0, 1].
    """
    _check(accuracy, groups)
    height = len(groups) * (TITLE + 2 * ROW + GAP) - GAP
    figure = style.new_figure(WIDTH, TOP + height + 0.75)
    axes = _axes(figure, height)
    line = MARGIN + NAMES + (WIDTH - 2 * MARGIN - NAMES - VALUES) * accuracy
    text = f"intact {style.percent(accuracy)}"
    write(figure, line, TOP - 0.16, text, ha="center", va="bottom")
    y = 0.0
    for name, (relevant, random) in groups.items():
        title = write(figure, MARGIN, TOP + y, name, width=WIDTH - 2 * MARGIN, weight="bold", fontsize=10)
        first, last = y + TITLE, y + TITLE + 2 * ROW
        axes.vlines(TICKS, first, last, color=style.FAINT, linewidth=0.8, clip_on=False)
        is_crossing = line < MARGIN + text_width(title) + 0.1
        start = first if is_crossing else -0.1 if y == 0 else y - GAP
        axes.vlines(accuracy, start, last, color=style.INK, linewidth=1.2, clip_on=False, zorder=4)
        _row(figure, axes, first + ROW / 2, "without the relevant features", [relevant], style.ACCENT)
        _row(figure, axes, first + 1.5 * ROW, "without as many random ones", random, style.RANDOM)
        dots = {"color": style.INK, "linewidths": 0, "alpha": 0.7, "zorder": 5, "clip_on": False}
        axes.scatter(random, [first + 1.5 * ROW] * len(random), 16, **dots)
        y = last + GAP
    return figure


def _axes(figure: Figure, height: float) -> Axes:
    axes = place(figure, MARGIN + NAMES, TOP, WIDTH - 2 * MARGIN - NAMES - VALUES, height)
    style.quiet_axes(axes)
    axes.set(xlim=(0, 1), ylim=(height, 0), yticks=[], xticks=TICKS)
    axes.set_xticklabels([f"{100 * x:.0f}" for x in TICKS])
    axes.set_xlabel("accuracy on held-out images, %", labelpad=6, loc="left")
    return axes


def _row(
    figure: Figure, axes: Axes, middle: float, label: str, values: Sequence[float | int], color: str
) -> None:
    mean = float(np.mean(values))
    axes.barh(middle, mean, 0.6 * ROW, color=color, zorder=2)
    write(figure, MARGIN, TOP + middle, label, va="center_baseline", color=style.MUTED)
    value: dict[str, Any] = {"ha": "right", "va": "center_baseline", "weight": "bold"}
    write(figure, WIDTH - MARGIN, TOP + middle, style.percent(mean), **value)


def _check(accuracy: float | int, groups: Mapping[str, tuple[float | int, Sequence[float | int]]]) -> None:
    if not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy is {accuracy:g}: expected [0, 1]")
    if not groups:
        raise ValueError(
            'groups is empty: give at least one, {"all layers": (accuracy, accuracies of draws)}'
        )
    for name, (relevant, random) in groups.items():
        if not len(random):
            raise ValueError(f"groups[{name!r}] has no random draw: give the accuracies of one draw or more")
        for value in (relevant, *random):
            if not 0 <= value <= 1:
                raise ValueError(f"groups[{name!r}]: an accuracy is {value:g}, expected [0, 1]")
