"""Layers of several published networks, as their frameworks define them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from vexplain.typing import Array, Float, Images

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(
    images: Images, mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "batch height width channels"]:
    """Returns `(images - mean) / std`, channel by channel.

    Raises:
        ValueError: the images have another number of channels.
    """
    if images.ndim != 4 or images.shape[-1] != len(mean):
        raise ValueError(
            f"images has shape {images.shape}: this network expects (batch, height, width, {len(mean)}); "
            "repeat a gray channel, drop alpha"
        )
    images = jnp.asarray(images)
    return (images - jnp.asarray(mean, images.dtype)) / jnp.asarray(std, images.dtype)


def max_pool(
    x: Float[Array, "batch height width channels"],
    window: int,
    stride: int,
    padding: tuple[int, int] = (0, 0),
) -> Float[Array, "batch _height _width channels"]:
    """Returns the maximum over square windows; padding (before, after) is never the maximum."""
    sizes, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, sizes, strides, ((0, 0), padding, padding, (0, 0)))


def adaptive_average_pool(
    x: Float[Array, "batch height width channels"], size: int
) -> Float[Array, "batch size size channels"]:
    """Returns means over `size` × `size` windows that cover the map, as PyTorch places them.

    Window i goes from ⌊i·H/size⌋ to ⌈(i + 1)·H/size⌉. A map that has this size already is returned as it is.

    Example:
        >>> print(adaptive_average_pool(jnp.arange(3.0).reshape(1, 3, 1, 1), 2)[0, :, 0, 0])
        [0.5 1.5]
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length == size:
            continue
        bounds = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        parts = [lax.slice_in_dim(x, a, b, axis=axis).mean(axis, keepdims=True) for a, b in bounds]
        x = jnp.concatenate(parts, axis=axis)
    return x


def local_response_norm(
    x: Float[Array, "batch height width channels"],
    *,
    size: int = 5,
    kappa: float = 2.0,
    alpha: float = 1e-4,
    beta: float = 0.75,
) -> Float[Array, "batch height width channels"]:
    """Returns x_c / (κ + α Σ_{c'} x_{c'}²)^β, the sum over `size` neighboring channels.

    α is not divided by `size`, which is odd: MatConvNet's convention, whereas Caffe and PyTorch divide it.

    References:
        Krizhevsky, Sutskever, Hinton, ImageNet Classification with Deep Convolutional Neural Networks, 2012,
        Section 3.3.

    Example:
        >>> x = jnp.array([1.0, 2.0, 0.0]).reshape(1, 1, 1, 3)
        >>> print(local_response_norm(x, size=3, kappa=1.0, alpha=1.0, beta=1.0).ravel())
        [0.16666667 0.33333334 0.        ]
    """
    half = size // 2
    window, ones = (1, 1, 1, size), (1, 1, 1, 1)
    pads = ((0, 0), (0, 0), (0, 0), (half, half))
    energy = lax.reduce_window(x**2, 0.0, lax.add, window, ones, pads)
    return x * (kappa + alpha * energy) ** -beta


def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns x Φ(x), the exact GELU of PyTorch and not its tanh approximation."""
    return jax.nn.gelu(x, approximate=False)


def layer_norm(width: int, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Returns a normalization of `width` channels with the ε of transformers."""
    return nnx.LayerNorm(width, epsilon=1e-6, use_fast_variance=False, rngs=rngs)
