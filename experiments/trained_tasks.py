"""Tasks on which methods are scored: a network that is trained once and kept, and its relevant features."""

import dataclasses
import hashlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from vexplain import classifiers
from vexplain.datasets import ArraySource, Source, gather
from vexplain.evaluation import Task
from vexplain.relevance import Relevance, learn_relevance, load_relevance, save_relevance
from vexplain.streaming import Checkpoint, fold_epoch, is_writer
from vexplain.streaming.devices import Mesh
from vexplain.streaming.processes import exists
from vexplain.typing import ApplyFn, Variables

NUM_AT_ONCE = 40  # test images


@dataclasses.dataclass(frozen=True)
class TaskSettings:
    """Which images, and which network.

    Attributes:
        variant: of an8Flower, "single_6c" or "double_12c"; of cue objects what the class is, "shape",
            "texture" or "color".
        difficulty: one of those that the variant has.
        network: one of `classifiers.SMALL_NAMES`.
        fold: 0 to 4: of flowers which is held out, of cue objects another set of images.
        size: height and width of the images in pixels.
        num_per_class: images a class, a fifth of which is held out.
        num_test: how many of the held-out ones are explained, at most.
        samples: points a pixel along each axis.
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


def trained_task(
    settings: TaskSettings,
    train: Source,
    test: Source,
    *,
    directory: str | Path,
    mesh: Mesh | None = None,
    description: str | None = None,
) -> Task:
    """Returns the task of one network on images; a second call reads what was kept, or goes on.

    Args:
        settings: which network.
        train: images with labels.
        test: images with labels and masks.
        directory: where networks are kept.
        mesh: devices; one if left out.
        description: of the progress bar of training; `None` shows none.
    """
    if settings.has_random_labels:
        train = _with_shuffled_labels(train, settings.seed)
    kept = Path(directory) / f"networks/{settings.network}-{_fingerprint(settings)}"
    apply, variables = _trained(settings, train, kept, mesh, description)
    kept_relevance = kept.with_name(f"{kept.name}-mu-{settings.mu:g}.npz")
    relevance = _relevance(kept_relevance, apply, variables, train, settings, mesh)
    accuracy = _accuracy(apply, variables, test, mesh)
    return Task(settings.name, apply, variables, relevance, train, test, accuracy)


def _with_shuffled_labels(source: Source, seed: int) -> Source:
    found = gather(source)
    labels = np.random.default_rng(seed).permutation(found["labels"])
    return ArraySource(found["images"], labels, class_names=source.class_names)


def _trained(
    settings: TaskSettings, train: Source, directory: Path, mesh: Mesh | None, description: str | None
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


def _relevance(
    path: Path,
    apply: ApplyFn,
    variables: Variables,
    train: Source,
    settings: TaskSettings,
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
    options = {"batch_size": NUM_AT_ONCE, "constants": variables, "mesh": mesh}
    return classifiers.accuracy(fold_epoch(update, init(), test, **options))


def _fingerprint(settings: TaskSettings) -> str:
    """Names what the weights depend on."""
    fields = dataclasses.asdict(settings)
    named = {name: value for name, value in fields.items() if name not in ("mu", "num_test")}
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]
