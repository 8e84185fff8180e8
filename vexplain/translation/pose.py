"""Where a translated object stands, how large and how turned it is, from the moments of its mask.

Position is the centroid, size the square root of the area, and the angle that of the axis along which the
mask extends furthest. What cannot be read gets the worst value, or, for an angle, what chance would give.
"""

import jax.numpy as jnp

from vexplain.typing import Array, Float, Masks

LEAST_ANISOTROPY = 0.02  # below it the axis of a mask is a matter of its pixel grid


def centroid_error(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns the distance in pixels between the centroids of two masks.

    It is the diagonal of the image where either mask is empty.

    Args:
        masks: (batch, height, width), weights in [0, 1].
        truth: the same of the true object.

    Example:
        >>> masks = jnp.zeros((1, 9, 9)).at[0, 2:4, 1:4].set(1.0)
        >>> print(centroid_error(masks, jnp.roll(masks, (3, 4), axis=(1, 2))).round(3))
        [5.]
    """
    (rows, columns), (true_rows, true_columns) = _centroid(masks), _centroid(truth)
    distance = jnp.hypot(rows - true_rows, columns - true_columns)
    readable = (_area(masks) > 0) & (_area(truth) > 0)
    return jnp.where(readable, distance, jnp.hypot(*masks.shape[1:]))


def scale_ratio(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns how many times larger, in length, the object is than the true one: sqrt(area / true area).

    1 is right, 0 says that the mask is empty. An empty truth counts as one pixel.

    Args:
        masks: (batch, height, width), weights in [0, 1].
        truth: the same of the true object.
    """
    return jnp.sqrt(_area(masks) / jnp.maximum(_area(truth), 1))


def rotation_error(masks: Masks, truth: Masks) -> Float[Array, " batch"]:
    """Returns the angle in degrees between the main axes of two masks, in [0, 90].

    The main axis has the angle atan2(2 m_xy, m_xx - m_yy) / 2, with m the central second moments. A mask
    without one (a disc, a square, nothing) leaves the question open: the error is then 45, the mean of
    chance, or 0 where the truth itself has none.

    Args:
        masks: (batch, height, width), weights in [0, 1].
        truth: the same of the true object.

    Example:
        >>> bar = jnp.zeros((1, 9, 9)).at[0, 4, 1:8].set(1.0)
        >>> print(rotation_error(bar, bar.transpose(0, 2, 1)))
        [90.]
    """
    (angle, is_readable), (true_angle, truth_is_readable) = _main_axis(masks), _main_axis(truth)
    turn = jnp.abs(jnp.rad2deg(angle - true_angle))
    error = jnp.where(is_readable, jnp.minimum(turn, 180 - turn), 45.0)
    return jnp.where(truth_is_readable, error, 0.0)


def _area(masks: Masks) -> Float[Array, " batch"]:
    return jnp.asarray(masks).sum((1, 2))


def _centroid(masks: Masks) -> tuple[Array, Array]:
    rows, columns = jnp.arange(masks.shape[1]), jnp.arange(masks.shape[2])
    area = jnp.maximum(_area(masks), 1e-6)
    return masks.sum(2) @ rows / area, masks.sum(1) @ columns / area


def _main_axis(masks: Masks) -> tuple[Float[Array, " batch"], Array]:
    row, column = _centroid(masks)
    y = jnp.arange(masks.shape[1])[None, :, None] - row[:, None, None]
    x = jnp.arange(masks.shape[2])[None, None, :] - column[:, None, None]
    m_xx, m_yy, m_xy = ((masks * product).sum((1, 2)) for product in (x * x, y * y, x * y))
    anisotropy = jnp.hypot(m_xx - m_yy, 2 * m_xy) / jnp.maximum(m_xx + m_yy, 1e-6)
    return jnp.arctan2(2 * m_xy, m_xx - m_yy) / 2, anisotropy > LEAST_ANISOTROPY
