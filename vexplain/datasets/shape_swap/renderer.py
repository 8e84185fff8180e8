"""Shape swap as a pure function: `render(key, domain) -> image, mask, factors`.

A pixel is the average over several points. A point p of the image is the point u = Rot(-theta)(p - c) / s of
the object; there, shape decides whether it is background and texture which of two colors it has. The texture
is of the object's frame: where the shapes of both domains overlap, they look the same. The border of the
image cuts the tips of the largest objects that lie far out.
"""

import functools

import jax
import jax.numpy as jnp

from vexplain.datasets.shape_swap.factors import Factors, draw_factors
from vexplain.datasets.shape_swap.shapes import is_inside
from vexplain.typing import Array, Float, Int, Key, Shaped


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
        key: of the factors.
        domain: 0 for A, 1 for B.
        level: which shapes: 1 disc and square, 2 ellipse and rectangle, 3 polygon and star, 4 T-shirt and
            trousers.
        variant: `"U"`, all hues equally likely, or `"N"`, skewed.
        size: height and width in pixels; objects grow with it.
        samples: points a pixel along each axis.

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
        domain: as in `render`.
        level: as in `render`.
        size: as in `render`.
        samples: as in `render`.
    """
    x, y = _canonical_points(factors, size, samples)
    is_object = is_inside(x, y, factors, domain, level=level)
    is_second = is_object & _has_second_color(x, y, factors)
    mask = is_object.astype(jnp.float32).mean(0)
    second = is_second.astype(jnp.float32).mean(0)
    colors = _hsv_to_rgb(factors.hue, factors.saturation, factors.value)
    second_colors = _hsv_to_rgb(factors.second_hue, factors.saturation / 2, factors.value / 2)
    channels = [
        factors.shade * (1 - mask) + color * (mask - second) + other * second
        for color, other in zip(colors, second_colors, strict=True)
    ]
    return jnp.clip(jnp.stack(channels, axis=-1), 0, 1), mask


def _canonical_points(factors: Factors, size: int, samples: int):
    """Coordinates in the object's frame, (samples², size, size): one image a position within the pixel."""
    offsets = (jnp.arange(samples) + 0.5) / samples
    line = (jnp.arange(size) + offsets[:, None]) / size - 0.5  # (samples, size), image heights
    column, row = jnp.broadcast_arrays(line[None, :, None, :], line[:, None, :, None])
    column = column.reshape(samples**2, size, size) - factors.center_x
    row = row.reshape(samples**2, size, size) - factors.center_y
    c, s = jnp.cos(factors.rotation) / factors.scale, jnp.sin(factors.rotation) / factors.scale
    return c * column + s * row, c * row - s * column


def _has_second_color(x, y, factors: Factors) -> Shaped[Array, "..."]:
    """Stripes sin(a) > .2, checker sin(a) sin(b) > 0, dots sin(a) + sin(b) > .8; a, b at pi f a unit."""
    rate = jnp.pi * factors.frequency
    c, s = rate * jnp.cos(factors.angle), rate * jnp.sin(factors.angle)
    a = jnp.sin(c * x + s * y + factors.phase)
    b = jnp.sin(c * y - s * x + factors.phase)
    stripes, checker, dots = a > 0.2, a * b > 0, a + b > 0.8
    kind = factors.texture
    return ((kind == 1) & stripes) | ((kind == 2) & checker) | ((kind == 3) & dots)


def _hsv_to_rgb(hue, saturation, value) -> list[Float[Array, ""]]:
    """Channel n of a color is v - v s max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6, for n = 5, 3, 1."""
    channels = []
    for n in (5, 3, 1):
        k = (n + 6 * hue) % 6
        channels.append(value - value * saturation * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))
    return channels
