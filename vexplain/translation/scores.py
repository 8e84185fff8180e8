"""The scores of a shape translation whose true result is known, all at once.

No single number suffices: a copy of the input has the right appearance and the wrong shape, and the right
shape filled with any color has no appearance. Shape and appearance are therefore reported side by side, and
their harmonic mean is the one scalar that neither of the two can carry alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_images
from vexplain.datasets.foreground import estimate_masks
from vexplain.translation.color import delta_e, hue_error, mean_color
from vexplain.translation.fidelity import masked_l1, masked_psnr, masked_ssim, overlap_error
from vexplain.translation.pose import centroid_error, rotation_error, scale_ratio
from vexplain.translation.shape import boundary_f1, chamfer_distance, iou_gain, mask_iou
from vexplain.typing import Array, Float, Images, Masks

L1_OF_WRONG_APPEARANCE = 0.30  # measured: another object's appearance in the true shape and pose


def shape_appearance_score(
    gain: Float[Array, " batch"], l1: Float[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns the harmonic mean of how right the shape is and how right the appearance, in [0, 1].

    S = 2 g a / (g + a) with g = clip(IoU gain, 0, 1) and a = clip(1 - L1 / 0.30, 0, 1) (*ours*); 0 where both
    are 0.

    Args:
        gain: from `iou_gain`.
        l1: mean absolute difference over the true mask, from `masked_l1`.

    Example:
        >>> print(shape_appearance_score(jnp.array([1.0, 0.0, 1.0]), jnp.array([0.3, 0.0, 0.0])))
        [0. 0. 1.]
    """
    shape = jnp.clip(gain, 0, 1)
    appearance = jnp.clip(1 - l1 / L1_OF_WRONG_APPEARANCE, 0, 1)
    total = shape + appearance
    return jnp.where(total > 0, 2 * shape * appearance / jnp.where(total > 0, total, 1), 0.0)


def translation_scores(
    outputs: Images, images_a: Images, images_b: Images, masks_a: Masks, masks_b: Masks
) -> dict[str, Float[Array, " batch"]]:
    """Returns every score of a translation that needs no network, one value per example, by name.

    Shape: "iou", "iou_gain", "boundary_f1" in [0, 1] (a gain may be negative), "chamfer" in pixels. Pose:
    "centroid_error" in pixels, "scale_ratio", "rotation_error" in degrees. Appearance: "delta_e" and
    "hue_error" (degrees) between mean colors of the foregrounds, "background_delta_e". Both, on the true
    mask: "l1", "psnr" in dB, "ssim"; against the input: "overlap_error". And "score", their one scalar. The
    region of an output is estimated by `estimate_masks`; those of the inputs and of the truth are given.

    Args:
        outputs: (batch, height, width, 3) in [0, 1], the translations of `images_a`.
        images_a: the inputs.
        images_b: the true translations.
        masks_a: (batch, height, width) in [0, 1], the objects in `images_a`.
        masks_b: the objects in `images_b`.

    Raises:
        ValueError: images out of range, or shapes that do not fit.

    Example:
        >>> images = jnp.full((1, 16, 16, 3), 0.9).at[:, 4:12, 5:9].set(jnp.array([0.8, 0.1, 0.1]))
        >>> masks = jnp.zeros((1, 16, 16)).at[:, 4:12, 5:9].set(1.0)
        >>> scores = translation_scores(images, images, images, masks, masks)
        >>> print(scores["iou"], scores["iou_gain"], scores["l1"], scores["hue_error"])
        [1.] [0.] [0.] [0.]
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
    if masks_a.shape != masks_b.shape:
        raise ValueError(f"masks_a has shape {masks_a.shape}: expected that of masks_b, {masks_b.shape}")
    return _scores(outputs, images_a, images_b, masks_a, masks_b)


def closest_targets(
    outputs: Images,
    targets: Float[Array | np.ndarray, "batch targets height width 3"],
    target_masks: Float[Array | np.ndarray, "batch targets height width"],
) -> tuple[Float[Array, "batch height width 3"], Masks]:
    """Returns, of several true translations of each input, the image and mask that its output chose.

    It is the one whose region overlaps the output's most. Where a polygon may become a star of any number of
    spikes, an output is scored against the star that it drew.

    Args:
        outputs: (batch, height, width, 3) in [0, 1].
        targets: the true translations of each input.
        target_masks: their objects, in [0, 1].
    """
    found = estimate_masks(outputs)
    overlaps = jax.vmap(mask_iou, in_axes=(None, 1), out_axes=1)(found, jnp.asarray(target_masks))
    take = jax.vmap(lambda candidates, n: candidates[n])
    chosen = overlaps.argmax(1)
    return take(jnp.asarray(targets), chosen), take(jnp.asarray(target_masks), chosen)


@jax.jit
def _scores(outputs, images_a, images_b, masks_a, masks_b):
    found = estimate_masks(outputs)
    iou, l1 = mask_iou(found, masks_b), masked_l1(outputs, images_b, masks_b)
    gain = iou_gain(iou, mask_iou(masks_a, masks_b))
    color, true_color = mean_color(outputs, found), mean_color(images_b, masks_b)
    background, true_background = mean_color(outputs, 1 - found), mean_color(images_b, 1 - masks_b)
    return {
        "iou": iou,
        "iou_gain": gain,
        "boundary_f1": boundary_f1(found, masks_b),
        "chamfer": chamfer_distance(found, masks_b),
        "centroid_error": centroid_error(found, masks_b),
        "scale_ratio": scale_ratio(found, masks_b),
        "rotation_error": rotation_error(found, masks_b),
        "delta_e": delta_e(color, true_color),
        "hue_error": hue_error(color, true_color),
        "background_delta_e": delta_e(background, true_background),
        "l1": l1,
        "psnr": masked_psnr(outputs, images_b, masks_b),
        "ssim": masked_ssim(outputs, images_b, masks_b),
        "overlap_error": overlap_error(outputs, images_a, masks_b, masks_a),
        "score": shape_appearance_score(gain, l1),
    }
