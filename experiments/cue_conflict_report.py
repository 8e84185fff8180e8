"""The report of `experiments.cue_conflict`: the images, who decides by what, and the features of each cue."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

from experiments.cue_conflict_measures import KINDS
from experiments.job import device_names
from vexplain.datasets.cue_objects import CUES, SHAPES, TEXTURES, CueSource, Factors, render_factors
from vexplain.evaluation import ShapeBias
from vexplain.figures import (
    Picture,
    Report,
    Section,
    Table,
    package_versions,
    save_pictures,
    shape_bias_figure,
    style,
    write_report,
)
from vexplain.figures.images import tile
from vexplain.figures.sheet import write

_CELL, _GAP, _LEFT = 0.72, 0.06, 0.95  # inches
_PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "numpy")
_SIZE = 64  # pixels of the images of the gallery
_EFFECTS = {"shape": "of shape", "texture": "of texture", "color": "of color"}


def write_figures_and_report(
    config: Any, metrics: Mapping[str, Any], biases: Mapping[str, ShapeBias]
) -> Path:
    """Writes `figures/*.png` and `report.html`, and returns the path of the report."""
    rows = metrics["rows"]
    sections = [
        _images(),
        _decisions(rows, biases),
        Section(
            "What the relevant features respond to",
            (
                "The share of the weight of the relevant features that are shape, texture or color features: "
                "those whose response depends most on this cue, by interventions on images with independent "
                "cues.",
            ),
            (),
            kinds_table(rows),
        ),
        *(features_section(row) for row in rows if row["name"] in CUES),
    ]
    report = Report(
        title="Which cue does a network use?",
        lead=(
            f"{len(rows)} networks, trained on a class that is told by the shape, the texture or the color "
            "of an object, or by several of them."
        ),
        key_figures=_key_figures(metrics),
        sections=sections,
        settings=metrics["settings"],
        versions=package_versions(_PACKAGES) | {"devices": device_names()},
    )
    return write_report(config.out / "report.html", save_pictures(config.out / "figures", report))


def _images() -> Section:
    text = (
        "Shape, texture and color are drawn independently, or tell the class. The same image is rendered "
        "again with one cue changed."
    )
    picture = Picture(gallery(), "Shapes and textures; interventions.", "Rendered objects.", "gallery")
    return Section("The images", (text,), (picture,))


def _decisions(rows: list[dict[str, Any]], biases: Mapping[str, ShapeBias]) -> Section:
    text = (
        "On images whose shape, texture and color are of three classes. A network that uses neither shape "
        "nor texture has no shape bias."
    )
    picture = Picture(
        shape_bias_figure(biases),
        "A mark is a category of the shape, a line all images, a band the interval of 95 %.",
        "Fractions of texture and shape decisions.",
        "shape_bias",
    )
    return Section("Shape or texture", (text,), (picture,), decisions_table(rows))


def decisions_table(rows: list[dict[str, Any]]) -> Table:
    """Accuracy, shape bias and what is always beside it, and the bias by interventions."""
    header = (
        *("class told by", "accuracy", "shape bias", "interval", "by either cue"),
        *(f"by {cue}" for cue in CUES),
        *(f"changed by {cue}" for cue in CUES),
        "bias by interventions",
    )
    return Table(
        header,
        [
            (
                row["name"],
                _percent(row["accuracy"]),
                _percent(row["bias"]),
                "" if np.isnan(row["bias"]) else "–".join(f"{100 * end:.1f}" for end in row["interval"]),
                _percent(row["decided"]),
                *(_percent(row["decisions"][cue]) for cue in CUES),
                *(_percent(row["changed_decisions"][cue]) for cue in CUES),
                _percent(row["bias_by_interventions"]),
            )
            for row in rows
        ],
        "In percent. By: decisions on images whose cues are in conflict. Changed by: decisions that change "
        "when this cue is changed and nothing else.",
    )


def kinds_table(rows: list[dict[str, Any]]) -> Table:
    """The share of the weight of each kind of features."""
    header = (
        "class told by",
        *(f"{kind} features" if kind in CUES else "no cue" for kind in KINDS),
        "features",
    )
    return Table(
        header,
        [
            (
                row["name"],
                *(_percent(row["features"]["weight"][kind]) for kind in KINDS),
                str(len({f["feature"] for found in row["features"]["classes"].values() for f in found})),
            )
            for row in rows
        ],
        "Share of the weight, in percent, and the number of relevant features.",
    )


def features_section(row: dict[str, Any]) -> Section:
    """The relevant features of each class of a network, with the total effect of each cue."""
    cells = [
        (name, f["feature"], f"{f['weight']:.3f}", *(f"{f['effects'][cue]:.2f}" for cue in CUES), f["kind"])
        for name, found in row["features"]["classes"].items()
        for f in found
    ]
    header = ("class", "feature", "weight", *(_EFFECTS[cue] for cue in CUES), "is a feature of")
    return Section(
        f"Relevant features where the class is the {row['name']}",
        ("The total effect of a cue is the share of the variance of the response that depends on it.",),
        (),
        Table(header, cells),
    )


@style.context()
def gallery() -> Figure:
    """Returns a sheet: each shape with each texture, and images with one cue changed, some with clutter."""
    drawn = CueSource(shape=1.0, num_per_class=7, background="textured", clutter=5).factors(np.arange(42))
    objects = [jax.tree.map(lambda leaf, n=n: leaf[n], drawn) for n in range(42)]
    figure = style.new_figure(_left(11) + 0.2, _top(6) + 0.15)
    for column, texture in enumerate(TEXTURES):
        write(figure, _left(column), 0.3, texture, color=style.MUTED, width=_CELL)
    for column, title in enumerate(("image", *(f"other {cue}" for cue in CUES))):
        write(figure, _left(7 + column), 0.3, title, color=style.MUTED, width=_CELL, fontsize=8)
    for row, shape in enumerate(SHAPES):
        write(figure, 0.15, _top(row) + _CELL / 2, shape, va="center_baseline")
        for column in range(6):
            plain = objects[6 * row + column]._replace(shape=np.int32(row), texture=np.int32(column))
            _show(figure, row, column, plain._replace(waves=None, clutter=None))
        before = objects[36 + row]._replace(shape=np.int32(row))
        before = before if row > 1 else before._replace(waves=None, clutter=None)
        changed = [before._replace(**{cue: (getattr(before, cue) + 2) % 6}) for cue in CUES]
        for column, factors in enumerate((before, *changed)):
            _show(figure, row, 7 + column, factors)
    return figure


def _show(figure: Figure, row: int, column: int, factors: Factors) -> None:
    image = np.asarray(render_factors(factors, size=_SIZE)[0])
    tile(figure, _left(column), _top(row), _CELL, _CELL, image)


def _left(column: float) -> float:
    return _LEFT + column * (_CELL + _GAP)


def _top(row: float) -> float:
    return 0.55 + row * (_CELL + _GAP)


def _percent(value: float) -> str:
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def _key_figures(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    biases = {row["name"]: f"{_percent(row['bias'])} %" for row in metrics["rows"]}
    names = [name for name in ("shape", "texture", "texture and shape") if name in biases]
    correlation = metrics["rank_correlation"]
    return [
        *((f"class is the {name}", biases[name], "shape bias") for name in names),
        (
            "biases alike",
            "–" if np.isnan(correlation) else f"{correlation:.2f}",
            "rank correlation of those by decisions and by interventions",
        ),
    ]
