"""The report of the command, and its results as JSON."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vexplain import relevance
from vexplain._files import digest_of_file, plain_json, read_json, write_json
from vexplain.command.arguments import Explain
from vexplain.command.images import predicted_of
from vexplain.command.pictures import Explained, explanation_key, relative_file
from vexplain.figures import (
    Picture,
    Report,
    Section,
    Table,
    explanation_sheet,
    package_versions,
    save_figure,
    weights_overview,
    write_report,
)
from vexplain.relevance import Relevance

_MAX_CLASSES = 30  # whose sheets are inside the report; the files are there of all
_PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "numpy")


def write_results(arguments: Explain, found: Any, explained: Explained, sheets: Mapping[str, Path]) -> Path:
    """Writes results.json, explanations.png and report.html, and returns the path of the report."""
    assert explained.explanation is not None, "of the process that writes"
    results = _results(arguments, found, explained, sheets)
    labels = found.predictions.truth[explained.places] if found.folder.has_labels else None
    sheet = explanation_sheet(explained.images, explained.explanation, found.relevance, labels=labels)
    save_figure(sheet, arguments.out / "explanations.png")
    report = Report(
        title=f"Why {_short(found.model.name)} decided as it did",
        lead=_lead(found, results),
        key_figures=_key_figures(found, results),
        sections=[
            _explanations(found, explained, sheet),
            _learned(found.relevance, sheets),
            _layers(found.table),
            *_left_out(results),
        ],
        settings=results["settings"],
        versions=package_versions(_PACKAGES) | {"devices": results["devices"]},
    )
    path = write_report(arguments.out / "report.html", report)
    write_json(arguments.out / "results.json", results)
    files = ["report.html", "explanations.png", "results.json", *explained.files]
    digests = {file: digest_of_file(arguments.out / file) for file in files}
    write_json(arguments.out / "done.json", {"key": _key(arguments, found), "digests": digests})
    return path


def is_done(arguments: Explain, found: Any) -> bool:
    """Returns whether an earlier run left all results of these settings, as they are now."""
    notes = read_json(arguments.out / "done.json")
    digests = notes.get("digests")
    return (
        notes.get("key") == _key(arguments, found)
        and isinstance(digests, dict)
        and all(digest_of_file(arguments.out / file) == digest for file, digest in digests.items())
    )


def _key(arguments: Explain, found: Any) -> list[Any]:
    free = ("out", "batch_size", "devices")
    shown = {name: value for name, value in vars(arguments).items() if name not in free}
    return [*explanation_key(arguments, found), plain_json(shown)]


def _results(
    arguments: Explain, found: Any, explained: Explained, sheets: Mapping[str, Path]
) -> dict[str, Any]:
    names, predictions = found.relevance.class_names, found.predictions
    has_labels, images = found.folder.has_labels, []
    for place in range(len(predictions.source)):
        image = {"file": relative_file(found, place), **predicted_of(predictions, names, place)}
        if has_labels:
            image["label"] = names[predictions.truth[place]]
        images.append(image | explained.records.get(place, {"heatmaps": {}, "features": []}))
    occurring = set(predictions.predicted.tolist())
    return {
        "model": found.model.name,
        "num_images": len(images),
        "num_skipped": len(predictions.skipped),
        "skipped": predictions.skipped,
        "accuracy": float(np.mean(predictions.truth == predictions.predicted)) if has_labels else None,
        "num_candidates": relevance.layout_size(found.relevance.layout),
        "relevant_features": {
            name: [feature._asdict() for feature in relevance.features(found.relevance, c)]
            for c, name in enumerate(names)
            if c in occurring
        },
        "left_out_classes": [name for c, name in enumerate(names) if c not in occurring],
        "average_images": {
            name: sheet.relative_to(arguments.out).as_posix() for name, sheet in sheets.items()
        },
        "images": images,
        "settings": plain_json(vars(arguments)),
        "devices": f"{len(jax.devices())} × {jax.devices()[0].device_kind}",
    }


def _short(name: str) -> str:
    return name.rpartition(".")[2] if ":" in name else name


def _lead(found: Any, results: Mapping[str, Any]) -> str:
    learned, count = found.relevance, results["num_images"]
    union = sum(map(len, relevance.relevant_union(learned).values()))
    right = "" if results["accuracy"] is None else f", {results['accuracy']:.1%} of them correctly"
    candidates, num_classes = results["num_candidates"], len(results["relevant_features"])
    return (
        f"{_short(found.model.name)} was given {count} images{right}. Of the {candidates:,} internal "
        f"features that were searched, {union} are relevant for one of the {num_classes} classes predicted "
        "here. This report shows which of them explain each image, and what they look like."
    )


def _key_figures(found: Any, results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    counts = [len(features) for features in results["relevant_features"].values()]
    figures = [
        ("images", f"{results['num_images']}", f"{results['num_skipped']} skipped"),
        ("classes predicted", f"{len(counts)}", f"of {found.model.num_classes}"),
        (
            "features a class",
            f"{min(counts)}–{max(counts)}",
            f"of {results['num_candidates']:,}, mu = {results['settings']['mu']:g}",
        ),
    ]
    if results["accuracy"] is not None:
        figures.append(("accuracy", f"{results['accuracy']:.1%}", found.folder.note))
    return figures


def _explanations(found: Any, explained: Explained, sheet: Any) -> Section:
    files = ", ".join(relative_file(found, place) for place in explained.places.tolist())
    return Section(
        "Why these images got their class",
        (
            "The heatmap of an image is the pixel-wise maximum over the maps of the features that are "
            "relevant for the predicted class and strong in this image. Each of these is shown beside it, "
            "under the name of its layer and channel; r is relevance times response. The folder heatmaps has "
            "the map of every image, the folder explanations its row.",
        ),
        (
            Picture(
                sheet,
                f"{len(explained.images)} of {len(explained.records)} explained images, from above: {files}.",
                "A row of heatmaps for each image.",
            ),
        ),
    )


def _learned(found: Relevance, sheets: Mapping[str, Path]) -> Section:
    shown = list(sheets)[:_MAX_CLASSES]
    overview = Picture(
        weights_overview(_of_classes(found, shown)),
        "Relevance weights of each class; a number is the channel, a color the layer.",
        "Stacked bars of relevance weights by class.",
    )
    pictures = [
        Picture(
            sheets[name].read_bytes(),
            f"{name}: each relevant feature, its average image, and the image parts with its best response.",
            f"Average images and image parts of the features relevant for {name}.",
        )
        for name in shown
    ]
    rest = f" Shown are {len(shown)} of {len(sheets)} classes." if len(sheets) > len(shown) else ""
    return Section(
        "What these features look like",
        (
            "A sparse, non-negative regression predicts the decision of the network from the responses of "
            "all channels; the few with a weight are relevant for the class. Each is shown by the average of "
            f"the image parts where it responds most strongly, over images predicted as the class.{rest}",
        ),
        (overview, *pictures),
    )


def _of_classes(found: Relevance, names: list[str]) -> Relevance:
    kept = [found.class_names.index(name) for name in names]
    return dataclasses.replace(
        found,
        weights=found.weights[:, kept],
        gaps=found.gaps[kept],
        penalties=found.penalties[kept],
        class_names=tuple(names),
    )


def _layers(table: Any) -> Section:
    rows = [
        (
            row.name,
            row.kind,
            " × ".join(str(n) for axis, n in enumerate(row.shape) if axis != row.batch_axis),
            "the whole image" if row.sees_whole_image else " × ".join(map(str, row.receptive_field)) + " px",
        )
        for row in table
    ]
    return Section(
        "The layers of the network", table=Table(("name", "kind", "shape", "receptive field"), rows)
    )


def _left_out(results: Mapping[str, Any]) -> list[Section]:
    sections = []
    if results["skipped"]:
        rows = list(results["skipped"].items())
        sections.append(Section("Files that could not be read", table=Table(("file", "reason"), rows)))
    if absent := results["left_out_classes"]:
        shown = ", ".join(absent[:40]) + (f" and {len(absent) - 40} more" if len(absent) > 40 else "")
        text = f"No image is predicted as one of these {len(absent)} classes, which are left out: {shown}."
        sections.append(Section("Classes that do not occur", (text,)))
    return sections
