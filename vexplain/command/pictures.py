"""Explanations of the images: the files of heatmaps and average images."""

import collections
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from vexplain._files import digest_of_file, read_json, write_json, write_whole
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
from vexplain.datasets.sources import as_eight_bits
from vexplain.figures import class_sheet, save_figure, sheet_pictures, sheet_rows
from vexplain.relevance import Explanation, FeatureView, explain, feature_name, num_features
from vexplain.streaming import agree_on, data_mesh, gather_values, is_writer
from vexplain.streaming.devices import Mesh

_EXACT = 128  # images of at most so many pixels a side are kept as they are, larger ones as JPEG
Record = dict[str, Any]  # of an image: "image", "features", "feature_maps", and "heatmaps" by method


def explain_images(arguments: Explain, found: Any, methods: tuple[Chosen, ...]) -> dict[int, Record]:
    """Returns the record of every image by its index in the source, after its files were written.

    Those of an interrupted run are used again.

    Raises:
        ValueError: no predicted class has a relevant feature, or there are fewer features than asked for.
    """
    mesh = data_mesh(arguments.devices or jax.process_count())
    recipe = next((method for method in methods if method.name == RECIPE), None)
    has_features = num_features(found.relevance)[found.predictions.predicted] > 0
    if not has_features.any():
        raise ValueError(f"--mu is {arguments.mu:g}: no class has a relevant feature; choose a larger one")
    explained, shares = np.flatnonzero(has_features), slice(jax.process_index(), None, jax.process_count())
    records = agree_on(_kept(arguments, found, recipe, explained))
    missing = np.setdiff1d(explained, list(records))[shares]
    for place, image, one in _explanations(arguments, found, missing, mesh, num_done=len(records)):
        records[place] = _save(arguments, found, recipe, place, image, one)
    for place, image in _images(arguments, found, np.flatnonzero(~has_features)[shares], mesh):
        file = save_image(arguments.out, found, place, image)
        records[place] = {"image": file, "features": [], "feature_maps": ""}
    records = {place: record for here in gather_values(records) for place, record in here.items()}
    maps = {place: files for made in gather_values(save_heatmaps(arguments, found, methods, mesh))
            for place, files in made.items()}  # fmt: skip
    for place, record in records.items():
        named = maps.get(place, {}) | (
            {RECIPE: heatmap_file(found, RECIPE, place)} if has_features[place] else {}
        )
        record["heatmaps"] = {m.name: named[m.name] for m in methods if m.name in named}
    for skipped in gather_values(skipped_files(found.predictions.source, found.folder.root)):
        found.predictions.skipped.update(skipped)
    if not records:
        raise ValueError("--images: none of the images that were predicted can be read any more")
    return dict(sorted(records.items()))


def save_class_sheets(out: Path, views: Sequence[FeatureView]) -> dict[str, dict[str, Any]]:
    """Returns, by class, the files below `out` that now show its relevant features, and their rows.

    `sheet` has names and numbers in it; `averages` and `crops` are pictures alone, for the report.
    """
    sheets = {}
    for n, name in enumerate(dict.fromkeys(view.class_name for view in views)):
        words = "-".join(re.findall(r"\w+", name))[:60] or "class"
        folder, stem = Path("average_images"), f"{n:04d}-{words}"
        files = {kind: folder / kind / f"{stem}.jpg" for kind in ("averages", "crops")}
        save_figure(class_sheet(views, class_name=name), out / folder / f"{stem}.png")
        here = [view for view in views if view.class_name == name]
        for file, pixels in zip(files.values(), sheet_pictures(here), strict=True):
            write_whole(out / file, _encoded(pixels, "jpeg"))
        sheets[name] = {
            "sheet": (folder / f"{stem}.png").as_posix(),
            **{kind: file.as_posix() for kind, file in files.items()},
            "rows": [list(row) for row in sheet_rows(here)],
        }
    return sheets


def relative_file(found: Any, place: int) -> str:
    """Returns the path of an image, given by its index in the source, below the folder of images."""
    return name_of(Path(str(found.predictions.source.files[place])), found.folder.root)


def save_image(out: Path, found: Any, place: int, image: np.ndarray) -> str:
    """Returns the file below `out` that now has an image as the network saw it.

    Args:
        out: the folder of results.
        found: the results of the steps before.
        place: of the image in the source.
        image: (height, width, channels) in [0, 1].
    """
    is_small = max(image.shape[:2]) <= _EXACT
    file = f"images/{relative_file(found, place)}.{'png' if is_small else 'jpg'}"
    write_whole(out / file, _encoded(as_eight_bits(image), "png" if is_small else "jpeg"))
    return file


def _images(
    arguments: Explain, found: Any, places: np.ndarray, mesh: Mesh
) -> Iterator[tuple[int, np.ndarray]]:
    """Index and image of those that can be read."""
    for batch, here in batches_of(found.predictions.source, places, arguments.batch_size, mesh):
        for n, place in enumerate(here[: batch["count"]].tolist()):
            if batch["weights"][n]:
                yield place, batch["pixels"][n]


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


def _note(out: Path, file: str) -> Path:
    """The record of an image, which is written after all of its files."""
    return out / "explanations" / f"{file}.json"


def _kept(arguments: Explain, found: Any, recipe: Chosen | None, places: np.ndarray) -> dict[int, Record]:
    """The records of an earlier, perhaps interrupted run with the same fingerprint and settings."""
    kept, key = {}, explanation_key(arguments, found)
    for place in places.tolist():
        content = read_json(_note(arguments.out, relative_file(found, place)))
        if content.get("key") != key:
            continue
        record = content["record"]
        is_whole = content["digests"] == _digests(arguments.out, record)
        if is_whole and (recipe is None or is_kept(arguments.out, found, recipe, place)):
            kept[place] = record
    return kept


def _digests(out: Path, record: Record) -> dict[str, str | None]:
    return {record[kind]: digest_of_file(out / record[kind]) for kind in ("image", "feature_maps")}


def files_of(record: Record) -> list[str]:
    """Returns the files that a record names, below the folder of results."""
    return [file for file in (record["image"], record["feature_maps"], *record["heatmaps"].values()) if file]


def _save(
    arguments: Explain, found: Any, recipe: Chosen | None, place: int, image: np.ndarray, one: Explanation
) -> Record:
    """Writes the image, the maps of its features and the heatmap of the recipe; returns the record."""
    out, file = arguments.out, relative_file(found, place)
    if recipe is not None:
        save_heatmap(out, found, recipe, place, one.heatmaps[0])
    valid = np.asarray(one.features.valid[0])
    indices, scores = np.asarray(one.features.indices[0]), np.asarray(one.features.scores[0])
    record = {
        "image": save_image(out, found, place, image[0]),
        "features": [
            {"feature": feature_name(found.relevance, index), "score": float(score)}
            for index, score in zip(indices[valid], scores[valid], strict=True)
        ],
        "feature_maps": f"explanations/{file}.png",
    }
    maps = np.asarray(one.maps[0])[valid] if valid.any() else np.zeros((1, *image.shape[1:3]))
    side_by_side = as_eight_bits(np.concatenate(list(maps), axis=1))
    write_whole(out / record["feature_maps"], _encoded(side_by_side, "png"))
    key = explanation_key(arguments, found)
    write_json(_note(out, file), {"key": key, "digests": _digests(out, record), "record": record})
    return record


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": 90, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


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
