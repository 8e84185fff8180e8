"""Scores of an appearance-preserving translation: shape, texture and retrieval, and references for them."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.shape_translation_scores import (
    galleries,
    in_direction,
    means,
    recall,
    scores_of,
)
from vexplain.datasets import estimate_masks
from vexplain.datasets.shape_swap import Pairs
from vexplain.translation import (
    closest_targets,
    color_histogram,
    cycle_scores,
    fill_with_mean_color,
    in_batches,
    paste_into_true_mask,
    reciprocal_rank,
    retrieval_ranks,
    texture_correlation,
)
from vexplain.translation.layered import LayeredTranslator
from vexplain.typing import Variables

CUTOFFS = (1, 5)


def scores_in(outputs: np.ndarray, pairs: Pairs, direction: str) -> dict[str, np.ndarray]:
    """One value a pair by name: those of shape translation, and "texture", NaN for plain objects."""
    _, _, targets, masks = (x[: len(outputs)] for x in in_direction(pairs, direction))

    def texture(outputs, targets, masks):
        return texture_correlation(outputs, *closest_targets(outputs, targets, masks))

    found = scores_of(outputs, pairs, direction)
    return found | {"texture": _of_patterned(in_batches(texture, outputs, targets, masks))}


def all_scores(
    outputs: np.ndarray,
    pairs: Pairs,
    direction: str,
    translator: LayeredTranslator,
    generator: Variables,
    untrained: Variables,
    *,
    level: int,
) -> dict[str, Any]:
    """Means of all scores; "recall" of the translations, and "retrieval" of the inputs by way."""
    gallery = galleries(pairs, direction, level=level)
    translate = functools.partial(translator.translate, generator)
    return means(scores_in(outputs, pairs, direction)) | {
        "recall": recall(outputs, gallery),
        "cycle": cycle_scores(translate, in_direction(pairs, direction)[0], direction),
        "retrieval": {
            name: _ranked(embed, pairs, direction, gallery)
            for name, embed in {
                "appearance code": functools.partial(translator.appearance, generator),
                "random encoder": functools.partial(translator.appearance, untrained),
                "color histogram": _histogram,
                "pixels": lambda images: images.reshape(len(images), -1),
            }.items()
        },
    }


def references(pairs: Pairs, direction: str) -> dict[str, np.ndarray]:
    """What needs no learning, by name; two of them are told the true mask."""
    images, masks, _, _ = in_direction(pairs, direction)
    true_masks = {"ab": pairs.masks_b, "ba": pairs.masks_a}[direction]
    made = {
        "mean color (true mask)": fill_with_mean_color,
        "input's pixels, else mean color (true mask)": paste_into_true_mask,
    }
    return {"copy of the input": images} | {
        name: in_batches(fill, images, masks, true_masks) for name, fill in made.items()
    }


def _ranked(embed, pairs: Pairs, direction: str, gallery: np.ndarray) -> dict[str, float]:
    """R@1, R@5, mean rank and mAP among the candidates of the other domain, and the size of the code."""
    queries, codes = embedded(embed, in_direction(pairs, direction)[0], gallery)
    ranks = in_batches(retrieval_ranks, queries, codes)
    return {f"R@{k}": float((ranks <= k).mean()) for k in CUTOFFS} | {
        "mean rank": float(ranks.mean()),
        "mAP": float(np.mean(reciprocal_rank(jnp.asarray(ranks)))),
        "numbers": queries.shape[-1],
    }


def embedded(embed, images: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes of images, and of the candidates of each; one program for both."""
    candidates = gallery.reshape(-1, *gallery.shape[2:])
    codes = in_batches(embed, candidates)
    return in_batches(embed, images), codes.reshape(*gallery.shape[:2], -1)


def _histogram(images):
    return color_histogram(images, estimate_masks(images))


def _of_patterned(values: np.ndarray) -> np.ndarray:
    """The values that are numbers, of objects with a pattern; 0 where there is none."""
    found = values[np.isfinite(values)]
    return found if len(found) else np.zeros(1, np.float32)
