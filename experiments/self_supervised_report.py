"""The report of `experiments.self_supervised`: what the encoder tells, its clusters, and the maps."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.job import device_names
from experiments.map_sheets import map_sheet
from vexplain.datasets.cue_objects import CUES
from vexplain.figures import Picture, Report, Section, Table, package_versions, save_pictures, write_report

_PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "numpy")


def write_figures_and_report(config: Any, metrics: Mapping[str, Any], sheet: Mapping[str, Any]) -> Path:
    """Writes `figures/*.png` and `report.html`, and returns the path of the report."""
    encoders = metrics["encoders"]
    sections = [
        Section(
            "What the embedding tells",
            (
                "Right answers to the nearest of six prototypes, the mean embeddings of the training images "
                "of each value of a cue: one in six is chance. Mutual information of the clusters and a cue, "
                "over the mean of their entropies. On held-out images.",
            ),
            (Picture(map_sheet(sheet["clusters"]), "The nearest test images.", "Clusters.", "clusters"),),
            told_table(encoders),
        ),
        Section(
            "What the relevant features respond to",
            (
                "The share of the weight of the relevant features that are shape, texture or color features: "
                "those whose response depends most on this cue, by interventions on images with independent "
                "cues.",
            ),
            (),
            features_table(encoders),
        ),
        Section(
            "Where two images are alike",
            (
                "IoU area against the mask of the object, and its bootstrap interval of 95 %. A map explains "
                "the similarity of the embedding to that of another image, or the cluster of the image.",
            ),
            (Picture(map_sheet(sheet["maps"]), "Test images.", "Maps of similarity.", "similarity"),),
            maps_table(encoders),
        ),
    ]
    report = Report(
        title="What an encoder learns without labels",
        lead="An encoder trained by contrast of two views, beside the same network before training.",
        key_figures=[
            (f"{cue} told", f"{encoders['trained']['told'][cue]:.1%}", "by the nearest of six prototypes")
            for cue in CUES
        ],
        sections=sections,
        settings=metrics["settings"],
        versions=package_versions(_PACKAGES) | {"devices": device_names()},
    )
    save_pictures(config.out / "figures", report)
    return write_report(config.out / "report.html", report)


def told_table(encoders: Mapping[str, Any]) -> Table:
    """Accuracy by prototypes and mutual information of the clusters, of each cue."""
    header = ("encoder", *(f"{cue} told, %" for cue in CUES), *(f"clusters and {cue}" for cue in CUES))
    rows = [
        (
            name,
            *(_percent(found["told"][cue]) for cue in CUES),
            *(f"{found['clusters'][cue]:.2f}" for cue in CUES),
        )
        for name, found in encoders.items()
    ]
    return Table(header, rows)


def features_table(encoders: Mapping[str, Any]) -> Table:
    """Of what kind the relevant features of clusters and of attributes are."""
    rows = []
    for name, found in encoders.items():
        groups = {"clusters": found["cluster_features"]}
        groups |= {f"each {cue}": found["attribute_features"][cue] for cue in CUES}
        rows += [
            (name, group, *(_percent(kinds[kind]) for kind in (*CUES, "none")))
            for group, kinds in groups.items()
        ]
    header = ("encoder", "groups", *(f"{cue} features" for cue in CUES), "no cue")
    return Table(header, rows, "Share of the weight, in percent.")


def maps_table(encoders: Mapping[str, Any]) -> Table:
    """IoU area of each map, of both encoders."""
    rows = []
    for n, row in enumerate(next(iter(encoders.values()))["maps"]):
        of_encoders = [found["maps"][n] for found in encoders.values()]
        rows.append((row["method"], row["explained"], *(_area(of) for of in of_encoders)))
    return Table(("map", "explains", *encoders), rows, "IoU area, in percent.")


def _area(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{100 * row['area']:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"
