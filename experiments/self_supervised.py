"""What does an encoder learn without labels, and what makes two images alike for it?

A network is trained by contrast of two views (SimCLR, Chen et al., 2020, in small) on rendered objects whose
shape, texture and color are independent of each other, and without any of these as a label. The hue of the
views is random, so that the color cannot be learned from their likeness. It has no classes: groups of images
take their place, as docs/concepts.md has it.

    python -m experiments.self_supervised laptop          40 px, 4 minutes of a CPU
    python -m experiments.self_supervised accelerator     64 px, textured backgrounds, more images and epochs

Asked of it and, as a control, of the same network before training: which cue its embedding tells (nearest
prototype); which cue its clusters follow (k-means, mutual information); which cue the relevant features of
the clusters and of each attribute respond to; and where `score=similarity(...)` sees what an image has in
common with another view of the same object, by the IoU area against the true mask. Leaves `report.html`,
`self_supervised.json` and figures in `runs/self_supervised`. Training resumes.

What to expect: the shape is told of three images in five, of one in five before training, and the color of
fewer than before training. What was found is in docs/results/self_supervised.md.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.cue_conflict_measures import feature_kinds, in_batches, total_effects
from experiments.job import fingerprint, plain_settings, say, step
from experiments.self_supervised_maps import Views, measure_maps, nearest, two_views
from experiments.self_supervised_report import write_figures_and_report
from experiments.self_supervised_training import (
    contrastive,
    contrastive_report,
    k_means,
    mutual_information,
)
from vexplain import classifiers, relevance
from vexplain._files import write_json
from vexplain.datasets import Source, in_memory, shuffled_batches, with_extras
from vexplain.datasets.cue_objects import CUES, CueSource
from vexplain.datasets.cue_objects.factors import NAMES
from vexplain.datasets.sources import as_unit_floats
from vexplain.streaming import Checkpoint, fold, is_writer
from vexplain.streaming.devices import data_mesh
from vexplain.transforms import Layer, layers

ATTRIBUTES = tuple(f"{value} ({cue})" for cue in CUES for value in NAMES[cue])
_FREE = (
    *("out", "devices", "num_test", "num_pairs", "num_interventions", "num_clusters", "mu"),
    *("methods", "group_methods"),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    out: Path = Path("runs/self_supervised")
    width: int = 16  # of the network, all_conv_net
    embedding: int = 64  # numbers that an image becomes
    projection: int = 32  # numbers of the head, which is left out after training
    size: int = 40  # of the images, in pixels
    samples: int = 3  # points a pixel along each axis
    background: str = "plain"  # or textured
    clutter: int = 0  # small objects
    num_per_class: int = 1000  # images of each shape
    num_test: int = 50  # images of each shape, held out
    num_pairs: int = 96  # test images that are explained by another view
    num_interventions: int = 120  # test images, whose cues are changed to each other value
    num_clusters: int = 12
    temperature: float = 0.2
    smallest_crop: float = 0.5  # share of the area that a view has at least
    hue: float = 0.5  # largest turn of the hue of a view; 0.5 is any
    epochs: int = 16
    batch_size: int = 128
    learning_rate: float = 2e-3  # peak; cosine decay to zero
    mu: float = 5.0  # of the relevant features
    methods: tuple[str, ...] = (
        "gradient",
        "integrated_gradients",
        "guided_backprop",
        "grad_cam",
        "occlusion",
    )
    group_methods: tuple[str, ...] = ("relevant_features", "relevant_evidence")
    seed: int = 0
    devices: int | None = None  # all, if left out

    def __post_init__(self):
        """Raises ValueError for a setting that could only fail later."""
        self.source("train", self.num_per_class)
        for name in ("num_test", "num_pairs", "num_interventions", "epochs", "num_clusters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if not 0 < self.smallest_crop <= 1 or not 0 <= self.hue <= 0.5:
            raise ValueError(
                f"smallest_crop is {self.smallest_crop} and hue {self.hue}: expected (0, 1] and [0, 0.5]"
            )
        if self.num_pairs > 6 * self.num_test:
            raise ValueError(f"num_pairs is {self.num_pairs}: there are {6 * self.num_test} test images")

    def source(self, split: str, num_per_class: int) -> CueSource:
        """The images of a split: six shapes, with any texture and any color."""
        names = ("size", "samples", "background", "clutter", "seed")
        options = {name: getattr(self, name) for name in names}
        return CueSource(shape=1.0, split=split, num_per_class=num_per_class, **options)


_SMOKE = Config(
    width=2,
    embedding=8,
    projection=4,
    size=16,
    samples=1,
    num_per_class=22,
    num_test=12,
    num_pairs=6,
    num_interventions=6,
    num_clusters=3,
    epochs=1,
    batch_size=32,
    methods=("grad_cam",),
    group_methods=("relevant_evidence",),
)
PRESETS = {
    "smoke": ("Seconds: does everything run?", _SMOKE),
    "laptop": ("Minutes on 2 CPU cores, 40 px.", Config()),
    "accelerator": (
        "Textured backgrounds, 64 px.",
        Config(
            width=32, size=64, background="textured", num_per_class=8000, epochs=100, batch_size=512,
            embedding=128,
        ),
    ),
}  # fmt: skip


def main(config: Config) -> dict[str, Any]:
    """Runs the experiment and returns what `self_supervised.json` holds."""
    started, cpu_started, seconds = time.monotonic(), time.process_time(), {}
    config.out.mkdir(parents=True, exist_ok=True)
    mesh = data_mesh(config.devices)
    with step("Rendering", seconds):
        train = _with_attributes(in_memory(config.source("train", config.num_per_class)))
        test = _with_attributes(in_memory(config.source("test", config.num_test)))
        changed = _with_changes(config)
        views = two_views(config.source("test", config.num_test), config.num_pairs)
    apply, before = classifiers.build_small(
        "all_conv_net", config.embedding, image_size=config.size, width=config.width, seed=config.seed
    )
    with step("Training", seconds):
        trained = train_encoder(config, apply, before, train, mesh)
    asked = questions(config, apply, before, train[:1]["images"])
    encoders, sheets = {}, {}
    for name, variables in (("trained", trained), ("before training", before)):
        with step(name, seconds):
            found, sheets[name] = measure(config, asked, variables, train, test, changed, views, mesh)
            encoders[name] = found
        say(_lines(name, found))
    metrics = {
        "encoders": encoders,
        "seconds": seconds | {"total": time.monotonic() - started, "cpu": time.process_time() - cpu_started},
        "settings": plain_settings(config),
    }
    if is_writer():
        write_json(config.out / "self_supervised.json", metrics)
        say(f"\nThe report is in {write_figures_and_report(config, metrics, sheets['trained'])}")
    return metrics


def train_encoder(config: Config, apply: Any, variables: Any, train: Source, mesh: Any) -> Any:
    """Returns the variables of the encoder after training, which goes on where it was interrupted."""
    rng = np.random.default_rng(config.seed)
    shapes = {"first": (config.embedding, config.embedding), "second": (config.embedding, config.projection)}
    head = {n: jnp.asarray(rng.normal(0, s[0] ** -0.5, s), jnp.float32) for n, s in shapes.items()}
    batch_fn, steps = shuffled_batches(train, config.batch_size, seed=config.seed)
    num_steps = config.epochs * steps
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, num_steps // 20 + 1, num_steps)
    names = ("temperature", "smallest_crop", "hue", "seed")
    init, update = contrastive(apply, optax.adam(schedule), **{n: getattr(config, n) for n in names})
    directory = config.out / "networks" / fingerprint(config, without=_FREE)
    state = fold(
        update,
        init(variables, head),
        batch_fn,
        num_steps=num_steps,
        mesh=mesh,
        checkpoint=Checkpoint(directory, every=4 * steps),
        description="Training",
        report=contrastive_report,
    )
    return state.params["encoder"]


class Questions(NamedTuple):
    """What is asked of both encoders, compiled once: they differ in their weights alone."""

    apply: Any
    grouped: Any  # ((variables, prototypes), images) -> scores of groups
    layers: tuple[Layer, ...]  # whose channels are candidates
    embed: Any  # (variables, images) -> embeddings
    respond: Any  # (variables of the grouped network, images) -> responses


def questions(config: Config, apply: Any, variables: Any, images: np.ndarray) -> Questions:
    """What is asked of encoders like this one."""
    grouped = relevance.with_prototypes(apply)
    centers = jnp.zeros((config.num_clusters, config.embedding))
    table = layers(grouped, (variables, centers), images[:1])
    rows = relevance.default_layers(table)
    respond = relevance.response_fn(grouped, rows)
    return Questions(
        apply,
        grouped,
        rows,
        jax.jit(apply),
        jax.jit(lambda variables, images: respond(variables, images)[0]),
    )


def measure(
    config: Config,
    asked: Questions,
    variables: Any,
    train: Any,
    test: Any,
    changed: Any,
    views: Views,
    mesh: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The answers of an encoder, and pictures for the report."""
    images = {"train": as_unit_floats(train.source.images), "test": as_unit_floats(test.source.images)}
    embedded = {name: in_batches(asked.embed, variables, values) for name, values in images.items()}
    centers = k_means(embedded["train"], config.num_clusters, seed=config.seed)
    options = {"batch_size": config.batch_size, "mesh": mesh}
    prototypes = relevance.group_prototypes(
        asked.apply, variables, train, labels="attributes", num_groups=len(ATTRIBUTES), **options
    )
    options |= {"layers": asked.layers, "mu": config.mu, "on_empty_class": "leave_out"}
    by_cluster = relevance.learn_relevance(
        asked.grouped, (variables, centers), train, class_names=cluster_names(config), **options
    )
    by_attribute = relevance.learn_relevance(
        asked.grouped, (variables, prototypes), train, labels="attributes", class_names=ATTRIBUTES, **options
    )
    effects = total_effects(asked.respond, (variables, centers), *changed)
    methods = config.methods, config.group_methods
    rows, sheet = measure_maps(*methods, asked, variables, centers, by_cluster, views)
    cues = {cue: test.source.extras[f"{cue}s"] for cue in CUES}
    clusters = nearest(embedded["test"], centers)
    told = {
        cue: float((nearest(embedded["test"], prototypes[6 * n : 6 * n + 6]) == values).mean())
        for n, (cue, values) in enumerate(cues.items())
    }
    found = {
        "told": told,
        "clusters": {cue: mutual_information(clusters, values) for cue, values in cues.items()},
        "cluster_features": feature_kinds(by_cluster, effects)["weight"],
        "attribute_features": _by_cue(feature_kinds(by_attribute, effects)),
        "maps": rows,
    }
    distances = ((embedded["test"][:, None] - centers) ** 2).sum(-1)
    members = {
        name: {f"{k + 1}": images["test"][n] for k, n in enumerate(np.argsort(distances[:, c])[:8])}
        for c, name in enumerate(cluster_names(config))
    }
    return found, {"maps": sheet, "clusters": members}


