"""The images that excite a feature most, or in which it counts most, and where: a streaming top-k.

What excites a channel most need not be what the network uses it for. Relevance maximization ranks the images
by what the channel contributes to the score of a class, by layer-wise relevance propagation.

The state holds k numbers a feature, not images, so that memory does not grow with the dataset: the image is
fetched again when its crop is wanted.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.attribution import Network, logit
from vexplain.attribution.propagation import propagate_to
from vexplain.attribution.scores import predicted_targets
from vexplain.transforms import (
    Layer,
    LayerTable,
    Rule,
    Rules,
    channel_sums,
    channels_last,
    epsilon_plus_flat,
    read,
)
from vexplain.typing import ApplyFn, Array, Batch, Float, Int, Variables


class Pick(NamedTuple):
    """A feature to look at, and the class whose images are searched; `None` searches all images."""

    layer: str
    channel: int
    label: int | None = None


class Exemplars(NamedTuple):
    """The k best images of each pick, the best first.

    Empty places (a dataset with fewer than k images of the class) have value -inf and index -1.
    """

    values: Float[Array, "picks k"]  # the activation, or the relevance
    indices: Int[Array, "picks k"]  # of the image in its source
    rows: Int[Array, "picks k"]  # where in the layer its maximum is
    columns: Int[Array, "picks k"]


def top_exemplars(
    apply: ApplyFn,
    table: LayerTable,
    picks: Sequence[Pick],
    *,
    num_images: int = 100,
    by: str = "activation",
    composite: Rule | Rules = epsilon_plus_flat(),  # noqa: B008
    on_uncovered: str = "raise",
) -> tuple[Callable[[], Exemplars], Callable[[Exemplars, Batch, Variables], Exemplars]]:
    """Returns `(init, update)` that finds the top images of some features, for `streaming.fold`.

    By activation, an image's value is the largest activation of the channel over all positions, and the
    position where it is reached is kept with it (*reconstructed*; the paper says "highest response"). By
    relevance it is the sum over all positions of the channel's relevance for the logit of a class, and the
    position is that of the largest one: relevance maximization (RelMax). The class is that of the pick,
    whose images alone are searched, or where it names none the predicted one.

    Args:
        table: the layers of the network.
        picks: the features, each over all images or those of one class.
        num_images: k.
        by: "activation", or "relevance", at two or three times the cost.
        composite: of the relevance, see `attribution.lrp`.
        on_uncovered: of the relevance, see `attribution.lrp`.

    Returns:
        `init() -> Exemplars` and `update(state, batch, variables) -> Exemplars`. Batches have "images",
        "indices", where a pick names a class "labels", and optionally "weights" (0 = padding).

    References:
        Achtibat et al., From Attribution Maps to Human-Understandable Explanations through Concept Relevance
        Propagation, Nature Machine Intelligence 2023 (relevance maximization; their program can also divide
        by the absolute sum over the channels of the image, which is not done here).
    """
    _check(table, picks, num_images)
    check_choice("by", by, ("activation", "relevance"))
    wanted = jnp.array([-1 if pick.label is None else pick.label for pick in picks])

    def init() -> Exemplars:
        shape = (len(picks), num_images)
        nowhere = [jnp.zeros(shape, jnp.int32) for _ in range(2)]
        return Exemplars(jnp.full(shape, -jnp.inf), jnp.full(shape, -1, jnp.int32), *nowhere)

    def update(state: Exemplars, batch: Batch, variables: Variables) -> Exemplars:
        labels = _labels(batch, picks)
        if by == "activation":
            peaks = _activation_peaks(apply, table, picks, batch, variables)
        else:
            peaks = _relevance_peaks(apply, table, picks, batch, variables, (composite, on_uncovered))
        values, rows, columns = (jnp.stack(column) for column in zip(*peaks, strict=True))
        counts = batch.get("weights", jnp.ones(values.shape[1])) > 0
        counts = counts[None] & ((wanted[:, None] < 0) | (wanted[:, None] == labels))
        values = jnp.where(counts, values.astype(jnp.float32), -jnp.inf)
        indices = jnp.where(counts, batch["indices"][None], -1)
        return _best(state, Exemplars(values, indices, rows, columns), num_images)

    return init, update


_Peak = tuple[Array, Array, Array]  # value, row and column, (batch,) each


def _activation_peaks(
    apply: ApplyFn, table: LayerTable, picks: Sequence[Pick], batch: Batch, variables: Variables
) -> list[_Peak]:
    found = read(apply, [pick.layer for pick in picks])(variables, batch["images"])[1]
    return [_peak(found[pick.layer], table[pick.layer], pick.channel) for pick in picks]


def _relevance_peaks(
    apply: ApplyFn,
    table: LayerTable,
    picks: Sequence[Pick],
    batch: Batch,
    variables: Variables,
    options: tuple[Any, ...],
) -> list[_Peak]:
    """One pass back for the picks that name a class, of which the images of that class count, and one."""
    network, images, found = Network(apply, variables, logit), batch["images"], {}
    for is_of_class in {pick.label is not None for pick in picks}:
        targets = batch["labels"] if is_of_class else predicted_targets(logit, apply(variables, images))
        names = dict.fromkeys(p.layer for p in picks if (p.label is not None) == is_of_class)
        chosen = [table[name] for name in names]
        found[is_of_class] = propagate_to(network, images, jnp.asarray(targets), chosen, *options)

    def peak(pick: Pick) -> _Peak:
        here = found[pick.label is not None]
        relevance, row = here.relevance[pick.layer], here.layers[pick.layer]
        _, *place = _peak(relevance, row, pick.channel)
        return channel_sums(relevance, row)[:, pick.channel], place[0], place[1]

    return [peak(pick) for pick in picks]


def _peak(activation: Array, layer: Layer, channel: int) -> _Peak:
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
    check_positive(num_images=num_images)
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
