"""Shape and pose of a translated object, from its mask and that of the true object.

For overlap and outline a mask becomes a region where it is at least one half. Pose is that of the moments of
the mask: centroid, square root of the area, and angle of the axis along which it extends furthest. An empty
mask agrees with nothing, not even with another empty one: overlaps are 0, distances the image's diagonal.

In all functions:
    masks: (batch, height, width) in [0, 1], the coverage by the object.
    truth: the same of the true object.
"""

import functools

import jax
import jax.numpy as jnp

from vexplain.typing import Array, Float, Masks

LEAST_ANISOTROPY = 0.02  # below it the axis of a mask is a matter of its pixel grid


@jax.jit
def mask_iou(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns the intersection over union of two regions, in [0, 1]."""
    ours, true = masks >= 0.5, truth >= 0.5
    union = (ours | true).sum((1, 2))
    return (ours & true).sum((1, 2)) / jnp.maximum(union, 1)


@jax.jit
def iou_gain(iou: Float[Array, " batch"], iou_of_copy: Float[Array, " batch"]) -> Float[Array, " batch"]:
    """Returns the share of the missing overlap that was gained: 0 for a copy of the input, 1 for the truth.

    gain = (IoU - IoU₀) / (1 - IoU₀) (*ours*); negative where the output is worse than a copy, and 0 where the
    copy is already perfect.

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

    Precision is the share of the boundary that lies within `tolerance` of the true one, recall the same with
    the roles exchanged. The boundary of a region is its pixels with one of their four neighbors outside; what
    is beyond the image is outside.

    Args:
        tolerance: in pixels.

    References:
        Csurka, Larlus, Perronnin, What is a good evaluation measure for semantic segmentation?, 2013.
    """
    ours, true, to_true, to_ours = _boundary_distances(masks, truth)
    precision = _mean_over(ours, (to_true <= tolerance).astype(jnp.float32))
    recall = _mean_over(true, (to_ours <= tolerance).astype(jnp.float32))
    both = precision + recall
    return jnp.where(both > 0, 2 * precision * recall / jnp.where(both > 0, both, 1), 0.0)


@jax.jit
def chamfer_distance(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns the mean distance in pixels from one boundary to the nearest point of the other, both ways.

    (mean over p in ∂M of min over q in ∂T of ||p - q|| + the same with the roles exchanged) / 2.
    """
    ours, true, to_true, to_ours = _boundary_distances(masks, truth)
    there, back = _mean_over(ours, to_true), _mean_over(true, to_ours)
    either_is_empty = ~(ours.any((1, 2)) & true.any((1, 2)))
    diagonal = jnp.hypot(*masks.shape[1:])
    return jnp.where(either_is_empty, diagonal, (there + back) / 2)


@jax.jit
def centroid_error(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns the distance in pixels between the centroids of two masks."""
    (rows, columns), (true_rows, true_columns) = _centroid(masks), _centroid(truth)
    distance = jnp.hypot(rows - true_rows, columns - true_columns)
    both_exist = (_area(masks) > 0) & (_area(truth) > 0)
    return jnp.where(both_exist, distance, jnp.hypot(*masks.shape[1:]))


@jax.jit
def scale_ratio(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns how many times larger, in length, the object is than the true one: sqrt(area / true area).

    1 is right, and 0 an empty mask. An empty truth counts as one pixel.
    """
    return jnp.sqrt(_area(masks) / jnp.maximum(_area(truth), 1))


@jax.jit
def rotation_error(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns the angle in degrees between the main axes of two masks, in [0, 90].

    The main axis has the angle atan2(2 m_xy, m_xx - m_yy) / 2, with m the central second moments. Where a
    mask has none (a disc, a square, nothing) the error is 45, the mean of chance; 0 where the truth has none.
    """
    (angle, is_defined), (true_angle, truth_is_defined) = _main_axis(masks), _main_axis(truth)
    turn = jnp.abs(jnp.rad2deg(angle - true_angle))
    error = jnp.where(is_defined, jnp.minimum(turn, 180 - turn), 45.0)
    return jnp.where(truth_is_defined, error, 0.0)


@jax.jit
def _boundary_distances(masks: Array, truth: Array) -> tuple[Array, Array, Array, Array]:
    """Returns both boundaries, and the distance of every pixel to the true one and to ours."""
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


def _area(masks: Masks) -> Float[Array, " batch"]:
    return jnp.asarray(masks).sum((1, 2))


def _centroid(masks: Masks) -> tuple[Array, Array]:
    rows, columns = jnp.arange(masks.shape[1]), jnp.arange(masks.shape[2])
    area = jnp.maximum(_area(masks), 1e-6)
    along = functools.partial(jnp.matmul, precision="highest")  # accelerators round factors otherwise
    return along(masks.sum(2), rows) / area, along(masks.sum(1), columns) / area


def _main_axis(masks: Masks) -> tuple[Float[Array, " batch"], Array]:
    row, column = _centroid(masks)
    y = jnp.arange(masks.shape[1])[None, :, None] - row[:, None, None]
    x = jnp.arange(masks.shape[2])[None, None, :] - column[:, None, None]
    m_xx, m_yy, m_xy = ((masks * product).sum((1, 2)) for product in (x * x, y * y, x * y))
    anisotropy = jnp.hypot(m_xx - m_yy, 2 * m_xy) / jnp.maximum(m_xx + m_yy, 1e-6)
    return jnp.arctan2(2 * m_xy, m_xx - m_yy) / 2, anisotropy > LEAST_ANISOTROPY
