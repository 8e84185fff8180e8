"""Does a network need the features that the sparse regression selects? Ablations against simple rankings.

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 4.1, which
sets the relevant features to zero and compares with random ones of the same layers. Here too: each class by
itself, replacement by the mean and by other images, four other rankings as controls, and curves.

    python -m experiments.necessity flower_net --variant single_6c
    python -m experiments.necessity flower_net --variant double_12c
    python -m experiments.necessity lenet                                scikit-learn's digits
    python -m experiments.necessity all_conv                             12 classes, 1,280 features, 32 px

Each trains its network (or goes on where a checkpoint stops), which takes minutes on 2 CPU cores, and leaves
`necessity.json`, `necessity.png` and `necessity.md` in `runs/necessity-...`. What was found is in
docs/results/necessity.md.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from flax import nnx

from experiments import an8flower
from experiments.classifier_job import Trained, checked_mesh, measure_accuracy, train_classifier
from experiments.job import plain_settings, say, step
from experiments.necessity_measures import measure
from experiments.necessity_report import write_report
from vexplain._files import write_json
from vexplain.classifiers import AllConvNet, LeNet, functionalize
from vexplain.datasets import digits_source, subset
from vexplain.streaming import Checkpoint


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    network: Literal["flower_net", "lenet", "all_conv"] = "flower_net"
    variant: Literal["single_6c", "double_12c"] = "single_6c"  # of the flowers
    out: Path = Path("runs/necessity-flower_net")
    size: int = 64  # of the images, in pixels
    num_per_class: int = 300  # a fifth of them is held out
    width: int = 64  # of the all-convolutional network
    epochs: int = 8
    batch_size: int = 64
    seed: int = 0
    mu: float = 5.0  # as in the main job
    num_test: int = 128  # images under ablation, drawn from the held-out ones
    num_draws: int = 5  # of random features
    counts: tuple[int, ...] = (0, 5, 10, 20, 40, 80, 160, 320)  # features of a curve
    devices: int | None = None  # all, if left out


_FLOWER = Config()
PRESETS = {
    "smoke": (
        "Seconds: does everything run?",
        Config(
            size=16, num_per_class=12, epochs=2, batch_size=16, num_test=20, num_draws=2, counts=(0, 5, 40)
        ),
    ),
    "flower_net": ("FlowerNet on an8Flower as in the main job: 6 or 12 classes, 1,210 features.", _FLOWER),
    "lenet": (
        "LeNet on scikit-learn's digits: 10 classes, 1,140 features.",
        Config(
            network="lenet", out=Path("runs/necessity-lenet"), size=28, epochs=20, batch_size=100, mu=10.0
        ),
    ),
    "all_conv": (
        "A network without pooling on double_12c: 12 classes, 1,280 features.",
        Config(
            network="all_conv",
            variant="double_12c",
            out=Path("runs/necessity-all_conv"),
            size=32,
            epochs=10,
        ),
    ),
}


def main(config: Config) -> dict[str, Any]:
    """Runs the experiment and returns what `necessity.json` holds."""
    started, seconds = time.monotonic(), {}
    config.out.mkdir(parents=True, exist_ok=True)
    mesh = checked_mesh(config.batch_size, config.devices)
    with step("Data and training", seconds):
        job = train(config, mesh)
    accuracy = measure_accuracy(
        job.apply, job.variables, job.test, mesh, config.batch_size, Checkpoint(config.out / "accuracy")
    )
    say(f"{job.name} on {job.data}: held-out accuracy {accuracy:.2%} on {len(job.test)} images")
    drawn = np.random.default_rng(config.seed).permutation(len(job.test))[: config.num_test]
    job = job._replace(test=subset(job.test, np.sort(drawn)))
    with step("Ablations", seconds):
        found = measure(config, job, mesh)
    found |= {
        "network": job.name,
        "data": job.data,
        "accuracy": accuracy,
        "num_test_images": len(job.test),
        "seconds": seconds | {"total": time.monotonic() - started},
        "settings": plain_settings(config),
    }
    write_json(config.out / "necessity.json", found)
    say(write_report(config.out, found))
    return found


def train(config: Config, mesh: Any) -> Trained:
    """The network of the preset, trained, with its images."""
    if config.network == "lenet":
        images = [digits_source(split=split, size=config.size) for split in ("train", "test")]
        apply, variables = functionalize(LeNet(image_size=config.size, rngs=nnx.Rngs(config.seed)))
        name, data = "LeNet", "scikit-learn's digits"
    else:
        rendered = an8flower.Config(
            variant=config.variant,
            size=config.size,
            num_per_class=config.num_per_class,
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=config.seed,
            out=config.out,
        )
        images = an8flower.render_data(rendered)
        data = f"an8Flower {config.variant}, {config.size} px"
        if config.network == "flower_net":
            apply, variables = an8flower.train_network(rendered, images[0], mesh)
            return Trained("FlowerNet", data, apply, variables, *images)
        module = AllConvNet(len(images[0].class_names), width=config.width, rngs=nnx.Rngs(config.seed))
        apply, variables = functionalize(module)
        name = "AllConvNet"
    free = ("network", "num_test", "counts")
    variables = train_classifier(
        config, apply, variables, images[0], mesh, epochs=config.epochs, learning_rate=1e-3, without=free
    )
    return Trained(name, data, apply, variables, *images)


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.necessity"))
