"""Which channels of a layer detect which concept: their activations against masks (network dissection).

With A_k(x) the activation map of channel k, S_k(x) that map at the size of the image, by linear interpolation
between the centers of the receptive fields, and L_c(x) the mask of concept c,

    T_k:  P(A_k > T_k) = 0.005 over all positions of all images,        M_k(x) = {S_k(x) ≥ T_k}
    IoU_kc = Σ_x |M_k(x) ∩ L_c(x)| / Σ_x |M_k(x) ∪ L_c(x)|

and k is a detector of c where IoU_kc > 0.04. T_k is exact: the least activation that at most this share of
all exceed, found digit by digit (eleven, eleven, and ten bits of a float32) in three passes that count how
often each digit comes. Numbers are counted as two 32-bit words, so that the sums of any number of images are
exact and the state does not grow with it.

Where T_k is the least value of the channel, as for a ReLU that is active at fewer positions than that share,
{S_k ≥ T_k} would be everything: there M_k = {S_k > T_k} (*ours*).
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain._keeping import Store, identity, kept
from vexplain.datasets import Source
from vexplain.streaming import Checkpoint, fold_epoch
from vexplain.streaming.devices import Mesh
from vexplain.transforms import Layer, channels_last, layers, read
from vexplain.typing import ApplyFn, Array, Batch, Float, Shaped, Variables

_DIGITS = ((21, 11), (10, 11), (0, 10))  # of a float32 from the front: its last bit, and how many bits
_MOST_EXACT = 2**24  # integers that a float32 holds
_WORD = 2**32
_PAIRS: Store = collections.OrderedDict()  # so that a second call compiles nothing


class Dissection(NamedTuple):
    """How well each channel of a layer marks each concept.

    Attributes:
        layer: its name.
        concepts: their names.
        iou: (channels, concepts), in [0, 1]; 0 where neither is anywhere.
        thresholds: (channels,), T_k.
    """

    layer: str
    concepts: tuple[str, ...]
    iou: Float[np.ndarray, "channels concepts"]
    thresholds: Float[np.ndarray, " channels"]


class Detector(NamedTuple):
    """A channel that marks a concept."""

    channel: int
    concept: str
    iou: float


class ActivationCounts(NamedTuple):
    """Of each channel, how often each digit comes among activations whose front digits are given."""

    counts: Shaped[Array, "2 channels digits"]  # 32-bit words, the low one first
    least: Float[Array, " channels"]
    is_finite: Shaped[Array, " channels"]


class OverlapCounts(NamedTuple):
    """Pixels in M_k and L_c, and in M_k or L_c, as 32-bit words, the low one first."""

    both: Shaped[Array, "2 channels concepts"]
    either: Shaped[Array, "2 channels concepts"]


def dissect(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    *,
    layer: str | Layer,
    concepts: Sequence[str],
    level: float = 0.005,
    batch_size: int = 64,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    description: str | None = "Dissecting",
) -> Dissection:
    """Returns the IoU of every channel of a layer with every concept: four passes over the source.

    Args:
        source: its batches have "part_masks" (batch, concepts, height, width) of the size of the images: in a
            concept from 0.5 on, NaN where it was not annotated, which counts for nothing.
        layer: its name or its row in the layer table, with rows and columns.
        concepts: a name for each mask.
        level: the share of activations above the threshold.
        batch_size: images a step.
        mesh: devices; one if left out, or where there are several processes one of each.
        checkpoint: where the counts are saved, and where a pass that was interrupted goes on;
            `checkpoint.remove()` once the result is kept.
        description: of the progress bar; `None` shows none.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another pass.
        KeyError: there is no such layer, or batches have no "part_masks".
        ValueError: the layer has no rows and columns, `level` is not between 0 and 1, masks are of another
            number or size, or an activation is not finite.

    References:
        Bau et al., Network Dissection: Quantifying Interpretability of Deep Visual Representations, CVPR
        2017, Section 2 and Equation 1. (There the images of a concept are those that are annotated for its
        category: NaN says here which.)

    Example:
        >>> from vexplain.datasets import ArraySource
        >>> images = np.zeros((4, 4, 4, 2), np.float32)
        >>> images[:, :2, :2, 0] = images[:, 2:, :, 1] = 1
        >>> masks = {"part_masks": images.transpose(0, 3, 1, 2).astype(bool)[:, ::-1]}
        >>> source = ArraySource(images, np.zeros(4, int), class_names=("any",), extras=masks)
        >>> apply = lambda variables, images: jax.nn.relu(images).mean((1, 2))
        >>> options = {"layer": "relu_1", "concepts": ("lower half", "corner"), "description": None}
        >>> found = dissect(apply, None, source, **options)
        >>> detectors(found)
        (Detector(channel=0, concept='corner', iou=1.0), Detector(channel=1, concept='lower half', iou=1.0))
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}: expected the share of activations above, between 0 and 1")
    first = source[np.arange(1)]
    row = _spatial(apply, variables, first["images"], layer)
    _check_masks(first, len(concepts))
    options = {"batch_size": batch_size, "mesh": mesh, "description": description}

    def folded(name, pair, constants):
        init, update = pair
        saved = checkpoint and checkpoint.below(name).of(**{"pass": name}, layer=row.name, level=level)
        return fold_epoch(update, init(), source, constants=constants, checkpoint=saved, **options)

    name = (identity(apply), row, len(concepts))
    counting, overlapping = kept(
        _PAIRS, name, lambda: (activation_counts(apply, row), overlap_counts(apply, row, len(concepts)))
    )
    prefix, rank, least = np.zeros(row.num_channels, np.uint32), None, None
    for n, (shift, width) in enumerate(_DIGITS):
        digit = (variables, prefix, np.uint32(shift), np.uint32(width))
        found = jax.tree.map(np.asarray, folded(f"digit-{n + 1}", counting, digit))
        if not found.is_finite.all():
            raise ValueError(
                f"layer {row.name!r} has activations that are not finite, first in channel "
                f"{int(found.is_finite.argmin())}: look for NaN in variables or images"
            )
        counts = _joined(found.counts)
        if rank is None:  # how many may exceed it
            rank = np.floor(np.round(level * counts.sum(1), 6)).astype(np.uint64)
        prefix, rank = _next_digit(counts, prefix, rank, width)
        least = found.least
    thresholds = _from_order(prefix)
    constants = (variables, thresholds, thresholds == least)
    overlaps = folded("overlaps", overlapping, constants)
    both, either = (_joined(np.asarray(words)).astype(np.float64) for words in overlaps)
    return Dissection(row.name, tuple(concepts), both / np.maximum(either, 1), thresholds)


