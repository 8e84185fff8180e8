"""Points of pixels in the frames of objects, and the flat shapes that they lie in: what renderers share.

A pixel is the average over several points. Coordinates are in image heights, x to the right and y down, with
the origin in the middle of the image, or in canonical units in the frame of an object.
"""

import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Shaped

_Points = Float[Array, "..."]
_Number = Float[Array, "..."] | float


def pixel_points(size: int, samples: int) -> tuple[_Points, _Points]:
    """Returns x and y of the points of all pixels, (samples², size, size): an image a place in the pixel."""
    offsets = (jnp.arange(samples) + 0.5) / samples
    line = (jnp.arange(size) + offsets[:, None]) / size - 0.5  # (samples, size), image heights
    column, row = jnp.broadcast_arrays(line[None, :, None, :], line[:, None, :, None])
    return column.reshape(samples**2, size, size), row.reshape(samples**2, size, size)


def in_frame(
    x: _Points, y: _Points, center_x: _Number, center_y: _Number, scale: _Number, rotation: _Number
) -> tuple[_Points, _Points]:
    """Returns points of the image in the frame of an object, Rot(-rotation)(p - center) / scale."""
    column, row = x - center_x, y - center_y
    c, s = jnp.cos(rotation) / scale, jnp.sin(rotation) / scale
    return c * column + s * row, c * row - s * column


def in_polygon(x: _Points, y: _Points, vertices: Float[Array, "vertices 2"]) -> Shaped[Array, "..."]:
    """Returns whether a ray to the right crosses the outline an odd number of times."""
    ends = vertices.reshape(-1, 2, *[1] * jnp.ndim(x))
    (x0, y0), (x1, y1) = jnp.roll(ends, 1, axis=0).swapaxes(0, 1), ends.swapaxes(0, 1)
    slope = (x1 - x0) / jnp.where(y1 == y0, 1, y1 - y0)  # an edge along the ray is never crossed
    is_crossed = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * slope)
    return is_crossed.sum(0) % 2 == 1


def in_capsule(
    x: _Points, y: _Points, start: tuple[_Number, _Number], end: tuple[_Number, _Number], radius: _Number
) -> Shaped[Array, "..."]:
    """Returns whether points are within a radius of the line from start to end."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = ((x - start[0]) * dx + (y - start[1]) * dy) / (dx**2 + dy**2)
    along = jnp.clip(along, 0, 1)
    return (x - start[0] - along * dx) ** 2 + (y - start[1] - along * dy) ** 2 < radius**2


def of_area_pi(vertices: np.ndarray) -> np.ndarray:
    """Returns a polygon with the mean of its vertices at the origin, scaled to area pi (shoelace formula)."""
    points = vertices - vertices.mean(0)
    x, y = points.T
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return points * np.sqrt(np.pi / area)
