"""What a network uses, found by changing one part of the image at a time: the second ground truth.

A mask says what *should* decide the class. A network may use something else, for instance a patch in a corner
that goes with the class in training; then a map that shows the patch is right and the mask is wrong. The
effect of a part is measured on the network itself, with images that a renderer draws anew
(`datasets.an8flower.intervene`), so that no hole is cut and nothing is inpainted.
"""

import jax
import jax.numpy as jnp

from vexplain.attribution import Score, logit
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Images, PyTree, Variables


def part_effects(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    changed_images: AnyArray,
    targets: PyTree,
    *,
    score: Score = logit,
) -> Float[Array, "batch parts"]:
    """Returns what the score of each image loses when each of its parts is changed.

        effect_{i,p} = y(x_i) - y(x_i with part p changed)

    Positive where the part raises the score of the target, negative where it lowers it. The parts are taken
    one after the other in one compiled loop: memory does not depend on their number.
    `part_effect_correlation` compares the effects with the mass of a map on each part.

    Args:
        changed_images: (batch, parts, height, width, channels): the same with one part changed.

    Returns:
        (batch, parts), in the unit of the score.

    Raises:
        ValueError: the changed images are not those of the images, by their shape.

    References:
        Hesse, Schaub-Meyer, Roth, FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of
        Explainable AI Methods, ICCV 2023 (single deletion).

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.ones((1, 2, 2, 1))
        >>> changed = jnp.stack([images.at[:, 0].set(0.0), images], axis=1)
        >>> print(part_effects(apply, None, images, changed, None, score=total))
        [[2. 0.]]
    """
    images, changed_images = jnp.asarray(images), jnp.asarray(changed_images)
    if changed_images.shape[:1] + changed_images.shape[2:] != images.shape:
        raise ValueError(
            f"changed_images has shape {changed_images.shape}: expected (batch, parts, height, width, "
            f"channels) for images of shape {images.shape}"
        )
    whole = score(apply(variables, images), targets)
    after = jax.lax.map(lambda x: score(apply(variables, x), targets), jnp.moveaxis(changed_images, 1, 0))
    return whole[:, None] - after.T
