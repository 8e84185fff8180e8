"""The tables and the sheet of `experiments.aligned_averages`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vexplain.figures import style
from vexplain.figures.images import pixels, tile
from vexplain.figures.sheet import write

_WAYS = {
    "none": "none (paper)",
    "congealing": "**congealing (ours)**",
    "moments": "moments of the backward signal",
    "log-polar": "log-polar correlation",
    "truth": "true position, angle, size",
}
_COLUMNS, _TILE, _GAP, _MARGIN = 10, 0.82, 0.06, 0.2  # inches
_BAND = 2 * _TILE + _GAP + 0.46


def write_report(out: Path, found: Mapping[str, Any], pictures: Sequence[Sequence[np.ndarray]]) -> str:
    """Writes `aligned_averages.md` and a sheet for each variant, and returns the text of the former."""
    rows = found["features"]
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    for variant in variants:
        here = [n for n, row in enumerate(rows) if row["variant"] == variant]
        figure = sheet([rows[n] for n in here], [pictures[n] for n in here])
        figure.savefig(out / f"aligned_averages_{variant}.png")
    parts = [_summary(rows, variants)]
    for variant in variants:
        parts += [f"`{variant}`", _table([row for row in rows if row["variant"] == variant])]
    text = "\n\n".join(parts) + "\n"
    (out / "aligned_averages.md").write_text(text)
    return text


@style.context()
def sheet(rows: Sequence[Mapping[str, Any]], pictures: Sequence[Sequence[np.ndarray]]) -> Figure:
    """Returns the average image of every feature as the paper has it, and below it the aligned one.

    Of several modes the one with the most crops is shown.
    """
    bands = -(-len(rows) // _COLUMNS)
    width = 2 * _MARGIN + _COLUMNS * (_TILE + _GAP) - _GAP
    figure = style.new_figure(width, 2 * _MARGIN + bands * _BAND)
    for n, (row, images) in enumerate(zip(rows, pictures, strict=True)):
        left = _MARGIN + n % _COLUMNS * (_TILE + _GAP)
        top = _MARGIN + n // _COLUMNS * _BAND
        write(figure, left, top, row["feature"], width=_TILE, fontsize=8)
        write(figure, left, top + 0.15, row["class"], width=_TILE, fontsize=7, color=style.MUTED)
        tile(figure, left, top + 0.32, _TILE, _TILE, pixels(images[0]))
        tile(figure, left, top + 0.32 + _TILE + _GAP, _TILE, _TILE, pixels(images[1]))
    return figure


def _fall(row: Mapping[str, Any], way: str, which: str = "variance") -> float:
    return 100 * (1 - row["ways"][way][which] / row["ways"]["none"][which])


def _summary(rows: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> str:
    """Means over the features of a variant; of the errors, those of features that show the same part."""
    lines = [
        "| alignment | variant | variance falls by, % | with a free offset, % | sharpness | position, px | "
        "angle, flower and leaf, ° | angle, head, ° | size, % |",
        "| --- |" + " --- |" * 8,
    ]
    for way, title in _WAYS.items():
        for variant in variants:
            chosen = [row for row in rows if row["variant"] == variant]
            heads = [row["ways"][way]["degrees"] for row in chosen if row["part"] == "head"]
            others = [row["ways"][way]["degrees"] for row in chosen if row["part"] != "head"]

            def mean(name, way=way, chosen=chosen):
                return np.mean([row["ways"][way][name] for row in chosen])

            falls = [np.mean([_fall(row, way, name) for row in chosen]) for name in _VARIANCES]
            lines.append(
                f"| {title} | `{variant}` | {falls[0]:.0f} | {falls[1]:.0f} | {mean('sharpness'):.2f} | "
                f"{mean('px'):.1f} | {_mean(others)} | {_mean(heads)} | {mean('percent'):.0f} |"
            )
    return "\n".join(lines)


_VARIANCES = ("variance", "variance, free offset")


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.1f}" if values else "–"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "| class | feature | shows | modes | variance | falls by, % | with a free offset, % | sharpness | "
        "position, px | angle, ° | size, % |" + "".join(f" {name}, % |" for name in rows[0]["controls"]),
    ]
    lines.append("| --- |" + " --- |" * (lines[0].count("|") - 2))
    for row in rows:
        none, ours = row["ways"]["none"], row["ways"]["congealing"]
        pairs = [
            f"{none[name]:.{digits}f} → {ours[name]:.{digits}f}"
            for name, digits in (("sharpness", 2), ("px", 1), ("degrees", 0), ("percent", 0))
        ]
        shares = ", ".join(f"{100 * share:.0f} %" for share in row["shares"])
        controls = [f"{100 * gain:.0f}" for gain in row["controls"].values()]
        lines.append(
            f"| {row['class']} | `{row['feature']}` | {row['part']} | {shares} | {none['variance']:.4f} | "
            f"{_fall(row, 'congealing'):.0f} | {_fall(row, 'congealing', _VARIANCES[1]):.0f} | "
            + " | ".join([*pairs, *controls])
            + " |"
        )
    return "\n".join(lines)
