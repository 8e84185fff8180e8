"""All scores of a shape translation whose true result is known.

A copy of the input has the right appearance in the wrong shape, and the true shape in one color the wrong
appearance. The harmonic mean of shape and appearance is the one number that needs both.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_images
from vexplain.datasets.foreground import estimate_masks
from vexplain.translation import appearance, shape
from vexplain.typing import Array, Float, Images, Masks

L1_OF_WRONG_APPEARANCE = 0.30  # measured: another object's appearance in the true shape and pose


@jax.jit
def shape_appearance_score(
    gain: Float[Array, " batch"], l1: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the harmonic mean of how right the shape is and how right the appearance, in [0, 1].

    S = 2 g a / (g + a), g = clip(IoU gain, 0, 1), a = clip(1 - L1 / 0.30, 0, 1) (*ours*); 0 where both are 0.

    Args:
        gain: from `iou_gain`.
        l1: from `masked_l1`, over the true mask.

    Example:
        >>> print(shape_appearance_score(jnp.array([1.0, 0.0, 1.0]), jnp.array([0.3, 0.0, 0.0])))
        [0. 0. 1.]
    """
    g, a = jnp.clip(gain, 0, 1), jnp.clip(1 - l1 / L1_OF_WRONG_APPEARANCE, 0, 1)
    return jnp.where(g + a > 0, 2 * g * a / jnp.where(g + a > 0, g + a, 1), 0.0)


def translation_scores(
    outputs: Images,
    images_a: Images,
    images_b: Images,
    masks_a: Masks,
    masks_b: Masks,
    *,
    output_masks: Masks | None = None,
) -> dict[str, Float[Array, " batch"]]:
    """Returns every score of a translation that needs no network, one value per example, by name.

    Shape: "iou", "iou_gain", "boundary_f1" in [0, 1] (a gain may be negative), "chamfer" in pixels. Pose:
    "centroid_error" in pixels, "scale_ratio", "rotation_error" in degrees. Appearance: "delta_e" and
    "hue_error" (degrees) between mean colors of the foregrounds, "background_delta_e". Both, on the true
    mask: "l1", "psnr" in dB, "ssim"; against the input: "overlap_error". And "score", of
    `shape_appearance_score`. The mask of an output is that of `datasets.estimate_masks`.

    Args:
        outputs: (batch, height, width, 3) in [0, 1], the translations of `images_a`.
        images_a: the inputs.
        images_b: the true translations.
        masks_a: (batch, height, width) in [0, 1], the objects in `images_a`.
        masks_b: the objects in `images_b`.
        output_masks: the objects in `outputs`, above 0.5; if left out those of `datasets.estimate_masks`, for
            plain backgrounds.

    Raises:
        ValueError: images out of range, or shapes that do not fit.
    """
    for name, images in (("outputs", outputs), ("images_a", images_a), ("images_b", images_b)):
        try:
            check_images(images)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if images.shape != (*masks_b.shape, 3):
            raise ValueError(
                f"{name} has shape {images.shape}: masks_b, {masks_b.shape}, ask for three channels"
            )
    for name, masks in (("masks_a", masks_a), ("output_masks", output_masks)):
        if masks is not None and masks.shape != masks_b.shape:
            raise ValueError(f"{name} has shape {masks.shape}: expected that of masks_b, {masks_b.shape}")
    return _scores(outputs, images_a, images_b, masks_a, masks_b, output_masks)


@jax.jit
def closest_targets(
    outputs: Images,
    targets: Float[Array | np.ndarray, "batch targets height width 3"],
    target_masks: Float[Array | np.ndarray, "batch targets height width"],
) -> tuple[Float[Array, "batch height width 3"], Masks]:
    """Returns, of several true translations of each input, image and mask of the one closest to its output.

    It is the one whose mask overlaps the output's most: where a polygon may become a star of any number of
    spikes, an output is scored against the star that it drew.

    Args:
        outputs: (batch, height, width, 3) in [0, 1].
        targets: the true translations of each input.
        target_masks: their objects, in [0, 1].
    """
    found = estimate_masks(outputs)
    overlaps = jax.vmap(shape.mask_iou, in_axes=(None, 1), out_axes=1)(found, jnp.asarray(target_masks))
    take = jax.vmap(lambda candidates, n: candidates[n])
    chosen = overlaps.argmax(1)
    return take(jnp.asarray(targets), chosen), take(jnp.asarray(target_masks), chosen)


@jax.jit
def _scores(outputs, images_a, images_b, masks_a, masks_b, output_masks):
    found = estimate_masks(outputs) if output_masks is None else jnp.asarray(output_masks > 0.5, jnp.float32)
    iou, l1 = shape.mask_iou(found, masks_b), appearance.masked_l1(outputs, images_b, masks_b)
    gain = shape.iou_gain(iou, shape.mask_iou(masks_a, masks_b))
    color, true_color = appearance.mean_color(outputs, found), appearance.mean_color(images_b, masks_b)
    background, true_background = (
        appearance.mean_color(outputs, 1 - found),
        appearance.mean_color(images_b, 1 - masks_b),
    )
    return {
        "iou": iou,
        "iou_gain": gain,
        "boundary_f1": shape.boundary_f1(found, masks_b),
        "chamfer": shape.chamfer_distance(found, masks_b),
        "centroid_error": shape.centroid_error(found, masks_b),
        "scale_ratio": shape.scale_ratio(found, masks_b),
        "rotation_error": shape.rotation_error(found, masks_b),
        "delta_e": appearance.delta_e(color, true_color),
        "hue_error": appearance.hue_error(color, true_color),
        "background_delta_e": appearance.delta_e(background, true_background),
        "l1": l1,
        "background_l1": appearance.masked_l1(outputs, images_b, 1 - masks_b),
        "psnr": appearance.masked_psnr(outputs, images_b, masks_b),
        "ssim": appearance.masked_ssim(outputs, images_b, masks_b),
        "overlap_error": appearance.overlap_error(outputs, images_a, masks_b, masks_a),
        "score": shape_appearance_score(gain, l1),
    }
