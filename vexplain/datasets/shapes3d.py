"""3D Shapes from its release file: an object in a room, six factors, every combination once.

Two of its four shapes are two domains, and the other five factors are what a translation must keep. As every
combination exists, an image has its true partner in the other domain.

References:
    Burgess, Kim, *3D Shapes Dataset*, 2018, https://github.com/google-deepmind/3d-shapes.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vexplain._checks import check_choice
from vexplain._files import MAX_BYTES, check_size
from vexplain.datasets.sources import LazySource, as_unit_floats
from vexplain.typing import Float, Int

FACTORS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
SHAPES = ("cube", "cylinder", "sphere", "capsule")
_SHAPE = FACTORS.index("shape")


@dataclasses.dataclass(frozen=True)
class Shapes3DSource(LazySource):
    """The images of one shape, in the order of the file. The label is the shape.

    Two such sources are paired image by image: for an unpaired training set give each domain a half of its
    own, and keep a part for the evaluation. Needs h5py: `pip install 'vexplain[shapes3d]'`.

    Args:
        path: of `3dshapes.h5`, "images" (480000, 64, 64, 3) of 8 bits and "labels" (480000, 6).
        shape: 0 cube, 1 cylinder, 2 sphere, 3 capsule.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: h5py is not installed.
        ValueError: the shape is not 0 to 3, the file is not 3D Shapes, or has no image of that shape.

    Example:
        >>> cubes, spheres = (Shapes3DSource("3dshapes.h5", shape) for shape in (0, 2))  # doctest: +SKIP
        >>> order = np.random.default_rng(0).permutation(len(cubes))  # doctest: +SKIP
        >>> test, train_a, train_b = np.split(order, [2_000, 61_000])  # doctest: +SKIP
        >>> domain_a = subset(cubes, train_a)  # doctest: +SKIP
        >>> domain_b = subset(spheres, cubes.partners(spheres, train_b))  # doctest: +SKIP
        >>> truth = spheres[cubes.partners(spheres, test)]["images"]  # doctest: +SKIP
    """

    path: str | Path
    shape: int

    def __post_init__(self):
        check_choice("shape", self.shape, range(len(SHAPES)))
        if not len(self):
            raise ValueError(f"shape is {self.shape}: {self.path} has no image of a {SHAPES[self.shape]}")

    @property
    def class_names(self) -> tuple[str, ...]:
        return SHAPES

    def __len__(self) -> int:
        return len(self._rows)

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        with _opened(self.path) as file:
            images = np.empty((len(indices), *file["images"].shape[1:]), np.uint8)
            for place, row in enumerate(self._rows[indices].tolist()):
                images[place] = file["images"][row]
        return {"images": as_unit_floats(images), "labels": np.full(len(indices), self.shape, np.int32)}

    def factors(self, indices: Any) -> Float[np.ndarray, "n 6"]:
        """Returns the factors of some images, in the order of `FACTORS` and the units of the file."""
        return self._labels[self._rows[np.asarray(indices, np.int64)]]

    def partners(self, other: "Shapes3DSource", indices: Any) -> Int[np.ndarray, " n"]:
        """Returns the indices in another source of the images that agree in all factors but the shape.

        Raises:
            ValueError: an image has no partner there.
        """
        theirs = np.delete(other.factors(np.arange(len(other))), _SHAPE, axis=1)
        ours = np.delete(self.factors(indices), _SHAPE, axis=1)
        place_of = {tuple(row): place for place, row in enumerate(theirs.tolist())}
        found = np.array([place_of.get(tuple(row), -1) for row in ours.tolist()], np.int64)
        if (missing := np.flatnonzero(found < 0)).size:
            raise ValueError(
                f"indices: image {np.asarray(indices)[missing[0]]} has no partner among the images of a "
                f"{SHAPES[other.shape]} ({missing.size} of {len(found)} have none)"
            )
        return found

    @functools.cached_property
    def _labels(self) -> Float[np.ndarray, "n 6"]:
        with _opened(self.path) as file:
            return np.asarray(file["labels"], np.float64)

    @functools.cached_property
    def _rows(self) -> Int[np.ndarray, " n"]:
        return np.flatnonzero(self._labels[:, _SHAPE] == self.shape)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """The open file, checked; what HDF5 stumbles over is named."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("3D Shapes is read through h5py: pip install 'vexplain[shapes3d]'") from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"path is {str(path)!r}: there is no such file")
    try:
        with h5py.File(path, "r") as file:
            _check_content(path, file)
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path} is not a whole HDF5 file: {error}; download 3dshapes.h5 again") from error


def _check_content(path: str | Path, file: Any) -> None:
    for name in ("images", "labels"):
        link, dataset = file.get(name, getlink=True), file.get(name)
        elsewhere = getattr(dataset, "external", None) or getattr(dataset, "is_virtual", False)
        if elsewhere or type(link).__name__ in ("SoftLink", "ExternalLink"):
            raise ValueError(f"{path} keeps its {name} outside of itself: expected 3D Shapes, one whole file")
    shapes = {name: getattr(file.get(name), "shape", None) or () for name in ("images", "labels")}
    images, labels = shapes["images"], shapes["labels"]
    if len(images) != 4 or labels != (images[0], len(FACTORS)) or file["images"].dtype != np.uint8:
        raise ValueError(
            f"{path} holds images {images} and labels {labels}: expected 3D Shapes, images (n, height, "
            "width, 3) of 8 bits and labels (n, 6)"
        )
    for name, count in (("an image of", math.prod(images[1:])), ("the labels of", file["labels"].nbytes)):
        check_size(f"{name} {path}", count, MAX_BYTES)
    for dataset in (file["images"], file["labels"]):  # a chunk is decompressed as a whole
        check_size(f"a chunk of {path}", math.prod(dataset.chunks or ()) * dataset.dtype.itemsize, MAX_BYTES)
