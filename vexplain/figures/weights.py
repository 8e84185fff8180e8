"""The relevance weights of all classes in one chart."""

import numpy as np
from matplotlib.figure import Figure

from vexplain.figures.sheet import fit_alike, place, rectangle, text_width, write
from vexplain.figures.style import (
    INK,
    MUTED,
    PAPER,
    context,
    layer_colors,
    new_figure,
    quiet_axes,
    readable_on,
)
from vexplain.relevance import Relevance, features
from vexplain.relevance._features import WHY_NO_FEATURE

WIDTH, MARGIN, ROW, BAR = 9.6, 0.3, 0.36, 0.64  # inches; BAR is a share of ROW


@context()
def weights_overview(relevance: Relevance) -> Figure:
    """Returns a bar for each class, divided into its relevant features, colored by layer.

    The length of a part is the size of its weight, the number in it the channel; a negative weight is hollow.
    Layers go from light to dark in the order of the network.

    Raises:
        ValueError: no class has a relevant feature.

    Example:
        >>> weights = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.5]])
        >>> layout = (("conv_1", 1), ("conv_2", 2))
        >>> relevance = Relevance(weights, np.zeros(2), np.ones(2), 3.0, layout, ("cat", "dog"))
        >>> figure = weights_overview(relevance)
        >>> [text.get_text() for text in figure.texts][:2]
        ['conv_1', 'conv_2']
    """
    found = [features(relevance, c) for c in range(len(relevance.class_names))]
    used = {feature.layer for some in found for feature in some}
    if not used:
        raise ValueError(f"relevance has no relevant feature in any class, {WHY_NO_FEATURE}")
    layers = [name for name in relevance.layers if name in used]
    colors = dict(zip(layers, layer_colors(len(layers)), strict=True))
    label_width = _label_width(relevance)
    legend = _legend_places(layers, WIDTH - 2 * MARGIN - label_width)
    top = 0.62 + 0.3 * max(row for _, row in legend)
    height = len(found) * ROW
    figure = new_figure(WIDTH, top + height + 0.62)
    for (offset, row), (name, color) in zip(legend, colors.items(), strict=True):
        left, y = MARGIN + label_width + offset, 0.26 + 0.3 * row
        rectangle(figure, left, y, 0.13, 0.13, facecolor=color)
        write(figure, left + 0.2, y, name)
    axes = place(figure, MARGIN + label_width, top, WIDTH - 2 * MARGIN - label_width - 0.9, height)
    _bars(axes, found, colors)
    _names(figure, relevance, found, top, label_width)
    return figure


def _bars(axes, found, colors) -> None:
    longest = max(sum(abs(f.weight) for f in some) for some in found)
    quiet_axes(axes, grid="x")
    axes.set(xlim=(0, longest), ylim=(len(found) - 0.5, -0.5), yticks=[])
    axes.set_xlabel("relevance weight; in each part the channel of the feature", labelpad=6, loc="left")
    inches = axes.get_window_extent().width / axes.figure.dpi / longest
    for row, some in enumerate(found):
        start = 0.0
        for feature in some:
            length, color = abs(feature.weight), colors[feature.layer]
            face = color if feature.weight > 0 else PAPER
            seam = {"edgecolor": PAPER if feature.weight > 0 else color, "linewidth": 1.2}
            axes.barh(row, length, BAR, left=start, facecolor=face, **seam)
            look = {"ha": "center", "va": "center_baseline", "fontsize": 8, "color": readable_on(face)}
            label = axes.text(start + length / 2, row, str(feature.channel), **look)
            if text_width(label) > length * inches - 0.06:
                label.remove()
            start += length


def _names(figure, relevance, found, top, label_width) -> None:
    labels = []
    for row, (name, some) in enumerate(zip(relevance.class_names, found, strict=True)):
        middle = top + (row + 0.5) * ROW
        labels.append(write(figure, MARGIN, middle, name, va="center_baseline", color=INK, fontsize=10))
        count = f"{len(some)} feature{'' if len(some) == 1 else 's'}" if some else "none"
        write(figure, WIDTH - MARGIN, middle, count, va="center_baseline", ha="right", color=MUTED)
    fit_alike(labels, label_width - 0.2)


def _label_width(relevance: Relevance) -> float:
    probe = new_figure(1, 1)
    widths = [text_width(write(probe, 0, 0, name, fontsize=10)) for name in relevance.class_names]
    return float(np.clip(max(widths) + 0.25, 0.8, 2.2))


def _legend_places(layers: list[str], width: float) -> list[tuple[float, int]]:
    """Offset in inches and row of each name, in columns of one width."""
    probe = new_figure(1, 1)
    column = 0.45 + max(text_width(write(probe, 0, 0, name)) for name in layers)
    num_columns = max(1, int(width / column))
    return [(n % num_columns * column, n // num_columns) for n in range(len(layers))]
