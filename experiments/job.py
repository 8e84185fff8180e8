"""What every experiment does around its work: lines that progress bars leave alone, JSON, timing."""

import contextlib
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Collection, Iterator
from typing import Any

import jax
from tqdm.auto import tqdm

from vexplain._files import plain_json
from vexplain.streaming import is_writer


def say(text: str) -> None:
    """Prints a line above the progress bars; of several processes one does."""
    if is_writer():
        tqdm.write(text, file=sys.stdout)


@contextlib.contextmanager
def step(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Times a part of the job."""
    started = time.monotonic()
    yield
    seconds[name] = time.monotonic() - started


def plain_settings(config: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON knows them: paths as text, what is unbounded as `None`."""
    return plain_json(dataclasses.asdict(config))


def fingerprint(config: Any, *, without: Collection[str]) -> str:
    """Names the settings that a checkpoint depends on: all but those of `without`."""
    settings = {name: str(v) for name, v in dataclasses.asdict(config).items() if name not in without}
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]


def device_names() -> str:
    """The devices of this machine, for instance `8 × TPU v5 lite`."""
    devices = jax.devices()
    return f"{len(devices)} × {devices[0].device_kind} ({devices[0].platform})"
