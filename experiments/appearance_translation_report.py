"""The report of appearance-preserving translation: models beside references, and pictures of what they do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.appearance_translation_data import ShapeSwap
from experiments.appearance_translation_scores import references, scores_in
from experiments.job import device_names
from experiments.shape_translation_figures import loss_curves
from experiments.shape_translation_scores import in_direction, means, recall
from experiments.shape_translation_sheets import translation_sheet
from vexplain.figures import Picture, Report, Section, Table, package_versions, save_pictures, write_report

PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
COLUMNS = {  # name, heading, format, factor
    "iou_gain": ("IoU gain", ".3f", 1),
    "hue_error": ("hue error, °", ".1f", 1),
    "l1": ("L1 on the mask", ".3f", 1),
    "texture": ("texture", ".2f", 1),
    "ssim": ("SSIM on the mask", ".2f", 1),
    "overlap_error": ("overlap L1", ".3f", 1),
    "background_l1": ("L1 beside it", ".3f", 1),
    "centroid_error": ("centroid, px", ".2f", 1),
    "recall": ("R@1 of 20, %", ".0f", 100),
    "score": ("S", ".3f", 1),
}
GALLERIES = {
    "retrieval": (
        "Is the same garment found in the other domain?",
        "An input ranks 20 objects of the other domain, all in its partner's pose; chance is 5 % and 25 %.",
    ),
    "retrieval, colors": (
        "And among garments of its own colors?",
        "The 20 have the two colors of the partner too, and about as much of each: only patterns differ. "
        "Inputs are those with a pattern.",
    ),
}
ARROWS = {"ab": "A → B", "ba": "B → A"}
NUM_SHOWN = 16


def write_appearance_report(
    config, data: ShapeSwap, history: Mapping[str, Any], metrics: Mapping[str, Any]
) -> Path:
    """Writes `report.html` and figures, with a row for each training under `config.out`; returns its path."""
    pairs = data.pairs()
    runs = _runs(config.out, metrics)
    found = metrics["scores"]["ab"]
    report = Report(
        title="The same garment in another shape",
        lead=(
            "Two domains of rendered objects, never shown in pairs. One model draws the shape of the other "
            "domain and carries the texture of the input; because the true partner of every test image is "
            f"known, both are measured. The model of this run is “{_title(metrics)}”, after "
            f"{metrics['steps']} steps."
        ),
        key_figures=[
            ("IoU gain", f"{found['iou_gain']:.2f}", "0 copies the input, 1 is the true shape"),
            ("L1", f"{found['l1']:.3f}", "on the true mask"),
            ("texture", f"{found['texture']:.2f}", "correlation after removing the mean color"),
            ("S", f"{found['score']:.2f}", "harmonic mean of shape and appearance"),
        ],
        sections=[
            _grids(pairs, runs),
            _table(pairs, runs, data),
            *(_retrieval(runs, name, words) for name, words in GALLERIES.items()),
            _answers(config.folder),
            _probes(runs),
            Section(
                "Training",
                (),
                (
                    Picture(
                        loss_curves(history["values"], steps=history["steps"]),
                        "Losses (running averages) and scores on 100 test pairs.",
                        "Curves over the steps.",
                        "losses",
                    ),
                ),
            ),
        ],
        settings=metrics["settings"],
        versions=package_versions(PACKAGES) | {"devices": device_names()},
    )
    return write_report(config.out / "report.html", save_pictures(config.out / "figures", report))


def _title(metrics: Mapping[str, Any]) -> str:
    name = " + ".join(metrics["carriers"]) or "painted"
    name += "".join(f", without {loss}" for loss in metrics["without"])
    return name + ", with pairs (upper bound)" * metrics["settings"]["paired"]


def _runs(out: Path, metrics: Mapping[str, Any]) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Trainings on the same data, by title."""
    same = ("data", "level", "variant", "size", "num_pairs", "seed")
    found = {}
    for path in sorted(out.glob("*/metrics.json")):
        content = json.loads(path.read_text())
        if content["settings"].get("a") is None and all(
            content["settings"].get(name) == metrics["settings"][name] for name in same
        ):
            found[_title(content)] = (path.parent, content)
    return found


