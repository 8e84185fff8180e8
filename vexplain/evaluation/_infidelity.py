"""Whether attributions predict what a perturbation of the image does to the score."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.attribution import Score, logit
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation._regions import Keys, image_keys
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Images, PyTree, Variables

PERTURBATIONS = ("square", "noisy baseline")


@compiled_metric
def infidelity(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    channel_attributions: Float[Array | np.ndarray, "batch height width channels"],
    *,
    key: Keys,
    score: Score = logit,
    perturbation: Literal["square", "noisy baseline"] = "square",
    size: int | None = None,
    noise_level: float = 0.2,
    num_samples: int = 100,
    baseline: float | AnyArray = 0.0,
    is_rescaled: bool = False,
) -> Float[Array, " batch"]:
    """Returns how far the score's change under a perturbation is from what the attributions say.

        INFD = E_I [ (β Iᵀ a - (y(x) - y(x - I)))² ]

    with I = x - baseline in a square at a random place, 0 elsewhere ("square"), or I = x - (baseline + ε),
    with ε of a normal distribution ("noisy baseline"). The attributions a are of the *gradient's* kind, with
    the unit score per intensity, as the gradient or SmoothGrad and not as input × gradient. β is 1, or makes
    the infidelity least ("rescaled"): β = E[Iᵀa (y(x) - y(x - I))] / E[(Iᵀa)²], to compare methods of
    different units. Quantus draws no squares: it covers all patches of a grid one after the other, and those
    before stay covered.

    Args:
        channel_attributions: (batch, height, width, channels), or one channel for all.
        perturbation: "square" or "noisy baseline".
        size: side of the squares in pixels; an eighth of the shorter side if left out.
        noise_level: standard deviation of ε.
        num_samples: how many perturbations.
        baseline: a number, (channels,), or an array that broadcasts to the images.
        is_rescaled: whether β is fitted, for each image.

    Returns:
        (batch,), 0 or more in the square of the score's unit, lower is better; 0 for the gradient of a linear
        network.

    References:
        Yeh, Hsieh, Suggala, Inouye, Ravikumar, On the (In)fidelity and Sensitivity of Explanations, NeurIPS
        2019, Definition 2.1 and Section 2.

    Example:
        >>> apply, total = lambda variables, images: 2 * images.sum((1, 2, 3)), lambda outputs, _: outputs
        >>> images = jnp.ones((1, 4, 4, 1))
        >>> arguments = (apply, None, images, None)
        >>> print(infidelity(*arguments, 2 * images, score=total, key=jax.random.key(0)).round(6))
        [0.]
        >>> print(infidelity(*arguments, images, score=total, size=2, key=jax.random.key(0)))
        [16.]
    """
    check_choice("perturbation", perturbation, PERTURBATIONS)
    check_positive(num_samples=num_samples)
    images = jnp.asarray(images)
    shape = images.shape
    given = jnp.shape(channel_attributions)
    if given not in (shape, (*shape[:3], 1)):
        raise ValueError(f"channel_attributions has shape {given}: expected {shape}, or one channel")
    side = max(min(shape[1:3]) // 8, 1) if size is None else size
    if not 1 <= side <= min(shape[1:3]):
        raise ValueError(f"size is {size}: expected 1 to {min(shape[1:3])} pixels, the shorter side")
    keys = image_keys("infidelity", key, len(images))
    cover = broadcast_baseline(baseline, images)
    whole = score(apply(variables, images), targets)

    def of_draw(n):
        drawn = jax.vmap(lambda key: jax.random.fold_in(key, n))(keys)
        if perturbation == "square":
            change = jnp.where(_squares(drawn, shape, side)[..., None], images - cover, 0)
        else:
            noise = jax.vmap(lambda key: jax.random.normal(key, shape[1:], images.dtype))(drawn)
            change = images - (cover + noise_level * noise)
        left = score(apply(variables, images - change), targets)
        return (change * channel_attributions).sum((1, 2, 3)), whole - left

    said, lost = jax.lax.map(of_draw, jnp.arange(num_samples))
    if is_rescaled:
        power = (said**2).mean(0)
        said = said * jnp.where(power > 0, (said * lost).mean(0) / jnp.where(power > 0, power, 1), 0)
    return ((said - lost) ** 2).mean(0)


def _squares(keys: Any, shape: tuple[int, ...], side: int) -> Array:
    """Returns a square of ones at a random place of each image."""
    rows, columns = jnp.arange(shape[1]), jnp.arange(shape[2])

    def one(key):
        for_top, for_left = jax.random.split(key)
        top = jax.random.randint(for_top, (), 0, shape[1] - side + 1)
        left = jax.random.randint(for_left, (), 0, shape[2] - side + 1)
        is_row, is_column = (rows >= top) & (rows < top + side), (columns >= left) & (columns < left + side)
        return is_row[:, None] & is_column

    return jax.vmap(one)(keys)
