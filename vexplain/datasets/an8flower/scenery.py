"""What can surround the flower: random objects, a texture, less contrast, and how rays meet them.

Distractors, occluders and the cue live in the plane of the image, (u, v) from -1.5 to 1.5 with v upward;
the pot and the stake turn with the flower. A *surface* is what a ray meets first: 0 the background, then the
parts of the flower, then the objects that are here, one number each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.datasets.an8flower.scene import (
    CLASS_COLORS,
    COLOR_NAMES,
    MIN_COVERAGE,
    PARTS,
    STEM,
    VARIANTS,
    Factors,
    in_view,
    product,
    rotation,
)
from vexplain.datasets.an8flower.solids import Ellipsoids, TaperedCylinders, nearest
from vexplain.typing import Array, Float, Int, Key

_HALF_HEIGHT = 1.5  # of the image, in units of the scene
NUM_DISTRACTORS = 3
WOOD_COLORS = np.array([(0.50, 0.33, 0.22), (0.22, 0.15, 0.11)], np.float32)  # pot and stake; soil
_FIRST = len(PARTS)  # the first surface that is no part of the flower
_CUE_SIDE = 0.42
_NUM_STONES = 24  # sets of occluders to choose from
_HIDDEN = (0.25, 0.55)  # share of a part that an occluder aims at
_OCTAVES = ((1.0, 0.08), (2.5, 0.05), (6.0, 0.03))  # lowest cycles an image height, amplitude
_WAVES_PER_OCTAVE = 5
_COLORFULNESS = 0.8  # of a wave, against its gray
_AROUND = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if (x, y) != (0, 0)], np.float32)


class Texture(NamedTuple):
    """The waves: color(p) = Σ_w amplitude_w · cos(2π <wave_w, p> + phase_w), p in image heights."""

    waves: Float[Array, "waves 2"]
    phases: Float[Array, " waves"]
    amplitudes: Float[Array, "waves 3"]


class Asked(NamedTuple):
    """For which image surroundings are drawn."""

    label: Int[Array, ""] | int
    variant: str
    cue_probability: float | Array


class Scenery(NamedTuple):
    """What a difficulty adds to the factors of variation; the fields that it does not need are None."""

    texture: Texture | None = None
    objects: Ellipsoids | None = None  # of the image plane: distractors or occluders
    colors: Float[Array, "objects 3"] | None = None  # of the objects
    contrast: Float[Array, ""] | None = None  # that is left, in [0.2, 0.4]
    cue: Int[Array, ""] | None = None  # the class that the patch shows


def textured(key: Key, surface: Int[Array, "height width"], asked: Asked) -> Scenery:
    """Returns a random texture of the background."""
    return Scenery(texture=draw_texture(key))


def low_contrast(key: Key, surface: Int[Array, "height width"], asked: Asked) -> Scenery:
    """Returns how much contrast is left."""
    return Scenery(contrast=jax.random.uniform(key, minval=0.2, maxval=0.4))


def pot_or_stake(key: Key, surface: Int[Array, "height width"], asked: Asked) -> Scenery:
    """Returns nothing: which of them stands there is told by the class."""
    return Scenery()


def place_behind(surface, normal, factors: Factors, context, plane: tuple[Array, Array]):
    """Returns surfaces and normals with objects of the image plane where the flower is not."""
    found, there = nearest(*plane, factors.scenery.objects, _NO_CYLINDERS)
    return _merge((found > 0) & (surface == 0), found + _FIRST - 1, there, surface, normal)


def place_before(surface, normal, factors: Factors, context, plane: tuple[Array, Array]):
    """Returns surfaces and normals with objects of the image plane that hide the flower."""
    found, there = nearest(*plane, factors.scenery.objects, _NO_CYLINDERS)
    return _merge(found > 0, found + _FIRST - 1, there, surface, normal)


def place_cue(surface, normal, factors: Factors, context, plane: tuple[Array, Array]):
    """Returns surfaces and normals with a patch that faces the viewer in one of two corners."""
    u, v = plane
    is_cue = _in_corner(u, v, factors.scenery.cue // len(COLOR_NAMES)) & (surface == 0)
    facing = tuple(jnp.full(u.shape, n) for n in (0.0, 0.0, 1.0))
    return _merge(is_cue, jnp.full(u.shape, _FIRST), facing, surface, normal)


def place_context(surface, normal, factors: Factors, context, plane: tuple[Array, Array]):
    """The pot (0), filled with soil, hides the foot of the stem; the stake (1) stands behind everything."""
    away = 100.0 * (jnp.asarray(context) != jnp.array([0, 1]))
    soil = jnp.array([[0.0, -0.78, 0.0], [0.0, -1.14, 0.0]]).at[:, 0].add(away[0])
    flat = jnp.stack([jnp.diag(1 / jnp.array(radii)) for radii in ((0.25, 0.02, 0.25), (0.18, 0.02, 0.18))])
    starts = jnp.array([[0.0, -1.15, 0.0], [0.42, -1.15, -0.3]]) + away[:, None]
    ends = jnp.array([[0.0, -0.74, 0.0], [0.42, 1.15, -0.3]]) + away[:, None]
    view = in_view(factors)
    soil, flat, starts, ends = (product(array, view.T) for array in (soil, flat, starts, ends))
    disks = Ellipsoids(soil, flat)
    tubes = TaperedCylinders(starts, ends, jnp.array([[0.19, 0.28], [0.055, 0.055]]))
    found, there = nearest(*in_scene(*plane, factors), disks, tubes)
    kinds = jnp.array([0, _FIRST + 1, _FIRST + 1, _FIRST, _FIRST])[found]
    is_free = (surface == 0) | ((surface == STEM) & (jnp.asarray(context) == 0))
    return _merge((found > 0) & is_free, kinds, there, surface, normal)


def room_for_cue(factors: Factors, surface: Int[Array, "height width"]) -> Array:
    """Returns whether a patch is seen in either corner, for it must tell nothing of the view."""
    u, v = image_plane(len(surface))
    corners = [_in_corner(u, v, corner) for corner in (0, 1)]
    shares = [((surface == 0) & corner).sum() / corner.sum() for corner in corners]
    return jnp.stack(shares).min() >= 0.6


def room_for_context(factors: Factors, surface: Int[Array, "height width"]) -> Array:
    """Returns whether both the pot and the stake would be seen."""
    normal, plane = (jnp.zeros(surface.shape),) * 3, image_plane(len(surface))
    seen = [place_context(surface, normal, factors, kind, plane)[0] for kind in (0, 1)]
    return jnp.stack([(s >= _FIRST).mean() for s in seen]).min() >= 2.5 * MIN_COVERAGE


def colors_of_objects(scenery: Scenery) -> Float[Array, "objects 3"]:
    """Returns the colors that the objects were drawn with."""
    assert scenery.colors is not None
    return scenery.colors


def colors_of_wood(scenery: Scenery) -> Float[Array, "objects 3"]:
    """Returns the color of the pot and the stake, and that of the soil."""
    return jnp.asarray(WOOD_COLORS)


def colors_of_cue(scenery: Scenery) -> Float[Array, "1 3"]:
    """Returns the color of the class that the patch shows."""
    assert scenery.cue is not None
    return jnp.asarray(CLASS_COLORS)[scenery.cue % len(COLOR_NAMES)][None]


def image_plane(size: int, samples: int = 1) -> tuple[Array, Array]:
    """Returns where the rays pass, (u, v), to the right and up."""
    count = size * samples
    line = ((jnp.arange(count) + 0.5) / count * 2 - 1) * _HALF_HEIGHT
    u, v = jnp.broadcast_arrays(line[None, :], -line[:, None])
    return u, v


def in_scene(u: Array, v: Array, factors: Factors) -> tuple[Array, Array]:
    """Returns points of the image plane in the scene of the flower, which is shifted and scaled."""
    right, up = factors.shift
    return (u - 2 * _HALF_HEIGHT * right) / factors.scale, (v - 2 * _HALF_HEIGHT * up) / factors.scale


def draw_texture(key: Key) -> Texture:
    """Returns random waves in three octaves: broad stains of a color, blobs, and grain."""
    lowest, amplitude = jnp.repeat(jnp.array(_OCTAVES), _WAVES_PER_OCTAVE, axis=0).T
    numbers = jax.random.uniform(key, (6, len(lowest)))
    frequency = lowest * 2 ** numbers[0]
    angle = 2 * jnp.pi * numbers[1]
    waves = frequency[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    tints = 1 + _COLORFULNESS * (2 * numbers[3:] - 1)
    return Texture(waves, 2 * jnp.pi * numbers[2], (amplitude * tints).T)


def draw_waves(texture: Texture, size: int) -> Float[Array, "height width 3"]:
    """Returns what a texture adds to each pixel, at the centers of the pixels."""
    line = (jnp.arange(size) + 0.5) / size
    across, down = texture.waves[:, 0, None] * line, texture.waves[:, 1, None] * line
    turns = down[:, :, None] + across[:, None, :] + texture.phases[:, None, None] / (2 * jnp.pi)
    return jnp.einsum("whv,wc->hvc", jnp.cos(2 * jnp.pi * turns), texture.amplitudes, precision="highest")


_NO_CYLINDERS = TaperedCylinders(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros((0, 2)))  # type: ignore


def distractors(key: Key, surface: Int[Array, "height width"], asked: Asked) -> Scenery:
    """Returns three eggs in those outer ninths of the image where the flower leaves most room."""
    place, shape, color, order = jax.random.split(key, 4)
    radii, angles = _radii(shape, len(_AROUND), (0.2, 0.34), (0.5, 1.0))
    jitter = jax.random.uniform(place, (len(_AROUND), 2), minval=-1, maxval=1)
    centers = _AROUND + jitter * (0.5 - radii.max(1, keepdims=True))
    u, v = image_plane(len(surface))
    distance = jnp.hypot(u - centers[:, 0, None, None], v - centers[:, 1, None, None])
    inside = distance < radii.max(1)[:, None, None]
    hidden = (inside & (surface > 0)).sum((1, 2)) / jnp.maximum(inside.sum((1, 2)), 1)
    chosen = jnp.argsort(hidden + 0.05 * jax.random.uniform(order, hidden.shape))[:NUM_DISTRACTORS]
    eggs = _eggs(centers[chosen], radii[chosen], angles[chosen])
    colors = jax.random.randint(color, (NUM_DISTRACTORS,), 0, len(CLASS_COLORS))
    return Scenery(objects=eggs, colors=jnp.asarray(CLASS_COLORS)[colors])


def occluders(key: Key, surface: Int[Array, "height width"], asked: Asked) -> Scenery:
    """Returns a stone before each part that may carry the class, which hides about enough of it."""
    parts = VARIANTS[asked.variant]
    draw, aim, tone, tint = jax.random.split(key, 4)
    keys = jax.random.split(draw, _NUM_STONES)
    stones = jax.vmap(lambda k: _stones_before(k, surface, parts))(keys)
    u, v = image_plane(len(surface))
    covers = jax.vmap(lambda s: nearest(u, v, s, _NO_CYLINDERS)[0] > 0)(stones)
    is_part = jnp.stack([surface == part for part in parts])[:, None]
    before = is_part.mean((2, 3))
    after = (is_part & ~covers).mean((2, 3))
    target = jax.random.uniform(aim, (len(parts), 1), minval=_HIDDEN[0], maxval=_HIDDEN[1])
    misses = jnp.abs(1 - after / jnp.maximum(before, 1e-6) - target) + 10.0 * (after < 2 * MIN_COVERAGE)
    best = (misses * (before > 4 * MIN_COVERAGE)).sum(0).argmin()
    grays = jax.random.uniform(tone, (len(parts), 1), minval=0.35, maxval=0.75)
    colors = grays + jax.random.uniform(tint, (len(parts), 3), minval=-0.04, maxval=0.04)
    return Scenery(objects=jax.tree.map(lambda leaf: leaf[best], stones), colors=colors)


def _stones_before(key: Key, surface, parts: tuple[int, ...]) -> Ellipsoids:
    """A stone at a random visible point of each part, its area about that of what is seen of the part."""
    place, shape = jax.random.split(key)
    is_part = jnp.stack([surface == part for part in parts]).reshape(len(parts), -1)
    points = jax.random.categorical(place, jnp.where(is_part, 0.0, -30.0), axis=1)
    u, v = image_plane(len(surface))
    centers = jnp.stack([u.ravel()[points], v.ravel()[points]], axis=1)
    area = jnp.maximum(is_part.mean(1), MIN_COVERAGE) * (2 * _HALF_HEIGHT) ** 2
    radii, angles = _radii(shape, len(parts), (0.7, 1.3), (0.5, 1.0))
    return _eggs(centers, radii * jnp.sqrt(area / jnp.pi)[:, None], angles)


def cue(key: Key, surface: Int[Array, "height width"], asked: Asked) -> Scenery:
    """Returns the class with the stated probability, else another one, each as likely."""
    decide, pick = jax.random.split(key)
    num_classes = len(VARIANTS[asked.variant]) * len(COLOR_NAMES)
    other = (asked.label + 1 + jax.random.randint(pick, (), 0, num_classes - 1)) % num_classes
    is_true = jax.random.uniform(decide) < asked.cue_probability
    return Scenery(cue=jnp.where(is_true, asked.label, other))


def _in_corner(u, v, corner) -> Array:
    """A square at the upper left (0) or the upper right (1)."""
    edge = _HALF_HEIGHT - _CUE_SIDE
    return (v > edge) & jnp.where(jnp.asarray(corner) == 0, u < -edge, u > edge)


def _merge(wins, surface, normal, surface_else, normal_else):
    normals = tuple(jnp.where(wins, a, b) for a, b in zip(normal, normal_else, strict=True))
    return jnp.where(wins, surface, surface_else), normals


def _radii(key: Key, count: int, lengths: tuple[float, float], aspects: tuple[float, float]):
    """Random half axes in the plane of the image, the longer one first, and the angle of that."""
    low, high = jnp.array([lengths, aspects, (0.0, np.pi)]).T
    length, aspect, angle = (low + (high - low) * jax.random.uniform(key, (count, 3))).T
    return jnp.stack([length, length * aspect], axis=1), angle


def _eggs(centers, radii, angles) -> Ellipsoids:
    """Ellipsoids in the plane of the image, as deep as they are narrow."""
    inverse = 1 / jnp.concatenate([radii, radii[:, 1:]], axis=1)
    turned = jax.vmap(lambda angle: rotation(2, angle))(angles)
    shapes = inverse[:, :, None] * jnp.swapaxes(turned, 1, 2)
    return Ellipsoids(jnp.pad(centers, ((0, 0), (0, 1))), shapes)
