"""The networks of appearance-preserving translation: one encoder, one decoder of shapes, one of textures.

An image of either domain is encoded into an appearance code (one vector of unit length), a shape code and
maps. The shape code says where the object's own coordinates lie in the image; in these a small network of the
domain draws what is covered. So the outline of the input cannot reach the translation, and a pose means the
same in both domains. The texture is painted on the whole plane, from the appearance code in the object's
coordinates and from what `carriers` bring from the input, and cut out by the shape (*reconstructed*, the
layers *ours*).
"""

import dataclasses
import itertools
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vexplain._checks import check_choice, check_positive
from vexplain.translation.blocks import act, conv, linear, to_depth, to_space
from vexplain.translation.layered.carriers import Attention, Flow, Offsets, positions_of
from vexplain.translation.layered.compositing import filled_background
from vexplain.translation.layered.scenes import HASTE, Display, FitIn, Fitted, Scene
from vexplain.typing import Array, Float, Images, Masks

Carrier = Literal["offsets", "flow", "attention", "adaptive"]
_GRID = 4  # height and width of the deepest maps
_MAX_FACTOR = 4  # channels grow with depth up to this many times the width
_OCTAVES = 3  # of the coordinates that shapes are drawn in
_RATE = 5.0  # radians a unit of the object's coordinates, of the waves to begin with
_LEAST_SCALE = 0.02  # of a shape code that was not measured but predicted, in half image heights
_MOMENTS = 5  # of the coverage, beside what is learned of the shape


