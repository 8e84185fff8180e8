"""What every experiment does around its work: lines that progress bars leave alone, timing, the JSON file."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from tqdm.auto import tqdm

from vexplain.files import write_whole


def say(text: str) -> None:
    """Prints a line above the progress bars."""
    tqdm.write(text, file=sys.stdout)


@contextlib.contextmanager
def step(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Times a part of the job."""
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def write_json(path: Path, content: Any) -> None:
    """Writes a file in one piece."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def device_names() -> str:
    """The devices of this machine, for instance `8 × TPU v5 lite`."""
    devices = jax.devices()
    return f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})"
