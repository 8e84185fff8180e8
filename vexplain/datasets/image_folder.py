"""A folder of images as a source: two folders are two domains, of the real world.

Files are decoded when they are asked for, so that a folder may be larger than memory.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from vexplain.datasets.sources import Source, as_unit_floats
from vexplain.typing import Float

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def image_folder(path: str | Path, *, size: int) -> Source:
    """Returns the source of all images in a folder and its subfolders, in the order of their names.

    Each image is turned upright, reduced to its central square, resized (bilinear, antialiased), and made
    RGB; what is transparent becomes white. The label is 0, and the class has the name of the folder. Files
    that are not images by their name are passed over.

    Args:
        path: the folder.
        size: height and width to resize to, in pixels.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: there is no image in it, or `size` is below 1; when read, a file that is no image.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (6, 4), (255, 0, 0)).save(folder / "red.png")
        >>> image_folder(folder, size=2)[np.array([0])]["images"][0, 0, 0].tolist()
        [1.0, 0.0, 0.0]
    """
    folder = Path(path)
    if size < 1:
        raise ValueError(f"size is {size}: expected at least 1")
    if not folder.is_dir():
        raise FileNotFoundError(f"path is {str(folder)!r}: there is no such folder")
    files = [file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not files:
        raise ValueError(
            f"path is {str(folder)!r}: expected images in it, files that end in {', '.join(SUFFIXES)}"
        )
    ordered = sorted(files, key=lambda file: file.relative_to(folder).parts)
    return _ImageFolder(tuple(ordered), size, (folder.resolve().name,))


@dataclasses.dataclass(frozen=True, eq=False)
class _ImageFolder:
    files: tuple[Path, ...]
    size: int
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        indices = np.asarray(indices, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"indices go from {indices.min()} to {indices.max()}: there are {len(self)} images"
            )
        images = np.empty((len(indices), self.size, self.size, 3), np.float32)
        for place, index in enumerate(indices.tolist()):
            images[place] = _decoded(self.files[index], self.size)
        labels = np.zeros(len(indices), np.int32)
        return {"images": images, "labels": labels, "indices": indices.astype(np.int32)}


def _decoded(file: Path, size: int) -> Float[np.ndarray, "height width 3"]:
    try:
        with Image.open(file) as opened:
            square = _central_square(_on_white(ImageOps.exif_transpose(opened)))
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for broken files
        raise ValueError(f"{file} cannot be read as an image: {error}; mend or remove it") from error
    return as_unit_floats(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # gray of 16 bits, which Pillow would clip at 255
        image = Image.fromarray(np.round(np.asarray(image, np.float32) / 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _central_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return image.crop((left, top, left + side, top + side))