@dataclasses.dataclass(frozen=True)
class LayeredSettings:
    """Sizes of the networks, and how the texture is carried."""

    image_size: int = 64  # height and width in pixels, a power of 2 and at least 16
    width: int = 64  # channels of the first stage of the encoder
    appearance_size: int = 64  # numbers of the appearance code
    shape_size: int = 16  # learned numbers of the shape code, beside five moments of the coverage
    # What brings the input's own pixels or features to the texture: the offsets at which it repeats itself, a
    # predicted sampling grid, attention to positions of the input, modulation by maps of its features; one of
    # them, several, or none.
    carriers: tuple[Carrier, ...] = ("offsets", "flow")
    num_copies: int = 4  # sampling grids, or heads of the attention
    num_waves: int = 8  # in the texture's coordinates, of a frequency that the appearance code chooses
    precision: Literal["float32", "bfloat16"] = "float32"  # of the convolutions
    # Whether images of B are scenes with an object each, and those of A products that are all shown alike.
    has_scenes: bool = False

    def __post_init__(self):
        for carrier in self.carriers:
            check_choice("carriers", carrier, get_args(Carrier))
        size = self.image_size
        if size < 16 or size & (size - 1):
            raise ValueError(f"image_size is {size}: expected a power of 2, at least 16")
        counts = ("width", "appearance_size", "shape_size", "num_copies", "num_waves")
        check_positive(**{name: getattr(self, name) for name in counts})
        if self.width % 4:
            raise ValueError(f"width is {self.width}: expected a multiple of 4")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stages of the encoder, from the image down to 4×4."""
        num_stages = (self.image_size // _GRID).bit_length() - 1
        return tuple(self.width * min(2**n, _MAX_FACTOR) for n in range(num_stages))


class Codes(NamedTuple):
    """What the encoder knows of images.

    Attributes:
        appearance: (batch, appearance_size), of unit length.
        shape: (batch, shape_size + 5), learned numbers and moments of the coverage.
        maps: of features, of half the image's size, of a quarter and so on.
        pixels: (batch, height, width, 4), the images in [0, 1] and what their objects cover.
    """

    appearance: Float[Array, "batch numbers"]
    shape: Float[Array, "batch shape_numbers"]
    maps: tuple[Float[Array, "batch _h _w _c"], ...]
    pixels: Float[Array, "batch height width 4"]


class Generator(nnx.Module):
    """Encoder and decoders; domains enter as one-hot vectors, so that a batch may hold both."""

    def __init__(self, settings: LayeredSettings, *, rngs: nnx.Rngs):
        self.encoder = _Encoder(settings, rngs=rngs)
        self.shapes = _Shapes(settings, rngs=rngs)
        self.textures = _Textures(settings, rngs=rngs)
        if settings.has_scenes:
            numbers = settings.shape_size + _MOMENTS
            self.display = Display(numbers)
            self.fit_in = FitIn(settings.widths, _GRID, numbers, rngs=rngs, dtype=settings.precision)

    def fitted(self, scene: Scene) -> Fitted:
        """What belongs in a scene, and the scene with its hole filled from around it."""
        shape = self.fit_in(scene, _moments(scene.holes))
        return Fitted(shape, filled_background(scene.images, scene.holes, margin=0))


class Discriminator(nnx.Module):
    """A critic of whole images, of a trunk for both domains: one score for each."""

    def __init__(self, settings: LayeredSettings, *, rngs: nnx.Rngs):
        self.dtype = settings.precision
        widths = settings.widths
        sizes = (6, *widths)
        self.stages = nnx.List([conv(4 * a, b, rngs, dtype=self.dtype) for a, b in itertools.pairwise(sizes)])
        self.scores = linear(_GRID**2 * widths[-1], 2, rngs)

    def __call__(self, images: Images, coverage: Masks, domains: Float[Array, "batch 2"]):
        places = jnp.broadcast_to(_centered_grid(images.shape[1]), (*images.shape[:3], 2))
        x = jnp.concatenate([images * 2 - 1, coverage[..., None], places], -1).astype(self.dtype)
        for stage in self.stages:
            x = act(stage(to_depth(x)))
        return (self.scores(x.reshape(len(x), -1).astype(jnp.float32)) * domains).sum(-1)


class _Encoder(nnx.Module):
    def __init__(self, settings: LayeredSettings, *, rngs: nnx.Rngs):
        self.dtype = settings.precision
        sizes = (4, *settings.widths)
        self.stages = nnx.List([conv(4 * a, b, rngs, dtype=self.dtype) for a, b in itertools.pairwise(sizes)])
        flat = _GRID**2 * sizes[-1]
        self.appearance = linear(flat, settings.appearance_size, rngs, gain=1.0)
        self.shape = linear(flat, settings.shape_size, rngs, gain=0.5)

    def __call__(self, images: Images, coverage: Masks) -> Codes:
        pixels = jnp.concatenate([images, coverage[..., None]], -1)
        x, maps = (pixels * 2 - 1).astype(self.dtype), []
        for stage in self.stages:
            x = act(stage(to_depth(x)))
            maps.append(x)
        flat = x.reshape(len(x), -1).astype(jnp.float32)
        appearance = self.appearance(flat)
        appearance *= jax.lax.rsqrt((appearance**2).sum(-1, keepdims=True) + 1e-6)
        shape = jnp.concatenate([self.shape(flat), _moments(coverage)], -1)
        return Codes(appearance, shape, tuple(maps), pixels)


class _Shapes(nnx.Module):
    """What an object covers, drawn in its own coordinates by a network that its domain modulates."""

    def __init__(self, settings: LayeredSettings, *, rngs: nnx.Rngs):
        size, numbers = settings.width, settings.shape_size + _MOMENTS
        self.pose = linear(numbers, 6, rngs, gain=0.1)
        self.offsets = nnx.Param(jnp.zeros((2, 2)))  # of the middle of mass, in each domain
        sizes = (2 + 4 * _OCTAVES, size, size, size)
        self.layers = nnx.List([linear(a, b, rngs) for a, b in itertools.pairwise(sizes)])
        self.of_domain = nnx.List([linear(2, 2 * size, rngs, gain=0.5) for _ in self.layers])
        self.of_code = nnx.List([linear(settings.shape_size, 2 * size, rngs, gain=0.0) for _ in self.layers])
        self.last = linear(size, 1, rngs, gain=0.1)

    def coordinates(self, codes: Codes, domains: Float[Array, "batch 2"]) -> Float[Array, "batch h w 2"]:
        """Returns the object's coordinates at each pixel: the middle of mass is near 0, its area near pi."""
        shape = codes.shape
        row, column, scale = (shape[:, n, None, None] for n in (-5, -4, -3))
        scale = jnp.maximum(scale, _LEAST_SCALE)
        grid = _centered_grid(codes.pixels.shape[1])
        place = jnp.stack([grid[..., 0] - row, grid[..., 1] - column], -1) / scale[..., None]
        change = self.pose(shape.at[:, -5:-2].set(0))  # place and scale are known already
        turn = jnp.eye(2) + change[:, :4].reshape(-1, 2, 2)
        shift = HASTE * domains @ self.offsets[...] + 0.3 * change[:, 4:]
        return jnp.einsum("nhwi,nij->nhwj", place, turn) + shift[:, None, None]

    def __call__(self, codes: Codes, places: Float[Array, "batch h w 2"], domains) -> Masks:
        learned = codes.shape[:, :-_MOMENTS]
        octaves = 2.0 ** jnp.arange(_OCTAVES)
        angles = (places[..., None] * octaves).reshape(*places.shape[:3], -1)
        x = jnp.concatenate([places, jnp.sin(angles), jnp.cos(angles)], -1)
        for layer, of_domain, of_code in zip(self.layers, self.of_domain, self.of_code, strict=True):
            x = act(_modulated(layer(x), of_domain(domains) + of_code(learned)))
        disc = 4 * (1 - jnp.sqrt((places**2).sum(-1) + 1e-6))  # to begin with
        return jax.nn.sigmoid(disc + 4 * self.last(x)[..., 0])


