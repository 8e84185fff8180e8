"""What a borrowed accelerator is for: all that this project wants to know of one, in 10 minutes or less.

    make device                                                     one GPU; leaves runs/device/device.json
    python -m benchmarks.device accelerator --parts checks methods  some of it
    python -m benchmarks.device smoke                               does it run? minutes on 2 CPU cores
    python -m benchmarks.device tables runs/device/device.json      the tables of the documentation, from it

Parts, most valuable first: `checks` (numeric tests of the library on the device), `methods` (images a second
of every method), `explain_vgg16` (VGG-16 beside Captum, where PyTorch and Captum are installed), `statistics`
(the pass that sums G = Σ x xᵀ beside the plain product), `solver` (the mu-lasso beside LARS), `an8flower`
(the main job at 112 px), `shape_translation` (the full model at 64 px, for the time that is left),
`appearance_translation` (ways to carry texture, at equal time), `first_calls` (of every method on ResNet-18).

Each part is a process with a limit in time. Its results are in the JSON file as soon as they are known, and a
part that fails or runs out of time is noted there and does not stop the next. A second call does what is
missing; it trains shape translation further where the folder `work` is still there. The exit status is 1
where a part failed or ran out of time.
"""

import contextlib
import dataclasses
import importlib.metadata
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tyro

from benchmarks.device_checks import ROOT
from benchmarks.device_parts import PARTS
from benchmarks.device_tables import tables
from vexplain._files import read_json, write_json

LIMITS = {  # seconds of a part; the last ones take what is left
    "checks": 140,
    "methods": 80,
    "explain_vgg16": 200,
    "statistics": 45,
    "solver": 45,
    "an8flower": 200,
    "shape_translation": 400,
    "appearance_translation": 560,
    "first_calls": 120,
}
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch", "captum", "scikit-learn")
_LEAST = 15  # seconds with which a part is still begun


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the run."""

    preset: tyro.conf.Fixed[str]
    out: Path = Path("runs/device")  # device.json, log.txt and two reports
    work: Path = Path("runs/device-work")  # checkpoints and compiled programs; gigabytes
    parts: tuple[str, ...] = tuple(PARTS)
    minutes: float = 9.5  # of all parts together
    again: bool = False  # parts that are done, too
    commit: str = ""  # where there is no git to ask

    def __post_init__(self):
        if unknown := [name for name in self.parts if name not in PARTS]:
            raise ValueError(f"parts has {unknown[0]!r}: expected some of {', '.join(PARTS)}")
        if not self.minutes > 0:
            raise ValueError(f"minutes is {self.minutes}: expected more than 0")


PRESETS = {
    "smoke": ("Does everything run? Minutes on 2 CPU cores.", Config("smoke", Path("runs/device-smoke"))),
    "accelerator": ("What the documentation publishes, on one GPU.", Config("accelerator")),
}


def main(config: Config) -> int:
    """Runs the parts and returns the exit status."""
    end = time.monotonic() + 60 * config.minutes
    file = config.out / "device.json"
    record: dict[str, Any] = read_json(file) or {"parts": {}}
    record |= {"preset": config.preset, "host": _host()}
    commit = config.commit or _commit()
    bad = []
    for name in config.parts:
        before = record["parts"].get(name, {})
        if before.get("status") == "done" and not config.again:
            continue
        seconds = min(LIMITS[name], end - time.monotonic())
        if seconds < _LEAST:
            bad.append(name)
            print(f"{name}: not begun, no time is left", flush=True)
            continue
        for part in _measured(config, name, seconds):
            record["parts"][name] = part | {"commit": commit}
            write_json(file, record)
        part = record["parts"][name]
        bad += [name] if part["status"] not in ("done", "to be continued") else []
        print(f"{name}: {part['status']}, {part['seconds']:.0f} s  {part.get('error', '')}", flush=True)
    print(f"\n{tables(record)}\n{file}" + (f"; not done: {', '.join(bad)}" if bad else ""), flush=True)
    return int(bool(bad))


def _measured(config: Config, name: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Runs a part in a process, and yields what is known of it whenever that changes, and at its end."""
    work, out = (path.absolute() for path in (config.work / name, config.out))
    for folder in (work, out):
        folder.mkdir(parents=True, exist_ok=True)
    result = work.with_suffix(".json")
    result.unlink(missing_ok=True)
    arguments = [name, config.preset, work, out, f"{seconds:.0f}", result]
    command = [sys.executable, "-m", "benchmarks.device_parts", *map(str, arguments)]
    started, known = time.monotonic(), None
    with open(config.out / "log.txt", "ab") as log:
        start = log.tell()
        with _process(command, log) as process:
            while process.poll() is None and time.monotonic() - started < seconds:
                time.sleep(0.2)
                if (found := read_json(result)) != known:
                    known = found
                    yield {"status": "running", "seconds": time.monotonic() - started, "result": known}
    known = read_json(result) or {}
    for key, path in known.pop("read_after", {}).items():
        known[key] = read_json(Path(path))
    part: dict[str, Any] = {"status": "done", "seconds": time.monotonic() - started, "result": known}
    if part["seconds"] >= seconds or not known.get("in_time", True):
        part["status"] = "out of time"
    elif process.returncode or not known.pop("is_complete", False):
        part |= {"status": "failed", "error": _last_line(config.out / "log.txt", start)}
    elif known.get("continues"):
        part["status"] = "to be continued"
    yield part


@contextlib.contextmanager
def _process(command: list[str], log: Any) -> Iterator[subprocess.Popen]:
    """A process whose children end with it, also where this one is ended."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_line(log: Path, start: int) -> str:
    """What a part said last: the error."""
    lines = log.read_bytes()[start:].decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else "it said nothing"


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    return "unknown"


def _host() -> dict[str, Any]:
    versions = {}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if sys.argv[1:2] == ["tables"]:
        print(tables(read_json(Path(sys.argv[2])) or {"parts": {}}))
    else:
        sys.exit(main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m benchmarks.device")))
