"""Kills the command at random moments, by SIGKILL, and runs it again: results are as of an undisturbed run.

    python -m tests.command.kills --number 30

A moment is a time, or the n-th time that the process names, syncs or removes a file or a folder: so that the
windows between two files of one step are met as well. Of three runs one is killed in another setting's run on
the same folder too. All files of an undisturbed run are compared, byte by byte. Two cores take 10 minutes.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.command.runs import COLORS, HERE

ROOT = Path(__file__).parent.parent.parent
SETTINGS = (
    ["--method", "relevant_evidence", "relevant_features", "grad_cam"],
    [
        "--method",
        "relevant_features",
        "gradient",
        "--mu",
        "0.5",
        "--num-exemplars",
        "1",
        "--num-features",
        "1",
    ],
)
_RUN = """
import os, signal, sys
limit, counter = int(sys.argv[1]), [0]
def counted(function):
    def call(*given, **options):
        counter[0] += 1
        if counter[0] == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*given, **options)
    return call
from vexplain.__main__ import main
from vexplain.command import steps  # what is imported makes files of its own
for name in ("replace", "rename", "fsync", "unlink", "rmdir", "mkdir"):
    setattr(os, name, counted(getattr(os, name)))
status = main(sys.argv[2:])
print("operations:", counter[0])
sys.exit(status)
"""


def run(line: Sequence[str], folder: Path, *, operation: int = 0, seconds: float | None = None) -> str | None:
    """Returns what a run printed, or None where it was killed.

    Args:
        line: arguments of the command.
        folder: in which it runs.
        operation: on a file, at which the process ends; none if 0.
        seconds: after which it is killed.
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, str(operation), *line],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        printed, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, errors = process.communicate()
    if process.returncode == -9:
        return None
    assert process.returncode == 0, errors
    return printed


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the files of a folder of results, by name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def differences(found: Path, expected: dict[str, bytes]) -> list[str]:
    """Returns the names of files that a run should have left, and did not, or with other bytes."""
    here = contents(found)
    return [name for name, content in expected.items() if here.get(name) != content]


def _lines() -> list[list[str]]:
    shared = ["explain", "--model", f"{HERE}:sized", "--images", "images", "--out", "results"]
    shared += ["--classes", "images/classes.txt", "--num-shown", "3", "--batch-size", "4"]
    return [[*shared, *options] for options in SETTINGS]


def _write_images(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for n in range(5):
            pixels = rng.uniform(0, 0.3, (20, 24, 3))
            pixels[4:14, 3 * n : 3 * n + 12] += 0.6 * np.array(color)
            Image.fromarray((255 * pixels).astype(np.uint8)).save(root / name / f"{n}.png")
    (root / "classes.txt").write_text("red\ngreen\nblue\nnever\n")


def main(number: int, seed: int) -> int:
    """Returns how many of so many kills left something else than an undisturbed run."""
    chance, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = folder / "results"
        _write_images(folder / "images")
        lines, expected, spent, operations = _lines(), [], [], []
        for line in lines:
            run(line, folder)  # compiles
            shutil.rmtree(results)
            started = time.monotonic()
            printed = run(line, folder)
            spent.append(time.monotonic() - started)
            assert printed is not None
            operations.append(int(printed.rsplit("operations:", 1)[1]))
            expected.append(contents(results))
            shutil.rmtree(results)
        print(f"undisturbed: {spent} s, {operations} operations, {[len(e) for e in expected]} files")
        for n in range(number):
            moments = []
            for setting in (0, 1) if n % 3 == 2 else (0,):
                if n % 2:
                    moment = {"seconds": round(chance.uniform(0.3, 1) * spent[setting], 2)}
                else:
                    moment = {"operation": chance.randint(1, operations[setting])}
                was_killed = run(lines[setting], folder, **moment) is None
                moments.append(f"{moment}{'' if was_killed else ' (had ended)'}")
            run(lines[0], folder)
            wrong = differences(results, expected[0])
            failed += bool(wrong)
            print(f"{n + 1} of {number}: {', then '.join(moments)}: {wrong or 'the same bytes'}", flush=True)
            shutil.rmtree(results)
    print(f"{failed} of {number} fell")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.exit(1 if main(given.number, given.seed) else 0)
