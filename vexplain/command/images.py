"""The folder of images of a command line, its labels if it has them, and the predictions for its images."""

import collections
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.command.model import Model
from vexplain.datasets import ImageFiles, class_folders, image_folder
from vexplain.datasets.image_files import SUFFIXES
from vexplain.streaming import Checkpoint, fold_epoch
from vexplain.streaming.devices import Mesh
from vexplain.typing import Array, Batch, Float, Int, Shaped, Variables

_LONGEST = 200  # bytes of a name


class Folder(NamedTuple):
    """Images and what is known of their classes."""

    root: Path
    source: ImageFiles  # the label is the true class where it is known, else 0
    has_labels: bool  # the folders are classes of the network
    note: str  # on the classes, for the user


class Predictions(NamedTuple):
    """The predictions of the network for the n readable images."""

    source: ImageFiles  # the label is the predicted class
    truth: np.ndarray  # (n,) the true classes, where they are known, else -1
    predicted: np.ndarray  # (n,) the classes with the largest score
    probabilities: np.ndarray  # (n,) softmax of that score, or its sigmoid where scores are of labels
    skipped: dict[str, str]  # broken files, and what is wrong with each
    labels: list[tuple[str, ...]] | None = (
        None  # of each image all above one half, where scores are of labels
    )


def open_folder(root: Path, model: Model, classes: Path | None = None) -> Folder:
    """Returns the images of a folder, labeled where its folders are classes of the network.

    `classes` is a file of class names, one a line in the order of the scores.

    Raises:
        ValueError: no image, or another number of names than the network has classes.
    """
    names = None if classes is None else _read_names(classes, model)
    try:
        source = image_folder(root, size=model.resizing)
    except ValueError as error:
        raise ValueError(
            f"--images is {str(root)!r}: no image in it or in its folders, no file that ends in "
            f"{', '.join(SUFFIXES)}"
        ) from error
    parts = [path.relative_to(root).parts for path in paths_of(source)]
    folders = sorted({here[0] for here in parts if len(here) > 1})
    shown = [name_of(root / folder, root) for folder in folders]
    is_flat = any(len(here) == 1 for here in parts)
    if not is_flat and (names is None and len(folders) == model.num_classes):
        names = tuple(shown)
    has_labels = not is_flat and names is not None and set(shown) <= set(names)
    note = _note(has_labels, is_flat, shown, names, model)
    names = names or tuple(map(str, range(model.num_classes)))
    if not has_labels:
        labels = np.zeros(len(source), np.int32)
        return Folder(root, _source(source.files, labels, names, model), False, note)
    labeled = class_folders(root, size=model.resizing, classes=folders)
    labels = np.array([names.index(shown[label]) for label in labeled.classes], np.int32)
    return Folder(root, _source(labeled.files, labels, names, model), True, note)


def name_of(path: Path, root: Path) -> str:
    """Returns how results name an image: its path below the folder of images, in UTF-8.

    Bytes that are no UTF-8 are written out, `\\xff`. A part of more than 200 bytes is cut, and gets digits
    that tell it from others: the files of results add to its name.
    """
    parts = os.fsencode(path.relative_to(root).as_posix()).split(b"/")
    whole = [part.decode("utf-8", "backslashreplace") for part in parts]
    return "/".join(text if len(text.encode()) <= _LONGEST else _cut(text) for text in whole)


def _cut(text: str) -> str:
    digits = hashlib.sha256(text.encode()).hexdigest()[:16]
    return text.encode()[: _LONGEST - 20].decode("utf-8", "ignore") + f"~{digits}"


def paths_of(source: ImageFiles) -> list[Path]:
    """Returns the paths of the files of a source."""
    return [Path(str(file)) for file in source.files]


class _Scores(NamedTuple):
    """Of every image in the order of the source."""

    predicted: Int[Array, " images"]
    probabilities: Float[Array, " images"]
    is_finite: Shaped[Array, " images"]
    is_readable: Shaped[Array, " images"]
    is_probability: Shaped[Array, " images"]  # scores that are probabilities already
    num_rows: Int[Array, ""]  # filled so far
    has_label: Any = None  # (images, labels), where the scores are of labels


