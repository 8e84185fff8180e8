"""Image files in folders and archives as sources, and their pixels, whatever their mode and size.

An image is turned upright, made RGB, resized and cropped, in the order and with the filters of the framework
that a network was trained in; a Resizing says which.

In all functions:
    size: height and width of the images in pixels, or the `Resizing` that a network wants.
    on_unreadable: what to do about a broken file: "skip" (weight 0, named in the log and in `skipped`) or
        "raise".
"""

import dataclasses
import io
import logging
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from vexplain._checks import check_choice, check_positive
from vexplain.datasets._classes import Classes, chosen_classes
from vexplain.datasets.sources import LazySource
from vexplain.datasets.threads import in_threads
from vexplain.typing import Float

_LOG = logging.getLogger(__name__)
OnUnreadable = Literal["skip", "raise"]
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MAX_PIXELS = 2**26  # four bytes each while an image is decoded, three times that where it is transparent
_MAX_ENLARGED = 2**28  # pixels: 65535 × 1 of them at 224 would fill the memory
_ADDRESS = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")  # of a run, in an error of Pillow


@dataclasses.dataclass(frozen=True)
class Resizing:
    """How an image comes to the size that a network wants: the shorter side resized, then a central square.

    Filters are Pillow's, antialiased where they shrink, which torchvision and timm use for files.

    Args:
        size: height and width of the square, in pixels.
        shorter_side: that the image is resized to first, at least `size`; `None` for `size` itself.
        interpolation: "bilinear" or "bicubic".
        max_pixels: that a file may have; known from its header, before it is decoded.
    """

    size: int
    shorter_side: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    max_pixels: int = _MAX_PIXELS

    def __post_init__(self):
        check_positive(size=self.size, max_pixels=self.max_pixels)
        if self.shorter_side is not None and self.shorter_side < self.size:
            raise ValueError(
                f"shorter_side is {self.shorter_side}: expected at least size, {self.size}, to cut it from"
            )
        check_choice("interpolation", self.interpolation, _FILTERS)

    def __call__(self, image: Image.Image) -> Image.Image:
        """Returns the image as a square; the longer side becomes int(shorter_side * longer / shorter) first.

        Raises:
            ValueError: the image is so narrow that it would fill the memory.
        """
        shorter = self.shorter_side or self.size
        width, height = (shorter * n // min(image.size) for n in image.size)
        if width * height > _MAX_ENLARGED:
            raise ValueError(f"it has {image.width} × {image.height} pixels: too narrow to enlarge")
        resized = image.resize((width, height), _FILTERS[self.interpolation])
        left, top = (round((n - self.size) / 2) for n in (width, height))
        return resized.crop((left, top, left + self.size, top + self.size))


class UnreadableImage(ValueError):
    """A file that should be an image, and is none or is broken."""


@runtime_checkable
class EncodedFile(Protocol):
    """An image file wherever it lies: a `pathlib.Path`, or a member of an archive. `str` names it."""

    def read_bytes(self) -> bytes: ...


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles(LazySource):
    """A source of image files, in folders or in archives."""

    files: Sequence[EncodedFile]
    classes: np.ndarray  # of each file, an index of `class_names`
    class_names: tuple[str, ...]
    resizing: Resizing
    on_unreadable: OnUnreadable = "skip"  # a broken file has weight 0; "raise" stops
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)  # what is wrong with broken files

    def __post_init__(self):
        check_choice("on_unreadable", self.on_unreadable, ("skip", "raise"))

    def __len__(self) -> int:
        return len(self.files)

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        files = [self.files[index] for index in indices.tolist()]
        decoded = in_threads(lambda file: decode_or_error(file, self.resizing), files)
        decoded = without_broken(decoded, files, self.on_unreadable, self.skipped)
        images, weights = stacked(decoded, (self.resizing.size, self.resizing.size, 3))
        return {"images": images, "labels": self.classes[indices].astype(np.int32), "weights": weights}


