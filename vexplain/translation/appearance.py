"""Appearance of a translated object: its colors and its pixels against those of the true object.

Colors are means over the foreground or the background of each image, so that a wrong shape costs little.
Pixels are compared in the region of a mask: over whole images these measures mostly count background, and a
copy of the input scores well. In an empty region nothing differs.

In all functions:
    images: (batch, height, width, channels) in [0, 1].
    masks: (batch, height, width) in [0, 1]; the region is where they are at least one half.
    colors: (..., 3) sRGB in [0, 1], for instance from `mean_color`.
    truth: images or colors of the true object.
"""

import jax
import jax.numpy as jnp

from vexplain.datasets.filters import ssim_map
from vexplain.typing import Array, Float, Images, Masks

XYZ_OF_RGB = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE_D65 = (0.95047, 1.0, 1.08883)
LEAST_CHROMA = 1 / 255  # below it a color is gray and its hue is that of rounding
LEAST_PATTERN = 2 / 255  # standard deviation of colors over a region below which it counts as plain
LEAST_SQUARED_ERROR = 1e-10  # PSNR ends at 100 dB, so that means over examples stay finite


@jax.jit
def mean_color(images: Images, masks: Masks) -> Float[Array, "batch channels"]:
    """Returns the mean color of each image over a region; over the whole image where the region is empty."""
    region = masks >= 0.5
    region = jnp.where(region.any((1, 2), keepdims=True), region, True)
    return (images * region[..., None]).sum((1, 2)) / region.sum((1, 2))[:, None]


@jax.jit
def lab_from_rgb(colors: Float[Array, "*shape 3"]) -> Float[Array, "*shape 3"]:
    """Returns colors in CIELAB: L* in [0, 100], a* and b* about -128 to 127.

    sRGB is made linear, taken to XYZ and divided by the white of D65; with f(t) = t^(1/3), or
    (24389/27 t + 16) / 116 below (6/29)³: L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), b* = 200 (f(Y) - f(Z)).

    References:
        IEC 61966-2-1 (sRGB), 1999; CIE 15, Colorimetry, 2004.
    """
    bright = colors > 0.04045
    linear = jnp.where(bright, ((jnp.where(bright, colors, 1) + 0.055) / 1.055) ** 2.4, colors / 12.92)
    ratios = jnp.einsum("...c,xc->...x", linear, jnp.array(XYZ_OF_RGB), precision="highest")
    ratios = ratios / jnp.array(WHITE_D65)
    f = jnp.where(ratios > (6 / 29) ** 3, jnp.cbrt(ratios), (24389 / 27 * ratios + 16) / 116)
    x, y, z = jnp.moveaxis(f, -1, 0)
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@jax.jit
def delta_e(colors: Float[Array, "batch 3"], truth: Float[Array, "batch 3"]) -> Float[Array, " batch"]:
    """Returns the CIE 1976 color difference: the distance in CIELAB, where about 2.3 is just noticeable."""
    return jnp.linalg.norm(lab_from_rgb(colors) - lab_from_rgb(truth), axis=-1)


