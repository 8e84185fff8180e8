"""Try-on as a pure function: `render(key, domain) -> image, mask, context image, factors`.

Domain A is the picture of a product: a T-shirt, upright before a light background. Domain B is the same kind
of T-shirt worn by a figure in some pose before a scene. Both have the garment's own frame, in which its
texture is: the body of the T-shirt is rigid, and each sleeve is turned about its shoulder with the upper arm,
with its texture. So every point of a garment has one place in the other picture, unless an arm covers it.

Canonical units: the garment is about two units high, y down, its origin in the middle of the chest.

In all functions:
    domain: 0 for A, the product, 1 for B, worn.
    size: height and width in pixels; everything grows with it.
    samples: points a pixel along each axis.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.datasets.appearance import has_second_color, hsv_to_rgb, two_colors
from vexplain.datasets.foreground import context_images
from vexplain.datasets.outlines import in_capsule, in_frame, in_polygon, pixel_points
from vexplain.datasets.try_on.factors import Factors, draw_factors
from vexplain.typing import Array, Float, Int, Key, Shaped

_Points = Float[Array, "samples height width"]
_Region = Shaped[Array, "samples height width"]
_Color = list[Float[Array, ""]]

_HALF_BODY = [(0.15, -0.88), (0.36, -1.08), (0.74, -0.93), (0.66, -0.35), (0.6, 0.3), (0.66, 1.05)]
_BODY = np.array([*_HALF_BODY, *((-x, y) for x, y in reversed(_HALF_BODY))], np.float32)
_SLEEVE = np.array(  # along the arm and across it, from the shoulder
    [(-0.22, -0.22), (0.2, -0.3), (0.75, -0.29), (0.75, 0.29), (0.2, 0.3), (-0.22, 0.22)], np.float32
)
_SHOULDER = (0.58, -0.68)
_FLAT = 0.85  # angle of a sleeve of the product picture, from hanging down outward
_UPPER_ARM, _FOREARM, _LEG = 0.95, 0.85, 2.6
_LIGHT, _DARK = (0.96, 0.82, 0.72), (0.36, 0.22, 0.15)  # tones of skin
_BLACK, _BLOND = (0.08, 0.06, 0.05), (0.85, 0.68, 0.38)  # hair
_SIDES = (-1, 1)  # left and right in the image


class _Garment(NamedTuple):
    """Where a garment is, and where in its own frame its points are."""

    region: _Region
    u: _Points
    v: _Points


def render(
    key: Key, domain: Int[Array, ""] | int, *, variant: str = "U", size: int = 64, samples: int = 3
) -> tuple[
    Float[Array, "height width 3"],
    Float[Array, "height width"],
    Float[Array, "height width 3"],
    Factors,
]:
    """Returns a random image of a domain, the garment's mask, the context image, and the factors.

    The same key and arguments give the same bytes. The same key gives the same garment in both domains: the
    images are partners; for unpaired sets use different keys.

    Args:
        variant: `"U"`, `"N"` or `"F"`, of the garment, as in `draw_factors`.

    Returns:
        image (size, size, 3) in [0, 1]; mask (size, size), coverage by the garment in [0, 1]; the image
        without the garment and what is next to it (`context_images`); `Factors`.

    Raises:
        ValueError: an unknown variant.

    Example:
        >>> product, _, _, _ = render(jax.random.key(0), 0, size=32)
        >>> worn, mask, context, _ = render(jax.random.key(0), 1, size=32)
        >>> worn.shape, bool((context[mask > 0] == 0.5).all())
        ((32, 32, 3), True)
    """
    factors = draw_factors(key, variant=variant)
    image, mask = render_factors(factors, domain, size=size, samples=samples)
    return image, mask, context_images(image[None], mask[None])[0], factors


@functools.partial(jax.jit, static_argnames=("size", "samples"))
def render_factors(
    factors: Factors, domain: Int[Array, ""] | int, *, size: int = 64, samples: int = 3
) -> tuple[Float[Array, "height width 3"], Float[Array, "height width"]]:
    """Returns image and mask of a garment with given factors, as a product or worn.

    Args:
        factors: of one example; with the garment's factors of another image, its garment on this figure.
    """
    x, y = pixel_points(size, samples)
    is_worn = jnp.asarray(domain) == 1
    garment = _garment(x, y, factors, is_worn)
    has_second = _has_second(garment, factors)
    first, second = two_colors(factors)
    layers = [(garment.region & has_second, second), (garment.region, first)]
    figure = [(region & is_worn, color) for region, color in _figure(x, y, factors)]
    image = _painted([*layers, *figure, *_scene(x, y, factors, is_worn)])
    return jnp.clip(image, 0, 1), garment.region.astype(jnp.float32).mean(0)


def coverage(
    factors: Factors, domain: Int[Array, ""] | int, *, size: int, samples: int
) -> tuple[Float[Array, "height width"], Float[Array, "height width"]]:
    """Returns how much of each pixel the garment covers, and how much its second color does."""
    garment = _garment(*pixel_points(size, samples), factors, jnp.asarray(domain) == 1)
    is_second = garment.region & _has_second(garment, factors)
    return garment.region.astype(jnp.float32).mean(0), is_second.astype(jnp.float32).mean(0)


def _garment(x: _Points, y: _Points, factors: Factors, is_worn: Shaped[Array, ""]) -> _Garment:
    """The body, and over it the sleeves, turned by the arms."""
    worn = (factors.center_x, factors.center_y, factors.scale, factors.rotation)
    product = (factors.product_x, factors.product_y, factors.product_scale, factors.product_rotation)
    place = [jnp.where(is_worn, a, b) for a, b in zip(worn, product, strict=True)]
    u, v = in_frame(x, y, *place)
    found = _Garment(in_polygon(u, v, jnp.asarray(_BODY)), u, v)
    for side, arm in zip(_SIDES, (factors.left_arm, factors.right_arm), strict=True):
        sleeve = _sleeve(u, v, side, jnp.where(is_worn, arm, _FLAT))
        own = (jnp.where(sleeve.region, a, b) for a, b in zip(sleeve[1:], found[1:], strict=True))
        found = _Garment(sleeve.region | found.region, *own)
    return found


def _sleeve(u: _Points, v: _Points, side: int, angle: Float[Array, ""]) -> _Garment:
    """A sleeve, whose own coordinates are turned back to those of the product."""
    right, down = side * u - _SHOULDER[0], v - _SHOULDER[1]
    s, c = jnp.sin(angle), jnp.cos(angle)
    along, across = s * right + c * down, c * right - s * down
    s, c = np.sin(_FLAT), np.cos(_FLAT)
    flat_right, flat_down = s * along + c * across, c * along - s * across
    region = in_polygon(along, across, jnp.asarray(_SLEEVE))
    return _Garment(region, side * (flat_right + _SHOULDER[0]), flat_down + _SHOULDER[1])


def _has_second(garment: _Garment, factors: Factors) -> _Region:
    pattern = (factors.texture, factors.frequency, factors.angle, factors.phase)
    return has_second_color(garment.u, garment.v, *pattern)


def _figure(x: _Points, y: _Points, factors: Factors) -> list[tuple[_Region, _Color]]:
    """What of the wearer the garment does not cover, the nearest first."""
    u, v = in_frame(x, y, factors.center_x, factors.center_y, factors.scale, factors.rotation)
    face = (u / 0.33) ** 2 + ((v + 1.62) / 0.42) ** 2 < 1
    hair = (u / 0.42) ** 2 + ((v + 1.76) / 0.42) ** 2 < 1
    skin = face | in_capsule(u, v, (0.0, -1.3), (0.0, -0.9), 0.16)
    arms = (factors.left_arm, factors.left_elbow), (factors.right_arm, factors.right_elbow)
    for side, (arm, elbow) in zip(_SIDES, arms, strict=True):
        right = side * u
        bend = _SHOULDER[0] + _UPPER_ARM * jnp.sin(arm), _SHOULDER[1] + _UPPER_ARM * jnp.cos(arm)
        hand = bend[0] + _FOREARM * jnp.sin(arm + elbow), bend[1] + _FOREARM * jnp.cos(arm + elbow)
        skin |= in_capsule(right, v, _SHOULDER, bend, 0.16)
        skin |= in_capsule(right, v, bend, hand, 0.14)
        skin |= (right - hand[0]) ** 2 + (v - hand[1]) ** 2 < 0.19**2
    trousers = in_capsule(u, v, (-0.3, 0.95), (0.3, 0.95), 0.3)
    for side, leg in zip(_SIDES, (factors.left_leg, factors.right_leg), strict=True):
        foot = 0.3 + _LEG * jnp.sin(leg), 1.0 + _LEG * jnp.cos(leg)
        trousers |= in_capsule(side * u, v, (0.3, 1.0), foot, 0.28)
    hair = hair & ~(face & (v > -1.82))
    return [
        (hair, _between(_BLACK, _BLOND, factors.hair)),
        (skin, _between(_LIGHT, _DARK, factors.skin)),
        (trousers, hsv_to_rgb(factors.trousers_hue, 0.4, factors.trousers_value)),
    ]


def _scene(
    x: _Points, y: _Points, factors: Factors, is_worn: Shaped[Array, ""]
) -> list[tuple[_Region, _Color]]:
    """The background: of two colors behind a figure, and plain behind a product."""
    pattern = (factors.scene_texture, factors.scene_frequency, factors.scene_angle, factors.scene_phase)
    hue, saturation, value = factors.scene_hue, factors.scene_saturation, factors.scene_value
    darker = hsv_to_rgb(hue, saturation, value - factors.scene_contrast)
    plain = [jnp.where(is_worn, c, factors.product_shade) for c in hsv_to_rgb(hue, saturation, value)]
    return [(has_second_color(x, y, *pattern) & is_worn, darker), (jnp.ones_like(x, bool), plain)]


def _painted(layers: list[tuple[_Region, _Color]]) -> Float[Array, "height width 3"]:
    """The mean color of the points of each pixel, where the first layer that covers a point is seen."""
    layers = jax.lax.optimization_barrier(layers)  # else XLA computes every region anew for each channel
    (_, background), *nearer = reversed(layers)
    channels = []
    for n, color in enumerate(background):
        points = jnp.broadcast_to(color, layers[0][0].shape)
        for region, colors in nearer:
            points = jnp.where(region, colors[n], points)
        channels.append(points.mean(0))
    return jnp.stack(channels, axis=-1)


def _between(low: tuple[float, ...], high: tuple[float, ...], share: Float[Array, ""]) -> _Color:
    return [a + (b - a) * share for a, b in zip(low, high, strict=True)]
