"""an8Flower as a pure function: `render(key, label) -> image, mask, factors`.

The scene is ray cast with parallel rays, several a pixel; what each ray meets first, its *surface*, decides
color (Lambert shading under one distant light) and part. Image and mask are averages over the rays of a
pixel, so that the mask is the visible coverage of what carries the class, in [0, 1].
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vexplain.datasets.an8flower.difficulty import Difficulty, View, difficulty_of
from vexplain.datasets.an8flower.scene import (
    MIN_COVERAGE,
    PART_OF_SOLID,
    PARTS,
    Factors,
    discriminative_part,
    draw_factors,
    part_colors,
    solids,
)
from vexplain.datasets.an8flower.scenery import Asked, draw_waves, image_plane, in_scene
from vexplain.datasets.an8flower.solids import nearest
from vexplain.typing import Array, Float, Int, Key

_NUM_CANDIDATES = 8
_COARSE = 32  # pixels, on which candidates are judged
_AMBIENT, _DIFFUSE = 0.5, 0.56


class Rendering(NamedTuple):
    """One image with its truth.

    `mask` is the visible coverage of what determines the class: the part that carries it and, for the
    difficulty `context`, the pot or the stake. `parts` is that of every part, in the order of `part_names`,
    the background first (they sum to 1).
    """

    image: Float[Array, "height width 3"]
    mask: Float[Array, "height width"]
    parts: Float[Array, "height width parts"]


class Surfaces(NamedTuple):
    """What each ray meets: the background 0, a part of the flower, or one of the objects of a difficulty."""

    surface: Int[Array, "rows columns"]
    brightness: Float[Array, "rows columns"]


def render(
    key: Key,
    label: Int[Array, ""] | int,
    *,
    variant: str = "single_6c",
    size: int = 112,
    samples: int = 3,
    difficulty: str | Difficulty = "plain",
    cue_probability: float | Float[Array, ""] = 0.9,
) -> tuple[Float[Array, "height width 3"], Float[Array, "height width"], Factors]:
    """Returns a random image of a class, its mask, and the factors that made it.

    Views are drawn until the discriminative part covers at least 0.5 % of the pixels; the drawing knows the
    part, never the color. The same key and arguments give the same bytes.

    Args:
        label: class, 0 to 5 for `single_6c` (color of the petals), 0 to 11 for `double_12c` (petals, then
            leaves).
        variant: `"single_6c"` or `"double_12c"`.
        size: height and width in pixels.
        samples: rays a pixel along each axis.
        difficulty: one of `DIFFICULTIES`, told in the module `difficulty`, or an own `Difficulty`.
        cue_probability: for `"shortcut"`, that the patch shows the class; else it shows another, each as
            likely.

    Returns:
        image (size, size, 3) in [0, 1]; mask (size, size), coverage in [0, 1]; `Factors`.

    Raises:
        ValueError: an unknown variant or difficulty.

    Example:
        >>> image, mask, _ = jax.jit(lambda k: render(k, 2, size=32))(jax.random.key(0))
        >>> image.shape, bool(mask.mean() > MIN_COVERAGE)
        ((32, 32, 3), True)
    """
    factors = draw_view(key, label, variant=variant, difficulty=difficulty, cue_probability=cue_probability)
    rendering = render_factors(factors, label, **View(variant, size, samples, difficulty)._asdict())
    return rendering.image, rendering.mask, factors


def draw_view(
    key: Key,
    label: Int[Array, ""] | int,
    *,
    variant: str,
    difficulty: str | Difficulty = "plain",
    cue_probability: float | Float[Array, ""] = 0.9,
) -> Factors:
    """Returns random factors under which the part that carries the class is visible, as `render` draws them.

    So is what a difficulty adds. Wherever a view suits both, two difficulties show the same flower.
    """
    around = difficulty_of(difficulty)
    part = discriminative_part(label, variant)
    candidates = jax.vmap(draw_factors)(jax.random.split(key, _NUM_CANDIDATES))
    surfaces = jax.vmap(lambda f: _cast(f, _COARSE, 1)[0])(candidates)
    coverage = (surfaces == part).mean((1, 2))
    suits = coverage >= around.margin * MIN_COVERAGE
    if around.has_room is not None:
        suits &= jax.vmap(around.has_room)(candidates, surfaces)
    chosen = jnp.where(suits.any(), suits.argmax(), coverage.argmax())
    factors = jax.tree.map(lambda leaf: leaf[chosen], candidates)
    if around.draw is None:
        return factors
    key = jax.random.fold_in(key, _NUM_CANDIDATES)  # a key that no candidate has
    asked = Asked(label, variant, cue_probability)
    return factors._replace(scenery=around.draw(key, surfaces[chosen], asked))


def render_factors(
    factors: Factors, label: Int[Array, ""] | int, *, neutral: bool = False, **options: Any
) -> Rendering:
    """Returns the image of a class under given factors: the means of an intervention.

    Args:
        factors: from `render`, with which they give the same image for the same label and options; for
            another label the object as it would be in that class; nothing else changes.
        label: the class.
        neutral: leave the part that carries the class in its base color: an object of no class.
        **options: variant, size, samples and difficulty, as in `render`.

    Raises:
        ValueError: an unknown variant or difficulty, or factors of another difficulty.
    """
    view = View(**options)
    seen = see(factors, label % view.around.classes_a_color, view)
    colors = surface_colors(factors, -1 if neutral else label, view)
    image = paint(factors, seen, colors, backdrop(factors, view), view)
    coverage = part_coverage(seen, view)
    mask = jnp.take(coverage, discriminative_part(label, view.variant), axis=-1)
    if view.around.contexts:
        mask = mask + coverage[..., -1]
    return Rendering(image, mask, coverage)


def see(factors: Factors, context: Int[Array, ""] | int, view: View) -> Surfaces:
    """Returns what each ray meets and how bright it is there; `context` is 0 for a pot, 1 for a stake."""
    around = view.around
    if (factors.scenery is None) != (around.draw is None):
        come = "without" if factors.scenery is None else "with"
        raise ValueError(
            f"difficulty is {around.name!r}, but the factors come {come} "
            "surroundings: pass the difficulty with which they were drawn"
        )
    surface, normal = _cast(factors, view.size, view.samples)
    if around.place is not None:
        plane = image_plane(view.size, view.samples)
        surface, normal = around.place(surface, normal, factors, context, plane)
    azimuth, elevation = factors.light[0], factors.light[1] * 0.5 + 0.5  # in front of the object, from above
    light = (
        jnp.sin(azimuth) * jnp.cos(elevation),
        jnp.sin(elevation),
        jnp.cos(azimuth) * jnp.cos(elevation),
    )
    shading = sum(n * c for n, c in zip(normal, light, strict=True))
    return Surfaces(surface, _AMBIENT + _DIFFUSE * jnp.maximum(shading, 0))


def surface_colors(factors: Factors, label: Int[Array, ""] | int, view: View) -> Float[Array, "surfaces 3"]:
    """Returns the colors of the surfaces 1, 2, ... in a class; the base colors for label -1."""
    around = view.around
    flower = part_colors(label, view.variant, around.color_of_class(label))
    return jnp.concatenate([flower, around.colors(factors.scenery)])


def backdrop(factors: Factors, view: View) -> Float[Array, "rows columns 3"] | Float[Array, "3"]:
    """Returns the color behind everything: one for all rays, or one for each."""
    texture = None if factors.scenery is None else factors.scenery.texture
    if texture is None:
        return jnp.broadcast_to(factors.shade, (3,))
    pixels = jnp.clip(factors.shade + draw_waves(texture, view.size), 0, 1)
    return jnp.repeat(jnp.repeat(pixels, view.samples, axis=0), view.samples, axis=1)


def paint(
    factors: Factors,
    seen: Surfaces,
    colors: Float[Array, "surfaces 3"],
    behind: Float[Array, "rows columns 3"] | Float[Array, "3"],
    view: View,
) -> Float[Array, "height width 3"]:
    """Returns the image of surfaces in given colors, those of 1, 2, ..., before that of the background."""
    channels = []
    for c in range(3):
        color = jnp.broadcast_to(behind[..., c], seen.surface.shape)
        for n in range(1, len(colors) + 1):
            lit = jnp.minimum(colors[n - 1, c] * seen.brightness, 1)
            color = jnp.where(seen.surface == n, lit, color)
        channels.append(_pixels(color, view))
    image = jnp.stack(channels, axis=-1)
    contrast = None if factors.scenery is None else factors.scenery.contrast
    return image if contrast is None else factors.shade + contrast * (image - factors.shade)


def part_coverage(seen: Surfaces, view: View) -> Float[Array, "height width parts"]:
    """Returns the share of each pixel that each part covers, the background first."""
    shows = [seen.surface == n for n in range(len(PARTS))]
    if view.around.part is not None:
        shows.append(seen.surface >= len(PARTS))  # all objects of a difficulty are one part
    return jnp.stack([_pixels(is_part.astype(jnp.float32), view) for is_part in shows], axis=-1)


def _cast(factors: Factors, size: int, samples: int):
    """Part and normal that each ray meets, (size * samples)² each."""
    found, normal = nearest(*in_scene(*image_plane(size, samples), factors), *solids(factors))
    return jnp.asarray(PART_OF_SOLID)[found], normal


@functools.partial(jax.jit, static_argnums=1)
def _pixels(rays: Float[Array, "rows columns"], view: View) -> Float[Array, "height width"]:
    return rays.reshape(view.size, view.samples, view.size, view.samples).mean((1, 3))
