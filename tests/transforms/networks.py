"""Small networks in the styles of their authors: NNX, Linen, plain functions; odd sizes throughout.

Each is made once: what is compiled for one test serves the next.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from jax import lax


def made_once(make):
    """`make`, called once for each precision, also within a trace of the caller's: values, never tracers."""
    made = functools.cache(lambda is_double: jax.ensure_compile_time_eval()(make)())
    return functools.wraps(make)(lambda: made(jax.config.jax_enable_x64))


class Blocks(nnx.Module):
    """Convolution, normalization, residual branch with stride, dense head, in NNX."""

    def __init__(self, rngs: nnx.Rngs):
        self.stem = nnx.Conv(3, 6, (5, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(6, use_running_average=True, rngs=rngs)
        self.left = nnx.Conv(6, 7, (3, 3), strides=2, padding="VALID", rngs=rngs)
        self.right = nnx.Conv(6, 7, (1, 1), strides=2, padding="VALID", rngs=rngs)
        self.head = nnx.Linear(7, 5, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.norm(self.stem(images)))
        right = self.right(x)
        left = self.left(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
        x = jnp.maximum(left + right, 0)
        return self.head(x.mean((1, 2)))


@made_once
def nnx_network():
    graph, state = nnx.split(Blocks(nnx.Rngs(0)))
    return (lambda variables, images: nnx.merge(graph, variables)(images)), state


class LinenNet(nn.Module):
    """Linen leaves module paths; the same ReLU is used twice; max and average pooling."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 5))(x))
        x = nn.max_pool(x, (2, 3), (2, 1), padding="SAME")
        x = nn.relu(nn.GroupNorm(2)(nn.Conv(6, (3, 3), padding="VALID")(x)))
        x = nn.avg_pool(x, (2, 2), (2, 2))
        return nn.Dense(5)(x.reshape(x.shape[0], -1))


@made_once
def linen_network():
    net = LinenNet()
    return net.apply, jax.jit(net.init)(jax.random.key(1), jnp.zeros((1, 13, 11, 3)))


@made_once
def plain_network():
    """One strided convolution, ReLU, pooling, in bare `lax`."""
    kernel = jax.random.normal(jax.random.key(2), (4, 3, 3, 6)) / 3
    dense = jax.random.normal(jax.random.key(3), (6, 5))

    def apply(variables, images):
        kernel, bias, dense = variables
        x = lax.conv_general_dilated(
            images, kernel, (3, 2), ((2, 1), (0, 2)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = x + bias
        x = jnp.where(x > 0, x, 0)
        return x.max((1, 2)) @ dense

    return apply, (kernel, jnp.linspace(-0.1, 0.1, 6), dense)


@made_once
def gated_network():
    """A squeeze-and-excite gate on a cropped and flipped map, an inner jit and a remat."""
    k1, k2, k3 = jax.random.split(jax.random.key(4), 3)
    variables = {
        "conv": jax.random.normal(k1, (3, 3, 3, 4)) / 3,
        "gate": jax.random.normal(k2, (4, 4)),
        "dense": jax.random.normal(k3, (4, 5)),
    }

    @jax.checkpoint
    def conv(kernel, x):
        return jax.nn.relu(lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=NHWC))

    @jax.jit
    def apply(variables, images):
        x = conv(variables["conv"], images[:, 1:-2, 2:, :])
        x = x[:, ::-1, ::2]
        x = jnp.flip(x, 2)
        gate = jax.nn.sigmoid(x.mean((1, 2)) @ variables["gate"])
        x = jax.nn.relu(x * gate[:, None, None, :])
        return x.sum((1, 2)) @ variables["dense"]

    return apply, variables


@made_once
def attention_network():
    """Two layers of attention of two heads over a class token and 4 × 3 patches, in bare `jnp`."""
    generator = np.random.default_rng(5)
    shapes = {"patch": (4, 4, 3, 6), "qkv": (2, 6, 18), "out": (2, 6, 6), "token": (1, 1, 6), "dense": (6, 5)}
    variables = {name: jnp.asarray(generator.normal(size=s) / 2, jnp.float32) for name, s in shapes.items()}

    def apply(variables, images):
        x = lax.conv_general_dilated(images, variables["patch"], (4, 4), "SAME", dimension_numbers=NHWC)
        x = x.reshape(len(x), -1, 6)
        first = jnp.broadcast_to(variables["token"], (len(x), 1, 6))
        x = jnp.concatenate([first, x], 1)
        for qkv, out in zip(variables["qkv"], variables["out"], strict=True):
            query, key, value = jnp.moveaxis((x @ qkv).reshape(len(x), -1, 3, 2, 3), 2, 0)
            shares = jax.nn.softmax(jnp.einsum("nqhd,nkhd->nhqk", query, key) / 3**0.5)
            x = x + jnp.einsum("nhqk,nkhd->nqhd", shares, value).reshape(x.shape) @ out
        return x[:, 0] @ variables["dense"]

    return apply, variables


NHWC = ("NHWC", "HWIO", "NHWC")

ALL = {
    "nnx": nnx_network,
    "linen": linen_network,
    "plain": plain_network,
    "gated": gated_network,
}
