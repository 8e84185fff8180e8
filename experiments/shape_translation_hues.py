"""Which colors a model confuses: how far the hue of its translations is from the truth, model by model.

A model that was never told which color belongs to which may still be consistent, and wrong: it has learned
an automorphism of the colors, one that turns all hues by the same angle. Its errors then gather around that
angle and not around 0, so a heap away from 0 is red and carries its angle.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vexplain.figures import style
from vexplain.figures.sheet import place, text_width, wrap, write
from vexplain.typing import AnyArray, Float

BIN = 10  # degrees; the bins are centered, so that 0 is in the middle of one
NUM_BINS = 360 // BIN
AWAY = 20  # degrees from 0, beyond which a heap is another hue
HEAP = 0.2  # of the examples within three bins, of which chance has 1/12
FEWEST = 5  # examples; fewer are chance
WIDTH, MARGIN, NAMES, VALUES = 9.6, 0.3, 2.0, 1.2  # inches
TOP, ROW, GAP, FOOT = 0.62, 0.82, 0.22, 0.62


class Heap(NamedTuple):
    """A peak of hue errors away from 0."""

    angle: float  # the circular mean around it, in degrees in [-180, 180]
    share: float  # of all errors within its bins, in [0, 1]
    bins: np.ndarray  # three of them, 0 the one around 0 degrees


@style.context()
def hue_histogram(errors: Mapping[str, AnyArray]) -> Figure:
    """Returns the hue errors of each model as a histogram, and the median of their absolute values.

    Errors are around a circle: -180 and 180 are the same, and their bin is drawn half at either end. All
    histograms have the same scale. Where a fifth of the examples or more lie within three bins that are a
    peak more than 20 degrees from 0, the bins are red.

    Args:
        errors: by name of the model, (n,) signed angles in degrees in [-180, 180], for instance
            `(hue(colors) - hue(truth) + 180) % 360 - 180`; not `hue_error`, which has no sign.

    Raises:
        ValueError: there is no model, a model without errors, NaN, or angles beyond [-180, 180].

    Example:
        >>> figure = hue_histogram({"VAE": np.full(10, 120.0)})
        >>> [text.get_text() for text in figure.texts][-2:], figure.axes[0].texts[0].get_text()
        (['VAE', '120.0°'], '+120°, 100 %')
    """
    checked = _checked(errors)
    highest = max(float(_shares(angles).max()) for angles in checked.values())
    figure = style.new_figure(WIDTH, TOP + len(checked) * (ROW + GAP) - GAP + FOOT)
    left, panel = MARGIN + NAMES + 0.45, WIDTH - 2 * MARGIN - NAMES - 0.45 - VALUES
    write(figure, MARGIN, 0.28, "model", color=style.MUTED)
    write(figure, left, 0.28, f"share of the translations in bins of {BIN}°", color=style.MUTED)
    write(figure, WIDTH - MARGIN, 0.28, "median |error|", ha="right", color=style.MUTED)
    for n, (name, angles) in enumerate(checked.items()):
        top = TOP + n * (ROW + GAP)
        axes = place(figure, left, top, panel, ROW)
        _panel(axes, angles, highest, is_last=n + 1 == len(checked))
        label = write(figure, MARGIN, top + ROW / 2, name, va="center", linespacing=1.15)
        wrap(label, NAMES - 0.2, num_lines=4)
        median = f"{np.median(np.abs(angles)):.1f}°"
        look: dict[str, Any] = {"ha": "right", "va": "center_baseline", "weight": "bold"}
        write(figure, WIDTH - MARGIN, top + ROW / 2, median, **look)
    return figure


def hue_heaps(errors: Float[np.ndarray, " n"]) -> list[Heap]:
    """Returns where errors gather away from 0, the largest heap first.

    A heap is three neighboring bins around the circle that hold more than those beside them.

    Args:
        errors: (n,) signed angles in degrees in [-180, 180].

    Example:
        >>> heap = hue_heaps(np.array([0.0, 1.0] * 5 + [118.0, 122.0] * 5))[0]
        >>> round(heap.angle), heap.share
        (120, 0.5)
    """
    of_error = _bins(errors)
    counts = np.bincount(of_error, minlength=NUM_BINS)
    sums = counts + np.roll(counts, 1) + np.roll(counts, -1)
    scores = sums + counts  # the middle counts twice, so that a heap is about its highest bin
    is_peak = np.all([scores > np.roll(scores, k) for k in (1, 2)], axis=0)
    is_peak &= np.all([scores >= np.roll(scores, -k) for k in (1, 2)], axis=0)
    is_away = np.abs((BIN * np.arange(NUM_BINS) + 180) % 360 - 180) > AWAY
    found = []
    for middle in np.flatnonzero(is_peak & is_away & (sums >= max(FEWEST, HEAP * len(errors)))):
        bins = np.arange(middle - 1, middle + 2) % NUM_BINS
        found.append(Heap(_mean_near(errors, float(BIN * middle)), float(sums[middle] / len(errors)), bins))
    return sorted(found, key=lambda heap: -heap.share)


def _mean_near(errors: np.ndarray, angle: float) -> float:
    """The circular mean of the errors within two bins of itself, found from an angle near it."""
    turns = np.exp(1j * np.radians(errors))
    direction = np.exp(1j * np.radians(angle))
    for _ in range(10):
        is_near = np.abs(np.angle(turns / direction, deg=True)) < 2 * BIN
        direction = turns[is_near].mean()
    return float(np.angle(direction, deg=True))


def _bins(errors: np.ndarray) -> np.ndarray:
    """The bin of each error, 0 the one around 0 degrees."""
    return np.floor(errors / BIN + 0.5).astype(int) % NUM_BINS


def _shares(errors: np.ndarray) -> np.ndarray:
    return np.bincount(_bins(errors), minlength=NUM_BINS) / len(errors)


def _panel(axes: Axes, angles: np.ndarray, highest: float, *, is_last: bool) -> None:
    style.quiet_axes(axes, grid="x")
    axes.tick_params(labelsize=8)
    shares, centers = _shares(angles), np.arange(-180, 181, BIN)
    bins, heaps = centers // BIN % NUM_BINS, hue_heaps(angles)
    red = np.isin(bins, [place for heap in heaps for place in heap.bins])
    colors = np.where(red, style.WRONG, style.RANDOM)
    axes.bar(centers, shares[bins], 0.88 * BIN, color=colors.tolist(), zorder=3)
    level, ticks = _round_share(highest), range(-180, 181, 60)
    axes.hlines([0, level], -180, 180, color=style.FAINT, linewidth=0.8, zorder=1, clip_on=False)
    axes.vlines(0, 0, 1.3 * highest, color=style.CONTROL, linewidth=0.8, zorder=2)
    axes.set(xlim=(-180, 180), ylim=(0, 1.3 * highest), xticks=ticks, yticks=[level])
    axes.set_xticklabels([signed_angle(x) for x in ticks])
    axes.set_yticklabels([f"{100 * level:g} %"])
    axes.tick_params(labelbottom=is_last)
    if is_last:
        axes.set_xlabel("error of the hue, from the truth", labelpad=4, loc="left", fontsize=9)
    _label_heaps(axes, heaps, shares)


def _label_heaps(axes: Axes, heaps: list[Heap], shares: np.ndarray) -> None:
    """Writes angle and share above each heap; of heaps too close for that, above the larger one."""
    centers, taken = np.arange(-180, 181, BIN), []
    look: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8.5, "weight": "bold"}
    look["bbox"] = {"facecolor": style.PAPER, "linewidth": 0, "pad": 0.6}  # no hairline crosses it
    figure = axes.get_figure(root=True)
    assert figure is not None
    degrees_per_inch = 360 / (axes.get_position().width * figure.get_figwidth())
    for heap in heaps:
        text = axes.text(0, 0, f"{signed_angle(heap.angle)}, {style.percent(heap.share, digits=0)}", **look)
        half = text_width(text) * degrees_per_inch / 2
        middle = float(np.clip(heap.angle, half - 180, 180 - half))
        if any(abs(middle - other) < half + room + 4 for other, room in taken):
            text.remove()
            continue
        taken.append((middle, half))
        below = np.abs(centers - middle) < half + BIN / 2
        height = shares[centers[below] // BIN % NUM_BINS].max()
        text.set(x=middle, y=height + 0.03 * axes.get_ylim()[1], color=style.WRONG, zorder=5)


def signed_angle(angle: float | int) -> str:
    """Returns an angle in whole degrees, with its sign.

    Args:
        angle: in degrees, in [-180, 180].

    Example:
        >>> [signed_angle(angle) for angle in (-60.2, 0, 119.9, -180)]
        ['−60°', '0°', '+120°', '180°']
    """
    whole = round(angle)
    sign = "" if whole in (-180, 0, 180) else "+" if whole > 0 else "\N{MINUS SIGN}"
    return f"{sign}{abs(whole)}°"


def _round_share(highest: float) -> float:
    """The largest of the shares 0.01, 0.02, 0.05, 0.1 ... that is drawn."""
    return max((step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if step <= highest), default=0.01)


def _checked(errors: Mapping[str, AnyArray]) -> dict[str, np.ndarray]:
    if not errors:
        raise ValueError('errors is empty: give at least one model, {"name": its hue errors in degrees}')
    checked = {name: np.asarray(angles, np.float64) for name, angles in errors.items()}
    for name, angles in checked.items():
        if angles.ndim != 1 or not len(angles):
            raise ValueError(
                f"errors[{name!r}] has shape {angles.shape}: expected (n,), with 1 error or more"
            )
        if not np.isfinite(angles).all():
            raise ValueError(f"errors[{name!r}] holds NaN or infinite angles: leave out images without a hue")
        if np.abs(angles).max() > 180:
            raise ValueError(
                f"errors[{name!r}] goes from {angles.min():g} to {angles.max():g}: expected signed degrees "
                "in [-180, 180]; take them there by (x + 180) % 360 - 180"
            )
    return checked