def image_folder(
    path: str | Path, *, size: int | Resizing, on_unreadable: OnUnreadable = "skip"
) -> ImageFiles:
    """Returns the source of all images in a folder and its subfolders, in the order of their names.

    Files are decoded when they are asked for. The label is 0, and the class has the name of the folder. Files
    that are not images by their name are passed over.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no image in it, or `size` is below 1; when read, a broken file, if asked for.

    Example:
        >>> import tempfile
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
        classes: names of the folders, in the order of the labels; all of them, sorted, if left out. A mapping
            gives each folder the name of its class.

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


def decode_image(file: str | bytes | EncodedFile, resizing: Resizing) -> Float[np.ndarray, "size size 3"]:
    """Returns an image file as RGB in [0, 1].

    Photographs are turned as their EXIF says; gray becomes three equal channels, also of 16 bits; CMYK is
    converted; what is transparent becomes white; of an animation the first frame is taken.

    Args:
        file: its path, its content, or what gives its content by `read_bytes()`.
        resizing: to the size of the result.

    Raises:
        UnreadableImage: it cannot be read; names the file.

    Example:
        >>> content = io.BytesIO()
        >>> Image.new("L", (6, 4), 51).save(content, "PNG")
        >>> (decode_image(content.getvalue(), Resizing(2)) * 255).round()[0, 0]
        array([51., 51., 51.], dtype=float32)
    """
    try:
        file = Path(file) if isinstance(file, str) else file
        content = file if isinstance(file, bytes) else file.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            _check_pixels(opened, resizing.max_pixels)
            image = resizing(_on_white(_upright(opened)))
    except Exception as error:  # broken files raise nearly anything in Pillow, struct.error and TypeError too
        name = "an image" if isinstance(file, bytes) else str(file)
        is_unknown = isinstance(error, UnidentifiedImageError)
        cause = "no known format" if is_unknown else _ADDRESS.sub("", str(error))
        raise UnreadableImage(f"{name} cannot be read as an image: {cause}") from error
    return np.asarray(image, np.float32) * np.float32(1 / 255)


def decode_or_error(
    file: EncodedFile, resizing: Resizing
) -> Float[np.ndarray, "size size 3"] | UnreadableImage:
    """Returns what `decode_image` does, or the error of a broken file."""
    try:
        return decode_image(file, resizing)
    except UnreadableImage as error:
        return error


def without_broken(
    decoded: Sequence[np.ndarray | UnreadableImage],
    files: Sequence[Any],
    on_unreadable: OnUnreadable,
    skipped: dict[str, str],
) -> list[np.ndarray | None]:
    """Returns images with `None` in the place of an error, unless `on_unreadable` is "raise".

    A broken file and what is wrong with it is logged once, with their number, and added to `skipped`.
    """
    for file, error in zip(files, decoded, strict=True):
        if not isinstance(error, UnreadableImage):
            continue
        if on_unreadable == "raise":
            raise UnreadableImage(f'{error}; mend or remove it, or pass on_unreadable="skip"') from error
        if str(file) not in skipped:
            skipped[str(file)] = str(error)
            _LOG.warning("skipped: %s (%d so far)", error, len(skipped))
    return [None if isinstance(image, UnreadableImage) else image for image in decoded]


def stacked(
    images: Sequence[np.ndarray | None], shape: tuple[int, ...]
) -> tuple[Float[np.ndarray, "n height width channels"], Float[np.ndarray, " n"]]:
    """Returns a batch of images of one shape, black where there is none, and weights, 0 there and else 1."""
    batch = np.zeros((len(images), *shape), np.float32)
    weights = np.array([image is not None for image in images], np.float32)
    for place, image in enumerate(images):
        if image is not None:
            batch[place] = image
    return batch, weights


def as_resizing(size: int | Resizing) -> Resizing:
    """Returns the `Resizing` that a size stands for: the shorter side to `size`, then the middle."""
    return size if isinstance(size, Resizing) else Resizing(size)


def _checked_folder(path: str | Path) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"path is {str(folder)!r}: there is no such folder")
    return folder


def _images_below(folder: Path) -> list[Path]:
    """Images by their names, of which no part begins with a dot; links are followed, but not in circles."""
    files = [folder / name for name in _names_below(folder, frozenset({folder.resolve()}))]
    return sorted(files, key=lambda file: file.relative_to(folder).parts)


def _names_below(folder: Path, above: frozenset[Path]) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            target = Path(entry.path).resolve()
            if target not in above:
                yield from (f"{entry.name}/{name}" for name in _names_below(target, above | {target}))
        elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
            yield entry.name


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ValueError(
            f"it has {image.width} × {image.height} pixels, above max_pixels = {max_pixels:,}; where that is "
            "right, pass Resizing(..., max_pixels=...)"
        )


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says, and not copied where that is no turn."""
    image.load()
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if is_turned else image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # more than 8 bits, which Pillow would clip at 255
        values = np.asarray(image, np.float32)
        if image.mode == "F" or not 0 <= values.min() <= values.max() <= 65535:
            raise ValueError(
                f"its values go from {values.min():g} to {values.max():g}: expected 8 or 16 bits"
            )
        image = Image.fromarray(np.round(values / 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
