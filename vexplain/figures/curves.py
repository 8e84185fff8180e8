"""A curve for each method: how well its heatmaps meet the true region, what of them survives shuffling."""

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


class _Line(NamedTuple):
    """One method of a figure, in the order of the legend."""

    name: str
    x: np.ndarray
    y: np.ndarray
    value: str  # beside the name


@style.context()
def iou_curves(scores: Mapping[str, Score]) -> Figure:
    """Returns the mean IoU of each method over the thresholds, in percent, the largest area listed first.

    The paper's method is bold, our own map dark, controls that know nothing of the network gray and dashed.

    Args:
        scores: by name of the method, what `evaluation.summarize` returned.

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
        lines.append(_Line(name, thresholds, 100 * score.curve, value))
    axes = _drawn(lines, "mean IoU with the true part, %", "area under the curve")
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * max(10, *(float(np.max(line.y)) for line in lines))))
    axes.set_xlabel("threshold of the heatmap", labelpad=6, loc="left")
    return cast(Figure, axes.figure)


@style.context()
def randomization_curves(stages: Mapping[str, Mapping[str, float]]) -> Figure:
    """Returns how the map of each method loses what it had as layer after layer is shuffled.

    Spearman's correlation with the map of the trained network over the stages of cascading randomization,
    from the output down; the most alike at the end is listed first. A method that explains the network falls.

    Args:
        stages: by name of the method, the mean correlation by the group of weights that the stage shuffled,
            the same groups in the same order for all; NaN where no map varies.

    Raises:
        ValueError: `stages` is empty, or the groups of two methods differ.

    Example:
        >>> figure = randomization_curves({"gradient": {"head": 0.6, "stem": 0.1}})
        >>> [text.get_text() for text in figure.texts][-2:]
        ['0.10', 'gradient']
    """
    if not stages:
        raise ValueError("stages is empty: pass the correlations of one or more methods")
    groups = list(next(iter(stages.values())))
    for name, found in stages.items():
        if list(found) != groups or not groups:
            raise ValueError(f"stages[{name!r}] has groups {list(found)}: expected {groups or 'one or more'}")
    ends = {name: found[groups[-1]] for name, found in stages.items()}
    lines = [
        _Line(
            name,
            np.arange(len(groups) + 1.0),
            np.array([1.0, *stages[name].values()]),
            "–" if np.isnan(ends[name]) else f"{ends[name]:.2f}".replace("-", "\N{MINUS SIGN}"),
        )
        for name in sorted(stages, key=lambda name: -np.nan_to_num(ends[name], nan=-2))
    ]
    axes = _drawn(
        lines, "Spearman\N{RIGHT SINGLE QUOTATION MARK}s correlation with the trained map", "at the end"
    )
    axes.set(xlim=(0, len(groups)), ylim=(min(0, np.nanmin([line.y for line in lines])) - 0.05, 1.05))
    axes.set_xticks(range(len(groups) + 1), ["none", *groups])
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_xlabel("shuffled down to", labelpad=6, loc="left")
    return cast(Figure, axes.figure)


def _drawn(lines: Sequence[_Line], title: str, of_values: str) -> Axes:
    """The lines on axes, beside a legend that lists them with their values."""
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
    """Returns color, width and dashes of the line of a method.

    Args:
        name: of the method.
        names: of all methods.
    """
    if name == PAPER:
        return {"color": style.OURS, "linewidth": 2.8, "solid_capstyle": "round"}
    if name in _NOT_METHODS:
        dashes = _DASHES[_NOT_METHODS.index(name) % len(_DASHES)]
        return {"color": style.CONTROL, "linewidth": 1.4, "linestyle": dashes}
    if name == OURS:
        return {"color": style.INK, "linewidth": 2.2, "solid_capstyle": "round"}
    rivals = sorted(other for other in names if other not in (PAPER, OURS, *_NOT_METHODS))
    turn, place_in_palette = divmod(rivals.index(name), len(style.RIVALS))
    dashes = ["-", (0, (7, 1.5)), (0, (5, 1.5, 1, 1.5))][turn % 3]  # where there are more than colors
    return {"color": style.RIVALS[place_in_palette], "linewidth": 1.6, "linestyle": dashes}


def _legend_row(figure: Figure, left: float, top: float, line: _Line, look: dict[str, Any]) -> Text:
    sample = place(figure, left, top, 0.28, 0.16)
    sample.plot([0.06, 0.94], [0.5, 0.5], **look)
    sample.set(xlim=(0, 1), ylim=(0, 1))
    sample.set_axis_off()
    is_paper = line.name == PAPER
    text: dict[str, Any] = {"weight": "bold", "color": style.OURS} if is_paper else {"color": style.INK}
    write(figure, WIDTH - 0.3, top + 0.08, line.value, va="center_baseline", ha="right", **text)
    return write(figure, left + 0.38, top + 0.08, title_of(line.name), va="center_baseline", **text)
