"""What is kept or covered as one: an image parted into features, such as patches, superpixels or channels."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vexplain._checks import check_positive
from vexplain.typing import AnyArray, Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Partition:
    """Which feature each value of an image belongs to.

    Attributes:
        labels: integers from 0 to `count` - 1: (height, width), or (batch, height, width) where each image
            has features of its own, or of four axes that broadcast to the images: channels can differ.
        count: how many features there are; it is known before a program is compiled.
    """

    labels: Any
    count: int = dataclasses.field(metadata={"static": True})


Features: TypeAlias = int | tuple[int, int] | str | AnyArray | Partition | Callable[[Any], Partition]


def superpixels(
    images: AnyArray, *, count: int = 50, compactness: float = 0.1, num_steps: int = 10
) -> Partition:
    """Returns about `count` superpixels an image: regions of similar color, by SLIC.

    k-means of the pixels p with color I(p), from centers c on a regular grid with spacing s:

        d² = |I(p) - I(c)|² + compactness² |(p - c) / s|²

    A pixel chooses among the center of its cell of the grid and those of the eight cells around it. Colors
    are compared as they are, where the paper has CIELAB, and regions in several pieces stay so.

    Args:
        images: (batch, height, width, channels), in [0, 1].
        count: wanted; rows times columns of the grid that comes closest to square cells.
        compactness: weight of distance against color; of large values the regions are the cells of the grid.
        num_steps: of k-means.

    Raises:
        ValueError: `count` or `num_steps` is less than 1, or `compactness` is not positive.

    References:
        Achanta et al., SLIC Superpixels Compared to State-of-the-Art Superpixel Methods, TPAMI 2012.

    Example:
        >>> images = jnp.array([0.0, 0.0, 0.0, 1.0, 1.0]).reshape(1, 1, 5, 1)
        >>> print(superpixels(images, count=2).labels.ravel())
        [0 0 0 1 1]
    """
    check_positive(count=count, num_steps=num_steps)
    if compactness <= 0:
        raise ValueError(f"compactness is {compactness}: expected a positive number")
    height, width = images.shape[1:3]
    rows = min(max(round(math.sqrt(count * height / width)), 1), height)
    columns = min(max(round(count / rows), 1), width)
    cells = grid_labels(height, width, rows, columns)
    down, across = np.indices((height, width))
    places = compactness * np.stack([down * rows / height, across * columns / width], -1)

    def of_image(image):
        points = jnp.concatenate([image, jnp.asarray(places, image.dtype)], -1)

        def step(_, state):
            centers = _means(points, state[0], state[1], rows * columns)
            return _nearest(points, centers, cells, rows, columns), centers

        start = (jnp.asarray(cells), jnp.zeros((rows * columns, points.shape[-1]), image.dtype))
        return jax.lax.fori_loop(0, num_steps, step, start)[0]

    return Partition(jax.vmap(of_image)(jax.lax.stop_gradient(jnp.asarray(images))), rows * columns)


def grid_labels(height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Returns the number of the patch of each pixel, (height, width), row by row in a grid of patches.

    Example:
        >>> print(grid_labels(2, 5, 1, 2))
        [[0 0 0 1 1]
         [0 0 0 1 1]]
    """
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    return (row[:, None] * columns + column).astype(np.int32)


