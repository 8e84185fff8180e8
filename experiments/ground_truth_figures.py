"""The figure of the ground-truth benchmark alone: what of the maps survives shuffled weights."""

from collections.abc import Mapping
from typing import cast

import numpy as np
from matplotlib.figure import Figure

from vexplain.figures import style
from vexplain.figures.curves import Line, draw_lines


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
    """
    if not stages:
        raise ValueError("stages is empty: pass the correlations of one or more methods")
    groups = list(next(iter(stages.values())))
    for name, found in stages.items():
        if list(found) != groups or not groups:
            raise ValueError(f"stages[{name!r}] has groups {list(found)}: expected {groups or 'one or more'}")
    ends = {name: found[groups[-1]] for name, found in stages.items()}
    lines = [
        Line(
            name,
            np.arange(len(groups) + 1.0),
            np.array([1.0, *stages[name].values()]),
            "–" if np.isnan(ends[name]) else f"{ends[name]:.2f}".replace("-", "\N{MINUS SIGN}"),
        )
        for name in sorted(stages, key=lambda name: -np.nan_to_num(ends[name], nan=-2))
    ]
    axes = draw_lines(
        lines, "Spearman\N{RIGHT SINGLE QUOTATION MARK}s correlation with the trained map", "at the end"
    )
    axes.set(xlim=(0, len(groups)), ylim=(min(0, np.nanmin([line.y for line in lines])) - 0.05, 1.05))
    axes.set_xticks(range(len(groups) + 1), ["none", *groups])
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_xlabel("shuffled down to", labelpad=6, loc="left")
    return cast(Figure, axes.figure)
