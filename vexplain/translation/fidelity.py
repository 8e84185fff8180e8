"""How close an image is to another, pixel by pixel, where it matters: in the region of a mask.

Over whole images these measures mostly count background, and a copy of the input scores well. The region is
where a mask is at least one half; in an empty one nothing can differ, and the values are those of equal
images.
"""

import jax.numpy as jnp

from vexplain.datasets.blur import gaussian_blur
from vexplain.typing import Array, Float, Images, Masks

LEAST_SQUARED_ERROR = 1e-10  # PSNR ends at 100 dB, so that means over examples stay finite


def masked_l1(images: Images, truth: Images, masks: Masks) -> Float[Array, " batch"]:
    """Returns the mean absolute difference over a region and all channels, in [0, 1].

    Args:
        images: (batch, height, width, channels) in [0, 1].
        truth: the same, of the true images.
        masks: (batch, height, width) in [0, 1].

    Example:
        >>> masks = jnp.array([[[1.0, 0.0]]])
        >>> print(masked_l1(jnp.zeros((1, 1, 2, 3)), jnp.full((1, 1, 2, 3), 0.25), masks))
        [0.25]
    """
    return _mean_over(masks, jnp.abs(images - truth).mean(-1), empty=0.0)


def masked_psnr(images: Images, truth: Images, masks: Masks) -> Float[Array, " batch"]:
    """Returns the peak signal-to-noise ratio over a region, -10 log₁₀(mean squared error), at most 100 dB.

    Args:
        images: (batch, height, width, channels) in [0, 1].
        truth: the same, of the true images.
        masks: (batch, height, width) in [0, 1].
    """
    squared = _mean_over(masks, jnp.square(images - truth).mean(-1), empty=0.0)
    return -10 * jnp.log10(jnp.maximum(squared, LEAST_SQUARED_ERROR))


def masked_ssim(images: Images, truth: Images, masks: Masks) -> Float[Array, " batch"]:
    """Returns the structural similarity, averaged over a region and all channels, in [-1, 1].

    The map is that of the whole images, so that the outline counts; only its average is over the mask.

    Args:
        images: (batch, height, width, channels) in [0, 1].
        truth: the same, of the true images.
        masks: (batch, height, width) in [0, 1].
    """
    return _mean_over(masks, ssim_map(images, truth).mean(-1), empty=1.0)


def ssim_map(images: Images, truth: Images) -> Float[Array, "batch height width channels"]:
    """Returns the structural similarity of each pixel's neighborhood, in [-1, 1].

    (2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)) with moments under a Gaussian of
    11 x 11 pixels and standard deviation 1.5, C₁ = 0.01², C₂ = 0.03², for data in [0, 1]; mirrored borders.

    Args:
        images: (batch, height, width, channels) in [0, 1].
        truth: the same, of the true images.

    References:
        Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to structural
        similarity, 2004, equation 13.
    """

    def smooth(x):
        return gaussian_blur(x, sigma=1.5, radius=5)

    c_1, c_2 = 0.01**2, 0.03**2
    mean_x, mean_y = smooth(images), smooth(truth)
    variances = smooth(jnp.square(images)) + smooth(jnp.square(truth)) - mean_x**2 - mean_y**2
    covariance = smooth(images * truth) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c_1) / (mean_x**2 + mean_y**2 + c_1)
    return luminance * (2 * covariance + c_2) / (variances + c_2)


def overlap_error(
    outputs: Images, inputs: Images, output_masks: Masks, input_masks: Masks
) -> Float[Array, " batch"]:
    """Returns the mean absolute difference of output and input where both show the object, in [0, 1].

    It needs no true output: where the surface keeps its texture and only the outline changes, the two agree
    on the intersection of their regions (*ours*).

    Args:
        outputs: (batch, height, width, channels) in [0, 1], translated.
        inputs: the images they were translated from.
        output_masks: (batch, height, width) in [0, 1], of the object in the other shape.
        input_masks: of the object in its own shape.
    """
    return masked_l1(outputs, inputs, jnp.minimum(output_masks, input_masks))


def _mean_over(masks: Masks, values: Array, *, empty: float) -> Float[Array, " batch"]:
    region = masks >= 0.5
    area = region.sum((1, 2))
    return jnp.where(area > 0, (region * values).sum((1, 2)) / jnp.maximum(area, 1), empty)
