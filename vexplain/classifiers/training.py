"""Supervised training and accuracy, as init/update pairs for `streaming.fold`; and the usual training."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vexplain.datasets import Source, shuffled_batches
from vexplain.streaming import Checkpoint, fold
from vexplain.streaming.checkpoints import facts_of
from vexplain.streaming.devices import Mesh
from vexplain.streaming.divergence import Divergence, guarded, no_divergence, raise_if_diverged, running_mean
from vexplain.typing import ApplyFn, Array, Batch, Float, Int, Labels, Logits, PyTree, Variables

Trainable = Callable[[tuple[Any, ...], Any], bool]  # (path of keys, leaf) -> is it trained?

_STATISTICS = "batch_stats"  # Flax Linen's collection of what passes over images count, not an optimizer


class TrainState(NamedTuple):
    """Everything that training changes."""

    variables: Variables
    opt_state: PyTree
    step: Int[Array, ""]
    loss: Float[Array, ""]  # running average
    accuracy: Float[Array, ""]  # running average, in [0, 1]
    divergence: Divergence


def supervised(
    apply: ApplyFn,
    optimizer: optax.GradientTransformation,
    *,
    loss_fn: Callable[[Logits, Labels], Float[Array, " batch"]] | None = None,
    trainable: Trainable | None = None,
) -> tuple[Callable[[Variables], TrainState], Callable[[TrainState, Batch], TrainState]]:
    """Returns the pair (init, update) that trains the variables of a network.

    Running statistics of a batch normalization belong to what is not trained: a step of an optimizer may make
    a variance negative. They stay as they are where `trainable` leaves them out,

        trainable=lambda path, leaf: "batch_stats" not in str(path)                 Flax Linen
        trainable=lambda path, leaf: path[-1].key not in ("mean", "var")            Flax NNX, by functionalize

    A step whose loss is not finite leaves the variables as they were; `training_report` raises for it.

    Args:
        optimizer: from optax.
        loss_fn: `(logits, labels) -> (batch,)`; softmax cross-entropy if left out.
        trainable: `(path, leaf) -> bool` for every array of the variables, with its path of keys as
            `jax.tree_util.tree_map_with_path` gives it; what it leaves out stays unchanged, and may be of any
            dtype. Everything is trained if left out.

    Returns:
        `init(variables) -> TrainState` and `update(state, batch) -> TrainState`. Batches have "images",
        "labels" and optionally "weights" (0 = padding).

    Raises:
        ValueError: (by `init`) the variables hold "batch_stats" and `trainable` was left out, or it leaves
            nothing to train.
    """
    loss_fn = loss_fn or optax.softmax_cross_entropy_with_integer_labels

    def init(variables: Variables) -> TrainState:
        if trainable is None and isinstance(variables, Mapping) and _STATISTICS in variables:
            raise ValueError(
                f"variables hold {_STATISTICS!r}, running statistics that an optimizer must not change: pass "
                f'trainable=lambda path, leaf: "{_STATISTICS}" not in str(path)'
            )
        trained, _ = _parted(variables, trainable)
        if not jax.tree.leaves(trained):
            raise ValueError("trainable: it is False for every variable; nothing would be trained")
        return TrainState(
            variables=variables,
            opt_state=optimizer.init(trained),
            step=jnp.zeros((), jnp.int32),
            loss=jnp.zeros(()),
            accuracy=jnp.zeros(()),
            divergence=no_divergence(["loss"]),
        )

    def objective(trained, rest, batch):
        logits = apply(_joined(trained, rest), batch["images"])
        weights = batch.get("weights", jnp.ones(len(logits), logits.dtype))
        total = jnp.maximum(weights.sum(), 1)
        correct = (logits.argmax(-1) == batch["labels"]) * weights
        return (loss_fn(logits, batch["labels"]) * weights).sum() / total, correct.sum() / total

    def update(state: TrainState, batch: Batch) -> TrainState:
        before, rest = _parted(state.variables, trainable)
        (loss, accuracy), gradients = jax.value_and_grad(objective, has_aux=True)(before, rest, batch)
        updates, opt_state = optimizer.update(gradients, state.opt_state, before)
        keep, divergence = guarded(state.divergence, {"loss": loss}, step=state.step)
        trained, opt_state = keep(
            (optax.apply_updates(before, updates), opt_state), (before, state.opt_state)
        )
        shown = {"loss": state.loss, "accuracy": state.accuracy}
        shown = running_mean({"loss": loss, "accuracy": accuracy}, shown, step=state.step)
        return TrainState(_joined(trained, rest), opt_state, state.step + 1, **shown, divergence=divergence)

    return init, update


def train(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    *,
    epochs: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    seed: int = 0,
    directory: str | Path | None = None,
    mesh: Mesh | None = None,
    description: str | None = None,
) -> Variables:
    """Returns the variables after some epochs of Adam with warmup and cosine decay, or goes on with them.

    What Flax NNX calls `mean` and `var` and Linen `batch_stats` are statistics, and stay as they are.

    Args:
        source: labeled images.
        epochs: passes over them.
        batch_size: images a step; what does not fill a batch is left out of an epoch.
        learning_rate: at its peak, after a twentieth of the steps.
        seed: of the order of the images.
        directory: of checkpoints, four epochs apart; none if left out. One of other settings, images or
            first variables is refused.
        mesh: devices; one if left out, or where there are several processes one of each.
        description: of the progress bar; `None` shows none.

    Raises:
        TrainingDiverged: the loss was not finite.
        CheckpointError: the directory holds a checkpoint of other settings, or a damaged one.
        ValueError: `epochs` is below 1, or `batch_size` is, or it is larger than the source.

    Example:
        >>> import numpy as np
        >>> from vexplain.datasets import ArraySource
        >>> images = np.zeros((8, 1, 1, 2))
        >>> images[::2, ..., 0] = images[1::2, ..., 1] = 1  # of two colors in turn
        >>> source = ArraySource(images, np.arange(8) % 2, class_names=("first", "second"))
        >>> apply = lambda variables, images: images.mean((1, 2)) @ variables
        >>> variables = train(apply, jnp.zeros((2, 2)), source, epochs=9, batch_size=8, learning_rate=0.1)
        >>> print(apply(variables, images).argmax(-1))
        [0 1 0 1 0 1 0 1]
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}: expected the number of passes over the images, 1 or more")
    batch_fn, steps = shuffled_batches(source, batch_size, seed=seed)
    num_steps = epochs * steps
    warmup = min(num_steps // 20 + 1, num_steps - 1)
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup, num_steps)
    init, update = supervised(apply, optax.adam(schedule), trainable=_is_weight)
    checkpoint = None
    if directory is not None:
        facts = facts_of(source, variables, batch_size)
        facts |= {"epochs": epochs, "learning_rate": learning_rate, "seed": seed}
        checkpoint = Checkpoint(directory, every=4 * steps).of(**facts)
    state = fold(
        update,
        init(variables),
        batch_fn,
        num_steps=num_steps,
        mesh=mesh,
        checkpoint=checkpoint,
        description=description,
        report=training_report,
    )
    return state.variables


