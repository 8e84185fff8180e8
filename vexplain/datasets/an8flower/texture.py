"""Textures of random plane waves: smooth at every scale, and drawn by a formula at any size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vexplain.typing import Array, Float, Key

_OCTAVES = ((1.0, 0.08), (2.5, 0.05), (6.0, 0.03))  # lowest cycles an image height, amplitude
_WAVES_PER_OCTAVE = 5
_COLORFULNESS = 0.8  # of a wave, against its gray


class Texture(NamedTuple):
    """The waves: color(p) = Σ_w amplitude_w · cos(2π <wave_w, p> + phase_w), p in image heights."""

    waves: Float[Array, "waves 2"]
    phases: Float[Array, " waves"]
    amplitudes: Float[Array, "waves 3"]


def draw_texture(key: Key) -> Texture:
    """Returns random waves in three octaves: broad stains of a color, blobs, and grain."""
    lowest, amplitude = jnp.repeat(jnp.array(_OCTAVES), _WAVES_PER_OCTAVE, axis=0).T
    numbers = jax.random.uniform(key, (6, len(lowest)))
    frequency = lowest * 2 ** numbers[0]
    angle = 2 * jnp.pi * numbers[1]
    waves = frequency[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
    tints = 1 + _COLORFULNESS * (2 * numbers[3:] - 1)
    return Texture(waves, 2 * jnp.pi * numbers[2], (amplitude * tints).T)


def draw_waves(texture: Texture, size: int) -> Float[Array, "height width 3"]:
    """Returns what a texture adds to each pixel, at the centers of the pixels."""
    line = (jnp.arange(size) + 0.5) / size
    across, down = texture.waves[:, 0, None] * line, texture.waves[:, 1, None] * line
    turns = down[:, :, None] + across[:, None, :] + texture.phases[:, None, None] / (2 * jnp.pi)
    return jnp.einsum("whv,wc->hvc", jnp.cos(2 * jnp.pi * turns), texture.amplitudes, precision="highest")
