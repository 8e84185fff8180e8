"""How well the outline of a translated object agrees with the true one.

A mask becomes a region where it is at least one half. An empty region shows no shape and agrees with nothing,
not even with another empty one: overlap scores are 0 and distances the diagonal of the image.
"""

import jax
import jax.numpy as jnp

from vexplain.typing import Array, Float, Masks


def mask_iou(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns the intersection over union of two regions, in [0, 1].

    Args:
        masks: (batch, height, width) in [0, 1].
        truth: the same of the true object.

    Example:
        >>> print(mask_iou(jnp.array([[[1.0, 1.0, 0.0]]]), jnp.array([[[0.0, 1.0, 1.0]]])).round(3))
        [0.333]
    """
    ours, true = masks >= 0.5, truth >= 0.5
    union = (ours | true).sum((1, 2))
    return (ours & true).sum((1, 2)) / jnp.maximum(union, 1)


def iou_gain(iou: Float[Array, " batch"], iou_of_copy: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """Returns the share of the missing overlap that was gained: 0 for a copy of the input, 1 for the truth.

    gain = (IoU - IoU₀) / (1 - IoU₀) (*ours*); negative where the output is worse than a copy, and 0 where the
    copy is already perfect, since nothing is left to gain.

    Args:
        iou: of the output's region with the true one, in [0, 1].
        iou_of_copy: IoU₀, of the input's region with the true one.

    Example:
        >>> print(iou_gain(jnp.array([0.5, 0.75, 1.0]), jnp.array([0.5, 0.5, 1.0])))
        [0.  0.5 0. ]
    """
    missing = 1 - iou_of_copy
    return jnp.where(missing > 0, (iou - iou_of_copy) / jnp.where(missing > 0, missing, 1), 0.0)


def boundary_f1(masks: Masks, truth: Masks, *, tolerance: float = 1.0) -> Float[Array, " batch"]:
    """Returns the harmonic mean of boundary precision and recall, in [0, 1].

    Precision is the share of the boundary that lies within `tolerance` of the true boundary, recall the same
    with the roles exchanged. The boundary of a region is its pixels that have one of their four neighbors
    outside; what is beyond the image is outside.

    Args:
        masks: (batch, height, width) in [0, 1].
        truth: the same of the true object.
        tolerance: in pixels.

    References:
        Csurka, Larlus, Perronnin, What is a good evaluation measure for semantic segmentation?, 2013.
    """
    ours, true, to_true, to_ours = _boundary_distances(masks, truth)
    precision = _mean_over(ours, (to_true <= tolerance).astype(jnp.float32))
    recall = _mean_over(true, (to_ours <= tolerance).astype(jnp.float32))
    both = precision + recall
    return jnp.where(both > 0, 2 * precision * recall / jnp.where(both > 0, both, 1), 0.0)


def chamfer_distance(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns the mean distance in pixels from one boundary to the nearest point of the other, both ways.

    (mean over p in ∂M of min over q in ∂T of ||p - q|| + the same with the roles exchanged) / 2; boundaries
    as in `boundary_f1`.

    Args:
        masks: (batch, height, width) in [0, 1].
        truth: the same of the true object.

    Example:
        >>> masks = jnp.zeros((1, 5, 7)).at[0, 2, 1].set(1.0)
        >>> print(chamfer_distance(masks, jnp.roll(masks, 3, axis=2)))
        [3.]
    """
    ours, true, to_true, to_ours = _boundary_distances(masks, truth)
    there, back = _mean_over(ours, to_true), _mean_over(true, to_ours)
    either_is_empty = ~(ours.any((1, 2)) & true.any((1, 2)))
    diagonal = jnp.hypot(*masks.shape[1:])
    return jnp.where(either_is_empty, diagonal, (there + back) / 2)


@jax.jit
def _boundary_distances(masks: Array, truth: Array) -> tuple[Array, Array, Array, Array]:
    """Returns both boundaries, and every pixel's distance to the true one and to ours."""
    ours, true = _boundary(masks >= 0.5), _boundary(truth >= 0.5)
    both = jnp.stack([ours, true], axis=1)  # one loop for two, beside the batch axis, which may be sharded
    distances = jnp.sqrt(jax.vmap(_squared_distances, in_axes=1, out_axes=1)(both))
    return ours, true, distances[:, 1], distances[:, 0]


def _boundary(region: Array) -> Array:
    outside = jnp.pad(~region, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    neighbors = outside[:, :-2, 1:-1] | outside[:, 2:, 1:-1] | outside[:, 1:-1, :-2] | outside[:, 1:-1, 2:]
    return region & neighbors


def _squared_distances(points: Array) -> Float[Array, "batch height width"]:
    """Returns each pixel's squared distance to the nearest of the points: first by column, then across."""
    _, height, width = points.shape
    far, rows, columns = height + width, jnp.arange(height)[:, None], jnp.arange(width)
    above = jax.lax.cummax(jnp.where(points, rows, -far), axis=1)
    below = jax.lax.cummin(jnp.where(points, rows, height + far), axis=1, reverse=True)
    along = jnp.minimum(rows - above, below - rows).astype(jnp.float32) ** 2

    def across(column, nearest):  # a loop, so that memory stays that of one map
        return jnp.minimum(nearest, along[:, :, column, None] + (columns - column) ** 2)

    return jax.lax.fori_loop(0, width, across, jnp.full(points.shape, jnp.inf))


def _mean_over(points: Array, values: Array) -> Float[Array, " batch"]:
    return (points * values).sum((1, 2)) / jnp.maximum(points.sum((1, 2)), 1)
