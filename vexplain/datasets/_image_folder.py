"""Folders of images as sources: one folder is a domain, a folder of folders is a labeled data set."""

from pathlib import Path

import numpy as np

from vexplain.datasets._classes import Classes, chosen_classes
from vexplain.datasets.image_files import SUFFIXES, ImageFiles, OnUnreadable, Resizing


def image_folder(
    path: str | Path, *, size: int | Resizing, on_unreadable: OnUnreadable = "skip"
) -> ImageFiles:
    """Returns the source of all images in a folder and its subfolders, in the order of their names.

    Files are decoded when they are asked for. The label is 0, and the class has the name of the folder. Files
    that are not images by their name are passed over.

    Args:
        path: the folder.
        size: height and width of the images in pixels, or the `Resizing` that a network wants.
        on_unreadable: what to do about a broken file: "skip" (weight 0, named in the log and in `skipped`) or
            "raise".

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no image in it, or `size` is below 1; when read, a broken file, if asked for.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (6, 4), (255, 0, 0)).save(folder / "red.png")
        >>> image_folder(folder, size=2)[np.array([0])]["images"][0, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    resizing, folder = as_resizing(size), _checked_folder(path)
    files = _images_below(folder)
    if not files:
        raise ValueError(
            f"path is {str(folder)!r}: expected images in it, files that end in {', '.join(SUFFIXES)}"
        )
    classes = np.zeros(len(files), np.int32)
    return ImageFiles(tuple(files), classes, (folder.resolve().name,), resizing, on_unreadable)


def class_folders(
    path: str | Path,
    *,
    size: int | Resizing,
    classes: Classes | None = None,
    on_unreadable: OnUnreadable = "skip",
) -> ImageFiles:
    """Returns the source of a folder with one folder for each class, as ImageNet's and many others are.

    It reads extracted ImageNet, and Fashion144k (Simo-Serra, Ishikawa, *Fashion Style in 128 Floats*, 2016)
    once its images lie in folders of the 12 cities that are its classes.

    Args:
        path: the folder of folders.
        size: as in `image_folder`.
        classes: names of the folders, in the order of the labels; all of them, sorted, if left out. A mapping
            gives each folder the name of its class.
        on_unreadable: as in `image_folder`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a class has no image or comes twice, there is no class, or `size` is below 1.

    Example:
        >>> cats = class_folders("train", size=Resizing(224, 256), classes=IMAGENET_CATS)  # doctest: +SKIP
        >>> cats.class_names[0], cats[np.arange(8)]["images"].shape  # doctest: +SKIP
        ('tabby', (8, 224, 224, 3))
    """
    resizing, folder = as_resizing(size), _checked_folder(path)
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not found:
        raise ValueError(f"path is {str(folder)!r}: expected folders in it, one for each class")
    owner = f"{str(folder)!r} has no folder"
    names = chosen_classes(found if classes is None else classes, found, owner=owner)
    files = {name: _images_below(folder / name) for name in names}
    if empty := [name for name in names if not files[name]]:
        raise ValueError(f"path is {str(folder)!r}: there is no image in {', '.join(empty)}")
    labels = np.repeat(np.arange(len(names)), [len(files[name]) for name in names])
    every_file = tuple(file for name in names for file in files[name])
    return ImageFiles(every_file, labels, tuple(names.values()), resizing, on_unreadable)


def as_resizing(size: int | Resizing) -> Resizing:
    """Returns the `Resizing` that a size stands for: the shorter side to `size`, then the middle."""
    return size if isinstance(size, Resizing) else Resizing(size)


def _checked_folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"path is {str(folder)!r}: there is no such folder")
    return folder


def _images_below(folder: Path) -> list[Path]:
    files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    return sorted(files, key=lambda file: file.relative_to(folder).parts)