def predict(
    model: Model, folder: Folder, batch_size: int, mesh: Mesh, checkpoint: Checkpoint, multi_label: bool
) -> Predictions:
    """Returns the predicted class of every image that can be read, and goes on where a checkpoint stops.

    With `multi_label` the scores are independent, and the predicted class is the label with the largest.

    Raises:
        ValueError: no image can be read, a score that is not finite, scores that are probabilities, or one
            class for all images.
    """
    count = len(folder.source)
    never = jnp.zeros(count, bool)
    numbers = (jnp.zeros(count, jnp.int32), jnp.zeros(count))
    state = _Scores(*numbers, never, never, never, jnp.zeros((), jnp.int32))
    if multi_label:
        state = state._replace(has_label=jnp.zeros((count, model.num_classes), bool))

    def update(state: _Scores, batch: Batch, variables: Variables) -> _Scores:
        logits = model.apply(variables, batch["images"])
        scores = jax.nn.sigmoid(logits) if multi_label else jax.nn.softmax(logits)
        is_one = (logits <= 1).all(1) if multi_label else jnp.abs(logits.sum(1) - 1) < 1e-3
        here = _Scores(
            predicted=logits.argmax(1),
            probabilities=scores.max(1),
            is_finite=jnp.isfinite(logits).all(1),
            is_readable=batch["weights"] > 0,
            is_probability=(logits >= 0).all(1) & is_one,
            num_rows=jnp.asarray(len(scores)),
            has_label=scores >= 0.5 if multi_label else None,
        )
        rows = state.num_rows + jnp.arange(len(scores))  # padding at the end has none, and is dropped

        def filled(old, new):
            return old.at[rows].set(new, mode="drop") if old.ndim else old + new

        return jax.tree.map(filled, state, here)

    found = fold_epoch(
        update,
        state,
        folder.source,
        batch_size=-(-min(batch_size, count) // mesh.size) * mesh.size,
        constants=model.variables,
        mesh=mesh,
        checkpoint=checkpoint,
        description="Predictions",
    )
    is_readable = np.asarray(found.is_readable)
    if not is_readable.any():
        first = next(iter(folder.source.skipped.values()), "")
        raise ValueError(f"--images: none of {len(is_readable)} files can be read as an image; {first}")
    kept = np.flatnonzero(is_readable)
    _check_finite(folder, np.asarray(found.is_finite), kept)
    if np.asarray(found.is_probability)[kept].all():
        raise ValueError(
            f"--model: the scores of {model.name} are probabilities: expected logits; build it without its "
            "last activation (in Keras: activation=None), or return the logarithms of the probabilities"
        )
    predicted = np.asarray(found.predicted)[kept].astype(np.int32)
    source = folder.source
    files = tuple(source.files[int(n)] for n in kept)
    truth = source.classes[kept] if folder.has_labels else np.full(len(kept), -1)
    if len(set(predicted.tolist())) == 1:
        raise ValueError(
            f"--images: all {len(kept)} images are predicted as {source.class_names[predicted[0]]!r}; what "
            "tells a class from others can only be found from images of two classes or more"
        )
    return Predictions(
        _source(files, predicted, source.class_names, model),
        np.asarray(truth),
        predicted,
        np.asarray(found.probabilities)[kept],
        skipped_files(source, folder.root),
        _labels(np.asarray(found.has_label)[kept], source.class_names) if multi_label else None,
    )


def _labels(has_label: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [tuple(names[n] for n in np.flatnonzero(row)) for row in has_label]


def predicted_of(predictions: Predictions, class_names: Sequence[str], place: int) -> dict[str, Any]:
    """Returns what the network says of an image, as results have it.

    Args:
        predictions: of all images.
        class_names: one a class.
        place: of the image in the source.
    """
    found = {
        "predicted": class_names[predictions.predicted[place]],
        "probability": round(float(predictions.probabilities[place]), 6),
    }
    return found if predictions.labels is None else found | {"labels": list(predictions.labels[place])}


def skipped_files(source: ImageFiles, root: Path) -> dict[str, str]:
    """Returns the files that could not be read so far, and what is wrong with each."""
    return {
        name_of(Path(name), root): reason.removeprefix(f"{name} ") for name, reason in source.skipped.items()
    }


def _source(files, labels, names, model: Model) -> ImageFiles:
    return ImageFiles(tuple(files), np.asarray(labels, np.int32), tuple(names), model.resizing)


def _read_names(path: Path, model: Model) -> tuple[str, ...]:
    """One name a class; those that come several times (ImageNet has two cranes) are numbered."""
    names = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if len(names) != model.num_classes:
        raise ValueError(
            f"--classes: {path} has {len(names)} names; {model.name} has {model.num_classes} classes: "
            "expected one name for each, one a line"
        )
    counts, seen = collections.Counter(names), collections.Counter()
    for n, name in enumerate(names):
        seen[name] += 1
        names[n] = name if counts[name] == 1 else f"{name} ({seen[name]})"
    return tuple(names)


def _note(has_labels, is_flat, folders, names, model: Model) -> str:
    if has_labels:
        return f"{len(folders)} folders, the true classes of their images"
    if is_flat:
        return "no folders of classes: images count for the class that they are predicted as"
    return (
        f"{len(folders)} folders ({', '.join(folders[:3])}, ...) that are not the "
        f"{model.num_classes} classes of {model.name}"
        + (": pass --classes to name these" if names is None else " in --classes")
        + "; images count for the class that they are predicted as"
    )


def _check_finite(folder: Folder, is_finite: np.ndarray, kept: np.ndarray) -> None:
    bad = kept[~is_finite[kept]]
    if len(bad):
        raise ValueError(
            f"--model: the scores of {len(bad)} images are NaN or infinite, first of "
            f"{folder.source.files[bad[0]]}: are these the right weights, and images in [0, 1]?"
        )
