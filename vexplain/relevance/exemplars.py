"""The images that excite a feature most, and where: a streaming top-k over a dataset.

The state holds k numbers a feature, not images, so that memory does not grow with the dataset: the image is
fetched again when its crop is wanted.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.transforms import Layer, LayerTable, channels_last, read
from vexplain.typing import ApplyFn, Array, Batch, Float, Int, Variables


class Pick(NamedTuple):
    """A feature to look at, and the class whose images are searched; `None` searches all images."""

    layer: str
    channel: int
    label: int | None = None


class Exemplars(NamedTuple):
    """The k most exciting images of each pick, best first.

    Empty places (a dataset with fewer than k images of the class) have value -inf and index -1.
    """

    values: Float[Array, "picks k"]  # the activation
    indices: Int[Array, "picks k"]  # of the image in its source
    rows: Int[Array, "picks k"]  # where in the activation map the maximum is
    columns: Int[Array, "picks k"]


def top_exemplars(
    apply: ApplyFn, table: LayerTable, picks: Sequence[Pick], *, num_images: int = 100
) -> tuple[Callable[[], Exemplars], Callable[[Exemplars, Batch, Variables], Exemplars]]:
    """Returns `(init, update)` that finds the top images of some features, for `streaming.fold`.

    An image's value is the largest activation of the channel over all positions, and the position where it
    is reached is kept with it (*reconstructed*; the paper says "highest response").

    Args:
        table: the layers of the network.
        picks: the features, each over all images or those of one class.
        num_images: k.

    Returns:
        `init() -> Exemplars` and `update(state, batch, variables) -> Exemplars`. Batches have "images",
        "indices", where a pick names a class "labels", and optionally "weights" (0 = padding).
    """
    _check(table, picks, num_images)
    names = tuple(dict.fromkeys(pick.layer for pick in picks))
    wanted = jnp.array([-1 if pick.label is None else pick.label for pick in picks])

    def init() -> Exemplars:
        shape = (len(picks), num_images)
        nowhere = [jnp.zeros(shape, jnp.int32) for _ in range(2)]
        return Exemplars(jnp.full(shape, -jnp.inf), jnp.full(shape, -1, jnp.int32), *nowhere)

    def update(state: Exemplars, batch: Batch, variables: Variables) -> Exemplars:
        found = read(apply, names)(variables, batch["images"])[1]
        peaks = [_peak(found[pick.layer], table[pick.layer], pick.channel) for pick in picks]
        values, rows, columns = (jnp.stack(column) for column in zip(*peaks, strict=True))
        counts = batch.get("weights", jnp.ones(values.shape[1])) > 0
        counts = counts[None] & ((wanted[:, None] < 0) | (wanted[:, None] == _labels(batch, picks)))
        values = jnp.where(counts, values.astype(jnp.float32), -jnp.inf)
        indices = jnp.where(counts, batch["indices"][None], -1)
        return _best(state, Exemplars(values, indices, rows, columns), num_images)

    return init, update


def _peak(activation: Array, layer: Layer, channel: int) -> tuple[Array, Array, Array]:
    """Largest value of one channel, and its row and column, (batch,) each."""
    maps = channels_last(activation, layer)[..., channel]
    flat = maps.reshape(len(maps), -1)
    place = flat.argmax(1).astype(jnp.int32)
    value = jnp.take_along_axis(flat, place[:, None], 1)[:, 0]
    row, column = jnp.unravel_index(place, [n or 1 for n in layer.grid])  # 0 where an axis is gone
    return value, row.astype(jnp.int32), column.astype(jnp.int32)


def _labels(batch: Batch, picks: Sequence[Pick]) -> Array:
    if all(pick.label is None for pick in picks):
        return jnp.zeros(1, jnp.int32)
    if "labels" not in batch:
        raise KeyError(
            f'batch: a pick that names a class needs "labels", got {sorted(batch)}; pick with label=None to '
            "search all images"
        )
    return jnp.asarray(batch["labels"])


def _best(a: Exemplars, b: Exemplars, num_images: int) -> Exemplars:
    joined = Exemplars(*(jnp.concatenate(pair, axis=1) for pair in zip(a, b, strict=True)))
    _, order = jax.lax.top_k(joined.values, num_images)
    return Exemplars(*(jnp.take_along_axis(column, order, axis=1) for column in joined))


def _check(table: LayerTable, picks: Sequence[Pick], num_images: int) -> None:
    if not picks:
        raise ValueError("picks: no feature was given")
    if num_images < 1:
        raise ValueError(f"num_images: expected at least 1, got {num_images}")
    for pick in picks:
        size = table[pick.layer].num_channels
        if not 0 <= pick.channel < size:
            raise ValueError(f"picks: layer {pick.layer!r} has channels 0 to {size - 1}, got {pick.channel}")
        if pick.label is not None and pick.label < 0:
            raise ValueError(f"picks: labels go from 0 on, got {pick.label}; None searches all images")


def found(exemplars: Exemplars, pick: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns values, indices, rows and columns of one pick, without its empty places."""
    filled = np.asarray(exemplars.indices[pick]) >= 0
    values, indices, rows, columns = (np.asarray(column[pick])[filled] for column in exemplars)
    return values, indices, rows, columns
