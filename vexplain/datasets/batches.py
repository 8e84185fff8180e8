"""Batch t of a source as a function of t alone, of which any rows can be read without the others.

One process of several, which holds a share of a batch, asks for its rows alone. Row i of batch t is the same
whichever other rows are read.

In all functions:
    source: the images.
    batch_size: examples a batch.
    progress: wraps the range of steps, for instance `tqdm.tqdm`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from vexplain._checks import check_images, check_positive
from vexplain.datasets.sources import ArraySource, Source, as_eight_bits
from vexplain.typing import Batch

BatchFn = Callable[[int], Batch]


@dataclasses.dataclass(frozen=True, eq=False)
class Batches:
    """The batches of one or more sources: `batches(t)` is batch t, `batches.read(t, rows)` some of its rows.

    Attributes:
        batch_size: rows of a batch.
        read: (t, rows) -> rows of batch t, those at the places `rows` (n,), in this order.
        sources: that are read.

    Example:
        >>> source = ArraySource(np.zeros((4, 8, 8, 1)), np.array([0, 1, 2, 3]), class_names=tuple("abcd"))
        >>> batches, _ = epoch_batches(source, 4)
        >>> batches(0)["labels"].tolist(), batches.read(0, np.array([2, 3]))["labels"].tolist()
        ([0, 1, 2, 3], [2, 3])
    """

    batch_size: int
    read: Callable[[int, np.ndarray], Batch]
    sources: tuple[Source, ...] = ()

    def __call__(self, t: int) -> Batch:
        return self.read(t, np.arange(self.batch_size))

    def mapped(self, change: Callable[[Batch], Batch]) -> "Batches":
        """Returns batches after a change that makes of each row what it makes of it in any batch.

        Args:
            change: batch -> batch, with as many rows.
        """
        return dataclasses.replace(self, read=lambda t, rows: change(self.read(t, rows)))


def epoch_batches(source: Source, batch_size: int) -> tuple[Batches, int]:
    """Returns (batches, number of steps) that visit every example once, in order.

    The last batch is filled up with examples of weight 0, so that one compiled program serves all.

    Raises:
        ValueError: the source is empty or `batch_size` below 1.

    Example:
        >>> source = ArraySource(np.zeros((3, 8, 8, 1)), np.array([0, 1, 0]), class_names=("a", "b"))
        >>> batches, num_steps = epoch_batches(source, 2)
        >>> num_steps, batches(1)["weights"].tolist()
        (2, [1.0, 0.0])
    """
    _check_size(source, batch_size)
    size = len(source)

    def read(t: int, rows: np.ndarray) -> Batch:
        places = t * batch_size + rows
        counts = places < size
        batch = _asked(source, np.where(counts, places, 0))
        weights = np.asarray(batch.get("weights", np.float32(1)))  # 0 where a source has no such image
        return {**batch, "weights": (counts * weights).astype(np.float32)}

    return Batches(batch_size, read, (source,)), -(-size // batch_size)


def shuffled_batches(source: Source, batch_size: int, *, seed: int) -> tuple[Batches, int]:
    """Returns (batches, steps an epoch) for training: each epoch is another permutation.

    Batch t is a function of (seed, t); the examples that do not fill the last batch of an epoch are left out.

    Args:
        batch_size: examples a batch, from 1 to as many as there are, else a ValueError.
        seed: of the permutations.
    """
    _check_size(source, batch_size)
    if batch_size > len(source):
        raise ValueError(f"batch_size is {batch_size}: the source has only {len(source)} examples")

    def read(t: int, rows: np.ndarray) -> Batch:
        return _asked(source, shuffled_indices(len(source), batch_size, t, (seed,))[rows])

    return Batches(batch_size, read, (source,)), len(source) // batch_size


def shuffled_indices(count: int, batch_size: int, t: int, seed: tuple[int, ...]) -> np.ndarray:
    """Returns the indices of batch t: whole batches of one permutation of `count` examples an epoch."""
    epoch, step = divmod(t, count // batch_size)
    order = np.random.default_rng((*seed, epoch)).permutation(count)
    return order[step * batch_size : (step + 1) * batch_size]


def gather(source: Source, *, batch_size: int = 64, progress: Callable[[Any], Any] = iter) -> dict[str, Any]:
    """Returns all readable examples of a source as one batch of NumPy arrays, images and masks in 8 bits."""
    batch_fn, num_steps = epoch_batches(source, min(batch_size, len(source)))
    parts: dict[str, list[np.ndarray]] = {}
    for t in progress(range(num_steps)):
        batch = batch_fn(t)
        counts = np.asarray(batch["weights"]) > 0
        for name, array in batch.items():
            if name != "weights":
                array = np.asarray(array)[counts]
                is_image = name.endswith(("images", "masks")) and array.dtype == np.float32
                parts.setdefault(name, []).append(as_eight_bits(array) if is_image else array)
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def in_memory(source: Source, *, batch_size: int = 64, progress: Callable[[Any], Any] = iter) -> ArraySource:
    """Returns a source with its images held in memory, 8 bits a value: for many epochs over a small set."""
    found = gather(source, batch_size=batch_size, progress=progress)
    images, labels, masks = found.pop("images"), found.pop("labels"), found.pop("masks", None)
    found.pop("indices", None)  # places in memory are the indices now
    return ArraySource(images, labels, masks, class_names=source.class_names, extras=found)


def _asked(source: Source, places: np.ndarray) -> Batch:
    """The batch of a source, which need not say itself what it was asked for, and is checked."""
    batch = {"indices": places.astype(np.int32), **source[places]}
    if not isinstance(source, ArraySource):  # whose images were checked when it was made
        images = np.asarray(batch["images"])
        counts = np.asarray(batch.get("weights", np.ones(len(images)))) > 0
        check_images(images if counts.all() else images[counts])
    return batch


def _check_size(source: Source, batch_size: int) -> None:
    check_positive(batch_size=batch_size)
    if not len(source):
        raise ValueError("source: it holds no image")
