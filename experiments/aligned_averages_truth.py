"""Where a part of the flower truly is in each crop, and how far an alignment is from it.

The truth is a *frame* of a part in the crop: its center, the angle and the size at which it is seen. An
alignment is right if it brings the frames of all crops to one place, angle and size of the average.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.datasets.an8flower import RenderedSource
from vexplain.datasets.an8flower.renderer import draw_view, render_factors
from vexplain.datasets.an8flower.scene import (
    DISC,
    LEAVES,
    NUM_LEAVES,
    NUM_PETALS,
    PETALS,
    product,
    solids,
)
from vexplain.relevance import Alignment

FOLDS = {"flower": 1, "head": NUM_PETALS, "leaf": 1}  # turns that leave a part as it is
_HALF_HEIGHT = 1.5  # of the image, in units of the scene
_DISC = NUM_LEAVES + NUM_PETALS  # its place among the ellipsoids


class Frames(NamedTuple):
    """Of one part in n images, or crops: centers are (n, 2) rows and columns in pixels."""

    centers: np.ndarray
    angles: np.ndarray  # (n,) radians, counterclockwise
    sizes: np.ndarray  # (n,)


def frames_of(source: RenderedSource, indices: np.ndarray) -> tuple[dict[str, Frames], np.ndarray]:
    """Returns the frames of the flower, of its head (disc and petals) and of each leaf, `leaf 0` and so on.

    The angle of the head is that of its ring of petals, the angle of a leaf that of its long axis. Besides
    the share of each pixel that head and leaves cover, (n, size, size, 2).
    """
    keys, labels = source.keys(indices), jnp.asarray(indices % len(source.class_names))
    found, coverage = _frames(keys, labels, source.variant, source.size)
    return {name: Frames(*map(np.asarray, frame)) for name, frame in found.items()}, np.asarray(coverage)


@jax.jit(static_argnames=("variant", "size"))
def _frames(keys, labels, variant, size):
    def one(example):
        factors = draw_view(*example, variant=variant)
        ellipsoids, _ = solids(factors)

        def frame(center, angle, length):
            right, up = factors.scale * center[:2] + 2 * _HALF_HEIGHT * factors.shift
            row, column = (_HALF_HEIGHT - up) / 3 * size - 0.5, (_HALF_HEIGHT + right) / 3 * size - 0.5
            return jnp.stack([row, column]), angle, factors.scale * length

        axes = jax.vmap(lambda shape: shape / jnp.linalg.norm(shape, axis=1, keepdims=True))(
            ellipsoids.shapes
        )
        across, along = axes[_DISC, 0, :2], axes[_DISC, 1, :2]  # the plane of the disc in that of the image
        turned = jnp.arctan2(across[1] - along[0], across[0] + along[1])
        area = jnp.sqrt(jnp.abs(across[0] * along[1] - across[1] * along[0]))
        found = {
            "flower": frame(jnp.zeros(3), factors.roll, 1.0),
            "head": frame(ellipsoids.centers[_DISC], turned + factors.phase, area),
        }
        for n in range(NUM_LEAVES):
            long = axes[n, 0, :2]
            angle, length = jnp.arctan2(long[1], long[0]), jnp.sqrt(product(long, long))
            found[f"leaf {n}"] = frame(ellipsoids.centers[n], angle, length)
        options = {"variant": variant, "size": size, "samples": 1, "difficulty": "plain"}
        parts = render_factors(factors, example[1], **options).parts
        return found, jnp.stack([parts[..., PETALS] + parts[..., DISC], parts[..., LEAVES]], -1)

    return jax.lax.map(one, (keys, labels))


def in_crops(
    frames: dict[str, Frames], coverage: np.ndarray, corners: np.ndarray, *, is_whole: bool
) -> tuple[str, Frames]:
    """Returns the part that crops show, and its frames in them, counted from the center of the window.

    Of a layer that sees the whole image it is the flower; else the head or a leaf, whichever covers more of
    the crops, and of the leaves the one whose center is nearest.

    Args:
        frames: in the images.
        coverage: crops of the coverage by head and leaves, (n, height, width, 2).
        corners: (n, 2) first row and column of each crop.
        is_whole: the crops are whole images.
    """
    middle = corners + (np.array(coverage.shape[1:3]) - 1) / 2
    moved = {name: f._replace(centers=f.centers - middle) for name, f in frames.items()}
    if is_whole:
        return "flower", moved["flower"]
    leaves = [moved[f"leaf {n}"] for n in range(NUM_LEAVES)]
    far = np.stack([np.linalg.norm(leaf.centers, axis=1) for leaf in leaves])
    nearest = far.argmin(0), np.arange(len(corners))
    if np.nanmean(coverage[..., 0]) >= np.nanmean(coverage[..., 1]):
        return "head", moved["head"]
    return "leaf", Frames(*(np.stack(values)[nearest] for values in zip(*leaves, strict=True)))


def errors_of(alignment: Alignment, frames: Frames, fold: int) -> dict[str, float]:
    """Returns the median distance of the aligned frames from the middle of their mode.

    "px" of the centers, in pixels of the average; "degrees" of the angles, of which those that `fold` turns
    leave alike are the same; "percent" of the sizes.
    """
    cosine, sine = np.cos(alignment.angles), np.sin(alignment.angles)
    row, column = (frames.centers - alignment.shifts).T / alignment.scales
    flips = np.where(alignment.is_mirrored, -1, 1)
    centers = np.stack([cosine * row + sine * column, flips * (cosine * column - sine * row)], 1)
    turns = np.exp(1j * fold * flips * (frames.angles - alignment.angles))
    sizes = np.log(frames.sizes / alignment.scales)
    found = {"px": [], "degrees": [], "percent": []}
    for mode in range(len(alignment.shares)):
        here = alignment.modes == mode
        found["px"] += np.linalg.norm(centers[here] - np.median(centers[here], 0), axis=1).tolist()
        middle = turns[here].mean()
        found["degrees"] += np.degrees(np.abs(np.angle(turns[here] / middle)) / fold).tolist()
        found["percent"] += (100 * np.abs(sizes[here] - np.median(sizes[here]))).tolist()
    return {name: float(np.median(values)) for name, values in found.items()}


def true_alignment(frames: Frames, fold: int) -> Alignment:
    """Returns the alignment that the true frames would give, the smallest turns of those that are alike."""
    count = len(frames.angles)
    turns = np.exp(1j * fold * frames.angles)
    angles = np.angle(turns / turns.mean()) / fold
    scales = frames.sizes / np.exp(np.log(frames.sizes).mean())
    middle = np.median(frames.centers, 0)
    cosine, sine = np.cos(angles), np.sin(angles)
    moved = np.stack([cosine * middle[0] - sine * middle[1], sine * middle[0] + cosine * middle[1]], 1)
    shifts = frames.centers - scales[:, None] * moved
    return Alignment(angles, scales, shifts, np.zeros(count, bool), np.zeros(count, int))
