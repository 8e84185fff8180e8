"""Batches of two domains: without pairs, what an unpaired translation is trained on, and with pairs.

A batch holds images only. No label, mask or index goes with them, so that nothing of the truth, and nothing
that would pair the domains, can leak into training.

In all functions:
    source_a: domain A.
    source_b: domain B, images of the same size and channels.
    batch_size: images of each domain in a batch, at most as many as a domain has.
    seed: of the permutations.
"""

import numpy as np

from vexplain._checks import check_positive
from vexplain.datasets.batches import Batches, shuffled_indices
from vexplain.datasets.sources import Source
from vexplain.typing import Batch, Images


def unpaired_batches(
    source_a: Source, source_b: Source, batch_size: int, *, seed: int
) -> tuple[Batches, int]:
    """Returns (batches, steps an epoch); batch t is {"a": images of A, "b": images of B}.

    Batch t is a function of (seed, t). Each domain goes through permutations of its own: all of its images
    (but those that do not fill a last batch) are seen before one is seen again, also where the other domain
    has fewer. An epoch is one pass over the smaller domain.

    Raises:
        ValueError: the images differ in size or channels, or `batch_size` is out of range.

    Example:
        >>> from vexplain.datasets.shape_swap import ShapeSwapSource
        >>> shirts, trousers = (ShapeSwapSource(d, num_images=10 + d, size=16) for d in (0, 1))
        >>> batch_fn, steps_per_epoch = unpaired_batches(shirts, trousers, 4, seed=0)
        >>> steps_per_epoch, batch_fn(7)["a"].shape, sorted(batch_fn(7))
        (2, (4, 16, 16, 3), ['a', 'b'])
    """
    _check_domains(source_a, source_b, batch_size)

    def read(t: int, rows: np.ndarray) -> Batch:
        return {
            "a": _images(source_a, shuffled_indices(len(source_a), batch_size, t, (seed, 0)), rows),
            "b": _images(source_b, shuffled_indices(len(source_b), batch_size, t, (seed, 1)), rows),
        }

    sources = (source_a, source_b)
    return Batches(batch_size, read, sources), min(len(source_a), len(source_b)) // batch_size


def paired_batches(source_a: Source, source_b: Source, batch_size: int, *, seed: int) -> tuple[Batches, int]:
    """Returns (batches, steps an epoch); in batch t, image i of "a" and image i of "b" are partners.

    For a supervised upper bound of a translation. Batch t is a function of (seed, t). Partners have the same
    index in both sources.

    Raises:
        ValueError: the domains differ in number, size or channels of their images, or `batch_size` is out of
            range.
    """
    _check_domains(source_a, source_b, batch_size)
    if len(source_a) != len(source_b):
        raise ValueError(
            f"domain A has {len(source_a)} images and domain B {len(source_b)}: expected pairs; for images "
            "without partners use unpaired_batches"
        )

    def read(t: int, rows: np.ndarray) -> Batch:
        chosen = shuffled_indices(len(source_a), batch_size, t, (seed,))[rows]
        return {"a": source_a[chosen]["images"], "b": source_b[chosen]["images"]}

    return Batches(batch_size, read, (source_a, source_b)), len(source_a) // batch_size


def _images(source: Source, chosen: np.ndarray, rows: np.ndarray) -> Images:
    """Some images of a batch; a broken one, of weight 0, gives its place to the next readable one."""
    images, is_readable = _read(source, chosen[rows])
    if is_readable.all():
        return images
    images = np.array(images)
    for place in np.flatnonzero(~is_readable):
        for step in range(1, len(chosen)):
            following, (is_found,) = _read(source, chosen[[(rows[place] + step) % len(chosen)]])
            if is_found:
                images[place] = following[0]
                break
        else:
            raise ValueError("none of the files of a whole batch is a readable image; see the log")
    return images


def _read(source: Source, indices: np.ndarray) -> tuple[Images, np.ndarray]:
    batch = source[indices]
    return batch["images"], np.asarray(batch.get("weights", np.ones(len(indices)))) > 0


def _check_domains(source_a: Source, source_b: Source, batch_size: int) -> None:
    check_positive(batch_size=batch_size)
    for name, source in (("A", source_a), ("B", source_b)):
        if len(source) < batch_size:
            raise ValueError(
                f"batch_size is {batch_size}: domain {name} has only {len(source)} images; "
                "add images or take a smaller batch"
            )
    a, b = (np.shape(source[np.zeros(1, np.int64)]["images"])[1:] for source in (source_a, source_b))
    if a[:2] != b[:2]:
        raise ValueError(
            f"domain A has images of size {a[:2]} and domain B of {b[:2]}: expected one size; read both with "
            "the same size="
        )
    if a[2] != b[2]:
        raise ValueError(
            f"domain A has images of {a[2]} channels and domain B of {b[2]}: expected the same number; "
            "repeat a gray channel or take the mean of colors"
        )
