"""What the command can be told: one frozen dataclass a subcommand, which is its command line and its help."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vexplain.classifiers import NAMES

_MODEL = f"""The network: one of {", ".join(NAMES)}; or package.module:function of your own, which is called
with the path of --weights as text, or None, and returns an NNX module, or (apply, variables) with
apply(variables, images) -> logits and images (batch, height, width, 3) in [0, 1], or (apply, variables,
resizing) with a vexplain.datasets.Resizing."""


@dataclasses.dataclass(frozen=True)
class Layers:
    """The table of layers: names, kinds, shapes, and what each sees of the image.

    For instance:

    vexplain layers --model resnet50

    vexplain layers --model my_package.networks:load --size 64
    """

    model: Annotated[str, tyro.conf.arg(help=_MODEL)]
    weights: Path | None = None
    """File of weights; not needed for the published networks."""
    size: int | None = None
    """Height and width of the images in pixels; what belongs to the weights if left out."""
    out: Path | None = None
    """Folder for layers.txt and layers.json; printed only, if left out."""

    def __post_init__(self):
        _check(self)


@dataclasses.dataclass(frozen=True)
class Features:
    """The features that matter for each class that the images are predicted as.

    Writes relevance.npz, features.json, layers.txt, layers.json.

    For instance:

    vexplain features --model vgg16 --weights vgg16.safetensors --images photos --out results

    vexplain features --model my_package.networks:load --size 64 --images photos --out results --mu 5
    """

    model: Annotated[str, tyro.conf.arg(help=_MODEL)]
    images: Path
    """Folder of images, or of one folder for each class; broken files are named and passed over."""
    out: Path
    """Folder of results; steps and heatmaps that are there of the same model, images and settings are taken
    over, after an interruption too."""
    weights: Path | None = None
    """File of weights: for the published networks .safetensors (torchvision, timm) or .mat (MatConvNet). They
    are read with pip install 'vexplain[weights]'."""
    size: int | None = None
    """Height and width that images are brought to; what belongs to the weights if left out."""
    classes: Path | None = None
    """File of class names, one a line in the order of the scores; folders or numbers if left out."""
    mu: float = 10.0
    """Bound on the L1 norm of the weights of a class: larger lets in more features."""
    layers: tuple[str, ...] = ()
    """Names of the layers to search; all, or the outputs of blocks where all would be too many."""
    batch_size: int = 32
    """Images at once; fewer take less memory (ResNet-50: 5 GB for 32)."""

    def __post_init__(self):
        _check(self)


@dataclasses.dataclass(frozen=True)
class Interpret(Features):
    """What these features look like: average images, and the image parts that excite them most.

    Does `features` first where it is missing. Writes average_images/CLASS.png, interpretation.json.

    For instance:

    vexplain interpret --model vgg16 --weights vgg16.safetensors --images photos --out results
    """

    num_exemplars: int = 100
    """Image parts in an average image."""


@dataclasses.dataclass(frozen=True)
class Explain(Interpret):
    """Why each image got its class: heatmaps of the features that speak for it, and a report.

    Does `features` and `interpret` first where they are missing. Writes heatmaps/FILE.png, report.html,
    explanations/FILE.png and .json, explanations.png, results.json.

    For instance:

    vexplain explain --model vgg16 --weights vgg16.safetensors --images photos --out results

    vexplain explain --model my_package.networks:load --weights my.npz --size 64 --images photos --out results
    """

    num_features: int = 3
    """Features that explain an image."""
    num_shown: int = 12
    """Images in the report; heatmaps are written of all."""
    on_uncovered: Literal["raise", "gradient"] = "raise"
    """What to do in a network with other activation functions than ReLU (GELU, SiLU): stop, or take their
    ordinary gradient."""


Arguments = Layers | Features | Interpret | Explain


def parse(arguments: Sequence[str] | None = None) -> Arguments:
    """Returns the subcommand that a command line asks for; ends the program on --help and on a wrong line.

    Args:
        arguments: of the command line; those of this process if left out.

    Example:
        >>> parse(["layers", "--model", "vgg16"]).model
        'vgg16'
    """
    subcommands = {"layers": Layers, "features": Features, "interpret": Interpret, "explain": Explain}
    return tyro.extras.subcommand_cli_from_dict(
        subcommands,
        args=arguments,
        prog="vexplain",
        description="What an image classifier has learned, and why it decided as it did.",
    )


def _check(arguments: Arguments) -> None:
    """Raises ValueError for a number that could only fail after hours of work."""
    for name in ("size", "batch_size", "num_exemplars", "num_features", "num_shown"):
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: expected 1 or more")
    mu = getattr(arguments, "mu", 1.0)
    if not 0 < mu < math.inf:
        raise ValueError(f"--mu is {mu}: expected a positive number")