class _Textures(nnx.Module):
    """Colors of the whole plane, in which the object's shape is cut out."""

    def __init__(self, settings: LayeredSettings, *, rngs: nnx.Rngs):
        self.settings = settings
        dtype, w, code = settings.precision, settings.width, settings.appearance_size
        quarter, half = (settings.widths[n] for n in (1, 0))
        waves, full = 2 * settings.num_waves, w // 2
        self.has_eighth = len(settings.widths) > 2
        self.waves = linear(code, 3 * settings.num_waves, rngs, gain=2.0)
        if self.has_eighth:
            eighth = settings.widths[2]
            self.eighth = _Stage(eighth, eighth, code, rngs, dtype)
            self.to_quarter = conv(eighth, 4 * quarter, rngs, dtype=dtype)
        self.quarter = nnx.List([_Stage(quarter, quarter, code, rngs, dtype) for _ in range(2)])
        self.skip = conv(quarter, quarter, rngs, dtype=dtype)
        self.waves_in = conv(waves, quarter, rngs, kernel=1, dtype=dtype)
        self.to_half = conv(quarter, 4 * half, rngs, dtype=dtype)
        self.half = _Stage(half, half, code, rngs, dtype)
        self.to_full = conv(half, 4 * full, rngs, dtype=dtype)
        self.full = _Stage(full + waves, 2 * full, code, rngs, dtype, kernel=1)
        if "adaptive" in settings.carriers:
            self.at_half = conv(half, 2 * half, rngs, gain=0.5, dtype=dtype)
            self.at_full = conv(4, 2 * full, rngs, gain=0.5, dtype=dtype)
        channels = 3
        if "flow" in settings.carriers:
            self.flow = Flow(settings.num_copies)
            channels += self.flow.num_channels
        if "attention" in settings.carriers:
            self.attention = Attention(half, settings.num_copies, rngs=rngs, dtype=dtype)
        if "offsets" in settings.carriers:
            self.offsets = Offsets()
        self.num_copies = settings.num_copies * len({"flow", "attention"} & set(settings.carriers))
        self.num_copies += "offsets" in settings.carriers
        self.last = conv(2 * full, channels + self.num_copies + 1, rngs, kernel=1, gain=0.05)

    def __call__(self, codes: Codes, places: Float[Array, "batch h w 2"]) -> Images:
        dtype, appearance = self.settings.precision, codes.appearance * codes.appearance.shape[1] ** 0.5
        waves = self._waves(appearance, places)
        if self.has_eighth:
            x = self.eighth(codes.maps[2], appearance)
            x = to_space(self.to_quarter(x))
        else:
            x = jnp.zeros_like(codes.maps[1])
        x += self.skip(codes.maps[1]) + self.waves_in(_mean_pooled(waves, 4).astype(dtype))
        for stage in self.quarter:
            x += stage(x, appearance)
        x = to_space(self.to_half(act(x)))
        if "adaptive" in self.settings.carriers:
            x = _modulated(_unit(x), self.at_half(codes.maps[0]))
        x += self.half(x, appearance)
        query = x
        x = to_space(self.to_full(act(x)))
        if "adaptive" in self.settings.carriers:
            x = _modulated(_unit(x), self.at_full((codes.pixels * 2 - 1).astype(dtype)))
        x = self.full(jnp.concatenate([x, waves.astype(dtype)], -1), appearance)
        x = self.last(act(x.astype(jnp.float32)))
        return self._blended(x, query, codes)

    def _waves(self, appearance, places):
        """Sines and cosines of the object's coordinates, of frequencies and phases that the code chooses."""
        count = self.settings.num_waves
        angles = np.pi * np.arange(count) / count
        begin = _RATE * np.stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
        rates, phases = jnp.split(self.waves(appearance), [2 * count], -1)
        rates = begin + 2 * rates.reshape(-1, 2, count)
        angles = jnp.einsum("nhwi,nik->nhwk", places, rates) + phases[:, None, None]
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)

    def _blended(self, x, query, codes: Codes) -> Images:
        """Of what was painted and each copy of the input, the mean by weights that sum to one."""
        painted = jax.nn.sigmoid(x[..., :3])[..., None, :]
        if not self.num_copies:
            return painted[..., 0, :]
        weights, channels = x[..., 3 : 4 + self.num_copies], x[..., 4 + self.num_copies :]
        copies = [self.offsets(codes.pixels)] if "offsets" in self.settings.carriers else []
        if "flow" in self.settings.carriers:
            copies.append(self.flow(codes.pixels, channels))
        if "attention" in self.settings.carriers:
            copies.append(self.attention(query, codes))
        copied = jnp.concatenate(copies, -2)
        is_object = jnp.log(jnp.clip(copied[..., 3], 1e-3, 1))
        weights = jnp.concatenate([weights[..., :1], weights[..., 1:] + 1 + is_object], -1)
        shares = jax.nn.softmax(4 * weights, -1)
        colors = jnp.concatenate([painted, copied[..., :3]], -2)
        return (shares[..., None] * colors).sum(-2)


