"""The networks of shape translation: an encoder, a decoder and a discriminator for each of two domains.

Every halving of the resolution is a rearrangement of 2×2 pixels into channels and a 3×3 convolution, every
doubling the reverse: what a strided or transposed convolution of 6×6 computes, at the speed of a matrix
product and with outputs that cover all pixels alike. There is no instance normalization, which would erase
the color statistics that have to survive (*reconstructed*; the paper's tables are not known).
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain._checks import check_choice, check_positive
from vexplain.translation.blocks import act, conv, linear, to_depth, to_space
from vexplain.typing import Array, Float, Images

DOMAINS = ("a", "b")
Latent = Literal["vector", "4x4", "8x8", "16x16"]
Sharing = Literal["nothing", "middle", "encoder"]
Variance = Literal["learned", "fixed", "none"]
Latents: TypeAlias = Float[Array, " batch *latent"]
_BOUND = 8.0  # of the log-variance, which one bad step could otherwise send beyond all numbers
_NARROW = 16  # channels of the map that a latent vector is made of
_MAX_FACTOR = 8  # channels grow with depth up to this many times the width


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """Sizes of the networks."""

    image_size: int = 64  # height and width in pixels, a power of 2 and at least 16
    width: int = 64  # channels of the first stage of an encoder; they double at every halving
    latent: Latent = "vector"  # or a grid of vectors
    latent_size: int = 128  # numbers in the latent vector, or in each vector of the grid
    # What both domains have in common: the "middle" is the last layers of the encoders and the first of the
    # decoders (UNIT); with the "encoder" and the middle, only the decoders know the domain.
    sharing: Sharing = "encoder"
    num_blocks: int = 0  # residual blocks in the middle of an encoder and of a decoder, on a grid
    variance: Variance = "learned"  # of the latent; "fixed" is 1 (UNIT), "none" draws no noise
    # Halvings before the scores: a few give a map of scores of a limited receptive field, 0 all of them and
    # one score for the whole image.
    discriminator_stages: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"  # of the computation; what it returns is float32

    def __post_init__(self):
        for name, kind in (("latent", Latent), ("sharing", Sharing), ("variance", Variance)):
            check_choice(name, getattr(self, name), get_args(kind))
        size = self.image_size
        if size < 16 or size & (size - 1):
            raise ValueError(f"image_size is {size}: expected a power of 2, at least 16")
        if self.grid > size // 2:
            raise ValueError(f"latent is {self.latent!r}: too fine for image_size {size}")
        check_positive(width=self.width, latent_size=self.latent_size)

    @property
    def grid(self) -> int:
        """Height and width of the latent's map; a vector comes from a map of 4×4."""
        return 4 if self.latent == "vector" else int(self.latent.split("x")[0])

    @property
    def num_stages(self) -> int:
        return (self.image_size // self.grid).bit_length() - 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stages, from the image to the middle."""
        return tuple(self.width * min(2**n, _MAX_FACTOR) for n in range(self.num_stages))

    @property
    def critic_stages(self) -> int:
        """Halvings of a discriminator; a global one goes down to 4×4."""
        deepest = (self.image_size // 4).bit_length() - 1
        return min(self.discriminator_stages or deepest, deepest)

    @property
    def receptive_field(self) -> int:
        """Height and width in pixels that one score of a discriminator sees."""
        if not self.discriminator_stages:
            return self.image_size
        size = 1
        for _ in range(self.critic_stages):
            size = 2 * (size + 2)  # 3×3 positions of 2×2 pixels
        return min(size, self.image_size)


class Generator(nnx.Module):
    """Both encoders and both decoders, and the middle between them; `sharing` says what is one for both."""

    def __init__(self, settings: NetworkSettings, *, rngs: nnx.Rngs):
        self.variance = settings.variance
        self.encoders = _by_domain(settings.sharing == "encoder", lambda: _Encoder(settings, rngs=rngs))
        self.decoders = _by_domain(False, lambda: _Decoder(settings, rngs=rngs))
        self.middles = _by_domain(settings.sharing != "nothing", lambda: _Middle(settings, rngs=rngs))

    def encode(self, images: Images, domain: str) -> tuple[Latents, Latents]:
        """Returns mean and log-variance of the latent of images of a domain."""
        mean, log_variance = self.middles[domain].encode(self.encoders[domain](jnp.asarray(images)))
        if self.variance != "learned":
            return mean, jnp.zeros_like(mean)
        return mean, _BOUND * jnp.tanh(log_variance / _BOUND)

    def decode(self, latents: Latents, domain: str) -> Float[Array, "batch h w c"]:
        """Returns images of a domain, in [0, 1], for latents."""
        return self.decoders[domain](self.middles[domain].decode(latents))


class Discriminator(nnx.Module):
    """One critic a domain: high scores for images of the domain, low ones for translations."""

    def __init__(self, settings: NetworkSettings, *, rngs: nnx.Rngs):
        self.critics = nnx.Dict({d: _Critic(settings, rngs=rngs) for d in DOMAINS})

    def __call__(self, images: Images, domain: str) -> Float[Array, " batch *map"]:
        return self.critics[domain](images)


def _by_domain(is_shared: bool, make: Callable[[], nnx.Module]) -> Any:
    """Returns one module for both domains, or one for each, by domain."""
    first = make()
    return nnx.Dict({domain: first if is_shared or n == 0 else make() for n, domain in enumerate(DOMAINS)})


class _Encoder(nnx.Module):
    def __init__(self, settings: NetworkSettings, *, rngs: nnx.Rngs):
        sizes = (3, *settings.widths)
        self.stages = nnx.List([conv(4 * a, b, rngs) for a, b in itertools.pairwise(sizes)])

    def __call__(self, images):
        x = images * 2 - 1
        for stage in self.stages:
            x = act(stage(to_depth(x)))
        return x


class _Middle(nnx.Module):
    """From the maps of the encoder to the latent, and from there to the maps of the decoder."""

    # A latent vector is a linear function of a map of few channels: so it learns colors in a tenth of the
    # steps that it takes with a hidden layer.

    def __init__(self, settings: NetworkSettings, *, rngs: nnx.Rngs):
        channels, size = settings.widths[-1], settings.latent_size
        self.is_vector, self.grid = settings.latent == "vector", settings.grid
        inner, outer = (_NARROW, _NARROW) if self.is_vector else (2 * size, size)
        self.into = nnx.List([*_blocks(settings, rngs), conv(channels, inner, rngs, gain=0.5)])
        self.out = nnx.List([conv(outer, channels, rngs), *_blocks(settings, rngs)])
        if self.is_vector:
            flat = settings.grid**2 * _NARROW
            sizes = ((flat, 2 * size), (size, flat))
            self.linear = nnx.List([linear(a, b, rngs, gain=1.0) for a, b in sizes])

    def encode(self, x):
        for layer in self.into:
            x = layer(x)
        if self.is_vector:
            x = self.linear[0](x.reshape(len(x), -1))
        return tuple(jnp.split(x, 2, -1))

    def decode(self, z):
        if self.is_vector:
            z = self.linear[1](z).reshape(len(z), self.grid, self.grid, _NARROW)
        x = act(self.out[0](z))
        for block in self.out[1:]:
            x = block(x)
        return x


class _Decoder(nnx.Module):
    def __init__(self, settings: NetworkSettings, *, rngs: nnx.Rngs):
        *hidden, last = itertools.pairwise((*settings.widths[::-1], 3))
        self.stages = nnx.List([conv(a, 4 * b, rngs) for a, b in hidden])
        self.last = conv(last[0], 4 * last[1], rngs, gain=0.5)

    def __call__(self, x):
        for stage in self.stages:
            x = act(to_space(stage(x)))
        # In bfloat16 the sigmoid is 1 from 6 on, its derivative 0: a white image would stay white.
        return jax.nn.sigmoid(to_space(self.last(x)).astype(jnp.float32))


class _Critic(nnx.Module):
    def __init__(self, settings: NetworkSettings, *, rngs: nnx.Rngs):
        self.is_global = not settings.discriminator_stages
        widths = [settings.width * min(2**n, _MAX_FACTOR) for n in range(settings.critic_stages)]
        self.stages = nnx.List([conv(4 * a, b, rngs) for a, b in itertools.pairwise((3, *widths))])
        self.scores = (
            linear(16 * widths[-1], 1, rngs) if self.is_global else conv(widths[-1], 1, rngs, kernel=1)
        )

    def __call__(self, images):
        x = images * 2 - 1
        for stage in self.stages:
            x = act(stage(to_depth(x)))
        scores = self.scores(x.reshape(len(x), -1) if self.is_global else x)
        return scores[..., 0]


class _Block(nnx.Module):
    """x + conv(act(conv(act(x)))); the second convolution begins at zero, so that depth costs nothing."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.first = conv(channels, channels, rngs)
        self.second = conv(channels, channels, rngs, gain=0.0)

    def __call__(self, x):
        return x + self.second(act(self.first(act(x))))


def _blocks(settings: NetworkSettings, rngs: nnx.Rngs) -> list[_Block]:
    return [_Block(settings.widths[-1], rngs=rngs) for _ in range(settings.num_blocks)]
