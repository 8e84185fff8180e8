"""The report of shape translation: the ladder of models beside the controls, and pictures of what they do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.job import device_names
from experiments.shape_translation_figures import interpolation_sheet, loss_curves
from experiments.shape_translation_hues import hue_histogram
from experiments.shape_translation_scores import (
    controls,
    galleries,
    hue_errors,
    hue_offset,
    means,
    recall,
    scores_of,
)
from experiments.shape_translation_sheets import translation_sheet
from vexplain.datasets import Source
from vexplain.datasets.shape_swap import Pairs
from vexplain.figures import (
    Picture,
    Report,
    Section,
    Table,
    package_versions,
    save_pictures,
    write_report,
)
from vexplain.translation import Translator

PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
TITLES = {
    "vae": "two VAEs",
    "gan": "+ GAN",
    "cycle": "+ cycle",
    "similarity": "+ similarity",
    "shared": "+ similarity, shared encoder",
    "cyclegan": "CycleGAN",
    "unit": "UNIT",
    "supervised": "with pairs (upper bound)",
}
COLUMNS = {  # name, heading, format, factor
    "iou_gain": ("IoU gain", ".3f", 1),
    "hue_error": ("hue error, °", ".0f", 1),
    "delta_e": ("ΔE", ".1f", 1),
    "l1": ("L1 on the mask", ".3f", 1),
    "ssim": ("SSIM on the mask", ".2f", 1),
    "centroid_error": ("centroid, px", ".2f", 1),
    "recall": ("R@1 of 20, %", ".0f", 100),
    "score": ("S", ".3f", 1),
}
ARROWS = {"ab": "A → B", "ba": "B → A"}
NUM_SHOWN = 12


def write_ladder_report(
    out: Path,
    pairs: Pairs,
    candidates: Source,
    translator: Translator,
    generator: Any,
    history: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Path:
    """Writes `report.html` and figures of a rung, with a row for each rung under `out`; returns its path."""
    found = _runs(out, metrics)
    runs = {TITLES[rung]: run for (rung, seed), run in found.items() if seed == metrics["settings"]["seed"]}
    outputs = {name: _outputs(folder) for name, (folder, _) in runs.items()}
    sections = [
        _grids(pairs, outputs, metrics),
        _ladder(pairs, candidates, runs, metrics["settings"]["level"]),
        _hues(pairs, outputs),
        *_seeds(pairs, found),
        _cycles(runs),
        _training(history),
        _interpolation(pairs, translator, generator),
    ]
    found = metrics["scores"]["ab"]
    report = Report(
        title="Shape translation: the same object in another shape",
        lead=_warning(metrics)
        + (
            f"Two domains of rendered objects, {' and '.join(candidates.class_names)}, never shown in pairs. "
            "A model of two variational autoencoders with GAN, cycle and similarity losses translates one "
            "into the other; because the true partner of every test image is known, shape and appearance are "
            f"measured. The model of this run is “{TITLES[metrics['rung']]}”, after {metrics['steps']} steps."
        ),
        key_figures=[
            ("IoU gain", f"{found['iou_gain']:.2f}", "0 copies the input, 1 is the true shape"),
            ("hue error", f"{found['hue_error']:.0f}°", "median over test pairs"),
            ("R@1", f"{found['recall']:.0%}", "of 20 in the true pose; chance is 5 %"),
            ("S", f"{found['score']:.2f}", "harmonic mean of shape and appearance"),
        ],
        sections=sections,
        settings=metrics["settings"],
        versions=package_versions(PACKAGES) | {"devices": device_names()},
    )
    return write_report(out / "report.html", save_pictures(out / "figures", report))


def _warning(metrics: Mapping[str, Any]) -> str:
    """Where the training of this run collapsed."""
    found = [f"{direction}: {reason}" for direction, reason in metrics["collapsed"].items() if reason]
    if not found:
        return ""
    return (
        f"Warning: the training of this run collapsed ({'; '.join(found)}). Its scores say nothing about the "
        "model; a smaller learning rate may help. "
    )


def _runs(out: Path, metrics: Mapping[str, Any]) -> dict[tuple[str, int], tuple[Path, dict[str, Any]]]:
    """Trainings on the same data by rung and seed, in the order of the ladder."""
    same = ("level", "variant", "size", "num_pairs")
    found = {}
    for path in sorted(out.glob("*/metrics.json")):
        content = json.loads(path.read_text())
        settings = content["settings"]
        if all(settings[name] == metrics["settings"][name] for name in same):
            found[content["rung"], settings["seed"]] = (path.parent, content)
    return dict(sorted(found.items(), key=lambda item: (list(TITLES).index(item[0][0]), item[0][1])))


def _outputs(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "outputs.npz") as file:
        return {direction: file[direction].astype(np.float32) / 255 for direction in ("ab", "ba")}


def _grids(pairs: Pairs, outputs: Mapping[str, Any], metrics: Mapping[str, Any]) -> Section:
    title, n = TITLES[metrics["rung"]], NUM_SHOWN
    mine = outputs[title]
    pictures = [
        Picture(
            translation_sheet(pairs.images_a[:n], {title: mine["ab"][:n]}, truths=pairs.images_b[:n]),
            "From A to B: test images, their translations, and the truth.",
            "Rows of inputs, translations and true images.",
            "translations-ab",
        ),
        Picture(
            translation_sheet(pairs.images_b[:n], {title: mine["ba"][:n]}, truths=pairs.images_a[:n]),
            "From B to A.",
            "Rows of inputs, translations and true images.",
            "translations-ba",
        ),
    ]
    if len(outputs) > 1:
        rows = {name: made["ab"][:n] for name, made in outputs.items()}
        sheet = translation_sheet(pairs.images_a[:n], rows, truths=pairs.images_b[:n], bold=title)
        pictures.append(Picture(sheet, "The same test images by every model.", "A row a model.", "ladder"))
    return Section("What it does", (), pictures)


def _ladder(pairs: Pairs, candidates: Source, runs: Mapping[str, Any], level: int) -> Section:
    gallery = galleries(pairs, "ab", level=level)
    known = candidates[np.arange(min(3000, len(candidates)))]["images"]
    rows = []
    for name, made in controls(pairs, known, level=level).items():
        found = means(scores_of(made, pairs, "ab")) | {"recall": recall(made, gallery)}
        rows.append((name, "A → B", *_cells(found), "", "", ""))
    for name, (_, content) in runs.items():
        for direction, arrow in ARROWS.items():
            size = f"{content['num_parameters'] / 1e6:.1f}"
            effort = (size, content["steps"], f"{content['minutes']:.0f}")
            rows.append((name, arrow, *_cells(content["scores"][direction]), *effort))
    header = (
        "method",
        "",
        *(heading for heading, *_ in COLUMNS.values()),
        "million parameters",
        "steps",
        "minutes",
    )
    num_controls = len(rows) - 2 * len(runs)
    return Section(
        "Shape and appearance, measured",
        (
            "IoU gain is 0 for a copy of the input and 1 for the true shape; S is the harmonic mean of shape "
            "and appearance. The upper rows are controls that learn nothing; “mean color” uses the true "
            "mask and is a reference for transferring color alone.",
        ),
        (),
        Table(
            header,
            rows,
            f"Means over {len(pairs.images_a)} test pairs.",
            tuple(range(num_controls, len(rows))),
        ),
    )


def _cells(found: Mapping[str, float]) -> list[str]:
    return [format(found[name] * factor, form) for name, (_, form, factor) in COLUMNS.items()]


def _hues(pairs: Pairs, outputs: Mapping[str, Any]) -> Section:
    errors = {name: hue_errors(made["ab"], pairs, "ab") for name, made in outputs.items()}
    return Section(
        "Does the color stay?",
        (
            "The errors of the hue. A heap away from 0 is a change of all hues that GAN and cycle losses do "
            "not notice: what a similarity loss is for.",
        ),
        (
            Picture(
                hue_histogram(errors),
                "Signed hue errors over the test pairs.",
                "Histograms by model.",
                "hues",
            ),
        ),
    )


def _seeds(pairs: Pairs, found: Mapping[tuple[str, int], Any]) -> list[Section]:
    """Rungs that were trained with several seeds, seed by seed; nothing where there are none."""
    rungs = [rung for rung, _ in found]
    several = {key: run for key, run in found.items() if rungs.count(key[0]) > 1}
    if not several:
        return []
    rows, histograms = [], {}
    for (rung, seed), (folder, content) in several.items():
        outputs, name = _outputs(folder), f"{TITLES[rung]}, seed {seed}"
        for direction, arrow in ARROWS.items():
            errors = hue_errors(outputs[direction], pairs, direction)
            offset, agreement = hue_offset(errors)
            scores, losses = content["scores"][direction], content["losses"]
            values = (np.median(np.abs(errors)), offset, agreement, scores["iou_gain"], scores["l1"])
            numbers = [f"{v:{f}}" for v, f in zip(values, (".0f", "+.0f", ".2f", ".2f", ".3f"), strict=True)]
            shown = [f"{losses[loss]:.3f}" if loss in losses else "" for loss in ("gan", "cycle")]
            rows.append((name, arrow, content["steps"], *numbers, *shown))
            if direction == "ab":
                histograms[name] = errors
    header = ("method", "", "steps", "hue error, °", "mean offset, °", "agreement", "IoU gain")
    table = Table(
        (*header, "L1 on the mask", "GAN loss", "cycle loss"),
        rows,
        "The offset is the circular mean of the signed hue errors; agreement is 1 where all errors are equal "
        "and near 0 where they point everywhere. Losses are sums over both directions.",
    )
    return [
        Section(
            "Does another seed find other colors?",
            (
                "Without a similarity loss nothing but the networks themselves ties the colors of the two "
                "domains: losses may look alike while appearance drifts, by each seed to somewhere else.",
            ),
            (
                Picture(
                    hue_histogram(histograms),
                    "Signed hue errors from A to B, by seed.",
                    "Histograms by model and seed.",
                    "hues-by-seed",
                ),
            ),
            table,
        )
    ]


def _cycles(runs: Mapping[str, Any]) -> Section:
    rows = []
    for name, (_, content) in runs.items():
        for direction, arrow in ARROWS.items():
            error, *ratios = content["scores"][direction]["cycle"].values()
            rows.append((name, arrow, f"{error:.4f}", *(f"{ratio:.2f}" for ratio in ratios)))
    disturbances = list(next(iter(runs.values()))[1]["scores"]["ab"]["cycle"])[1:]
    return Section(
        "Is the way back honest?",
        (
            "A translation that carries its input as a faint pattern comes back exactly until the pattern is "
            "disturbed. The cycle error is the mean |x - x_aba|; the other columns say how many times each "
            "disturbance of the translation enlarges it: far above 1 tells of a hidden channel.",
        ),
        (),
        Table(("method", "", "cycle error", *disturbances), rows, "Means over the test pairs."),
    )


def _training(history: Mapping[str, Any]) -> Section:
    curves = loss_curves(history["values"], steps=history["steps"])
    caption = "Losses (running averages) and scores on 100 test pairs; for watching, not for choosing."
    return Section("Training", (), (Picture(curves, caption, "Curves over the steps.", "losses"),))


def _interpolation(pairs: Pairs, translator: Translator, generator: Any) -> Section:
    images = jnp.asarray(pairs.images_a[:8])
    path = translator.interpolate(generator, images[:4], images[4:], domain="b", num_steps=9)
    sheet = interpolation_sheet(np.clip(np.asarray(path), 0, 1))
    caption = "From one latent to another, drawn in domain B."
    return Section("Between two objects", (), (Picture(sheet, caption, "Rows of images.", "interpolation"),))