class _Stage(nnx.Module):
    """Features of unit length at each pixel, modulated by the appearance code, and a convolution."""

    def __init__(self, inputs: int, outputs: int, code: int, rngs: nnx.Rngs, dtype, *, kernel: int = 3):
        self.modulation = linear(code, 2 * inputs, rngs, gain=0.5)
        self.conv = conv(inputs, outputs, rngs, kernel=kernel, gain=1.0, dtype=dtype)

    def __call__(self, x, appearance):
        x = _modulated(_unit(x), self.modulation(appearance).astype(x.dtype))
        return self.conv(act(x))


def _modulated(x: Array, changes: Array) -> Array:
    """x (1 + γ) + β, of one γ and β a channel for all pixels or for each."""
    if changes.ndim == 2:
        changes = changes[:, None, None]
    gamma, beta = jnp.split(changes, 2, -1)
    return x * (1 + gamma) + beta


def _unit(x: Array) -> Array:
    """Features of mean square one at each pixel; nothing is subtracted, so that colors stay."""
    square = (x.astype(jnp.float32) ** 2).mean(-1, keepdims=True)
    return (x * jax.lax.rsqrt(square + 1e-4)).astype(x.dtype)


def _mean_pooled(x: Array, factor: int) -> Array:
    n, h, w, c = x.shape
    return x.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))


def _centered_grid(size: int) -> Array:
    """Row and column of each pixel's middle, from -1 to 1 over the image."""
    return positions_of(size) * (2 / size) + (1 / size - 1)


def _moments(coverage: Masks) -> Float[Array, "batch 5"]:
    """Middle of mass, radius of a disc of the same area, and the principal axis (cos 2φ, sin 2φ)."""
    grid = _centered_grid(coverage.shape[1])
    mass = coverage.sum((1, 2)) + 1e-3

    def mean(values):
        return (coverage * values).sum((1, 2)) / mass

    row, column = mean(grid[..., 0]), mean(grid[..., 1])
    y, x = grid[..., 0] - row[:, None, None], grid[..., 1] - column[:, None, None]
    yy, xx, xy = mean(y * y), mean(x * x), mean(x * y)
    scale = jnp.sqrt((mass + 4) * (2 / coverage.shape[1]) ** 2 / jnp.pi)
    whole = yy + xx + 1e-3
    return jnp.stack([row, column, scale, (yy - xx) / whole, 2 * xy / whole], -1)
