"""Where images come from: anything with a length that gives a batch for an array of indices.

A source is random access, so that batch t of an epoch is a function of (seed, t) alone. That makes resuming
exact, needs no shuffle buffer, and lets the images that an analysis found be fetched again by their index.

In all functions:
    source: the images.
"""

import abc
import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vexplain._checks import check_images, check_unit_range
from vexplain.typing import Int


@runtime_checkable
class Source(Protocol):
    """A set of labeled images.

    `source[indices]` is a dict of arrays: "images" (n, height, width, channels) float32 in [0, 1], "labels"
    (n,) int32, "indices" (n,) int32, "masks" (n, height, width) in [0, 1] where the truth is known, and
    "weights" (n,), 0 for an image that cannot be read, where that may happen. `source[index]` of one integer
    is one example, without the leading axis: so every source is also a random-access source for Grain.
    Slices, negative integers and one boolean an example mean what they mean for an array.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any) -> dict[str, Any]: ...


class LazySource(abc.ABC):
    """A source that reads or renders its images when they are asked for, by `_batch` of valid indices."""

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @abc.abstractmethod
    def _batch(self, indices: np.ndarray) -> dict[str, Any]: ...

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        places = as_places(indices, len(self))
        if places.ndim == 0:
            return {name: np.asarray(values)[0] for name, values in self[places[None]].items()}
        return {**self._batch(places), "indices": places.astype(np.int32)}


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Images that are in memory.

    Args:
        images: (n, height, width, channels), floats in [0, 1] or 8-bit integers.
        labels: (n,) integers from 0 on.
        masks: (n, height, width), coverage of the true region in [0, 1], or 8-bit integers up to 255.
        class_names: one a class.
        extras: as in `with_extras`.

    Raises:
        ValueError: another rank, dtype or range, NaN, lengths that differ, or labels without a class.

    Example:
        >>> source = ArraySource(np.zeros((3, 8, 8, 1)), np.array([0, 1, 0]), class_names=("a", "b"))
        >>> source
        ArraySource(3 images of 8×8×1, 2 classes)
        >>> source[np.array([2, 0])]["labels"]
        array([0, 0], dtype=int32)
    """

    images: np.ndarray
    labels: np.ndarray
    masks: np.ndarray | None = None
    _: dataclasses.KW_ONLY
    class_names: tuple[str, ...]
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_class_names(self.class_names)
        images, labels = _as_array("images", self.images), _as_array("labels", self.labels)
        if images.ndim != 4 or images.dtype != np.uint8:
            check_images(images)
        _check_labels(labels, len(images), len(self.class_names))
        if self.masks is not None:
            masks = np.asarray(self.masks)
            _check_masks(masks, images.shape[:3])
            object.__setattr__(self, "masks", masks)
        _check_extras(self.extras, len(images))
        object.__setattr__(self, "images", images)
        object.__setattr__(self, "labels", labels.astype(np.int32))
        object.__setattr__(self, "class_names", tuple(self.class_names))

    def __repr__(self) -> str:
        size = "×".join(map(str, self.images.shape[1:]))
        with_masks = "" if self.masks is None else " with masks"
        return f"ArraySource({len(self)} images of {size}{with_masks}, {len(self.class_names)} classes)"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        places = as_places(indices, len(self))
        batch = {
            "images": as_unit_floats(self.images[places]),
            "labels": self.labels[places],
            "indices": places.astype(np.int32),
        }
        if self.masks is not None:
            batch["masks"] = as_unit_floats(self.masks[places])
        return {**batch, **_rows_of(self.extras, places)}


@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
    """Some examples of a source, with other arrays in their batches too."""

    source: Source
    chosen: np.ndarray
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def skipped(self) -> Mapping[str, str]:
        """The broken files that the source met so far; of those that are not chosen too."""
        return getattr(self.source, "skipped", {})

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        places = as_places(indices, len(self))
        batch = self.source[self.chosen[places]]
        return {**batch, "indices": places.astype(np.int32), **_rows_of(self.extras, places)}


