"""Appearance-preserving translation between two folders of people's own images, judged without a truth.

Of each folder the last images by name are held out: a tenth, and at most `num_pairs`. What is said of their
translations needs no partner, and takes the objects from plain backgrounds (`estimate_masks`).
"""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.image import imsave

from experiments.job import device_names
from experiments.shape_translation_figures import loss_curves
from experiments.shape_translation_scores import in_batches
from experiments.shape_translation_sheets import translation_sheet
from vexplain._files import write_whole
from vexplain.datasets import epoch_batches, estimate_masks, gather, image_folder
from vexplain.figures import Picture, Report, Section, Table, package_versions, save_pictures, write_report
from vexplain.translation import cycle_error, frechet_distance, hue_error, mean_color, overlap_error
from vexplain.translation.layered import LayeredTranslator
from vexplain.typing import Variables

ARROWS = {"ab": "A → B", "ba": "B → A"}
HEADINGS = {
    "hue_error": "hue error, °",
    "overlap_error": "overlap L1",
    "cycle": "cycle L1",
    "frechet": "Fréchet distance to the domain",
    "frechet_of_copy": "of the inputs to the domain",
}
NUM_SHOWN = 16
_BATCH = 50


def read_folders(
    folders: Mapping[str, Path], *, size: int, batch_size: int, num_held_out: int
) -> tuple[tuple[np.ndarray, np.ndarray], dict[str, np.ndarray], dict[str, dict[str, str]]]:
    """Training images of both folders in 8 bits, held-out images in [0, 1], and the broken files by name.

    Raises:
        ValueError: too few readable images for a batch.
    """
    data, held_out, skipped = [], {}, {}
    for domain, folder in folders.items():
        source = image_folder(folder, size=size)
        images = gather(source)["images"]
        count = min(num_held_out, max(1, len(images) // 10))
        if len(images) - count < batch_size:
            raise ValueError(
                f"{domain} is {folder}: {len(images)} readable images of {len(source)}, {count} of them held "
                f"out; expected at least batch_size, {batch_size}, to train on; add images or lower it"
            )
        data.append(images[:-count])
        held_out[domain] = images[-count:].astype(np.float32) / 255
        skipped[domain] = dict(source.skipped)
    return (data[0], data[1]), held_out, skipped


def scores_without_truth(
    translator: LayeredTranslator, generator: Variables, held_out: Mapping[str, np.ndarray]
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """Scores and translations of the held-out images by direction.

    "hue_error" is the median angle between the mean colors of object and translation, "overlap_error" the
    difference where both show the object, "cycle" that of the input and its translation back, and "frechet"
    the distance of the translations to the held-out images of their domain, by their appearance codes.
    """
    scores, outputs = {}, {}
    for direction, back in (("ab", "ba"), ("ba", "ab")):
        images, others = held_out[direction[0]], held_out[direction[1]]

        def scored(images, direction=direction, back=back):
            made = translator.translate(generator, images, direction=direction)
            again = translator.translate(generator, made, direction=back)
            found, own = estimate_masks(made), estimate_masks(images)
            values = {
                "hue_error": hue_error(mean_color(made, found), mean_color(images, own)),
                "overlap_error": overlap_error(made, images, found, own),
                "cycle": cycle_error(images, again),
            }
            return made, values

        outputs[direction], values = in_batches(scored, images)
        scores[direction] = {name: float(np.mean(value)) for name, value in values.items()}
        scores[direction]["hue_error"] = float(np.median(values["hue_error"]))
        if min(len(images), len(others)) > 1:
            codes = [_codes(translator, generator, x) for x in (outputs[direction], images, others)]
            for name, some in (("frechet", codes[0]), ("frechet_of_copy", codes[1])):
                scores[direction][name] = float(frechet_distance(some, codes[2]))
    return scores, outputs


def translate_folder(
    translate_fn: Callable[[Any], Any], folder: Path, out: Path, *, size: int
) -> dict[str, str]:
    """Writes the translation of each readable image as PNG; returns what is wrong with the others by name.

    An image `shirts/red.jpg` of the folder becomes `shirts/red.jpg.png`.
    """
    source = image_folder(folder, size=size)
    batch_fn, num_steps = epoch_batches(source, min(_BATCH, len(source)))
    for t in range(num_steps):
        batch = batch_fn(t)
        made = np.asarray(in_batches(translate_fn, batch["images"]))
        for image, index, weight in zip(made, batch["indices"], batch["weights"], strict=True):
            if weight:
                name = Path(str(source.files[index])).relative_to(folder)
                path = out / name.with_name(f"{name.name}.png")
                path.parent.mkdir(parents=True, exist_ok=True)
                buffer = io.BytesIO()
                imsave(buffer, np.clip(image, 0, 1), format="png")
                write_whole(path, buffer.getvalue())
    return dict(source.skipped)


def write_folder_report(config, metrics: Mapping[str, Any], history: Mapping[str, Any], held_out, outputs):
    """Writes `report.html` and figures beside the training; returns the path of the report."""
    pictures = [
        Picture(
            translation_sheet(
                held_out[d[0]][:NUM_SHOWN], {"translation": outputs[d][:NUM_SHOWN]}, max_columns=NUM_SHOWN
            ),
            f"{arrow}: held-out images and their translations.",
            "Rows of images.",
            f"translations-{d}",
        )
        for d, arrow in ARROWS.items()
    ]
    rows = [
        (arrow, *(f"{metrics['scores'][d][n]:.3g}" if n in metrics["scores"][d] else "" for n in HEADINGS))
        for d, arrow in ARROWS.items()
    ]
    broken = [
        (d.upper(), name, why) for d, files in metrics["skipped"].items() for name, why in files.items()
    ]
    caption = "Lower is better; a distance of the inputs is what a copy would have."
    curves = Picture(
        loss_curves(history["values"], steps=history["steps"]), "Losses.", "Curves over the steps.", "losses"
    )
    report = Report(
        title="The same appearance in another shape",
        lead=f"Images of {config.a} and {config.b}, never shown in pairs, after {metrics['steps']} steps. "
        "There is no truth to compare with: look at the pictures. Objects are found by their contrast to a "
        "plain background.",
        key_figures=[],
        sections=[
            Section("What it does", (), pictures),
            Section("Measured without a truth", (), (), Table(("", *HEADINGS.values()), rows, caption)),
            Section("Training", (), (curves,)),
            *([_broken(broken)] if broken else []),
        ],
        settings=metrics["settings"],
        versions=package_versions(("vexplain", "jax", "jaxlib", "numpy")) | {"devices": device_names()},
    )
    save_pictures(config.folder / "figures", report)
    return write_report(config.folder / "report.html", report)


def _broken(rows) -> Section:
    table = Table(("domain", "file", "what is wrong"), rows, "They were passed over.")
    return Section("Files that could not be read", (), (), table)


def _codes(translator: LayeredTranslator, generator: Variables, images: np.ndarray) -> jax.Array:
    return jnp.asarray(in_batches(lambda x: translator.appearance(generator, x), images))
