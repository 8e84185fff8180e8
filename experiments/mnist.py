"""What has a LeNet learned of handwritten digits: the paper's MNIST experiment, on MNIST or on small data.

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Sections 4.1, 4.2.

    python -m experiments.mnist laptop --data digits       scikit-learn's digits: 3 minutes on 2 CPU cores
    python -m experiments.mnist laptop --folder data/mnist      MNIST's four published files, 60,000 images
    python -m experiments.mnist laptop --folder ~/tensorflow_datasets --data tfds    as TFDS prepared it

It trains MatConvNet's LeNet, finds the relevant features, shows and ablates them, and leaves `report.html`,
`metrics.json`, `relevance.npz` and figures in `runs/mnist`. Training resumes when it is called again.

What to expect (an independent reproduction of 2019, mu = 10, agreement with the unablated network): 17
relevant features; 0.86 without them, 0.99 without as many random ones; of convolutions 0.875 and 0.903. Ours
on MNIST: not run, the data is by manual download. Ours on the digits are in the README.
"""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import tensorflow_datasets as tfds
import tyro
from flax import nnx

from experiments.classifier_job import JobSettings, Trained, run_job, train_classifier
from vexplain.classifiers import LeNet, functionalize
from vexplain.datasets import Source, digits_source, from_tfds, mnist_folder

SIZE = 28


@dataclasses.dataclass(frozen=True)
class Config(JobSettings):
    """Settings of the experiment."""

    out: Path = Path("runs/mnist")
    data: Literal["mnist", "tfds", "digits"] = "mnist"
    folder: Path = Path("data/mnist")  # of the four files, or TFDS's data_dir
    epochs: int = 20  # as in MatConvNet's example
    learning_rate: float = 1e-3  # at its peak
    batch_size: int = 100


PRESETS = {
    "smoke": (
        "Seconds, on scikit-learn's digits: does everything run?",
        Config(data="digits", epochs=1, num_exemplars=5, num_draws=2, batch_size=200),
    ),
    "laptop": ("Minutes on 2 CPU cores.", Config()),
    "accelerator": ("The same with large batches.", Config(batch_size=1000, learning_rate=3e-3)),
}


def main(config: Config) -> dict[str, Any]:
    """Runs the job and returns what `metrics.json` holds."""
    train, test = images(config)

    def make(mesh) -> Trained:
        apply, variables = functionalize(LeNet(image_size=SIZE, rngs=nnx.Rngs(config.seed)))
        variables = train_classifier(
            config,
            apply,
            variables,
            train,
            mesh,
            epochs=config.epochs,
            learning_rate=config.learning_rate,
            without=("folder",),
        )
        name = "scikit-learn's digits" if config.data == "digits" else "MNIST"
        return Trained("A LeNet", name, apply, variables, train, test)

    return run_job(config, "What a classifier learned of handwritten digits", make)


def images(config: Config) -> tuple[Source, Source]:
    """Images for training and for testing, 28 × 28 × 1."""
    if config.data == "digits":
        train, test = (digits_source(split=split, size=SIZE) for split in ("train", "test"))
    elif config.data == "tfds":
        builder: Any = tfds.builder("mnist", data_dir=config.folder, file_format="array_record")
        train, test = (from_tfds(builder.as_data_source(split)) for split in ("train", "test"))
    else:
        train, test = (mnist_folder(config.folder, split=split) for split in ("train", "test"))
    return train, test


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.mnist"))
