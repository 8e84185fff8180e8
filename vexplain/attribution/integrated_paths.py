"""Gradients integrated on other ways than a straight one: that of least gradients, and that of less blur.

On any way from an image x' to the image x, Σ ∂y/∂x · Δx over short steps is y(x) - y(x'): attributions of all
of them are complete, and differ in the images that they look at between the two.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.gradients import broadcast_baseline, check_count
from vexplain.transforms import fast_in_loops
from vexplain.typing import AnyArray, Array, Attributions, Float, Targets


@attribution_method
def guided_integrated_gradients(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    baseline: float | AnyArray = 0.0,
    num_steps: int = 50,
    fraction: float = 0.1,
    max_distance: float = 0.1,
) -> Attributions:
    """Returns the gradient of the score integrated on a way that moves pixels of small gradients first.

        M(x) = Σ_t g_t ⊙ (x_t+1 - x_t),        g_t = ∂y/∂x (x_t),        x_0 = x'

    After step t of n, the L1 distance to the image is (1 - (t + 1)/n) of the first one. The numbers of an
    image are moved in the order of |g_t|, a fraction p of them after another, as far as α = (t + 1)/n + d of
    the straight way; those of the last group that is needed, a share of that. Before that, all are brought to
    α = (t + 1)/n - d, so that the way stays near the straight one.

    Args:
        baseline: x', as in `integrated_gradients`.
        num_steps: n.
        fraction: p, in (0, 1].
        max_distance: d, in [0, 1]; with 0 the way is the straight one.

    Raises:
        ValueError: one of them is out of its range, or the baseline does not broadcast to the images.

    References:
        Kapishnikov et al., Guided Integrated Gradients: an Adaptive Path Method for Removing Noise, CVPR
        2021, Algorithm 1. Equal |g| are moved in the order of the pixels (*ours*).

    Example:
        >>> apply = lambda weights, images: images.sum((1, 2)) @ weights
        >>> images, weights = jnp.array([[[[0.5, 1.0]]]]), jnp.array([[4.0, 0.0], [-2.0, 0.0]])
        >>> print(guided_integrated_gradients(apply, weights, images, targets=0).round(3))
        [[[[ 2. -2.]]]]
    """
    check_count("num_steps", num_steps)
    if not 0 < fraction <= 1 or not 0 <= max_distance <= 1:
        raise ValueError(
            f"fraction is {fraction}, max_distance is {max_distance}: expected shares, (0, 1] and [0, 1]"
        )
    start = broadcast_baseline(baseline, images)
    group = int(fraction * (images[0].size - 1)) + 1
    slope = fast_in_loops(lambda x: network.gradient(x, targets))

    def step(t, state):
        x, total = state
        way = jnp.asarray(t + 1, images.dtype) / num_steps
        gradients = slope(x)
        move = jax.vmap(lambda x, g, first, last: _moved(x, g, first, last, way, max_distance, group))
        moved = move(x, gradients, start, images)
        return moved, total + gradients * (moved - x)

    return jax.lax.fori_loop(0, num_steps, step, (start, jnp.zeros_like(images)))[1]


def _moved(x: Any, gradient: Any, start: Any, image: Any, way: Any, distance: float, group: int) -> Any:
    """One image after a step: all at least at `way - distance`, as many as needed at `way + distance`."""
    span = image - start
    done = jnp.where(span == 0, 1, (x - start) / jnp.where(span == 0, 1, span))
    low, high = jnp.maximum(way - distance, 0), jnp.minimum(way + distance, 1)
    done = jnp.maximum(done, low)
    room = (jnp.maximum(high - done, 0) * jnp.abs(span)).ravel()
    needed = ((1 - done) * jnp.abs(span)).sum() - (1 - way) * jnp.abs(span).sum()
    order = jnp.argsort(jnp.where(room > 0, jnp.abs(gradient).ravel(), jnp.inf))
    count = -(-order.size // group)
    rooms = jnp.pad(room[order], (0, count * group - order.size)).reshape(count, group).sum(1)
    before = jnp.cumsum(rooms) - rooms
    share = jnp.clip((needed - before) / jnp.where(rooms > 0, rooms, 1), 0, 1)
    shares = jnp.zeros_like(room).at[order].set(jnp.repeat(share, group)[: order.size]).reshape(x.shape)
    return start + (done + shares * jnp.maximum(high - done, 0)) * span


@attribution_method
def blur_integrated_gradients(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    max_sigma: float | None = None,
    num_steps: int = 50,
) -> Attributions:
    """Returns the gradient of the score integrated on the way from the blurred image to the image.

        M(x) = ∫ ∂y/∂x (L_σ) ⊙ (-∂L_σ/∂σ) dσ from 0 to s ≈ Σ_i ∂y/∂x ((L_i + L_i+1) / 2) ⊙ (L_i+1 - L_i)

    L_σ is the image after a Gaussian blur of standard deviation σ, and L_i that of σ_i = (1 - i/n) s. The
    baseline is the blurred image: what is integrated is the information that less blur brings. The sum over
    an image is y(x) - y(L_s) for small steps, and exactly so where y is quadratic: the gradient is taken in
    the middle of each step (*ours*; the authors' code takes it at the beginning). The blur is that of an
    image that is reflected at its borders (*ours*), a product of its cosine transform with exp(-σ² ω²/2).

    Args:
        max_sigma: s in pixels; a sixth of the longer side if left out (the paper's 50 of 299).
        num_steps: n.

    Raises:
        ValueError: `num_steps` is less than 1, or `max_sigma` is not positive.

    References:
        Xu, Venugopalan, Sundararajan, Attribution in Scale and Space, CVPR 2020, Equation 7.

    Example:
        >>> apply = lambda variables, images: (images**2).sum((1, 2))
        >>> images = jnp.array([[[[0.0, 0.0], [1.0, 0.0]]]])
        >>> found = blur_integrated_gradients(apply, None, images, targets=0, max_sigma=9.0)
        >>> print(found[0, 0, :, 0].round(2), found.sum().round(2))  # the blurred image is 0.5 everywhere
        [-0.25  0.75] 0.5
    """
    check_count("num_steps", num_steps)
    largest = max(images.shape[1:3]) / 6 if max_sigma is None else max_sigma
    if largest <= 0:
        raise ValueError(f"max_sigma is {max_sigma}: expected a positive number of pixels")
    slope = fast_in_loops(lambda x: network.gradient(x, targets))
    first = blurred(images, jnp.asarray(largest, images.dtype))

    def step(i, state):
        last, total = state
        sharper = blurred(images, largest * (1 - jnp.asarray(i + 1, images.dtype) / num_steps))
        return sharper, total + slope((last + sharper) / 2) * (sharper - last)

    return jax.lax.fori_loop(0, num_steps, step, (first, jnp.zeros_like(images)))[1]


def blurred(images: Array, sigma: float | Float[Array, ""]) -> Array:
    """Returns images after a Gaussian blur, as if they were reflected at their borders.

    Args:
        images: (batch, height, width, channels).
        sigma: standard deviation in pixels, 0 or more; may be traced.
    """
    rows, columns = (_blur_matrix(n, sigma, images.dtype) for n in images.shape[1:3])
    return jnp.einsum("hi,wj,nijc->nhwc", rows, columns, images, precision="highest")


def _blur_matrix(size: int, sigma: Any, dtype: Any) -> Float[Array, "_size _size"]:
    """The cosine transform of a row, less of its high frequencies, and back."""
    frequencies = jnp.pi * jnp.arange(size, dtype=dtype) / size
    waves = jnp.cos(frequencies[:, None] * (jnp.arange(size, dtype=dtype) + 0.5)) * jnp.sqrt(2 / size)
    waves = waves.at[0].divide(jnp.sqrt(2.0)).astype(dtype)
    return jnp.matmul(waves.T * jnp.exp(-((sigma * frequencies) ** 2) / 2), waves, precision="highest")
