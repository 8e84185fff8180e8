"""The options of the command: a frozen dataclass for each subcommand, which is its command line and help."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vexplain.classifiers.names import NAMES

_MODEL = f"""The network: one of {", ".join(NAMES)}; or package.module:function of your own, which is called
with the path of --weights as text, or None, and returns an NNX module, or (apply, variables) with
apply(variables, images) -> logits and images (batch, height, width, 3) in [0, 1], or (apply, variables,
resizing) with a vexplain.datasets.Resizing. One logit is that of the second of two classes; a network of one
channel gets the luma of the images."""


@dataclasses.dataclass(frozen=True)
class Layers:
    """The table of layers: names, kinds, shapes and receptive fields.

    For instance:

    vexplain layers --model resnet50

    vexplain layers --model my_package.networks:load --size 64
    """

    model: Annotated[str, tyro.conf.arg(help=_MODEL)]
    weights: Path | None = None
    """File of weights; not needed for the published networks."""
    size: int | None = None
    """Height and width of the images in pixels; that of the weights if left out."""
    out: Path | None = None
    """Folder for layers.txt and layers.json; the table is printed only, if left out."""

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
    """Folder of images, or of one folder for each class; broken files are named and skipped."""
    out: Path
    """Folder of results; those of an earlier, perhaps interrupted run of the same model, images and settings
    are used again."""
    weights: Path | None = None
    """File of weights: for the published networks .safetensors (torchvision, timm) or .mat (MatConvNet). They
    are read with pip install 'vexplain[weights]'."""
    size: int | None = None
    """Height and width that images are resized to; that of the weights if left out."""
    classes: Path | None = None
    """File of class names, one a line in the order of the scores; folders or numbers if left out."""
    mu: float = 10.0
    """Bound on the L1 norm of the relevance weights of a class: a larger one selects more features."""
    layers: tuple[str, ...] = ()
    """Names of the layers to search; if left out all, or the outputs of blocks where all are too many."""
    batch_size: int = 32
    """Images at once; fewer take less memory (ResNet-50: 5 GB for 32)."""

    def __post_init__(self):
        _check(self)


@dataclasses.dataclass(frozen=True)
class Interpret(Features):
    """What these features look like: average images, and the image parts with the strongest response.

    Does `features` first where it is missing. Writes average_images/CLASS.png, interpretation.json.

    For instance:

    vexplain interpret --model vgg16 --weights vgg16.safetensors --images photos --out results
    """

    num_exemplars: int = 100
    """Image parts in an average image."""


@dataclasses.dataclass(frozen=True)
class Explain(Interpret):
    """Why each image got its class: heatmaps of its most relevant features, and a report.

    Does `features` and `interpret` first where they are missing. Writes report.html,
    images/FILE.png, heatmaps/METHOD/FILE.png, explanations/FILE.png and .json, results.json.

    For instance:

    vexplain explain --model vgg16 --weights vgg16.safetensors --images photos --out results

    vexplain explain --model my_package.networks:load --weights my.npz --size 64 --images photos --out results
    """

    num_features: int = 3
    """Features that explain an image."""
    num_shown: int | None = None
    """Images in the report, balanced over the classes, right and wrong; all if left out."""
    single_file: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The report has its pictures inside, so that it can be mailed; else they are files beside it."""
    on_uncovered: Literal["raise", "gradient"] = "raise"
    """In a network with other activation functions than ReLU (GELU, SiLU): stop, or use their ordinary
    gradient."""


@dataclasses.dataclass(frozen=True)
class Methods:
    """The methods of explanation that the library has: names, what they need and cost, and their papers."""


Arguments = Methods | Layers | Features | Interpret | Explain


def parse(arguments: Sequence[str] | None = None) -> Arguments:
    """Returns the subcommand of a command line (of this process, if left out); exits on --help and on errors.

    Example:
        >>> parse(["layers", "--model", "vgg16"]).model
        'vgg16'
    """
    subcommands = {
        "methods": Methods,
        "layers": Layers,
        "features": Features,
        "interpret": Interpret,
        "explain": Explain,
    }
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
