"""Layers, maps and guided gradients of the networks that JAX packages on PyPI bring, as they come.

    make zoo                                        (python -m benchmarks.zoo, in .venv-zoo)
    python -m benchmarks.zoo keras eqxvision/swin_t (only some: a package, or package/network)

Each network runs in a process of its own with a limit of time, two at once, and leaves a file in `runs/zoo`:
a run that was interrupted goes on with those that have none. In the end the table of all files is printed and
written to `runs/zoo/table.md`. Weights are random; nothing is downloaded.
"""

import concurrent.futures
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.zoo.cases import CASES, Case
from benchmarks.zoo.table import markdown

FOLDER = Path("runs/zoo")
CPU_SECONDS, SECONDS = 200, 600  # that one network may take
PROCESSES = 2
# small networks run for seconds: the time goes into compiling them
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def main(arguments: list[str]) -> int:
    """Measures what has no file yet, and writes the table."""
    if arguments[:1] == ["--measure"]:
        _measure(next(case for case in CASES if case.name == arguments[1]))
        return 0
    chosen = [c for c in CASES if not arguments or c.name in arguments or c.package in arguments]
    FOLDER.mkdir(parents=True, exist_ok=True)
    left = [case for case in chosen if not _file(case).exists()]
    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        for done, line in enumerate(pool.map(_run, left), 1):
            print(f"{done}/{len(left)}  {line}", flush=True)
    table = markdown((case, found) for case in CASES if (found := _found(case)) is not None)
    (FOLDER / "table.md").write_text(table)
    print(table)
    return 0


def _found(case: Case) -> dict[str, Any] | str | None:
    """What was measured of a network, why nothing was, or `None` where it has not been run."""
    file = _file(case)
    if file.exists():
        return json.loads(file.read_text())
    failed = file.with_suffix(".failed")
    return failed.read_text().strip().splitlines()[-1][:200] if failed.exists() else None


def _file(case: Case) -> Path:
    return FOLDER / (case.name.replace("/", "-").replace(".", "-") + ".json")


def _run(case: Case) -> str:
    started = time.monotonic()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.zoo", "--measure", case.name]
    flags = f"{os.environ.get('XLA_FLAGS', '')} {CHEAP}"
    environment = os.environ | {"XLA_FLAGS": flags, "KERAS_BACKEND": "jax"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
        failed = done.stderr[-2000:] if done.returncode else None
    except subprocess.TimeoutExpired:
        failed = f"longer than {SECONDS} s"
    if failed:
        _file(case).with_suffix(".failed").write_text(failed)
    seconds = time.monotonic() - started
    outcome = f"FAILED {failed.strip().splitlines()[-1]}" if failed else "measured"
    return f"{case.name}: {outcome} ({seconds:.0f} s)"


def _measure(case: Case) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    from benchmarks.zoo import reference

    reference.install()  # before any package is imported
    import jax

    from benchmarks.zoo import measure
    from benchmarks.zoo.packages import BUILDERS

    def build():
        return BUILDERS[case.package](case.network, case.size, **case.options)

    found = measure.by_shapes(case, build())
    if case.has_numbers:
        with jax.enable_x64(True):
            found |= measure.by_numbers(case, build())
    found |= {"case": case.name, "cpu_seconds": round(time.process_time())}
    _file(case).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
