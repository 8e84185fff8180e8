"""Shape translation between two folders of images, of which nobody knows the true translations."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from experiments.job import device_names, plain_settings, say
from experiments.shape_translation_figures import loss_curves
from experiments.shape_translation_sheets import translation_sheet
from vexplain._files import write_json
from vexplain.datasets import ArraySource, image_folder, in_memory
from vexplain.figures import Picture, Report, Section, Table, package_versions, write_report
from vexplain.streaming import is_writer
from vexplain.streaming.checkpoints import digest
from vexplain.streaming.processes import wait_for_all
from vexplain.translation import Translator, collapse, cycle_scores, in_batches, kept_scores

PACKAGES = ("vexplain", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
ARROWS = {"ab": "A → B", "ba": "B → A"}
NUM_SHOWN = 12


class Domain(NamedTuple):
    """The images of a folder, of which a twentieth is not trained on."""

    source: ArraySource
    held_out: np.ndarray  # (images, height, width, 3) in [0, 1]
    files: list[tuple[str, int, int]]  # name, size and time of change
    skipped: dict[str, str]  # broken files


def run_on_folders(config: Any, translator: Translator, train: Callable[..., Any]) -> dict[str, Any]:
    """Trains a rung on two folders, and writes a report of what can be said without the truth.

    Args:
        config: of the experiment, with the folders `a` and `b`.
        translator: the networks of the rung.
        train: of the experiment.
    """
    folder = config.out / f"{config.rung}-folders-seed{config.seed}"
    say(f"vexplain: shape translation, {config.rung}, {config.size} px; results in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    domains = [open_domain(path, config.size) for path in (config.a, config.b)]
    held_out = {name: domain.held_out for name, domain in zip("ab", domains, strict=True)}

    def shown(made):
        return {name: own for name, (own, _) in kept_scores(held_out["a"][: len(made)], made).items()}

    files = digest([domain.files for domain in domains])
    sources = [domain.source for domain in domains]
    state, history = train(config, folder, translator, sources, held_out["a"][:100], shown, files=files)
    metrics = scores_of_folders(functools.partial(translator.translate, state.average), held_out) | {
        "rung": config.rung,
        "steps": int(state.step),
        "minutes": history["seconds"] / 60,
        "skipped": {name: reason for domain in domains for name, reason in domain.skipped.items()},
        "losses": {name: float(value) for name, value in state.losses.items()},
        "settings": plain_settings(config),
    }
    outputs = metrics.pop("outputs")
    if is_writer():
        write_json(folder / "metrics.json", metrics)
        path = write_folders_report(folder, held_out, outputs, history, metrics)
        say(f"The report is in {path}")
    wait_for_all()
    return metrics


def open_domain(folder: Path, size: int) -> Domain:
    """Returns the images of a folder, resized and cut to a square, in memory."""
    files = image_folder(folder, size=size)
    held = in_memory(files, progress=lambda r: tqdm(r, desc=f"Reading {folder}", unit="batch"))
    if len(held) < 3:
        raise ValueError(f"{folder} has {len(held)} images that can be read: expected three or more")
    chosen = np.arange(len(held)) % 20 == 0
    chosen[1] = True  # scores compare two
    kept = ArraySource(held.images[~chosen], held.labels[~chosen], class_names=held.class_names)
    stats = [(str(path), Path(str(path)).stat()) for path in files.files]
    named = [(Path(name).relative_to(folder).as_posix(), s.st_size, s.st_mtime_ns) for name, s in stats]
    return Domain(kept, held[np.flatnonzero(chosen)[:200]]["images"], named, files.skipped)


def scores_of_folders(translate_fn: Callable[..., Any], held_out: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What can be said of the translations of images that were not trained on, and these."""
    found: dict[str, Any] = {"outputs": {}, "kept": {}, "cycle": {}, "collapsed": {}}
    for direction in ARROWS:
        images = held_out[direction[0]]
        made = in_batches(lambda x, d=direction: translate_fn(x, direction=d), images)
        found["outputs"][direction] = made
        found["kept"][direction] = kept_scores(images, made)
        found["cycle"][direction] = cycle_scores(translate_fn, images, direction)
        found["collapsed"][direction] = collapse(made, images)
    return found


def write_folders_report(
    folder: Path,
    held_out: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    history: Mapping[str, Any],
    metrics: Mapping[str, Any],
    *,
    model: str = "A model of two variational autoencoders",
) -> Path:
    """Writes `report.html`, and returns its path; `model` begins the sentence about what was trained."""
    pictures = [
        Picture(
            translation_sheet(held_out[d[0]][:NUM_SHOWN], {"translation": outputs[d][:NUM_SHOWN]}),
            f"{arrow}: images that were not trained on, and their translations.",
            "Rows of inputs and translations.",
        )
        for d, arrow in ARROWS.items()
    ]
    kept = [
        (arrow, name, f"{own:.3f}", f"{others:.3f}")
        for d, arrow in ARROWS.items()
        for name, (own, others) in metrics["kept"][d].items()
    ]
    cycles = [(arrow, *(f"{v:.3g}" for v in metrics["cycle"][d].values())) for d, arrow in ARROWS.items()]
    curves = loss_curves(history["values"], steps=history["steps"])
    sections = [
        Section("Translations", (), pictures),
        Section(
            "What is kept",
            (
                "What an image is as far from in its own translation as in that of another image was not "
                "kept.",
            ),
            table=Table(("", "distance of", "to its own translation", "to another's"), kept),
        ),
        Section(
            "Is the way back honest?",
            (
                "The cycle error is the mean |x - x_aba|; the other columns say how many times each "
                "disturbance of the translation enlarges it: far above 1 tells of a hidden channel.",
            ),
            table=Table(("", *metrics["cycle"]["ab"]), cycles),
        ),
        Section("Training", (), (Picture(curves, "Losses and distances.", "Curves over the steps."),)),
    ]
    if metrics["skipped"]:
        rows = list(metrics["skipped"].items())
        sections.append(Section("Files that could not be read", table=Table(("file", "reason"), rows)))
    collapsed = [f"{ARROWS[d]}: {reason}" for d, reason in metrics["collapsed"].items() if reason]
    warning = f"Warning: the training collapsed ({'; '.join(collapsed)}). " if collapsed else ""
    report = Report(
        title="Shape translation between two folders",
        lead=warning + f"{model} was trained for {metrics['steps']} steps on images "
        "without pairs. No true translation is known, so its shapes can only be judged by eye.",
        key_figures=[
            ("steps", f"{metrics['steps']}", f"{metrics['minutes']:.0f} minutes"),
            ("cycle error", f"{metrics['cycle']['ab']['cycle error']:.3f}", "A → B → A, mean |x - x_aba|"),
        ],
        sections=sections,
        settings=metrics["settings"],
        versions=package_versions(PACKAGES) | {"devices": device_names()},
    )
    return write_report(folder / "report.html", report)
