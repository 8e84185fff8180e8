"""Checkpoints of a fold: its state and the number of steps done, written whole by Orbax.

A checkpoint says which settings, images and weights, and which structure it belongs to; one of another
computation is refused, one that is damaged is named, with what to do about it.
"""

import contextlib
import dataclasses
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from vexplain.datasets import Source
from vexplain.streaming.processes import agree_on, is_writer, wait_for_all

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # in the text of a function
_SEEN = 8  # images that tell a source from others
_KEEP = 2  # checkpoints; the one before the last survives a crash while the last is written


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be read, that belongs to another computation, or that another run uses."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where and how often `fold` saves its state.

    Attributes:
        directory: of this one computation; made if missing. Several hosts must share it.
        every: steps between two checkpoints; the last step is always saved.
        fingerprint: a text that names the settings; a checkpoint of other settings is refused.
    """

    directory: Path | str
    every: int = 100
    fingerprint: str = ""

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"every is {self.every}: expected at least 1 step between checkpoints")

    def of(self, **facts: Any) -> "Checkpoint":
        """Returns the checkpoint with more in its fingerprint, each fact with its name.

        Example:
            >>> Checkpoint("runs/pass", fingerprint="mine").of(images=48, labels="true").fingerprint
            'mine, images 48, labels true'
        """
        named = (f"{name} {value}" for name, value in facts.items())
        return dataclasses.replace(self, fingerprint=", ".join(filter(None, (self.fingerprint, *named))))

    def below(self, name: str) -> "Checkpoint":
        """Returns a checkpoint in a folder of this one, for one of several computations."""
        return dataclasses.replace(self, directory=Path(self.directory) / name)

    def remove(self) -> None:
        """Removes it with all that is in its folder, once the result of the computation has been written.

        With several processes every one must call it. A crash meanwhile leaves all of it or nothing.
        """
        if is_writer():
            remove_folder(Path(self.directory))
        wait_for_all()


def remove_folder(path: Path) -> None:
    """Removes a folder, after it has lost its name in one step; and what an interrupted removal left.

    Args:
        path: of the folder; nothing happens where there is none.
    """
    path = Path(path).resolve()
    if path.is_dir():
        path.rename(path.with_name(f".{path.name}.removed-{os.getpid()}"))
    _sweep(path)


def _sweep(path: Path) -> None:
    for left in path.parent.glob(f".{glob.escape(path.name)}.removed-*"):
        shutil.rmtree(left, ignore_errors=True)


def digest(tree: Any) -> str:
    """Returns twelve hexadecimal digits that tell arrays from others, by their bytes.

    Args:
        tree: of arrays and of what has a `repr`.

    Example:
        >>> digest({"w": np.zeros(2)}) == digest({"w": np.zeros(2)}) != digest({"w": np.ones(2)})
        True
    """
    found = hashlib.blake2b(digest_size=6)
    leaves, structure = jax.tree.flatten(tree)
    found.update(_ADDRESS.sub("", str(structure)).encode())
    for leaf in leaves:
        array = np.ascontiguousarray(
            _plain(leaf) if hasattr(leaf, "dtype") else np.array(_ADDRESS.sub("", repr(leaf)))
        )
        found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return found.hexdigest()


def facts_of(source: Source, constants: Any, batch_size: int) -> dict[str, Any]:
    """Returns what the state of a pass over a source depends on, for a fingerprint.

    The images are told from others by their number, their classes, and eight of them, from the first to the
    last.

    Args:
        source: of the pass.
        constants: of the pass, such as the weights of a network.
        batch_size: examples a step.
    """
    count = len(source)
    some = source[np.unique(np.linspace(0, count - 1, min(count, _SEEN)).astype(int))] if count else {}
    return {
        "images": count,
        "eight of them": digest({name: np.asarray(rows) for name, rows in some.items()}),
        "classes": digest(list(source.class_names)),
        "batch_size": batch_size,
        "constants": digest(constants),
    }


class _NoSaver:
    def resume(self, state, num_steps):
        return 0, state, {}

    def is_due(self, done, last):
        return False


class _Saver:
    """Saves (state, step) by Orbax, which writes beside and renames: half a checkpoint is never seen."""

    def __init__(self, checkpoint: Checkpoint, checkpointer: ocp.training.Checkpointer):
        self.settings, self.checkpointer = checkpoint, checkpointer

    def resume(self, state, num_steps):
        latest = self.checkpointer.latest
        if latest is None:
            return 0, state, {}
        where = Path(self.settings.directory).resolve() / str(latest.step)
        try:
            saved: Any = self.checkpointer.metadata(latest.step).custom_metadata or {}
        except Exception as error:
            raise _damaged(where, error) from error
        if saved.get("fingerprint") != self.settings.fingerprint:
            before, now = _different(str(saved.get("fingerprint")), self.settings.fingerprint)
            raise CheckpointError(
                f"the checkpoint in {where} was made with other settings ({before!r}, now {now!r}): choose "
                "another folder, or delete this one to begin anew"
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
        return latest.step, _unflattened(state, restored), saved.get("notes") or {}

    def is_due(self, done, last):
        return last or not done % self.settings.every

    def save(self, done, state, notes):
        metadata: Any = {
            "fingerprint": self.settings.fingerprint,
            "structure": _structure(state),
            "notes": notes,
        }
        self.checkpointer.save(done, {"leaves": _leaves(state)}, custom_metadata=metadata, overwrite=True)


@contextlib.contextmanager
def open_saver(checkpoint: Checkpoint | None) -> Iterator[Any]:
    """Yields what resumes and saves: nothing at all where `checkpoint` is None."""
    if checkpoint is None:
        yield _NoSaver()
        return
    directory = Path(checkpoint.directory).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    if is_writer():
        _sweep(directory)
    options: dict[str, Any] = {  # Orbax's policies do not declare the protocols that they implement
        "preservation_policy": ocp.training.preservation_policies.LatestN(_KEEP),
        "save_decision_policy": ocp.training.save_decision_policies.FixedIntervalPolicy(1),
        "cleanup_tmp_directories": True,
    }
    with used_alone(directory):
        try:
            opened = ocp.training.Checkpointer(str(directory), **options)
        except Exception as error:
            raise _damaged(_unreadable(directory), error) from error
        with opened as checkpointer:
            yield _Saver(checkpoint, checkpointer)


@contextlib.contextmanager
def used_alone(directory: Path) -> Iterator[None]:
    """Raises CheckpointError where another run uses the folder; a lock ends with its process, however that
    ends.

    Args:
        directory: that exists; every process must enter.
    """
    place, is_free = None, True
    if is_writer() and fcntl is not None:
        place = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_free = False
        except OSError:  # a file system without locks
            pass
    try:
        if not agree_on(is_free):
            raise CheckpointError(
                f"the folder {directory} is used by another run: wait for its end, or choose another folder"
            )
        yield
    finally:
        if place is not None:
            os.close(place)


def _different(before: str, now: str) -> tuple[str, str]:
    """The parts of two fingerprints that the other does not have."""
    a, b = before.split(", "), now.split(", ")
    return ", ".join(part for part in a if part not in b), ", ".join(part for part in b if part not in a)


def _steps(directory: Path) -> list[Path]:
    return sorted((p for p in directory.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))


def _unreadable(directory: Path) -> Path:
    """Which of the checkpoints cannot be read: opening reads all of them, and does not say which one."""
    steps = _steps(directory)
    for step in steps:
        try:
            ocp.metadata(str(step))
        except Exception:
            return step
    return steps[-1] if steps else directory


def _damaged(where: Path, error: Exception) -> CheckpointError:
    others = [step.name for step in _steps(where.parent) if step != where]
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
