"""Two other ways to align crops: by the moments of the backward signal, and by log-polar correlation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.relevance import Alignment, identity_alignment
from vexplain.relevance._congealing import SIDE, on_grid, points, sample
from vexplain.transforms import (
    GUIDED,
    RESAMPLED_STRIDE,
    Layer,
    as_layer_output,
    channels_last,
    read,
    with_rules,
)

_NUM_ANGLES, _NUM_RADII, _NUM_ROUNDS = 72, 24, 3


def signal_fn(apply: Any, layer: Layer) -> Any:
    """Returns `(variables, images, channel, rows, columns) -> (n, height, width)`.

    It is the guided signal from one channel of a layer at one position of each image.
    """
    rules, options = GUIDED | RESAMPLED_STRIDE, {"on_uncovered": "gradient", "on_unmatched": "ignore"}
    read_fn = with_rules(read(apply, [layer.name]), rules, **options)

    @jax.jit
    def signal(variables, images, channel, rows, columns):
        (logits, found), send = jax.vjp(lambda images: read_fn(variables, images), images)
        sent = jnp.zeros_like(channels_last(found[layer.name], layer))
        every = jnp.arange(len(images))
        where = (every, rows, columns, channel) if sent.ndim == 4 else (every, channel)
        sent = as_layer_output(sent.at[where].set(1), layer)
        return jnp.linalg.norm(send((jnp.zeros_like(logits), {layer.name: sent}))[0], axis=-1)

    return signal


def by_moments(signal: np.ndarray) -> Alignment:
    """Returns the alignment by centroid, principal axis and spread of a signal in each crop.

    The third moment along the axis tells one end from the other.

    Args:
        signal: (n, height, width), 0 or more; NaN outside of the image.
    """
    weights = np.nan_to_num(signal) + 1e-12
    weights = weights / weights.sum((1, 2), keepdims=True)
    height, width = signal.shape[1:]
    place = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in (height, width)), indexing="ij"), -1)
    centers = np.einsum("nhw,hwk->nk", weights, place)
    away = place - centers[:, None, None]
    covariance = np.einsum("nhw,nhwk,nhwl->nkl", weights, away, away)
    axes = np.linalg.eigh(covariance)[1][:, :, 1]
    along = np.einsum("nhwk,nk->nhw", away, axes)
    axes *= np.where(np.einsum("nhw,nhw->n", weights, along**3) < 0, -1, 1)[:, None]
    angles = np.arctan2(-axes[:, 0], axes[:, 1])
    angles -= np.angle(np.exp(1j * angles).mean())
    spreads = np.sqrt(np.trace(covariance, axis1=1, axis2=2))
    scales = spreads / np.exp(np.log(spreads).mean())
    return _centered(angles, scales, centers)


def by_log_polar(crops: np.ndarray) -> Alignment:
    """Returns the alignment by the log-polar spectrum, and then by correlation (Reddy and Chatterji, 1996).

    The magnitude of the Fourier transform does not change when a crop is moved; a turn and another size move
    it in log-polar coordinates, where a correlation with that of the mean finds them, but for half a turn.
    Both are tried, each at its best place. The mean is taken again, three times.
    """
    grid = on_grid(jnp.asarray(crops, jnp.float32))
    angles, scales, shifts = map(np.asarray, _log_polar(grid.colors, grid.is_seen))
    return _centered(angles, scales, shifts * max(crops.shape[1:3]) / SIDE)


def _centered(angles: np.ndarray, scales: np.ndarray, shifts: np.ndarray) -> Alignment:
    still = identity_alignment(len(angles))
    scales = scales / np.exp(np.log(scales).mean())
    return still._replace(angles=angles, scales=scales, shifts=shifts - shifts.mean(0))


@jax.jit
def _log_polar(colors, is_seen):
    count = len(colors)
    seen = is_seen[..., None]
    window = jnp.hanning(SIDE)[:, None, None] * jnp.hanning(SIDE)[None, :, None]
    free = (colors - (colors * seen).sum((1, 2), keepdims=True) / seen.sum((1, 2), keepdims=True)) * seen
    radii = jnp.exp(jnp.linspace(jnp.log(2.0), jnp.log(SIDE - 2.0), _NUM_RADII))  # of a spectrum of 2 sides
    turn = jnp.arange(_NUM_ANGLES) * jnp.pi / _NUM_ANGLES
    polar = radii[:, None, None] * jnp.stack([-jnp.sin(turn), jnp.cos(turn)], -1)

    def spectrum(image):
        found = jnp.abs(jnp.fft.fft2(image * window, (2 * SIDE, 2 * SIDE), axes=(0, 1)))
        found = jnp.log1p(jnp.fft.fftshift(found, (0, 1)).sum(-1, keepdims=True))
        found = sample(jnp.pad(found, ((0, 1), (0, 1), (0, 0))), polar)[..., 0]
        return found - found.mean()

    def placed(image, reference, angle, scale):
        """The crop turned back, and the move that fits it best to the mean, with its score."""
        cosine, sine = jnp.cos(angle), jnp.sin(angle)
        matrix = scale * jnp.array([[cosine, -sine], [sine, cosine]])
        turned = sample(image, points(SIDE) @ matrix.T)
        sizes = (2 * SIDE, 2 * SIDE)
        product = jnp.fft.fft2(turned, sizes, axes=(0, 1)) * jnp.conj(
            jnp.fft.fft2(reference, sizes, axes=(0, 1))
        )
        scores = jnp.fft.ifft2(product, axes=(0, 1)).real.sum(-1)
        place = jnp.stack(jnp.unravel_index(scores.argmax(), scores.shape))
        move = (place + SIDE) % (2 * SIDE) - SIDE
        return scores.max() / (jnp.linalg.norm(turned) + 1e-6), matrix @ move

    def one(image, reference):
        a, b = spectrum(image), spectrum(reference)
        padded = [jnp.pad(x, ((0, _NUM_RADII), (0, 0))) for x in (a, b)]
        scores = jnp.fft.ifft2(jnp.fft.fft2(padded[0]) * jnp.conj(jnp.fft.fft2(padded[1]))).real
        near = jnp.abs((jnp.arange(2 * _NUM_RADII) + _NUM_RADII) % (2 * _NUM_RADII) - _NUM_RADII) <= 3
        place = jnp.where(near[:, None], scores, -jnp.inf).argmax()
        ring, angle = jnp.unravel_index(place, scores.shape)
        ring = (ring + _NUM_RADII) % (2 * _NUM_RADII) - _NUM_RADII
        scale = jnp.exp(-ring * jnp.log((SIDE - 2.0) / 2.0) / (_NUM_RADII - 1))
        angles = angle * jnp.pi / _NUM_ANGLES + jnp.array([0.0, jnp.pi])
        fits, moves = jax.vmap(lambda angle: placed(image, reference, angle, scale))(angles)
        return angles[fits.argmax()], scale, moves[fits.argmax()]

    def again(state, _):
        angles, scales, shifts = state
        cosine, sine = jnp.cos(angles), jnp.sin(angles)
        matrices = scales[:, None, None] * jnp.stack(
            [jnp.stack([cosine, -sine], -1), jnp.stack([sine, cosine], -1)], -2
        )
        moved = jax.vmap(lambda image, m, t: sample(image, points(SIDE) @ m.T + t))(free, matrices, shifts)
        return jax.vmap(one, (0, None))(free, moved.mean(0)), None

    start = (jnp.zeros(count), jnp.ones(count), jnp.zeros((count, 2)))
    return jax.lax.scan(again, start, None, length=_NUM_ROUNDS)[0]
