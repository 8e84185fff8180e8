"""The loop: a pure update folded over a stream of batches, on all devices and hosts, with exact resume.

Everything in this library that runs over a dataset (training, Gram matrices, top-k images, accuracies) is a
pair `init() -> state`, `update(state, batch) -> state`. `fold` runs it. Batch t is a function of t alone, so
the number of steps done is all there is to know about the loader: a run that was killed goes on from its last
checkpoint and ends with the same state, bit for bit on a CPU.

Where several processes run it together, each reads of every batch the rows that its devices hold, and all of
them end with the same state, which each can read and compute with on its own.
"""

import collections
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
from tqdm.auto import tqdm

from vexplain._keeping import Store, identity, kept
from vexplain.datasets import Batches, Source, epoch_batches
from vexplain.streaming.checkpoints import Checkpoint, facts_of, open_saver
from vexplain.streaming.devices import (
    Mesh,
    default_mesh,
    laid_out,
    local_copies,
    meet,
    replicate,
    shard_batch,
    shard_rows,
    shardings,
    shared_rows,
)
from vexplain.streaming.processes import gather_values, is_writer
from vexplain.typing import Batch

State = TypeVar("State")

_AHEAD = 2  # batches that are made while a step runs
_SHOWN_EVERY = 32  # steps between two reports of several processes, which must all raise at the same step
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
    mesh; the next batches are made while a step runs.

    Args:
        update: pure function `(state, batch) -> state`, or `(state, batch, constants) -> state`.
        state: to begin with; it is copied and stays valid.
        batch_fn: the batch of step t, made in a background thread. Of `Batches`, as `epoch_batches` and
            `shuffled_batches` return them, each process reads its rows alone; any other function is called
            for the whole batch by every process.
        num_steps: in all, those done before a resume included.
        constants: what the update reads and does not change (variables of a network): neither donated nor
            saved.
        mesh: devices; one if left out, or where there are several processes one of each.
        checkpoint: save the state and resume from it.
        layouts: for each array of the state `devices.SPLIT`, split over the devices along its leading axis,
            or `devices.COPIED`; with them the result stays on the devices as it is laid out. If left out,
            each device has a copy of the whole state.
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
    mesh = default_mesh() if mesh is None else mesh
    make = _maker(batch_fn, mesh)
    meet(mesh)
    state = laid_out(state, mesh, layouts)
    extra = () if constants is None else (replicate(constants, mesh),)
    step_fn = _compiled(update, mesh, layouts)
    with open_saver(checkpoint) as saver:
        start, state, notes = saver.resume(state, num_steps)
        _note(batch_fn, notes)
        with _progress(description, start, num_steps, report, mesh) as show:
            show(start, state, last=start == num_steps)
            for t, batch in _prefetched(make, start, num_steps):
                state = step_fn(state, batch, *extra)
                done = t + 1
                show(done, state, last=done == num_steps)
                if saver.is_due(done, last=done == num_steps):
                    saver.save(done, state, _shared_notes(batch_fn, mesh))
    _shared_notes(batch_fn, mesh)
    return local_copies(state, mesh) if layouts is None else state


