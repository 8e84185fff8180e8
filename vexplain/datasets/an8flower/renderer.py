"""an8Flower as a pure function: `render(key, label) -> image, mask, factors`.

The scene is ray cast with parallel rays, several a pixel; what each ray meets first decides color (Lambert
shading under one distant light) and part. Image and mask are averages over the rays of a pixel, so that the
mask is the visible coverage of the part that carries the class, in [0, 1].
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vexplain.datasets.an8flower.scene import (
    PART_OF_SOLID,
    PARTS,
    Factors,
    discriminative_part,
    draw_factors,
    part_colors,
    solids,
)
from vexplain.datasets.an8flower.solids import nearest
from vexplain.typing import Array, Float, Int, Key

MIN_COVERAGE = 0.005  # of the pixels, by the part that carries the class
_MARGIN = 2.5  # candidates are judged on a coarse grid
_NUM_CANDIDATES = 8
_COARSE = 32  # pixels
_AMBIENT, _DIFFUSE = 0.5, 0.56
_HALF_HEIGHT = 1.5  # of the image, in units of the scene


class Rendering(NamedTuple):
    """One image with its truth.

    `mask` is the visible coverage of the part that carries the class; `parts` that of every part, the
    background first (they sum to 1).
    """

    image: Float[Array, "height width 3"]
    mask: Float[Array, "height width"]
    parts: Float[Array, "height width parts"]


def render(
    key: Key, label: Int[Array, ""] | int, *, variant: str = "single_6c", size: int = 112, samples: int = 3
) -> tuple[Float[Array, "height width 3"], Float[Array, "height width"], Factors]:
    """Returns a random image of a class, its mask, and the factors that made it.

    Views are drawn until the discriminative part covers at least 0.5 % of the pixels; the drawing knows the
    part, never the color. The same key and arguments give the same bytes.

    Args:
        key: of the factors.
        label: class, 0 to 5 for `single_6c` (color of the petals), 0 to 11 for `double_12c` (petals, then
            leaves).
        variant: `"single_6c"` or `"double_12c"`.
        size: height and width in pixels.
        samples: rays a pixel along each axis.

    Returns:
        image (size, size, 3) in [0, 1]; mask (size, size), coverage in [0, 1]; `Factors`.

    Raises:
        ValueError: an unknown variant.

    Example:
        >>> image, mask, _ = jax.jit(lambda k: render(k, 2, size=32))(jax.random.key(0))
        >>> image.shape, bool(mask.mean() > MIN_COVERAGE)
        ((32, 32, 3), True)
    """
    factors = draw_view(key, label, variant=variant)
    rendering = render_factors(factors, label, variant=variant, size=size, samples=samples)
    return rendering.image, rendering.mask, factors


def draw_view(key: Key, label: Int[Array, ""] | int, *, variant: str) -> Factors:
    """Returns random factors under which the part that carries the class is visible."""
    part = discriminative_part(label, variant)
    candidates = jax.vmap(draw_factors)(jax.random.split(key, _NUM_CANDIDATES))
    coverage = jax.vmap(lambda f: (_cast(f, _COARSE, 1)[0] == part).mean())(candidates)
    is_visible = coverage >= _MARGIN * MIN_COVERAGE
    chosen = jnp.where(is_visible.any(), is_visible.argmax(), coverage.argmax())
    return jax.tree.map(lambda leaf: leaf[chosen], candidates)


def render_factors(
    factors: Factors,
    label: Int[Array, ""] | int,
    *,
    variant: str = "single_6c",
    size: int = 112,
    samples: int = 3,
    neutral: bool = False,
) -> Rendering:
    """Returns the image of a class under given factors: the means of an intervention.

    Args:
        factors: from `render`, with which they give the same image for the same label; for another label the
            object as it would be in that class; nothing else changes.
        label: the class.
        variant: `"single_6c"` or `"double_12c"`.
        size: height and width in pixels.
        samples: rays a pixel along each axis.
        neutral: leave the part that carries the class in its base color: an object of no class.
    """
    part, normal = _cast(factors, size, samples)
    light = _direction(factors.light)
    shading = sum(n * c for n, c in zip(normal, light, strict=True))
    brightness = _AMBIENT + _DIFFUSE * jnp.maximum(shading, 0)
    colors = part_colors(-1 if neutral else label, variant)
    channels = []
    for c in range(3):
        color = jnp.full(part.shape, factors.shade)
        for n in range(1, len(PARTS)):
            color = jnp.where(part == n, jnp.minimum(colors[n - 1, c] * brightness, 1), color)
        channels.append(_pixels(color, size, samples))
    parts = [_pixels((part == n).astype(jnp.float32), size, samples) for n in range(len(PARTS))]
    coverage = jnp.stack(parts, axis=-1)
    mask = jnp.take(coverage, discriminative_part(label, variant), axis=-1)
    return Rendering(jnp.stack(channels, axis=-1), mask, coverage)


def _cast(factors: Factors, size: int, samples: int):
    """Part and normal that each ray meets, (size * samples)² each."""
    count = size * samples
    line = ((jnp.arange(count) + 0.5) / count * 2 - 1) * _HALF_HEIGHT
    u = (line - 2 * _HALF_HEIGHT * factors.shift[0]) / factors.scale
    v = (-line - 2 * _HALF_HEIGHT * factors.shift[1]) / factors.scale
    u, v = jnp.broadcast_arrays(u[None, :], v[:, None])
    found, normal = nearest(u, v, *solids(factors))
    return jnp.asarray(PART_OF_SOLID)[found], normal


def _direction(angles: Float[Array, "2"]):
    """Unit vector toward the light, in front of the object."""
    azimuth, elevation = angles[0], angles[1] * 0.5 + 0.5  # from above
    return (
        jnp.sin(azimuth) * jnp.cos(elevation),
        jnp.sin(elevation),
        jnp.cos(azimuth) * jnp.cos(elevation),
    )


@functools.partial(jax.jit, static_argnums=(1, 2))
def _pixels(rays: Float[Array, "rows columns"], size: int, samples: int) -> Float[Array, "height width"]:
    return rays.reshape(size, samples, size, samples).mean((1, 3))
