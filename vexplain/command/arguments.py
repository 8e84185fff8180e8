"""The options of the command: a frozen dataclass for each subcommand, which is its command line and help."""

import dataclasses
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vexplain.classifiers.names import NAMES
from vexplain.command.names import DEFAULT_METHODS, check_methods, check_score, customary_names, method_names

Say = Callable[[str], object]  # shows the user a line

_MODEL = f"""The network: one of {", ".join(NAMES)}; or package.module:function of your own, which is called
with the path of --weights as text, or None, and returns a Flax NNX module, a Keras 3 or an Equinox model, or
a pair: a Flax Linen module or a transformed Haiku function and its variables, or (apply, variables) with
apply(variables, images) -> logits and images (batch, height, width, 3) in [0, 1]. The size may follow in the
tuple, as a vexplain.datasets.Resizing. One logit is that of the second of two classes; a network of one
channel gets the luma of the images."""
_METHOD = f"""Methods of explanation, one or more: {", ".join(method_names())}. vexplain methods says what
they need and cost."""
_SCORE = """What gradients, class activation maps and perturbations explain: logit, probability, margin (the
class less the mean of the others), against:CLASS (less that class, by name or number), or
package.module:function of your own, which is called with (outputs, targets) and returns one number an
image."""


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
    multi_label: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The scores are independent, each the logit of a label: probabilities are their sigmoids. An image
    counts for its strongest label, and its labels above one half are listed."""
    batch_size: int = 32
    """Images at once; fewer take less memory (ResNet-50: 5 GB for 32)."""
    devices: int | None = None
    """Number of accelerators that share the passes over the images; one if left out."""

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
    align: bool = True
    """Also average the image parts after they were aligned, which takes seconds a feature."""


@dataclasses.dataclass(frozen=True)
class Explaining:
    """Which methods explain, and what."""

    method: Annotated[tuple[str, ...], tyro.conf.arg(help=_METHOD)] = DEFAULT_METHODS
    score: Annotated[str, tyro.conf.arg(help=_SCORE)] = "logit"
    layer: str | None = None
    """Name of the layer of class activation maps; the last one with positions if left out."""
    grid: tuple[int, int] | None = None
    """Rows and columns of the tokens of --layer, where they cannot be followed through the network."""
    on_uncovered: Literal["raise", "gradient"] = "raise"
    """In a network with other activation functions than ReLU (GELU, SiLU), for the methods that have rules
    for ReLUs: stop, or use the ordinary gradient of these functions."""


@dataclasses.dataclass(frozen=True)
class Explain(Explaining, Interpret):
    """Why each image got its class: its most relevant features, heatmaps of any methods, and a report.

    Does `features` and `interpret` first where they are missing. Writes report.html,
    images/FILE.png, heatmaps/METHOD/FILE.png, explanations/FILE.png and .json, results.json.

    For instance:

    vexplain explain --model vgg16 --weights vgg16.safetensors --images photos --out results

    vexplain explain --model my_package.networks:load --weights my.npz --size 64 --images photos --out results
    --method relevant_evidence grad_cam
    """

    num_features: int = 3
    """Features that explain an image."""
    num_shown: int | None = None
    """Images in the report, balanced over the classes, right and wrong; all if left out."""
    single_file: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The report has its pictures inside, so that it can be mailed; else they are files beside it."""


@dataclasses.dataclass(frozen=True)
class Evaluate(Explaining, Features):
    """How well the maps of methods find the region that decides the class, and what the network uses.

    Does `features` first where it is missing. With --masks, maps are scored against the masks. With or
    without, pixels are deleted and inserted in the order of the maps, and the probability of the predicted
    class is followed. Prints the table, and writes evaluation.md and evaluation.json.

    For instance:

    vexplain evaluate --model vgg16 --weights vgg16.safetensors --images photos --masks masks --out results

    vexplain evaluate --model vgg16 --weights vgg16.safetensors --images photos --out results
    --method relevant_evidence grad_cam integrated_gradients
    """

    method: Annotated[tuple[str, ...], tyro.conf.arg(help=_METHOD)] = customary_names()
    masks: Path | None = None
    """Folder with a mask for each image, under the name of the image with any ending: 255 inside of the
    region that should decide the class, 0 outside."""
    num_flipped: int = 24
    """Images whose pixels are deleted and inserted, spread over the classes; 0 for none. Each takes 132
    forward passes a method."""
    num_steps: int = 32
    """Steps from no pixel to all."""


