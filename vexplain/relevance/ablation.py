"""Does a network need some features? Its predictions without them, for many sets of features in one pass.

An *ablation* replaces some channels of some layers, in every image: by zero (*paper*), by their mean over
reference images, or by what they are in another image. The features to remove are rows of a matrix, an
argument of the compiled program, so that sets of any kind run in the same one: the relevant features of all
classes together or of each class, random ones, the n first of a ranking, all but these.

A network reacts to any change, so that removed features show nothing without controls: as many random ones of
the same layers (`matched_random`, *paper*), or those that a simpler score ranks highest (`matched_top`).

In all functions:
    layers: those whose channels are the features, in their order.
    layout: of these layers, from `layout_of`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from vexplain._checks import check_choice, check_positive
from vexplain.attribution import Score, logit
from vexplain.relevance.candidates import layout_of
from vexplain.relevance.layout import FeatureLayout, layout_size, split_features
from vexplain.transforms import Layer, as_layer_output, channels_last, edit, read
from vexplain.typing import ApplyFn, Array, Batch, Float, Images, Int, Key, Variables

Replacement: TypeAlias = Literal["zero", "mean", "resampled"]
Removed: TypeAlias = Bool[Array | np.ndarray, "ablations features"]


class AblationCounts(NamedTuple):
    """Images by their true class, and how the network fares on them without some features.

    The accuracy under ablation a is `correct[a].sum() / images.sum()`, that of class c
    `correct[a, c] / images[c]`.
    """

    images: Float[Array, " classes"]
    correct: Float[Array, "ablations classes"]  # predicted as their label says
    unchanged: Float[Array, "ablations classes"]  # predicted as by the intact network


def ablation_counts(
    apply: ApplyFn,
    layers: Sequence[Layer],
    num_classes: int,
    *,
    replacement: Replacement = "zero",
    at_once: int = 1,
) -> tuple[Callable[[int], AblationCounts], Callable[..., AblationCounts]]:
    """Returns `(init, update)` for `streaming.fold`: predictions without features, for many sets of them.

    `init(num_ablations) -> counts`, and `update(counts, batch, (variables, removed, references)) -> counts`,
    where `removed` (ablations, features) is true for what is replaced, and `references` are images (count,
    height, width, channels), drawn at random from the source; None for "zero". The memory of a step does not
    grow with the number of ablations.

    Args:
        num_classes: C.
        replacement: "zero"; "mean", the mean map of the channel over the references; or "resampled", its map
            in one of the references, another one for each place in the batch.
        at_once: ablations that run side by side, where a batch does not fill the device.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 4.1 ("zero").
        Chan et al., Causal Scrubbing, 2022 ("resampled").

    Example:
        >>> from vexplain.transforms import layers
        >>> apply = lambda v, images: jax.nn.relu(images.mean((1, 2)) @ v) @ jnp.eye(2)
        >>> images = jnp.eye(2).reshape(2, 1, 1, 2)
        >>> relu = layers(apply, jnp.eye(2), images)["relu_1"]
        >>> init, update = ablation_counts(apply, [relu], 2)
        >>> removed = np.array([[False, False], [False, True]])
        >>> batch = {"images": images, "labels": jnp.array([0, 1])}
        >>> update(init(2), batch, (jnp.eye(2), removed, None)).correct.tolist()
        [[1.0, 1.0], [1.0, 0.0]]
    """
    check_choice("replacement", replacement, ("zero", "mean", "resampled"))
    check_positive(num_classes=num_classes, at_once=at_once)
    layout = layout_of(layers)

    def init(num_ablations: int) -> AblationCounts:
        shape = (num_ablations, num_classes)
        return AblationCounts(jnp.zeros(num_classes), jnp.zeros(shape), jnp.zeros(shape))

    def update(counts: AblationCounts, batch: Batch, constants: tuple[Variables, Any, Any]) -> AblationCounts:
        variables, removed, references = constants
        _check(removed, references, layout, replacement)
        images = batch["images"]
        fill = _fill(apply, variables, references, layers, replacement, len(images))

        def predict(row: Array) -> Array:
            change = _replaced(layers, split_features(layout, row), fill)
            return edit(apply, change)(variables, images).argmax(-1)

        intact = apply(variables, images).argmax(-1)
        predicted = jax.lax.map(predict, jnp.asarray(removed), batch_size=at_once if at_once > 1 else None)
        weights = batch.get("weights", jnp.ones(len(images)))
        members = weights[:, None] * jax.nn.one_hot(batch["labels"], num_classes)
        return AblationCounts(
            counts.images + members.sum(0),
            counts.correct + (predicted == batch["labels"]) @ members,
            counts.unchanged + (predicted == intact) @ members,
        )

    return init, update


def contribution_sums(
    apply: ApplyFn, layers: Sequence[Layer], num_classes: int, *, score: Score = logit
) -> tuple[Callable[[], tuple[Array, Array, Array]], Callable[..., tuple[Array, Array, Array]]]:
    """Returns `(init, update)` for `streaming.fold`: what each channel adds to the score of the prediction.

    The contribution of a channel is its gradient times its activation, summed over the positions: to first
    order, what the score loses if the channel is set to zero. The state are sums over the images of each
    predicted class: of the contribution (features, classes), of its magnitude, and of one (classes,). The
    constants are the variables.

    Args:
        num_classes: C.
        score: of the predicted class: its `logit`, or for instance its `margin` over the others.
    """
    layout = layout_of(layers)

    def scored(factors: Array, variables: Variables, images: Array) -> tuple[Array, Array]:
        by_layer = split_features(layout, factors)
        change = {layer.name: _scaled(layer, by_layer[layer.name]) for layer in layers}
        logits = edit(apply, change)(variables, images)
        targets = logits.argmax(-1)
        return jnp.sum(score(logits, targets)), targets

    def init() -> tuple[Array, Array, Array]:
        zeros = jnp.zeros((layout_size(layout), num_classes))
        return zeros, zeros + 0, jnp.zeros(num_classes)

    def update(sums: tuple[Array, Array, Array], batch: Batch, variables: Variables):
        images = batch["images"]
        factors = jnp.ones((len(images), layout_size(layout)))
        contributions, targets = jax.grad(scored, has_aux=True)(factors, variables, images)
        weights = batch.get("weights", jnp.ones(len(images)))
        members = weights[:, None] * jax.nn.one_hot(targets, num_classes)
        added = contributions.T @ members, jnp.abs(contributions).T @ members, members.sum(0)
        return tuple(a + b for a, b in zip(sums, added, strict=True))

    return init, update


def leading_features(
    scores: Float[Array | np.ndarray, "rows features"], counts: Sequence[int]
) -> Bool[np.ndarray, "rows counts features"]:
    """Returns the sets of the n features of the highest score, for each row of scores and each count n.

    Args:
        scores: of features, for instance of each class; of equal scores the first features are taken.
        counts: how many features the sets have; all of them, where a count is larger.

    Example:
        >>> leading_features(np.array([[0.3, 0.9, 0.5]]), [0, 2])[0].tolist()
        [[False, False, False], [False, True, True]]
    """
    scores = np.asarray(scores)
    return _ranks(scores)[:, None] < np.asarray(counts, int)[None, :, None]


def matched_top(
    scores: Float[Array | np.ndarray, "rows features"], removed: Removed, layout: FeatureLayout
) -> Bool[np.ndarray, "rows features"]:
    """Returns in each row the features of the highest scores, as many of each layer as `removed` has there.

    Args:
        scores: the ranking.
        removed: the sets to match, a row of scores for each.

    Example:
        >>> removed = np.array([[True, False, False, True]])
        >>> matched_top(np.array([[0.1, 0.2, 0.9, 0.3]]), removed, (("conv_1", 2), ("conv_2", 2))).tolist()
        [[False, True, True, False]]
    """
    pairs = zip(
        split_features(layout, np.asarray(scores)).values(),
        split_features(layout, np.asarray(removed)).values(),
        strict=True,
    )
    return np.concatenate(
        [_ranks(of_layer) < gone.sum(axis=1, keepdims=True) for of_layer, gone in pairs], axis=1
    )


def matched_random(key: Key, removed: Removed, layout: FeatureLayout) -> Bool[np.ndarray, "rows features"]:
    """Returns in each row random features, as many of each layer as `removed` has there (*paper*).

    Args:
        key: of the draws.
        removed: the sets to match; a row that is repeated gives several draws.

    Example:
        >>> removed = np.array([[True, False, False, True, True]])
        >>> matched_random(jax.random.key(0), removed, (("conv_1", 3), ("conv_2", 2))).sum(axis=1).tolist()
        [3]
    """
    return matched_top(np.asarray(jax.random.uniform(key, np.shape(removed))), removed, layout)


def _ranks(scores: Any) -> Int[np.ndarray, "rows features"]:
    """The place of each feature in its row, the highest score first."""
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")


def _fill(
    apply: ApplyFn,
    variables: Variables,
    references: Images | None,
    layers: Sequence[Layer],
    replacement: Replacement,
    batch_size: int,
) -> dict[str, Any]:
    """By layer, what takes the place of a removed channel, channels last."""
    if replacement == "zero":
        return {layer.name: 0 for layer in layers}
    _, found = read(apply, [layer.name for layer in layers])(variables, references)
    maps = {layer.name: channels_last(found[layer.name], layer) for layer in layers}
    if replacement == "mean":
        return {name: values.mean(0, keepdims=True) for name, values in maps.items()}
    return {name: values[jnp.arange(batch_size) % len(values)] for name, values in maps.items()}


def _replaced(
    layers: Sequence[Layer], removed: Any, fill: dict[str, Any]
) -> dict[str, Callable[[Array], Array]]:
    """The edits that put `fill` in the place of the removed channels."""

    def change(layer: Layer) -> Callable[[Array], Array]:
        def replace(activation: Array) -> Array:
            values = channels_last(activation, layer)
            new = jnp.where(removed[layer.name], jnp.asarray(fill[layer.name], values.dtype), values)
            return as_layer_output(new, layer, like=activation)

        return replace

    return {layer.name: change(layer) for layer in layers}


def _scaled(layer: Layer, factors: Any) -> Callable[[Array], Array]:
    def scale(activation: Array) -> Array:
        values = channels_last(activation, layer)
        spread = factors.reshape(len(factors), *[1] * (values.ndim - 2), -1).astype(values.dtype)
        return as_layer_output(values * spread, layer, like=activation)

    return scale


def _check(removed: Any, references: Any, layout: FeatureLayout, replacement: Replacement) -> None:
    if np.ndim(removed) != 2 or removed.shape[1] != layout_size(layout):
        raise ValueError(
            f"removed: expected (ablations, {layout_size(layout)}), as {len(layout)} layers from "
            f"{layout[0][0]} to {layout[-1][0]} have features, got shape {np.shape(removed)}"
        )
    if removed.dtype != bool:
        raise ValueError(f"removed: expected true or false for each feature, got {removed.dtype}")
    if (references is None) != (replacement == "zero"):
        what = "leave references out (None)" if replacement == "zero" else "give images as references"
        raise ValueError(f"references: for replacement={replacement!r} {what}")
