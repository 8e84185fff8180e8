"""Learns a TopK sparse autoencoder of a layer from unlabeled images, and measures what it leaves unexplained.

Every position of the layer is an example. After Gao et al. (2024): a loss of squares, no penalty of sparsity,
an encoder that begins as the transpose of the decoder, directions of length 1, and an auxiliary loss by which
codes that are never active learn what the others leave. Departures (*ours*): activations are scaled by one
number for the layer, the root of their mean squared distance from their mean, not to length 1 each, so that
codes grow with the activation; the bias begins at the mean, not at the geometric median; the learning rate
decays to zero over all steps.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vexplain._checks import check_positive
from vexplain.concepts.sparse_autoencoder import (
    SparseAutoencoder,
    check_layer,
    decode,
    encode,
    largest,
    rows_of,
)
from vexplain.datasets import Source, shuffled_batches
from vexplain.streaming import Checkpoint, fold, fold_epoch
from vexplain.streaming.checkpoints import facts_of
from vexplain.streaming.devices import Mesh
from vexplain.streaming.divergence import Divergence, guarded, no_divergence, raise_if_diverged, running_mean
from vexplain.transforms import Layer, layers, read
from vexplain.typing import ApplyFn, Array, Batch, Float, Images, Int, PyTree, Variables

AUXILIARY = 1 / 32  # weight of the auxiliary loss (*paper*)
DEAD_AFTER = 10_000_000  # positions without this code (*paper*, of tokens)


class AutoencoderState(NamedTuple):
    """Everything that training changes; in units in which the squared activations have the mean 1."""

    autoencoder: SparseAutoencoder
    opt_state: PyTree
    scale: Float[Array, ""]  # of the layer, in those units
    idle: Int[Array, " codes"]  # positions since a code was active
    step: Int[Array, ""]
    unexplained: Float[Array, ""]  # running average of the fraction of variance unexplained
    divergence: Divergence


class Reconstruction(NamedTuple):
    """How well codes stand for the activations of a layer."""

    unexplained: float  # fraction of the variance, Σ|a - â|² / Σ|a - mean|²; 0 is best
    dead: float  # share of the codes that are active at no position
    num_active: float  # codes that are active at a position, in the mean


def autoencoding(
    apply: ApplyFn,
    layer: Layer | str,
    optimizer: optax.GradientTransformation,
    *,
    num_codes: int,
    num_active: int,
    dead_after: int = DEAD_AFTER,
    num_positions: int | None = None,
    seed: int = 0,
) -> tuple[
    Callable[[Variables, Images], AutoencoderState],
    Callable[[AutoencoderState, Batch, Variables], AutoencoderState],
    Callable[[AutoencoderState], SparseAutoencoder],
]:
    """Returns the `init`, `update` and `finish` that learn an autoencoder over a stream of batches.

    With x = (a - mean) / scale the activation at a position, x̂ what its codes decode to, e = x - x̂, and ê
    what the largest of the dead codes decode to, half as many as the layer has channels, a step lowers

        mean |e|² + 1/32 mean |e - ê|²                                              (*paper*)

    where e is a constant in the second term. What a gradient changes of the length of a direction is taken
    away before the step, and after it the directions have length 1 again (*paper*, Appendix A).

    Args:
        layer: whose activations are to be explained.
        optimizer: from optax.
        num_codes: directions; a multiple of the channels, as a rule.
        num_active: codes that may be active at a position.
        dead_after: positions without a code, after which it is dead.
        num_positions: that are drawn of each image at each step, the same ones of all images; all of them if
            left out.
        seed: of the first directions and of the positions.

    Returns:
        `init(variables, images) -> AutoencoderState`, whose mean and scale are those of these images;
        `update(state, batch, variables) -> AutoencoderState` for `streaming.fold` with
        `constants=variables`, of batches with "images" and optionally "weights" (0 = padding);
        `finish(state) -> SparseAutoencoder`, in the units of the layer.

    References:
        Gao et al., Scaling and evaluating sparse autoencoders, 2024.
    """
    check_positive(num_codes=num_codes, num_active=num_active, dead_after=dead_after)
    if num_active > num_codes:
        raise ValueError(f"num_active is {num_active}: expected at most num_codes = {num_codes}")
    name = _name(layer)

    def init(variables: Variables, images: Images) -> AutoencoderState:
        rows = _rows(apply, variables, images, name)
        rows = rows.reshape(-1, rows.shape[-1])
        mean = rows.mean(0)
        scale = jnp.sqrt(((rows - mean) ** 2).sum(-1).mean())
        directions = jax.random.normal(jax.random.key(seed), (num_codes, rows.shape[1]), rows.dtype)
        decoder = _unit(directions)
        autoencoder: Any = SparseAutoencoder(decoder.T, decoder, mean / scale, num_active)
        return AutoencoderState(
            autoencoder,
            optimizer.init(autoencoder),
            scale,
            jnp.zeros(num_codes, jnp.int32),
            jnp.zeros((), jnp.int32),
            jnp.zeros(()),
            no_divergence(["loss"]),
        )

    def update(state: AutoencoderState, batch: Batch, variables: Variables) -> AutoencoderState:
        rows = _rows(apply, variables, batch["images"], name)
        weights = batch.get("weights", jnp.ones(len(rows), rows.dtype))
        if num_positions is not None and num_positions < rows.shape[1]:
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            drawn = jax.random.choice(key, rows.shape[1], (num_positions,), replace=False)
            rows = jnp.take(rows, drawn, axis=1)
        rows, weights = rows / state.scale, jnp.broadcast_to(weights[:, None], rows.shape[:2])
        before: Any = state.autoencoder
        objective = jax.value_and_grad(_objective, has_aux=True)
        (loss, (unexplained, fired)), gradient = objective(before, rows, weights, state.idle >= dead_after)
        along = (gradient.decoder * before.decoder).sum(-1, keepdims=True)
        turned: Any = _with_decoder(gradient, gradient.decoder - along * before.decoder)
        changes, opt_state = optimizer.update(turned, state.opt_state, before)
        after: Any = optax.apply_updates(before, changes)
        after = _with_decoder(after, _unit(after.decoder))
        keep, divergence = guarded(state.divergence, {"loss": loss}, step=state.step)
        after, opt_state = keep((after, opt_state), (before, state.opt_state))
        count = (weights > 0).sum().astype(jnp.int32)
        idle = jnp.where(fired, 0, jnp.minimum(state.idle + count, dead_after))
        shown = running_mean({"u": unexplained}, {"u": state.unexplained}, step=state.step)["u"]
        return AutoencoderState(after, opt_state, state.scale, idle, state.step + 1, shown, divergence)

    def finish(state: AutoencoderState) -> SparseAutoencoder:
        found = state.autoencoder
        return SparseAutoencoder(found.encoder, found.decoder, found.bias * state.scale, num_active)

    return init, update, finish


def learn_autoencoder(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    layer: Layer | str,
    *,
    num_codes: int,
    num_active: int,
    epochs: int = 10,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    dead_after: int | None = None,
    num_positions: int | None = None,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    mesh: Mesh | None = None,
    description: str | None = None,
) -> SparseAutoencoder:
    """Returns a sparse autoencoder of the activations of a layer, learned from images without labels.

    `autoencoding` has the loss; it is lowered by Adam, whose learning rate decays along a cosine.

    Args:
        source: the images.
        layer: by name or from the layer table.
        num_codes: directions; a multiple of the channels, as a rule.
        num_active: codes that may be active at a position.
        epochs: passes over the images.
        batch_size: images a step; what does not fill a batch is left out of an epoch.
        learning_rate: at the first step.
        dead_after: positions without a code, after which it is dead; those of an epoch, and at most ten
            million (*paper*), if left out.
        num_positions: see `autoencoding`.
        seed: of the order of the images too.
        checkpoint: where the state is saved, and where a training that was interrupted goes on.
        mesh: devices; one if left out, or where there are several processes one of each.
        description: of the progress bar, which shows the fraction of variance unexplained; `None` shows none.

    Raises:
        TrainingDiverged: the loss was not finite.
        CheckpointError: the checkpoint is of other settings, or damaged.
        ValueError: a number that is below 1, a layer whose channels cannot be told apart, or one that is
            the same for all images.

    Example:
        >>> import numpy as np
        >>> from vexplain.datasets import ArraySource
        >>> images = np.eye(3).repeat(4, axis=0).reshape(12, 1, 1, 3)  # of three colors in turn
        >>> source = ArraySource(images, np.zeros(12, int), class_names=("all",))
        >>> apply = lambda variables, images: (images @ variables).mean((1, 2)) @ jnp.ones((2, 1))
        >>> mixed = jnp.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])  # three directions of two channels
        >>> options = {"num_codes": 3, "num_active": 1, "epochs": 200, "batch_size": 12}
        >>> found = learn_autoencoder(apply, mixed, source, "dense_1", **options, learning_rate=0.05)
        >>> reconstruction(apply, mixed, source, "dense_1", found).unexplained < 0.01
        True
    """
    check_positive(epochs=epochs)
    batch_fn, steps = shuffled_batches(source, batch_size, seed=seed)
    first = batch_fn(0)["images"]
    shape = jax.eval_shape(lambda v, x: _rows(apply, v, x, _name(layer)), variables, first).shape
    in_epoch = steps * batch_size * min(shape[1], num_positions or shape[1])
    options = {
        "num_codes": num_codes,
        "num_active": num_active,
        "dead_after": min(in_epoch, DEAD_AFTER) if dead_after is None else dead_after,
        "num_positions": num_positions,
        "seed": seed,
    }
    optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * steps))
    init, update, finish = autoencoding(apply, layer, optimizer, **options)
    state = jax.jit(init)(variables, first)
    if not float(state.scale) > 0:
        raise ValueError(
            f"layer {_name(layer)!r} has the same activation at every position of the first {len(first)} "
            "images, or NaN: there is nothing to explain; name another layer"
        )
    if checkpoint is not None:
        facts = options | {"pass": "autoencoder", "layer": _name(layer), "learning_rate": learning_rate}
        checkpoint = checkpoint.of(**facts_of(source, variables, batch_size), **facts, epochs=epochs)
    state = fold(
        update,
        state,
        batch_fn,
        num_steps=epochs * steps,
        constants=variables,
        mesh=mesh,
        checkpoint=checkpoint,
        description=description,
        report=_report,
    )
    return finish(state)


def reconstruction(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    layer: Layer | str,
    autoencoder: SparseAutoencoder,
    *,
    batch_size: int = 64,
    mesh: Mesh | None = None,
) -> Reconstruction:
    """Returns how much of the activations of a layer an autoencoder leaves unexplained, over all positions.

    Args:
        source: the images; others than those that it was learned from, as a rule.
        layer: that it was learned on.
        autoencoder: what `learn_autoencoder` returned.
        batch_size: images a step.
        mesh: devices; one if left out.

    Example:
        >>> import numpy as np
        >>> from vexplain.datasets import ArraySource
        >>> source = ArraySource(np.eye(2).reshape(2, 1, 1, 2), np.zeros(2, int), class_names=("all",))
        >>> apply = lambda variables, images: jax.nn.relu(images).mean((1, 2)) @ variables
        >>> autoencoder = SparseAutoencoder(jnp.eye(2), jnp.eye(2), jnp.zeros(2), num_active=1)
        >>> reconstruction(apply, jnp.eye(2), source, "relu_1", autoencoder)
        Reconstruction(unexplained=0.0, dead=0.0, num_active=1.0)
    """
    channels, codes = jnp.shape(autoencoder.encoder)
    sums = {"total": jnp.zeros(channels), "squares": 0.0, "errors": 0.0, "active": 0.0, "count": 0.0}
    zeros = jax.tree.map(jnp.asarray, sums) | {"fired": jnp.zeros(codes, bool)}

    def update(state, batch, constants):
        variables, autoencoder = constants
        rows = _rows(apply, variables, batch["images"], _name(layer))
        z = encode(autoencoder, rows)
        weights = jnp.broadcast_to(batch["weights"][:, None], rows.shape[:2])
        rows = jnp.where(weights[..., None] > 0, rows, autoencoder.bias)  # padding may hold NaN
        z = jnp.where(weights[..., None] > 0, z, 0)
        centered = rows - autoencoder.bias
        return {
            "total": state["total"] + centered.sum((0, 1)),
            "squares": state["squares"] + (centered**2).sum(),
            "errors": state["errors"] + ((rows - decode(autoencoder, z)) ** 2).sum(),
            "active": state["active"] + (z > 0).sum(),
            "count": state["count"] + weights.sum(),
            "fired": state["fired"] | (z > 0).any((0, 1)),
        }

    options: Any = {"batch_size": batch_size, "constants": (variables, autoencoder), "mesh": mesh}
    found = fold_epoch(update, zeros, source, **options)
    variance = float(found["squares"] - (found["total"] ** 2).sum() / found["count"])
    return Reconstruction(
        float(found["errors"]) / variance if variance > 0 else float("nan"),
        1 - float(found["fired"].mean()),
        float(found["active"] / found["count"]),
    )


def _objective(
    autoencoder: SparseAutoencoder, rows: Array, weights: Array, is_dead: Array
) -> tuple[Array, tuple[Array, Array]]:
    """The loss, and with it what is unexplained and which codes were active."""
    codes = encode(autoencoder, rows)
    error = rows - decode(autoencoder, codes)
    total = jnp.maximum(weights.sum(), 1)
    unexplained = (weights * (error**2).sum(-1)).sum() / total

    def of_dead(autoencoder):
        strength = (rows - autoencoder.bias) @ autoencoder.encoder
        chosen = largest(jnp.where(is_dead, strength, 0), max(rows.shape[-1] // 2, 1))
        left = jax.lax.stop_gradient(error) - chosen @ autoencoder.decoder
        return (weights * (left**2).sum(-1)).sum() / total

    auxiliary = jax.lax.cond(is_dead.any(), of_dead, lambda _: jnp.zeros_like(unexplained), autoencoder)
    fired = ((codes > 0) & (weights[..., None] > 0)).any((0, 1))
    return unexplained + AUXILIARY * auxiliary, (unexplained, fired)


def _rows(apply: ApplyFn, variables: Variables, images: Images, name: str) -> Float[Array, "images n c"]:
    """The activations of a layer, (images, positions, channels)."""
    row = layers(apply, variables, images)[name]
    check_layer(row)
    rows = rows_of(read(apply, [name])(variables, images)[1][name], row)
    batch_axis = sum(a not in row.channel_axes for a in range(row.batch_axis or 0))
    rows = jnp.moveaxis(rows, batch_axis, 0).reshape(len(images), -1, row.num_channels)
    return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))


def _name(layer: Layer | str) -> str:
    return layer.name if isinstance(layer, Layer) else layer


def _unit(directions: Array) -> Array:
    return directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)


def _with_decoder(autoencoder: SparseAutoencoder, decoder: Array) -> SparseAutoencoder:
    return SparseAutoencoder(autoencoder.encoder, decoder, autoencoder.bias, autoencoder.num_active)


def _report(state: AutoencoderState) -> dict[str, Any]:
    raise_if_diverged(state.divergence)
    return {"unexplained": state.unexplained}
