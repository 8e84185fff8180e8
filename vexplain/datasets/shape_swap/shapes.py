"""The shapes of the levels, in canonical units: each has area pi and its center at the origin, y down.

| level | domain A | domain B |
| --- | --- | --- |
| 1 | disc | square |
| 2 | ellipse of some aspect | rectangle of the same aspect |
| 3 | regular polygon, 3 to 6 corners | star, 4 to 8 spikes |
| 4 | T-shirt | trousers |

One area for all: size cannot tell the domain. The pairs of level 1 and 2 overlap so well that a copy of the
input looks good; level 4 is the test.
"""

import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets.shape_swap.factors import NUM_CORNERS, NUM_SPIKES, Factors
from vexplain.typing import Array, Float, Int, Shaped

LEVELS = {
    1: ("disc", "square"),
    2: ("ellipse", "rectangle"),
    3: ("polygon", "star"),
    4: ("T-shirt", "trousers"),
}
INNER_RADIUS = 0.5  # of a star, in outer radii
_T_SHIRT = np.array(
    [
        *((-0.35, -1), (0.35, -1), (0.6, -0.95), (1.15, -0.45), (0.85, -0.15), (0.6, -0.4)),
        *((0.6, 1), (-0.6, 1), (-0.6, -0.4), (-0.85, -0.15), (-1.15, -0.45), (-0.6, -0.95)),
    ]
)
_TROUSERS = np.array(
    [(-0.6, -1.2), (0.6, -1.2), (0.75, 1.2), (0.25, 1.2), (0, -0.3), (-0.25, 1.2), (-0.75, 1.2)]
)
_Points = Float[Array, "..."]


def shape_names(level: int) -> tuple[str, str]:
    """Returns the names of the shapes of domains A and B.

    Raises:
        ValueError: an unknown level.
    """
    check_choice("level", level, LEVELS)
    return LEVELS[level]


def is_inside(
    x: _Points, y: _Points, factors: Factors, domain: Int[Array, ""] | int, *, level: int
) -> Shaped[Array, "..."]:
    """Returns where canonical points lie inside the shape of a domain."""
    shape_names(level)  # an unknown level raises
    if level == 3:
        return _in_polygon(x, y, _polygon_or_star(factors, domain))
    if level == 4:
        return _in_polygon(x, y, jnp.asarray(_GARMENTS)[domain])
    root = jnp.sqrt(factors.aspect)
    x, y = x * root, y / root
    square_side = np.sqrt(np.pi) / 2
    return jnp.where(domain == 0, x**2 + y**2 < 1, jnp.maximum(jnp.abs(x), jnp.abs(y)) < square_side)


def _in_polygon(x: _Points, y: _Points, vertices: Float[Array, "vertices 2"]) -> Shaped[Array, "..."]:
    """Whether a ray to the right crosses the outline an odd number of times."""
    ends = vertices.reshape(-1, 2, *[1] * jnp.ndim(x))
    (x0, y0), (x1, y1) = jnp.roll(ends, 1, axis=0).swapaxes(0, 1), ends.swapaxes(0, 1)
    slope = (x1 - x0) / jnp.where(y1 == y0, 1, y1 - y0)  # an edge along the ray is never crossed
    is_crossed = ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * slope)
    return is_crossed.sum(0) % 2 == 1


def _polygon_or_star(factors: Factors, domain: Int[Array, ""] | int) -> Float[Array, "vertices 2"]:
    """Alternating outer and inner vertices, the first on top; a polygon's inner ones halve its sides.

    With s spikes and radii R, r the area is s R r sin(pi / s).
    """
    is_polygon = jnp.asarray(domain) == 0
    spikes = jnp.where(is_polygon, factors.corners, factors.spikes)
    inner = jnp.where(is_polygon, jnp.cos(jnp.pi / spikes), INNER_RADIUS)
    outer = jnp.sqrt(jnp.pi / (spikes * inner * jnp.sin(jnp.pi / spikes)))
    n = jnp.minimum(jnp.arange(2 * max(NUM_CORNERS + NUM_SPIKES)), 2 * spikes - 1)  # the last is repeated
    radii = jnp.where(n % 2 == 0, outer, outer * inner)
    angles = jnp.pi * n / spikes
    return jnp.stack([radii * jnp.sin(angles), -radii * jnp.cos(angles)], axis=-1)


def _of_area_pi(vertices: np.ndarray) -> np.ndarray:
    """The polygon with the mean of its vertices at the origin, scaled to area pi (shoelace formula)."""
    points = vertices - vertices.mean(0)
    x, y = points.T
    area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    return points * np.sqrt(np.pi / area)


_EDGES_OF_NO_LENGTH = ((0, len(_T_SHIRT) - len(_TROUSERS)), (0, 0))
_GARMENTS = np.stack(
    [_of_area_pi(_T_SHIRT), np.pad(_of_area_pi(_TROUSERS), _EDGES_OF_NO_LENGTH, mode="edge")]
).astype(np.float32)
