"""The published images whose shape is of one category and whose texture of another, and their categories.

The 1,280 images of Geirhos et al. were made by style transfer: 16 categories of shape, a folder each, with
files such as `airplane1-bicycle2.png`, the first airplane with the texture of the second bicycle. The 16
categories are of everyday things, each of one to 109 classes of ImageNet.

References:
    Geirhos, Rubisch, Michaelis, Bethge, Wichmann, Brendel, ImageNet-trained CNNs are biased towards texture;
    increasing shape bias improves accuracy and robustness, ICLR 2019;
    https://github.com/rgeirhos/texture-vs-shape.
"""

import functools
import importlib.resources
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from vexplain.datasets.image_files import ImageFiles, OnUnreadable, Resizing, class_folders
from vexplain.datasets.sources import Source, with_extras

_FROM = "https://github.com/rgeirhos/texture-vs-shape, folder stimuli/style-transfer-preprocessed-512"
_NAME = re.compile(r"([a-z]+)\d+-([a-z]+)\d+\.png")


@functools.cache
def imagenet_categories() -> Mapping[str, tuple[int, ...]]:
    """Returns the classes of ImageNet of each of 16 everyday categories, by name, counted from 0.

    The order is alphabetical, as that of the labels of `cue_conflict_folder`; of the 1000 classes 207 are in
    a category.

    Example:
        >>> categories = imagenet_categories()
        >>> len(categories), categories["bear"], len(categories["dog"])
        (16, (294, 295, 296, 297), 109)
    """
    text = (
        importlib.resources.files("vexplain.datasets").joinpath("sixteen_categories.json").read_text("utf-8")
    )
    return MappingProxyType({name: tuple(classes) for name, classes in json.loads(text).items()})


def cue_conflict_folder(
    path: str | Path, *, size: int | Resizing, on_unreadable: OnUnreadable = "skip"
) -> Source:
    """Returns the images of a folder of cue conflicts as a source, with the categories of both cues.

    The label is the category of the shape; batches also have "shapes" and "textures" (n,), numbers of the 16
    categories. For networks of ImageNet the authors resize to 224 pixels.

    Args:
        path: the folder with a folder for each category of shape, or for some, to be downloaded by hand.
        size: as in the module `image_files`, and so is `on_unreadable`.
        on_unreadable: what to do about a broken file.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a folder that is no category or has no image, or a file whose name does not tell its
            shape, the one of its folder, and its texture.

    Example:
        >>> source = cue_conflict_folder("style-transfer-preprocessed-512", size=224)  # doctest: +SKIP
        >>> source[np.arange(2)]["textures"]  # doctest: +SKIP
        array([2, 8], dtype=int32)
    """
    names = tuple(imagenet_categories())
    found = class_folders(path, size=size, on_unreadable=on_unreadable)
    if unknown := [name for name in found.class_names if name not in names]:
        raise ValueError(
            f"path is {str(path)!r}: it has a folder {unknown[0]!r}, expected some of {', '.join(names)}; "
            f"download them from {_FROM}"
        )
    places = np.array([names.index(name) for name in found.class_names], np.int32)
    shapes = places[found.classes]
    textures = np.array(
        [_texture(file, names[shape], names) for file, shape in zip(found.files, shapes, strict=True)],
        np.int32,
    )
    files = ImageFiles(found.files, shapes, names, found.resizing, on_unreadable)
    return with_extras(files, {"shapes": shapes, "textures": textures})


def _texture(file: object, shape: str, names: tuple[str, ...]) -> int:
    name = Path(str(file)).name
    matched = _NAME.fullmatch(name)
    if not matched or matched[1] != shape or matched[2] not in names:
        raise ValueError(
            f"path: {str(file)!r} is in the folder of {shape!r}, expected a name such as "
            f"{shape}1-{names[0]}2.png that tells shape and texture; download the images from {_FROM}"
        )
    return names.index(matched[2])
