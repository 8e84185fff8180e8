"""The report of the command, and its results as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vexplain import relevance
from vexplain._files import digest_of_file, plain_json, read_json, write_json
from vexplain.catalog import title_of
from vexplain.command.arguments import Explain
from vexplain.command.images import predicted_of
from vexplain.command.pictures import Record, explanation_key, files_of, relative_file, spread
from vexplain.figures import (
    Card,
    Gallery,
    Report,
    Section,
    Sheet,
    SheetRow,
    Table,
    package_versions,
    write_report,
)

_PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "numpy")


def write_results(
    arguments: Explain,
    found: Any,
    records: Mapping[int, Record],
    sheets: Mapping[str, dict[str, Any]],
) -> Path:
    """Writes results.json and report.html, and returns the path of the report.

    Args:
        arguments: of the command line.
        found: the results of the steps before.
        records: what `explain_images` returned.
        sheets: what `save_class_sheets` returned.
    """
    results = _results(arguments, found, records, sheets)
    report = Report(
        title=f"Why {_short(found.model.name)} decided as it did",
        lead=_lead(found, results),
        key_figures=_key_figures(found, results),
        gallery=_gallery(arguments, found, results, sheets),
        sections=[_layers(found.table), *_left_out(results)],
        settings=results["settings"],
        versions=package_versions(_PACKAGES) | {"devices": results["devices"]},
    )
    path = write_report(arguments.out / "report.html", report, is_single_file=arguments.single_file)
    write_json(arguments.out / "results.json", results)
    files = [
        "report.html",
        "results.json",
        *(file for record in records.values() for file in files_of(record)),
    ]
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
    arguments: Explain,
    found: Any,
    records: Mapping[int, Record],
    sheets: Mapping[str, dict[str, Any]],
) -> dict[str, Any]:
    names, predictions = found.relevance.class_names, found.predictions
    has_labels, images = found.folder.has_labels, []
    for place in range(len(predictions.source)):
        image = {"file": relative_file(found, place), **predicted_of(predictions, names, place)}
        if has_labels:
            image["label"] = names[predictions.truth[place]]
        images.append(
            image | records.get(place, {"image": "", "heatmaps": {}, "feature_maps": "", "features": []})
        )
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
        "average_images": {name: sheet["sheet"] for name, sheet in sheets.items()},
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
        f"{_short(found.model.name)} classified {count:,} images{right}. Of the {candidates:,} internal "
        f"features that were searched, {union} are relevant for one of the {num_classes} classes predicted "
        "here. This report shows which of them explain each image, and what they look like."
    )


def _key_figures(found: Any, results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    counts = [len(features) for features in results["relevant_features"].values()]
    figures = [
        ("images", f"{results['num_images']:,}", f"{results['num_skipped']} skipped"),
        ("classes predicted", f"{len(counts)}", f"of {found.model.num_classes}"),
        (
            "features a class",
            f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}",
            f"of {results['num_candidates']:,}, mu = {results['settings']['mu']:g}",
        ),
    ]
    if results["accuracy"] is not None:
        figures.append(("accuracy", f"{results['accuracy']:.1%}", found.folder.note))
    return figures


def _gallery(
    arguments: Explain, found: Any, results: Mapping[str, Any], sheets: Mapping[str, dict[str, Any]]
) -> Gallery:
    every = np.arange(results["num_images"])
    images = [results["images"][place] for place in spread(found.predictions, every, len(every))]
    images = [image for image in images if image["image"]][: arguments.num_shown]
    right_and_wrong = ", right and wrong" if found.folder.has_labels else ""
    size = found.model.resizing.size
    part = (
        f" Shown are {len(images):,} of {results['num_images']:,}."
        if len(images) < results["num_images"]
        else ""
    )
    return Gallery(
        cards=[_card(image) for image in images],
        sheets={
            name: Sheet([SheetRow(*row) for row in sheet["rows"]], sheet["averages"], sheet["crops"])
            for name, sheet in sheets.items()
        },
        image_size=(size, size),
        paragraphs=(
            "Each image, with the map of a method laid over it, and the features that are relevant for the "
            "predicted class and strong in this image: where they are seen, and what they look like. The "
            f"first images are balanced over the classes{right_and_wrong}.{part}",
        ),
        class_paragraphs=(
            "A sparse, non-negative regression predicts the decision of the network from the responses of "
            "all channels; the few with a weight are relevant for the class. Each is shown by averages of "
            "the image parts where it responds most strongly, over images predicted as the class: after the "
            "parts were aligned, one for each kind of them, and as they are.",
        ),
    )


def _card(image: Mapping[str, Any]) -> Card:
    return Card(
        name=image["file"],
        predicted=image["predicted"],
        probability=image["probability"],
        truth=image.get("label"),
        image=image["image"],
        maps={_titled(method): file for method, file in image["heatmaps"].items()},
        features=[(feature["feature"], feature["score"]) for feature in image["features"]],
        feature_maps=image["feature_maps"],
        labels=image.get("labels", ()),
    )


def _titled(method: str) -> str:
    title = title_of(method)
    return title[0].upper() + title[1:]


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
