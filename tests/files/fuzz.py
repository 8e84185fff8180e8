"""Damages small valid files of every format that is read, and reads them.

    python -m tests.files.fuzz --number 1000                 mutations of every format
    python -m tests.files.fuzz --formats png hdf5 --first 400

Each ends in a result or in an error that names the file, in 5 seconds of CPU time and 500 MB. Files are read
in a child process, so that a crash is found and not suffered. Of a checkpoint, one of its files is damaged.
"""

import argparse
import collections
import logging
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tests.files.formats import FORMATS, Format

Job = tuple[str, int]  # a format and the seed of a mutation
SECONDS, BYTES = 5, 500 * 10**6
_EXTREME = (0, 1, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1)


def damaged(content: bytes, seed: int) -> bytes:
    """A mutation: bits, bytes or numbers changed, a piece cut out, repeated or put elsewhere."""
    rng = np.random.default_rng(seed)
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(0, max(len(found), 1)))
        length = int(rng.integers(1, 1 + max(len(found) // 4, 1)))
        match int(rng.integers(0, 7)):
            case 0 if found:
                found[place] ^= 1 << int(rng.integers(0, 8))
            case 1 if found:
                found[place] = int(rng.integers(0, 256))
            case 2 | 3:
                width, order = int(rng.choice([2, 4, 8])), ("little", "big")[int(rng.integers(0, 2))]
                number = _EXTREME[int(rng.integers(0, len(_EXTREME)))] % 256**width
                found[place : place + width] = number.to_bytes(width, order)
            case 4:
                del found[place : place + length]
            case 5:
                found[place:place] = found[place : place + length]
            case _:
                del found[place:]
    return bytes(found)


def outcome(form: Format, folder: Path) -> str:
    """What reading comes to: "read", "named", or what is wrong about it."""
    started = _cpu_seconds()
    try:
        form.read(folder)
        ends = "read"
    except Exception as error:
        stem = Path(form.file).name
        is_clear = isinstance(error, (ValueError, RuntimeError)) and stem in str(error)
        ends = "named" if is_clear else f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    seconds = _cpu_seconds() - started
    return ends if seconds < SECONDS else f"took {seconds:.0f} s"


def _cpu_seconds() -> float:
    """Of this process and of those that it has started: what other work the machine has does not count."""
    return sum(os.times()[:4])


def _read_all(jobs: list[Job], send: Any) -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as root:
        for name, seed in jobs:
            form, whole, folder = FORMATS[name], Path(root) / name, Path(root) / f"{name}-{seed}"
            if not whole.exists():
                whole.mkdir()
                form.write(whole)
            _copy_damaged(form, whole, folder, seed)
            send.send(((name, seed), None, 0))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            ends = outcome(form, folder)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            send.send(((name, seed), ends, grown))
            shutil.rmtree(folder)


def _copy_damaged(form: Format, whole: Path, folder: Path, seed: int) -> None:
    files = sorted(path for path in whole.rglob("*") if path.is_file())
    targets = [path for path in files if path.relative_to(whole).parts[0] == form.file]
    target = targets[seed % len(targets)]
    for path in files:
        to = folder / path.relative_to(whole)
        to.parent.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        to.write_bytes(damaged(content, seed) if path == target else content)


def results(jobs: list[Job]) -> dict[Job, str]:
    """How reading ended, by format and seed; a new process goes on after one that died."""
    found: dict[Job, str] = {}
    left = list(jobs)
    context = multiprocessing.get_context("spawn")
    while left:
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=_read_all, args=(left, send))
        child.start()
        send.close()
        job = left[0]
        try:
            while receive.poll(60 * SECONDS):
                job, ends, grown = receive.recv()
                if ends is not None:
                    found[job] = ends if grown < BYTES else f"took {grown / 1e6:.0f} MB"
            child.kill()
            found[job] = f"took more than {60 * SECONDS} s"
        except EOFError:
            child.join()
            if child.exitcode:
                found[job] = f"the process died ({child.exitcode})"
        child.join()
        left = left[left.index(job) + 1 :]
    return found


def main(arguments: Any = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000, help="of mutations, a format")
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--formats", nargs="+", choices=sorted(FORMATS), default=sorted(FORMATS))
    options = parser.parse_args(arguments)
    fell = 0
    for name in options.formats:
        found = results([(name, options.first + n) for n in range(options.number)])
        counts = collections.Counter(
            ends if ends in ("read", "named") else "wrong" for ends in found.values()
        )
        print(
            f"{name:14} {counts['read']:6} read {counts['named']:6} named {counts['wrong']:6} wrong",
            flush=True,
        )
        for (_, seed), ends in sorted(found.items()):
            if ends not in ("read", "named"):
                fell += 1
                print(f"    seed {seed}: {ends}", flush=True)
    return 1 if fell else 0


if __name__ == "__main__":
    sys.exit(main())
