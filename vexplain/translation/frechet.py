"""Realism of a set of translations, in a space of features.

The features are the caller's, say of a classifier of the domain: those of ImageNet mean little on renderings.
"""

import jax.numpy as jnp

from vexplain.typing import Array, Float


def frechet_distance(
    features: Float[Array, "examples features"], true_features: Float[Array, "true_examples features"]
) -> Float[Array, ""]:
    """Returns the Fréchet distance (squared, as customary) between Gaussians fitted to two sets of features.

    d² = ||μ₁ - μ₂||² + tr(Σ₁) + tr(Σ₂) - 2 tr((Σ₁ Σ₂)^½), with unbiased covariances. The distance of few
    examples is too large: compare sets of the same size, larger than the number of features.

    Args:
        features: of the translations.
        true_features: of images of the domain.

    Raises:
        ValueError: a set of fewer than two examples.

    References:
        Heusel et al., GANs trained by a two time-scale update rule converge to a local Nash equilibrium,
        NIPS 2017, equation 6.
    """
    if min(len(features), len(true_features)) < 2:
        raise ValueError(
            f"features has {len(features)} and true_features {len(true_features)} examples: expected at "
            "least 2 of each"
        )
    (mean, root), (true_mean, true_root) = _mean_and_root(features), _mean_and_root(true_features)
    # The trace of the root is the sum of the singular values of R₁ R₂ᵀ, where the centered features are Q R.
    overlap = jnp.linalg.svd(jnp.matmul(root, true_root.T, precision="highest"), compute_uv=False).sum()
    spread = jnp.square(root).sum() + jnp.square(true_root).sum() - 2 * overlap
    return jnp.square(mean - true_mean).sum() + jnp.maximum(spread, 0)


def _mean_and_root(features: Array) -> tuple[Array, Array]:
    """Returns the mean, and R with Σ = RᵀR."""
    mean = features.mean(0)
    return mean, jnp.linalg.qr(features - mean, mode="r") / jnp.sqrt(len(features) - 1)
