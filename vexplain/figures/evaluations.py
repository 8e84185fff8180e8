"""Methods by metrics: a panel for each metric, the methods from the best to the worst, with intervals."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from vexplain.catalog import title_of
from vexplain.evaluation import CEILING, CONTROLS, Evaluation
from vexplain.figures import style
from vexplain.figures.curves import OURS, PAPER
from vexplain.figures.sheet import Inches, fit_alike, place, rectangle, write

PANEL, NAMES, RANKS, GAP, MARGIN = 3.5, 1.6, 0.5, 0.25, 0.3  # inches, of the width
TITLE, ROW, AXIS = 0.62, 0.21, 0.5  # inches, of the height
_ARROWS = {"higher": "↑", "lower": "↓"}


@style.context()
def evaluation_figure(evaluation: Evaluation, *, num_columns: int = 3) -> Figure:
    """Returns a panel for each metric: the mean of each method with its interval, the best at the top.

    Beside each method is its rank, or the interval of it where the bootstrap changes it. A line separates
    neighbors whose order changes in few of the resamplings (no more than the interval leaves out); without
    one, that they differ is not shown. The paper's method is in the strong color, our own map dark, controls
    gray.

    Args:
        evaluation: what `evaluation.evaluate` returned.
        num_columns: panels side by side.

    Raises:
        ValueError: there is no metric, or `num_columns` is less than 1.

    Example:
        >>> from vexplain.evaluation import as_metrics
        >>> values = {"sparseness": {"gradient": np.array([0.2, 0.3]), "grad_cam": np.array([0.5, 0.6])}}
        >>> found = Evaluation(values, as_metrics("sparseness"), num_images=2)
        >>> [text.get_text() for text in evaluation_figure(found).texts]
        ['sparseness ↑', 'order changes in 0 % of resamplings', 'rank', 'Grad-CAM', '1', 'gradient', '2']
    """
    names = tuple(evaluation.metrics)
    if not names:
        raise ValueError("evaluation has no metric: pass what evaluation.evaluate(...) returned")
    if num_columns < 1:
        raise ValueError(f"num_columns is {num_columns}: expected at least 1")
    columns = min(num_columns, len(names))
    rows, height = -(-len(names) // columns), TITLE + ROW * len(evaluation.methods) + AXIS
    figure = style.new_figure(2 * MARGIN - GAP + columns * (PANEL + GAP), 2 * MARGIN - 0.1 + rows * height)
    labels: list[Text] = []
    for n, name in enumerate(names):
        row, column = divmod(n, columns)
        left, top = MARGIN + column * (PANEL + GAP), MARGIN + row * height
        labels += _panel(figure, left, top, evaluation, name)
    fit_alike(labels, NAMES - 0.1)
    return figure


def _panel(figure: Figure, left: Inches, top: Inches, evaluation: Evaluation, name: str) -> list[Text]:
    """Draws the panel of one metric, and returns the names of the methods."""
    metric = evaluation.metrics[name]
    title = f"{name.replace('_', ' ')} {_ARROWS[metric.is_better]}"
    write(figure, left, top, title, width=PANEL - RANKS, weight="bold")
    means = {method: evaluation.mean(name, method) for method in evaluation.methods}
    if np.isnan(list(means.values())).any():
        write(figure, left, top + 0.2, "undefined for every image", color=style.MUTED, fontsize=7.5)
        return []
    ranking, intervals = evaluation.ranking(name), evaluation.intervals(name)
    changed = f"order changes in {style.percent(ranking.share_changed, digits=0)} of resamplings"
    look: dict[str, Any] = {"color": style.MUTED, "fontsize": 7.5}
    write(figure, left, top + 0.2, changed, width=PANEL - RANKS, **look)
    write(figure, left + PANEL, top + 0.2, "rank", ha="right", **look)
    start, count = top + TITLE - 0.16, len(ranking.methods)
    axes = place(figure, left + NAMES, start, PANEL - NAMES - RANKS, ROW * count)
    style.quiet_axes(axes, grid="x")
    axes.xaxis.set_major_locator(MaxNLocator(3, min_n_ticks=2))
    axes.tick_params(labelsize=7.5, pad=3)
    axes.set_yticks([])
    labels = []
    for n, method in enumerate(ranking.methods):
        color, (low, high) = _color(method), intervals[method]
        axes.plot([low, high], [n, n], color=color, linewidth=1.6, solid_capstyle="butt")
        axes.plot([means[method]], [n], color=color, marker="o", markersize=4, clip_on=False)
        middle: dict[str, Any] = {"va": "center_baseline"}
        row = start + ROW * (n + 0.5)
        weight = "bold" if method == PAPER else "normal"
        labels.append(write(figure, left, row, title_of(method), color=color, weight=weight, **middle))
        ranks = sorted({round(rank) for rank in ranking.ranks[method]})
        text = "–".join(str(rank) for rank in (ranks[0], ranks[-1])[: len(ranks)])
        write(figure, left + PANEL, row, text, ha="right", fontsize=7.5, color=style.MUTED, **middle)
    for n, share in enumerate(ranking.changes.values()):
        if share <= 1 - evaluation.coverage:
            rectangle(figure, left, start + ROW * (n + 1), PANEL, 0.007, color=style.CONTROL)
    axes.set(ylim=(count - 0.5, -0.5))
    axes.margins(x=0.08)
    axes.autoscale(axis="x")
    return labels


def _color(method: str) -> str:
    if method in (*CONTROLS, CEILING):
        return style.CONTROL
    return {PAPER: style.ACCENT, OURS: style.INK}.get(method, style.RIVALS[0])
