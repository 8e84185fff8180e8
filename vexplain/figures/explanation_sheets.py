"""Sheets of explanations: the heatmap of each feature that explains an image, beside other methods."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vexplain.figures.images import checked_images, checked_maps, outline, overlay, pixels, show
from vexplain.figures.sheet import place, wrap, write
from vexplain.figures.style import ACCENT, INK, MUTED, TRACK, WRONG, context, new_figure
from vexplain.relevance import Explanation, Relevance, feature_name
from vexplain.typing import AnyArray

IMAGE, GAP, GROUP = 1.08, 0.1, 0.26  # inches; GROUP parts truth, explanation and other methods
MARGIN, GUTTER, HEADER, CAPTION = 0.3, 1.5, 0.85, 0.46
VERDICT = 1.36  # at least, the height of a row


@context()
def explanation_sheet(
    images: AnyArray,
    explanation: Explanation,
    relevance: Relevance,
    *,
    masks: AnyArray | None = None,
    rivals: Mapping[str, AnyArray] | None = None,
    labels: AnyArray | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Returns a sheet, a row for each image: its class, the combined heatmap, one per feature, other methods.

    A dash stands where there is no feature. A wrong prediction is marked in red, with the true class.

    Args:
        images: (batch, height, width, 1 or 3) in [0, 1].
        explanation: what `explain` returned for these images.
        relevance: the relevance it was explained with.
        masks: (batch, height, width) in [0, 1], the true region; outlined on the image and shown beside it.
        rivals: heatmaps of other methods by name, each (batch, height, width) in [0, 1].
        labels: (batch,) the true classes.
        class_names: one a class; those of `relevance` if left out.

    Raises:
        ValueError: shapes or numbers of images, masks, labels, rivals or names that do not fit each other, or
            values beyond [0, 1].
    """
    shown = checked_images(images)
    names = _checked_names(class_names, relevance)
    truth = _checked_labels(labels, len(shown), len(names))
    heatmaps = checked_maps(explanation.heatmaps, shown, name="explanation.heatmaps")
    true_masks = None if masks is None else checked_maps(masks, shown, name="masks")
    others = {
        name: checked_maps(maps, shown, name=f"rivals[{name!r}]") for name, maps in (rivals or {}).items()
    }
    count = np.asarray(explanation.maps).shape[1]
    groups = [1 if true_masks is None else 2, 1 + count, len(others)]
    lefts, first = _columns(groups), groups[0]
    tall = IMAGE * min(1.6, shown.shape[1] / shown.shape[2])
    pitch = max(tall + CAPTION, VERDICT)
    figure = new_figure(lefts[-1] + IMAGE + MARGIN, HEADER + len(shown) * pitch + 0.32)
    parts = ["relevant features together", *(f"feature {k + 1}" for k in range(count))]
    _headings(figure, lefts, [*["image", "true part"][:first], *parts, *others], bold=first)
    for n, image in enumerate(shown):
        top = HEADER + n * pitch
        is_wrong = _verdict(figure, n, top, explanation, names, truth)
        axes = [place(figure, left, top, IMAGE, tall) for left in lefts]
        frame: dict[str, Any] = {"frame": WRONG, "line": 2.0} if is_wrong else {}
        show(axes[0], pixels(image), **frame)
        if true_masks is not None:
            outline(axes[0], true_masks[n])
            show(axes[1], pixels(true_masks[n][..., None]))
        show(axes[first], overlay(image, heatmaps[n]))
        for k in range(count):
            column = first + 1 + k
            _feature(figure, axes[column], n, k, image, explanation, relevance, lefts[column], top + tall)
        for maps, place_of_map in zip(others.values(), axes[first + 1 + count :], strict=True):
            show(place_of_map, overlay(image, maps[n]))
    heat_scale(figure, lefts[first])
    return figure


def _columns(groups: list[int]) -> list[float]:
    """Left edges of the columns; wider gaps part truth, explanation and other methods."""
    lefts, left = [], MARGIN + GUTTER
    for size in groups:
        lefts += [left + n * (IMAGE + GAP) for n in range(size)]
        left += size * (IMAGE + GAP) - GAP + GROUP
    return lefts