def _is_weight(path: tuple[Any, ...], leaf: Any) -> bool:
    names = [jax.tree_util.keystr((step,), simple=True) for step in path]
    return _STATISTICS not in names and not {"mean", "var"}.intersection(names[-1:])


def training_report(state: TrainState) -> dict[str, Array]:
    """Returns loss and accuracy for the progress bar.

    Raises:
        TrainingDiverged: the loss of an earlier step was not finite.
    """
    raise_if_diverged(state.divergence)
    return {"loss": state.loss, "accuracy": state.accuracy}


def confusion(
    apply: ApplyFn, num_classes: int
) -> tuple[Callable[[], Array], Callable[[Array, Batch, Variables], Array]]:
    """Returns the pair (init, update) that counts predictions: rows are true classes, columns predicted.

    Returns:
        `init()` -> (num_classes, num_classes) zeros, and `update(counts, batch, variables) -> counts`.

    Example:
        >>> init, update = confusion(lambda v, x: x, 2)
        >>> batch = {"images": jnp.array([[1.0, 0.0], [1.0, 0.0]]), "labels": jnp.array([0, 1])}
        >>> print(accuracy(update(init(), batch, None)))
        0.5
    """

    def init() -> Array:
        return jnp.zeros((num_classes, num_classes))

    def update(counts: Array, batch: Batch, variables: Variables) -> Array:
        predicted = apply(variables, batch["images"]).argmax(-1)
        weights = batch.get("weights", jnp.ones(len(predicted)))
        return counts.at[batch["labels"], predicted].add(weights)

    return init, update


def accuracy(counts: Float[Array, "classes classes"]) -> float:
    """Returns the share of right predictions of a confusion matrix, in [0, 1]."""
    return float(jnp.trace(counts) / jnp.maximum(counts.sum(), 1))


def _parted(variables: Variables, trainable: Trainable | None) -> tuple[PyTree, PyTree]:
    """What is trained and what is not, each with None in the other's places."""
    if trainable is None:
        return variables, jax.tree.map(lambda leaf: None, variables)
    is_trained = jax.tree_util.tree_map_with_path(lambda path, leaf: bool(trainable(path, leaf)), variables)
    return (
        jax.tree.map(lambda leaf, keep: leaf if keep else None, variables, is_trained),
        jax.tree.map(lambda leaf, keep: None if keep else leaf, variables, is_trained),
    )


def _joined(trained: PyTree, rest: PyTree) -> Variables:
    return jax.tree.map(lambda a, b: b if a is None else a, trained, rest, is_leaf=lambda leaf: leaf is None)
