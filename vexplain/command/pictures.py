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


def explain_images(arguments: Explain, found: Any, methods: tuple[Chosen, ...]) -> dict[int, dict[str, Any]]:
    """Returns the record of every explained image by its index in the source, after its files were written.

    A record has the files "image", "heatmaps" by method and "feature_maps", and "features" with their r.
    Those of an interrupted run are used again.

    Raises:
        ValueError: no predicted class has a relevant feature, or there are fewer features than asked for.
    """
    has_features = num_features(found.relevance)[found.predictions.predicted] > 0
    if not has_features.any():
        raise ValueError(f"--mu is {arguments.mu:g}: no class has a relevant feature; choose a larger one")
    mesh = data_mesh(arguments.devices or jax.process_count())
    recipe = next((method for method in methods if method.name == RECIPE), None)
    explained = np.flatnonzero(has_features)
    records = agree_on(_kept(arguments, found, recipe, explained))
    missing = np.setdiff1d(explained, list(records))[jax.process_index() :: jax.process_count()]
    for place, image, one in _explanations(arguments, found, missing, mesh, num_done=len(records)):
        records[place] = _save(arguments, found, recipe, place, image, one)
    records = {place: record for here in gather_values(records) for place, record in here.items()}
    files = {place: {RECIPE: heatmap_file(found, RECIPE, place)} if recipe else {} for place in records}
    for made in gather_values(save_heatmaps(arguments, found, methods, mesh)):
        for place, here in made.items():
            files.setdefault(place, {}).update(here)
    others = {p: _save_image(arguments.out, found, p) for p in sorted(set(files) - set(records))}
    for skipped in gather_values(skipped_files(found.predictions.source, found.folder.root)):
        found.predictions.skipped.update(skipped)
    if not files:
        raise ValueError("--images: none of the images that were predicted can be read any more")
    nothing = {"feature_maps": "", "features": []}
    return {
        place: (records.get(place) or {"image": others[place], **nothing})
        | {"heatmaps": {m.name: files[place][m.name] for m in methods if m.name in files[place]}}
        for place in sorted(files)
    }


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


def balanced(predictions: Predictions) -> np.ndarray:
    """Returns the indices of all images in the order of the report: one of each class, then a second, ...

    Of a class, right and wrong decisions take turns, where the truth is known.
    """
    is_wrong = (predictions.truth >= 0) & (predictions.truth != predictions.predicted)
    turn = _rank(np.stack([predictions.predicted, is_wrong], 1))  # among the right, or wrong, of one class
    within = np.lexsort((is_wrong, turn))
    rank = np.empty(len(turn), int)
    rank[within] = _rank(predictions.predicted[within][:, None])
    return np.argsort(rank, kind="stable")


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
    """Returns what the heatmap of an image depends on."""
    return [found.fingerprint, arguments.num_features, arguments.on_uncovered]


def _note(out: Path, file: str) -> Path:
    """The record of an image, which is written after all of its files."""
    return out / "explanations" / f"{file}.json"


def _kept(
    arguments: Explain, found: Any, recipe: Chosen | None, places: np.ndarray
) -> dict[int, dict[str, Any]]:
    """The records of an earlier, perhaps interrupted run with the same fingerprint and settings."""
    kept, key = {}, explanation_key(arguments, found)
    for place in places.tolist():
        content = read_json(_note(arguments.out, relative_file(found, place)))
        if content.get("key") != key or (recipe and not is_kept(arguments.out, found, recipe, place)):
            continue
        record = content["record"]
        if content["digests"] == {file: digest_of_file(arguments.out / file) for file in files_of(record)}:
            kept[place] = record
    return kept


def files_of(record: dict[str, Any]) -> list[str]:
    """Returns the files that a record names, below the folder of results."""
    named = [record["image"], *record.get("heatmaps", {}).values(), record["feature_maps"]]
    return [file for file in named if file]


def _save(
    arguments: Explain, found: Any, recipe: Chosen | None, place: int, image: np.ndarray, one: Explanation
) -> dict[str, Any]:
    """Writes the image as the network saw it, the maps of its features, and the record of them."""
    out, file = arguments.out, relative_file(found, place)
    valid = np.asarray(one.features.valid[0])
    indices, scores = np.asarray(one.features.indices[0]), np.asarray(one.features.scores[0])
    record = {
        "image": _save_image(out, found, place, image[0]),
        "feature_maps": f"explanations/{file}.png",
        "features": [
            {"feature": feature_name(found.relevance, index), "score": float(score)}
            for index, score in zip(indices[valid], scores[valid], strict=True)
        ],
    }
    if recipe is not None:
        save_heatmap(out, found, recipe, place, one.heatmaps[0])
    maps = np.asarray(one.maps[0])[valid] if valid.any() else np.zeros((1, *image.shape[1:3]))
    pixels = as_eight_bits(np.concatenate(list(maps), axis=1))
    write_whole(out / record["feature_maps"], _encoded(pixels, "png"))
    digests = {name: digest_of_file(out / name) for name in files_of(record)}
    write_json(
        _note(out, file), {"key": explanation_key(arguments, found), "digests": digests, "record": record}
    )
    return record


def _save_image(out: Path, found: Any, place: int, image: np.ndarray | None = None) -> str:
    """Writes an image as the network saw it, and returns the file."""
    if image is None:
        image = np.asarray(found.predictions.source[np.array([place])]["images"][0])
    is_small = max(image.shape[:2]) <= _EXACT
    file = f"images/{relative_file(found, place)}.{'png' if is_small else 'jpg'}"
    write_whole(out / file, _encoded(as_eight_bits(image), "png" if is_small else "jpeg"))
    return file


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    options = {"quality": 90, "subsampling": 0} if kind == "jpeg" else {}
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _rank(groups: np.ndarray) -> np.ndarray:
    """How many rows like this one came before it."""
    seen: collections.Counter[tuple[int, ...]] = collections.Counter()
    ranks = []
    for row in map(tuple, groups.tolist()):
        ranks.append(seen[row])
        seen[row] += 1
    return np.array(ranks, int)
