"""Cue objects as a pure function: `render(key, label) -> image, mask, factors`.

A pixel is the average over several points. A point of the image is a point of the object's frame, as in
`shape_swap`; there, the shape decides whether it is background, the texture whether it is light or dark, and
the color has one hue, light and dark.

No cue tells of another by its simplest statistics: all shapes have area pi in canonical units and their
center at the origin, all textures are dark over half of the plane, and both shades have the hue of the color.
The object is never cut by the border.

In all functions:
    size: height and width in pixels; objects grow with it.
    samples: points a pixel along each axis.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.datasets.an8flower.scenery import draw_waves
from vexplain.datasets.appearance import hsv_to_rgb
from vexplain.datasets.cue_objects.factors import COLORS, CUES, NUM_VALUES, SHAPES, Factors, draw_factors
from vexplain.datasets.outlines import in_frame, in_polygon, of_area_pi, pixel_points
from vexplain.typing import Array, Float, Int, Key, Shaped

DARK = 0.3  # value of the dark parts of a texture, against the light ones
_Points = Float[Array, "..."]


def render(
    key: Key, label: Int[Array, ""] | int, *, size: int = 48, samples: int = 3, **options: Any
) -> tuple[Float[Array, "height width 3"], Float[Array, "height width"], Factors]:
    """Returns a random image of a class, its mask, and the factors that made it.

    The same key and arguments give the same bytes.

    Args:
        label: class, 0 to 5.
        **options: agreement, background, clutter and conflict, as in `draw_factors`.

    Returns:
        image (size, size, 3) in [0, 1]; mask (size, size), coverage by the object in [0, 1]; `Factors`.

    Raises:
        ValueError: an unknown background or cue.

    Example:
        >>> image, mask, factors = render(jax.random.key(0), 2, agreement=(1 / 6, 1.0, 1 / 6), size=32)
        >>> image.shape, int(factors.texture)
        ((32, 32, 3), 2)
    """
    factors = draw_factors(key, label, **options)
    image, mask = render_factors(factors, size=size, samples=samples)
    return image, mask, factors


@functools.partial(jax.jit, static_argnames=("size", "samples"))
def render_factors(
    factors: Factors, *, size: int = 48, samples: int = 3
) -> tuple[Float[Array, "height width 3"], Float[Array, "height width"]]:
    """Returns image and mask of an object with given factors.

    Args:
        factors: of one object. With one cue replaced, as in `factors._replace(color=3)`, they give the same
            image with that cue changed, and nothing else.
    """
    behind = jnp.broadcast_to(factors.shade, (size, size, 3))
    if factors.waves is not None:
        behind = jnp.clip(behind + draw_waves(factors.waves, size), 0, 1)
    behind = jnp.broadcast_to(behind, (samples**2, size, size, 3))
    if factors.clutter is not None:
        behind, _ = jax.lax.scan(
            lambda below, small: (_painted(small, below, samples)[0], None), behind, factors.clutter
        )
    colors, is_object = _painted(factors, behind, samples)
    return colors.mean(0), is_object.astype(jnp.float32).mean(0)


def intervene(
    factors: Factors, *, step: Int[Array, ""] | int = NUM_VALUES // 2, size: int = 48, samples: int = 3
) -> Float[Array, "cues height width 3"]:
    """Returns the image with each of its cues changed, one at a time, in the order of `CUES`.

    A new shape leaves the pixels as they are that show the object, or the background, before and after; a new
    texture or color leaves the background.

    Args:
        factors: of one object.
        step: 1 to 5: value v of a cue becomes (v + step) mod 6.

    Example:
        >>> factors = draw_factors(jax.random.key(0), 0)
        >>> intervene(factors, size=16, samples=1).shape
        (3, 16, 16, 3)
    """

    def changed(cue):
        steps = {name: jnp.where(cue == n, step, 0) for n, name in enumerate(CUES)}
        new = factors._replace(**{n: (getattr(factors, n) + s) % NUM_VALUES for n, s in steps.items()})
        return render_factors(new, size=size, samples=samples)[0]

    return jax.lax.map(changed, jnp.arange(len(CUES)))


def is_inside(x: _Points, y: _Points, shape: Int[Array, ""] | int) -> Shaped[Array, "..."]:
    """Returns where canonical points lie inside a shape, one of `SHAPES` by its number."""
    return jnp.where(shape == 0, x**2 + y**2 < 1, in_polygon(x, y, jnp.asarray(_OUTLINES)[shape]))


def is_dark(x: _Points, y: _Points, factors: Factors) -> Shaped[Array, "..."]:
    """Returns where canonical points lie in the dark half of a texture.

    With u, v the coordinates in periods, turned by the angle, and f(t) = t mod 1: stripes f(u) < 1/2; checker
    f(u) < 1/2 xor f(v) < 1/2; dots of area 1/2 in a period; grid, all but squares of area 1/2; zigzag
    f(u + |2 f(v) - 1|) < 1/2; rings f(r) < 1/2, with r the distance from the center.
    """
    c, s = factors.frequency * jnp.cos(factors.angle), factors.frequency * jnp.sin(factors.angle)
    u = (c * x + s * y + factors.phase) % 1
    v = (c * y - s * x + factors.phase) % 1
    r = factors.frequency * jnp.sqrt(x**2 + y**2) + factors.phase
    half_side = np.sqrt(0.5)
    kinds = (
        u < 0.5,
        (u < 0.5) != (v < 0.5),
        (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.5 / np.pi,
        (u > half_side) | (v > half_side),
        (u + jnp.abs(2 * v - 1)) % 1 < 0.5,
        r % 1 < 0.5,
    )
    return jnp.select([factors.texture == n for n in range(len(kinds))], kinds)


def _painted(
    factors: Factors, behind: Float[Array, "points height width 3"], samples: int
) -> tuple[Float[Array, "points height width 3"], Shaped[Array, "points height width"]]:
    """An object over what is behind it, point by point, and where it is."""
    points = pixel_points(behind.shape[1], samples)
    x, y = in_frame(*points, factors.center_x, factors.center_y, factors.scale, factors.rotation)
    is_object = is_inside(x, y, factors.shape)
    hue = factors.color / len(COLORS) + factors.hue_shift
    light = jnp.stack(hsv_to_rgb(hue, factors.saturation, factors.value))
    shades = jnp.where(is_dark(x, y, factors)[..., None], DARK * light, light)
    return jnp.where(is_object[..., None], shades, behind), is_object


def _spikes(count: int, inner: float) -> np.ndarray:
    """Outer and inner vertices in turn, the first on top, radii 1 and `inner`."""
    angles = np.pi * np.arange(2 * count) / count
    radii = np.where(np.arange(2 * count) % 2 == 0, 1.0, inner)
    return np.stack([radii * np.sin(angles), -radii * np.cos(angles)], axis=1)


_CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
_CROSS = np.array([(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1)])
_ARROW = np.array(
    [(0, -1.2), (1.15, -0.05), (0.5, -0.05), (0.5, 1.0), (-0.5, 1.0), (-0.5, -0.05), (-1.15, -0.05)]
)
_POLYGONS = {
    "disc": _spikes(12, 1.0)[::2],  # in the place of a disc, which is exact
    "triangle": _spikes(3, 0.5),
    "square": _CORNERS,
    "star": _spikes(5, 0.45),
    "cross": np.concatenate([_CROSS, -_CROSS]),
    "arrow": _ARROW,
}
_NUM_VERTICES = max(map(len, _POLYGONS.values()))
_OUTLINES = np.stack(
    [
        np.pad(of_area_pi(_POLYGONS[name]), ((0, _NUM_VERTICES - len(_POLYGONS[name])), (0, 0)), mode="edge")
        for name in SHAPES
    ]
).astype(np.float32)
