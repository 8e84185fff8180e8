"""Many linear classifiers at once: logistic regressions with a quadratic penalty, by Newton's method.

The weights of a classifier are a combination Σ α_i x_i of its images, so that a step solves a system of as
many unknowns as there are images, however many features they have.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from vexplain.typing import Array, Float, Int

_NUM_STEPS = 20
_STEP_SIZES = (1.0, 0.5, 0.25, 1 / 16, 1 / 256)
_MOST_BYTES = 2**28  # of the features that are gathered at once


class Problems(NamedTuple):
    """Which images each classifier tells apart, a row each. Images in neither part are left out."""

    rows: Int[Array | np.ndarray, "problems images"]  # their places among the features
    is_positive: Bool[Array | np.ndarray, "problems images"]
    is_training: Bool[Array | np.ndarray, "problems images"]
    is_held_out: Bool[Array | np.ndarray, "problems images"]


class Classifiers(NamedTuple):
    """The normals of the separating planes, towards the positive images, and the accuracies."""

    normals: Float[Array, "problems size"]  # of length one
    accuracies: Float[Array, " problems"]  # on the images that are held out


def fit_classifiers(
    features: Float[Array, "images size"], problems: Problems, *, penalty: float | int
) -> Classifiers:
    """Returns all classifiers, fitted in one compiled program.

    With x the features of the training images less their mean, over the root of their mean squared distance
    from it, and t = 1 for positive images, -1 else, each minimizes

        mean over training images of log(1 + exp(-t (w · x + b))) + penalty / 2 · ‖w‖²

    Scaled in this way, a penalty means the same for activations of any size. The normal is w / ‖w‖.

    Args:
        features: of all images.
        problems: which of them each classifier is for.
        penalty: positive.
    """
    bytes_each = problems.rows.shape[1] * features.shape[1] * features.dtype.itemsize
    at_once = int(np.clip(_MOST_BYTES // bytes_each, 1, len(problems.rows)))
    return _fit_all(features, problems, penalty, at_once=at_once)


def _fit_all(features, problems, penalty, *, at_once):
    def fit(problem: Problems) -> Classifiers:
        return _fit(features[problem.rows], problem, penalty)

    return jax.lax.map(fit, problems, batch_size=at_once)


_fit_all = jax.jit(_fit_all, static_argnames="at_once")


def _fit(images: Float[Array, "images size"], problem: Problems, penalty: Array) -> Classifiers:
    counts, truth = (jnp.asarray(part, images.dtype) for part in (problem.is_training, problem.is_positive))
    total = counts.sum()
    centered = images - counts @ images / total
    spread = (counts @ (centered**2).sum(1) / total) ** 0.5
    scaled = centered / jnp.where(spread > 0, spread, 1)
    gram = scaled @ scaled.T
    alpha, bias = _newton(gram, truth, counts, penalty * total)
    decided = gram @ alpha + bias
    is_right = jnp.where(truth == 1, decided > 0, decided < 0) & problem.is_held_out
    normal = scaled.T @ alpha
    length = jnp.linalg.norm(normal)
    return Classifiers(normal / jnp.where(length > 0, length, 1), is_right.sum() / problem.is_held_out.sum())


def _newton(gram: Array, truth: Array, counts: Array, ridge: Array) -> tuple[Array, Array]:
    """The minimum over α, b of Σ counts log(1 + exp(-t f)) + ridge / 2 · αᵀ G α, with f = G α + b.

    With S the curvature of the loss at f and r its downward slope, Newton's step solves a ridge regression of
    f + r / S with weights S. It is the full one, or the best of some shorter ones, so that the loss falls.
    """
    identity = jnp.eye(len(gram), dtype=gram.dtype)

    def loss(alpha, bias):
        fitted = gram @ alpha
        signs = 1 - 2 * truth
        losses = counts @ jax.nn.softplus(signs * (fitted + bias))
        return losses + ridge / 2 * alpha @ fitted

    def step(_, state):
        alpha, bias = state
        fitted = gram @ alpha + bias
        share = jax.nn.sigmoid(fitted)
        root = (counts * share * (1 - share)) ** 0.5
        slope = counts * (truth - share)
        target = root * fitted + jnp.where(root > 0, slope / jnp.where(root > 0, root, 1), 0)
        system = ridge * identity + root[:, None] * gram * root
        solved = jax.scipy.linalg.solve(system, jnp.stack([target, root], 1), assume_a="pos")
        new_bias = root @ solved[:, 0] / (root @ solved[:, 1])
        new_alpha = root * (solved[:, 0] - new_bias * solved[:, 1])
        sizes = jnp.asarray((0.0, *_STEP_SIZES), gram.dtype)
        alphas = alpha + sizes[:, None] * (new_alpha - alpha)
        biases = bias + sizes * (new_bias - bias)
        losses = jax.vmap(loss)(alphas, biases)
        best = jnp.nanargmin(losses)
        return alphas[best], biases[best]

    start = jnp.zeros(len(gram), gram.dtype), jnp.zeros((), gram.dtype)
    return jax.lax.fori_loop(0, _NUM_STEPS, step, start)
