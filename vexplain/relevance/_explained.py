"""What the two maps that are made of relevant features ask of their arguments."""

from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from vexplain.attribution import Score, logit
from vexplain.relevance._features import Relevance, num_features
from vexplain.typing import Labels


def check_relevance(relevance: Any, score: Score) -> None:
    """Raises unless there is a relevance, and the class itself is explained, not another score."""
    if not isinstance(relevance, Relevance):
        raise TypeError(
            f"relevance is a {type(relevance).__name__}: expected what learn_relevance returned for this "
            "network"
        )
    if score is not logit:
        raise ValueError(
            f"score is {getattr(score, '__name__', score)!r}: relevant features explain the class, "
            "through the weights of the regression; leave score out"
        )


def check_score_count(relevance: Relevance, num_scores: int) -> None:
    """Raises ValueError where the network has another number of scores than the relevance has classes."""
    if num_scores != len(relevance.class_names):
        raise ValueError(
            f"relevance has {len(relevance.class_names)} classes, but the network scores {num_scores}: "
            "give the relevance that was found for this network"
        )


def check_classes_have_features(relevance: Relevance, targets: Labels) -> None:
    """Raises ValueError for a class to explain that has no relevant feature; not under `jax.jit`."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((relevance, targets))):
        return
    explained = np.unique(np.asarray(targets))
    empty = [relevance.class_names[c] for c in explained if num_features(relevance)[c] == 0]
    if empty:
        raise ValueError(
            f"no feature is relevant for class {', '.join(map(repr, empty))} at mu = "
            f"{float(relevance.mu):g}: find the relevance again with a larger mu, or explain another "
            "class by `targets`"
        )
