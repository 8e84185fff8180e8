"""Tasks of rendered flowers, on which methods are scored: from nothing, and kept.

`flower_task` renders an8Flower, trains a small network (once: it is kept), finds its relevant features, and
measures on the network what each part of every test image is worth.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain import classifiers
from vexplain.datasets import ArraySource, Source, gather, in_memory, subset
from vexplain.datasets.an8flower import CHANGES, RenderedSource, fold_indices, part_names
from vexplain.evaluation import Task, with_part_effects
from vexplain.relevance import Relevance, learn_relevance, load_relevance, save_relevance
from vexplain.streaming import Checkpoint, fold_epoch, is_writer
from vexplain.streaming.devices import Mesh
from vexplain.streaming.processes import exists
from vexplain.typing import ApplyFn, Variables

_NUM_AT_ONCE = 40  # test images; with each goes one more for every part and intervention


@dataclasses.dataclass(frozen=True)
class FlowerSettings:
    """Which flowers, and which network.

    Attributes:
        variant: "single_6c" or "double_12c".
        difficulty: one of `datasets.an8flower.DIFFICULTIES`.
        network: one of `classifiers.SMALL_NAMES`.
        fold: 0 to 4, which is held out.
        size: height and width of the images in pixels.
        num_per_class: images a class, a fifth of which is held out.
        num_test: how many of the held-out ones are explained, at most.
        samples: rays a pixel along each axis.
        width: of the network, see `build_small`.
        epochs: of training.
        batch_size: of training.
        learning_rate: at its peak.
        mu: of the relevant features.
        seed: of images, weights and order.
        has_random_labels: the labels of training are shuffled: a network for a sanity check, on which the
            effects of parts are not measured.
    """

    variant: str = "single_6c"
    difficulty: str = "plain"
    network: str = "flower_net"
    fold: int = 0
    size: int = 64
    num_per_class: int = 300
    num_test: int = 120
    samples: int = 3
    width: int | None = None
    epochs: int = 12
    batch_size: int = 64
    learning_rate: float = 1e-3
    mu: float = 5.0
    seed: int = 0
    has_random_labels: bool = False

    @property
    def name(self) -> str:
        """Of the cell, without its fold."""
        return f"{self.variant}, {self.difficulty}, {self.network}"


def flower_task(
    settings: FlowerSettings,
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
    if settings.has_random_labels:
        train = _with_shuffled_labels(train, settings.seed)
    kept = Path(directory) / f"networks/{settings.network}-{_fingerprint(settings)}"
    apply, variables = _trained(settings, train, kept, mesh, description)
    kept_relevance = kept.with_name(f"{kept.name}-mu-{settings.mu:g}.npz")
    relevance = _relevance(kept_relevance, apply, variables, train, settings, mesh)
    accuracy = _accuracy(apply, variables, test, mesh)
    if not settings.has_random_labels:
        interventions = _interventions(settings, test_indices)
        options = {"truth_parts": _truth_parts(settings), "batch_size": _NUM_AT_ONCE, "mesh": mesh}
        test = with_part_effects(apply, variables, test, interventions, **options)
    return Task(settings.name, apply, variables, relevance, train, test, accuracy)


def _truth_parts(settings: FlowerSettings) -> Sequence[int] | None:
    """Where a patch shows the class too, what the network uses is the truth: any part but the background."""
    return range(1, len(part_names(settings.difficulty))) if settings.difficulty == "shortcut" else None


def _trained(
    settings: FlowerSettings, train: Source, directory: Path, mesh: Mesh | None, description: str | None
) -> tuple[ApplyFn, Variables]:
    apply, variables = classifiers.build_small(
        settings.network,
        len(train.class_names),
        image_size=settings.size,
        width=settings.width,
        seed=settings.seed + settings.fold,
    )
    options = {name: getattr(settings, name) for name in ("epochs", "batch_size", "learning_rate", "seed")}
    shown = {"mesh": mesh, "description": description}
    variables = classifiers.train(apply, variables, train, directory=directory, **options, **shown)
    return apply, jax.tree.map(jnp.asarray, jax.device_get(variables))  # checks run on one device


class _Changed(NamedTuple):
    images: np.ndarray  # (n, interventions, parts, height, width, 3)
    masks: np.ndarray  # (n, parts, height, width)


def rendered_flowers(settings: FlowerSettings, *, progress: Callable[[Any], Any] = iter) -> ArraySource:
    """Returns all images of a variant and difficulty in memory, for the tasks of several folds and networks.

    Args:
        settings: which images; fold, network and training do not matter.
        progress: wraps the range of batches, for instance `tqdm.tqdm`.
    """
    return in_memory(_source(settings), progress=progress)


def _source(settings: FlowerSettings) -> RenderedSource:
    names = ("variant", "num_per_class", "size", "samples", "seed", "difficulty")
    return RenderedSource(**{name: getattr(settings, name) for name in names})


def _split(settings: FlowerSettings) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training images, and of the first test images: labels take turns, so do the classes."""
    train, test = fold_indices(_source(settings), settings.fold)
    if len(train) < settings.batch_size or not len(test):
        raise ValueError(
            f"num_per_class is {settings.num_per_class}: leaves {len(train)} images for training and "
            f"{len(test)} for testing, of which a batch takes {settings.batch_size}; raise it, or lower "
            "batch_size"
        )
    return train, test[: settings.num_test]


def _with_shuffled_labels(source: Source, seed: int) -> Source:
    found = gather(source)
    labels = np.random.default_rng(seed).permutation(found["labels"])
    return ArraySource(found["images"], labels, class_names=source.class_names)


def _interventions(settings: FlowerSettings, chosen: np.ndarray) -> Callable[[np.ndarray], _Changed]:
    """What `with_part_effects` asks for: every intervention on every part of some test images."""
    source = _source(settings)

    def of(indices: np.ndarray) -> _Changed:
        changed = [source.interventions(chosen[indices], change=change) for change in CHANGES]
        return _Changed(np.stack([np.asarray(c.images) for c in changed], 1), np.asarray(changed[0].masks))

    return of


def _relevance(
    path: Path,
    apply: ApplyFn,
    variables: Variables,
    train: Source,
    settings: FlowerSettings,
    mesh: Mesh | None,
) -> Relevance:
    """Read from the file if it is there."""
    if exists(path):
        return load_relevance(path)
    checkpoint = Checkpoint(path.with_suffix(".pass"))
    options = {"mu": settings.mu, "on_empty_class": "leave_out", "mesh": mesh, "checkpoint": checkpoint}
    found = learn_relevance(apply, variables, train, batch_size=settings.batch_size, **options)
    if is_writer():
        save_relevance(found, path)
    checkpoint.remove()
    return found


def _accuracy(apply: ApplyFn, variables: Variables, test: Source, mesh: Mesh | None) -> float:
    init, update = classifiers.confusion(apply, len(test.class_names))
    options = {"batch_size": _NUM_AT_ONCE, "constants": variables, "mesh": mesh}
    return classifiers.accuracy(fold_epoch(update, init(), test, **options))


def _fingerprint(settings: FlowerSettings) -> str:
    """Names what the weights depend on."""
    fields = dataclasses.asdict(settings)
    named = {name: value for name, value in fields.items() if name not in ("mu", "num_test")}
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]
