"""What varies in try-on: the garment, how its product picture is taken, who wears it in what pose, and where.

The garment is what both pictures share. The product picture has little else; the worn one has a figure and a
background, of which a translation from the product learns only through the context image.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets import appearance
from vexplain.datasets.appearance import TEXTURES, VARIANTS
from vexplain.typing import Array, Float, Int, Key

GARMENT = tuple(appearance.RANGES)  # the names of the factors of the garment
_RANGES = appearance.RANGES | {
    "product_x": (-2 / 64, 2 / 64),
    "product_y": (-2 / 64, 2 / 64),
    "product_scale": (15 / 64, 16.5 / 64),
    "product_rotation": (-0.06, 0.06),
    "product_shade": (0.92, 1.0),
    "center_x": (-5 / 64, 5 / 64),
    "center_y": (2 / 64, 6 / 64),
    "scale": (12 / 64, 14.5 / 64),
    "rotation": (-0.2, 0.2),
    "left_arm": (0.3, 1.9),
    "right_arm": (0.3, 1.9),
    "left_elbow": (-0.2, 1.0),
    "right_elbow": (-0.2, 1.0),
    "left_leg": (0.02, 0.25),
    "right_leg": (0.02, 0.25),
    "skin": (0.0, 1.0),
    "hair": (0.0, 1.0),
    "trousers_hue": (0.0, 1.0),
    "trousers_value": (0.15, 0.6),
    "scene_hue": (0.0, 1.0),
    "scene_saturation": (0.05, 0.45),
    "scene_value": (0.55, 0.95),
    "scene_contrast": (0.1, 0.3),
    "scene_texture": (0.0, len(TEXTURES)),
    "scene_frequency": (6.0, 14.0),
    "scene_angle": (0.0, np.pi),
    "scene_phase": (0.0, 2 * np.pi),
}
_COUNTS = ("texture", "scene_texture")
_PRODUCT = ("product_x", "product_y", "product_scale", "product_rotation", "product_shade")


class Factors(NamedTuple):
    """Everything that varies. All leaves are scalars; angles in radians, lengths in image heights.

    Those of the garment are in both pictures, the next five in the product picture, the others in the worn.
    """

    hue: Float[Array, "..."]  # of the garment's color 1, in turns
    saturation: Float[Array, "..."]  # of color 1; color 2 has half of it
    value: Float[Array, "..."]  # of color 1; color 2 has half of it
    second_hue: Float[Array, "..."]  # of color 2, in turns
    texture: Int[Array, "..."]  # of the garment, which of `TEXTURES`
    frequency: Float[Array, "..."]  # of the texture, half periods a canonical unit
    angle: Float[Array, "..."]  # of the texture
    phase: Float[Array, "..."]  # of the texture
    product_x: Float[Array, "..."]  # center of the garment, right of the middle of the image
    product_y: Float[Array, "..."]  # below it
    product_scale: Float[Array, "..."]  # a canonical unit
    product_rotation: Float[Array, "..."]  # clockwise
    product_shade: Float[Array, "..."]  # gray level of the background
    center_x: Float[Array, "..."]  # middle of the chest, right of the middle of the image
    center_y: Float[Array, "..."]  # below it
    scale: Float[Array, "..."]  # a canonical unit
    rotation: Float[Array, "..."]  # of the whole figure, clockwise
    left_arm: Float[Array, "..."]  # upper arm, from hanging down outward; left and right in the image
    right_arm: Float[Array, "..."]
    left_elbow: Float[Array, "..."]  # from the upper arm to the forearm, outward
    right_elbow: Float[Array, "..."]
    left_leg: Float[Array, "..."]  # from hanging down outward
    right_leg: Float[Array, "..."]
    skin: Float[Array, "..."]  # 0 for the lightest tone, 1 for the darkest
    hair: Float[Array, "..."]  # 0 for black, 1 for blond
    trousers_hue: Float[Array, "..."]  # in turns
    trousers_value: Float[Array, "..."]
    scene_hue: Float[Array, "..."]  # of the background, in turns
    scene_saturation: Float[Array, "..."]
    scene_value: Float[Array, "..."]
    scene_contrast: Float[Array, "..."]  # of its two colors, in values
    scene_texture: Int[Array, "..."]  # which of `TEXTURES`
    scene_frequency: Float[Array, "..."]  # half periods an image height
    scene_angle: Float[Array, "..."]
    scene_phase: Float[Array, "..."]


@functools.partial(jax.jit, static_argnames="variant")
def draw_factors(key: Key, *, variant: str = "U") -> Factors:
    """Returns random factors, uniform within their ranges but for what a variant changes of the garment.

    The garment's appearance has the ranges and the variants of shape swap.

    Args:
        variant: `"U"`, all hues equally likely; `"N"`, skewed; or `"F"`, as U with textures twice as fine.

    Raises:
        ValueError: an unknown variant.
    """
    check_choice("variant", variant, VARIANTS)
    return Factors(**appearance.draw_uniform(key, _RANGES, _COUNTS, variant=variant))


def in_catalog_pose(factors: Factors) -> Factors:
    """Returns factors with the product picture upright in the middle, in mean size before a mean gray.

    How a product picture is taken cannot be seen in the worn one: without this, taking off would have many
    right answers.
    """
    shape = np.shape(factors.product_x)
    means = {name: np.full(shape, np.mean(_RANGES[name]), np.float32) for name in _PRODUCT}
    return factors._replace(**means)
