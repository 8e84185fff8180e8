"""The scores of a shape translation on the paired test set, of models and of controls that learn nothing."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.datasets import estimate_masks
from vexplain.datasets.shape_swap import APPEARANCE, Pairs, render_factors
from vexplain.datasets.shape_swap import galleries as galleries
from vexplain.translation import closest_targets as closest
from vexplain.translation import (
    hue,
    in_batches,
    mean_color,
    recall_at,
    retrieval_ranks,
    translation_controls,
    translation_scores,
)


def in_direction(pairs: Any, direction: str) -> tuple[np.ndarray, ...]:
    """Inputs, their masks, and all true translations with their masks."""
    if direction == "ab":
        return pairs.images_a, pairs.masks_a, pairs.targets_b, pairs.target_masks_b
    return pairs.images_b, pairs.masks_b, pairs.targets_a, pairs.target_masks_a


def scores_of(
    outputs: np.ndarray, pairs: Any, direction: str, *, masks: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """One value a pair, by name; where there are several true translations, against the closest.

    `masks` are those of the outputs, if they cannot be found on a plain background.
    """

    def scored(outputs, images, input_masks, targets, target_masks, *output_masks):
        truth, true_masks = closest(outputs, targets, target_masks)
        told = output_masks[0] if output_masks else None
        return translation_scores(outputs, images, truth, input_masks, true_masks, output_masks=told)

    arrays = (x[: len(outputs)] for x in in_direction(pairs, direction))
    return in_batches(scored, outputs, *arrays, *([] if masks is None else [masks]))


def hue_errors(outputs: np.ndarray, pairs: Pairs, direction: str) -> np.ndarray:
    """Signed circular hue error of each pair in degrees, in [-180, 180)."""
    images, masks, *_ = in_direction(pairs, direction)
    return in_batches(_hue_errors, outputs, images, masks)


@jax.jit
def _hue_errors(outputs, images, masks):
    found = hue(mean_color(outputs, estimate_masks(outputs)))
    return (found - hue(mean_color(images, masks)) + 180) % 360 - 180


def hue_offset(errors: np.ndarray) -> tuple[float, float]:
    """Circular mean of signed hue errors in degrees, and how much they agree on it, from 0 to 1."""
    mean = np.exp(1j * np.deg2rad(errors)).mean()
    return float(np.rad2deg(np.angle(mean))), float(np.abs(mean))


def means(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Means over pairs; the median of the hue error."""
    found = {name: float(np.mean(values)) for name, values in scores.items()}
    return found | {"hue_error": float(np.median(scores["hue_error"]))}


def recall(outputs: np.ndarray, gallery: np.ndarray) -> float:
    """R@1 in a pose-matched gallery of 20, in [0, 1]; chance is 0.05."""
    ranks = in_batches(retrieval_ranks, outputs, gallery)
    return float(np.mean(recall_at(jnp.asarray(ranks))))


def controls(pairs: Pairs, candidates: np.ndarray, *, level: int) -> dict[str, np.ndarray]:
    """The outputs of the controls, from A to B, by name."""
    swapped = {name: np.roll(np.asarray(getattr(pairs.factors, name)), 1, axis=0) for name in APPEARANCE}
    made = translation_controls(
        pairs.images_a,
        pairs.images_b,
        pairs.masks_a,
        pairs.masks_b,
        candidates=candidates,
        wrong_appearance=_render(pairs.factors._replace(**swapped), 1, level, pairs.images_a.shape[1]),
    )
    return {name: np.asarray(outputs) for name, outputs in made.items()}


def _render(factors: Any, domain: int, level: int, size: int) -> np.ndarray:
    return in_batches(
        lambda *leaves: _rendered(type(factors)(*leaves), domain, level, size),
        *(np.asarray(leaf) for leaf in factors),
    )


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _rendered(factors: Any, domain: int, level: int, size: int):
    return jax.vmap(lambda f: render_factors(f, domain, level=level, size=size)[0])(factors)