def as_places(indices: Any, count: int) -> Int[np.ndarray, "*n"]:
    """Returns which of `count` examples an index means, as it would for an array: whole numbers from 0 on.

    Args:
        indices: an integer, a slice, integers, or one boolean an example.
        count: of the examples.

    Raises:
        IndexError: an example that is not there, numbers that are not whole, or booleans of another number.

    Example:
        >>> as_places(slice(-2, None), 5), as_places([True, False, True], 3)
        (array([3, 4]), array([0, 2]))
    """
    if isinstance(indices, slice):
        return np.arange(count)[indices]
    places = np.asarray(indices)
    if places.size == 0 and places.ndim == 1:
        return places.astype(np.int64)
    if places.dtype == np.bool_:
        if places.shape != (count,):
            raise IndexError(f"indices are booleans of shape {places.shape}: expected {count}, one an image")
        return np.flatnonzero(places)
    if not np.issubdtype(places.dtype, np.integer) or places.ndim > 1:
        raise IndexError(
            f"indices has dtype {places.dtype} and {places.ndim} axes: expected whole numbers, one axis or "
            "none"
        )
    if not -count <= places.min() <= places.max() < count:  # which ends a `for` over a source
        raise IndexError(f"indices go from {places.min()} to {places.max()}: there are {count} images")
    return np.where(places < 0, places + count, places).astype(np.int64)


def subset(source: Source, indices: Sequence[int] | np.ndarray) -> Source:
    """Returns the source of some examples; "indices" in its batches are positions in the subset.

    Args:
        indices: which of them, in order.

    Raises:
        ValueError: an index is beyond the source.
    """
    chosen = np.asarray(indices, np.int64)
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(source):
        raise ValueError(
            f"indices go from {chosen.min()} to {chosen.max()}: source has {len(source)} examples"
        )
    return _Chosen(source, chosen)


def with_extras(source: Source, extras: Mapping[str, np.ndarray]) -> Source:
    """Returns a source with other arrays in its batches too.

    Args:
        extras: arrays with a row an example, under the names that they have in a batch; 8-bit integers become
            floats in [0, 1].

    Raises:
        ValueError: an array of another length.
    """
    _check_extras(extras, len(source))
    return _Chosen(source, np.arange(len(source)), extras)


def as_unit_floats(images: np.ndarray) -> np.ndarray:
    """Returns images as float32 in [0, 1]; 8-bit integers are divided by 255."""
    scale = np.float32(1 / 255) if images.dtype == np.uint8 else np.float32(1)
    return images.astype(np.float32) * scale


def rounded(values: Any) -> Any:
    """Returns values in [0, 1] rounded to 8 bits, of JAX or NumPy: what a file of 8 bits would give back."""
    return (values * 255).round() / 255


def as_eight_bits(values: Any) -> np.ndarray:
    """Returns values in [0, 1] as the nearest integers of 0 to 255."""
    return np.round(np.asarray(values) * 255).astype(np.uint8)


def _rows_of(extras: Mapping[str, np.ndarray], indices: Any) -> dict[str, np.ndarray]:
    rows = {name: array[indices] for name, array in extras.items()}
    return {name: as_unit_floats(r) if r.dtype == np.uint8 else r for name, r in rows.items()}


def _check_extras(extras: Mapping[str, np.ndarray], num_images: int) -> None:
    for name, array in extras.items():
        if len(array) != num_images:
            raise ValueError(f"extras has {len(array)} rows of {name!r}: expected {num_images}")


def check_class_names(names: Sequence[str]) -> None:
    """Raises ValueError for a name that comes twice: no one could tell the classes apart."""
    counts = collections.Counter(names)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ValueError(f"class_names has {', '.join(map(repr, twice))} more than once: number them")


def _as_array(name: str, values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError:  # NumPy speaks of an inhomogeneous shape
        array = np.empty(0, object)
    if array.dtype.kind in "OUS":
        expected = {"images": "one array, images of one size", "labels": "integers, places in class_names"}[
            name
        ]
        raise ValueError(f"{name} are no array of numbers: expected {expected}")
    return array


def _check_masks(masks: np.ndarray, shape: tuple[int, ...]) -> None:
    if masks.shape != shape:
        raise ValueError(f"masks has shape {masks.shape}: expected {shape}")
    if masks.dtype == np.uint8 and masks.size and masks.max() == 1:
        raise ValueError("masks are uint8 and go up to 1, but 255 is inside: pass masks.astype(bool)")
    if masks.dtype in (np.bool_, np.uint8) or not masks.size:
        return
    if not np.issubdtype(masks.dtype, np.number) or np.iscomplexobj(masks):
        raise ValueError(f"masks has dtype {masks.dtype}: expected floats in [0, 1], uint8 or bool")
    check_unit_range("masks", masks, "1 is inside, 0 outside")


def _check_labels(labels: np.ndarray, num_images: int, num_classes: int) -> None:
    if labels.shape != (num_images,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels has shape {labels.shape} and dtype {labels.dtype}: expected {num_images} integers"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < num_classes:
        raise ValueError(
            f"labels go from {labels.min()} to {labels.max()}: class_names has {num_classes} classes"
        )
