"""What every explanation of a batch asks of its arguments."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vexplain._checks import check_images, check_targets
from vexplain.relevance._features import Relevance, num_features
from vexplain.typing import Array, Labels


def check_explained(images: Any, targets: Any, relevance: Relevance) -> Array | None:
    """Returns the targets as int32, or `None` for the predicted ones.

    Args:
        images: (batch, height, width, channels) in [0, 1].
        targets: (batch,) integers, or `None`.
        relevance: says how many classes there are.

    Raises:
        ValueError: images or targets of another rank, dtype or range, or no image.
    """
    check_images(images)
    if not len(images):
        raise ValueError(f"images has shape {images.shape}: it holds no image to explain")
    if targets is None:
        return None
    check_targets(targets, len(images), len(relevance.class_names))
    return jnp.asarray(targets).astype(jnp.int32)


def check_score_count(relevance: Relevance, num_scores: int) -> None:
    """Raises ValueError where the network has another number of scores than the relevance has classes."""
    if num_scores != len(relevance.class_names):
        raise ValueError(
            f"relevance has {len(relevance.class_names)} classes, but the network scores {num_scores}: "
            "give the relevance that was found for this network"
        )


def check_classes_have_features(relevance: Relevance, targets: Labels) -> None:
    """Raises ValueError for a class to explain that has no relevant feature; not under `jax.jit`."""
    if any(isinstance(leaf, Tracer) for leaf in (relevance.weights, targets)):
        return
    explained = np.unique(np.asarray(targets))
    empty = [relevance.class_names[c] for c in explained if num_features(relevance)[c] == 0]
    if empty:
        raise ValueError(
            f"no feature is relevant for class {', '.join(map(repr, empty))} at mu = "
            f"{float(relevance.mu):g}: find the relevance again with a larger mu, or explain another "
            "class by `targets`"
        )
