"""Many linear classifiers at once: logistic regressions with a quadratic penalty, by Newton's method.

The weights of a classifier are a combination Σ α_i x_i of its images, so that a step solves a system of as
many unknowns as there are images, however many features they have.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from vexplain.typing import Array, Float, Int

_MOST_STEPS = 30
_STEP_SIZES = (0.0, 1.0, 0.5, 0.25, 1 / 16, 1 / 256)
_MOST_BYTES = 2**28  # of the features that are gathered at once


class Images(NamedTuple):
    """Some images of each classifier, a row each, of which it takes those with a weight of 1."""

    rows: Int[Array | np.ndarray, "problems images"]  # their places among the features
    is_positive: Bool[Array | np.ndarray, "problems images"]
    weights: Float[Array | np.ndarray, "problems images"]  # 1, or 0 for what fills up


class Classifiers(NamedTuple):
    """The normals of the separating planes, towards the positive images, and the accuracies."""

    normals: Float[Array, "problems size"]  # of length one
    accuracies: Float[Array, " problems"]  # on the images that are held out


def fit_classifiers(
    features: Float[Array, "images size"], training: Images, held_out: Images, *, penalty: float | int
) -> Classifiers:
    """Returns all classifiers, fitted in one compiled program.

    With x the features of the training images less their mean, over the root of their mean squared distance
    from it, and t = 1 for positive images, -1 else, each minimizes

        mean over training images of log(1 + exp(-t (w · x + b))) + penalty / 2 · ‖w‖²

    Scaled in this way, a penalty means the same for activations of any size. The normal is w / ‖w‖.

    Args:
        features: of all images.
        training: which images each classifier is fitted to.
        held_out: which ones its accuracy is measured on.
        penalty: positive.
    """
    num_images = training.rows.shape[1] + held_out.rows.shape[1]
    bytes_each = num_images * features.shape[1] * features.dtype.itemsize
    at_once = int(np.clip(_MOST_BYTES // bytes_each, 1, len(training.rows)))
    return _fit_all(features, training, held_out, penalty, at_once=at_once)


@functools.partial(jax.jit, static_argnames="at_once")
def _fit_all(features, training, held_out, penalty, *, at_once):
    def fit(sets: tuple[Images, Images]) -> Classifiers:
        return _fit(features, *sets, penalty)

    return jax.lax.map(fit, (training, held_out), batch_size=at_once)


def _fit(features: Array, training: Images, held_out: Images, penalty: Array) -> Classifiers:
    images, weights = features[training.rows], jnp.asarray(training.weights, features.dtype)
    total = weights.sum()
    mean = weights @ images / total
    spread = (weights @ ((images - mean) ** 2).sum(1) / total) ** 0.5
    spread = jnp.where(spread > 0, spread, 1)
    scaled = (images - mean) / spread
    truth = jnp.asarray(training.is_positive, images.dtype)
    alpha, bias = _newton(scaled @ scaled.T, truth, weights, penalty * total)
    normal = scaled.T @ alpha
    decided = (features[held_out.rows] - mean) @ normal / spread + bias
    is_right = jnp.where(held_out.is_positive, decided > 0, decided < 0)
    tested = jnp.asarray(held_out.weights)
    length = jnp.linalg.norm(normal)
    return Classifiers(normal / jnp.where(length > 0, length, 1), tested @ is_right / tested.sum())


def _newton(gram: Array, truth: Array, weights: Array, ridge: Array) -> tuple[Array, Array]:
    """The minimum over α, b of Σ weights log(1 + exp(-t f)) + ridge / 2 · αᵀ G α, with f = G α + b.

    With S the curvature of the loss at f and r its downward slope, Newton's step solves a ridge regression of
    f + r / S with weights S. It is the full one, or the best of some shorter ones, so that the loss falls.
    """
    identity = jnp.eye(len(gram), dtype=gram.dtype)
    sizes = jnp.asarray(_STEP_SIZES, gram.dtype)[:, None]
    tolerance = 10 * jnp.finfo(gram.dtype).eps

    def losses(alphas, fitted, biases):
        wrong = (1 - 2 * truth) * (fitted + biases)
        return jax.nn.softplus(wrong) @ weights + ridge / 2 * (alphas * fitted).sum(1)

    def is_open(state):
        _, before, now, count = state
        return (count < _MOST_STEPS) & (before - now > tolerance * before)

    def step(state):
        (alpha, bias), _, now, count = state
        fitted = gram @ alpha
        share = jax.nn.sigmoid(fitted + bias)
        root = (weights * share * (1 - share)) ** 0.5
        slope = weights * (truth - share)
        target = root * (fitted + bias) + jnp.where(root > 0, slope / jnp.where(root > 0, root, 1), 0)
        system = ridge * identity + root[:, None] * gram * root
        solved = jax.scipy.linalg.solve(system, jnp.stack([target, root], 1), assume_a="pos")
        new_bias = root @ solved[:, 0] / (root @ solved[:, 1])
        move = root * (solved[:, 0] - new_bias * solved[:, 1]) - alpha
        alphas, biases = alpha + sizes * move, bias + sizes * (new_bias - bias)
        found = losses(alphas, fitted + sizes * (gram @ move), biases)
        best = jnp.nanargmin(found)
        return (alphas[best], biases[best, 0]), now, found[best], count + 1

    start = jnp.zeros(len(gram), gram.dtype), jnp.zeros((), gram.dtype)
    first = weights.sum() * jnp.log(2).astype(gram.dtype)
    state = start, jnp.asarray(jnp.finfo(gram.dtype).max), first, 0
    return jax.lax.while_loop(is_open, step, state)[0]
