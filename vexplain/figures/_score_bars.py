"""How well heatmaps meet the true region, as two numbers a method."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vexplain.evaluation import CEILING, CONTROLS, Score
from vexplain.figures import style
from vexplain.figures.curves import PAPER, ranked_methods
from vexplain.figures.sheet import fit_alike, place, write

WIDTH, MARGIN = 9.6, 0.3  # inches


@style.context()
def score_bars(scores: Mapping[str, Score]) -> Figure:
    """Returns the area under the IoU curve and the best IoU of each method, in percent with standard errors.

    Args:
        scores: by name of the method, what `evaluation.summarize` returned.

    Raises:
        ValueError: `scores` is empty.
    """
    ranked = ranked_methods(scores)
    row, names = 0.34, 2.35
    height = row * len(ranked)
    panel = (WIDTH - 2 * MARGIN - names - 0.5) / 2
    figure = style.new_figure(WIDTH, 0.75 + height + 0.2)
    panels = (("area under the IoU curve", "IoU area"), ("best IoU over thresholds", "best IoU"))
    for n, (title, kind) in enumerate(panels):
        left = MARGIN + names + n * (panel + 0.5)
        write(figure, left, 0.32, title, color=style.MUTED)
        axes = place(figure, left, 0.66, panel - 1.15, height)
        _score_panel(axes, ranked, kind)
        for k, (name, score) in enumerate(ranked):
            value = f"{style.percent(score.mean(kind))} ± {100 * score.standard_error(kind):.1f}"
            look: dict[str, Any] = {"weight": "bold"} if name == PAPER else {}
            write(
                figure, left + panel, 0.66 + (k + 0.5) * row, value, ha="right", va="center_baseline", **look
            )
    labels = []
    for k, (name, _) in enumerate(ranked):
        look: dict[str, Any] = (
            {"weight": "bold", "color": style.OURS} if name == PAPER else {"color": style.INK}
        )
        labels.append(write(figure, MARGIN, 0.66 + (k + 0.5) * row, name, va="center_baseline", **look))
    fit_alike(labels, names - 0.2)
    return figure


def _score_panel(axes, ranked: list[tuple[str, Score]], kind: str) -> None:
    values = np.array([score.mean(kind) for _, score in ranked])
    errors = np.array([score.standard_error(kind) for _, score in ranked])
    style.quiet_axes(axes)
    for k, (name, _) in enumerate(ranked):
        color = style.OURS if name == PAPER else style.FAINT if name in (*CONTROLS, CEILING) else style.RANDOM
        axes.barh(k, values[k], 0.58, color=color)
    axes.errorbar(values, range(len(ranked)), xerr=errors, fmt="none", ecolor=style.INK, elinewidth=1)
    axes.set(xlim=(0, max(float((values + errors).max()), 1e-3)), ylim=(len(ranked) - 0.5, -0.5))
    axes.set(xticks=[], yticks=[])
