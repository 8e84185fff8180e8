"""The tables and the curves of `experiments.necessity`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.necessity_measures import CONTROLS, OURS, PAPER, RANDOM
from vexplain.figures import style
from vexplain.figures.sheet import place, write

_WIDTH, _HEIGHT, _LEGEND = 10.8, 4.4, 3.1  # inches
_ORDER = (PAPER, OURS, *CONTROLS)


def write_report(out: Path, found: Mapping[str, Any]) -> str:
    """Writes `necessity.png` and `necessity.md`, and returns the text of the latter."""
    curves(found).savefig(out / "necessity.png")
    text = "\n\n".join([_title(found), *(_table(found, name) for name in found["selections"])]) + "\n"
    (out / "necessity.md").write_text(text)
    return text


@style.context()
def curves(found: Mapping[str, Any]) -> Figure:
    """Returns the accuracy against the number of features that are removed, or kept, of each ranking."""
    figure = style.new_figure(_WIDTH, _HEIGHT)
    width = (_WIDTH - _LEGEND - 1.9) / 2
    panels = (
        (0.65, "removed", f"without the first n of {_num_features(found):,} features (set to zero)"),
        (1.25 + width, "kept", f"with only the first n of {found['last_layer']} (the others at their mean)"),
    )
    for left, which, title in panels:
        axes = place(figure, left, 0.7, width, _HEIGHT - 1.4)
        _draw(axes, found[which])
        write(figure, left, 0.3, title, color=style.MUTED)
        axes.set_xlabel("n", labelpad=4, loc="right")
    write(figure, 0.65, 0.5, "held-out accuracy, %", color=style.MUTED)
    for row, name in enumerate((*_ORDER, RANDOM)):
        top = 0.9 + 0.33 * row
        sample = place(figure, _WIDTH - _LEGEND - 0.1, top, 0.28, 0.16)
        sample.plot([0.06, 0.94], [0.5, 0.5], **_look(name))
        sample.set(xlim=(0, 1), ylim=(0, 1))
        sample.set_axis_off()
        look: Any = {"weight": "bold", "color": style.ACCENT} if name == PAPER else {"color": style.INK}
        write(figure, _WIDTH - _LEGEND + 0.28, top + 0.08, name, va="center_baseline", **look)
    return figure


def _draw(axes: Axes, found: Mapping[str, Any]) -> None:
    style.quiet_axes(axes, grid="y")
    places = np.arange(len(found["counts"]))  # the counts double, so that even steps are a logarithm
    for name in _ORDER:
        values = 100 * np.array(found[name])
        axes.plot(places[: len(values)], values, marker="o", markersize=2.5, **_look(name))
    draws = 100 * np.array(found[RANDOM])
    axes.fill_between(places, draws.min(0), draws.max(0), color=style.FAINT, zorder=0)
    axes.plot(places, draws.mean(0), **_look(RANDOM))
    axes.set(xlim=(-0.2, len(places) - 0.8), ylim=(0, 103))
    axes.set_xticks(places, [f"{n:,}" for n in found["counts"]])


def _look(name: str) -> dict[str, Any]:
    if name == PAPER:
        return {"color": style.ACCENT, "linewidth": 2.6, "zorder": 5}
    if name == OURS:
        return {"color": style.INK, "linewidth": 2.0, "zorder": 4}
    if name == RANDOM:
        return {"color": style.CONTROL, "linewidth": 1.4, "linestyle": (0, (4, 2))}
    return {"color": style.RIVALS[CONTROLS.index(name)], "linewidth": 1.5}


def _num_features(found: Mapping[str, Any]) -> int:
    return sum(size for _, size in found["layers"])


def _title(found: Mapping[str, Any]) -> str:
    return (
        f"{found['network']} on {found['data']}: {_num_features(found):,} features of {len(found['layers'])} "
        f"layers, accuracy {found['accuracy']:.1%}, {found['num_test_images']} images under ablation"
    )


def _table(found: Mapping[str, Any], selection: str) -> str:
    """Accuracies in percent: of the union, then of the class whose features are gone, and of the others."""
    counts, size = found["num_selected"][selection], found["num_union"][selection]
    by_how = found["selections"][selection]
    used = ", ".join(f"{n} of {name}" for name, n in found["by_layer"][selection].items() if n)
    lines = [
        f"{selection}: {size} features ({used}), {min(counts)}–{max(counts)} a class",
        "",
        "| without, as many of each layer | "
        + " | ".join(f"all, {how} | class, {how} | others, {how}" for how in by_how)
        + " |",
        "| --- |" + " --- |" * (3 * len(by_how)),
    ]
    for name in ("nothing", "selection", *CONTROLS, RANDOM):
        cells = []
        for how in by_how:
            cells.append(_percent(by_how[how]["union"][name]))
            classes = by_how[how]["per_class"].get(name, {})
            cells += [
                f"{100 * np.mean(classes[which]):.1f}" if classes else "" for which in ("own", "others")
            ]
        title = f"**{selection}**" if name == "selection" else name
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(value: Any) -> str:
    if not isinstance(value, list):
        return f"{100 * value:.1f}"
    return f"{100 * np.mean(value):.1f} ({100 * min(value):.1f}–{100 * max(value):.1f})"
