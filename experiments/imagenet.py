"""What have ImageNet classifiers learned: the paper's experiment with VGG-F, and with later networks.

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Sections 4.1, 4.2.

    python -m experiments.imagenet laptop --weights imagenet-vgg-f.mat --images ILSVRC2012
    python -m experiments.imagenet accelerator --network vgg16 --weights vgg16.safetensors
    python -m experiments.imagenet accelerator --network resnet50 --weights resnet50.safetensors

`--images` is the folder of `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`, or one with a folder of
class folders `val` (and `train`), or TFDS's data_dir with a prepared `imagenet2012`. Weights are MatConvNet's
`.mat`, or `.safetensors` with names of torchvision or timm. The regression is fitted on the training images
where they are there, at most `num_per_class` of each class, and else on half of the validation images.

What to expect (the authors, mu = 10, accuracy): 0.23 without the relevant features, 0.33 without as many
completely random ones. Ours: not run, the data is by manual download.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from experiments.classifier_job import JobSettings, Trained, run_job
from experiments.imagenet_data import imagenet_images
from vexplain.classifiers import pretrained


@dataclasses.dataclass(frozen=True)
class Config(JobSettings):
    """Settings of the experiment."""

    out: Path = Path("runs/imagenet")
    network: Literal["vgg_f", "vgg16", "resnet50"] = "vgg_f"
    weights: Path = Path("data/imagenet-vgg-f.mat")
    images: Path = Path("data/ILSVRC2012")
    num_per_class: int = 50  # images that the regression is fitted on
    batch_size: int = 32


PRESETS = {
    "laptop": ("VGG-F on 2 CPU cores: hours.", Config()),
    "accelerator": ("All networks.", Config(batch_size=256, num_per_class=500)),
}


def main(config: Config) -> dict[str, Any]:
    """Runs the job and returns what `metrics.json` holds."""

    def make(mesh) -> Trained:
        apply, variables, resizing = pretrained(config.network, config.weights)
        num_classes = num_scores(apply, variables, resizing.size)
        if num_classes != 1000:
            raise ValueError(
                f"weights: {config.weights} scores {num_classes} classes: expected ImageNet's 1000"
            )
        train, test = imagenet_images(config.images, resizing, num_per_class=config.num_per_class)
        return Trained(config.network, "ImageNet (ILSVRC2012)", apply, variables, train, test)

    return run_job(config, f"What {config.network} learned of ImageNet", make)


def num_scores(apply: Any, variables: Any, size: int) -> int:
    """Number of classes that a network scores, without running it."""
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return jax.eval_shape(apply, variables, images).shape[1]


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.imagenet"))