def fold_epoch(
    update: Callable[..., State],
    state: State,
    source: Source,
    *,
    batch_size: int = 64,
    constants: Any = None,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
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
        batch_size: examples a step; the next multiple of the number of devices is taken.
        constants: what the update reads and does not change.
        mesh: devices; one if left out, or where there are several processes one of each.
        layouts: of the state, as in `fold`.
        checkpoint: save the state and resume from it. Its fingerprint is extended by what is known of the
            source, the batches and the constants; what the update depends on beyond them is the caller's.
        description: of the progress bar; `None` shows none.

    Raises:
        CheckpointError: a checkpoint is damaged, or of another pass.
        ValueError: the source is empty, or `batch_size` below 1.

    Example:
        >>> import jax.numpy as jnp
        >>> import numpy as np
        >>> from vexplain.datasets import ArraySource
        >>> source = ArraySource(np.zeros((5, 1, 1, 1)), np.array([0, 1, 1, 0, 1]), class_names=("a", "b"))
        >>> count = lambda total, batch: total + (batch["weights"] * batch["labels"]).sum()
        >>> print(fold_epoch(count, jnp.zeros(()), source, batch_size=2))
        3.0
    """
    mesh = default_mesh() if mesh is None else mesh
    batch_size += -batch_size % mesh.size
    batch_fn, num_steps = epoch_batches(source, batch_size)
    if checkpoint is not None:
        checkpoint = checkpoint.of(**facts_of(source, constants, batch_size))
    return fold(
        update,
        state,
        batch_fn,
        num_steps=num_steps,
        constants=constants,
        mesh=mesh,
        checkpoint=checkpoint,
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


def _maker(batch_fn: Callable[[int], Batch], mesh: Mesh) -> Callable[[int], dict[str, Any]]:
    """What makes batch t on the devices: from the rows of this process, where they can be had alone."""
    if not isinstance(batch_fn, Batches):
        return lambda t: shard_batch(batch_fn(t), mesh)
    size, rows = batch_fn.batch_size, shared_rows(batch_fn.batch_size, mesh)
    return lambda t: shard_rows(batch_fn.read(t, rows), rows, size, mesh)


def _prefetched(make: Callable[[int], Any], start: int, stop: int) -> Iterator[tuple[int, Any]]:
    """Yields (t, batch on the devices), with the next batches being made meanwhile."""
    ahead: collections.deque[Future[Any]] = collections.deque()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        try:
            for t in range(start, stop):
                while len(ahead) <= _AHEAD and t + len(ahead) < stop:
                    ahead.append(pool.submit(make, t + len(ahead)))
                yield t, ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _notes(batch_fn: Any) -> list[dict[str, str]]:
    """Of each source of the batches the broken files that were met, which itself keeps by name."""
    return [getattr(source, "skipped", {}) for source in getattr(batch_fn, "sources", ())]


def _note(batch_fn: Any, notes: Mapping[str, list[dict[str, str]]]) -> None:
    for here, found in zip(_notes(batch_fn), notes.get("skipped", []), strict=False):
        here.update(found)


def _shared_notes(batch_fn: Any, mesh: Mesh) -> dict[str, list[dict[str, str]]]:
    """What all processes met; each knows it afterwards."""
    here = {"skipped": [dict(found) for found in _notes(batch_fn)]}
    for there in gather_values(here) if mesh.is_multi_process and here["skipped"] else ():
        _note(batch_fn, there)
    return {"skipped": [dict(found) for found in _notes(batch_fn)]}


@contextlib.contextmanager
def _progress(
    description: str | None,
    start: int,
    num_steps: int,
    report: Callable[[Any], Mapping[str, Any]] | None,
    mesh: Mesh,
) -> Iterator[Callable[..., None]]:
    """Yields `show(done, state, last)`, which waits for the devices about once a second, not every step.

    Several processes do so at steps that they agree on, since the report of a state may stop all of them.
    """
    text = f"{description}, resumed at step {start}" if start else description
    bar = tqdm(
        total=num_steps,
        initial=start,
        desc=text,
        unit="step",
        disable=description is None or not is_writer(),
        smoothing=0.1,
    )
    shown = time.monotonic()

    def show(done: int, state: Any, last: bool = False) -> None:
        nonlocal shown
        now = time.monotonic()
        is_due = done % _SHOWN_EVERY == 0 if mesh.is_multi_process else now - shown >= 1
        if not last and not is_due and done > bar.n == start:
            return
        if last or is_due:
            jax.block_until_ready(state)
            shown = time.monotonic()
            if report is not None:
                values = report(local_copies(state, mesh))
                bar.set_postfix({k: f"{float(v):.4g}" for k, v in values.items()}, refresh=False)
        bar.update(done - bar.n)

    with bar:
        yield show
