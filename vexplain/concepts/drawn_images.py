"""Images as functions of parameters in which gradient ascent finds natural ones, and random views of them.

Pixels are poor coordinates for gradient ascent: it adds high frequencies and colors that no photograph has.
Here an image is made of its Fourier coefficients in decorrelated colors, those of low frequencies larger
(`fourier_images`), or of the phases alone, with the magnitudes of real images (`fixed_magnitudes`). Both are
a `Parametrization`, a pair of pure functions for one image; `jax.vmap` makes many.

`RandomViews` moves, turns and scales an image at random, so that what excites a feature has to do so in each
view.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain.datasets import Source
from vexplain.streaming import fold_epoch
from vexplain.typing import AnyArray, Array, Batch, Float, Key

# A root of the covariance of the colors of ImageNet, as published with Lucid (Olah et al., 2017; its file
# `optvis/param/color.py`, Apache-2.0): columns are nearly brightness, blue to red, and green to magenta.
IMAGENET_COLORS = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
_GRAY = 0.5


@runtime_checkable
class Parametrization(Protocol):
    """An image as a function of parameters, `image(init(key))`."""

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    def init(self, key: Key) -> Array:
        """Parameters of an image of noise."""
        ...

    def image(self, params: Array) -> Float[Array, "height width channels"]:
        """The image, in [0, 1]."""
        ...


class ImageStatistics(NamedTuple):
    """What images of a source have in common."""

    mean: Float[np.ndarray, " channels"]  # of the colors
    colors: Float[np.ndarray, "channels channels"]  # M, with M Mᵀ their covariance; the largest axis first
    magnitudes: Float[np.ndarray, "height frequencies channels"]  # mean |F(M⁺ (x - mean))|, F orthonormal
    image_shape: tuple[int, int, int]  # height, width, channels


def image_statistics(source: Source, *, batch_size: int = 64) -> ImageStatistics:
    """Returns mean and covariance of the colors, and the mean magnitude of each frequency, in two passes.

    Args:
        source: the images, of one size.
        batch_size: images a step.

    Raises:
        ValueError: the source is empty.

    Example:
        >>> from vexplain.datasets import ArraySource
        >>> gray = np.repeat(np.random.default_rng(0).uniform(size=(8, 4, 6, 1)), 3, axis=-1)
        >>> found = image_statistics(ArraySource(gray, np.zeros(8, int), class_names=("gray",)))
        >>> print((found.colors[:, 0] / found.colors[0, 0]).round(3), abs(found.colors[:, 1:]).max() < 1e-3)
        [1. 1. 1.] True
    """
    if not len(source):
        raise ValueError("source is empty: expected one image or more")
    height, width, channels = source[np.arange(1)]["images"].shape[1:]

    def add_colors(sums: Any, batch: Batch) -> Any:
        count, total, products = sums
        images, weights = jnp.asarray(batch["images"]) - _GRAY, batch["weights"]
        mean = images.mean((1, 2))
        square = jnp.einsum("nhwc,nhwd->ncd", images, images, precision="highest") / (height * width)
        return count + weights.sum(), total + weights @ mean, products + jnp.tensordot(weights, square, 1)

    zero = jnp.zeros(())
    sums = zero, jnp.zeros(channels), jnp.zeros((channels, channels))
    options: dict[str, Any] = {"batch_size": min(batch_size, len(source))}
    found = fold_epoch(add_colors, sums, source, **options)
    count, total, products = (np.asarray(value, float) for value in found)
    mean = total / count
    variances, axes = np.linalg.eigh(products / count - np.outer(mean, mean))
    axes = axes * np.where(axes.sum(0) < 0, -1, 1)
    colors = (axes * np.sqrt(np.maximum(variances, 0)))[:, ::-1]
    decorrelate = jnp.asarray(np.linalg.pinv(colors, rcond=1e-3).T, jnp.float32)

    def add_magnitudes(sums: Any, batch: Batch) -> Any:
        away = (jnp.asarray(batch["images"]) - _GRAY - jnp.asarray(mean, jnp.float32)) @ decorrelate
        found = jnp.abs(jnp.fft.rfft2(away, axes=(1, 2), norm="ortho"))
        return sums + jnp.tensordot(batch["weights"], found, 1)

    zeros = jnp.zeros((height, width // 2 + 1, channels))
    magnitudes = np.asarray(fold_epoch(add_magnitudes, zeros, source, **options), float) / count
    return ImageStatistics(mean + _GRAY, colors, magnitudes, (height, width, channels))


def fourier_images(
    image_shape: tuple[int, int, int],
    *,
    colors: AnyArray | None = None,
    decay: float = 1.0,
    deviation: float = 0.01,
) -> Parametrization:
    """Returns images of Fourier coefficients z, those of low frequencies scaled up, in decorrelated colors.

        image = sigmoid(M · F⁻¹(s ∘ z)),        s_f ∝ 1 / max(|f|, 1 / max(height, width))^decay

    with F orthonormal and s of mean square 1, so that of z with unit variance each color axis has the power
    spectrum s², to which `decay` = 1 gives the law of natural images, and variance 1. M is scaled so that the
    channels have variance 1 in the mean. (Lucid normalizes both by other constants.)

    Args:
        image_shape: (height, width, channels).
        colors: M, (channels, channels), a root of the covariance of the colors, such as that of
            `image_statistics`. Left out, that of ImageNet for three channels, and no correlation for another
            number.
        decay: how fast the scale falls with the frequency; 0 is gradient ascent without a preconditioner.
        deviation: of the first coefficients: small values start from gray.

    Raises:
        ValueError: another shape, a matrix of another size or of zeros, or a deviation that is not positive.

    References:
        Olah, Mordvintsev, Schubert, Feature Visualization, Distill 2017 (preconditioning).
        Mordvintsev, Pezzotti, Schubert, Olah, Differentiable Image Parameterizations, Distill 2018.

    Example:
        >>> drawn = fourier_images((8, 6, 3))
        >>> image = drawn.image(drawn.init(jax.random.key(0)))
        >>> image.shape, bool(abs(image - 0.5).max() < 0.05)
        ((8, 6, 3), True)
    """
    height, width, channels = _checked_shape(image_shape)
    if colors is None:
        colors = IMAGENET_COLORS if channels == 3 else np.eye(channels)
    colors = np.asarray(colors, float)
    if colors.shape != (channels, channels):
        raise ValueError(f"colors has shape {colors.shape}: expected {(channels, channels)}, as the images")
    if not np.isfinite(colors).all() or not colors.any():
        raise ValueError("colors has NaN, infinite values or zeros only: expected a root of a covariance")
    if not deviation > 0:
        raise ValueError(f"deviation is {deviation}: expected a positive number")
    colors = colors / np.sqrt((colors**2).sum() / channels)
    return _Fourier((height, width, channels), float(deviation), _scales(height, width, decay), colors)


def fixed_magnitudes(statistics: ImageStatistics) -> Parametrization:
    """Returns images of phases φ, whose magnitudes are those of real images: no frequency can grow.

        image = sigmoid(logit(m) + M · F⁻¹(r ∘ exp(i φ)) / (m (1 - m)))

    with the mean m, the colors M and the magnitudes r of `image_statistics`, r = 0 at frequency 0. To first
    order the sigmoid leaves the contrast as it is (*ours*; the authors standardize the image instead, and
    take the magnitudes of ImageNet). Phases begin uniform. The authors draw crops of a quarter of the image
    with noise as views: pass `RandomViews(shift=0.35, scales=(2, 5), degrees=0)` for crops.

    Args:
        statistics: of images of the size that is to be made.

    Raises:
        ValueError: all magnitudes are zero, or not finite.

    References:
        Fel, Boissin, Boutin, Picard, Novello et al., Unlocking Feature Visualization for Deeper Networks with
        MAgnitude Constrained Optimization, NeurIPS 2023, Equation 2 (MACO).

    Example:
        >>> statistics = ImageStatistics(np.full(1, 0.5), np.eye(1) / 10, np.ones((4, 3, 1)), (4, 4, 1))
        >>> drawn = fixed_magnitudes(statistics)
        >>> drawn.image(drawn.init(jax.random.key(0))).shape
        (4, 4, 1)
    """
    mean, colors, magnitudes = (np.asarray(value, float) for value in statistics[:3])
    if not np.isfinite(magnitudes).all() or not magnitudes.any():
        raise ValueError("statistics has magnitudes that are all zero, or not finite: are all images plain?")
    magnitudes = magnitudes.copy()
    magnitudes[0, 0] = 0
    mean = np.clip(mean, 1 / 255, 1 - 1 / 255)
    return _Phases(_checked_shape(statistics.image_shape), magnitudes, colors, mean)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Fourier:
    image_shape: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    deviation: float = dataclasses.field(metadata={"static": True})
    scales: Any
    colors: Any

    def init(self, key: Key) -> Array:
        shape = (2, *self.scales.shape, self.image_shape[2])
        return self.deviation * jax.random.normal(key, shape)

    def image(self, params: Array) -> Array:
        real, imaginary = params * jnp.asarray(self.scales, params.dtype)[..., None]
        drawn = _pixels(jax.lax.complex(real, imaginary), self.image_shape)
        return jax.nn.sigmoid(drawn @ jnp.asarray(self.colors.T, params.dtype))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Phases:
    image_shape: tuple[int, int, int] = dataclasses.field(metadata={"static": True})
    magnitudes: Any
    colors: Any
    mean: Any

    def init(self, key: Key) -> Array:
        return jax.random.uniform(key, self.magnitudes.shape, minval=-np.pi, maxval=np.pi)

    def image(self, params: Array) -> Array:
        magnitudes, colors, mean = (
            jnp.asarray(value, params.dtype) for value in (self.magnitudes, self.colors, self.mean)
        )
        twice = np.flatnonzero(~_stands_for_two(self.image_shape[1]))
        phases = params.at[:, twice].set(_odd(params[:, twice]))
        spectrum = jax.lax.complex(magnitudes * jnp.cos(phases), magnitudes * jnp.sin(phases))
        away = _pixels(spectrum, self.image_shape) @ colors.T
        return jax.nn.sigmoid(jnp.log(mean / (1 - mean)) + away / (mean * (1 - mean)))


def _stands_for_two(width: int) -> np.ndarray:
    """Which columns of `rfft2` stand for two of `fft2`; the others hold each frequency and its conjugate."""
    columns = np.arange(width // 2 + 1)
    return (columns > 0) & (2 * columns != width)


def _odd(phases: Array) -> Array:
    """The phases of a real image: those of -f are those of f with the other sign."""
    return (phases - jnp.roll(phases[::-1], 1, axis=0)) / 2


def _pixels(spectrum: Array, image_shape: tuple[int, int, int]) -> Array:
    return jnp.fft.irfft2(spectrum, s=image_shape[:2], axes=(0, 1), norm="ortho")


def _scales(height: int, width: int, decay: float) -> np.ndarray:
    """s, (height, frequencies): real noise through `irfft2` then has exactly the spectrum s², and variance 1.

    In the columns that hold a frequency twice, only the part of the coefficients that belongs to a real image
    counts, half of the power; an interior column stands for two frequencies.
    """
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    frequencies = np.maximum(np.hypot(rows, columns), 1 / max(height, width))
    scales = frequencies**-decay
    for_two = _stands_for_two(width)
    power = (scales**2 * np.where(for_two, 2, 1)).sum() / (height * width)
    return scales / np.sqrt(power) * np.where(for_two, np.sqrt(0.5), 1)


@dataclasses.dataclass(frozen=True)
class RandomViews:
    """Moves, scales and turns an image at random: a function (key, image) -> image of the same shape.

    Pixels are interpolated linearly once, for all three; what enters from outside is mid gray, as a padding.
    A feature that is excited in all views is not excited by single pixels. (Lucid pads, shifts, scales, turns
    and shifts again, and gives the network images of other sizes.)

    Attributes:
        shift: up to which share of height and width the image moves, either way.
        scales: the smallest and the largest factor by which it is enlarged.
        degrees: up to which angle it turns, either way.

    References:
        Olah, Mordvintsev, Schubert, Feature Visualization, Distill 2017 (transformation robustness).

    Example:
        >>> view = RandomViews(shift=0.25, scales=(1.0, 1.0), degrees=0.0)
        >>> print(view(jax.random.key(0), jnp.full((4, 4, 1), 0.5)).mean())
        0.5
    """

    shift: float = 0.06
    scales: tuple[float, float] = (0.9, 1.1)
    degrees: float = 10.0

    def __post_init__(self):
        if not 0 <= self.shift < 1:
            raise ValueError(f"shift is {self.shift}: expected a share of the image in [0, 1)")
        if len(self.scales) != 2 or not 0 < self.scales[0] <= self.scales[1]:
            raise ValueError(f"scales is {self.scales}: expected two positive factors, the smaller first")
        if self.degrees < 0:
            raise ValueError(f"degrees is {self.degrees}: expected the largest angle, 0 or more")

    def __call__(self, key: Key, image: Array) -> Array:
        for_shift, for_scale, for_angle = jax.random.split(key, 3)
        size = jnp.asarray(image.shape[:2], image.dtype)
        shift = jax.random.uniform(for_shift, (2,), image.dtype, -1, 1) * self.shift * size
        low, high = self.scales
        scale = jax.random.uniform(for_scale, (), image.dtype, low, high)
        degrees = jax.random.uniform(for_angle, (), image.dtype, -1, 1) * self.degrees
        return moved(image, shift=shift, scale=scale, degrees=degrees)


def moved(
    image: Float[Array, "height width channels"],
    *,
    shift: Any = (0.0, 0.0),
    scale: Any = 1.0,
    degrees: Any = 0.0,
    fill: float = _GRAY,
) -> Float[Array, "height width channels"]:
    """Returns an image that is scaled and turned about its center, then shifted, by linear interpolation.

    Args:
        image: (height, width, channels).
        shift: (down, right) in pixels.
        scale: above 1 enlarges.
        degrees: counterclockwise.
        fill: what is outside of the image.

    Example:
        >>> image = jnp.arange(6.0).reshape(2, 3, 1)
        >>> print(moved(image, shift=(0, 1), fill=0.0)[..., 0])
        [[0. 0. 1.]
         [0. 3. 4.]]
    """
    height, width, _ = image.shape
    center = (height - 1) / 2, (width - 1) / 2
    rows = (jnp.arange(height, dtype=image.dtype) - center[0] - shift[0])[:, None] / scale
    columns = (jnp.arange(width, dtype=image.dtype) - center[1] - shift[1]) / scale
    angle = jnp.deg2rad(jnp.asarray(degrees, image.dtype))
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    places = [center[0] + rows * cosine + columns * sine, center[1] - rows * sine + columns * cosine]

    def of_channel(values):
        return jax.scipy.ndimage.map_coordinates(values, places, order=1, mode="constant", cval=fill)

    return jax.vmap(of_channel, in_axes=2, out_axes=2)(image)


def _checked_shape(image_shape: Any) -> tuple[int, int, int]:
    if len(image_shape) != 3:
        raise ValueError(f"image_shape is {image_shape}: expected (height, width, channels)")
    height, width, channels = (int(n) for n in image_shape)
    check_positive(height=height, width=width, channels=channels)
    return height, width, channels
