"""Work on the images of a batch in as many threads as there are cores.

Pillow lets other threads run while it decodes and resizes, so that threads of one process do what processes
would, without a copy of every image from one process to the other.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")
_TASKS = 4  # of each thread, so that none waits long for the last one


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(function: Callable[[Any], Result], items: Sequence[Any]) -> list[Result]:
    """Returns what a function makes of each item, in their order; of several errors the first is raised.

    Args:
        function: that may run in several threads at once.
        items: one or more for each thread.

    Example:
        >>> in_threads(len, ["a", "bc", ""])
        [1, 2, 0]
    """
    count = min(num_cores(), len(items))
    if count < 2:
        return [function(item) for item in items]
    size = -(-len(items) // (_TASKS * count))
    tasks = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(count, thread_name_prefix="images") as pool:
        return [found for part in pool.map(lambda task: [function(i) for i in task], tasks) for found in part]
