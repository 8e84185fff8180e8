"""ImageNet (ILSVRC2012) from its two archives as they are published, and the classes that are cats.

`ILSVRC2012_img_train.tar` is a tar of one tar a class, `ILSVRC2012_img_val.tar` holds the validation images.
Nothing is extracted or prepared. What TFDS has prepared as `imagenet2012` is read by `from_tfds`, extracted
folders of classes by `class_folders`; all of them take `classes=IMAGENET_CATS`.

References:
    Russakovsky et al., *ImageNet Large Scale Visual Recognition Challenge*, 2015; https://image-net.org.
"""

import functools
import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets._classes import Classes, chosen_classes, examples_of_classes
from vexplain.datasets.image_files import ImageFiles, OnUnreadable, Resizing, as_resizing
from vexplain.datasets.tar_files import TarMembers, tar_members

# The paper does not name its 13 classes of cats. These are ours: all cats of ILSVRC2012, five kinds of house
# cats and eight wild ones.
IMAGENET_CATS = {
    "n02123045": "tabby",
    "n02123159": "tiger cat",
    "n02123394": "Persian cat",
    "n02123597": "Siamese cat",
    "n02124075": "Egyptian cat",
    "n02125311": "cougar",
    "n02127052": "lynx",
    "n02128385": "leopard",
    "n02128757": "snow leopard",
    "n02128925": "jaguar",
    "n02129165": "lion",
    "n02129604": "tiger",
    "n02130308": "cheetah",
}
_ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}


def imagenet_archives(
    path: str | Path,
    *,
    split: Literal["train", "validation"] = "train",
    size: int | Resizing,
    classes: Classes | None = None,
    index_folder: str | Path | None = None,
    on_unreadable: OnUnreadable = "skip",
) -> ImageFiles:
    """Returns ImageNet's training or validation images, read from the archive when they are asked for.

    The label is the place of the synset among all 1000, sorted, as in torchvision, timm and TFDS.

    Args:
        path: of the folder with `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`, or of one of them.
        split: "train" or "validation".
        size: as in the module `image_files`.
        classes: the synsets to keep ("n02123045"), in the order of their labels; a mapping gives each the
            name of its class, as `IMAGENET_CATS` does.
        index_folder: where to keep the index of the archive's headers; beside the archive if left out.
        on_unreadable: as in the module `image_files`.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: another `split`; the archive is no tar, is cut off, or has other files in it; a class that
            ImageNet does not have, or that has no image.

    Example:
        >>> cats = imagenet_archives("data", size=Resizing(224, 256), classes=IMAGENET_CATS)  # doctest: +SKIP
        >>> len(cats.class_names), cats[np.arange(8)]["images"].shape  # doctest: +SKIP
        (13, (8, 224, 224, 3))
    """
    check_choice("split", split, _ARCHIVES)
    synsets = imagenet_synsets()
    wanted = chosen_classes(synsets if classes is None else classes, synsets, owner="ILSVRC2012 has no")
    members = tar_members(_archive(path, split), nested=split == "train", index_folder=index_folder)
    truth = (_training_labels if split == "train" else _validation_labels)(members, synsets)
    if classes is None:
        chosen, labels = np.arange(len(truth)), truth
    else:
        chosen, labels = examples_of_classes(truth, synsets, wanted, owner=f"{members.archive} has")
    if not len(chosen):
        raise ValueError(f"path is {str(members.archive)!r}: it has no image of any class")
    return ImageFiles(members[chosen], labels, tuple(wanted.values()), as_resizing(size), on_unreadable)


@functools.cache
def imagenet_synsets() -> tuple[str, ...]:
    """Returns the 1000 synsets of ILSVRC2012, sorted: the order of the labels.

    Example:
        >>> imagenet_synsets()[0], imagenet_synsets().index("n02123045")
        ('n01440764', 281)
    """
    return tuple(_published("labels.txt"))


def _published(name: str) -> list[str]:
    """The lines of a file that TFDS ships, which is found without an import of TFDS."""
    spec = importlib.util.find_spec("tensorflow_datasets")
    assert spec, "TFDS is a dependency of this library"
    return (Path(str(spec.origin)).parent / "datasets" / "imagenet2012" / name).read_text().split()


def _archive(path: str | Path, split: str) -> Path:
    given, name = Path(path), _ARCHIVES[split]
    archive = given / name if given.is_dir() else given
    if not archive.is_file() or archive.name in set(_ARCHIVES.values()) - {name}:
        raise FileNotFoundError(
            f"path is {str(given)!r}: there is no {name}; log in at https://image-net.org/download-images, "
            "download it, and pass the folder that it lies in"
        )
    return archive


def _training_labels(members: TarMembers, synsets: tuple[str, ...]) -> np.ndarray:
    """The label of each file from the name of its class tar, the folder that it is in."""
    folders, of_file = np.unique([name.split(b"/")[-2] for name in members.names], return_inverse=True)
    names = [folder.decode("utf-8", "surrogateescape") for folder in folders.tolist()]
    unknown = [name for name in names if name not in synsets]
    if unknown or not names:
        raise ValueError(
            f"path is {str(members.archive)!r}: expected one tar for each class, such as n02123045.tar, "
            f"found {', '.join(unknown[:3]) or 'none'} in it"
        )
    return np.array([synsets.index(name) for name in names])[of_file]


def _validation_labels(members: TarMembers, synsets: tuple[str, ...]) -> np.ndarray:
    """The label of each file from the number in its name, which is a line of the published list."""
    truth = {
        f"ILSVRC2012_val_{n:08}.JPEG": synset
        for n, synset in enumerate(_published("validation_labels.txt"), 1)
    }
    names = [Path(member.name).name for member in members]
    if unknown := [name for name in names if name not in truth]:
        raise ValueError(
            f"path is {str(members.archive)!r}: it holds {unknown[0]}, expected names from {min(truth)} to "
            f"{max(truth)}"
        )
    place = {synset: label for label, synset in enumerate(synsets)}
    return np.array([place[truth[name]] for name in names], np.int64)
