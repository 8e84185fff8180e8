"""Tests of the library on the device at hand, for `benchmarks.device`: which pass, which fail, and why.

Tests that ask for the last bits of float32 may fail where a device multiplies with fewer of them. Those that
fail run again with products in full float32, which tells the two kinds of failures apart.
"""

import collections
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def run_tests(
    tests: Sequence[str], *, folder: Path, seconds: float, workers: int, platform: str
) -> Iterator[dict[str, Any]]:
    """Yields the outcomes of tests, and again when those that failed have run a second time.

    Args:
        tests: files, folders or names of tests.
        folder: for the list of outcomes.
        seconds: that all may take; a fifth of it is kept for the second time.
        workers: processes; 0 for this one's child alone.
        platform: for `JAX_PLATFORMS`.

    Raises:
        RuntimeError: no test ran.
    """
    end = time.monotonic() + seconds
    ended, lines = _pytest(tests, folder / "outcomes.jsonl", workers, platform, 0.8 * seconds)
    if not lines and ended["in_time"]:
        raise RuntimeError(f"no test ran: pytest ended with status {ended['exit']}; its output is in the log")
    counts: dict[str, collections.Counter] = {}
    for line in lines:
        counts.setdefault(line["test"].partition("::")[0], collections.Counter())[line["outcome"]] += 1
    failures = [{k: line[k] for k in ("test", "error")} for line in lines if line["outcome"] == "failed"]
    files = {name: dict(found) for name, found in sorted(counts.items())}
    result: dict[str, Any] = ended | {"files": files, "failures": failures}
    yield result
    if failures and (left := end - time.monotonic()) > 10:
        names = [failure["test"] for failure in failures]
        again, log = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}, folder / "again.jsonl"
        _, lines = _pytest(names, log, min(workers, len(names)), platform, left, **again)
        outcomes = {line["test"]: line["outcome"] for line in lines}
        for failure in failures:
            failure["in_float32"] = outcomes.get(failure["test"])
        yield result


def _pytest(
    tests: Sequence[str], log: Path, workers: int, platform: str, seconds: float, **environment: str
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Runs tests, and says how that ended and the outcome of each that ran."""
    log.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "benchmarks.outcomes",
        "-p",
        "no:benchmark",  # where pytest-benchmark is installed: it warns of workers, and warnings are errors
        "--tb=line",
        "--continue-on-collection-errors",
        *tests,
    ]
    command += ["-n", str(workers)] if workers else []
    settings = {
        "OUTCOMES": str(log.absolute()),
        "VEXPLAIN_TEST_PLATFORM": platform,
    }
    if platform != "cpu":
        command += ["-k", "not eight_devices"]  # there are eight of a CPU only
        settings["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "0"  # what users run
    if platform.startswith("cuda"):  # many small programs, each of which runs once
        settings["VEXPLAIN_TEST_XLA_FLAGS"] = "--xla_gpu_autotune_level=0"
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings, **environment})
    try:
        ended = {"exit": process.wait(timeout=max(seconds, 1)), "in_time": True}
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
        ended = {"exit": None, "in_time": False}
    lines = log.read_text().splitlines() if log.exists() else []
    return ended, [json.loads(line) for line in lines]
