"""Folders of images as sources: one folder is a domain, a folder of folders is a labeled data set.

Files are decoded when they are asked for, so that a folder may be larger than memory. A file that turns out
to be broken does not stop the work: it is named in the log, noted in `skipped`, and its example has weight 0.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vexplain.datasets.image_files import (
    SUFFIXES,
    EncodedFile,
    OnUnreadable,
    Resizing,
    check_on_unreadable,
    decode_or_skip,
)
from vexplain.datasets.sources import check_indices, one_example


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """A source of image files, in folders or in archives.

    Attributes:
        files: their paths, or members of an archive.
        classes: the class of each, an index of `class_names`.
        class_names: one a class.
        resizing: to the size of the images.
        on_unreadable: "skip" gives a broken file weight 0, "raise" stops.
        skipped: the broken files that were met so far, and what is wrong with each.
    """

    files: Sequence[EncodedFile]
    classes: np.ndarray
    class_names: tuple[str, ...]
    resizing: Resizing
    on_unreadable: OnUnreadable = "skip"
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_on_unreadable(self.on_unreadable)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        if np.ndim(indices) == 0:
            return one_example(self, indices)
        indices = np.asarray(indices, np.int64)
        check_indices(indices, len(self))
        size = self.resizing.size
        images = np.empty((len(indices), size, size, 3), np.float32)
        weights = np.ones(len(indices), np.float32)
        for place, index in enumerate(indices.tolist()):
            decoded = decode_or_skip(self.files[index], self.resizing, self.on_unreadable, self.skipped)
            weights[place] = decoded is not None
            images[place] = 0 if decoded is None else decoded
        return {
            "images": images,
            "labels": self.classes[indices].astype(np.int32),
            "indices": indices.astype(np.int32),
            "weights": weights,
        }


def image_folder(
    path: str | Path, *, size: int | Resizing, on_unreadable: OnUnreadable = "skip"
) -> ImageFiles:
    """Returns the source of all images in a folder and its subfolders, in the order of their names.

    The label is 0, and the class has the name of the folder. Files that are not images by their name are
    passed over.

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
    classes: Iterable[str] | Mapping[str, str] | None = None,
    on_unreadable: OnUnreadable = "skip",
) -> ImageFiles:
    """Returns the source of a folder with one folder for each class, as ImageNet's and many others are.

    It reads extracted ImageNet (`classes=IMAGENET_CATS` for 13 kinds of cats), and the street fashion of
    Fashion144k once its images lie in folders of the 12 cities that are its classes.

    Args:
        path: the folder of folders.
        size: height and width of the images in pixels, or the `Resizing` that a network wants.
        classes: names of the folders, in the order of the labels; all of them, sorted, if left out. A mapping
            gives each folder the name of its class.
        on_unreadable: what to do about a broken file: "skip" (weight 0, named in the log and in `skipped`) or
            "raise".

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a class has no image or comes twice, there is no class, or `size` is below 1.

    References:
        Simo-Serra, Ishikawa, *Fashion Style in 128 Floats*, 2016 (Fashion144k).

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (folder / name).mkdir()
        ...     Image.new("RGB", (6, 4)).save(folder / name / "1.png")
        >>> source = class_folders(folder, size=2)
        >>> source.class_names, source[np.array([0, 1])]["labels"].tolist()
        (('cat', 'dog'), [0, 1])
    """
    resizing, folder = as_resizing(size), _checked_folder(path)
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    names = tuple(found if classes is None else classes)
    if not names:
        raise ValueError(f"path is {str(folder)!r}: expected folders in it, one for each class")
    absent = [name for name in names if name not in found]
    if absent:
        raise ValueError(f"classes: {str(folder)!r} has no folder {', '.join(absent)}")
    if len(set(names)) < len(names):
        raise ValueError(f"classes are {', '.join(names)}: expected each once")
    by_class = [_images_below(folder / name) for name in names]
    empty = [name for name, files in zip(names, by_class, strict=True) if not files]
    if empty:
        raise ValueError(f"path is {str(folder)!r}: there is no image in {', '.join(empty)}")
    labels = np.repeat(np.arange(len(names)), [len(files) for files in by_class])
    files = tuple(file for files in by_class for file in files)
    names = tuple(classes.values()) if isinstance(classes, Mapping) else names
    return ImageFiles(files, labels, names, resizing, on_unreadable)


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
