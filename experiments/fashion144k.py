"""What tells the fashion of twelve cities apart: the paper's Fashion144k experiment.

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Sections 4.1, 4.2.

    python -m experiments.fashion144k laptop --images fashion144k --weights imagenet-vgg-f.mat

VGG-F is fine-tuned on photographs of people, labeled by the city they were taken in. `--images` is a folder
with one folder of images for each city; one in `test_share` of them, by a fixed draw, is held out.

What to expect: the paper's figures are bars without numbers. Ours: not run, the data is by manual download
(Simo-Serra and Ishikawa, Fashion Style in 128 Floats, CVPR 2016).
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from experiments.classifier_job import JobSettings, Trained, run_job, train_classifier
from vexplain.classifiers import pretrained
from vexplain.datasets import Source, class_folders, subset


@dataclasses.dataclass(frozen=True)
class Config(JobSettings):
    """Settings of the experiment."""

    out: Path = Path("runs/fashion144k")
    weights: Path = Path("data/imagenet-vgg-f.mat")
    images: Path = Path("data/fashion144k")
    test_share: int = 5  # one image in so many is held out
    epochs: int = 10  # the paper's checkpoint is of epoch 300
    learning_rate: float = 1e-4  # as the name of the authors' checkpoint has it


PRESETS = {
    "laptop": ("On 2 CPU cores: hours.", Config(epochs=3)),
    "accelerator": ("The paper's 300 epochs.", Config(batch_size=256, epochs=300)),
}


def main(config: Config) -> dict[str, Any]:
    """Runs the job and returns what `metrics.json` holds."""

    def make(mesh) -> Trained:
        num_classes = len([entry for entry in config.images.glob("[!.]*") if entry.is_dir()]) or 12
        apply, variables, resizing = pretrained(
            "vgg_f", config.weights, num_classes=num_classes, seed=config.seed
        )
        photographs = class_folders(config.images, size=resizing)
        train, test = split(photographs, config.test_share, config.seed)
        options = {"epochs": config.epochs, "learning_rate": config.learning_rate}
        without = ("images", "weights")
        variables = train_classifier(config, apply, variables, train, mesh, without=without, **options)
        return Trained("VGG-F, fine-tuned,", "Fashion144k's cities", apply, variables, train, test)

    return run_job(config, "What a classifier learned of the fashion of cities", make)


def split(source: Source, test_share: int, seed: int) -> tuple[Source, Source]:
    """Images for training, and one in `test_share` for testing, by a draw that is a function of the seed."""
    order = np.random.default_rng(seed).permutation(len(source))
    num_test = max(len(source) // test_share, 1)
    return subset(source, np.sort(order[num_test:])), subset(source, np.sort(order[:num_test]))


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.fashion144k"))
