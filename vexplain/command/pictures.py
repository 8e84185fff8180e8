"""Heatmaps and average images as PNG files, and what explains each image."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from vexplain.command.arguments import Explain
from vexplain.datasets.sources import epoch_batches, subset
from vexplain.explanation import Explanation, explain, feature_name
from vexplain.figures import class_sheet, explanation_sheet, save_figure
from vexplain.files import write_whole
from vexplain.interpretation import FeatureView
from vexplain.relevance import num_features


class Explained(NamedTuple):
    """What explains the images.

    Attributes:
        records: for each image its files and features, by its place in the source; none for those whose class
            has no relevant feature.
        images: those that the report shows.
        explanation: of them.
        places: of them in the source.
    """

    records: dict[int, dict[str, Any]]
    images: np.ndarray
    explanation: Explanation
    places: np.ndarray

    @property
    def num_heatmaps(self) -> int:
        return len(self.records)


def explain_images(arguments: Explain, found: Any) -> Explained:
    """Returns what explains every image, after its heatmap and its row of the sheet were written.

    Args:
        arguments: of the subcommand.
        found: what the steps before have found.

    Raises:
        ValueError: no predicted class has a relevant feature, or there are fewer features than asked for.
    """
    has_features = num_features(found.relevance)[found.predictions.predicted] > 0
    if not has_features.any():
        raise ValueError(f"--mu is {arguments.mu:g}: no class has a relevant feature; choose a larger one")
    explained = np.flatnonzero(has_features)
    chosen = set(_spread(found.predictions.predicted, explained, arguments.num_shown).tolist())
    source = subset(found.predictions.source, explained)
    batch_fn, num_steps = epoch_batches(source, min(arguments.batch_size, len(source)))
    records, kept = {}, []
    for t in tqdm(range(num_steps), desc="Heatmaps", unit="step"):
        batch = batch_fn(t)
        explanation = _explanation(arguments, found, batch["images"])
        places = explained[t * len(batch["images"]) :][: int(np.sum(np.asarray(batch["weights"]) > 0))]
        for n, place in enumerate(places.tolist()):
            one = jax.tree.map(lambda leaf, n=n: leaf[n : n + 1], explanation)
            image = np.asarray(batch["images"][n : n + 1])
            records[place] = _save(arguments.out, found, place, image, one)
            if place in chosen:
                kept.append((place, image, one))
    places, images, explanations = zip(*kept, strict=True)
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *explanations)
    return Explained(records, np.concatenate(images), joined, np.array(places))


def save_class_sheets(folder: Path, views: Sequence[FeatureView]) -> dict[str, Path]:
    """Returns, by class, the PNG file that now shows its relevant features.

    Args:
        folder: of the files.
        views: what `interpret` returned.
    """
    names = list(dict.fromkeys(view.class_name for view in views))
    return {
        name: save_figure(class_sheet(views, class_name=name), folder / f"{n:04d}-{_file_name(name)}.png")
        for n, name in enumerate(names)
    }


def relative_file(found: Any, place: int) -> str:
    """Returns the path of an image below the folder of images.

    Args:
        found: what the steps have found.
        place: of the image in the source.
    """
    return Path(str(found.predictions.source.files[place])).relative_to(found.folder.root).as_posix()


def _explanation(arguments: Explain, found: Any, images: np.ndarray) -> Explanation:
    return explain(
        found.model.apply,
        found.model.variables,
        images,
        found.relevance,
        num_features=arguments.num_features,
        on_uncovered=arguments.on_uncovered,
    )


def _save(out: Path, found: Any, place: int, image: np.ndarray, one: Explanation) -> dict[str, Any]:
    """Writes the heatmap (8 bits, gray) and the row of the sheet, and returns what JSON says of them."""
    file = relative_file(found, place)
    heatmap, row = out / "heatmaps" / f"{file}.png", out / "explanations" / f"{file}.png"
    buffer = io.BytesIO()
    Image.fromarray(np.round(np.asarray(one.heatmaps[0]) * 255).astype(np.uint8)).save(buffer, "png")
    write_whole(heatmap, buffer.getvalue())
    labels = found.predictions.truth[place : place + 1] if found.folder.has_labels else None
    save_figure(explanation_sheet(image, one, found.relevance, labels=labels), row)
    valid = np.asarray(one.features.valid[0])
    indices, scores = np.asarray(one.features.indices[0]), np.asarray(one.features.scores[0])
    features = [
        {"feature": feature_name(found.relevance, index), "score": float(score)}
        for index, score in zip(indices[valid], scores[valid], strict=True)
    ]
    files = {"heatmap": heatmap.relative_to(out).as_posix(), "explanation": row.relative_to(out).as_posix()}
    return files | {"features": features}


def _spread(predicted: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Places of images for the report: one of each class, then a second of each, ..."""
    turn = [int((predicted[places[:n]] == predicted[place]).sum()) for n, place in enumerate(places)]
    return places[np.argsort(turn, kind="stable")[:count]]


def _file_name(name: str) -> str:
    return "-".join(re.findall(r"\w+", name))[:60] or "class"