def detectors(dissection: Dissection, *, min_iou: float = 0.04) -> tuple[Detector, ...]:
    """Returns the channels that detect a concept, each with the one that it marks best, the best first.

    The number of different concepts among them is what the paper calls the unique detectors of a layer.

    Args:
        dissection: of `dissect`.
        min_iou: a channel with a greater IoU is a detector.
    """
    best = dissection.iou.argmax(1)
    found = [
        Detector(k, dissection.concepts[c], float(dissection.iou[k, c]))
        for k, c in enumerate(best)
        if dissection.iou[k, c] > min_iou
    ]
    return tuple(sorted(found, key=lambda detector: -detector.iou))


# ------------------------------------------------------------------------------- sums over a source


def activation_counts(
    apply: ApplyFn, layer: Layer
) -> tuple[Callable[[], ActivationCounts], Callable[..., ActivationCounts]]:
    """Returns `(init, update)` for `streaming.fold` that count a digit of all activations of a layer.

    `update(state, batch, (variables, prefix, shift, width))` counts the `width` bits above bit `shift`, of
    those activations whose bits above these are the `prefix` of their channel. The bits are those of a
    float32, changed so that the order of floats is that of integers.

    Args:
        layer: its row in the layer table.
    """

    def init() -> ActivationCounts:
        counts = jnp.zeros((2, layer.num_channels, 2 ** max(width for _, width in _DIGITS)), jnp.uint32)
        return ActivationCounts(
            counts, jnp.full(layer.num_channels, jnp.inf), jnp.full(layer.num_channels, True)
        )

    def update(state: ActivationCounts, batch: Batch, constants: tuple[Any, ...]) -> ActivationCounts:
        variables, prefix, shift, width = constants
        maps = _maps(apply, layer, variables, batch["images"])
        maps = maps.reshape(len(maps), -1, layer.num_channels)
        is_real = (batch.get("weights", jnp.ones(len(maps))) > 0)[:, None, None]
        bits = _in_order(maps)
        is_counted = is_real & ((bits >> (shift + width - 1)) >> 1 == prefix)
        digits = (bits >> shift) & ((jnp.uint32(1) << width) - 1)

        def counted(digits, is_counted):
            return jnp.zeros(state.counts.shape[2], jnp.uint32).at[digits].add(is_counted.astype(jnp.uint32))

        counts = jax.vmap(counted, in_axes=2)(digits, is_counted)
        least = jnp.where(is_real, maps, jnp.inf).min((0, 1))
        is_finite = (jnp.isfinite(maps) | ~is_real).all((0, 1))
        return ActivationCounts(
            _added(state.counts, counts), jnp.minimum(state.least, least), state.is_finite & is_finite
        )

    return init, update


