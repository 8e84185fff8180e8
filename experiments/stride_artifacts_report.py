"""The report of the stride artifacts: pictures layer by layer, and the tables."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.job import device_names
from experiments.map_sheets import map_sheet
from experiments.stride_artifacts_maps import BLURRED, RULE, STRIDE_1, STRIDED, TREATMENTS
from vexplain.figures import (
    Picture,
    Report,
    Section,
    Table,
    package_versions,
    save_pictures,
    write_report,
)

CROP = 64  # pixels of each map that are shown, so that every pixel is seen
COLUMNS = {
    "detail": ("finer than the grid", "{:.1%}"),
    "likeness": ("r with the rule's map", "{:.2f}"),
    "area": ("IoU area", "{:.1%}"),
    "best": ("best IoU", "{:.1%}"),
    "edges": ("r of the edges", "{:.3f}"),
}
PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "numpy")


TITLES = {"vgg_f": "VGG-F", "alexnet": "AlexNet", "resnet50": "ResNet-50"}  # with random weights


def title(network: str) -> str:
    """The name of a network as its authors write it."""
    return TITLES.get(network, network)


class Example(NamedTuple):
    """The heatmaps of one image at one layer, by treatment."""

    network: str
    layer: str
    period: int
    image: np.ndarray
    maps: Mapping[str, np.ndarray]

    @property
    def name(self) -> str:
        return f"{title(self.network)}, {self.layer}, period {self.period}"


def write_figures_and_report(out: Path, metrics: Mapping[str, Any], examples: Sequence[Example]) -> Path:
    """Writes `figures/*.png` and `report.html`, and returns the path of the report."""
    networks = list(dict.fromkeys(row["network"] for row in metrics["rows"]))
    sections = [_overview(examples)]
    for network in networks:
        rows = [row for row in metrics["rows"] if row["network"] == network]
        shown = {e.layer: _cells(e) for e in examples if e.network == network}
        picture = Picture(
            map_sheet(shown),
            f"One image at each layer of {title(network)}, its middle {CROP} × {CROP} pixels.",
            "Heatmaps by layer and treatment.",
            network.split(",")[0],
        )
        sections.append(Section(title(network), (_means(rows),), (picture,), _table(rows)))
    report = Report(
        title="The grid that strided convolutions leave in heatmaps",
        lead=verdict(metrics["rows"]),
        key_figures=_key_figures(metrics),
        sections=sections,
        settings=metrics["settings"],
        versions=package_versions(PACKAGES) | {"devices": device_names()},
    )
    return write_report(out / "report.html", save_pictures(out / "figures", report))


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """Whether the rule keeps more than the blur does of what was measured against the truth, by layer."""
    fixed = [row for row in rows if row["treatment"] == RULE and "area" in row["measures"]]
    parts = []
    for key, what in (("area", "the IoU area"), ("best", "the best IoU"), ("edges", "the edges")):
        gains = {row["layer"]: row["gain_over_blur"][key] for row in fixed}
        more = [layer for layer, (mean, error) in gains.items() if mean > 2 * error]
        less = [layer for layer, (mean, error) in gains.items() if mean < -2 * error]
        parts.append(f"of {what} more at {_list(more)} and less at {_list(less)}")
    return (
        "Against the true part, by two standard errors of the difference, the rule keeps, compared with a "
        f"box blur of the heatmap that is as large as the period of the grid: {'; '.join(parts)}."
    )


def _list(names: Sequence[str]) -> str:
    return " and ".join(names) if names else "no layer"


def _overview(examples: Sequence[Example]) -> Section:
    networks = list(dict.fromkeys(e.network for e in examples))
    of = {network: [e for e in examples if e.network == network] for network in networks}
    chosen = [es[len(es) // 2] for es in of.values()]
    return Section(
        "At a glance",
        (
            "Each layer sends its own activation back through guided ReLUs. The rule enlarges what arrives "
            "at a strided convolution and goes on with stride 1, and so it may at poolings (ours); a blur as "
            "large as the period of the grid "
            "removes it too. At stride 1 the network has the same weights and max pooling in place of the "
            "stride, which makes it another network.",
        ),
        (
            Picture(
                map_sheet({e.name: _cells(e) for e in chosen}),
                f"A layer in the middle of each network; the middle {CROP} × {CROP} pixels of one image.",
                "Heatmaps by network and treatment.",
                "overview",
            ),
        ),
    )


def _cells(example: Example) -> dict[str, np.ndarray]:
    cells = {"image": example.image} | {t: example.maps[t] for t in TREATMENTS if t in example.maps}
    return {name: _middle(values) for name, values in cells.items()}


def _middle(values: np.ndarray) -> np.ndarray:
    top, left = (max(n - CROP, 0) // 2 for n in values.shape[:2])
    shown = values[top : top + CROP, left : left + CROP]
    if shown.ndim == 3:
        return shown
    low, high = shown.min(), shown.max()  # brightest to darkest of what is seen
    return (shown - low) / (high - low) if high > low else np.zeros_like(shown)


def _means(rows: Sequence[Mapping[str, Any]]) -> str:
    periods = sorted({row["period"] for row in rows})
    return (
        f"Harmonics of 1/{', 1/'.join(map(str, periods))}. Grid: energy at the harmonics over that of "
        "neighbors of the same radius, geometric mean over images, 1 where there is no grid; in brackets the "
        "share of the map's energy that it is. Finer than the grid: share of the other energy above half a "
        "cycle a period, which counts speckle as detail. Mean ± standard error."
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    keys = [key for key in COLUMNS if key in rows[0]["measures"]]
    header = ("layer", "map", "grid (share)", *(COLUMNS[key][0] for key in keys))
    return Table(
        header,
        [(row["layer"], row["treatment"], grid(row), *(_cell(row, key) for key in keys)) for row in rows],
        bold_rows=[n for n, row in enumerate(rows) if row["treatment"] == RULE],
    )


def grid(row: Mapping[str, Any]) -> str:
    """Energy ratio and share of the grid, as text."""
    found = row["measures"]
    return f"{math.exp(found['log_energy'][0]):.2f} ({found['share'][0]:.1%})"


def _cell(row: Mapping[str, Any], key: str) -> str:
    (mean, error), form = row["measures"][key], COLUMNS[key][1]
    return f"{form.format(mean)} ± {form.format(error)}"


def _key_figures(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    def mean(treatment):
        found = [row["measures"]["log_energy"][0] for row in metrics["rows"] if row["treatment"] == treatment]
        return f"{math.exp(sum(found) / len(found)):.2f}"

    accuracy = metrics["accuracy"]
    return [
        ("grid, as the networks are", mean(STRIDED), "geometric mean over all layers; 1 is none"),
        ("with the rule", mean(RULE), f"at stride 1: {mean(STRIDE_1)}"),
        ("heatmap blurred", mean(BLURRED), "by a box as large as the period"),
        ("accuracy", f"{accuracy[STRIDED]:.1%}", f"{accuracy[STRIDE_1]:.1%} at stride 1, same weights"),
    ]
