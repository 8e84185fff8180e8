"""Feature visualization: images that excite a channel, a direction of a layer, or any score, by ascent.

Exemplars show what a feature responds to among images that exist, with all that happens to be in them;
an image that is made for the feature has nothing else in it. What is climbed is the mean over random views of
the image, in coordinates in which natural images are near (see `drawn_images`). The image is what the feature
*could* respond to: it may be far from all that the network was trained on.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from vexplain._checks import as_classes, check_positive
from vexplain._keeping import Store, identity, kept
from vexplain.attribution import Score, logit
from vexplain.attribution.calling import checked_key
from vexplain.attribution.scores import num_classes_of
from vexplain.concepts.drawn_images import Parametrization, RandomViews
from vexplain.transforms import (
    Layer,
    Rule,
    Step,
    channels_last,
    fast_in_loops,
    matched_layers,
    read,
    with_rules,
)
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Images, Key, Shaped, Targets, Variables

ViewFn = Callable[[Key, Array], Array]

_PROGRAMS: Store = collections.OrderedDict()
_NUM_REDIRECTED = 16  # first steps, as in Lucid


class Visualization(NamedTuple):
    """Images that were made for targets, and how far they excite them."""

    images: Images  # [0, 1]
    scores: Float[Array, " batch"]  # of the images as they are
    history: Float[Array, "steps batch"]  # of their random views, while they were made
    opacity: Float[Array, "batch height width"]  # [0, 1], the size of the gradients over all steps


def mean_channel(activations: AnyArray, targets: Shaped[Array, " batch"]) -> Float[Array, " batch"]:
    """Returns the mean over all positions of one channel an image.

    Args:
        activations: (batch, ...positions, channels).
        targets: (batch,) integers, the channels.

    Example:
        >>> print(mean_channel(jnp.array([[[1.0, 5.0], [3.0, 9.0]]]), jnp.array([1])))
        [7.]
    """
    means = activations.reshape(len(activations), -1, activations.shape[-1]).mean(1)
    return jnp.take_along_axis(means, targets[:, None], axis=1)[:, 0]


def mean_projection(activations: AnyArray, targets: Float[Array, "batch channels"]) -> Float[Array, " batch"]:
    """Returns the mean over all positions of the activations along one direction an image.

    Args:
        activations: (batch, ...positions, channels).
        targets: (batch, channels), the directions, of any length but zero.

    Example:
        >>> print(mean_projection(jnp.array([[[1.0, 5.0], [3.0, 9.0]]]), jnp.array([[3.0, 4.0]])))
        [6.8]
    """
    means = activations.reshape(len(activations), -1, activations.shape[-1]).mean(1)
    return (means * targets).sum(1) / jnp.linalg.norm(targets, axis=1)


def visualize(
    apply: ApplyFn,
    variables: Variables,
    targets: Targets,
    parametrization: Parametrization,
    *,
    key: Any,
    layer: Layer | None = None,
    position: tuple[int, int] | None = None,
    score: Score | None = None,
    view: ViewFn | None = RandomViews(),  # noqa: B008, a frozen value
    num_steps: int = 256,
    learning_rate: float = 0.05,
    diversity: float = 0.0,
) -> Visualization:
    """Returns images that excite what is asked for, one a target, all in one compiled program.

        θ ← Adam(θ, ∂/∂θ [ Σ_n y_n(view(x_n(θ))) - λ Σ_{n≠m, same target} cos(G_n, G_m) ])

    from noise, with the image x_n(θ) of a parametrization, a view of it that is drawn anew in each step, the
    score y, and the Gram matrices G of the channels of the layer: with λ > 0, images of one target come to
    differ. An image does not depend on the others of the call where λ = 0. Gray excites many a ReLU at no
    position, and the gradient is zero there: in the first 16 steps a ReLU that is off passes what would turn
    it on (as in Lucid).

    Args:
        targets: with a layer its channels, an integer or (batch,), or directions, (batch, channels), of which
            only the direction counts. Without one classes, or what the score takes, with a leading axis.
        parametrization: `fourier_images((height, width, channels))`, or `fixed_magnitudes(statistics)`.
        key: one, or one an image.
        layer: of `layers(apply, variables, images)`, for images of this size; of any kind, tokens too. The
            outputs of the network if left out.
        position: (row, column) of the layer; the mean over all of them if left out.
        score: a function (activations, targets) -> (batch,), where `activations` are those of the layer,
            (batch, rows, columns, channels), (batch, channels) at a position, or the outputs of the network.
            Left out, `mean_channel` or `mean_projection` of a layer, and `logit` of outputs.
        view: draws a view, (key, (height, width, channels)) -> the same shape; `None` for the image itself.
        num_steps: of gradient ascent.
        learning_rate: of Adam.
        diversity: λ, in the unit of the score; needs a layer.

    Raises:
        ValueError: the layer is of another image size or cannot be read, targets or position are out of its
            range, score or view return another shape, a score is not finite, or no gradient ever reached an
            image.

    References:
        Olah, Mordvintsev, Schubert, Feature Visualization, Distill 2017.
        Erhan, Bengio, Courville, Vincent, Visualizing Higher-Layer Features of a Deep Network, 2009.

    Example:
        >>> from vexplain.transforms import layers
        >>> apply = lambda weights, images: jax.nn.relu(images.reshape(len(images), -1) @ weights)
        >>> weights = jnp.array([[1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]])
        >>> relu = layers(apply, weights, jnp.zeros((1, 2, 2, 1)))["relu_1"]
        >>> from vexplain.concepts import fourier_images
        >>> drawn, key = fourier_images((2, 2, 1)), jax.random.key(0)
        >>> found = visualize(apply, weights, [0, 1], drawn, layer=relu, view=None, key=key)
        >>> print(found.images[..., 0].round().reshape(2, 4))  # where the weights are positive
        [[1. 0. 0. 1.]
         [0. 1. 0. 1.]]
    """
    _check(parametrization, layer, position, diversity, learning_rate)
    check_positive(num_steps=num_steps)
    targets, score = _targets_and_score(apply, variables, targets, parametrization, layer, score)
    count = len(jax.tree.leaves(targets)[0])
    keys = checked_key("visualize", key, True, count)
    same = _pairs(targets, count) if diversity else None
    numbers = jnp.asarray(learning_rate, float), jnp.asarray(diversity, float)
    parts = (score, parametrization, view)
    leaves, treedef = jax.tree.flatten(parts)
    arrays = [leaf if isinstance(leaf, np.ndarray | jax.Array) else None for leaf in leaves]
    statics = [None if a is not None else leaf for a, leaf in zip(arrays, leaves, strict=True)]

    def make() -> Callable[..., Visualization]:
        def program(arrays, variables, targets, keys, same, numbers):
            merged = [s if a is None else a for s, a in zip(statics, arrays, strict=True)]
            score, parametrization, view = jax.tree.unflatten(treedef, merged)
            task = _Task(apply, layer, position, score, view)
            return _ascend(task, parametrization, num_steps, variables, targets, keys, same, numbers)

        return jax.jit(program)

    name = (identity(apply), layer, position, num_steps, treedef, *map(identity, statics))
    found = kept(_PROGRAMS, name, make)(arrays, variables, targets, keys, same, numbers)
    if not isinstance(found.scores, Tracer):
        _check_found(found)
    return found


class _Task(NamedTuple):
    """What is climbed."""

    apply: Any
    layer: Layer | None
    position: tuple[int, int] | None
    score: Any
    view: Any

    def activations(self, variables: Variables, images: Array, *, is_redirected: bool = False) -> Any:
        """Of the layer, channels last; the outputs where there is none."""
        looked = self.apply if self.layer is None else read(self.apply, [self.layer.name])
        looked = with_rules(looked, _REDIRECTED, on_unmatched="ignore") if is_redirected else looked
        found = looked(variables, images)
        return found if self.layer is None else channels_last(found[1][self.layer.name], self.layer)

    def scores(self, activations: Any, targets: Any) -> Array:
        if self.position is not None:
            activations = activations[:, self.position[0], self.position[1]]
        found = self.score(activations, targets)
        count = len(jax.tree.leaves(targets)[0])
        if getattr(found, "shape", None) != (count,):
            shape = getattr(found, "shape", type(found).__name__)
            raise ValueError(f"score returned {shape}: expected one number an image, ({count},)")
        return found

    def views(self, images: Array, keys: Array) -> Array:
        if self.view is None:
            return images
        found = jax.vmap(self.view)(keys, images)
        if found.shape != images.shape:
            raise ValueError(f"view returned shape {found.shape[1:]}: expected that of the image")
        return found


def _redirect(step: Step, layer: Layer, original: Any, inputs: Sequence[Any], cotangent: Any) -> list[Any]:
    """The gradient, and through what is off all that would turn it on."""
    sent: list[Any] = [None] * len(inputs)
    gradient = jax.vjp(original, *inputs)[1](cotangent)[step.operand]
    turns_on = (inputs[step.operand] <= 0) & (cotangent > 0)
    sent[step.operand] = jnp.where(turns_on, cotangent, gradient)
    return sent


_REDIRECTED = Rule("REDIRECTED", lambda layer, table: layer.kind == "relu", _redirect)


def _ascend(
    task: _Task,
    parametrization: Parametrization,
    num_steps: int,
    variables: Variables,
    targets: Any,
    keys: Array,
    same: Array | None,
    numbers: tuple[Array, Array],
) -> Visualization:
    """Gradient ascent, the first steps with redirected ReLUs where the network has any."""
    learning_rate, diversity = numbers
    if keys.ndim == 0:
        places = jnp.arange(len(jax.tree.leaves(targets)[0]))
        keys = jax.vmap(jax.random.fold_in, (None, 0))(keys, places)
    example = jax.ShapeDtypeStruct((len(keys), *parametrization.image_shape), jnp.float32)
    has_relus = matched_layers(task.apply, _REDIRECTED, variables, example)[_REDIRECTED.name]
    num_redirected = min(_NUM_REDIRECTED, num_steps) if has_relus else 0
    optimizer = optax.adam(learning_rate)
    drawn = jax.vmap(parametrization.image)

    def stepping(is_redirected):
        def slope(images, variables, targets, keys, same, diversity):
            def objective(images):
                views = task.views(images, keys)
                activations = task.activations(variables, views, is_redirected=is_redirected)
                scores = task.scores(activations, targets)
                penalty = 0.0 if same is None else diversity * _similarity(activations, same)
                return scores.sum() - penalty, scores

            return jax.grad(objective, has_aux=True)(images)

        slope = fast_in_loops(slope)

        def step(state, n):
            params, opt_state, opacity = state
            images, pull = jax.vjp(drawn, params)
            of_step = jax.vmap(lambda key: jax.random.fold_in(key, n + 1))(keys)
            gradient, scores = slope(images, variables, targets, of_step, same, diversity)
            updates, opt_state = optimizer.update(pull(-gradient)[0], opt_state)
            opacity = opacity + jnp.abs(gradient).mean(-1)
            return (optax.apply_updates(params, updates), opt_state, opacity), scores

        return step

    params = jax.vmap(lambda key: parametrization.init(jax.random.fold_in(key, 0)))(keys)
    clear = jnp.zeros((len(params), *parametrization.image_shape[:2]), params.dtype)
    state: Any = params, optimizer.init(params), clear
    history, start = [], 0
    for count, is_redirected in ((num_redirected, True), (num_steps - num_redirected, False)):
        if count:
            state, scores = jax.lax.scan(stepping(is_redirected), state, start + jnp.arange(count))
            start, history = count, [*history, scores]
    params, _, opacity = state
    images = drawn(params)
    largest = opacity.max((1, 2), keepdims=True)
    opacity = opacity / jnp.where(largest > 0, largest, 1)
    scores = task.scores(task.activations(variables, images), targets)
    return Visualization(images, scores, jnp.concatenate(history), opacity)


def _check_found(found: Visualization) -> None:
    is_finite = np.isfinite(found.scores)
    if not is_finite.all():
        raise ValueError(
            f"score is not finite for {int((~is_finite).sum())} of {len(is_finite)} images: look for NaN in "
            "variables, a score without a bound, or a learning_rate that is too large"
        )
    is_still = np.asarray(found.opacity).max((1, 2)) == 0
    if is_still.any():
        raise ValueError(
            f"no gradient reached {int(is_still.sum())} of {len(is_still)} images, first that of target "
            f"{int(is_still.argmax())}: nothing near gray excites it; pass a parametrization with a larger "
            "deviation, or the layer before an activation function"
        )


def _similarity(activations: Array, same: Array) -> Array:
    """Σ cos(G_n, G_m) over all pairs of the same target, with G_n the products of the channels of image n."""
    flat = activations.reshape(len(activations), -1, activations.shape[-1])
    grams = jnp.einsum("npc,npd->ncd", flat, flat).reshape(len(flat), -1)
    is_zero = (grams == 0).all(1, keepdims=True)
    safe = jnp.where(is_zero, 1, grams)
    unit = jnp.where(is_zero, 0, safe / jnp.linalg.norm(safe, axis=1, keepdims=True))
    return (unit @ unit.T * same).sum()


def _pairs(targets: Any, count: int) -> np.ndarray:
    """Which images have the same target as another, (count, count), in float."""
    rows = np.concatenate([np.asarray(t).reshape(count, -1) for t in jax.tree.leaves(targets)], axis=1)
    return ((rows[:, None] == rows).all(2) & ~np.eye(count, dtype=bool)).astype(np.float32)


def _targets_and_score(
    apply: ApplyFn,
    variables: Variables,
    targets: Any,
    parametrization: Parametrization,
    layer: Layer | None,
    score: Score | None,
) -> tuple[Any, Score]:
    """Targets as arrays with a leading axis, and the score that was meant."""
    targets = np.asarray(targets) if isinstance(targets, list) else targets
    targets = jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.atleast_1d(leaf), targets)
    leaves = jax.tree.leaves(targets)
    counts = {len(leaf) if np.ndim(leaf) else 0 for leaf in leaves}
    if len(counts) != 1 or not min(counts):
        raise ValueError(f"targets is {targets!r}: expected one an image, with a leading axis in each array")
    count = counts.pop()
    if layer is None:
        score = logit if score is None else score
        images = jax.ShapeDtypeStruct((count, *parametrization.image_shape), jnp.float32)
        num_classes = num_classes_of(score, jax.eval_shape(apply, variables, images))
        return (targets if num_classes is None else as_classes(targets, count, num_classes)), score
    if score is not None:
        return targets, score
    is_number = len(leaves) == 1 and np.issubdtype(leaves[0].dtype, np.integer) and leaves[0].ndim == 1
    if is_number:
        found = np.asarray(leaves[0])
        if not 0 <= found.min() <= found.max() < layer.num_channels:
            raise ValueError(
                f"targets go from {found.min()} to {found.max()}: layer {layer.name!r} has the channels 0 to "
                f"{layer.num_channels - 1}"
            )
        return found.astype(np.int32), mean_channel
    if len(leaves) != 1 or leaves[0].shape != (count, layer.num_channels):
        raise ValueError(
            f"targets has shape {[leaf.shape for leaf in leaves]}: expected channels of layer "
            f"{layer.name!r}, (batch,) integers, or directions, (batch, {layer.num_channels}); for anything "
            "else pass score="
        )
    vectors = np.asarray(leaves[0], float)
    if not (np.isfinite(vectors).all() and vectors.any(1).all()):
        raise ValueError("targets has directions of zeros, NaN or infinite values: they point nowhere")
    return jnp.asarray(vectors), mean_projection


def _check(parametrization: Any, layer: Any, position: Any, diversity: float, learning_rate: float) -> None:
    if not all(hasattr(parametrization, name) for name in ("image_shape", "init", "image")):
        raise ValueError(
            f"parametrization is {parametrization!r}: pass fourier_images((height, width, channels))"
        )
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}: expected a positive number")
    if not 0 <= diversity < float("inf"):
        raise ValueError(f"diversity is {diversity}: expected 0 or more")
    if layer is None:
        for name, value in (("position", position), ("diversity", diversity or None)):
            if value is not None:
                raise ValueError(f"{name} is {value} without a layer: pass layer=, a row of the layer table")
        return
    if not isinstance(layer, Layer):
        raise ValueError(
            f"layer is {layer!r}: expected a row of the layer table, layers(apply, variables, images)[name]"
        )
    if not layer.is_readable:
        raise ValueError(f"layer {layer.name!r} cannot be visualized, {layer.unreadable}")
    size = tuple(parametrization.image_shape[:2])
    if layer.image_size != size:
        raise ValueError(
            f"layer {layer.name!r} is of images of {layer.image_size}, and parametrization of {size} pixels: "
            "pass the table of layers for images of that size"
        )
    if position is not None:
        rows, columns = layer.grid
        if rows is None or columns is None:
            raise ValueError(f"position is {position}: layer {layer.name!r} has no rows and columns")
        if len(position) != 2 or not (0 <= position[0] < rows and 0 <= position[1] < columns):
            raise ValueError(f"position is {position}: layer {layer.name!r} has {rows} × {columns} of them")
