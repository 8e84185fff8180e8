"""What runs over a source, in small: the same cases for one device, eight devices, and several processes."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from vexplain import classifiers, evaluation
from vexplain.datasets import ArraySource, image_folder, unpaired_batches
from vexplain.relevance import interpret, learn_relevance
from vexplain.streaming import Checkpoint, fold, fold_epoch
from vexplain.transforms import layers
from vexplain.translation import NetworkSettings, Translator, Weights, adversarial_training

NUM_IMAGES, BATCH = 45, 16
NAMES = ("lily", "rose", "oak")


class Counted:
    """A source that notes which of its images were read."""

    def __init__(self, source):
        self.source, self.read = source, []

    @property
    def class_names(self):
        return self.source.class_names

    def __len__(self):
        return len(self.source)

    def __getitem__(self, indices):
        self.read.extend(np.ravel(indices).tolist())
        return self.source[indices]


@functools.cache
def images_of_flowers():
    """Color c is stronger where the class is c; the rest is noise, different in every image and place."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUM_IMAGES) % 3
    images = rng.uniform(0, 0.6, (NUM_IMAGES, 7, 6, 3)).astype(np.float32)
    images[np.arange(NUM_IMAGES), 2:5, 1:4, labels] += 0.3
    masks = np.zeros(images.shape[:3], np.float32)
    masks[:, 2:5, 1:4] = 1
    return ArraySource(images, labels, masks, class_names=NAMES)


def apply(variables, images):
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(images, variables["conv"], (1, 1), "SAME", dimension_numbers=numbers)
    return jax.nn.relu(x - 0.4).mean((1, 2)) @ variables["head"]


def network():
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 3, 5)).astype(np.float32) * 0.05
    kernel[1, 1, np.arange(3), np.arange(3)] += 1
    head = np.concatenate([np.eye(3), rng.normal(size=(2, 3)) * 0.1]).astype(np.float32)
    return {"conv": jnp.asarray(kernel), "head": jnp.asarray(head)}


def counts_of(source, mesh, **options):
    update = lambda counts, batch: counts.at[batch["labels"]].add(batch["weights"])  # noqa: E731
    return fold_epoch(update, jnp.zeros(3), source, batch_size=BATCH, mesh=mesh, **options)


def relevance_of(mesh, *, batch_size=BATCH, **options):
    return learn_relevance(apply, network(), images_of_flowers(), batch_size=batch_size, mesh=mesh, **options)


def views_of(relevance, mesh, *, batch_size=BATCH, **options):
    source = images_of_flowers()
    table = layers(apply, network(), source[[0]]["images"])
    options |= {"num_images": 4, "batch_size": batch_size, "mesh": mesh, "description": None}
    return interpret(apply, network(), table, relevance, source, **options)


def scores_of(mesh, *, batch_size=BATCH, **options):
    source = images_of_flowers()
    init, update = evaluation.heatmap_scores(apply, ("gradient", "random_map"), num_images=len(source))
    constants = evaluation.ExplainedNetwork(network())
    options |= {"batch_size": batch_size, "constants": constants, "mesh": mesh}
    state = fold_epoch(update, init(), source, **options)
    return evaluation.summarize(state)


def translator_after_two_steps(mesh):
    translator = Translator(NetworkSettings(image_size=16, width=2, latent_size=3, num_blocks=1))
    update_of = adversarial_training(translator, Weights(gan=0.0, cycle=0.0, color=0.0), optax.sgd(0.01))
    init, update = update_of
    rng = np.random.default_rng(2)
    domains = [
        ArraySource(rng.uniform(size=(n, 16, 16, 3)), np.zeros(n, int), class_names=("it",)) for n in (11, 9)
    ]
    batches, _ = unpaired_batches(*domains, 8, seed=3)
    state = init(translator.init(jax.random.key(0)))
    return fold(update, state, batches, num_steps=2, mesh=mesh).variables.generator


def every_pass(mesh, checkpoint: Checkpoint | None = None):
    """Relevance, average images and scores, with a folder of checkpoints for each."""

    def options(name: str):
        return {"batch_size": 4, "checkpoint": checkpoint and checkpoint.below(name)}

    relevance = relevance_of(mesh, **options("relevance"))
    views = views_of(relevance, mesh, **options("views"))
    scores = scores_of(mesh, **options("scores"))
    return relevance, views, {name: score.values for name, score in scores.items()}


def brightness_of(folder: Path, mesh, **options):
    """The total brightness of image files, and the names of those that are broken."""
    files = image_folder(folder / "images", size=4)
    bright = lambda total, batch: total + (batch["weights"] * batch["images"].mean((1, 2, 3))).sum()  # noqa: E731
    total = fold_epoch(bright, jnp.zeros(()), files, batch_size=8, mesh=mesh, **options)
    return total, np.array(sorted(Path(name).name for name in files.skipped))


def write_images(folder: Path):
    """Eleven gray images, two of them broken; and three of three colors, and one that is broken."""
    images, colors, rng = folder / "images", folder / "colors", np.random.default_rng(0)
    images.mkdir()
    for n in range(11):
        Image.new("RGB", (5, 4), (20 * n,) * 3).save(images / f"{n:02d}.png")
    (images / "01.png").write_bytes(b"")
    (images / "09.png").write_bytes(b"no image")
    colors.mkdir()
    for n in range(4):
        pixels = rng.uniform(0, 0.3, (20, 20, 3))
        pixels[4:14, n : n + 12, n % 3] += 0.6
        Image.fromarray((255 * pixels).astype(np.uint8)).save(colors / f"{n}.png")
    (colors / "3.png").write_bytes(b"no image")


def command_line(folder: Path, out: Path) -> list[str]:
    """Explains the images of three colors."""
    line = ["explain", "--model", "tests.command.networks:sized", "--images", str(folder / "colors")]
    return [*line, "--out", str(out), "--batch-size", "4", "--num-shown", "1"]


def results(folder: Path, mesh) -> dict[str, np.ndarray]:
    """What every pass returns, by name."""
    counted = Counted(images_of_flowers())
    found = {"counts": counts_of(counted, mesh)}
    found["read"] = np.bincount(counted.read, minlength=NUM_IMAGES)
    found["counts of the default mesh"] = counts_of(images_of_flowers(), None)
    relevance = relevance_of(mesh)
    found |= {"weights": relevance.weights, "gaps": relevance.gaps}
    for n, view in enumerate(views_of(relevance, mesh)):
        found |= {f"average {n}": view.average, f"exemplars {n}": view.indices, f"values {n}": view.values}
    for name, score in scores_of(mesh).items():
        found |= {f"{name}, {of}": values for of, values in score.values.items()}
    trained = classifiers.train(
        apply, network(), images_of_flowers(), epochs=2, batch_size=BATCH, mesh=mesh, learning_rate=0.01
    )
    found |= {f"trained {name}": values for name, values in trained.items()}
    for n, leaf in enumerate(jax.tree.leaves(translator_after_two_steps(mesh))):
        found[f"translator {n}"] = leaf
    found["brightness"], found["skipped"] = brightness_of(folder, mesh)
    return {name: np.asarray(values) for name, values in found.items()}
