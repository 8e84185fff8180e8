"""The cycle error, and the test for a hidden channel behind a small one.

Networks trained to restore their input can hide it in the translation as a faint pattern: the cycle closes
although the translation shows nothing of what it should keep. So the cycle is closed again from a translation
with a disturbance that no eye would notice: what was shown is still restored, what was hidden is lost.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from vexplain.datasets.filters import gaussian_blur
from vexplain.typing import Array, Float, Images, Key

TranslateFn: TypeAlias = Callable[[Images], Images]
Errors: TypeAlias = dict[str, Float[Array, " batch"]]
NOISE_SIGMAS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
LEAST_ERROR = 0.5 / 255  # half a step of 8 bits: below it a cycle is closed, and no ratio goes further


@jax.jit
def cycle_error(images: Images, cycled: Images) -> Float[Array, " batch"]:
    """Returns the mean absolute difference, in [0, 1], of images and the same translated there and back."""
    return jnp.abs(images - cycled).mean((1, 2, 3))


def hidden_channel_errors(
    key: Key,
    translate_ab: TranslateFn,
    translate_ba: TranslateFn,
    images: Images,
    *,
    sigmas: Sequence[float] = NOISE_SIGMAS,
    blur_sigma: float = 0.5,
) -> Errors:
    """Returns the cycle error of each image, undisturbed and under each disturbance of its translation.

    E = mean |x - G_BA(p(G_AB(x)))| with p the identity ("clean"), Gaussian noise ("noise 4/255"), rounding
    to 8 bits ("8-bit rounding") or a blur ("blur 0.5 px"). Disturbed images are clipped to [0, 1].

    Args:
        translate_ab: images to their translations, both in [0, 1].
        translate_ba: translations to images.
        sigmas: standard deviations of the noise.
        blur_sigma: of the blur, in pixels.

    References:
        Chu, Zhmoginov, Sandler, CycleGAN, a master of steganography, 2017.
    """
    outputs = translate_ab(images)
    noises = [f"noise {255 * sigma:g}/255" for sigma in sigmas]
    names = ["clean", *noises, "8-bit rounding", f"blur {blur_sigma:g} px"]
    disturbed = (outputs, *_disturbed(key, outputs, tuple(sigmas), blur_sigma))
    return {name: cycle_error(images, translate_ba(x)) for name, x in zip(names, disturbed, strict=True)}


def hidden_channel_ratios(errors: Errors) -> Errors:
    """Returns how many times each disturbance enlarges the errors; far above 1 tells of a hidden channel."""
    clean = jnp.maximum(errors["clean"], LEAST_ERROR)
    return {name: error / clean for name, error in errors.items() if name != "clean"}


@functools.partial(jax.jit, static_argnums=(2, 3))
def _disturbed(key: Key, outputs: Images, sigmas: tuple[float, ...], blur_sigma: float) -> list[Images]:
    """Returns images with noise of each strength, rounded, and blurred."""
    noisy = []
    for sigma, noise_key in zip(sigmas, jax.random.split(key, max(len(sigmas), 1)), strict=False):
        noise = sigma * jax.random.normal(noise_key, outputs.shape, outputs.dtype)
        noisy.append(jnp.clip(outputs + noise, 0, 1))
    rounded = jnp.round(jnp.clip(outputs, 0, 1) * 255) / 255
    radius = max(1, round(4 * blur_sigma))
    return [*noisy, rounded, gaussian_blur(outputs, sigma=blur_sigma, radius=radius)]
