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
from vexplain.datasets.batches import epoch_batches
from vexplain.datasets.sources import subset
from vexplain.figures import class_sheet, save_figure, sheet_pictures, sheet_rows
from vexplain.relevance import Explanation, FeatureView, explain, feature_name, num_features
from vexplain.streaming import agree_on, gather_values, is_writer

RECIPE = "relevant_features"  # the method of the explanations
_EXACT = 128  # images of at most so many pixels a side are kept as they are, larger ones as JPEG


def explain_images(arguments: Explain, found: Any) -> dict[int, dict[str, Any]]:
    """Returns the record of every explained image by its index in the source, after its files were written.

    A record has the files "image", "heatmaps" by method and "feature_maps", and "features" with their r.
    Those of an interrupted run are used again.

    Raises:
        ValueError: no predicted class has a relevant feature, or there are fewer features than asked for.
    """
    has_features = num_features(found.relevance)[found.predictions.predicted] > 0
    if not has_features.any():
        raise ValueError(f"--mu is {arguments.mu:g}: no class has a relevant feature; choose a larger one")
    explained = np.flatnonzero(has_features)
    records = agree_on(_kept(arguments, found, explained))
    missing = np.setdiff1d(explained, list(records))[jax.process_index() :: jax.process_count()]
    for place, image, one in _explanations(arguments, found, missing, num_done=len(records)):
        records[place] = _save(arguments, found, place, image, one)
    records = {place: record for here in gather_values(records) for place, record in here.items()}
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


def _note(out: Path, file: str) -> Path:
    """The record of an image, which is written after all of its files."""
    return out / "explanations" / f"{file}.json"


def _kept(arguments: Explain, found: Any, places: np.ndarray) -> dict[int, dict[str, Any]]:
    """The records of an earlier, perhaps interrupted run with the same fingerprint and settings."""
    kept, key = {}, explanation_key(arguments, found)
    for place in places.tolist():
        content = read_json(_note(arguments.out, relative_file(found, place)))
        if content.get("key") != key:
            continue
        record = content["record"]
        if content["digests"] == {file: digest_of_file(arguments.out / file) for file in files_of(record)}:
            kept[place] = record
    return kept


def files_of(record: dict[str, Any]) -> list[str]:
    """Returns the files that a record names, below the folder of results."""
    return [record["image"], *record["heatmaps"].values(), record["feature_maps"]]


def _save(arguments: Explain, found: Any, place: int, image: np.ndarray, one: Explanation) -> dict[str, Any]:
    """Writes the image as the network saw it, its heatmaps (8 bits, gray), and the record of them."""
    out, file = arguments.out, relative_file(found, place)
    valid = np.asarray(one.features.valid[0])
    indices, scores = np.asarray(one.features.indices[0]), np.asarray(one.features.scores[0])
    is_small = max(image.shape[1:3]) <= _EXACT
    record = {
        "image": f"images/{file}.{'png' if is_small else 'jpg'}",
        "heatmaps": {RECIPE: f"heatmaps/{RECIPE}/{file}.png"},
        "feature_maps": f"explanations/{file}.png",
        "features": [
            {"feature": feature_name(found.relevance, index), "score": float(score)}
            for index, score in zip(indices[valid], scores[valid], strict=True)
        ],
    }
    maps = np.asarray(one.maps[0])[valid] if valid.any() else np.zeros((1, *image.shape[1:3]))
    write_whole(out / record["image"], _encoded(_bytes(image[0]), "png" if is_small else "jpeg"))
    write_whole(out / record["heatmaps"][RECIPE], _encoded(_bytes(one.heatmaps[0]), "png"))
    write_whole(out / record["feature_maps"], _encoded(_bytes(np.concatenate(list(maps), axis=1)), "png"))
    digests = {name: digest_of_file(out / name) for name in files_of(record)}
    write_json(
        _note(out, file), {"key": explanation_key(arguments, found), "digests": digests, "record": record}
    )
    return record


def _bytes(values: Any) -> np.ndarray:
    return np.round(np.clip(np.asarray(values), 0, 1) * 255).astype(np.uint8)


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