def overlap_counts(
    apply: ApplyFn, layer: Layer, num_concepts: int
) -> tuple[Callable[[], OverlapCounts], Callable[..., OverlapCounts]]:
    """Returns `(init, update)` for `streaming.fold` that count the pixels of M_k and L_c.

    `update(state, batch, (variables, thresholds, is_least))`; M_k is above its threshold, or at it too where
    `is_least` is false.

    Args:
        layer: its row in the layer table.
        num_concepts: masks of an image.
    """
    check_positive(num_concepts=num_concepts)
    rows, columns = (_interpolation(layer, axis) for axis in (0, 1))

    def init() -> OverlapCounts:
        none = jnp.zeros((2, layer.num_channels, num_concepts), jnp.uint32)
        return OverlapCounts(none, none)

    def update(state: OverlapCounts, batch: Batch, constants: tuple[Any, ...]) -> OverlapCounts:
        variables, thresholds, is_least = constants
        _check_masks(batch, num_concepts)
        maps = _maps(apply, layer, variables, batch["images"])
        masks = jnp.asarray(batch["part_masks"], jnp.float32)
        is_real = (batch.get("weights", jnp.ones(len(maps))) > 0)[:, None, None, None]
        is_known = (is_real & ~jnp.isnan(masks)).astype(jnp.float32)
        inside = (is_real & (masks >= 0.5)).astype(jnp.float32)

        def pixels(channel):
            """Of one channel in each image: those in both, and those in the channel."""
            map_, threshold, is_least = channel
            enlarged = jnp.einsum("hr,nrc,wc->nhw", rows, map_, columns, precision="highest")
            marked = (enlarged > threshold) | ((enlarged == threshold) & ~is_least)
            count = lambda other: jnp.einsum("nhw,nchw->nc", marked.astype(jnp.float32), other)  # noqa: E731
            return count(inside), count(is_known)

        # One channel after the other: memory is that of one.
        both, marked = jax.lax.map(pixels, (jnp.moveaxis(maps, 3, 0), thresholds, is_least))
        either = marked + inside.sum((2, 3)) - both
        more = [x.astype(jnp.uint32).sum(1, dtype=jnp.uint32) for x in (both, either)]
        return OverlapCounts(*(_added(words, x) for words, x in zip(state, more, strict=True)))

    return init, update


def _maps(apply: ApplyFn, layer: Layer, variables: Variables, images: Any) -> Array:
    found = read(apply, [layer.name])(variables, images)[1][layer.name]
    return channels_last(found, layer).astype(jnp.float32)


def _interpolation(layer: Layer, axis: int) -> Float[np.ndarray, "pixels positions"]:
    """Weights of the positions at each pixel: linear between the centers of their receptive fields."""
    size, count, windows = layer.image_size[axis], layer.grid[axis] or 1, layer.fields[axis].windows
    centers = np.array([(start + stop - 1) / 2 for start, stop in windows])
    if len(windows) < count or (np.diff(centers) <= 0).any():  # all see the same: equal parts of the image
        centers = (np.arange(count) + 0.5) * size / count - 0.5
    columns = [np.interp(np.arange(size), centers, one) for one in np.eye(count)]
    return np.stack(columns, axis=1).astype(np.float32)


def _in_order(values: Array) -> Array:
    """The bits of float32 numbers, changed so that greater numbers are greater integers."""
    bits = jax.lax.bitcast_convert_type(jnp.where(values == 0, 0, values), jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _from_order(bits: np.ndarray) -> np.ndarray:
    is_positive = bits >> 31 == 1
    return np.where(is_positive, bits & np.uint32(2**31 - 1), ~bits).astype(np.uint32).view(np.float32)


def _added(words: Array, more: Array) -> Array:
    low = words[0] + more
    return jnp.stack([low, words[1] + (low < more)])


def _joined(words: np.ndarray) -> np.ndarray:
    return words[0].astype(np.uint64) + words[1].astype(np.uint64) * np.uint64(_WORD)


def _next_digit(
    counts: np.ndarray, prefix: np.ndarray, rank: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The prefix with the digit of the activation that `rank` others exceed, and its rank among these."""
    above = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]  # with this digit or a greater one
    digit = (above > rank[:, None]).sum(1) - 1
    rows = np.arange(len(counts))
    greater = above[rows, digit] - counts[rows, digit]
    return (prefix << np.uint32(width)) | digit.astype(np.uint32), rank - greater


def _spatial(apply: ApplyFn, variables: Variables, images: Any, layer: str | Layer) -> Layer:
    row = layers(apply, variables, images)[layer] if isinstance(layer, str) else layer
    if row.batch_axis is None or not row.num_positions:
        raise ValueError(
            f"layer {row.name!r} of shape {row.shape} has no rows and columns of each image: a detector "
            "needs a layer with height and width"
        )
    return row


def _check_masks(batch: Batch, num_concepts: int) -> None:
    if "part_masks" not in batch:
        raise KeyError(
            f'batch: dissection needs "part_masks" (batch, concepts, height, width), got {sorted(batch)}; '
            "vexplain.datasets.with_extras puts arrays into the batches of a source"
        )
    count, height, width, _ = np.shape(batch["images"])
    shape, expected = np.shape(batch["part_masks"]), (count, num_concepts, height, width)
    if shape != expected:
        raise ValueError(f"part_masks has shape {shape}: expected {expected} for these images and concepts")
    if height * width > _MOST_EXACT or count * height * width >= _WORD:
        raise ValueError(
            f"images of {height} × {width} pixels, {count} a batch, cannot be counted exactly: expected at "
            f"most {_MOST_EXACT} pixels an image and {_WORD} a batch"
        )
