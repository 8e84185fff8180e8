"""The loop: a pure update folded over a stream of batches, on all devices, with exact resume.

Everything in this library that runs over a dataset (training, Gram matrices, top-k images, accuracies) is a
pair `init() -> state`, `update(state, batch) -> state`. `fold` runs it. Batch t is a function of t alone, so
the number of steps done is all there is to know about the loader: a run that was killed goes on from its last
checkpoint and ends with the same state, bit for bit on a CPU.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
from orbax.checkpoint import v1 as ocp
from tqdm.auto import tqdm

from vexplain.sharding import Mesh, data_mesh, replicate, replicated, shard_batch
from vexplain.typing import Batch

State = TypeVar("State")
_KEEP = 2  # checkpoints; the one before the last survives a crash while the last is written


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, or that belongs to another computation."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and how often `fold` saves its state.

    Attributes:
        directory: of this one computation; made if missing.
        every: steps between two checkpoints; the last step is always saved.
        fingerprint: a text that names the settings; a checkpoint of other settings is refused.
    """

    directory: Path | str
    every: int = 100
    fingerprint: str = ""

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"every is {self.every}: expected at least 1 step between checkpoints")


def fold(
    update: Callable[..., State],
    state: State,
    batch_fn: Callable[[int], Batch],
    *,
    num_steps: int,
    constants: Any = None,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
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
        description: text of the progress bar; without it there is none.
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
    state = replicate(state, mesh)
    extra = () if constants is None else (replicate(constants, mesh),)
    step_fn = _compiled(update, mesh)
    with _saver(checkpoint) as saver, _progress(description, num_steps, report) as show:
        start, state = saver.resume(state, num_steps)
        show(start, state)
        for t, batch in _prefetched(batch_fn, start, num_steps, mesh):
            state = step_fn(state, batch, *extra)
            done = t + 1
            show(done, state, last=done == num_steps)
            saver.save(done, state, last=done == num_steps)
    return state


@functools.lru_cache(maxsize=64)
def _compiled(update: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """One jitted function for each update and mesh, so that a second fold does not trace again."""
    whole = replicated(mesh)

    def step(state, batch, *extra):
        return update(state, batch, *extra)

    return jax.jit(step, donate_argnums=0, out_shardings=whole)


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
def _progress(description: str | None, num_steps: int, report) -> Iterator[Callable[..., None]]:
    """Yields `show(done, state, last)`, which waits for the devices about once a second, not every step."""
    bar = tqdm(total=num_steps, desc=description, unit="step", disable=description is None, smoothing=0.1)
    shown = time.monotonic()

    def show(done: int, state: Any, last: bool = False) -> None:
        nonlocal shown
        now = time.monotonic()
        if not last and now - shown < 1 and done > bar.n == 0:
            return
        if last or now - shown >= 1:
            jax.block_until_ready(state)
            shown = time.monotonic()
            if report is not None:
                bar.set_postfix({k: f"{float(v):.4g}" for k, v in report(state).items()}, refresh=False)
        bar.update(done - bar.n)

    with bar:
        yield show


# ----------------------------------------------------------------------------------- checkpoints


class _NoSaver:
    def resume(self, state, num_steps):
        return 0, state

    def save(self, done, state, last):
        return None


class _Saver:
    """Saves (state, step) by Orbax, which writes beside and renames: half a checkpoint is never seen."""

    def __init__(self, checkpoint: Checkpoint, checkpointer: ocp.training.Checkpointer):
        self.settings, self.checkpointer = checkpoint, checkpointer

    def resume(self, state, num_steps):
        latest = self.checkpointer.latest
        if latest is None:
            return 0, state
        where = Path(self.settings.directory).resolve() / str(latest.step)
        try:
            saved: Any = self.checkpointer.metadata(latest.step).custom_metadata or {}
        except Exception as error:
            raise _damaged(where, error) from error
        if saved.get("fingerprint") != self.settings.fingerprint:
            raise CheckpointError(
                f"the checkpoint in {where} was made with other settings ({saved.get('fingerprint')!r}, now "
                f"{self.settings.fingerprint!r}): choose another folder, or delete this one to begin anew"
            )
        if latest.step > num_steps:
            raise CheckpointError(
                f"the checkpoint in {where} is of step {latest.step}, beyond num_steps = {num_steps}"
            )
        structure = _structure(state)
        if saved.get("structure") != structure:
            raise CheckpointError(
                f"the checkpoint in {where} holds another state than this computation: saved "
                f"{saved.get('structure')}, now {structure}; delete it to begin anew"
            )
        try:
            leaves = self.checkpointer.load(latest.step, _abstract(state))["leaves"]
        except Exception as error:
            raise _damaged(where, error) from error
        restored = [leaves[f"{i:04d}"] for i in range(len(leaves))]
        return latest.step, _unflattened(state, restored)

    def save(self, done, state, last):
        if not last and done % self.settings.every:
            return
        metadata: Any = {"fingerprint": self.settings.fingerprint, "structure": _structure(state)}
        self.checkpointer.save(done, {"leaves": _leaves(state)}, custom_metadata=metadata, overwrite=True)


@contextlib.contextmanager
def _saver(checkpoint: Checkpoint | None) -> Iterator[Any]:
    if checkpoint is None:
        yield _NoSaver()
        return
    directory = Path(checkpoint.directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {  # Orbax's policies do not declare the protocols that they implement
        "preservation_policy": ocp.training.preservation_policies.LatestN(_KEEP),
        "save_decision_policy": ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        "cleanup_tmp_directories": True,
    }
    with ocp.training.Checkpointer(str(directory), **options) as checkpointer:
        yield _Saver(checkpoint, checkpointer)


def _damaged(where: Path, error: Exception) -> CheckpointError:
    others = sorted(p.name for p in where.parent.iterdir() if p.name.isdigit() and p != where)
    way = f"delete {where} to go on from step {others[-1]}" if others else f"delete {where} to begin anew"
    return CheckpointError(f"the checkpoint in {where} cannot be read ({error}): {way}")


def _leaves(state: Any) -> dict[str, Any]:
    """Flat, so that any pytree can be saved; typed random keys as their data."""
    return {f"{i:04d}": _plain(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _abstract(state: Any) -> dict[str, Any]:
    shapes = {
        k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding) for k, v in _leaves(state).items()
    }
    return {"leaves": shapes}


def _unflattened(state: Any, restored: list[Any]) -> Any:
    typed = [
        jax.random.wrap_key_data(new, impl=jax.random.key_impl(old))
        if jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key)
        else new
        for old, new in zip(jax.tree.leaves(state), restored, strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(state), typed)


def _structure(state: Any) -> str:
    paths = jax.tree_util.tree_flatten_with_path(state)[0]
    text = ", ".join(f"{jax.tree_util.keystr(p)}:{x.dtype}{list(x.shape)}" for p, x in paths)
    return text
