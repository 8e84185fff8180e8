"""3D Shapes from its release file: an object in a room, six factors, every combination once.

Two of its four shapes are two domains, and the other five factors are what a translation must keep. As every
combination exists, an image has its true partner in the other domain.

References:
    Burgess, Kim, *3D Shapes Dataset*, 2018, https://github.com/google-deepmind/3d-shapes (`3dshapes.h5`:
    "images" (480000, 64, 64, 3) of 8 bits, "labels" (480000, 6)).
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from vexplain.datasets.sources import as_unit_floats, one_example
from vexplain.typing import Float, Int

FACTORS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
SHAPES = ("cube", "cylinder", "sphere", "capsule")
_SHAPE = FACTORS.index("shape")


@dataclasses.dataclass(frozen=True)
class Shapes3DSource:
    """The images of one shape, in the order of the file. The label is the shape.

    Needs h5py: `pip install 'vexplain[shapes3d]'`. Images are read when they are asked for.

    Two such sources are paired image by image: for an unpaired training set give each domain a half of its
    own, and keep a part for `partners` and the evaluation.

    Args:
        path: of `3dshapes.h5`.
        shape: 0 cube, 1 cylinder, 2 sphere, 3 capsule.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: h5py is not installed.
        ValueError: the shape is not 0 to 3, the file is not 3D Shapes, or has no image of that shape.

    Example:
        >>> cubes = Shapes3DSource("3dshapes.h5", 0)  # doctest: +SKIP
        >>> spheres = Shapes3DSource("3dshapes.h5", 2)  # doctest: +SKIP
        >>> order = np.random.default_rng(0).permutation(len(cubes))  # doctest: +SKIP
        >>> test, train_a, train_b = np.split(order, [2_000, 61_000])  # doctest: +SKIP
        >>> domain_a = subset(cubes, train_a)  # doctest: +SKIP
        >>> domain_b = subset(spheres, cubes.partners(spheres, train_b))  # doctest: +SKIP
        >>> truth = spheres[cubes.partners(spheres, test)]["images"]  # doctest: +SKIP
    """

    path: str | Path
    shape: int

    def __post_init__(self):
        if self.shape not in range(len(SHAPES)):
            raise ValueError(f"shape is {self.shape}: expected 0 to {len(SHAPES) - 1}, one of {SHAPES}")
        if not len(self):
            raise ValueError(f"shape is {self.shape}: {self.path} has no image of a {SHAPES[self.shape]}")

    @property
    def class_names(self) -> tuple[str, ...]:
        return SHAPES

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        if np.ndim(indices) == 0:
            return one_example(self, indices)
        indices = np.asarray(indices, np.int64)
        rows = self._rows[indices]
        with _opened(self.path) as file:
            images = [file["images"][row] for row in rows.tolist()]
            empty = np.empty((0, *file["images"].shape[1:]), np.uint8)
        return {
            "images": as_unit_floats(np.stack(images) if images else empty),
            "labels": np.full(len(indices), self.shape, np.int32),
            "indices": indices.astype(np.int32),
        }

    def factors(self, indices: Any) -> Float[np.ndarray, "n 6"]:
        """The factors of some images, in the order of `FACTORS` and the units of the file."""
        return self._labels[self._rows[np.asarray(indices, np.int64)]]

    def partners(self, other: "Shapes3DSource", indices: Any) -> Int[np.ndarray, " n"]:
        """The indices in another source of the images that agree in all factors but the shape.

        Args:
            other: the source of another shape, of the same file.
            indices: of images here.

        Raises:
            ValueError: an image has no partner there.
        """
        theirs = np.delete(other.factors(np.arange(len(other))), _SHAPE, axis=1)
        ours = np.delete(self.factors(indices), _SHAPE, axis=1)
        _, codes = np.unique(np.concatenate([theirs, ours]), axis=0, return_inverse=True)
        codes = codes.reshape(-1)
        place_of = np.full(codes.max(initial=-1) + 1, -1)
        place_of[codes[: len(theirs)]] = np.arange(len(theirs))
        found = place_of[codes[len(theirs) :]]
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


def _opened(path: str | Path) -> Any:
    """The open file, checked."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError("3D Shapes is read through h5py: pip install 'vexplain[shapes3d]'") from error
    if not Path(path).is_file():
        raise FileNotFoundError(f"path is {str(path)!r}: there is no such file")
    try:
        file: Any = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file: {error}; download 3dshapes.h5 again") from error
    shapes = {name: getattr(file.get(name), "shape", ()) for name in ("images", "labels")}
    images, labels = shapes["images"], shapes["labels"]
    if len(images) != 4 or labels != (images[0], len(FACTORS)) or file["images"].dtype != np.uint8:
        file.close()
        raise ValueError(
            f"{path} holds images {images} and labels {labels}: expected 3D Shapes, images (n, height, "
            "width, 3) of 8 bits and labels (n, 6)"
        )
    return file
