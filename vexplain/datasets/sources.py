"""Where images come from: anything with a length that gives a batch for an array of indices.

A source is random access, so that batch t of an epoch is a function of (seed, t) alone. That makes resuming
exact, needs no shuffle buffer, and lets the images that an analysis found be fetched again by their index.

In all functions:
    source: the images.
"""

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vexplain._checks import check_images, check_unit_range


@runtime_checkable
class Source(Protocol):
    """A set of labeled images.

    `source[indices]` is a dict of arrays: "images" (n, height, width, channels) float32 in [0, 1], "labels"
    (n,) int32, "indices" (n,) int32, "masks" (n, height, width) in [0, 1] where the truth is known, and
    "weights" (n,), 0 for an image that cannot be read, where that may happen. `source[index]` of one integer
    is one example, without the leading axis: so every source is also a random-access source for Grain.
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
        if np.ndim(indices) == 0:
            if not 0 <= indices < len(self):  # which ends a `for` over the source
                raise IndexError(f"index is {indices}: there are {len(self)} images")
            return {name: np.asarray(values)[0] for name, values in self[np.array([indices])].items()}
        indices = self.checked(indices)
        return {**self._batch(indices), "indices": indices.astype(np.int32)}

    def checked(self, indices: Any) -> np.ndarray:
        """The indices as an array; raises IndexError for those of examples that are not there."""
        indices = np.asarray(indices, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"indices go from {indices.min()} to {indices.max()}: there are {len(self)} images"
            )
        return indices


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
        images, labels = np.asarray(self.images), np.asarray(self.labels)
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
        indices = np.asarray(indices)
        batch = {
            "images": as_unit_floats(self.images[indices]),
            "labels": self.labels[indices],
            "indices": indices.astype(np.int32),
        }
        if self.masks is not None:
            batch["masks"] = as_unit_floats(self.masks[indices])
        return {**batch, **_rows_of(self.extras, indices)}


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
        indices = np.asarray(indices)
        batch = self.source[self.chosen[indices]]
        return {**batch, "indices": indices.astype(np.int32), **_rows_of(self.extras, indices)}


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
