"""Shape or texture, category by category: the figure that is customary for cue conflicts."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vexplain.evaluation import ShapeBias
from vexplain.figures import style
from vexplain.figures.sheet import fit_alike, place, write

WIDTH, LEFT, LEGEND, ROW, LINE = 10.4, 1.35, 4.1, 0.3, 0.33  # inches
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@style.context()
def shape_bias_figure(biases: Mapping[str, ShapeBias]) -> Figure:
    """Returns the fraction of texture and shape decisions for each category of the shape, of each observer.

    A mark is an observer and a category; a line is an observer over all images, in a band that is the
    interval. Beside it, the shares of images that were decided for the shape, for the texture, and for
    neither. A category without a decision for either cue has no mark.

    Args:
        biases: what `evaluation.shape_bias` returned, by name of the observer, with the same categories.

    Raises:
        ValueError: `biases` is empty, or the categories differ.

    References:
        Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019, Figure 4.

    Example:
        >>> from vexplain.evaluation import shape_bias
        >>> found = shape_bias(["cat", "dog"], shapes=["cat", "cat"], textures=["dog", "dog"])
        >>> [text.get_text() for text in shape_bias_figure({"a network": found}).texts][-2:]
        ['50 / 50 / 0', 'a network']
    """
    categories = _categories(biases)
    height = max(1.5 + ROW * len(categories), 1.1 + LINE * len(biases))
    figure = style.new_figure(WIDTH, height)
    axes = place(figure, LEFT, 0.75, WIDTH - LEFT - LEGEND - 0.5, height - 1.5)
    _prepare(axes, categories)
    left = WIDTH - LEGEND - 0.1
    write(figure, left, 0.42, "observer", color=style.MUTED)
    write(figure, WIDTH - 1.5, 0.42, "shape bias", color=style.MUTED, ha="right")
    write(
        figure, WIDTH - 0.2, 0.42, "shape / texture / neither, %", color=style.MUTED, ha="right", fontsize=6.5
    )
    names = []
    for n, (name, found) in enumerate(biases.items()):
        look: dict[str, Any] = {"color": style.RIVALS[n % len(style.RIVALS)]}
        look["marker"] = _MARKERS[(n + n // len(style.RIVALS)) % len(_MARKERS)]
        _draw(axes, found, look, place_within=(n + 0.5) / len(biases) - 0.5)
        names.append(_legend(figure, left, 0.72 + LINE * n, name, found, look))
    fit_alike(names, LEGEND - 2.45)
    return figure


def _prepare(axes: Axes, categories: list[str]) -> None:
    style.quiet_axes(axes, grid="x")
    axes.set(xlim=(0, 1), ylim=(len(categories) - 0.5, -0.5))
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks, [f"{tick:.1f}" for tick in ticks])
    axes.set_yticks(range(len(categories)), [style.drawable(name) for name in categories])
    for line in np.arange(len(categories) + 1) - 0.5:
        axes.axhline(line, color=style.FAINT, linewidth=0.6, zorder=0)
    axes.set_xlabel("fraction of texture decisions", labelpad=4)
    top = axes.secondary_xaxis("top", functions=(_complement, _complement))
    top.set_xticks(ticks, [f"{tick:.1f}" for tick in ticks])
    top.tick_params(length=0, colors=style.MUTED, labelsize=9)
    top.spines["top"].set_visible(False)
    top.set_xlabel("fraction of shape decisions", labelpad=4)


def _draw(axes: Axes, found: ShapeBias, look: dict[str, Any], *, place_within: float) -> None:
    """The marks of observers lie one below the other within a row, so that equal ones are seen."""
    if np.isnan(found.bias):
        return
    texture = 1 - np.array([part.bias for part in found.categories.values()])
    low, high = found.interval
    axes.axvspan(1 - high, 1 - low, color=look["color"], alpha=0.15, linewidth=0, zorder=1)
    axes.axvline(1 - found.bias, color=look["color"], linewidth=1.2, zorder=2, clip_on=False)
    rows = np.arange(len(texture)) + 0.7 * place_within
    axes.plot(texture, rows, linestyle="", markersize=5, zorder=3, clip_on=False, **look)


def _legend(figure: Figure, left: float, top: float, name: str, found: ShapeBias, look: dict[str, Any]):
    sample = place(figure, left, top, 0.2, 0.16)
    sample.plot([0.5], [0.5], linestyle="", markersize=6, **look)
    sample.set(xlim=(0, 1), ylim=(0, 1))
    sample.set_axis_off()
    middle: dict[str, Any] = {"va": "center_baseline", "ha": "right"}
    bias = "not defined" if np.isnan(found.bias) else style.percent(found.bias)
    write(figure, WIDTH - 1.5, top + 0.08, bias, **middle)
    shares = (found.shape_accuracy, found.texture_accuracy, 1 - found.decided)
    write(figure, WIDTH - 0.2, top + 0.08, " / ".join(f"{100 * share:.0f}" for share in shares), **middle)
    return write(figure, left + 0.28, top + 0.08, name, va="center_baseline")


def _complement(fraction: Any) -> Any:
    return 1 - fraction


def _categories(biases: Mapping[str, ShapeBias]) -> list[str]:
    if not biases:
        raise ValueError("biases is empty: pass what evaluation.shape_bias returned, by name of the observer")
    lists = {name: list(found.categories) for name, found in biases.items()}
    first, *others = lists.values()
    if not first or any(other != first for other in others):
        raise ValueError(
            f"biases: the categories of the observers are {lists}: expected one list, the same for all"
        )
    return first
