"""Gradients of the score by the pixels: plain, times the image, or over copies of the image.

Copies (noisy ones, or those between a baseline and the image) are taken one after the other in one compiled
loop, so that memory does not grow with their number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vexplain.attribution.calling import Network, attribution_method
from vexplain.transforms import fast_in_loops
from vexplain.typing import AnyArray, Array, Attributions, Shaped, Targets


@attribution_method
def gradient(
    network: Network,
    images: Array,
    targets: Targets,
) -> Attributions:
    """Returns the gradient of the score by the images.

    References:
        Simonyan, Vedaldi, Zisserman, Deep Inside Convolutional Networks, 2013.

    Example:
        >>> apply = lambda weights, images: images.mean((1, 2)) @ weights
        >>> weights = jnp.array([[1.0, 0.0], [2.0, 5.0]])
        >>> print(gradient(apply, weights, jnp.ones((1, 1, 2, 2)), targets=0)[0, 0])
        [[0.5 1. ]
         [0.5 1. ]]
    """
    return network.gradient(images, targets)


@attribution_method
def input_x_gradient(
    network: Network,
    images: Array,
    targets: Targets,
) -> Attributions:
    """Returns the images times the gradient of the score by them.

    Of a piecewise linear network without biases, the attributions of an image sum to its score. They measure
    from a black image: a black pixel gets nothing. `integrated_gradients` takes other baselines.

    References:
        Shrikumar et al., Not Just a Black Box, 2016, Section 3.2.

    Example:
        >>> apply = lambda weights, images: images.sum((1, 2)) @ weights
        >>> print(input_x_gradient(apply, 2 * jnp.eye(2), jnp.array([[[[0.5, 1.0]]]]), targets=1))
        [[[[0. 2.]]]]
    """
    return images * network.gradient(images, targets)


@attribution_method
def smooth_grad(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    key: Shaped[Array, " batch"],
    num_samples: int = 50,
    noise_level: float = 0.15,
) -> Attributions:
    """Returns the mean gradient of the score over images with Gaussian noise.

        M(x) = 1/n Σ_i ∂y/∂x (x + σ ε_i),        σ = noise_level · (max x - min x), for each image

    Args:
        num_samples: n.
        noise_level: σ as a share of the range of the image, 0 or more.

    Raises:
        ValueError: no key, `num_samples` is less than 1, or `noise_level` is negative.

    References:
        Smilkov et al., SmoothGrad: Removing Noise by Adding Noise, 2017, Section 3.

    Example:
        >>> apply = lambda variables, images: (images**2).sum((1, 2))
        >>> images, key = jnp.array([[[[0.5, 0.0], [1.0, 0.0]]]]), jax.random.key(0)
        >>> found = smooth_grad(apply, None, images, targets=0, key=key, num_samples=1000)
        >>> print(found[0, 0, :, 0].round(1))
        [1. 2.]
    """
    sample = _noisy_gradient(network, images, targets, key, num_samples, noise_level)
    return _mean(sample, num_samples, images)


@attribution_method
def square_grad(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    key: Shaped[Array, " batch"],
    num_samples: int = 50,
    noise_level: float = 0.15,
) -> Attributions:
    """Returns the mean square of the gradient of the score over images with Gaussian noise, 0 or more.

        M(x) = 1/n Σ_i g_i²,        g_i = ∂y/∂x (x + σ ε_i),        with σ and ε_i as in `smooth_grad`

    It is the square of SmoothGrad plus VarGrad: gradients of changing sign do not cancel.

    Args:
        num_samples: n.
        noise_level: σ as a share of the range of the image, 0 or more.

    Raises:
        ValueError: no key, `num_samples` is less than 1, or `noise_level` is negative.

    References:
        Hooker et al., A Benchmark for Interpretability Methods in Deep Neural Networks, NeurIPS 2019,
        Section 3 (SmoothGrad-Squared).

    Example:
        >>> apply = lambda weights, images: images.sum((1, 2)) @ weights
        >>> images, key = jnp.array([[[[0.5, 1.0]]]]), jax.random.key(0)
        >>> print(square_grad(apply, -3 * jnp.eye(2), images, targets=0, key=key, num_samples=2))
        [[[[9. 0.]]]]
    """
    sample = _noisy_gradient(network, images, targets, key, num_samples, noise_level)
    return _mean(lambda n: sample(n) ** 2, num_samples, images)


@attribution_method
def var_grad(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    key: Shaped[Array, " batch"],
    num_samples: int = 50,
    noise_level: float = 0.15,
) -> Attributions:
    """Returns the variance of the gradient of the score over images with Gaussian noise, 0 or more.

        M(x) = 1/n Σ_i (g_i - mean of g)²,        g_i = ∂y/∂x (x + σ ε_i),        σ, ε_i as in `smooth_grad`

    Where the network is linear it is 0: it shows where the gradient is unsteady, not where it is large. The
    sum of squares is updated sample by sample about the mean so far (Welford), which loses no digits.

    Args:
        num_samples: n.
        noise_level: σ as a share of the range of the image, 0 or more.

    Raises:
        ValueError: no key, `num_samples` is less than 1, or `noise_level` is negative.

    References:
        Adebayo et al., Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter
        Values, ICLR Workshops 2018, Section 2 (VarGrad).

    Example:
        >>> apply = lambda variables, images: (images**2).sum((1, 2)) / 2
        >>> images, key = jnp.array([[[[0.5, 0.0], [1.0, 0.0]]]]), jax.random.key(0)
        >>> found = var_grad(apply, None, images, targets=0, key=key, num_samples=1000, noise_level=0.5)
        >>> print(abs(found[0, 0, :, 0] - 0.5**2) < 0.05)  # σ is half of the range
        [ True  True]
    """
    sample = fast_in_loops(_noisy_gradient(network, images, targets, key, num_samples, noise_level))

    def step(n, state):
        mean, squares = state
        found = sample(n)
        away = found - mean
        mean = mean + away / (n + 1)
        return mean, squares + away * (found - mean)

    zeros = jnp.zeros_like(images)
    return jax.lax.fori_loop(0, num_samples, step, (zeros, zeros))[1] / num_samples


@attribution_method
def integrated_gradients(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    baseline: float | AnyArray = 0.0,
    num_steps: int = 50,
) -> Attributions:
    """Returns the gradient of the score integrated on the straight way from a baseline to the image.

        IG(x) = (x - x') ∫₀¹ ∂y/∂x (x' + α (x - x')) dα ≈ (x - x') 1/n Σ_i ∂y/∂x (x' + (i - ½)/n (x - x'))

    The integral is a Riemann sum by the *midpoint rule*. Exact attributions of an image sum to y(x) - y(x')
    (completeness): that tells whether n suffices.

    Args:
        baseline: x', an image without information: a number, or an array that broadcasts to the images, in
            [0, 1].
        num_steps: n.

    Raises:
        ValueError: `num_steps` is less than 1, or the baseline does not broadcast to the images.

    References:
        Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks, ICML 2017, Equations 1 and 3.

    Example:
        >>> apply = lambda variables, images: images.prod((1, 2))
        >>> images = jnp.array([[[[0.5, 0.0], [1.0, 0.0]]]])
        >>> print(integrated_gradients(apply, None, images, targets=0)[0, 0, :, 0].round(3))
        [0.25 0.25]
    """
    return integrated(network, images, targets, baseline, num_steps)


def integrated(
    network: Network, images: Array, targets: Targets, baseline: float | AnyArray, num_steps: int
) -> Attributions:
    """What `integrated_gradients` returns, for methods that are made of it."""
    check_count("num_steps", num_steps)
    start = broadcast_baseline(baseline, images)

    def step(n):
        way = (jnp.asarray(n, images.dtype) + 0.5) / num_steps
        return network.gradient(start + way * (images - start), targets)

    return (images - start) * _mean(step, num_steps, images)


@attribution_method
def expected_gradients(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    key: Shaped[Array, " batch"],
    baselines: AnyArray | None = None,
    num_samples: int = 50,
) -> Attributions:
    """Returns integrated gradients in the mean over baselines, also called GradientSHAP.

        EG(x) = E over x' ~ D, α ~ U(0, 1) of (x - x') ∂y/∂x (x' + α (x - x'))

    Samples come in pairs of one baseline, α and 1 - α, so that gradients linear in α are integrated exactly.
    No baseline is drawn again before all were. Exact attributions of an image sum to y(x) - E y(x').

    Args:
        baselines: D, images (number, height, width, channels) such as some of the training images; axes of 1
            broadcast to the images. Left out, images of uniform noise, a new one for each pair.
        num_samples: gradients an image; of an odd number the last has no pair.

    Raises:
        ValueError: `num_samples` is less than 1, or the baselines do not fit the images.

    References:
        Erion et al., Improving Performance of Deep Learning Models with Axiomatic Attribution Priors and
        Expected Gradients, Nature Machine Intelligence 2021; Sturmfels, Lundberg, Lee, Visualizing the Impact
        of Feature Attribution Baselines, Distill 2020, for noise. The pairs are ours.

    Example:
        >>> apply = lambda variables, images: (images**2).sum((1, 2))
        >>> images, baselines = jnp.array([[[[0.5, 0.0], [1.0, 0.0]]]]), jnp.zeros((1, 1, 1, 2))
        >>> options = {"baselines": baselines, "key": jax.random.key(0)}
        >>> print(expected_gradients(apply, None, images, targets=0, **options)[0, 0, :, 0].round(5))
        [0.25 1.  ]
    """
    check_count("num_samples", num_samples)
    given = images[:0] if baselines is None else _checked_baselines(baselines, images)

    def sample(n):
        keys = jax.vmap(lambda k: jax.random.fold_in(k, n // 2))(key)
        if baselines is None:
            start = jax.vmap(lambda k: jax.random.uniform(k, images.shape[1:], images.dtype))(keys)
        else:
            rounds, place = jnp.divmod(n // 2, len(given))
            start = jax.vmap(lambda k: given[_shuffled(k, rounds, len(given))[place]])(key)
        drawn = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 1), dtype=images.dtype))(keys)
        way = jnp.where(n % 2 == 0, drawn, 1 - drawn)[:, None, None, None]
        return (images - start) * network.gradient(start + way * (images - start), targets)

    return _mean(sample, num_samples, images)


def broadcast_baseline(baseline: float | AnyArray, images: Array) -> Array:
    """Returns a baseline as an array of the shape of the images.

    Args:
        baseline: a number, or an array that broadcasts to the images.

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


def _checked_baselines(baselines: AnyArray, images: Array) -> Array:
    given = jnp.asarray(baselines, images.dtype)
    pairs = zip(given.shape[1:], images.shape[1:], strict=False)
    if given.ndim != 4 or not len(given) or any(n not in (1, m) for n, m in pairs):
        raise ValueError(
            f"baselines has shape {given.shape}: expected images (number, height, width, channels), where an "
            f"axis of 1 broadcasts to {images.shape[1:]}"
        )
    return given


def _shuffled(key: Array, rounds: Any, count: int) -> Array:
    return jax.random.permutation(jax.random.fold_in(key, rounds), count)


def check_count(name: str, count: int) -> None:
    """Raises ValueError for a number of samples or steps that is less than 1."""
    if count < 1:
        raise ValueError(f"{name} is {count}: expected 1 or more")


def _noisy_gradient(
    network: Network, images: Array, targets: Targets, key: Any, num_samples: int, noise_level: float
) -> Callable[[Any], Array]:
    """The gradient at sample n of the image with noise."""
    check_count("num_samples", num_samples)
    if noise_level < 0:
        raise ValueError(
            f"noise_level is {noise_level}: expected a share of the range of the image, 0 or more"
        )
    deviation = noise_level * jnp.ptp(images, axis=(1, 2, 3), keepdims=True)

    def sample(n):
        noise = jax.vmap(lambda k, x: jax.random.normal(jax.random.fold_in(k, n), x.shape, x.dtype))
        return network.gradient(images + deviation * noise(key, images), targets)

    return sample


def _mean(sample: Callable[[Any], Array], count: int, images: Array) -> Array:
    sample = fast_in_loops(sample)
    total = jax.lax.fori_loop(0, count, lambda n, total: total + sample(n), jnp.zeros_like(images))
    return total / count