def _headings(figure: Figure, lefts: list[float], headings: list[str], *, bold: int) -> None:
    for n, (left, heading) in enumerate(zip(lefts, headings, strict=True)):
        look: dict[str, Any] = {"color": ACCENT, "weight": "bold"} if n == bold else {"color": MUTED}
        text = write(figure, left, HEADER - 0.5, heading, fontsize=8.5, **look)
        wrap(text, IMAGE + 0.04, num_lines=3)
        blank = 2 - text.get_text().count("\n")
        text.set_text("\n" * blank + text.get_text())  # all headings end on one line


def _verdict(figure, n, top, explanation, names, truth) -> bool:
    """Writes the prediction for image n, and returns whether it is wrong."""
    predicted, target = int(np.argmax(explanation.logits[n])), int(explanation.targets[n])
    is_wrong = truth is not None and predicted != int(truth[n])
    lines = [("predicted", {"color": MUTED, "fontsize": 8})]
    lines.append((names[predicted], {"color": INK, "fontsize": 10, "weight": "bold"}))
    if truth is not None:
        verdict = "✗ wrong, it is" if is_wrong else "✓ correct"
        lines.append((verdict, {"color": WRONG if is_wrong else MUTED, "fontsize": 8}))
    if truth is not None and is_wrong:
        lines.append((names[int(truth[n])], {"color": WRONG, "fontsize": 10}))
    if target != predicted:
        lines.append((f"explained: {names[target]}", {"color": MUTED, "fontsize": 8}))
    top += 0.03
    for line, look in lines:
        text = write(figure, MARGIN, top, line, linespacing=1.15, **look)
        wrap(text, GUTTER - 0.2, num_lines=2)
        is_name = look["fontsize"] > 8
        top += (0.17 if is_name else 0.155) * (1 + text.get_text().count("\n")) + 0.07 * is_name
    return is_wrong


def _feature(figure, axes, n, k, image, explanation, relevance, left, bottom) -> None:
    if not bool(explanation.features.valid[n, k]):
        axes.set(xticks=[], yticks=[], facecolor=TRACK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.text(0.5, 0.5, "–", transform=axes.transAxes, ha="center", va="center", color=MUTED, fontsize=13)
        return
    show(axes, overlay(image, np.asarray(explanation.maps[n, k])))
    name = feature_name(relevance, explanation.features.indices[n, k])
    write(figure, left, bottom + 0.05, name, width=IMAGE, fontsize=8.5)
    score = float(explanation.features.scores[n, k])
    write(figure, left, bottom + 0.2, f"r = {score:.2g}", width=IMAGE, fontsize=8, color=MUTED)


def heat_scale(figure: Figure, left: float) -> None:
    """Writes at the foot of a sheet what the colors mean."""
    top = figure.get_size_inches()[1] - 0.33
    axes = place(figure, left + 0.42, top, 1.0, 0.1)
    gray = np.full((1, 128, 3), 0.5)
    show(axes, overlay(gray, np.linspace(0, 1, 128)[None]))
    axes.set_aspect("auto")
    write(figure, left, top + 0.05, "heat 0", va="center", color=MUTED, fontsize=8)
    write(figure, left + 1.48, top + 0.05, "1", va="center", color=MUTED, fontsize=8)


def _checked_names(class_names: Sequence[str] | None, relevance: Relevance) -> Sequence[str]:
    names = relevance.class_names if class_names is None else class_names
    if len(names) != len(relevance.class_names):
        raise ValueError(
            f"class_names has {len(names)} names, but the relevance has {len(relevance.class_names)} classes"
        )
    return names


def _checked_labels(labels: AnyArray | None, num_images: int, num_classes: int) -> np.ndarray | None:
    if labels is None:
        return None
    if labels.shape != (num_images,):
        raise ValueError(f"labels has shape {labels.shape}, but there are {num_images} images: one each")
    if not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}: expected 0 to {num_classes - 1}")
    return np.asarray(labels)
