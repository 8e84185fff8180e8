"""What a network uses, found by changing one part of the image at a time: the second ground truth.

A mask says what *should* decide the class. A network may use something else, for instance a patch in a corner
that goes with the class in training; then a map that shows the patch is right and the mask is wrong. The
effect of a part is measured on the network itself, with images that a renderer draws anew
(`datasets.an8flower.intervene`), so that no hole is cut and nothing is inpainted. The effects are measured
once for a network and travel with the batches of the source.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.attribution import Score, logit
from vexplain.datasets import Source, epoch_batches, with_extras
from vexplain.evaluation.similarity import rank_correlation
from vexplain.streaming import Checkpoint, agree_on, fold
from vexplain.streaming.checkpoints import digest, facts_of
from vexplain.streaming.devices import Mesh, default_mesh, shared_rows
from vexplain.typing import AnyArray, ApplyFn, Array, Batch, Float, Images, Int, PyTree, Shaped, Variables

USED = 0.5  # of the largest effect of an image: from here on the network uses a part

InterventionFn = Callable[[np.ndarray], Any]  # indices -> .images, .masks; see with_part_effects


class _Parts(NamedTuple):
    masks: Shaped[Array, "images parts height width"]  # 8 bits
    effects: Float[Array, "images *interventions parts"]
    num_rows: Int[Array, ""]


def part_effects(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    changed_images: AnyArray,
    targets: PyTree,
    *,
    score: Score = logit,
) -> Float[Array, "batch parts"]:
    """Returns what the score of each image loses when each of its parts is changed.

        effect_{i,p} = y(x_i) - y(x_i with part p changed)

    Positive where the part raises the score of the target, negative where it lowers it; in the unit of the
    score. The parts are taken one after the other: memory does not depend on their number.

    Args:
        changed_images: (batch, parts, height, width, channels): the same with one part changed.

    References:
        Hesse, Schaub-Meyer, Roth, FunnyBirds: A Synthetic Vision Dataset for a Part-Based Analysis of
        Explainable AI Methods, ICCV 2023 (single deletion).

    Example:
        >>> apply, total = lambda variables, images: images.sum((1, 2, 3)), lambda outputs, targets: outputs
        >>> images = jnp.ones((1, 2, 2, 1))
        >>> changed = jnp.stack([images.at[:, 0].set(0.0), images], axis=1)
        >>> print(part_effects(apply, None, images, changed, None, score=total))
        [[2. 0.]]
    """
    images, changed_images = jnp.asarray(images), jnp.asarray(changed_images)
    if changed_images.shape[:1] + changed_images.shape[2:] != images.shape:
        raise ValueError(
            f"changed_images has shape {changed_images.shape}: expected (batch, parts, height, width, "
            f"channels) for images of shape {images.shape}"
        )
    whole = score(apply(variables, images), targets)
    after = jax.lax.map(lambda x: score(apply(variables, x), targets), jnp.moveaxis(changed_images, 1, 0))
    return whole[:, None] - after.T


def part_effect_correlation(
    heatmaps: Float[Array, "batch height width"],
    part_masks: Float[Array | np.ndarray, "batch parts height width"],
    effects: Float[Array | np.ndarray, "batch parts"],
) -> Float[Array, " batch"]:
    """Returns how well the mass of a map on each part ranks the parts by their true effect.

    Spearman's rank correlation over the parts of one image, between Σ_p mask_p h and the effects.

    It is in [-1, 1]; 0 where all masses or all effects are equal.

    Args:
        heatmaps: (batch, height, width).
        part_masks: (batch, parts, height, width), coverage of each part in [0, 1].
        effects: (batch, parts), from `part_effects`.

    Example:
        >>> parts = jnp.eye(3).reshape(1, 3, 1, 3)
        >>> heatmaps, effects = jnp.array([[[0.1, 0.2, 0.7]]]), jnp.array([[0.0, 2.0, 5.0]])
        >>> print(part_effect_correlation(heatmaps, parts, effects))
        [1.]
    """
    mass = jnp.einsum("bhw,bphw->bp", heatmaps, jnp.asarray(part_masks), precision="highest")
    return rank_correlation(mass, jnp.asarray(effects))


def with_part_effects(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    interventions: InterventionFn,
    *,
    truth_parts: Sequence[int] | None = None,
    batch_size: int = 64,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    description: str | None = None,
) -> Source:
    """Returns the source with "part_masks" and "part_effects" in its batches, for `heatmap_scores`.

    The effects are those on the logit of the predicted class, or of the "targets" where batches hold them,
    and belong to this network: another one needs its own pass.

    Args:
        source: the images.
        interventions: (n,) indices of the source -> `images` (n, parts, height, width, channels) with one
            part changed in each, and `masks` (n, parts, height, width) of the parts, in [0, 1]; for instance
            `rendered.interventions`. Where each part is changed in several ways, `images` is (n, ways, parts,
            height, width, channels).
        truth_parts: where given, the "masks" become what the network uses: of these parts, those whose effect
            (mean over the ways) is at least half of the largest one; where none has a positive effect, the
            mask stays.
        batch_size: images a step, the next multiple of the number of devices is taken; a step holds as many
            again for every part and way.
        mesh: devices; one if left out, or where there are several processes one of each.
        checkpoint: where the effects so far are saved, and where a pass that was interrupted goes on.
        description: of the progress bar; `None` shows none.

    Returns:
        A source; it keeps the masks in memory, 8 bits a value.
    """
    mesh = default_mesh() if mesh is None else mesh
    batches, num_steps = epoch_batches(source, batch_size + -batch_size % mesh.size)

    def changed_batch(batch: Batch) -> Batch:
        changed = interventions(np.asarray(batch["indices"]))
        return {**batch, "changed_images": changed.images, "part_masks": changed.masks}

    def update(state: _Parts, batch: Batch, variables: Variables) -> _Parts:
        images = batch["images"]
        targets = batch["targets"] if "targets" in batch else apply(variables, images).argmax(-1)
        changed = batch["changed_images"]
        every = changed.reshape(len(changed), -1, *images.shape[1:])
        effects = part_effects(apply, variables, images, every, targets).reshape(changed.shape[:-3])
        masks = jnp.round(batch["part_masks"] * 255).astype(jnp.uint8)
        rows = state.num_rows + jnp.arange(len(images))  # padding at the end has none, and is dropped
        return _Parts(
            state.masks.at[rows].set(masks, mode="drop"),
            state.effects.at[rows].set(effects, mode="drop"),
            state.num_rows + len(images),
        )

    changed = batches.mapped(changed_batch)
    first = changed.read(0, shared_rows(batches.batch_size, mesh))  # tells how many parts there are
    _check_shapes(*(np.shape(first[name]) for name in ("images", "changed_images", "part_masks")))
    if truth_parts is not None:
        _check_parts(truth_parts, first)
    masks = jnp.zeros((len(source), *first["part_masks"].shape[1:]), jnp.uint8)
    effects = jnp.zeros((len(source), *first["changed_images"].shape[1:-3]))
    state = _Parts(masks, effects, jnp.zeros((), jnp.int32))
    if checkpoint is not None:
        facts = facts_of(source, variables, batches.batch_size) | {"pass": "part effects"}
        checkpoint = checkpoint.of(**facts, changed=agree_on(digest(first)))
    state = fold(
        update,
        state,
        dataclasses.replace(changed, read=lambda t, rows: changed.read(t, rows) if t else first),
        num_steps=num_steps,
        constants=variables,
        mesh=mesh,
        checkpoint=checkpoint,
        description=description,
    )
    found = {"part_masks": np.asarray(state.masks), "part_effects": np.asarray(state.effects)}
    if truth_parts is not None:
        found["masks"] = _used_masks(source, found, list(truth_parts))
    return with_extras(source, found)


def used_parts(effects: Float[np.ndarray, "images *ways parts"], parts: Sequence[int]) -> np.ndarray:
    """Returns which of some parts a network uses in each image, (images, parts) with False at the others.

    Args:
        effects: from `part_effects`.
        parts: the indices of those that count.

    Example:
        >>> used_parts(np.array([[9.0, 2.0, 0.5], [9.0, 1.0, 0.6], [9.0, -1.0, 0.0]]), [1, 2]).astype(int)
        array([[0, 1, 0],
               [0, 1, 1],
               [0, 0, 0]])
    """
    num_parts = effects.shape[-1]
    means = effects.reshape(len(effects), -1, num_parts).mean(1)
    counts = np.isin(np.arange(num_parts), list(parts))
    largest = np.where(counts, means, -np.inf).max(1, keepdims=True)
    return counts & (largest > 0) & (means >= USED * largest)


def _used_masks(source: Source, found: dict[str, np.ndarray], parts: list[int]) -> np.ndarray:
    """(images, height, width), 8 bits."""
    used = used_parts(found["part_effects"], parts)
    masks = (found["part_masks"] * used[:, :, None, None]).sum(1, dtype=np.int64)
    for n in np.flatnonzero(~used.any(1)):
        masks[n] = np.round(255 * np.asarray(source[[n]]["masks"][0]))
    return np.minimum(masks, 255).astype(np.uint8)


def _check_parts(parts: Sequence[int], batch: Batch) -> None:
    num_parts = batch["part_masks"].shape[1]
    if not set(parts) <= set(range(num_parts)):
        raise ValueError(f"truth_parts is {list(parts)}: expected some of 0 to {num_parts - 1}")
    if "masks" not in batch:
        raise KeyError(f"source: truth_parts needs 'masks' in its batches, got {sorted(batch)}")


def _check_shapes(images: tuple[int, ...], changed: tuple[int, ...], masks: tuple[int, ...]) -> None:
    n, height, width, channels = images
    if len(changed) not in (5, 6) or (changed[0], *changed[-3:]) != images:
        size = f"{height}, {width}, {channels})"
        raise ValueError(
            f"interventions returned images of shape {changed} for images of shape {images}: expected "
            f"({n}, parts, {size}, or ({n}, ways, parts, {size}"
        )
    expected = (n, changed[-4], height, width)
    if masks != expected:
        raise ValueError(
            f"interventions returned masks of shape {masks}: expected one of each part, {expected}"
        )
