"""Controls: outputs made without learning, which a translation must beat before its scores mean anything.

A copy of the input has the right appearance, the true image with turned hues the right shape, and the nearest
training image looks real. Each is good at something, so a method is compared with the best of them, score by
score. The last one fills the true mask, which no method is told, with the mean color of the input: a higher
score than that needs texture too.

In all functions:
    candidates: (candidates, height, width, channels) in [0, 1], training images of domain B.
"""

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.translation.appearance import mean_color
from vexplain.typing import Array, Float, Images, Masks

OutputImages: TypeAlias = Float[Array, "batch height width channels"]
Candidates: TypeAlias = Float[Array | np.ndarray, "candidates height width channels"]


def translation_controls(
    images_a: Images,
    images_b: Images,
    masks_a: Masks,
    masks_b: Masks,
    *,
    candidates: Candidates,
    wrong_appearance: Images,
) -> dict[str, OutputImages]:
    """Returns the outputs of every control by name, in the order of a table.

    Args:
        images_a: (batch, height, width, 3) in [0, 1], the inputs.
        images_b: the true translations.
        masks_a: (batch, height, width) in [0, 1], the objects in `images_a`.
        masks_b: the objects in `images_b`.
        wrong_appearance: other objects in the true shapes and poses, rendered by the caller.
    """
    return {
        "copy": jnp.asarray(images_a),
        "nearest neighbor": nearest_neighbor(images_a, candidates),
        "mean B image": mean_image(images_a, candidates),
        "hue + 120°": turn_hue(images_b),
        "wrong appearance": jnp.asarray(wrong_appearance),
        "mean color (true mask)": fill_with_mean_color(images_a, masks_a, masks_b),
    }


def nearest_neighbor(images: Images, candidates: Candidates, *, block: int = 256) -> OutputImages:
    """Returns for each image the candidate that is closest in pixels (L2).

    Args:
        block: how many candidates are compared, and copied, at a time.
    """
    nearest = jnp.full(len(images), jnp.inf), jnp.zeros(len(images), jnp.int32)
    for start in range(0, len(candidates), block):
        nearest = _closer(nearest, images, candidates[start : start + block], start)
    return jnp.asarray(candidates[nearest[1]])


def mean_image(images: Images, candidates: Candidates) -> OutputImages:
    """Returns the mean of the candidates, once for each image."""
    mean = jnp.asarray(candidates.mean(0))
    return jnp.broadcast_to(mean, (len(images), *mean.shape))


def turn_hue(images: Float[Array | np.ndarray, "batch height width 3"]) -> OutputImages:
    """Returns images with every hue turned by 120°: red is green, green is blue, blue is red; gray stays.

    A uniform distribution of hues is not changed by this, so no unpaired loss can tell it from the truth.

    Example:
        >>> print(turn_hue(jnp.array([1.0, 0.2, 0.0]).reshape(1, 1, 1, 3)).ravel())
        [0.  1.  0.2]
    """
    return jnp.roll(jnp.asarray(images), 1, axis=-1)


@jax.jit
def fill_with_mean_color(images: Images, masks: Masks, true_masks: Masks) -> OutputImages:
    """Returns the true shape in the mean color of the input's object, on the mean color of its background.

    Args:
        masks: the objects in `images`.
        true_masks: the objects in the true translations.
    """
    color, background = mean_color(images, masks), mean_color(images, 1 - jnp.ceil(masks))
    coverage = jnp.asarray(true_masks)[..., None]
    return coverage * color[:, None, None] + (1 - coverage) * background[:, None, None]


@jax.jit
def paste_into_true_mask(images: Images, masks: Masks, true_masks: Masks) -> OutputImages:
    """Returns the true shape with the input's own pixels where the input shows the object (*ours*).

    Where it does not, the object's mean color. Valid where position and texture stay: it is what copying
    without any continuation of the pattern reaches.

    Args:
        masks: the objects in `images`.
        true_masks: the objects in the true translations.
    """
    filled, coverage = fill_with_mean_color(images, masks, true_masks), jnp.asarray(true_masks)[..., None]
    background = mean_color(images, 1 - jnp.ceil(masks))[:, None, None]
    is_whole = (jnp.asarray(masks) >= 1)[..., None]
    return jnp.where(is_whole, coverage * images + (1 - coverage) * background, filled)


@jax.jit
def _closer(nearest, images, candidates, start):
    """Returns the smaller distances, ||x - c||² without its constant part ||x||², and where they are."""
    best, where = nearest
    images, candidates = (x.reshape(len(x), -1) - 0.5 for x in (images, candidates))  # for precision
    products = jnp.matmul(images, candidates.T, precision="highest")
    distances = jnp.square(candidates).sum(1) - 2 * products
    found = distances.argmin(1)
    distance = distances.min(1)
    return jnp.minimum(best, distance), jnp.where(distance < best, start + found, where)
