"""Checks many random networks and says what was found.

    python -m tests.transforms.fuzz --number 10000 --workers 2

About a second of one core a network. The report has the share of networks that are understood fully,
what is wrong, refused or unknown and how often, and the smallest network that shows each fault. With
`--results FILE`, what is done is kept there, a line a network, and a run that was ended goes on.
"""

import argparse
import collections
import dataclasses
import functools
import gc
import json
import logging
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax

from tests.transforms.check_network import check
from tests.transforms.network_case import Degenerate, Finding
from tests.transforms.network_graph import Network
from tests.transforms.random_networks import draw, shrunk

CHUNK = 10
CHUNKS_A_PROCESS = 60  # before its memory is given back
CHUNKS_A_CACHE = 5
EVERY = 20  # a network whose outputs are also compared after compiling


@dataclasses.dataclass(frozen=True)
class Checked:
    seed: int
    findings: tuple[Finding, ...]
    num_ops: int
    is_degenerate: bool = False


def checked(seed: int) -> Checked:
    """Draws and checks the network of a seed."""
    network = draw(seed)
    try:
        findings = check(network, compiled=seed % EVERY == 0)
    except Degenerate:
        return Checked(seed, (), len(network.ops), is_degenerate=True)
    return Checked(seed, tuple(findings), len(network.ops))


def _kept(path: Path | None) -> list[Checked]:
    lines = path.read_text().splitlines() if path is not None and path.exists() else []
    found = map(json.loads, lines)
    return [Checked(**{**r, "findings": tuple(Finding(**f) for f in r["findings"])}) for r in found]


def _keep(path: Path | None, results: list[Checked]) -> None:
    if path is not None:
        with path.open("a") as file:
            file.writelines(json.dumps(dataclasses.asdict(result)) + "\n" for result in results)


def _prepare() -> None:
    """A process that traces much: it looks for garbage less often, and never in what was imported."""
    logging.disable(logging.WARNING)
    gc.freeze()
    gc.set_threshold(200_000, 50, 100)


def _checked_chunk(seeds: list[int]) -> list[Checked]:
    if seeds[0] // CHUNK % CHUNKS_A_CACHE == 0:
        jax.clear_caches()
    return [checked(seed) for seed in seeds]


def shows(kind: str, what: str, network: Network) -> bool:
    """Whether a network has such a finding."""
    try:
        return any((f.kind, f.what) == (kind, what) for f in check(network))
    except Degenerate:
        return False


def _smallest(found: tuple[int, str, str]) -> str:
    seed, kind, what = found
    network = shrunk(draw(seed), functools.partial(shows, kind, what))
    details = [str(f) for f in check(network) if (f.kind, f.what) == (kind, what)]
    return "\n".join([f"--- seed {seed}", *details[:1], str(network), ""])


def report(results: list[Checked]) -> str:
    """The shares, and a table of what was found with the first seeds that show it."""
    good = [r for r in results if not r.is_degenerate]
    shares: collections.Counter[str] = collections.Counter()
    seeds: dict[tuple[str, str], list[int]] = collections.defaultdict(list)
    examples: dict[tuple[str, str], str] = {}
    for result in good:
        kinds = {f.kind for f in result.findings}
        shares["understood fully"] += not kinds
        shares.update(kinds)
        for found, detail in {(f.kind, f.what): f.detail for f in result.findings}.items():
            seeds[found].append(result.seed)
            examples.setdefault(found, detail[:150])
    ops = [r.num_ops for r in good]
    lines = [
        f"{len(good)} networks of {min(ops)} to {max(ops)} operations ({sum(ops) / len(ops):.1f} on average)"
    ]
    for name in ("understood fully", "wrong", "refused", "unknown"):
        lines.append(f"{name:20} {shares[name]:6}  {shares[name] / len(good):7.2%}")
    for (kind, what), those in sorted(
        seeds.items(), key=lambda item: (item[0][0] != "wrong", item[0][0], -len(item[1]))
    ):
        where = f"(seeds {', '.join(map(str, those[:4]))})"
        lines.append(f"{len(those):6}  {kind:8} {what}  {where}  {examples[kind, what]}")
    return "\n".join(lines)


def main(arguments: Any = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000, help="of networks")
    parser.add_argument("--first", type=int, default=0, help="seed")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--shrink", type=int, default=10, help="how many faults are shrunk to a small network"
    )
    parser.add_argument("--results", type=Path, default=None, help="a file, JSON lines")
    options = parser.parse_args(arguments)
    results = [r for r in _kept(options.results) if options.first <= r.seed < options.first + options.number]
    left = sorted(set(range(options.first, options.first + options.number)) - {r.seed for r in results})
    chunks = [left[i : i + CHUNK] for i in range(0, len(left), CHUNK)]
    start = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.workers, _prepare, maxtasksperchild=CHUNKS_A_PROCESS) as pool:
        for done in pool.imap_unordered(_checked_chunk, chunks):
            results += done
            _keep(options.results, done)
            if len(results) % 200 < CHUNK:
                wrong = sum(any(f.kind == "wrong" for f in r.findings) for r in results)
                print(
                    f"{len(results)} of {options.number}, {wrong} wrong, {time.monotonic() - start:.0f} s",
                    flush=True,
                )
        results.sort(key=lambda r: r.seed)
        print(report(results), flush=True)
        faults = {
            (f.kind, f.what): r.seed for r in reversed(results) for f in r.findings if f.kind != "unknown"
        }
        ordered = sorted(faults.items(), key=lambda item: item[0][0] != "wrong")[: options.shrink]
        for text in pool.imap(_smallest, [(seed, *what) for what, seed in ordered]):
            print(text, flush=True)
    return int(any(f.kind == "wrong" for r in results for f in r.findings))


if __name__ == "__main__":
    raise SystemExit(main())