@dataclasses.dataclass(frozen=True)
class Translate:
    """An object of one kind in the shape of another: trains on two folders without pairs, translates a third.

    Writes translations/FILE.png and translation.json. A training that was interrupted goes on from its last
    checkpoint; with more --num-steps it is continued.

    For instance:

    vexplain translate --a shirts --b trousers --images new_shirts --out results
    """

    a: Path
    """Folder of images of the first kind, each object on a plain background."""
    b: Path
    """Folder of images of the second kind."""
    images: Path
    """Folder of images to translate."""
    out: Path
    """Folder of results and of the checkpoints of the training."""
    direction: Literal["ab", "ba"] = "ab"
    """Which kind the images are of, and which they become."""
    size: int = 64
    """Height and width that images are resized and cut to: a power of 2, 16 or more."""
    width: int = 32
    """Channels of the first layer; more learn more and take longer."""
    num_steps: int = 20_000
    """Steps of the training."""
    num_vae_steps: int = 800
    """Steps of the two autoencoders alone, before that."""
    batch_size: int = 16
    """Images of each kind in a step."""
    learning_rate: float = 6e-4
    """Of Adam; a smaller one where the training collapses."""
    seed: int = 0
    """Of all that is drawn."""
    devices: int | None = None
    """Number of accelerators that share a step; one if left out."""

    def __post_init__(self):
        _check(self)
        if self.size < 16 or self.size & (self.size - 1):
            raise ValueError(f"--size is {self.size}: expected a power of 2, 16 or more")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"--learning-rate is {self.learning_rate}: expected a positive number")


@dataclasses.dataclass(frozen=True)
class Methods:
    """The methods of explanation that the library has: names, what they need and cost, and their papers."""


Arguments = Methods | Layers | Features | Interpret | Explain | Evaluate | Translate
_SEVERAL = ("--method", "--layers")  # options with one value or more
_COUNTS = (
    "size",
    "batch_size",
    "devices",
    "num_exemplars",
    "num_features",
    "num_shown",
    "num_steps",
    "width",
)


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
        "evaluate": Evaluate,
        "translate": Translate,
    }
    return tyro.extras.subcommand_cli_from_dict(
        subcommands,
        args=_joined(sys.argv[1:] if arguments is None else arguments),
        prog="vexplain",
        description="What an image classifier has learned, and why it decided as it did.",
    )


def _joined(arguments: Sequence[str]) -> list[str]:
    """A command line in which an option with several values that was given twice is given once, with all."""
    rest: list[str] = []
    found: dict[str, list[str]] = {}
    taken = rest
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in _SEVERAL:
            taken = found.setdefault(name, [])
            taken += [value] if value else []
            continue
        taken = rest if argument.startswith("-") else taken
        taken.append(argument)
    return rest + [part for name, values in found.items() for part in (name, *values)]


def _check(arguments: Arguments) -> None:
    """Raises ValueError for a number that could only fail after hours of work."""
    for name in _COUNTS:
        value = getattr(arguments, name, None)
        if value is not None and value < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: expected 1 or more")
    for name in ("num_flipped", "num_vae_steps"):
        if (value := getattr(arguments, name, 0)) < 0:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: expected 0 or more")
    mu = getattr(arguments, "mu", 1.0)
    if not 0 < mu < math.inf:
        raise ValueError(f"--mu is {mu}: expected a positive number")
    if isinstance(arguments, Explaining):
        check_methods(arguments.method)
        check_score(arguments.score)
        if arguments.grid is not None and (arguments.layer is None or min(arguments.grid) < 1):
            raise ValueError(
                f"--grid is {arguments.grid[0]} {arguments.grid[1]}: expected two positive numbers, the rows "
                "and columns of the tokens of a layer that --layer names"
            )
