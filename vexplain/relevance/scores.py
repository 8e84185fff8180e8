"""Which relevant features explain the class of one image: its responses, weighted by relevance.

A feature explains a prediction where it is relevant for the class and present in the image. The few features
with the largest product of both are the explanation; one without a positive product is never part of it.
"""

from typing import NamedTuple

import jax.numpy as jnp

from vexplain.relevance._features import Relevance
from vexplain.typing import Array, Float, Int, Labels, Shaped


class TopFeatures(NamedTuple):
    """The best features of each image, best first; slots beyond the last one are not valid."""

    indices: Int[Array, "batch num_features"]
    scores: Float[Array, "batch num_features"]  # 0 where not valid
    valid: Shaped[Array, "batch num_features"]  # boolean: the score is positive


def feature_scores(
    responses: Float[Array, "batch features"], relevance: Relevance, targets: Labels
) -> Float[Array, "batch features"]:
    """The score r of every feature for the class of each image.

        r = x * w_j / ||w_j||_1      with x the responses and w_j the weights of class j   (*paper*)

    A class without relevant features scores 0 everywhere; a target beyond the classes scores NaN.

    Args:
        responses: from `responses`, in the order of `relevance.layout`, else a ValueError.
        relevance: the weights; may be an argument of a jitted function.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, section 3.2.
    """
    if responses.shape[1] != relevance.weights.shape[0]:
        raise ValueError(
            f"responses: expected the {relevance.weights.shape[0]} features of the relevance, of "
            f"layers {relevance.layers}, got {responses.shape[1]}"
        )
    weights = jnp.asarray(relevance.weights).astype(responses.dtype)
    norms = jnp.sum(jnp.abs(weights), axis=0, keepdims=True)
    shares = (weights / jnp.where(norms == 0, 1, norms)).T
    return responses * shares.at[targets].get(mode="fill", fill_value=jnp.nan)


def top_features(scores: Float[Array, "batch features"], num_features: int) -> TopFeatures:
    """The features with the largest scores of each image, over all layers together.

    Args:
        scores: from `feature_scores`.
        num_features: features per image, K; static, 1 to the number of features, else a ValueError. Where
            fewer have a positive score the rest is marked as not valid, and its indices mean nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> best = top_features(jnp.array([[0.1, 0.0, 0.4, 0.0]]), 3)
        >>> best.indices[0, :2].tolist(), best.valid[0].tolist()
        ([2, 0], [True, True, False])
    """
    if not 1 <= num_features <= scores.shape[1]:
        raise ValueError(
            f"num_features: expected 1 to {scores.shape[1]}, the features there are, got {num_features}"
        )
    # A sort is split over devices with the batch; top_k would gather the scores of all images first.
    indices = jnp.argsort(-scores, axis=1, stable=True)[:, :num_features].astype(jnp.int32)
    best = jnp.take_along_axis(scores, indices, axis=1)
    valid = best > 0
    return TopFeatures(indices, jnp.where(valid, best, 0), valid)
