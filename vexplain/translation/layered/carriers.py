"""Carriers of texture: each brings pixels of the input to every place of the output, with their coverage.

A texture that a network imagines from a code loses its stripes. What is copied keeps them, also where the
output covers what the input does not: a place some periods away looks the same.

In all functions:
    pixels: (batch, height, width, 4), the input in [0, 1] and what its object covers.
    copies: (batch, height, width, copies, 4), pixels of the input.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain.translation.blocks import conv, to_depth, to_space
from vexplain.translation.layered.compositing import eroded, sample_bilinear
from vexplain.typing import Array, Float

_REACH = 8  # a flow of 1 is this part of the image's height
_RATE = 30.0  # β to begin with
_FEW = 0.02  # places of an offset, of those of the object, that weigh as much as the prior error of 1
_POOR = 0.3  # error of an offset that is hardly better than none
_LEAST_VARIANCE = 1e-4  # of colors in [0, 1]: a plain object repeats itself at all offsets


class Flow(nnx.Module):
    """Copies along sampling grids: where each pixel's color comes from, as an offset (appearance flow).

    References:
        Zhou, Tulsiani, Sun, Malik, Efros, View Synthesis by Appearance Flow, ECCV 2016.
    """

    def __init__(self, num_copies: int):
        self.num_copies = num_copies

    @property
    def num_channels(self) -> int:
        """Channels of the offsets."""
        return 2 * self.num_copies

    def __call__(self, pixels: Float[Array, "batch height width 4"], offsets: Array) -> Array:
        n, height, width, _ = pixels.shape
        offsets = offsets.reshape(n, height, width, self.num_copies, 2) * (height / _REACH)
        places = positions_of(height)[:, :, None] + offsets
        copies = sample_bilinear(inside(pixels), places.reshape(n, height, width * self.num_copies, 2))
        return copies.reshape(n, height, width, self.num_copies, 4)


class Attention(nnx.Module):
    """Copies by attention from output positions to the object's positions in the input, in blocks of 2×2.

    Near places are preferred to begin with; how much, each head learns.
    """

    def __init__(self, channels: int, num_heads: int, *, rngs: nnx.Rngs, dtype):
        self.num_heads, self.size = num_heads, max(channels // num_heads, 8)
        self.query = conv(channels, num_heads * self.size, rngs, kernel=1, dtype=dtype)
        self.key = conv(channels, num_heads * self.size, rngs, kernel=1, dtype=dtype)
        self.nearness = nnx.Param(jnp.zeros(num_heads))

    def __call__(self, features: Float[Array, "batch _h _w c"], codes) -> Array:
        n, height, width, _ = features.shape
        values = to_depth(inside(codes.pixels)).reshape(n, height * width, 16)
        queries, keys = (
            of(x).reshape(n, height * width, self.num_heads, self.size)
            for of, x in ((self.query, features), (self.key, codes.maps[0]))
        )
        scores = jnp.einsum("nqhc,nkhc->nhqk", queries, keys).astype(jnp.float32) / self.size**0.5
        is_object = jnp.log(jnp.clip(values[..., 3::4].mean(-1), 1e-4, 1))
        places = positions_of(height).reshape(-1, 2)
        squared = ((places[:, None] - places) ** 2).sum(-1)
        near = jnp.exp(self.nearness[...])[:, None, None] * squared / 2
        shares = jax.nn.softmax(scores - near + is_object[:, None, None], -1)
        copies = jnp.einsum("nhqk,nkc->nqhc", shares, values)
        blocks = copies.reshape(n, height, width, self.num_heads, 4, 4).transpose(0, 1, 2, 4, 3, 5)
        full = to_space(blocks.reshape(n, height, width, 16 * self.num_heads))
        return full.reshape(n, 2 * height, 2 * width, self.num_heads, 4)


class Offsets(nnx.Module):
    """One copy along the offsets at which the object's texture repeats itself (*ours*).

    For each offset d, over the places q where both q and q + d show the object,
    e(d) = mean |x(q) - x(q + d)|² / 2 var x, drawn towards 1 where such places are few. The copy is the mean
    of x(p + d) over all d with weights exp(-β e(d)), β learned. So stripes, checkers and dots go on beyond
    what the input shows, and a plain color does too. All of it are correlations, by Fourier transforms. The
    coverage of the copy is near 0 where no good offset leads to the object.

    References:
        He, Sun, Statistics of Patch Offsets for Image Completion, ECCV 2012, for the idea that few dominant
        offsets complete an image.
    """

    def __init__(self):
        self.log_rate = nnx.Param(jnp.zeros(()))  # of β, over what it begins with

    def __call__(self, pixels: Float[Array, "batch height width 4"]) -> Array:
        height, width = pixels.shape[1:3]
        x = jnp.moveaxis(inside(pixels), -1, 1).astype(jnp.float32)
        colors, shown = x[:, :3], x[:, 3]
        area = shown.sum((1, 2)) + 1e-3
        mean = (colors * shown[:, None]).sum((2, 3)) / area[:, None]
        centered = colors - mean[..., None, None]
        variance = ((centered**2).sum(1) * shown).sum((1, 2)) / area + _LEAST_VARIANCE

        def transformed(x):
            return jnp.fft.rfft2(x, (2 * height, 2 * width))  # so wide that nothing comes around

        def correlation(a, b):  # sum over q of a(q) b(q + d), of transforms
            return jnp.fft.irfft2(jnp.conj(a) * b, (2 * height, 2 * width))

        of_colors, of_shown = transformed(centered * shown[:, None]), transformed(shown)
        of_squares = transformed((centered**2).sum(1) * shown)
        product = jnp.conj(of_squares) * of_shown
        powers = (of_colors.real**2 + of_colors.imag**2).sum(1)
        squares = jnp.fft.irfft2(2 * product.real - 2 * powers + 0j, (2 * height, 2 * width))
        both = jnp.maximum(correlation(of_shown, of_shown), 0)
        few = _FEW * area[:, None, None]
        errors = jnp.maximum(squares, 0) / (2 * variance[:, None, None])
        rate = _RATE * jnp.exp(self.log_rate[...])
        weights = jnp.exp(-rate * (errors + few) / (both + few))
        of_weights = jnp.fft.rfft2(weights)
        total = jnp.maximum(correlation(of_weights, of_shown)[:, :height, :width], 0)
        found = correlation(of_weights[:, None], of_colors)[..., :height, :width]
        copied = jnp.clip(mean[..., None, None] + found / (total[:, None] + 1e-6), 0, 1)
        is_found = total / (total + jnp.exp(-_POOR * rate))
        return jnp.moveaxis(jnp.concatenate([copied, is_found[:, None]], 1), 1, -1)[..., None, :]


def inside(pixels: Float[Array, "batch height width 4"]) -> Float[Array, "batch height width 4"]:
    """Returns the pixels with a coverage of 0 on the outline, whose colors are mixed with the background."""
    return jnp.concatenate([pixels[..., :3], eroded(pixels[..., 3])[..., None]], -1)


def positions_of(size: int) -> Float[Array, "size size 2"]:
    """Returns row and column of each pixel of a square image."""
    line = jnp.arange(size, dtype=jnp.float32)
    return jnp.stack(jnp.meshgrid(line, line, indexing="ij"), -1)