def _grids(pairs: Any, runs: Mapping[str, tuple[Path, Any]]) -> Section:
    pictures = []
    for direction, arrow in ARROWS.items():
        images, _, targets, _ = in_direction(pairs, direction)
        rows = {}
        for name, (folder, _) in runs.items():
            with np.load(folder / "outputs.npz") as file:
                rows[name] = file[direction][:NUM_SHOWN].astype(np.float32) / 255
        sheet = translation_sheet(
            images[:NUM_SHOWN], rows, truths=targets[:NUM_SHOWN, 0], max_columns=NUM_SHOWN
        )
        caption = f"{arrow}: test images, their translations by every model, and the truth."
        pictures.append(Picture(sheet, caption, "Rows of images.", f"translations-{direction}"))
    return Section("What it does", (), pictures)


def _table(pairs: Any, runs: Mapping[str, tuple[Path, Any]], data: ShapeSwap) -> Section:
    rows = []
    for direction, arrow in ARROWS.items():
        gallery = data.galleries(pairs, direction, "pose")
        for name, (made, masks) in references(pairs, direction, data).items():
            found = means(scores_in(made, pairs, direction, masks=masks))
            found["recall"] = recall(made, gallery)
            rows.append((name, arrow, *_cells(found), "", "", ""))
    num_references = len(rows)
    for name, (_, content) in runs.items():
        for direction, arrow in ARROWS.items():
            size = f"{content['num_parameters'] / 1e6:.2f}"
            effort = (size, content["steps"], f"{content['minutes']:.1f}")
            rows.append((name, arrow, *_cells(content["scores"][direction]), *effort))
    headings = (heading for heading, *_ in COLUMNS.values())
    return Section(
        "Shape and texture, measured",
        (
            "IoU gain is 0 for a copy of the input and 1 for the true shape; texture is the correlation with "
            "the true pattern on the true mask after the mean color was removed, where there is a pattern; "
            "S is the harmonic mean of shape and appearance. Two references are told the true mask.",
        ),
        (),
        Table(
            ("method", "", *headings, "million parameters", "steps", "minutes"),
            rows,
            f"Means over {len(pairs.images_a)} test pairs.",
            tuple(range(num_references, len(rows))),
        ),
    )


def _cells(found: Mapping[str, float]) -> list[str]:
    return [format(found[name] * factor, form) for name, (_, form, factor) in COLUMNS.items()]


def _retrieval(runs: Mapping[str, tuple[Path, Any]], key: str, words: tuple[str, str]) -> Section:
    rows = []
    for name, (_, content) in runs.items():
        for direction, arrow in ARROWS.items():
            for way, found in content["scores"][direction][key].items():
                shares = [f"{100 * found[k]:.0f}" for k in ("R@1", "R@5")]
                rest = (f"{found['mean rank']:.1f}", f"{found['mAP']:.2f}", found["numbers"])
                rows.append((name, arrow, way, *shares, *rest))
    return Section(
        words[0],
        (words[1],),
        (),
        Table(
            ("model", "", "by", "R@1, %", "R@5, %", "mean rank", "mAP", "numbers"),
            rows,
            "With one right answer, mAP is the mean reciprocal rank.",
        ),
    )


def _answers(folder: Path) -> Section:
    pictures = []
    with np.load(folder / "answers.npz") as file:
        for direction, arrow in ARROWS.items():
            shown = file[direction].astype(np.float32) / 255
            rows = {f"answer {n}": shown[:, n] for n in range(1, shown.shape[1])}
            sheet = translation_sheet(shown[:, 0], rows, max_columns=NUM_SHOWN)
            caption = f"{arrow}: inputs, and of 20 objects of their colors those that this model ranks first."
            pictures.append(Picture(sheet, caption, "Columns of images.", f"answers-{direction}"))
    return Section("What is found", ("The right answer has a green frame.",), pictures)


def _probes(runs: Mapping[str, tuple[Path, Any]]) -> Section:
    rows, names = [], ()
    for name, (_, content) in runs.items():
        for direction, arrow in ARROWS.items():
            for code, found in content["scores"][direction]["probes"].items():
                names = tuple(found)
                rows.append((name, arrow[0], code, *(f"{share:.2f}" for share in found.values())))
    return Section(
        "What do the codes tell?",
        (
            "The share of the variance of each factor of the rendering that a linear function of the code "
            "predicts, of images that it was not fitted to: 1 is all, 0 is nothing.",
        ),
        (),
        Table(
            ("model", "images of", "code", *(name.replace("_", " ") for name in names)),
            rows,
            "Fineness and angle are those of objects with a pattern.",
        ),
    )
