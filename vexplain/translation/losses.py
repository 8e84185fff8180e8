"""The losses of the VAE-GAN pair, one value per example.

Each is a mean over pixels or latent numbers: its weight means the same at every resolution and latent size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.translation.networks import Latents
from vexplain.typing import Array, Float, Images


def kl_divergence(mean: Latents, log_variance: Latents) -> Float[Array, " batch"]:
    """Returns KL(N(mean, exp(s)) || N(0, 1)) = ½ · mean(mean² + exp(s) - s - 1), in nats a latent number.

    Args:
        mean: (batch, ...) of the latent.
        log_variance: s, of the same shape.
    """
    terms = (mean**2 + jnp.exp(log_variance) - log_variance - 1) / 2
    return terms.mean(tuple(range(1, terms.ndim)))


def absolute_error(
    a: Float[Array | np.ndarray, " batch *shape"], b: Float[Array | np.ndarray, " batch *shape"]
) -> Float[Array, " batch"]:
    """Returns mean |a - b| of each example: the reconstruction and the cycle loss.

    Args:
        a: (batch, ...).
        b: of the same shape.
    """
    return jnp.abs(jnp.asarray(a) - b).mean(tuple(range(1, a.ndim)))


def adversarial_loss(scores: Float[Array, " batch *map"], *, target: float | int) -> Float[Array, " batch"]:
    """Returns the least-squares GAN loss: the mean of ½ (score - target)².

    Args:
        scores: of the discriminator, (batch,) or a map of scores an image.
        target: 1 for images of the domain, 0 for translations; for translations 1 when the generator learns.

    References:
        Mao et al., Least Squares Generative Adversarial Networks, ICCV 2017, Equation 2; a = 0, b = c = 1.
    """
    terms = (scores - target) ** 2 / 2
    return terms.mean(tuple(range(1, terms.ndim)))


def gradient_penalty(
    score_fn: Callable[[Images], Float[Array, " batch *map"]], images: Images
) -> Float[Array, " batch"]:
    """Returns R1 = ½ ‖∇ₓ score‖² of each image of the domain itself; scores of a map are averaged.

    Args:
        score_fn: the discriminator.

    References:
        Mescheder, Geiger, Nowozin, Which Training Methods for GANs do actually Converge?, ICML 2018.
    """

    def total(x):
        scores = score_fn(x)
        return scores.mean(tuple(range(1, scores.ndim))).sum()

    slopes = jax.grad(total)(jnp.asarray(images))
    return (slopes**2).sum((1, 2, 3)) / 2


def check_weights(weights: Any) -> None:
    """Raises ValueError where a field of a dataclass of weights is negative or not finite; names it."""
    for name, value in dataclasses.asdict(weights).items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} is {value}: expected a weight of 0 or more")
