"""Tasks of rendered flowers, on which methods are scored: from nothing, and kept.

`flower_task` renders an8Flower, trains a small network (once: it is kept), finds its relevant features, and
measures on the network what each part of every test image is worth.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.trained_tasks import NUM_AT_ONCE, TaskSettings, trained_task
from vexplain.datasets import ArraySource, Source, in_memory, subset
from vexplain.datasets.an8flower import CHANGES, RenderedSource, difficulty_of, fold_indices
from vexplain.evaluation import Task, with_part_effects
from vexplain.streaming.devices import Mesh


def flower_task(
    settings: TaskSettings,
    *,
    images: Source | None = None,
    directory: str | Path = "runs/ground_truth",
    mesh: Mesh | None = None,
    description: str | None = None,
) -> Task:
    """Returns the task of one network on one kind of flowers.

    What took long is kept in the directory, under a name that follows from the settings: the network, and
    its relevant features. A second call reads them; one that was interrupted goes on.

    The truth is the mask of what determines the class. Under "shortcut", where a patch in a corner shows the
    class too, it is what this network uses: the parts whose intervention costs at least half of the largest
    effect (`with_part_effects`).

    Args:
        settings: which flowers, and which network.
        images: what `rendered_flowers(settings)` returned; rendered if left out.
        directory: where networks are kept.
        mesh: devices; one if left out.
        description: of the progress bar of training; `None` shows none.

    Raises:
        ValueError: an unknown variant, difficulty or network, or numbers out of range.
    """
    train_indices, test_indices = _split(settings)
    images = rendered_flowers(settings) if images is None else images
    train, test = subset(images, train_indices), subset(images, test_indices)
    options = {"directory": directory, "mesh": mesh, "description": description}
    task = trained_task(settings, train, test, **options)
    if settings.has_random_labels:
        return task
    options = {"truth_parts": _truth_parts(settings), "batch_size": NUM_AT_ONCE, "mesh": mesh}
    measured = with_part_effects(
        task.apply, task.variables, test, _interventions(settings, test_indices), **options
    )
    return dataclasses.replace(task, test=measured)


def _truth_parts(settings: TaskSettings) -> Sequence[int] | None:
    """Where a patch shows the class too, what the network uses is the truth: any part but the background."""
    around = difficulty_of(settings.difficulty)
    return range(1, len(around.part_names)) if around.is_cue else None


class _Changed(NamedTuple):
    images: np.ndarray  # (n, interventions, parts, height, width, 3)
    masks: np.ndarray  # (n, parts, height, width)


def rendered_flowers(settings: TaskSettings, *, progress: Callable[[Any], Any] = iter) -> ArraySource:
    """Returns all images of a variant and difficulty in memory, for the tasks of several folds and networks.

    Args:
        settings: which images; fold, network and training do not matter.
        progress: wraps the range of batches, for instance `tqdm.tqdm`.
    """
    return in_memory(_source(settings), progress=progress)


def _source(settings: TaskSettings) -> RenderedSource:
    names = ("variant", "num_per_class", "size", "samples", "seed", "difficulty")
    return RenderedSource(**{name: getattr(settings, name) for name in names})


def _split(settings: TaskSettings) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training images, and of the first test images: labels take turns, so do the classes."""
    train, test = fold_indices(_source(settings), settings.fold)
    if len(train) < settings.batch_size or not len(test):
        raise ValueError(
            f"num_per_class is {settings.num_per_class}: leaves {len(train)} images for training and "
            f"{len(test)} for testing, of which a batch takes {settings.batch_size}; raise it, or lower "
            "batch_size"
        )
    return train, test[: settings.num_test]


def _interventions(settings: TaskSettings, chosen: np.ndarray) -> Callable[[np.ndarray], _Changed]:
    """What `with_part_effects` asks for: every intervention on every part of some test images."""
    source = _source(settings)

    def of(indices: np.ndarray) -> _Changed:
        changed = [source.interventions(chosen[indices], change=change) for change in CHANGES]
        return _Changed(np.stack([np.asarray(c.images) for c in changed], 1), np.asarray(changed[0].masks))

    return of
