"""How well heatmaps meet the true region: the curve of each method over all thresholds."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from vexplain.evaluation import CEILING, CONTROLS, OURS, Score
from vexplain.figures import style
from vexplain.figures.sheet import fit_alike, place, write

WIDTH, HEIGHT, LEGEND, ROW = 10.4, 4.2, 3.75, 0.33  # inches
_NOT_METHODS = (*CONTROLS, CEILING)
_DASHES = [(0, (4, 2)), (0, (1.2, 1.6)), (0, (6, 1.5)), (0, (6, 1.5, 1.2, 1.5)), (0, (2.5, 1))]


@style.context()
def iou_curves(scores: Mapping[str, Score]) -> Figure:
    """Returns the mean IoU of each method over the thresholds, in percent, the largest area listed first.

    The paper's method is bold, controls that know nothing of the network are gray and dashed.

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
    ranked = ranked_methods(scores)
    height = max(HEIGHT, 0.9 + ROW * len(ranked))
    figure = style.new_figure(WIDTH, height)
    axes = place(figure, 0.65, 0.62, WIDTH - LEGEND - 1.3, height - 1.3)
    style.quiet_axes(axes, grid="y")
    axes.set(xlim=(0, 1))
    axes.set_xlabel("threshold of the heatmap", labelpad=6, loc="left")
    write(figure, 0.65, 0.3, "mean IoU with the true part, %", color=style.MUTED)
    for order, (name, score) in enumerate(ranked):
        thresholds = np.linspace(0, 1, len(score.curve))
        axes.plot(
            thresholds, 100 * score.curve, zorder=3 + (name == OURS) - order / 100, **look_of(name, ranked)
        )
    top = max(float(np.max(score.curve)) for _, score in ranked)
    axes.set_ylim(0, 105 * max(top, 0.1))
    left = WIDTH - LEGEND - 0.2
    write(figure, left, 0.3, "method", color=style.MUTED)
    write(figure, WIDTH - 0.3, 0.3, "area under the curve", color=style.MUTED, ha="right")
    names = [
        _legend_row(figure, left, 0.66 + ROW * n, name, score, look_of(name, ranked))
        for n, (name, score) in enumerate(ranked)
    ]
    fit_alike(names, LEGEND - 1.65)
    return figure


def ranked_methods(scores: Mapping[str, Score]) -> list[tuple[str, Score]]:
    """Returns methods and scores, the largest area first.

    Args:
        scores: by name of the method.

    Raises:
        ValueError: `scores` is empty.
    """
    if not scores:
        raise ValueError("scores is empty: pass what evaluation.summarize(...) returned")
    return sorted(scores.items(), key=lambda item: -item[1].mean("IoU area"))


def look_of(name: str, ranked: list[tuple[str, Score]]) -> dict[str, Any]:
    """Returns color, width and dashes of the line of a method.

    Args:
        name: of the method.
        ranked: from `ranked_methods`.
    """
    if name == OURS:
        return {"color": style.OURS, "linewidth": 2.8, "solid_capstyle": "round"}
    if name in _NOT_METHODS:
        dashes = _DASHES[_NOT_METHODS.index(name) % len(_DASHES)]
        return {"color": style.CONTROL, "linewidth": 1.4, "linestyle": dashes}
    rivals = sorted(other for other, _ in ranked if other != OURS and other not in _NOT_METHODS)
    turn, place_in_palette = divmod(rivals.index(name), len(style.RIVALS))
    dashes = ["-", (0, (7, 1.5)), (0, (5, 1.5, 1, 1.5))][turn % 3]  # where there are more than colors
    return {"color": style.RIVALS[place_in_palette], "linewidth": 1.6, "linestyle": dashes}


def _legend_row(
    figure: Figure, left: float, top: float, name: str, score: Score, look: dict[str, Any]
) -> Text:
    sample = place(figure, left, top, 0.28, 0.16)
    sample.plot([0.06, 0.94], [0.5, 0.5], **look)
    sample.set(xlim=(0, 1), ylim=(0, 1))
    sample.set_axis_off()
    text: dict[str, Any] = {"weight": "bold", "color": style.OURS} if name == OURS else {"color": style.INK}
    area, error = score.mean("IoU area"), score.standard_error("IoU area")
    value = f"{style.percent(area)} ± {100 * error:.1f}"
    write(figure, WIDTH - 0.3, top + 0.08, value, va="center_baseline", ha="right", **text)
    return write(figure, left + 0.38, top + 0.08, name, va="center_baseline", **text)
