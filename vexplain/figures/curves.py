"""A curve for each method, beside a legend with one value of each: how well its heatmaps meet the truth."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from vexplain.catalog import title_of
from vexplain.evaluation import CEILING, CONTROLS, Score
from vexplain.figures import style
from vexplain.figures.sheet import fit_alike, place, write

WIDTH, HEIGHT, LEGEND, ROW = 10.4, 4.2, 3.75, 0.33  # inches
PAPER, OURS = "relevant_features", "relevant_evidence"  # the recipe of the paper, and our map
_NOT_METHODS = (*CONTROLS, CEILING)
_DASHES = [(0, (4, 2)), (0, (1.2, 1.6)), (0, (6, 1.5)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1))]


class Line(NamedTuple):
    """The curve of a method."""

    name: str
    x: np.ndarray
    y: np.ndarray
    value: str  # beside the name


@style.context()
def iou_curves(scores: Mapping[str, Score]) -> Figure:
    """Returns the mean IoU of each method over the thresholds, in percent, the largest area listed first.

    The paper's method is bold, our own map dark, controls gray and dashed. The scores are what
    `evaluation.summarize` returned, by name of the method.

    Raises:
        ValueError: `scores` is empty.

    Example:
        >>> score = Score({"IoU area": np.array([0.19, 0.21])}, np.linspace(0.4, 0, 101), "positive part")
        >>> figure = iou_curves({"gradient": score})
        >>> [text.get_text() for text in figure.texts][-2:]
        ['20.0 % ± 1.0', 'gradient']
    """
    if not scores:
        raise ValueError("scores is empty: pass what evaluation.summarize(...) returned")
    lines = []
    for name, score in sorted(scores.items(), key=lambda item: -item[1].mean("IoU area")):
        area, error = score.mean("IoU area"), score.standard_error("IoU area")
        thresholds = np.linspace(0, 1, len(score.curve))
        value = f"{style.percent(area)} ± {100 * error:.1f}"
        lines.append(Line(name, thresholds, 100 * score.curve, value))
    axes = draw_lines(lines, "mean IoU with the true part, %", "area under the curve")
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * max(10, *(float(np.max(line.y)) for line in lines))))
    axes.set_xlabel("threshold of the heatmap", labelpad=6, loc="left")
    return cast(Figure, axes.figure)


def draw_lines(lines: Sequence[Line], title: str, of_values: str) -> Axes:
    """Returns axes with the lines, beside a legend that lists them with their values."""
    names = [line.name for line in lines]
    height = max(HEIGHT, 0.9 + ROW * len(lines))
    figure = style.new_figure(WIDTH, height)
    axes = place(figure, 0.65, 0.62, WIDTH - LEGEND - 1.3, height - 1.3)
    style.quiet_axes(axes, grid="y")
    write(figure, 0.65, 0.3, title, color=style.MUTED)
    for order, line in enumerate(lines):
        zorder = 3 + (line.name == PAPER) - order / 100
        axes.plot(line.x, line.y, zorder=zorder, **look_of(line.name, names))
    left = WIDTH - LEGEND - 0.2
    write(figure, left, 0.3, "method", color=style.MUTED)
    write(figure, WIDTH - 0.3, 0.3, of_values, color=style.MUTED, ha="right")
    rows = [
        _legend_row(figure, left, 0.66 + ROW * n, line, look_of(line.name, names))
        for n, line in enumerate(lines)
    ]
    fit_alike(rows, LEGEND - 1.65)
    return axes


def look_of(name: str, names: Sequence[str]) -> dict[str, Any]:
    """Returns color, width and dashes of the line of a method among those of all `names`."""
    if name == PAPER:
        return {"color": style.ACCENT, "linewidth": 2.8, "solid_capstyle": "round"}
    if name in _NOT_METHODS:
        dashes = _DASHES[_NOT_METHODS.index(name) % len(_DASHES)]
        return {"color": style.CONTROL, "linewidth": 1.4, "linestyle": dashes}
    if name == OURS:
        return {"color": style.INK, "linewidth": 2.2, "solid_capstyle": "round"}
    rivals = sorted(other for other in names if other not in (PAPER, OURS, *_NOT_METHODS))
    turn, place_in_palette = divmod(rivals.index(name), len(style.RIVALS))
    dashes = ["-", (0, (7, 1.5)), (0, (5, 1.5, 1, 1.5))][turn % 3]  # where there are more than colors
    return {"color": style.RIVALS[place_in_palette], "linewidth": 1.6, "linestyle": dashes}


def _legend_row(figure: Figure, left: float, top: float, line: Line, look: dict[str, Any]) -> Text:
    sample = place(figure, left, top, 0.28, 0.16)
    sample.plot([0.06, 0.94], [0.5, 0.5], **look)
    sample.set(xlim=(0, 1), ylim=(0, 1))
    sample.set_axis_off()
    is_paper = line.name == PAPER
    text: dict[str, Any] = {"weight": "bold", "color": style.ACCENT} if is_paper else {"color": style.INK}
    write(figure, WIDTH - 0.3, top + 0.08, line.value, va="center_baseline", ha="right", **text)
    return write(figure, left + 0.38, top + 0.08, title_of(line.name), va="center_baseline", **text)
