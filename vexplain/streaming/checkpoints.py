"""Checkpoints of a fold: its state and the number of steps done, written whole by Orbax.

A checkpoint says which settings and which structure it belongs to; one of another computation is refused, one
that is damaged is named, with what to do about it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

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
def open_saver(checkpoint: Checkpoint | None) -> Iterator[Any]:
    """Yields what resumes and saves: nothing at all where `checkpoint` is None."""
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
    cause = next(iter(str(error).strip().splitlines()), "")  # Orbax appends whole trees
    return CheckpointError(
        f"the checkpoint in {where} cannot be read: {way} (the cause: {type(error).__name__}: {cause})"
    )


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
    return ", ".join(f"{jax.tree_util.keystr(p)}:{x.dtype}{list(x.shape)}" for p, x in paths)
