"""What varies in shape swap: the appearance and pose that both domains share, and each domain's own shape.

Image = R(shape of the domain, b, phi). The shared factors phi are what a translation must keep; the own
factor b of a domain (the corners of the polygon, the spikes of the star, at level 3) is what it may choose.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets import appearance
from vexplain.datasets.appearance import TEXTURES as TEXTURES
from vexplain.datasets.appearance import VARIANTS as VARIANTS
from vexplain.typing import Array, Float, Int, Key, Shaped

NUM_CORNERS = (3, 4, 5, 6)  # of a polygon, domain A of level 3
NUM_SPIKES = (4, 5, 6, 7, 8)  # of a star, domain B of level 3

_RANGES = appearance.RANGES | {
    "shade": (0.8, 1.0),
    "center_x": (-8 / 64, 8 / 64),
    "center_y": (-8 / 64, 8 / 64),
    "scale": (12 / 64, 17 / 64),
    "rotation": (-0.35, 0.35),
    "aspect": (0.4, 0.95),
    "corners": (NUM_CORNERS[0], NUM_CORNERS[-1] + 1),
    "spikes": (NUM_SPIKES[0], NUM_SPIKES[-1] + 1),
}
_COUNTS = ("texture", "corners", "spikes")


class Factors(NamedTuple):
    """Everything that varies. All leaves are scalars; angles in radians, lengths in image heights.

    Shared by the domains (phi): all but `corners` and `spikes`, which are A's and B's own.
    """

    hue: Float[Array, "..."]  # of color 1, in turns
    saturation: Float[Array, "..."]  # of color 1; color 2 has half of it
    value: Float[Array, "..."]  # of color 1; color 2 has half of it
    second_hue: Float[Array, "..."]  # of color 2, in turns
    texture: Int[Array, "..."]  # which of `TEXTURES`
    frequency: Float[Array, "..."]  # of the texture, half periods a canonical unit
    angle: Float[Array, "..."]  # of the texture
    phase: Float[Array, "..."]  # of the texture
    shade: Float[Array, "..."]  # gray level of the background
    center_x: Float[Array, "..."]  # right of the middle of the image
    center_y: Float[Array, "..."]  # below the middle of the image
    scale: Float[Array, "..."]  # a canonical unit: the object's area is pi scale²
    rotation: Float[Array, "..."]  # clockwise
    aspect: Float[Array, "..."]  # height over width, level 2
    corners: Int[Array, "..."]  # of the polygon, domain A of level 3
    spikes: Int[Array, "..."]  # of the star, domain B of level 3

    @property
    def phi(self) -> Shaped[Array | np.ndarray, "... 14"]:
        """The shared factors as a vector."""
        return jnp.stack([jnp.asarray(f, jnp.float32) for f in self[:14]], axis=-1)


@functools.partial(jax.jit, static_argnames=("level", "variant"))
def draw_factors(key: Key, *, level: int = 4, variant: str = "U") -> Factors:
    """Returns random factors, uniform within their ranges but for the hues of variant N.

    At variant U all hues are equally likely, so that a map that turns every hue by 120° fools every
    discriminator and keeps every cycle. At variant N both hues have a mixture of von Mises densities with
    unequal modes (many reds, fewer greens, few blues): a turned hue is seen. Variant F is U with textures
    twice as fine, which need more than a color for each part of an object.

    Args:
        level: 1 to 4. Shape factors are constant where a level does not use them: aspect 1 but at level 2, 4
            corners and 5 spikes but at level 3.
        variant: `"U"`, `"N"` or `"F"`.

    Raises:
        ValueError: an unknown variant.
    """
    check_choice("variant", variant, VARIANTS)
    drawn = appearance.draw_uniform(key, _RANGES, _COUNTS, variant=variant)
    if level != 2:
        drawn["aspect"] = jnp.ones(())
    if level != 3:
        drawn["corners"], drawn["spikes"] = jnp.array(4), jnp.array(5)
    return Factors(**drawn)