def known_features(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options of a method, with labels of `features` counted while their values are known.

    Args:
        options: as a caller gave them.

    Raises:
        ValueError: the labels are no integers, are not below the count that was given, or are traced.
    """
    features: Any = options.get("features")
    features = np.asarray(features) if isinstance(features, list) else features
    if isinstance(features, Partition) and not isinstance(features.labels, Tracer):
        _check_labels(np.asarray(features.labels), features.count)
    if isinstance(features, Partition) or not hasattr(features, "dtype"):
        return options
    if isinstance(features, Tracer):
        raise ValueError(
            f"features is a traced array of shape {features.shape}, so that they cannot be counted: pass "
            "vexplain.attribution.Partition(labels, count)"
        )
    if not jnp.issubdtype(features.dtype, jnp.integer):
        raise ValueError(f"features has dtype {features.dtype}: expected integers, a label for each pixel")
    values, labels = np.unique(np.asarray(features), return_inverse=True)
    return options | {"features": Partition(labels.reshape(features.shape).astype(np.int32), len(values))}


def partition_of(features: Features, images: Array) -> Partition:
    """Returns the partition of images that `features` says, its labels of four axes.

    Args:
        features: as the methods take it.
        images: (batch, height, width, channels).

    Raises:
        ValueError: there is no such partition of these images.
    """
    height, width = images.shape[1:3]
    if callable(features) and not isinstance(features := features(images), Partition):
        raise ValueError(
            f"features returned a {type(features).__name__}: expected a vexplain.attribution.Partition"
        )
    if isinstance(features, str):
        partition = _named(features, images)
    elif isinstance(features, Partition):
        partition = features
    else:
        rows, columns = (features, features) if isinstance(features, int) else features
        if not (1 <= rows <= height and 1 <= columns <= width):
            raise ValueError(
                f"features is {features}: expected rows and columns of patches, at least 1 and at most the "
                f"size of the images, {(height, width)}"
            )
        partition = Partition(grid_labels(height, width, rows, columns), rows * columns)
    labels = jnp.asarray(partition.labels)
    if labels.ndim in (2, 3):
        labels = labels.reshape(-1, *labels.shape[-2:], 1)
    if labels.ndim != 4 or any(n not in (1, m) for n, m in zip(labels.shape, images.shape, strict=True)):
        raise ValueError(
            f"features has shape {jnp.shape(partition.labels)}: expected labels (height, width), (batch, "
            f"height, width) or what broadcasts to the images, {images.shape}"
        )
    return Partition(labels, partition.count)


def _check_labels(labels: np.ndarray, count: int) -> None:
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"features has labels of dtype {labels.dtype}: expected integers")
    if not 0 <= labels.min() <= labels.max() < count:
        raise ValueError(
            f"features has labels from {labels.min()} to {labels.max()}: expected from 0 to {count - 1}, as "
            f"its count is {count}"
        )


def _named(name: str, images: Array) -> Partition:
    _, height, width, channels = images.shape
    if name == "superpixel":
        return superpixels(images)
    if name == "pixel":
        return Partition(grid_labels(height, width, height, width), height * width)
    if name == "channel":
        return Partition(np.arange(channels, dtype=np.int32).reshape(1, 1, 1, -1), channels)
    raise ValueError(
        f'features is {name!r}: expected "pixel", "superpixel", "channel", (rows, columns) of patches, or '
        "labels of the pixels"
    )


def _means(points: Array, labels: Array, centers: Array, count: int) -> Array:
    """The mean point of each label; of a label without points what it was."""
    ones = jnp.ones((*labels.shape, 1), points.dtype)
    values = jnp.concatenate([points, ones], -1).reshape(-1, points.shape[-1] + 1)
    sums = jax.ops.segment_sum(values, labels.ravel(), count)
    return jnp.where(sums[:, -1:] > 0, sums[:, :-1] / jnp.maximum(sums[:, -1:], 1), centers)


def _nearest(points: Array, centers: Array, cells: np.ndarray, rows: int, columns: int) -> Array:
    """The label of the nearest center around the cell of each point."""
    row, column = jnp.divmod(jnp.asarray(cells), columns)

    def compare(n, best):
        labels, distances = best
        down, across = row + n // 3 - 1, column + n % 3 - 1
        is_there = (down >= 0) & (down < rows) & (across >= 0) & (across < columns)
        other = jnp.where(is_there, down * columns + across, 0)
        distance = jnp.where(is_there, ((points - centers[other]) ** 2).sum(-1), jnp.inf)
        is_nearer = distance < distances
        return jnp.where(is_nearer, other, labels), jnp.where(is_nearer, distance, distances)

    start = (jnp.zeros(cells.shape, jnp.int32), jnp.full(cells.shape, jnp.inf, points.dtype))
    return jax.lax.fori_loop(0, 9, compare, start)[0]
