"""The second ground truth, beside the masks or in their place: what the score loses when a part is changed.

The effects need many images for each one, and are measured once for a network; then they travel with the
batches of the source, and every method is scored against them in the same pass as against the masks.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vexplain.datasets import Source, epoch_batches, with_extras
from vexplain.evaluation._part_effects import part_effects
from vexplain.streaming import fold
from vexplain.streaming.devices import Mesh
from vexplain.typing import ApplyFn, Array, Batch, Float, Int, Shaped, Variables

USED = 0.5  # of the largest effect of an image: from here on the network uses a part

InterventionFn = Callable[[np.ndarray], Any]  # indices -> .images, .masks; see with_part_effects


class _Parts(NamedTuple):
    masks: Shaped[Array, "images parts height width"]  # 8 bits
    effects: Float[Array, "images *interventions parts"]
    num_rows: Int[Array, ""]


def with_part_effects(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    interventions: InterventionFn,
    *,
    truth_parts: Sequence[int] | None = None,
    batch_size: int = 64,
    mesh: Mesh | None = None,
    description: str | None = None,
) -> Source:
    """Returns the source with "part_masks" and "part_effects" in its batches, for `heatmap_scores`.

    The effect of a part is what the logit of the predicted class loses when the part is changed
    (`part_effects`); where the batches hold "targets", of the target. It belongs to this
    network: another one needs its own pass.

    Args:
        apply: the network.
        variables: of the network.
        source: the images.
        interventions: (n,) indices of the source -> `images` (n, parts, height, width, channels) with one
            part changed in each, and `masks` (n, parts, height, width) of the parts, in [0, 1]. For instance
            `rendered.interventions`; for a subset, `lambda n: rendered.interventions(chosen[n])`. Where each
            part is changed in several ways, `images` is (n, ways, parts, height, width, channels).
        truth_parts: where given, the "masks" become what the network uses: of these parts, those whose effect
            (mean over the ways) is at least half of the largest one. Where none of them has a positive
            effect, the mask of the image stays as it was.
        batch_size: images a step; a step holds as many again for every part and way.
        mesh: devices; one if left out.
        description: of the progress bar; `None` shows none.

    Returns:
        A source; it keeps the masks in memory, 8 bits a value.

    Raises:
        KeyError: `truth_parts` with a source without masks.
        ValueError: the source is empty, a part that there is not, or changed images or masks do not have the
            shapes above.
    """
    batch_fn, num_steps = epoch_batches(source, batch_size)

    def changed_batch(t: int) -> Batch:
        batch = batch_fn(t)
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

    first = changed_batch(0)  # tells how many parts there are
    _check_shapes(*(np.shape(first[name]) for name in ("images", "changed_images", "part_masks")))
    _check_parts(truth_parts, first)
    masks = jnp.zeros((len(source), *first["part_masks"].shape[1:]), jnp.uint8)
    effects = jnp.zeros((len(source), *first["changed_images"].shape[1:-3]))
    state = _Parts(masks, effects, jnp.zeros((), jnp.int32))
    state = fold(
        update,
        state,
        lambda t: changed_batch(t) if t else first,
        num_steps=num_steps,
        constants=variables,
        mesh=mesh,
        description=description,
    )
    found = {"part_masks": np.asarray(state.masks), "part_effects": np.asarray(state.effects)}
    if truth_parts is not None:
        found["masks"] = _used_masks(source, found, list(truth_parts))
    return with_extras(source, found)


def used_parts(effects: Float[np.ndarray, "images *ways parts"], parts: Sequence[int]) -> np.ndarray:
    """Returns which of some parts a network uses in each image, (images, parts) with False at the others.

    Args:
        effects: what the score loses when a part is changed, in one or more ways.
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


def _check_parts(parts: Sequence[int] | None, batch: Batch) -> None:
    if parts is None:
        return
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
