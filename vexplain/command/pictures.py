"""Explanations of the images, and heatmaps and average images as PNG files."""

import collections
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from vexplain._files import digest_of_file, read_json, write_json, write_whole
from vexplain.command.arguments import Explain
from vexplain.command.images import Predictions, name_of, skipped_files
from vexplain.datasets.batches import epoch_batches
from vexplain.datasets.sources import subset
from vexplain.figures import class_sheet, explanation_sheet, save_figure
from vexplain.relevance import Explanation, FeatureView, explain, feature_name, num_features
from vexplain.streaming import agree_on, gather_values, is_writer


class Explained(NamedTuple):
    """The explanations of the images whose class has relevant features."""

    records: dict[int, dict[str, Any]]  # files and features of each image, by its index in the source
    images: np.ndarray  # those that the report shows; none in a process that does not write it
    explanation: Explanation | None  # of them
    places: np.ndarray  # their indices in the source

    @property
    def num_heatmaps(self) -> int:
        return len(self.records)


def explain_images(arguments: Explain, found: Any) -> Explained:
    """Returns the explanation of every image, after its heatmap and its row of the sheet were written.

    Those of an interrupted run are used again.

    Raises:
        ValueError: no predicted class has a relevant feature, or there are fewer features than asked for.
    """
    has_features = num_features(found.relevance)[found.predictions.predicted] > 0
    if not has_features.any():
        raise ValueError(f"--mu is {arguments.mu:g}: no class has a relevant feature; choose a larger one")
    explained = np.flatnonzero(has_features)
    chosen = _spread(found.predictions, explained, arguments.num_shown)
    records = agree_on(_kept(arguments, found, np.setdiff1d(explained, chosen)))
    missing = np.setdiff1d(explained, [*chosen, *records])[jax.process_index() :: jax.process_count()]
    if not is_writer():  # the report needs the chosen ones themselves: they come first
        chosen = chosen[:0]
    places = np.concatenate([chosen, missing])
    kept = {}
    for place, image, one in _explanations(arguments, found, places, num_done=len(records)):
        records[place] = _save(arguments, found, place, image, one)
        if place in chosen:
            kept[place] = image, one
    records = {place: record for here in gather_values(records) for place, record in here.items()}
    for skipped in gather_values(skipped_files(found.predictions.source, found.folder.root)):
        found.predictions.skipped.update(skipped)
    if not kept:
        if is_writer():
            raise ValueError("--images: none of the images that were predicted can be read any more")
        return Explained(records, np.zeros((0, 0, 0, 3)), None, chosen)
    images, explanations = zip(*kept.values(), strict=True)
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *explanations)
    return Explained(records, np.concatenate(images), joined, np.array(list(kept)))


def save_class_sheets(folder: Path, views: Sequence[FeatureView]) -> dict[str, Path]:
    """Returns, by class, the PNG file that now shows its relevant features."""
    sheets = {}
    for n, name in enumerate(dict.fromkeys(view.class_name for view in views)):
        words = "-".join(re.findall(r"\w+", name))[:60] or "class"
        sheets[name] = save_figure(class_sheet(views, class_name=name), folder / f"{n:04d}-{words}.png")
    return sheets


def relative_file(found: Any, place: int) -> str:
    """Returns the path of an image, given by its index in the source, below the folder of images."""
    return name_of(Path(str(found.predictions.source.files[place])), found.folder.root)


def _explanations(
    arguments: Explain, found: Any, places: np.ndarray, num_done: int
) -> Iterator[tuple[int, np.ndarray, Explanation]]:
    """Index, image and explanation of one image after the other, explained in batches."""
    if not len(places):
        return
    source = subset(found.predictions.source, places)
    batch_fn, num_steps = epoch_batches(source, min(arguments.batch_size, len(source)))
    bar = {"desc": "Heatmaps", "unit": "image", "disable": not is_writer()}
    with tqdm(total=len(source) + num_done, initial=num_done, **bar) as progress:
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
                progress.update()
                if not batch["weights"][n]:  # read when it was predicted, and gone or broken since
                    continue
                one = jax.tree.map(lambda leaf, n=n: leaf[n : n + 1], explanation)
                yield place, np.asarray(batch["images"][n : n + 1]), one


def explanation_key(arguments: Explain, found: Any) -> list[Any]:
    """Returns what the heatmap of an image depends on."""
    return [found.fingerprint, arguments.num_features, arguments.on_uncovered]


def _files(out: Path, file: str) -> tuple[Path, Path, Path]:
    """The heatmap of an image, its row of the sheet, and the record that is written after both."""
    rows = out / "explanations"
    return out / "heatmaps" / f"{file}.png", rows / f"{file}.png", rows / f"{file}.json"


def _kept(arguments: Explain, found: Any, places: np.ndarray) -> dict[int, dict[str, Any]]:
    """The records of an earlier, perhaps interrupted run with the same fingerprint and settings."""
    kept = {}
    for place in places.tolist():
        heatmap, row, note = _files(arguments.out, relative_file(found, place))
        content = read_json(note)
        digests = [digest_of_file(heatmap), digest_of_file(row)]
        if content.get("key") == explanation_key(arguments, found) and content.get("digests") == digests:
            kept[place] = content["record"]
    return kept


def _save(arguments: Explain, found: Any, place: int, image: np.ndarray, one: Explanation) -> dict[str, Any]:
    """Writes the heatmap (8 bits, gray) and the row of the sheet, and returns the record of them."""
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
    digests = [digest_of_file(heatmap), digest_of_file(row)]
    write_json(note, {"key": explanation_key(arguments, found), "digests": digests, "record": record})
    return record


def _spread(predictions: Predictions, places: np.ndarray, count: int) -> np.ndarray:
    """Indices of images for the report: one of each class, then a second of each, ...

    Of a class, right and wrong decisions take turns, where the truth is known.
    """
    predicted = predictions.predicted[places]
    is_wrong = (predictions.truth[places] >= 0) & (predictions.truth[places] != predicted)
    turn = _rank(np.stack([predicted, is_wrong], 1))  # among those of one class that are right, or wrong
    within = np.lexsort((is_wrong, turn))
    rank = np.empty(len(places), int)
    rank[within] = _rank(predicted[within][:, None])
    return places[np.argsort(rank, kind="stable")[:count]]


def _rank(groups: np.ndarray) -> np.ndarray:
    """How many rows like this one came before it."""
    seen: collections.Counter[tuple[int, ...]] = collections.Counter()
    ranks = []
    for row in map(tuple, groups.tolist()):
        ranks.append(seen[row])
        seen[row] += 1
    return np.array(ranks, int)
