"""Realism: how far one set of images is from another, as Gaussians in a space of features.

The features are the caller's, of a classifier trained on the domain itself, say: those of ImageNet mean
nothing on renderings.
"""

import jax.numpy as jnp

from vexplain.typing import Array, Float


def frechet_distance(
    features: Float[Array, "examples features"], true_features: Float[Array, "true_examples features"]
) -> Float[Array, ""]:
    """Returns the Fréchet distance (squared, as customary) between Gaussians fitted to two sets of features.

    d² = ||μ₁ - μ₂||² + tr(Σ₁) + tr(Σ₂) - 2 tr((Σ₁ Σ₂)^½), with unbiased covariances. The last trace is the
    sum of the singular values of R₁ R₂ᵀ, where the centered features are Q R. The distance of few examples is
    too large: compare sets of the same size, larger than the number of features.

    Args:
        features: of the translations, a row an example.
        true_features: of images of the domain.

    Raises:
        ValueError: a set of fewer than two examples.

    References:
        Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, GANs trained by a two time-scale update rule
        converge to a local Nash equilibrium, 2017, equation 6.

    Example:
        >>> features = jnp.array([[0.0, 1.0], [2.0, 3.0], [1.0, 0.0]])
        >>> print(frechet_distance(features, features + jnp.array([3.0, 4.0])).round(4))
        25.0
    """
    if min(len(features), len(true_features)) < 2:
        raise ValueError(
            f"features has {len(features)} and true_features {len(true_features)} examples: expected at "
            "least 2 of each"
        )
    (mean, root), (true_mean, true_root) = _mean_and_root(features), _mean_and_root(true_features)
    overlap = jnp.linalg.svd(jnp.matmul(root, true_root.T, precision="highest"), compute_uv=False).sum()
    spread = jnp.square(root).sum() + jnp.square(true_root).sum() - 2 * overlap
    return jnp.square(mean - true_mean).sum() + jnp.maximum(spread, 0)


def _mean_and_root(features: Array) -> tuple[Array, Array]:
    """Returns the mean, and R with Σ = RᵀR."""
    mean = features.mean(0)
    return mean, jnp.linalg.qr(features - mean, mode="r") / jnp.sqrt(len(features) - 1)