@jax.jit
def hue(colors: Float[Array, "*shape 3"]) -> Float[Array, "*shape"]:
    """Returns the hue of HSV in degrees, in [0, 360): 0 red, 120 green, 240 blue; 0 for gray.

    Example:
        >>> print(hue(jnp.array([[1.0, 0.5, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 1.0]])))
        [ 30. 180. 270.]
    """
    red, green, blue = jnp.moveaxis(colors, -1, 0)
    highest, chroma = colors.max(-1), _chroma(colors)
    divisor = jnp.where(chroma > 0, chroma, 1)
    sector = jnp.where(
        highest == red,
        (green - blue) / divisor % 6,
        jnp.where(highest == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    return jnp.where(chroma > 0, 60 * sector % 360, 0.0)


@jax.jit
def hue_error(colors: Float[Array, "batch 3"], truth: Float[Array, "batch 3"]) -> Float[Array, " batch"]:
    """Returns the angle between two hues of HSV, around the circle, in degrees from 0 to 180.

    Gray has no hue: the error is then 90, the mean of chance, or 0 where the truth itself is gray.
    """
    turn = jnp.abs(hue(colors) - hue(truth))
    error = jnp.where(_chroma(colors) < LEAST_CHROMA, 90.0, jnp.minimum(turn, 360 - turn))
    return jnp.where(_chroma(truth) < LEAST_CHROMA, 0.0, error)


@jax.jit
def masked_l1(images: Images, truth: Images, masks: Masks) -> Float[Array, " batch"]:
    """Returns the mean absolute difference over a region and all channels, in [0, 1]."""
    return _mean_over(masks, jnp.abs(images - truth).mean(-1), empty=0.0)


@jax.jit
def masked_psnr(images: Images, truth: Images, masks: Masks) -> Float[Array, " batch"]:
    """Returns the peak signal-to-noise ratio over a region, -10 log₁₀(mean squared error), at most 100 dB."""
    squared = _mean_over(masks, jnp.square(images - truth).mean(-1), empty=0.0)
    return -10 * jnp.log10(jnp.maximum(squared, LEAST_SQUARED_ERROR))


@jax.jit
def masked_ssim(images: Images, truth: Images, masks: Masks) -> Float[Array, " batch"]:
    """Returns the structural similarity, averaged over a region and all channels, in [-1, 1].

    Neighborhoods are those of the whole images, so that the outline counts.
    """
    return _mean_over(masks, ssim_map(images, truth).mean(-1), empty=1.0)


@jax.jit
def texture_correlation(images: Images, truth: Images, masks: Masks) -> Float[Array, " batch"]:
    """Returns how well a pattern agrees with the true one over a region, in [-1, 1] (*ours*).

    The correlation of all pixels and channels after the mean color of the region was subtracted from each
    image: a right color alone scores 0. The region are the pixels of a mask of 0.99 or more, away from the
    outline, where colors are mixed with the background. NaN where the truth has no pattern there, and 0 where
    only the output has none.

    Example:
        >>> truth = jnp.array([0.2, 0.8, 0.2, 0.8]).reshape(1, 1, 4, 1)
        >>> print(texture_correlation(truth / 2, truth, jnp.ones((1, 1, 4))))
        [1.]
    """
    region = jnp.asarray(masks) >= 0.99
    count = region.sum((1, 2))

    def pattern(x):
        return region[..., None] * (x - mean_color(x, region.astype(x.dtype))[:, None, None])

    ours, true = pattern(images), pattern(truth)
    product, ours, true = ((a * b).sum((1, 2, 3)) for a, b in ((ours, true), (ours, ours), (true, true)))
    least = LEAST_PATTERN**2 * count * truth.shape[-1]
    correlation = product / jnp.sqrt(jnp.maximum(ours * true, 1e-12))
    return jnp.where(true > least, jnp.where(ours > least, correlation, 0.0), jnp.nan)


def overlap_error(
    outputs: Images, inputs: Images, output_masks: Masks, input_masks: Masks
) -> Float[Array, " batch"]:
    """Returns the mean absolute difference of output and input where both show the object, in [0, 1].

    It needs no true output: where only the outline changes, the two agree on the intersection (*ours*).

    Args:
        outputs: the translations.
        inputs: the images they were translated from.
        output_masks: the object in the other shape.
        input_masks: the object in its own shape.
    """
    return masked_l1(outputs, inputs, jnp.minimum(output_masks, input_masks))


def _mean_over(masks: Masks, values: Array, *, empty: float) -> Float[Array, " batch"]:
    region = masks >= 0.5
    area = region.sum((1, 2))
    return jnp.where(area > 0, (region * values).sum((1, 2)) / jnp.maximum(area, 1), empty)


def _chroma(colors: Array) -> Array:
    return colors.max(-1) - colors.min(-1)
