"""The flower: its parts, colors and factors of variation, and the solids that it is made of.

A re-creation of an8Flower (Oramas, Wang, Tuytelaars, ICLR 2019), whose models are not public: one flower-like
object, seen from many directions, whose class is the color of one part (`single_6c`), or which of two parts
has which color (`double_12c`). All other parts keep base colors that are none of the class colors.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets.an8flower.solids import Ellipsoids, TaperedCylinders
from vexplain.typing import Array, Float, Int, Key

PARTS = ("background", "stem", "leaves", "petals", "disc")
STEM, LEAVES, PETALS, DISC = 1, 2, 3, 4
COLOR_NAMES = ("red", "orange", "yellow", "cyan", "blue", "magenta")
VARIANTS = {"single_6c": (PETALS,), "double_12c": (PETALS, LEAVES)}  # the parts that carry the class

CLASS_COLORS = np.array(
    [
        (0.86, 0.10, 0.12),
        (0.98, 0.50, 0.05),
        (0.97, 0.88, 0.10),
        (0.10, 0.80, 0.86),
        (0.13, 0.22, 0.88),
        (0.85, 0.16, 0.75),
    ],
    np.float32,
)
BASE_COLORS = np.array(  # of the parts 1, 2, ...: greens, cream, a dark seed brown
    [(0.20, 0.42, 0.14), (0.30, 0.56, 0.20), (0.95, 0.92, 0.84), (0.22, 0.15, 0.11)], np.float32
)
MIN_COVERAGE = 0.005  # of the pixels, by the part that carries the class
NUM_LEAVES, NUM_PETALS = 3, 8
PART_OF_SOLID = np.array([0, *[LEAVES] * NUM_LEAVES, *[PETALS] * NUM_PETALS, DISC, STEM, STEM])


class Factors(NamedTuple):
    """Everything that varies besides the class. Angles in radians; all leaves are scalars or vectors.

    The scene is 2 high at scale 1 in an image that is 3 high.
    """

    azimuth: Float[Array, ""]  # of the viewing direction, around the stem
    elevation: Float[Array, ""]  # of the viewing direction, above the horizon
    roll: Float[Array, ""]  # in-plane rotation
    scale: Float[Array, ""]
    shift: Float[Array, "2"]  # right and up, in image heights
    light: Float[Array, "2"]  # azimuth and elevation, from the viewer
    shade: Float[Array, ""]  # gray level of the background
    pitch: Float[Array, ""]  # how far the head looks up
    bend: Float[Array, ""]  # of the stem, sideways
    phase: Float[Array, ""]  # of the petals around the disc
    scenery: Any = None  # what surrounds the flower, where the difficulty is not plain


_RANGES = {
    "azimuth": (-1.1, 1.1),
    "elevation": (-0.25, 0.9),
    "roll": (-0.6, 0.6),
    "scale": (0.85, 1.25),
    "shift": (-0.12, 0.12),
    "light": (-0.9, 0.9),
    "shade": (0.12, 0.88),
    "pitch": (0.1, 0.8),
    "bend": (-0.18, 0.18),
    "phase": (0.0, 2 * np.pi / NUM_PETALS),
}
_VECTORS = ("shift", "light")


def class_names(variant: str) -> tuple[str, ...]:
    """Returns the names of the classes of a variant, `"red petals"` and so on.

    Raises:
        ValueError: an unknown variant.

    Example:
        >>> class_names("double_12c")[6]
        'red leaves'
    """
    return tuple(f"{color} {PARTS[part]}" for part in _parts(variant) for color in COLOR_NAMES)


def discriminative_part(label: Int[Array, ""] | int, variant: str) -> Int[Array, ""]:
    """Returns the id of the part that carries the color of a class."""
    return jnp.asarray(_parts(variant))[label // len(COLOR_NAMES)]


def part_colors(
    label: Int[Array, ""] | int, variant: str, color: Int[Array, ""] | int
) -> Float[Array, "parts 3"]:
    """Returns the colors of the parts 1, 2, ... in a class that shows `color`; the base colors for -1."""
    base = jnp.asarray(BASE_COLORS)
    part = discriminative_part(jnp.maximum(label, 0), variant)
    shown = base.at[part - 1].set(jnp.asarray(CLASS_COLORS)[color])
    return jnp.where(jnp.asarray(label) >= 0, shown, base)


def draw_factors(key: Key) -> Factors:
    """Returns random factors, uniform within their ranges."""
    numbers = jax.random.uniform(key, (len(_RANGES), 2))  # one draw: quick to compile
    scaled = {
        name: low + (high - low) * (pair if name in _VECTORS else pair[0])
        for pair, (name, (low, high)) in zip(numbers, _RANGES.items(), strict=True)
    }
    return Factors(**scaled)


def solids(factors: Factors) -> tuple[Ellipsoids, TaperedCylinders]:
    """Returns leaves, petals and disc, then the two segments of the stem, as the viewer sees them."""
    foot, knee = jnp.array([0.0, -1.0, 0.0]), jnp.array([factors.bend, -0.25, 0.0])
    neck = jnp.array([factors.bend * 0.4, 0.42, 0.0])
    head, petal_axes, petal_centers = _head(factors, neck)
    leaf_centers, leaf_axes = _leaves(knee)
    parts = [
        _ellipsoids(leaf_centers, leaf_axes, (0.36, 0.135, 0.035)),
        _ellipsoids(petal_centers, petal_axes, (0.27, 0.145, 0.04)),
        _ellipsoids(neck[None], head[None], (0.2, 0.2, 0.1)),
    ]
    stem = TaperedCylinders(
        jnp.stack([foot, knee]), jnp.stack([knee, neck]), jnp.array([[0.065, 0.05], [0.05, 0.04]])
    )
    view = in_view(factors)
    centers, shapes = (product(jnp.concatenate(arrays), view.T) for arrays in zip(*parts, strict=True))
    starts, ends = (product(points, view.T) for points in (stem.starts, stem.ends))
    return Ellipsoids(centers, shapes), TaperedCylinders(starts, ends, stem.radii)


def _parts(variant: str) -> tuple[int, ...]:
    check_choice("variant", variant, VARIANTS)
    return VARIANTS[variant]


def _head(factors: Factors, neck):
    """Axes of the disc (third one: where the flower looks), and axes and centers of the petals."""
    head = rotation(0, -factors.pitch)
    angles = factors.phase + 2 * jnp.pi * jnp.arange(NUM_PETALS) / NUM_PETALS

    def petal(angle):
        axes = product(head, rotation(2, angle), rotation(1, -0.32))  # a shallow cup
        out = product(head, rotation(2, angle), jnp.array([1.0, 0.0, 0.0]))
        return axes, neck + 0.36 * out + 0.04 * head[:, 2]

    axes, centers = jax.vmap(petal)(angles)
    return head, axes, centers


def _leaves(knee):
    """Three leaves around the stem at different heights, pointing outward and up."""
    places = jnp.array([[0.15, -0.52], [2.6, -0.36], [4.6, -0.66]])  # azimuth, height

    def leaf(place):
        axes = product(rotation(1, place[0]), rotation(2, 0.55), rotation(0, 0.5))
        root = jnp.array([knee[0] * 0.6, place[1], 0.0])
        return root + 0.34 * axes[:, 0], axes

    return jax.vmap(leaf)(places)


def in_view(factors: Factors) -> Float[Array, "3 3"]:
    """Returns the rotation from the world of the flower to that of the viewer."""
    return product(rotation(2, factors.roll), rotation(0, factors.elevation), rotation(1, factors.azimuth))


def product(*matrices: Array) -> Array:
    """Returns the matrix product from left to right, in float32 where a device would round its factors.

    GPUs and TPUs multiply float32 matrices with 10 or 8 bits of each number unless they are asked for more,
    and the flower would have another shape there than on a CPU.
    """
    return functools.reduce(functools.partial(jnp.matmul, precision="highest"), matrices)


def _ellipsoids(centers, axes, radii) -> Ellipsoids:
    return Ellipsoids(centers, jnp.swapaxes(axes, 1, 2) / jnp.array(radii)[None, :, None])


def rotation(axis: int, angle: Float[Array, ""] | float) -> Float[Array, "3 3"]:
    """Returns the rotation around an axis of the viewer: 0 to the right, 1 up, 2 out of the image."""
    c, s, i, j = jnp.cos(angle), jnp.sin(angle), (axis + 1) % 3, (axis + 2) % 3
    rows: list[list[Any]] = np.eye(3).tolist()
    rows[i][i], rows[i][j], rows[j][i], rows[j][j] = c, -s, s, c
    return jnp.stack([jnp.stack([jnp.asarray(x, jnp.float32) for x in row]) for row in rows])
