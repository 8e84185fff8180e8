"""Heatmaps and average images as PNG files, and what explains each image."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from vexplain._files import write_whole
from vexplain.command.arguments import Explain
from vexplain.datasets.sources import epoch_batches, subset
from vexplain.figures import class_sheet, explanation_sheet, save_figure
from vexplain.relevance import Explanation, FeatureView, explain, feature_name, num_features


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

    Those of an interrupted run are taken over.

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
    chosen = _spread(found.predictions.predicted, explained, arguments.num_shown)
    records = _kept(arguments, found, np.setdiff1d(explained, chosen))
    missing = np.setdiff1d(explained, [*chosen, *records])
    places = np.concatenate([chosen, missing])  # the report needs the chosen ones themselves: they come first
    kept = []
    for place, image, one in _explanations(arguments, found, places, num_done=len(records)):
        records[place] = _save(arguments, found, place, image, one)
        if len(kept) < len(chosen):
            kept.append((image, one))
    images, explanations = zip(*kept, strict=True)
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *explanations)
    return Explained(records, np.concatenate(images), joined, chosen)


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


def _explanations(
    arguments: Explain, found: Any, places: np.ndarray, num_done: int
) -> Iterator[tuple[int, np.ndarray, Explanation]]:
    """Place, image and explanation of one image after the other, explained in batches."""
    source = subset(found.predictions.source, places)
    batch_fn, num_steps = epoch_batches(source, min(arguments.batch_size, len(source)))
    total = len(source) + num_done
    with tqdm(total=total, initial=num_done, desc="Heatmaps", unit="image") as progress:
        for t in range(num_steps):
            batch = batch_fn(t)
            explanation = explain(
                found.model.apply,
                found.model.variables,
                batch["images"],
                relevance=found.relevance,
                num_features=arguments.num_features,
                on_uncovered=arguments.on_uncovered,
            )
            for n, place in enumerate(places[t * len(batch["images"]) :][: len(batch["images"])].tolist()):
                one = jax.tree.map(lambda leaf, n=n: leaf[n : n + 1], explanation)
                yield place, np.asarray(batch["images"][n : n + 1]), one
                progress.update()


def _key(arguments: Explain, found: Any) -> list[Any]:
    return [found.fingerprint, arguments.num_features, arguments.on_uncovered]


def _files(out: Path, file: str) -> tuple[Path, Path, Path]:
    """The heatmap of an image, its row of the sheet, and what is noted of them when both are written."""
    rows = out / "explanations"
    return out / "heatmaps" / f"{file}.png", rows / f"{file}.png", rows / f"{file}.json"


def _kept(arguments: Explain, found: Any, places: np.ndarray) -> dict[int, dict[str, Any]]:
    """What an earlier run, perhaps an interrupted one, has left of the same things."""
    kept = {}
    for place in places.tolist():
        heatmap, row, note = _files(arguments.out, relative_file(found, place))
        try:
            content = json.loads(note.read_text("utf-8"))
        except (FileNotFoundError, ValueError):
            continue
        if content["key"] == _key(arguments, found) and heatmap.is_file() and row.is_file():
            kept[place] = content["record"]
    return kept


def _save(arguments: Explain, found: Any, place: int, image: np.ndarray, one: Explanation) -> dict[str, Any]:
    """Writes the heatmap (8 bits, gray) and the row of the sheet, and returns what JSON says of them."""
    out = arguments.out
    heatmap, row, note = _files(out, relative_file(found, place))
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
    record = files | {"features": features}
    write_whole(note, json.dumps({"key": _key(arguments, found), "record": record}).encode())
    return record


def _spread(predicted: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """Places of images for the report: one of each class, then a second of each, ..."""
    turn = [int((predicted[places[:n]] == predicted[place]).sum()) for n, place in enumerate(places)]
    return places[np.argsort(turn, kind="stable")[:count]]


def _file_name(name: str) -> str:
    return "-".join(re.findall(r"\w+", name))[:60] or "class"