def cluster_names(config: Config) -> tuple[str, ...]:
    """A name for each cluster."""
    return tuple(f"cluster {n + 1}" for n in range(config.num_clusters))


def _with_attributes(source: Any) -> Any:
    """With zeros and ones for all values of all cues in its batches."""
    values = np.stack([source.extras[f"{cue}s"] for cue in CUES], axis=1)
    matrix = (values[:, :, None] == np.arange(6)).reshape(len(values), -1).astype(np.float32)
    return with_extras(source, {"attributes": matrix})


def _with_changes(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Test images, and the same with one cue changed: (n, values, cues, height, width, 3)."""
    source = config.source("test", -(-config.num_interventions // 6))
    indices = np.arange(config.num_interventions)
    changed = [source.interventions(indices, step=step) for step in range(1, 6)]
    return np.asarray(source[indices]["images"]), np.stack(changed, axis=1)


def _by_cue(kinds: dict[str, Any]) -> dict[str, dict[str, float]]:
    """For the attributes of each cue, the share of the weight of their features that are of each kind."""
    found = {}
    for n, cue in enumerate(CUES):
        rows = [row for name in ATTRIBUTES[6 * n : 6 * n + 6] for row in kinds["classes"][name]]
        total = sum(abs(row["weight"]) for row in rows)
        found[cue] = {
            kind: sum(abs(row["weight"]) for row in rows if row["kind"] == kind) / total if total else np.nan
            for kind in (*CUES, "none")
        }
    return found


def _lines(name: str, found: dict[str, Any]) -> str:
    told = ", ".join(f"{cue} {share:.0%}" for cue, share in found["told"].items())
    follow = ", ".join(f"{cue} {share:.2f}" for cue, share in found["clusters"].items())
    maps = ", ".join(f"{row['method']} {row['area']:.1%}" for row in found["maps"])
    return f"{name}: told {told}; clusters follow {follow}; IoU area {maps}"


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.self_supervised"))
