"""Two colors and a texture: the appearance that rendered objects have, and that a translation must keep.

A texture says which points of an object have its second color. It belongs to the object's own coordinates,
so that the same object looks the same in every domain.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Int, Key, Shaped

TEXTURES = ("solid", "stripes", "checker", "dots")
VARIANTS = ("U", "N", "F")
RANGES = {
    "hue": (0.0, 1.0),
    "saturation": (0.6, 1.0),
    "value": (0.6, 1.0),
    "second_hue": (0.0, 1.0),
    "texture": (0.0, len(TEXTURES)),
    "frequency": (1.0, 2.2),
    "angle": (0.0, np.pi),
    "phase": (0.0, 2 * np.pi),
}
PATTERN = ("texture", "frequency", "angle", "phase")  # all but the colors
HUE_MODES = ((0.60, 0.04, 5.0), (0.28, 0.38, 7.0), (0.12, 0.66, 9.0))  # weight, mean in turns, concentration

_Points = Float[Array, "..."]
_Number = Float[Array | np.ndarray, "..."] | float


def draw_uniform(
    key: Key, ranges: Mapping[str, tuple[float, float]], counts: Sequence[str], *, variant: str
) -> dict[str, Any]:
    """Returns a number of each range by name, uniform but for what a variant changes of the appearance.

    Args:
        ranges: lowest and highest of each number; `RANGES` is a part of it.
        counts: the names of whole numbers, whose range ends before the highest.
        variant: `"U"`, as the ranges say; `"N"`, both hues have a mixture of von Mises densities with unequal
            modes; `"F"`, textures are twice as fine.
    """
    numbers = jax.random.uniform(key, (len(ranges),))
    drawn = {
        name: low + (high - low) * number
        for number, (name, (low, high)) in zip(numbers, ranges.items(), strict=True)
    }
    for name in counts:  # a product with a number just below 1 may round up to the end of the range
        drawn[name] = jnp.minimum(drawn[name].astype(jnp.int32), int(ranges[name][1]) - 1)
    if variant == "N":  # the inverse distribution function
        for name in ("hue", "second_hue"):
            hues = jnp.linspace(0, 1, len(_QUANTILES))
            drawn[name] = jnp.interp(drawn[name], jnp.asarray(_QUANTILES), hues)
    if variant == "F":
        drawn["frequency"] *= 2
    return drawn


def has_second_color(
    x: _Points,
    y: _Points,
    texture: Int[Array, "..."] | int,
    frequency: _Number,
    angle: _Number,
    phase: _Number,
) -> Shaped[Array, "..."]:
    """Returns where points have the second color.

    Stripes sin(a) > .2, checker sin(a) sin(b) > 0, dots sin(a) + sin(b) > .8; a, b at pi f a unit.

    Args:
        x: of points, to the right.
        y: of points, down.
        texture: which of `TEXTURES`.
        frequency: half periods a unit.
        angle: of the stripes, in radians.
        phase: in radians.
    """
    rate = jnp.pi * frequency
    c, s = rate * jnp.cos(angle), rate * jnp.sin(angle)
    a = jnp.sin(c * x + s * y + phase)
    b = jnp.sin(c * y - s * x + phase)
    stripes, checker, dots = a > 0.2, a * b > 0, a + b > 0.8
    return ((texture == 1) & stripes) | ((texture == 2) & checker) | ((texture == 3) & dots)


def two_colors(factors: Any) -> tuple[list[Float[Array, "..."]], list[Float[Array, "..."]]]:
    """Returns the channels of both colors; the second has half of the first one's saturation and value."""
    first = hsv_to_rgb(factors.hue, factors.saturation, factors.value)
    return first, hsv_to_rgb(factors.second_hue, factors.saturation / 2, factors.value / 2)


def hsv_to_rgb(hue: _Number, saturation: _Number, value: _Number) -> list[Float[Array, "..."]]:
    """Returns the channels v - v s max(0, min(k, 4 - k, 1)), k = (n + 6 h) mod 6, for n = 5, 3, 1."""
    channels = []
    for n in (5, 3, 1):
        k = (n + 6 * hue) % 6
        channels.append(value - value * saturation * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))
    return channels


def _hue_quantiles(num_bins: int = 2048) -> np.ndarray:
    """The distribution function of sum_i w_i exp(k_i cos(2 pi (h - m_i))) / (2 pi I0(k_i)) on a grid."""
    hues = (np.arange(num_bins) + 0.5) / num_bins
    density = sum(w * np.exp(k * np.cos(2 * np.pi * (hues - mean))) / np.i0(k) for w, mean, k in HUE_MODES)
    below = np.concatenate([[0.0], np.cumsum(density)])
    return (below / below[-1]).astype(np.float32)


_QUANTILES = _hue_quantiles()
