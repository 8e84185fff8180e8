"""Several processes that run one program on several hosts: who writes, and what all of them know.

Every process runs the same lines in the same order, on its own devices. One of them, the writer, writes
reports, metrics and logs. Checkpoints are written by all, as Orbax does it.
"""

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

Value = TypeVar("Value")
_WAITS = itertools.count()  # the same in every process, as the lines are that they run
_LONGEST_WAIT = 24 * 3600 * 1000  # ms; of those that wait while the writer makes a report
_PIECE = 2**26  # bytes that a device holds of each process at once


def is_writer() -> bool:
    """Returns whether this process writes the files of a job: one of all does.

    Nothing that all processes compute together, such as `fold`, belongs inside `if is_writer():`.

    Example:
        >>> is_writer()
        True
    """
    return jax.process_index() == 0


def gather_values(value: Value) -> list[Value]:
    """Returns the value of every process, in the order of the processes; every process must call it.

    Args:
        value: anything that can be pickled.

    Example:
        >>> gather_values({"broken.png": "it is empty"})
        [{'broken.png': 'it is empty'}]
    """
    if jax.process_count() == 1:
        return [value]
    wait_for_all()
    content = pickle.dumps(value)
    counts = _of_all(np.array([len(content) // _PIECE, len(content) % _PIECE], np.int32))
    sizes = counts[:, 0].astype(np.int64) * _PIECE + counts[:, 1]
    piece = min(_PIECE, 1 << int(sizes.max() - 1).bit_length())  # few sizes: each is compiled once
    padded = np.zeros(-(-sizes.max() // piece) * piece, np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    pieces = [_of_all(padded[start : start + piece]) for start in range(0, len(padded), piece)]
    rows = np.concatenate(pieces, axis=1)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _of_all(array: np.ndarray) -> np.ndarray:
    """(processes, ...), an array of each."""
    return np.reshape(multihost_utils.process_allgather(array), (jax.process_count(), *array.shape))


def shared_out(function: Callable[[int], Value], count: int) -> list[Value]:
    """Returns [function(0), function(1), ...], of which each process makes its share.

    Every process must call it.

    Args:
        function: of 0 to `count` - 1; what it returns can be pickled.
        count: of the calls.

    Example:
        >>> shared_out(lambda n: n * n, 4)
        [0, 1, 4, 9]
    """
    every = gather_values([function(n) for n in range(jax.process_index(), count, jax.process_count())])
    return [every[n % len(every)][n // len(every)] for n in range(count)]


def agree_on(value: Value) -> Value:
    """Returns the value of the writer in every process; every process must call it.

    For what one process may see earlier than another, such as whether a file is there.

    Args:
        value: anything that can be pickled.

    Example:
        >>> agree_on(True)
        True
    """
    return gather_values(value)[0]


def wait_for_all() -> None:
    """Returns when every process has called it: what the writer wrote before is there."""
    if jax.process_count() > 1:
        multihost.get_barrier_sync_fn()(key=f"vexplain {next(_WAITS)}", timeout_ms=_LONGEST_WAIT)


def exists(path: Path) -> bool:
    """Returns whether a path exists, as the writer sees it; every process must call it.

    Args:
        path: of a file or folder that all hosts share.
    """
    return agree_on(path.exists())
