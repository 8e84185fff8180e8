"""Scores of an appearance-preserving translation: shape, texture and retrieval, and references for them."""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.appearance_translation_data import ShapeSwap
from experiments.shape_translation_scores import in_direction, means, recall, scores_of
from vexplain.datasets import patterned
from vexplain.datasets.appearance import TEXTURES
from vexplain.translation import (
    DIRECTIONS,
    closest_targets,
    color_histogram,
    cycle_scores,
    fill_with_mean_color,
    in_batches,
    linear_probe,
    paste_into_true_mask,
    reciprocal_rank,
    retrieval_ranks,
    texture_correlation,
)
from vexplain.translation.layered import LayeredTranslator, Scene
from vexplain.translation.layered.compositing import estimated_coverage
from vexplain.typing import Variables

CUTOFFS = (1, 5, 20)
NUM_QUERIES, NUM_ANSWERS = 12, 5
FRAME = (0.1, 0.6, 0.2)
PERIODS = {"hue": 1.0, "angle": np.pi}  # factors that come around
APPEARANCE = ("hue", "saturation", "value", "texture", "frequency", "angle")  # what is shared and can be told
POSE = ("center_x", "center_y", "scale", "rotation", "left_arm", "right_arm")  # those that the data has


def scores_in(
    outputs: np.ndarray, pairs: Any, direction: str, *, masks: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """One value a pair by name: those of shape translation, and "texture", NaN for plain objects.

    `masks` are those of the outputs, if they cannot be found on a plain background.
    """
    _, _, targets, target_masks = (x[: len(outputs)] for x in in_direction(pairs, direction))

    def texture(outputs, targets, masks):
        return texture_correlation(outputs, *closest_targets(outputs, targets, masks))

    found = scores_of(outputs, pairs, direction, masks=masks)
    return found | {"texture": _of_patterned(in_batches(texture, outputs, targets, target_masks))}


def translations(
    translator: LayeredTranslator,
    generator: Variables,
    images: np.ndarray,
    direction: str,
    given: Mapping[str, np.ndarray],
) -> tuple[np.ndarray, np.ndarray | None]:
    """The translations of images, and what their objects cover where that cannot be found in them."""
    source, target = DIRECTIONS[direction]
    names = tuple(given)

    def translate(images, *values):
        told = dict(zip(names, values, strict=True))
        scene = Scene(told["scenes"], told["holes"]) if "scenes" in told else None
        made = translator.layers(
            generator, images, source=source, target=target, coverage=told.get("coverage"), scene=scene
        )
        return made.image, made.coverage

    image, coverage = in_batches(translate, images, *given.values())
    return image, (coverage if given else None)


def all_scores(
    outputs: np.ndarray,
    masks: np.ndarray | None,
    pairs: Any,
    direction: str,
    data: ShapeSwap,
    translator: LayeredTranslator,
    generator: Variables,
    untrained: Variables,
) -> dict[str, Any]:
    """Means of all scores; "recall" of the translations, and "retrieval" of the inputs by way.

    Retrieval is among objects in the pose of the partner, and "retrieval, colors" among those that have its
    colors too.
    """
    found: dict[str, Any] = means(scores_in(outputs, pairs, direction, masks=masks))
    found["recall"] = recall(outputs, data.galleries(pairs, direction, "pose"))
    if not data.has_scenes:  # of a scene nothing comes back
        translate = functools.partial(translator.translate, generator)
        found["cycle"] = cycle_scores(translate, in_direction(pairs, direction)[0], direction)
    ways = {
        "appearance code": functools.partial(translator.appearance, generator),
        "random encoder": functools.partial(translator.appearance, untrained),
        "color histogram": color_histogram,
        "pixels": lambda images, masks: images.reshape(len(images), -1),
    }
    found["probes"] = probes(pairs, direction, data, translator, generator)
    return found | {
        name: _retrieval(ways, chosen, direction, data, matched)
        for name, matched, chosen in (
            ("retrieval", "pose", pairs),
            ("retrieval, colors", "colors", patterned(pairs)),
        )
    }


def probes(
    pairs: Any, direction: str, data: ShapeSwap, translator: LayeredTranslator, generator: Variables
) -> dict[str, dict[str, float]]:
    """What is linear in the codes of the inputs, by code and factor: the share of its variance."""
    images = in_direction(pairs, direction)[0]
    given = data.given(pairs, direction)
    coverage = given["coverage"] if given else in_batches(estimated_coverage, images)

    def encode(images, coverage):
        found = translator.encode(generator, images, coverage)
        return {"appearance code": found.appearance, "shape code": found.shape}

    codes, found = in_batches(encode, images, coverage), {}
    known = [name for name in (*APPEARANCE, *POSE) if hasattr(pairs.factors, name)]
    for code, numbers in codes.items():
        found[code] = {}
        for name in known:
            values = np.asarray(getattr(pairs.factors, name), np.float32)
            rows = np.asarray(pairs.factors.texture) > 0 if name in ("frequency", "angle") else slice(None)
            found[code][name] = float(linear_probe(numbers[rows], _columns(name, values)[rows]))
    return found


def _columns(name: str, values: np.ndarray) -> np.ndarray:
    """A factor as a linear function can tell it: angles as sine and cosine, textures as one-hot."""
    if name == "texture":
        return np.eye(len(TEXTURES), dtype=np.float32)[values.astype(int)]
    if name in PERIODS:
        turns = 2 * np.pi * values / PERIODS[name]
        return np.stack([np.sin(turns), np.cos(turns)], -1)
    return values[:, None]


def _retrieval(ways, pairs: Any, direction: str, data: ShapeSwap, matched: str) -> dict[str, Any]:
    gallery = data.galleries(pairs, direction, matched)
    return {name: _ranked(*_embedded(embed, pairs, direction, data, gallery)) for name, embed in ways.items()}


def _embedded(
    embed, pairs: Any, direction: str, data: ShapeSwap, gallery: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the inputs, and of the candidates of each; what objects cover goes in with their images."""
    images = in_direction(pairs, direction)[0]
    candidates = gallery.reshape(-1, *gallery.shape[2:])
    told = data.gallery_coverage(pairs, direction, gallery)
    if told is None:
        coverages = in_batches(estimated_coverage, images), in_batches(estimated_coverage, candidates)
    else:
        coverages = data.given(pairs, direction)["coverage"], told.reshape(candidates.shape[:-1])
    codes = in_batches(embed, candidates, coverages[1])
    return in_batches(embed, images, coverages[0]), codes.reshape(*gallery.shape[:2], -1)


def answers(
    pairs: Any, direction: str, data: ShapeSwap, translator: LayeredTranslator, generator: Variables
) -> np.ndarray:
    """Some inputs with a pattern, and the candidates of their colors that their codes rank first.

    (inputs, 1 + answers, height, width, 3); the frame of the right answer is colored, that of others white.
    """
    some = patterned(pairs)
    gallery = data.galleries(some, direction, "colors")  # of all, for they are chosen among all
    embed = functools.partial(translator.appearance, generator)
    queries, codes = (x[:NUM_QUERIES] for x in _embedded(embed, some, direction, data, gallery))
    gallery, images = gallery[:NUM_QUERIES], in_direction(some, direction)[0][:NUM_QUERIES]
    order = np.argsort(-np.einsum("nd,nkd->nk", queries, codes), axis=1)[:, :NUM_ANSWERS]
    ranked = np.take_along_axis(gallery, order[:, :, None, None, None], axis=1)
    shown = np.concatenate([images[:, None], ranked], axis=1)
    is_right = np.concatenate([np.zeros((len(order), 1), bool), order == 0], axis=1)
    frames = np.where(is_right[..., None, None, None], np.array(FRAME, np.float32), np.float32(1))
    edge = shown.shape[2] // 16
    framed = np.pad(shown, [(0, 0), (0, 0), (edge, edge), (edge, edge), (0, 0)], constant_values=-1)
    return np.where(framed < 0, frames, framed)


def references(
    pairs: Any, direction: str, data: ShapeSwap
) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """What needs no learning, by name: images, and masks as in `scores_in`; some are told the true mask."""
    images, masks, *_ = in_direction(pairs, direction)
    true_masks = {"ab": pairs.masks_b, "ba": pairs.masks_a}[direction]
    made = {"mean color (true mask)": fill_with_mean_color}
    if not data.has_scenes:  # where position and texture stay
        made["input's pixels, else mean color (true mask)"] = paste_into_true_mask
    told = true_masks if data.has_scenes else None
    return {"copy of the input": (images, masks if data.has_scenes else None)} | {
        name: (in_batches(fill, images, masks, true_masks), told) for name, fill in made.items()
    }


def _ranked(queries: np.ndarray, codes: np.ndarray) -> dict[str, float]:
    """R@1, R@5, R@20, mean rank and mAP among the candidates, and the size of the code."""
    ranks = in_batches(retrieval_ranks, queries, codes)
    return {f"R@{k}": float((ranks <= k).mean()) for k in CUTOFFS} | {
        "mean rank": float(ranks.mean()),
        "mAP": float(np.mean(reciprocal_rank(jnp.asarray(ranks)))),
        "numbers": queries.shape[-1],
    }


def _of_patterned(values: np.ndarray) -> np.ndarray:
    """The values that are numbers, of objects with a pattern; 0 where there is none."""
    found = values[np.isfinite(values)]
    return found if len(found) else np.zeros(1, np.float32)
