"""What tells thirteen kinds of cats apart: the paper's ImageNet-cats experiment.

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Sections 4.1, 4.2.

    python -m experiments.imagenet_cats laptop --weights imagenet-vgg-f.mat --images ILSVRC2012

VGG-F is fine-tuned on the cats among ImageNet's classes and explained as in `experiments.imagenet`; images
and weights are given as there. The paper has 13 classes and does not name them: `IMAGENET_CATS` is ours.

What to expect: the paper's figures are bars without numbers. Ours: not run, the data is by manual download.
"""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from experiments.classifier_job import JobSettings, Trained, run_job, train_classifier
from experiments.imagenet_data import imagenet_images
from vexplain.classifiers import pretrained
from vexplain.datasets import IMAGENET_CATS


@dataclasses.dataclass(frozen=True)
class Config(JobSettings):
    """Settings of the experiment."""

    out: Path = Path("runs/imagenet_cats")
    weights: Path = Path("data/imagenet-vgg-f.mat")
    images: Path = Path("data/ILSVRC2012")
    num_per_class: int = 1300  # all
    epochs: int = 10  # the paper's checkpoint is of epoch 100
    learning_rate: float = 1e-4  # at its peak


PRESETS = {
    "laptop": ("A tenth of the images, on 2 CPU cores: hours.", Config(num_per_class=130, epochs=3)),
    "accelerator": ("All images, and the paper's 100 epochs.", Config(batch_size=256, epochs=100)),
}


def main(config: Config) -> dict[str, Any]:
    """Runs the job and returns what `metrics.json` holds."""

    def make(mesh) -> Trained:
        classes = len(IMAGENET_CATS)
        apply, variables, resizing = pretrained(
            "vgg_f", config.weights, num_classes=classes, seed=config.seed
        )
        train, test = imagenet_images(
            config.images, resizing, num_per_class=config.num_per_class, classes=IMAGENET_CATS
        )
        options = {"epochs": config.epochs, "learning_rate": config.learning_rate}
        without = ("images", "weights")
        variables = train_classifier(config, apply, variables, train, mesh, without=without, **options)
        return Trained("VGG-F, fine-tuned,", "the cats of ImageNet", apply, variables, train, test)

    return run_job(config, "What a classifier learned of cats", make)


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.imagenet_cats"))
