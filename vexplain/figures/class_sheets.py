"""What was learned: for each class its relevant features, how much they weigh, and what they look like."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from vexplain.figures.images import pixels, tile
from vexplain.figures.sheet import rectangle, text_width, write
from vexplain.figures.style import ACCENT, MUTED, TRACK, context, new_figure, percent
from vexplain.relevance import FeatureView

NUM_CROPS = 9  # beside the average
AVERAGE, CROP, GAP = 1.12, 0.8, 0.07  # inches
AVERAGE_GAP = 0.12
MARGIN, HEADER, ROW = 0.3, 1.05, 1.38
NAME = {"fontsize": 11, "weight": "bold"}


@context()
def class_sheet(views: Sequence[FeatureView], *, class_name: str | None = None) -> Figure:
    """Returns a sheet of the relevant features of one class, a row each, the largest weight first.

    A row has the name of the feature as `layer[channel]`, its relevance weight and its share of the class,
    the average of the crops as they are (*paper*), those of the aligned crops (*ours*) with the share of the
    crops that each is of, and the best crops. Pixels outside of the image are light gray.

    Args:
        views: what `interpret` returned; images are (height, width, 1 or 3) in [0, 1].
        class_name: which class to show; needed where `views` has several.

    Raises:
        ValueError: there is no view, none of this class, or several classes and no `class_name`.

    Example:
        >>> import numpy as np
        >>> crops, none = np.full((4, 5, 5, 3), 0.5), np.zeros(4)
        >>> view = FeatureView("cat", "conv_1", 2, 1.5, crops[0], crops, none, none, False)
        >>> figure = class_sheet([view])
        >>> [text.get_text() for text in figure.texts][0]
        'cat'
    """
    chosen = _of_one_class(views, class_name)
    gutter = _gutter(chosen)
    averages = 1 + max(len(view.aligned) for view in chosen)
    left = MARGIN + gutter + averages * (AVERAGE + AVERAGE_GAP) + 0.3 - AVERAGE_GAP  # of the crops
    width = left + NUM_CROPS * (CROP + GAP) - GAP + MARGIN
    figure = new_figure(width, HEADER + len(chosen) * ROW + 0.12)
    total = sum(abs(view.weight) for view in chosen)
    _header(figure, chosen, gutter, left)
    for n, view in enumerate(chosen):
        _row(figure, view, abs(view.weight) / total if total else 0.0, HEADER + n * ROW, gutter, left)
    return figure


def _of_one_class(views: Sequence[FeatureView], class_name: str | None) -> list[FeatureView]:
    names = list(dict.fromkeys(view.class_name for view in views))
    if not names:
        raise ValueError("views is empty: pass what interpret(...) returned")
    if class_name is None and len(names) > 1:
        raise ValueError(f"views has {len(names)} classes, {names}: choose one by class_name")
    if class_name is not None and class_name not in names:
        raise ValueError(f"class_name is {class_name!r}: views has {names}")
    chosen = [view for view in views if view.class_name == (class_name or names[0])]
    return sorted(chosen, key=lambda view: -abs(view.weight))


def _gutter(views: list[FeatureView]) -> float:
    """Room for the names in inches, so that few are shortened."""
    probe = new_figure(1, 1)
    return min(3.2, max(1.75, *(0.3 + text_width(write(probe, 0, 0, _name(view), **NAME)) for view in views)))


def _name(view: FeatureView) -> str:
    return f"{view.layer}[{view.channel}]"


def _header(figure: Figure, views: list[FeatureView], gutter: float, crops: float) -> None:
    count = f"{len(views)} relevant feature{'' if len(views) == 1 else 's'}"
    title: dict[str, Any] = {"width": figure.get_figwidth() - 2 * MARGIN, "fontsize": 15, "weight": "bold"}
    write(figure, MARGIN, 0.26, views[0].class_name, **title)
    write(figure, MARGIN, 0.72, count, color=MUTED)
    left = MARGIN + gutter
    sizes = sorted({len(view.indices) for view in views})
    num = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    write(figure, left, 0.72, f"average of {num}", width=AVERAGE, color=MUTED)
    if any(view.aligned for view in views):
        write(figure, left + AVERAGE + AVERAGE_GAP, 0.72, "aligned", width=AVERAGE, color=MUTED)
    write(figure, crops, 0.72, "best crops, strongest response first", color=MUTED)


def _row(figure: Figure, view: FeatureView, share: float, top: float, gutter: float, crops: float) -> None:
    _label(figure, view, share, top, gutter - 0.25)
    left = MARGIN + gutter
    tile(figure, left, top, AVERAGE, AVERAGE, pixels(view.average))
    for aligned in view.aligned:
        left += AVERAGE + AVERAGE_GAP
        tile(figure, left, top, AVERAGE, AVERAGE, pixels(aligned.image))
        if len(view.aligned) > 1:
            text = percent(aligned.share, digits=0)
            write(figure, left + AVERAGE / 2, top + AVERAGE + 0.04, text, ha="center", color=MUTED)
    for crop in view.crops[:NUM_CROPS]:
        tile(figure, crops, top + (AVERAGE - CROP) / 2, CROP, CROP, pixels(crop))
        crops += CROP + GAP


def _label(figure: Figure, view: FeatureView, share: float, top: float, room: float) -> None:
    height, width = view.receptive_field or view.average.shape[:2]
    field = "sees the whole image" if view.sees_whole_image else f"sees {height} × {width} px"
    write(figure, MARGIN, top + 0.05, _name(view), width=room, **NAME)
    write(figure, MARGIN, top + 0.34, f"weight {view.weight:.3g}".replace("-", "\N{MINUS SIGN}"))
    write(figure, MARGIN + room, top + 0.34, percent(share, digits=0), color=MUTED, ha="right")
    rectangle(figure, MARGIN, top + 0.57, room, 0.055, color=TRACK)
    rectangle(figure, MARGIN, top + 0.57, room * share, 0.055, color=ACCENT)
    write(figure, MARGIN, top + 0.74, field, width=room, color=MUTED)
