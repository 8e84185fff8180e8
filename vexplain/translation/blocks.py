"""What the networks of translation are made of: convolutions, and exchanges of pixels for channels.

Parameters begin as standard deviations, which one draw of all of them multiplies (`model.drawn`): a program
that draws each array by itself takes half a minute to compile.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain.typing import Array, Float

SLOPE = 0.2  # of the leaky ReLU


def conv(
    inputs: int,
    outputs: int,
    rngs: nnx.Rngs,
    *,
    kernel: int = 3,
    gain: float = 2.0,
    dtype: Any = None,
) -> nnx.Conv:
    """Returns a convolution of stride 1; `gain` / 2 is the variance of outputs over that of inputs."""
    return nnx.Conv(inputs, outputs, (kernel, kernel), kernel_init=deviations(gain), rngs=rngs, dtype=dtype)


def linear(inputs: int, outputs: int, rngs: nnx.Rngs, *, gain: float = 2.0, dtype: Any = None) -> nnx.Linear:
    """Returns a linear layer, as `conv` of one pixel."""
    return nnx.Linear(inputs, outputs, kernel_init=deviations(gain), rngs=rngs, dtype=dtype)


def deviations(gain: float):
    """Returns an initializer of standard deviations: sqrt(gain / inputs), everywhere."""

    def initial(key, shape, dtype=jnp.float32, out_sharding=None):
        del key, out_sharding
        return jnp.full(shape, math.sqrt(gain / math.prod(shape[:-1])), dtype)

    return initial


def act(x: Array) -> Array:
    """Returns the leaky ReLU."""
    return jax.nn.leaky_relu(x, SLOPE)


def to_depth(x: Float[Array, "n h w c"]) -> Float[Array, "n _h _w _c"]:
    """Returns 2×2 pixels as channels: (n, h / 2, w / 2, 4 c)."""
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4 * c)


def to_space(x: Float[Array, "n h w c"]) -> Float[Array, "n _h _w _c"]:
    """Returns channels as 2×2 pixels: (n, 2 h, 2 w, c / 4)."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, 2 * h, 2 * w, c // 4)
