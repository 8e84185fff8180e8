"""A folder of masks beside a folder of images: the region that should decide the class of each image."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from vexplain.command.images import name_of
from vexplain.datasets import ImageFiles, decode_image, image_folder
from vexplain.datasets.image_files import UnreadableImage
from vexplain.datasets.sources import LazySource
from vexplain.datasets.threads import in_threads

_TURNED = (5, 6, 7, 8)  # orientations in EXIF that exchange width and height
_TOLERANCE = 0.01  # of the ratio of width to height


@dataclasses.dataclass(frozen=True, eq=False)
class MaskedImages(LazySource):
    """Images with masks; one whose mask cannot be used has weight 0, and is named in `skipped`.

    Attributes:
        images: of the files.
        masks: the file of the mask of each image.
        names: of the masks, in results.
        skipped: what is wrong with masks, by name.
    """

    images: ImageFiles
    masks: tuple[Path, ...]
    names: tuple[str, ...]
    skipped: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.images.class_names

    def __len__(self) -> int:
        return len(self.masks)

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        batch, places = self.images[indices], indices.tolist()
        found = in_threads(self._mask, places)
        masks = np.zeros((len(places), *batch["images"].shape[1:3]), np.float32)
        weights = np.array(batch["weights"], np.float32)
        for n, (place, mask) in enumerate(zip(places, found, strict=True)):
            if isinstance(mask, str):
                self.skipped[self.names[place]] = mask
                weights[n] = 0
            else:
                masks[n] = mask
        return {**batch, "masks": masks, "weights": weights}

    def _mask(self, place: int) -> np.ndarray | str:
        """The mask of an image, or what is wrong with it."""
        path, image = self.masks[place], Path(str(self.images.files[place]))
        try:
            mask = decode_image(path, self.images.resizing).max(-1)
            (width, height), (wide, high) = _size(path), _size(image)
        except UnreadableImage as error:
            return str(error).removeprefix(f"{path} ")
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if abs(width * high / (height * wide) - 1) > _TOLERANCE:
            return f"has {width} × {height} pixels, and its image {wide} × {high}: another shape"
        if mask.max() < 0.5:
            return f"has no region: its largest value is {255 * mask.max():.0f}, expected 255 inside"
        return mask


def masked_images(images: ImageFiles, root: Path, folder: Path) -> tuple[MaskedImages, np.ndarray, list[str]]:
    """Returns the images that have a mask, their places among all, and the names of those that have none.

    The mask of `cats/1.jpg` is `cats/1.jpg` below the folder of masks, or `cats/1` with another ending.

    Args:
        images: all of them.
        root: their folder.
        folder: of the masks.

    Raises:
        ValueError: no image has a mask.
    """
    try:
        files = [Path(str(file)) for file in image_folder(folder, size=images.resizing).files]
    except ValueError as error:
        raise ValueError(f"--masks is {str(folder)!r}: there is no image in it") from error
    by_name = {path.relative_to(folder): path for path in files}
    by_stem: dict[Path, list[Path]] = {}
    for name, path in by_name.items():
        by_stem.setdefault(name.with_suffix(""), []).append(path)
    masks, places, missing = [], [], []
    for place, file in enumerate(images.files):
        name = Path(str(file)).relative_to(root)
        found = [by_name[name]] if name in by_name else by_stem.get(name.with_suffix(""), [])
        if len(found) == 1:
            masks.append(found[0])
            places.append(place)
        else:
            missing.append(name_of(Path(str(file)), root))
    if not masks:
        raise ValueError(
            f"--masks is {str(folder)!r}: none of {len(missing)} images has a mask there; that of "
            f"{missing[0]} should have the same name, with any ending of an image"
        )
    chosen = np.array(places)
    labeled = dataclasses.replace(
        images, files=tuple(images.files[n] for n in places), classes=images.classes[chosen]
    )
    names = tuple(name_of(mask, folder) for mask in masks)
    return MaskedImages(labeled, tuple(masks), names), chosen, missing


def _size(path: Path) -> tuple[int, int]:
    """Width and height as the image is shown, from the header."""
    with Image.open(path) as opened:
        width, height = opened.size
        is_turned = opened.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
        return (height, width) if is_turned else (width, height)
