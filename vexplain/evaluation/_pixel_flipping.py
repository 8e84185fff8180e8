"""How the score falls or rises when pixels are taken in the order of a map.

Deletion starts from the image and replaces its highest pixels first: a map that knows what the network uses
makes the score fall early. Insertion starts from the baseline and puts the highest pixels back first: the
score rises early. No mask is needed.

In all functions:
    heatmaps: (batch, height, width), of any sign.
    baseline: what replaces a pixel: a number, (channels,), or an array that broadcasts to the images, for
        instance of `blurred_images`.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.attribution import Score, logit
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation.similarity import correlation
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Images, Int, PyTree, Variables

MODES = ("deletion", "insertion")
_Maps = Float[Array, "batch height width"]  # of any sign: only their order counts


class FlippingCurve(NamedTuple):
    """Scores while pixels are flipped, and the area under them.

    `scores` start with no pixel flipped and end with all; `shares` say which part of the pixels was.
    """

    scores: Float[Array, "batch steps"]
    area: Float[Array, " batch"]  # trapezoidal rule over the shares
    shares: Float[Array, " steps"]  # from 0 to 1


@compiled_metric
def pixel_flipping(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: _Maps,
    *,
    score: Score = logit,
    num_steps: int | None = None,
    pixels_per_step: int | None = None,
    baseline: float | AnyArray = 0.0,
    mode: Literal["deletion", "insertion"] = "deletion",
    key: Any = None,
) -> FlippingCurve:
    """Returns the score after each step in which the next highest pixels of a map are replaced, or put back.

    With p_1, ..., p_N the pixels by falling heatmap and n_s their number after step s,

        deletion:   x_s = x with baseline at p_1 ... p_{n_s}
        insertion:  x_s = baseline with x at p_1 ... p_{n_s}        score_s = y(x_s)

    All channels of a pixel are flipped at once. Memory does not depend on the number of steps.

    Args:
        score: what falls or rises; `probability` where areas of several networks are compared.
        num_steps: into how many nearly equal steps all pixels are divided; this or `pixels_per_step`.
        pixels_per_step: how many pixels a step flips; the last one flips what is left.
        mode: "deletion" or "insertion".
        key: puts equal pixels into random order. Without it they go row by row from the top, which flips
            the background first where a map is zero on most of the image. One key, or one an image.

    References:
        Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
        Propagation, 2015 (pixel flipping).
        Petsiuk, Das, Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018
        (deletion and insertion).

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.array([[[[1.0], [4.0], [2.0]]]])
        >>> curve = pixel_flipping(
        ...     apply, None, images, None, images[..., 0], score=total, pixels_per_step=1
        ... )
        >>> print(curve.scores, curve.area.round(3))
        [[7. 3. 1. 0.]] [2.5]
    """
    check_choice("mode", mode, MODES)
    images = jnp.asarray(images)
    counts = flipped_counts(heatmaps[0].size, num_steps, pixels_per_step)
    positions = flipping_positions(heatmaps, key)[..., None]
    cover = broadcast_baseline(baseline, images)
    before, after = (images, cover) if mode == "deletion" else (cover, images)

    def score_after(count):
        return score(apply(variables, jnp.where(positions < count, after, before)), targets)

    scores = jax.lax.map(score_after, counts).T
    shares = counts.astype(scores.dtype) / counts[-1]
    return FlippingCurve(scores, jnp.trapezoid(scores, shares, axis=1), shares)


@compiled_metric
def faithfulness_estimate(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    heatmaps: _Maps,
    *,
    score: Score = logit,
    num_steps: int | None = None,
    pixels_per_step: int | None = None,
    baseline: float | AnyArray = 0.0,
) -> Float[Array, " batch"]:
    """Returns the correlation of the mass of groups of pixels with what the score loses without them.

    Pixels are taken in groups g by falling heatmap: Pearson's r of Σ_{p in g} h_p and
    y(x) - y(x with baseline at g), each group replaced alone.

    Args:
        num_steps: how many groups of nearly equal size; this or `pixels_per_step`.
        pixels_per_step: how many pixels form a group; the last one has what is left.

    Returns:
        (batch,) in [-1, 1]; 0 where all groups sum to the same, or lose the same.

    References:
        Alvarez-Melis, Jaakkola, Towards Robust Interpretability with Self-Explaining Neural Networks, NeurIPS
        2018.

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.array([[[[1.0], [4.0], [2.0]]]])
        >>> found = faithfulness_estimate(
        ...     apply, None, images, None, images[..., 0], score=total, pixels_per_step=1
        ... )
        >>> print(found)
        [1.]
    """
    images = jnp.asarray(images)
    counts = flipped_counts(heatmaps[0].size, num_steps, pixels_per_step)
    positions = flipping_positions(heatmaps, None)
    cover = broadcast_baseline(baseline, images)
    whole = score(apply(variables, images), targets)

    def group(bounds):
        inside = (positions >= bounds[0]) & (positions < bounds[1])
        left = score(apply(variables, jnp.where(inside[..., None], cover, images)), targets)
        return (inside * heatmaps).sum((1, 2)), whole - left

    mass, loss = jax.lax.map(group, jnp.stack([counts[:-1], counts[1:]], axis=1))
    return correlation(mass.T, loss.T)


def flipped_counts(
    num_pixels: int, num_steps: int | None, pixels_per_step: int | None
) -> Int[Array, " steps"]:
    """Returns how many pixels are flipped after each step, from none to all.

    Args:
        num_pixels: of an image.
        num_steps: into how many nearly equal steps they are divided; this or `pixels_per_step`.
        pixels_per_step: how many a step flips.
    """
    given = {"num_steps": num_steps, "pixels_per_step": pixels_per_step}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        raise ValueError(
            f"num_steps is {num_steps} and pixels_per_step is {pixels_per_step}: expected one of the two"
        )
    ((name, value),) = given.items()
    if not 1 <= value <= num_pixels:
        raise ValueError(f"{name} is {value}: expected 1 to {num_pixels}, the number of pixels")
    if num_steps is not None:
        return jnp.arange(num_steps + 1) * num_pixels // num_steps
    return jnp.minimum(jnp.arange(-(-num_pixels // value) + 1) * value, num_pixels)


def flipping_positions(heatmaps: _Maps, key: Any) -> Int[Array, "batch height width"]:
    """Returns each pixel's place in the order of falling values, from 0.

    Args:
        heatmaps: of any sign.
        key: puts equal pixels into random order; one, or one an image.
    """
    falling = -heatmaps.reshape(len(heatmaps), -1)
    tiebreak = jnp.broadcast_to(jnp.arange(falling.shape[1]), falling.shape)
    if key is not None:
        if key.shape == (len(heatmaps),) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            tiebreak = jax.vmap(jax.random.permutation)(key, tiebreak)
        else:
            tiebreak = jax.random.permutation(key, tiebreak, axis=1, independent=True)
    order = jnp.lexsort((tiebreak, falling), axis=1)
    return jnp.argsort(order, axis=1).reshape(heatmaps.shape)
