"""Explanations of the images, and heatmaps and average images as PNG files."""

import collections
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

from vexplain._files import digest_of_file, read_json, write_json
from vexplain.command.arguments import Explain
from vexplain.command.images import Predictions, name_of, skipped_files
from vexplain.command.methods import (
    RECIPE,
    Chosen,
    batches_of,
    heatmap_file,
    is_kept,
    save_heatmap,
    save_heatmaps,
)
from vexplain.figures import class_sheet, explanation_sheet, save_figure
from vexplain.relevance import Explanation, FeatureView, explain, feature_name, num_features
from vexplain.streaming import agree_on, data_mesh, gather_values, is_writer
from vexplain.streaming.devices import Mesh


class Explained(NamedTuple):
    """The explanations of the images whose class has relevant features."""

    records: dict[int, dict[str, Any]]  # files and features of each image, by its index in the source:
    #   "features" and "explanation" (its row of the sheet), and "heatmaps" by method
    images: np.ndarray  # those that the report shows; none in a process that does not write it
    explanation: Explanation | None  # of them
    places: np.ndarray  # their indices in the source

    @property
    def num_heatmaps(self) -> int:
        return sum(len(record["heatmaps"]) for record in self.records.values())

    @property
    def files(self) -> list[str]:
        """All that was written for single images, below the folder of results."""
        records = self.records.values()
        rows = [record["explanation"] for record in records if record["explanation"]]
        return rows + [file for record in records for file in record["heatmaps"].values()]


def explain_images(arguments: Explain, found: Any, methods: tuple[Chosen, ...]) -> Explained:
    """Returns the explanation of every image, after its heatmaps and its row of the sheet were written.

    Those of an interrupted run are used again.

    Raises:
        ValueError: no predicted class has a relevant feature, or there are fewer features than asked for.
    """
    mesh = data_mesh(arguments.devices or jax.process_count())
    recipe = next((method for method in methods if method.name == RECIPE), None)
    has_features = num_features(found.relevance)[found.predictions.predicted] > 0
    if not has_features.any():
        raise ValueError(f"--mu is {arguments.mu:g}: no class has a relevant feature; choose a larger one")
    explained = np.flatnonzero(has_features)
    chosen = spread(found.predictions, explained, arguments.num_shown)
    records = agree_on(_kept(arguments, found, recipe, np.setdiff1d(explained, chosen)))
    missing = np.setdiff1d(explained, [*chosen, *records])[jax.process_index() :: jax.process_count()]
    if not is_writer():  # the report needs the chosen ones themselves: they come first
        chosen = chosen[:0]
    places = np.concatenate([chosen, missing])
    kept = {}
    for place, image, one in _explanations(arguments, found, places, mesh, num_done=len(records)):
        records[place] = _save(arguments, found, recipe, place, image, one)
        if place in chosen:
            kept[place] = image, one
    records = {place: record for here in gather_values(records) for place, record in here.items()}
    records = {
        place: record | {"heatmaps": {} if recipe is None else {RECIPE: heatmap_file(found, RECIPE, place)}}
        for place, record in records.items()
    }
    for made in gather_values(save_heatmaps(arguments, found, methods, mesh)):
        for place, files in made.items():
            nothing = {"explanation": None, "features": [], "heatmaps": {}}
            record = records.setdefault(place, nothing)
            named = record["heatmaps"] | files
            record["heatmaps"] = {m.name: named[m.name] for m in methods if m.name in named}
    records = {place: records[place] for place in sorted(records)}
    for skipped in gather_values(skipped_files(found.predictions.source, found.folder.root)):
        found.predictions.skipped.update(skipped)
    if not kept:
        if is_writer():
            raise ValueError("--images: none of the images that were predicted can be read any more")
        return Explained(records, np.zeros((0, 0, 0, 3)), None, chosen)
    images, explanations = zip(*kept.values(), strict=True)
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *explanations)
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
    arguments: Explain, found: Any, places: np.ndarray, mesh: Mesh, num_done: int
) -> Iterator[tuple[int, np.ndarray, Explanation]]:
    """Index, image and explanation of one image after the other, explained in batches."""
    bar = {"desc": "Explanations", "unit": "image", "disable": not is_writer()}
    with tqdm(total=len(places) + num_done, initial=num_done, **bar) as progress:
        for batch, here in batches_of(found.predictions.source, places, arguments.batch_size, mesh):
            explanation = explain(
                found.model.apply,
                found.model.variables,
                batch["images"],
                batch["labels"],
                relevance=found.relevance,
                num_features=arguments.num_features,
                on_uncovered=arguments.on_uncovered,
            )
            explanation = jax.tree.map(np.asarray, explanation)
            for n, place in enumerate(here[: batch["count"]].tolist()):
                progress.update()
                if not batch["weights"][n]:  # read when it was predicted, and gone or broken since
                    continue
                one = jax.tree.map(lambda leaf, n=n: leaf[n : n + 1], explanation)
                yield place, batch["pixels"][n : n + 1], one


def explanation_key(arguments: Explain, found: Any) -> list[Any]:
    """Returns what the explanation of an image depends on."""
    return [found.fingerprint, arguments.num_features, arguments.on_uncovered]


def _files(out: Path, file: str) -> tuple[Path, Path]:
    """The row of an image in the sheet, and the record that is written after it."""
    rows = out / "explanations"
    return rows / f"{file}.png", rows / f"{file}.json"


def _kept(
    arguments: Explain, found: Any, recipe: Chosen | None, places: np.ndarray
) -> dict[int, dict[str, Any]]:
    """The records of an earlier, perhaps interrupted run with the same fingerprint and settings."""
    kept = {}
    for place in places.tolist():
        row, note = _files(arguments.out, relative_file(found, place))
        content = read_json(note)
        is_same = content.get("key") == explanation_key(arguments, found)
        is_whole = is_same and content.get("digest") == digest_of_file(row) is not None
        if is_whole and (recipe is None or is_kept(arguments.out, found, recipe, place)):
            kept[place] = content["record"]
    return kept


def _save(
    arguments: Explain, found: Any, recipe: Chosen | None, place: int, image: np.ndarray, one: Explanation
) -> dict[str, Any]:
    """Writes the heatmap of the recipe and the row of the sheet, and returns the record of them."""
    row, note = _files(arguments.out, relative_file(found, place))
    if recipe is not None:
        save_heatmap(arguments.out, found, recipe, place, one.heatmaps[0])
    labels = found.predictions.truth[place : place + 1] if found.folder.has_labels else None
    save_figure(explanation_sheet(image, one, found.relevance, labels=labels), row)
    valid = np.asarray(one.features.valid[0])
    indices, scores = np.asarray(one.features.indices[0]), np.asarray(one.features.scores[0])
    features = [
        {"feature": feature_name(found.relevance, index), "score": float(score)}
        for index, score in zip(indices[valid], scores[valid], strict=True)
    ]
    record = {"explanation": row.relative_to(arguments.out).as_posix(), "features": features}
    key = explanation_key(arguments, found)
    write_json(note, {"key": key, "digest": digest_of_file(row), "record": record})
    return record


def spread(predictions: Predictions, places: np.ndarray, count: int) -> np.ndarray:
    """Returns indices of images that stand for all: one of each class, then a second of each, ...

    Of a class, right and wrong decisions take turns, where the truth is known.

    Args:
        predictions: of all images.
        places: indices of those to choose from.
        count: how many are chosen.
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
