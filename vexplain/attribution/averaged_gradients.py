"""Gradients averaged over copies of the image: noisy ones, or those on the way from a baseline to it.

The copies are taken one after the other in one compiled loop, so that memory does not grow with their number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vexplain.attribution.backpropagation import gradient
from vexplain.transforms import fast_in_loops
from vexplain.typing import AnyArray, Array, Attributions, Images, Key, PyTree, ScoreFn, Shaped, Variables


def smooth_grad(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    key: Key | Shaped[Array, " batch"],
    num_samples: int = 50,
    noise_level: float = 0.15,
) -> Attributions:
    """Returns the mean gradient of the score over images with Gaussian noise.

        M(x) = 1/n Σ_i ∂y/∂x (x + σ ε_i),        σ = noise_level · (max x - min x), for each image

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        key: of the noise; or (batch,), one for each image, so that its noise is the same in any batch.
        num_samples: n. Memory does not depend on it.
        noise_level: σ as a share of the range of the image, in [0, 1].

    Raises:
        ValueError: `num_samples` is less than 1, or `noise_level` is negative.

    References:
        Smilkov et al., SmoothGrad: Removing Noise by Adding Noise, 2017, Section 3.

    Example:
        >>> score = lambda variables, images, targets: (images**2).sum((1, 2, 3))
        >>> images = jnp.array([[[[0.0], [1.0]]]])
        >>> key = jax.random.key(0)
        >>> print(smooth_grad(score, None, images, None, key=key, num_samples=1000).round(1).ravel())
        [0. 2.]
    """
    _check_count("num_samples", num_samples)
    if noise_level < 0:
        raise ValueError(
            f"noise_level is {noise_level}: expected a share of the range of the image, 0 or more"
        )
    images = jnp.asarray(images)
    deviation = noise_level * jnp.ptp(images, axis=(1, 2, 3), keepdims=True)

    def sample(n):
        return gradient(score_fn, variables, images + deviation * _noise(key, n, images), targets)

    return _mean(sample, num_samples, images)


def integrated_gradients(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    baseline: float | AnyArray = 0.0,
    num_steps: int = 50,
) -> Attributions:
    """Returns the gradient of the score integrated on the straight way from a baseline to the image.

        IG(x) = (x - x') ∫₀¹ ∂y/∂x (x' + α (x - x')) dα ≈ (x - x') 1/n Σ_i ∂y/∂x (x' + (i - ½)/n (x - x'))

    The integral is a Riemann sum by the *midpoint rule*: n steps of equal length, the gradient at the middle
    of each. Exact attributions of an image sum to y(x) - y(x') (completeness): that tells whether n suffices.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        baseline: x', an image without information: a number, or an array that broadcasts to the images, in
            [0, 1].
        num_steps: n. Memory does not depend on it.

    Raises:
        ValueError: `num_steps` is less than 1, or the baseline does not broadcast to the images.

    References:
        Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks, ICML 2017, Equations 1 and 3.

    Example:
        >>> score = lambda variables, images, targets: images.prod((1, 2, 3))
        >>> images = jnp.array([[[[2.0], [3.0]]]])
        >>> [f"{v:.3f}" for v in integrated_gradients(score, None, images, None).ravel()]
        ['3.000', '3.000']
    """
    _check_count("num_steps", num_steps)
    images = jnp.asarray(images)
    start = broadcast_baseline(baseline, images)

    def step(n):
        way = (jnp.asarray(n, images.dtype) + 0.5) / num_steps
        return gradient(score_fn, variables, start + way * (images - start), targets)

    return (images - start) * _mean(step, num_steps, images)


def broadcast_baseline(baseline: float | AnyArray, images: Array) -> Array:
    """Returns a baseline as an array of the shape of the images.

    Args:
        baseline: a number, or an array that broadcasts to the images.
        images: (batch, height, width, channels).

    Raises:
        ValueError: it does not broadcast to them.
    """
    value = jnp.asarray(baseline, images.dtype)
    try:
        return jnp.broadcast_to(value, images.shape)
    except ValueError as error:
        raise ValueError(
            f"baseline has shape {value.shape}: expected a number, (channels,) or an array that broadcasts "
            f"to the images, {images.shape}"
        ) from error


def _noise(key: Any, n: Any, images: Array) -> Array:
    def one(key, image):
        return jax.random.normal(jax.random.fold_in(key, n), image.shape, image.dtype)

    is_one_for_each = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 1
    return (jax.vmap(one) if is_one_for_each else one)(key, images)


def _mean(sample: Callable[[Any], Array], count: int, images: Array) -> Array:
    sample = fast_in_loops(sample)
    total = jax.lax.fori_loop(0, count, lambda n, total: total + sample(n), jnp.zeros_like(images))
    return total / count


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{name} is {count}: expected 1 or more")
