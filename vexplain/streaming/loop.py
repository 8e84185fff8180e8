"""The loop: a pure update folded over a stream of batches, on all devices, with exact resume.

Everything in this library that runs over a dataset (training, Gram matrices, top-k images, accuracies) is a
pair `init() -> state`, `update(state, batch) -> state`. `fold` runs it. Batch t is a function of t alone, so
the number of steps done is all there is to know about the loader: a run that was killed goes on from its last
checkpoint and ends with the same state, bit for bit on a CPU.
"""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax
from tqdm.auto import tqdm

from vexplain._keeping import Store, identity, kept
from vexplain.datasets import Source, epoch_batches
from vexplain.streaming.checkpoints import Checkpoint, open_saver
from vexplain.streaming.devices import Mesh, data_mesh, laid_out, replicate, shard_batch, shardings
from vexplain.typing import Batch

State = TypeVar("State")

_STEPS: Store = collections.OrderedDict()


def fold(
    update: Callable[..., State],
    state: State,
    batch_fn: Callable[[int], Batch],
    *,
    num_steps: int,
    constants: Any = None,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    layouts: Any = None,
    description: str | None = None,
    report: Callable[[State], Mapping[str, Any]] | None = None,
) -> State:
    """Returns the state after `num_steps` updates: state = update(state, batch_fn(t)) for t = 0, 1, ...

    The update is compiled once, its state replicated and donated, its batch split over the devices of the
    mesh; the next batch is made while a step runs.

    Args:
        update: pure function `(state, batch) -> state`, or `(state, batch, constants) -> state`.
        state: to begin with; it is copied and stays valid.
        batch_fn: the batch of step t, made in a background thread.
        num_steps: in all, those done before a resume included.
        constants: what the update reads and does not change (variables of a network): neither donated nor
            saved.
        mesh: devices; one if left out.
        checkpoint: save the state and resume from it.
        layouts: for each array of the state `devices.SPLIT`, split over the devices along its leading axis,
            or `devices.COPIED`; if left out, each device has a copy of the whole state.
        description: text of the progress bar, which says too where a fold resumed; without it there is none.
        report: numbers of the state to show beside the bar; may raise to stop.

    Raises:
        CheckpointError: a checkpoint is damaged, or of other settings or another structure.
        ValueError: `num_steps` is negative, or a batch does not divide over the devices.

    Example:
        >>> import jax.numpy as jnp
        >>> update = lambda total, batch: total + batch["x"].sum()
        >>> print(fold(update, jnp.zeros(()), lambda t: {"x": jnp.full(4, t)}, num_steps=3))
        12.0
    """
    if num_steps < 0:
        raise ValueError(f"num_steps is {num_steps}: expected 0 or more")
    mesh = data_mesh(1) if mesh is None else mesh
    state = laid_out(state, mesh, layouts)
    extra = () if constants is None else (replicate(constants, mesh),)
    step_fn = _compiled(update, mesh, layouts)
    with open_saver(checkpoint) as saver:
        start, state = saver.resume(state, num_steps)
        with _progress(description, start, num_steps, report) as show:
            show(start, state, last=start == num_steps)
            for t, batch in _prefetched(batch_fn, start, num_steps, mesh):
                state = step_fn(state, batch, *extra)
                done = t + 1
                show(done, state, last=done == num_steps)
                saver.save(done, state, last=done == num_steps)
    return state


def fold_epoch(
    update: Callable[..., State],
    state: State,
    source: Source,
    *,
    batch_size: int = 64,
    constants: Any = None,
    mesh: Mesh | None = None,
    layouts: Any = None,
    description: str | None = None,
) -> State:
    """Returns the state after one pass over a source, every example once and in order.

    The last batch is filled up with examples of weight 0, so that one program serves all.

    Args:
        update: pure function `(state, batch) -> state`, or `(state, batch, constants) -> state`, that heeds
            batch["weights"].
        state: to begin with.
        source: the examples.
        batch_size: examples a step.
        constants: what the update reads and does not change.
        mesh: devices; one if left out.
        layouts: of the state, as in `fold`.
        description: of the progress bar; `None` shows none.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from vexplain.datasets import ArraySource
        >>> source = ArraySource(np.zeros((5, 1, 1, 1)), np.array([0, 1, 1, 0, 1]), class_names=("a", "b"))
        >>> count = lambda total, batch: total + (batch["weights"] * batch["labels"]).sum()
        >>> print(fold_epoch(count, jnp.zeros(()), source, batch_size=2))
        3.0
    """
    batch_fn, num_steps = epoch_batches(source, batch_size)
    return fold(
        update,
        state,
        batch_fn,
        num_steps=num_steps,
        constants=constants,
        mesh=mesh,
        layouts=layouts,
        description=description,
    )


def _compiled(update: Callable[..., Any], mesh: Mesh, layouts: Any) -> Callable[..., Any]:
    """One jitted function for each update, mesh and layout, so that a second fold does not trace again."""

    def step(state, batch, *extra):
        return update(state, batch, *extra)

    def make():
        return jax.jit(step, donate_argnums=0, out_shardings=shardings(mesh, layouts))

    structure = jax.tree.structure(layouts), tuple(jax.tree.leaves(layouts))
    return kept(_STEPS, (identity(update), mesh, structure), make)


def _prefetched(batch_fn, start: int, stop: int, mesh: Mesh) -> Iterator[tuple[int, Any]]:
    """Yields (t, batch on the devices), with the next batch being made meanwhile."""

    def make(t: int):
        return shard_batch(batch_fn(t), mesh)

    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        ahead = pool.submit(make, start) if start < stop else None
        for t in range(start, stop):
            assert ahead is not None
            batch = ahead.result()
            ahead = pool.submit(make, t + 1) if t + 1 < stop else None
            yield t, batch


@contextlib.contextmanager
def _progress(
    description: str | None, start: int, num_steps: int, report: Callable[[Any], Mapping[str, Any]] | None
) -> Iterator[Callable[..., None]]:
    """Yields `show(done, state, last)`, which waits for the devices about once a second, not every step."""
    text = f"{description}, resumed at step {start}" if start else description
    bar = tqdm(
        total=num_steps,
        initial=start,
        desc=text,
        unit="step",
        disable=description is None,
        smoothing=0.1,
    )
    shown = time.monotonic()

    def show(done: int, state: Any, last: bool = False) -> None:
        nonlocal shown
        now = time.monotonic()
        if not last and now - shown < 1 and done > bar.n == start:
            return
        if last or now - shown >= 1:
            jax.block_until_ready(state)
            shown = time.monotonic()
            if report is not None:
                bar.set_postfix({k: f"{float(v):.4g}" for k, v in report(state).items()}, refresh=False)
        bar.update(done - bar.n)

    with bar:
        yield show
