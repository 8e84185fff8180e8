"""The paper's Sections 4.1 and 4.2 for a classifier and labeled images without masks.

What matters for each class (the sparse regression), what it looks like (average images), whether the network
needs it (ablation: features of all layers, of convolutions only, and as many random ones of the same layers),
and why test images got their class (heatmaps). The experiments of the paper's data sets differ in network and
data alone; both come in as a `Trained`.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.classifier_report import write_classifier_report
from experiments.job import fingerprint, plain_settings, say, step
from vexplain import classifiers, relevance
from vexplain._files import write_json
from vexplain.datasets import Source
from vexplain.relevance import interpret
from vexplain.streaming import Checkpoint, fold_epoch, is_writer
from vexplain.streaming.devices import data_mesh
from vexplain.transforms import Layer, LayerTable, layers


@dataclasses.dataclass(frozen=True)
class JobSettings:
    """What all of these experiments can be told."""

    out: Path = Path("runs")
    mu: float = 10.0  # of the paper, for all data sets but an8Flower
    num_features: int = 3  # heatmaps an image, K
    num_exemplars: int = 100  # crops in an average image
    num_draws: int = 5  # of random features in the ablation
    num_explained: int = 12  # test images shown in the report
    num_classes_shown: int = 20  # whose features are looked at; all are measured
    batch_size: int = 64
    seed: int = 0
    devices: int | None = None  # all, if left out

    def __post_init__(self):
        """Raises ValueError for a setting that could only fail later, after hours of work."""
        for name in ("num_features", "num_exemplars", "num_draws", "num_explained", "num_classes_shown"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: expected 1 or more")
        if not 0 < self.mu < math.inf:
            raise ValueError(f"mu is {self.mu}: expected a positive number")


class Trained(NamedTuple):
    """A network and the images that it is measured on.

    Attributes:
        name: of the network, for the report.
        data: what the images are, for the report.
        apply: `apply(variables, images) -> logits`.
        variables: its weights.
        train: the images that the regression is fitted on.
        test: held-out ones.
    """

    name: str
    data: str
    apply: Callable[..., Any]
    variables: Any
    train: Source
    test: Source


def run_job(settings: JobSettings, title: str, make: Callable[[Any], Trained]) -> dict[str, Any]:
    """Runs the job on what `make(mesh)` returns; returns what `metrics.json` holds."""
    started, seconds = time.monotonic(), {}
    mesh = checked_mesh(settings.batch_size, settings.devices)
    say(f"vexplain: {title}; results in {settings.out}")
    settings.out.mkdir(parents=True, exist_ok=True)
    with step("Data and training", seconds):
        job = make(mesh)
    table = layers(job.apply, job.variables, job.test[[0]]["images"])
    say(f"\n{table}\n")
    searched = searched_layers(table)
    passes = passes_of(settings)
    accuracy = measure_accuracy(
        job.apply, job.variables, job.test, mesh, settings.batch_size, passes.below("accuracy")
    )
    say(f"held-out accuracy {accuracy:.2%} on {len(job.test)} images")
    options = {"mu": settings.mu, "batch_size": settings.batch_size, "mesh": mesh}
    with step("Relevant features", seconds):
        found = find_features(job.apply, job.variables, job.train, searched, checkpoint=passes, **options)
    say(f"\n{found[0]}\n" if len(found[0].class_names) <= settings.num_classes_shown else "")
    shown = of_first_classes(found[0], settings.num_classes_shown)
    with step("Average images", seconds):
        views = interpret(
            job.apply,
            job.variables,
            table,
            shown,
            job.train,
            num_images=settings.num_exemplars,
            batch_size=settings.batch_size,
            mesh=mesh,
            checkpoint=passes.below("average-images"),
        )
    with step("Ablation", seconds):
        ablation = ablate(
            job.apply,
            job.variables,
            table,
            found,
            job.test,
            num_draws=settings.num_draws,
            seed=settings.seed,
            batch_size=settings.batch_size,
            mesh=mesh,
            checkpoint=passes.below("ablation"),
        )
    metrics = {
        "network": job.name,
        "data": job.data,
        "accuracy": accuracy,
        "num_train_images": len(job.train),
        "num_test_images": len(job.test),
        "skipped_files": sorted({*getattr(job.train, "skipped", ()), *getattr(job.test, "skipped", ())}),
        "num_candidates": relevance.layout_size(found[0].layout),
        "num_features": dict(
            zip(found[0].class_names, map(int, relevance.num_features(found[0])), strict=True)
        ),
        "relative_duality_gap": float(np.max(found[0].gaps)),
        "ablation": ablation | {"accuracy": accuracy},
        "seconds": seconds | {"total": time.monotonic() - started},
        "settings": plain_settings(settings),
    }
    if is_writer():
        write_json(settings.out / "metrics.json", metrics)
        relevance.save_relevance(found[0], settings.out / "relevance.npz")
        report = write_classifier_report(settings.out, title, job, found[0], views, metrics)
        say(
            f"accuracy without relevant features {ablation['relevant']:.2%}, without random ones "
            f"{np.mean(ablation['random']):.2%}; of convolutions {ablation['relevant_conv']:.2%} and "
            f"{np.mean(ablation['random_conv']):.2%}\n\nThe report is in {report}"
        )
    passes.remove()
    return metrics


def passes_of(settings: Any, *, without: Sequence[str] = ()) -> Checkpoint:
    """Where the passes of a job are saved until its results are written.

    Args:
        settings: of the experiment.
        without: settings that no pass depends on.
    """
    name = fingerprint(settings, without={"out", "devices", *without})
    return Checkpoint(settings.out / f"passes-{name}")


def checked_mesh(batch_size: int, devices: int | None) -> Any:
    """The devices of the job, among which the batches must divide evenly."""
    mesh = data_mesh(devices)
    num_devices = mesh.size
    if batch_size % num_devices:
        raise ValueError(
            f"batch_size is {batch_size}: expected a multiple of the {num_devices} devices, or use fewer by "
            "--devices"
        )
    return mesh


def train_classifier(
    settings: Any,
    apply: Callable[..., Any],
    variables: Any,
    train: Source,
    mesh: Any,
    *,
    epochs: int,
    learning_rate: float,
    without: Sequence[str] = (),
) -> Any:
    """Variables trained for some epochs, or from where a checkpoint under `settings.out` stops.

    Args:
        settings: of the experiment, with `out`, `batch_size` and `seed`.
        apply: the network.
        variables: to begin with.
        train: the images.
        mesh: the devices.
        epochs: passes over them.
        learning_rate: at its peak; cosine decay to zero.
        without: settings that training does not depend on, beyond those of every job.
    """
    free = {"out", "mu", "num_features", "num_exemplars", "num_draws", "num_explained", "num_classes_shown"}
    name = fingerprint(settings, without={*free, "devices", *without})
    return classifiers.train(
        apply,
        variables,
        train,
        epochs=epochs,
        batch_size=settings.batch_size,
        learning_rate=learning_rate,
        seed=settings.seed,
        directory=settings.out / f"checkpoints-{name}",
        mesh=mesh,
        description="Training",
    )


def measure_accuracy(
    apply: Any, variables: Any, test: Source, mesh: Any, batch_size: int, checkpoint: Checkpoint
) -> float:
    """Held-out accuracy in [0, 1]."""
    init, update = classifiers.confusion(apply, len(test.class_names))
    options = {"batch_size": batch_size, "mesh": mesh, "checkpoint": checkpoint}
    return classifiers.accuracy(fold_epoch(update, init(), test, constants=variables, **options))


def searched_layers(table: LayerTable) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
    """Layers to search, and convolutions to search: all of them, or as many as a Gram matrix holds."""
    convolutions = relevance.candidate_layers(table, convolutional_only=True)
    if relevance.gram_bytes(convolutions) > relevance.MAX_GRAM_BYTES:
        convolutions = tuple({row.shape: row for row in convolutions}.values())  # the last of each stage
    return relevance.default_layers(table), convolutions


def find_features(
    apply: Any,
    variables: Any,
    train: Source,
    searched: tuple[tuple[Layer, ...], tuple[Layer, ...]],
    *,
    mu: float,
    batch_size: int,
    mesh: Any,
    checkpoint: Checkpoint,
) -> tuple[relevance.Relevance, relevance.Relevance]:
    """Relevant features among all layers, and among convolutions only; see `searched_layers`."""
    all_layers, convolutions = (
        relevance.learn_relevance(
            apply,
            variables,
            train,
            layers=rows,
            mu=mu,
            batch_size=batch_size,
            on_empty_class="leave_out",
            mesh=mesh,
            checkpoint=checkpoint.below(f"responses of {which}"),
            description=f"Responses of {which}",
        )
        for rows, which in zip(searched, ("all layers", "convolutions"), strict=True)
    )
    return all_layers, convolutions


def of_first_classes(found: relevance.Relevance, count: int) -> relevance.Relevance:
    """The relevance with the weights of all classes but the first ones set to zero."""
    weights = np.array(found.weights)
    weights[:, count:] = 0
    return dataclasses.replace(found, weights=weights)


def ablate(
    apply: Any,
    variables: Any,
    table: LayerTable,
    found: Sequence[relevance.Relevance],
    test: Source,
    *,
    num_draws: int,
    seed: int,
    batch_size: int,
    mesh: Any,
    checkpoint: Checkpoint,
) -> dict[str, Any]:
    """Accuracy without the relevant features, and without as many random ones in the same layers.

    `found` are those of all layers and those of convolutions, whose names end in `_conv`.
    """
    table_rows = {row.name: row for row in table}
    results: dict[str, Any] = {}
    for suffix, chosen in zip(("", "_conv"), found, strict=True):
        relevant = np.any(np.asarray(chosen.weights) != 0, axis=1)[None]
        every = np.repeat(relevant, num_draws, axis=0)
        random = relevance.matched_random(jax.random.key(seed), every, chosen.layout)
        rows = [table_rows[name] for name in chosen.layers]
        init, update = relevance.ablation_counts(apply, rows, len(test.class_names))
        counts = fold_epoch(
            update,
            init(1 + num_draws),
            test,
            batch_size=batch_size,
            constants=(variables, np.concatenate([relevant, random]), None),
            mesh=mesh,
            checkpoint=checkpoint.below(f"ablation{suffix}"),
            description="Ablation",
        )
        accuracies = np.asarray(counts.correct.sum(1) / counts.images.sum())
        results["relevant" + suffix] = float(accuracies[0])
        results["random" + suffix] = accuracies[1:].tolist()
        union = relevance.relevant_union(chosen)
        results["num_silenced" + suffix] = {name: len(channels) for name, channels in union.items()}
    return results
