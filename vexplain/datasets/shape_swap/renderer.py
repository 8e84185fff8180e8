"""Shape swap as a pure function: `render(key, domain) -> image, mask, factors`.

A pixel is the average over several points. A point p of the image is the point u = Rot(-theta)(p - c) / s of
the object; there, shape decides whether it is background and texture which of two colors it has. The texture
is of the object's frame: where the shapes of both domains overlap, they look the same. The border of the
image cuts the tips of the largest objects that lie far out.

| level | domain A | domain B |
| --- | --- | --- |
| 1 | disc | square |
| 2 | ellipse of some aspect | rectangle of the same aspect |
| 3 | regular polygon, 3 to 6 corners | star, 4 to 8 spikes |
| 4 | T-shirt | trousers |

In canonical units each shape has area pi and its center at the origin, y down: size cannot tell the domain.
The pairs of level 1 and 2 overlap so well that a copy of the input looks good; level 4 is the test.

In all functions:
    domain: 0 for A, 1 for B.
    level: which shapes, 1 to 4.
    size: height and width in pixels; objects grow with it.
    samples: points a pixel along each axis.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets.appearance import has_second_color, two_colors
from vexplain.datasets.outlines import in_frame, in_polygon, of_area_pi, pixel_points
from vexplain.datasets.shape_swap.factors import NUM_CORNERS, NUM_SPIKES, Factors, draw_factors
from vexplain.typing import Array, Float, Int, Key, Shaped

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


def render(
    key: Key,
    domain: Int[Array, ""] | int,
    *,
    level: int = 4,
    variant: str = "U",
    size: int = 64,
    samples: int = 3,
) -> tuple[Float[Array, "height width 3"], Float[Array, "height width"], Factors]:
    """Returns a random image of a domain, its mask, and the factors that made it.

    The same key and arguments give the same bytes. The same key gives the same factors in both domains:
    their images are partners; for unpaired sets use different keys.

    Args:
        variant: `"U"`, all hues equally likely; `"N"`, skewed; or `"F"`, as U with textures twice as fine.

    Returns:
        image (size, size, 3) in [0, 1]; mask (size, size), coverage by the object in [0, 1]; `Factors`.

    Raises:
        ValueError: an unknown level or variant.

    Example:
        >>> shirt, _, _ = render(jax.random.key(0), 0, size=32)
        >>> trousers, mask, _ = render(jax.random.key(0), 1, size=32)
        >>> trousers.shape, bool(jnp.abs(shirt - trousers).max() > 0.3)
        ((32, 32, 3), True)
    """
    factors = draw_factors(key, level=level, variant=variant)
    image, mask = render_factors(factors, domain, level=level, size=size, samples=samples)
    return image, mask, factors


@functools.partial(jax.jit, static_argnames=("level", "size", "samples"))
def render_factors(
    factors: Factors, domain: Int[Array, ""] | int, *, level: int = 4, size: int = 64, samples: int = 3
) -> tuple[Float[Array, "height width 3"], Float[Array, "height width"]]:
    """Returns image and mask of an object with given factors, in one domain or the other.

    Args:
        factors: of one object; the factors of an image of the other domain give its true partner.
    """
    mask, second = coverage(factors, domain, level=level, size=size, samples=samples)
    colors, second_colors = two_colors(factors)
    channels = [
        factors.shade * (1 - mask) + color * (mask - second) + other * second
        for color, other in zip(colors, second_colors, strict=True)
    ]
    return jnp.clip(jnp.stack(channels, axis=-1), 0, 1), mask


def coverage(
    factors: Factors, domain: Int[Array, ""] | int, *, level: int, size: int, samples: int
) -> tuple[Float[Array, "height width"], Float[Array, "height width"]]:
    """Returns how much of each pixel an object covers, and how much its second color does."""
    place = (factors.center_x, factors.center_y, factors.scale, factors.rotation)
    x, y = in_frame(*pixel_points(size, samples), *place)
    is_object = is_inside(x, y, factors, domain, level=level)
    pattern = (factors.texture, factors.frequency, factors.angle, factors.phase)
    is_second = is_object & has_second_color(x, y, *pattern)
    return is_object.astype(jnp.float32).mean(0), is_second.astype(jnp.float32).mean(0)


def shape_names(level: int) -> tuple[str, str]:
    """Returns the names of the shapes of domains A and B; an unknown level raises ValueError."""
    check_choice("level", level, LEVELS)
    return LEVELS[level]


def is_inside(
    x: _Points, y: _Points, factors: Factors, domain: Int[Array, ""] | int, *, level: int
) -> Shaped[Array, "..."]:
    """Returns where canonical points lie inside the shape of a domain."""
    shape_names(level)  # an unknown level raises
    if level == 3:
        return in_polygon(x, y, _polygon_or_star(factors, domain))
    if level == 4:
        return in_polygon(x, y, jnp.asarray(_GARMENTS)[domain])
    root = jnp.sqrt(factors.aspect)
    x, y = x * root, y / root
    square_side = np.sqrt(np.pi) / 2
    return jnp.where(domain == 0, x**2 + y**2 < 1, jnp.maximum(jnp.abs(x), jnp.abs(y)) < square_side)


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


_EDGES_OF_NO_LENGTH = ((0, len(_T_SHIRT) - len(_TROUSERS)), (0, 0))
_GARMENTS = np.stack(
    [of_area_pi(_T_SHIRT), np.pad(of_area_pi(_TROUSERS), _EDGES_OF_NO_LENGTH, mode="edge")]
).astype(np.float32)
