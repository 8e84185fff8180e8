"""What changes when one cue of an image is changed and nothing else: decisions, and responses of features.

How much of a feature's response a cue accounts for is its total effect,

    S_c = E[(x(z) - x(z with cue c drawn again))²] / (2 Var x(z)),

the share of the variance that is left unexplained by all that varies but this cue: 1 where nothing else
matters, 0 where it does not matter. Where cues act together both count it, so that the shares of all cues may
add to more than 1; what they leave belongs to pose and background.

References:
    Jansen, Analysis of variance designs for model output, 1999; Saltelli et al., Variance based sensitivity
    analysis of model output, 2010.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vexplain import relevance
from vexplain.datasets import Source, gather
from vexplain.datasets.cue_objects import CUES
from vexplain.datasets.sources import as_unit_floats

KINDS = (*CUES, "none")
_CHANGES_OF_SIX = 5 / 6  # a value that is drawn again is another one so often
_LEAST = 0.05  # total effect of a cue, for a feature to be a feature of it


def decisions_by_cue(decide: Any, variables: Any, conflicts: Source) -> dict[str, float]:
    """The shares of images that are decided for each of their cues, and for none of them."""
    batch = gather(conflicts)
    decided = in_batches(decide, variables, as_unit_floats(batch["images"]))
    shares = {cue: float((decided == batch[f"{cue}s"]).mean()) for cue in CUES}
    return shares | {"none": 1 - sum(shares.values())}


def changed_decisions(decide: Any, variables: Any, images: np.ndarray, changed: np.ndarray) -> list[float]:
    """The share of interventions on each cue that change the predicted class.

    Args:
        decide: compiled, `(variables, images) -> predicted classes`.
        variables: of the network.
        images: (n, height, width, 3).
        changed: (n, values, cues, height, width, 3), each cue with each of its five other values.
    """
    before = in_batches(decide, variables, images)
    after = in_batches(decide, variables, changed.reshape(-1, *images.shape[1:]))
    return (after.reshape(changed.shape[:3]) != before[:, None, None]).mean((0, 1)).tolist()


def bias_by_interventions(flips: list[float]) -> float:
    """Changes by the shape among those by shape or texture; NaN where neither changes a decision."""
    of_shape, of_texture = flips[0], flips[1]
    return of_shape / (of_shape + of_texture) if of_shape + of_texture else float("nan")


def total_effects(respond: Any, variables: Any, images: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """The total effect of each cue on the response of each feature, (features, cues); 0 of a constant one.

    Args:
        respond: compiled, `(variables, images) -> (images, features)`.
        variables: of the network.
        images: (n, height, width, 3) whose cues are independent of each other.
        changed: (n, values, cues, height, width, 3), each cue with each of its five other values.
    """
    before = in_batches(respond, variables, images).astype(np.float64)
    after = in_batches(respond, variables, changed.reshape(-1, *images.shape[1:])).astype(np.float64)
    variance = np.concatenate([before, after]).var(0)  # in both the cues are independent
    after = after.reshape(*changed.shape[:3], -1)
    squares = _CHANGES_OF_SIX * ((after - before[:, None, None]) ** 2).mean((0, 1))  # (cues, features)
    return np.where(variance > 0, squares / (2 * np.where(variance > 0, variance, 1)), 0).T


def feature_kinds(found: relevance.Relevance, effects: np.ndarray) -> dict[str, Any]:
    """Which cue each relevant feature is of, that with the largest total effect, and what they weigh."""
    kinds = np.where(effects.max(1) >= _LEAST, effects.argmax(1), len(CUES))
    weights = np.abs(np.asarray(found.weights))
    total = weights.sum()
    shares = [float(weights[kinds == kind].sum() / total) if total else np.nan for kind in range(len(KINDS))]
    starts = dict(zip(found.layers, np.cumsum([0, *(size for _, size in found.layout)]), strict=False))
    listed = {}
    for name in found.class_names:
        rows = []
        for layer, channel, weight in relevance.features(found, name):
            place = starts[layer] + channel
            effect = dict(zip(CUES, effects[place].tolist(), strict=True))
            row = {"feature": f"{layer}[{channel}]", "weight": weight, "kind": KINDS[kinds[place]]}
            rows.append(row | {"effects": effect})
        listed[name] = rows
    return {"weight": dict(zip(KINDS, shares, strict=True)), "classes": listed}


def in_batches(function: Any, variables: Any, images: np.ndarray, *, size: int = 120) -> np.ndarray:
    """The function of many images, in batches of one size."""
    count = len(images)
    filled = np.concatenate([images, np.repeat(images[-1:], -count % size, axis=0)])
    parts = [function(variables, jnp.asarray(filled[n : n + size])) for n in range(0, len(filled), size)]
    return np.concatenate([np.asarray(part) for part in parts])[:count]
