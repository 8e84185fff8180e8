"""What varies in cue objects: the three cues, each with six values, and what tells nothing of the class.

A cue may *agree* with the class: it shows the class with a stated probability, and each of the five other
values equally often else. With probability 1/6 it is independent of the class, with 1 it is as good as a
label. Two cues with probability 1 are redundant: the images do not say which of them a network should use.

In all functions:
    background: "plain", one gray, or "textured", a sum of random colored waves around that gray.
    clutter: number of small objects behind the object, with cues of their own that tell nothing.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets.an8flower.scenery import Texture, draw_texture
from vexplain.typing import Array, Float, Int, Key

CUES = ("shape", "texture", "color")
SHAPES = ("disc", "triangle", "square", "star", "cross", "arrow")
TEXTURES = ("stripes", "checker", "dots", "grid", "zigzag", "rings")
COLORS = ("red", "yellow", "green", "cyan", "blue", "magenta")
NAMES = {"shape": SHAPES, "texture": TEXTURES, "color": COLORS}
NUM_VALUES = 6  # of each cue
BACKGROUNDS = ("plain", "textured")

_RANGES = {
    "hue_shift": (-0.025, 0.025),
    "saturation": (0.7, 1.0),
    "value": (0.75, 1.0),
    "frequency": (1.2, 1.6),
    "angle": (0.0, 2 * np.pi),
    "phase": (0.0, 1.0),
    "shade": (0.5, 0.85),
    "center_x": (-4 / 64, 4 / 64),
    "center_y": (-4 / 64, 4 / 64),
    "scale": (13 / 64, 17.5 / 64),
    "rotation": (-0.35, 0.35),
}
_CLUTTER_SCALE = 0.35  # of a small object, against the object
_AROUND = 0.33  # distance of a small object from the middle, in image heights, at least
_CLUTTER_KEY, _WAVES_KEY, _CUES_KEY = 1, 2, 3


class Factors(NamedTuple):
    """Everything that varies. Leaves are scalars; angles in radians, lengths in image heights.

    `clutter` has the factors of the small objects, with one more axis; `None` where there is none.
    """

    shape: Int[Array, "..."]  # which of `SHAPES`
    texture: Int[Array, "..."]  # which of `TEXTURES`
    color: Int[Array, "..."]  # which of `COLORS`
    hue_shift: Float[Array, "..."]  # from the hue of the color, in turns
    saturation: Float[Array, "..."]
    value: Float[Array, "..."]  # of the light parts of the texture; the dark ones have 0.3 of it
    frequency: Float[Array, "..."]  # of the texture, periods a canonical unit
    angle: Float[Array, "..."]  # of the texture
    phase: Float[Array, "..."]  # of the texture, in periods
    shade: Float[Array, "..."]  # gray level of the background
    center_x: Float[Array, "..."]  # right of the middle of the image
    center_y: Float[Array, "..."]  # below the middle of the image
    scale: Float[Array, "..."]  # a canonical unit: the object's area is pi scale²
    rotation: Float[Array, "..."]  # clockwise
    waves: Texture | None = None  # of a textured background
    clutter: "Factors | None" = None


@functools.partial(jax.jit, static_argnames=("background", "clutter", "conflict"))
def draw_factors(
    key: Key,
    label: Int[Array, ""] | int,
    *,
    agreement: Sequence[Any] | Float[Array, "3"] = (1.0, 1 / 6, 1 / 6),
    background: str = "plain",
    clutter: int = 0,
    conflict: str | None = None,
) -> Factors:
    """Returns random factors of an object of a class.

    The cues are drawn apart from all else: the same key gives the same pose and background whatever the
    class, the agreement and the conflict.

    Args:
        label: class, 0 to 5.
        agreement: probability that the shape, the texture and the color show the class.
        conflict: "shape", "texture" or "color": that cue shows the class, and the three cues show three
            different values; the agreement does not count.

    Raises:
        ValueError: an unknown background or cue.
    """
    check_choice("background", background, BACKGROUNDS)
    if conflict is not None:
        check_choice("conflict", conflict, CUES)
    drawn = _draw_pose(key)
    key_of = functools.partial(jax.random.fold_in, key)
    cues_key = key_of(_CUES_KEY)
    if conflict is None:
        cues = _agreeing_cues(cues_key, label, jnp.asarray(agreement, jnp.float32))
    else:
        cues = _conflicting_cues(cues_key, label, CUES.index(conflict))
    small = _draw_clutter(key_of(_CLUTTER_KEY), clutter) if clutter else None
    waves = draw_texture(key_of(_WAVES_KEY)) if background == "textured" else None
    return Factors(*cues, **drawn, waves=waves, clutter=small)


def _draw_pose(key: Key) -> dict[str, Array]:
    numbers = jax.random.uniform(key, (len(_RANGES),))
    return {
        name: low + (high - low) * number
        for number, (name, (low, high)) in zip(numbers, _RANGES.items(), strict=True)
    }


def _agreeing_cues(key: Key, label: Int[Array, ""] | int, agreement: Float[Array, "3"]) -> Array:
    agree_key, other_key = jax.random.split(key)
    agrees = jax.random.uniform(agree_key, (len(CUES),)) < agreement
    others = label + 1 + jax.random.randint(other_key, (len(CUES),), 0, NUM_VALUES - 1)
    return jnp.where(agrees, label, others % NUM_VALUES)


def _conflicting_cues(key: Key, label: Int[Array, ""] | int, leading: int) -> Array:
    """One cue shows the class, the two others two of the five other values, all pairs equally often."""
    others = (label + 1 + jax.random.permutation(key, NUM_VALUES - 1)) % NUM_VALUES
    places = [place for place in range(len(CUES)) if place != leading]
    return jnp.zeros(len(CUES), jnp.int32).at[leading].set(label).at[jnp.array(places)].set(others[:2])


def _draw_clutter(key: Key, count: int) -> Factors:
    """Small objects around the middle, evenly turned, so that most are seen beside the object."""

    def one(key, n):
        cues_key, place_key, pose_key = jax.random.split(jax.random.fold_in(key, n), 3)
        drawn, (near, turn) = _draw_pose(pose_key), jax.random.uniform(place_key, (2,))
        angle = 2 * jnp.pi * (n + turn) / count
        distance = _AROUND + (0.5 - _AROUND) * near
        drawn |= {"center_x": distance * jnp.cos(angle), "center_y": distance * jnp.sin(angle)}
        drawn |= {
            "scale": _CLUTTER_SCALE * drawn["scale"],
            "frequency": _CLUTTER_SCALE * 2 * drawn["frequency"],
        }
        return Factors(*jax.random.randint(cues_key, (len(CUES),), 0, NUM_VALUES), **drawn)

    return jax.vmap(one, (None, 0))(key, jnp.arange(count))
