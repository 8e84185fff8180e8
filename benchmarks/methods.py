"""How many images a second each method explains, called as documented.

    python -m benchmarks.methods                     112 px, batch 64, as the accelerator preset does
    python -m benchmarks.methods --size 64 --batch-size 20

    python -m benchmarks.methods --network resnet18 --size 64 --batch-size 1
    python -m benchmarks.methods --network resnet50 --size 224 --batch-size 4 --repetitions 1

Prints a row a method: seconds and compilations of the first call, those of the second call with other
images, images a second (best of the repetitions), and on Linux how much the resident set of the process
grows at most in the second call. Weights are random and the features of each class are drawn: neither
changes the cost. SmoothGrad, integrated and expected gradients take 25 gradients, occlusion a window of an
eighth at steps of half that; RISE, LIME and KernelSHAP take 250 masks, and Shapley sampling 4 orders of 64
patches.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from vexplain._text import aligned
from vexplain.catalog import METHODS, as_methods, with_options
from vexplain.classifiers import SMALL_NAMES, build, build_small
from vexplain.relevance import Relevance, default_layers, layout_of, layout_size
from vexplain.transforms import layers

NUM_CLASSES, NUM_RELEVANT = 6, 4
COMPILED = "/jax/core/compile/backend_compile_duration"
_LARGEST = Path("/proc/self/clear_refs")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    network: str = "flower_net"
    size: int = 112
    batch_size: int = 64
    repetitions: int = 3
    methods: tuple[str, ...] | None = None  # all, if left out


def main(config: Config) -> dict[str, float]:
    """Prints the table, and returns images a second by method."""
    rows = []
    for row in measurements(config):
        shown = [row["method"], f"{row['first']:.2f}", str(row["compilations"]), f"{row['second']:.3f}"]
        memory = "" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}"
        rows.append([*shown, str(row["compilations_again"]), f"{row['images_per_second']:.3g}", memory])
        print(*rows[-1], sep="  ", flush=True)
    device = jax.devices()[0].device_kind
    print(f"\n{config.network}, {config.size} px, batch {config.batch_size}, {device}\n")
    header = ["method", "first call, s", "compilations", "second call, s", "compilations", "images a second"]
    header.append("memory, MB")
    print(aligned(header, rows))
    return {row[0]: float(row[5]) for row in rows}


def measurements(config: Config) -> Iterator[dict[str, Any]]:
    """Yields a row a method when it is known: seconds and compilations of two calls, images a second."""
    apply, variables, num_classes = network(config)
    shape = (config.batch_size, config.size, config.size, 3)
    images = [np.random.default_rng(n).random(shape, np.float32) for n in range(2)]
    table = layers(apply, variables, jax.ShapeDtypeStruct(shape, np.float32))
    options = {"relevance": drawn_relevance(table, num_classes), "num_samples": 25, "num_steps": 25}
    options |= {"num_masks": 250, "num_permutations": 4}
    methods = with_options(
        as_methods(config.methods), **options, on_uncovered="gradient", on_unmatched="ignore"
    )
    compiled: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: compiled.append(duration_secs) if event == COMPILED else None
    )
    for name, method in methods.items():
        given = {"key": jax.random.key(0)} if "key" in METHODS[name].needs else {}
        calls, memory = [], None
        for call, n in enumerate((0, 1, *[1] * config.repetitions)):
            compiled.clear()
            before = _reset_largest() if call == 1 else None
            calls.append((seconds_of(method, apply, variables, images[n], **given), len(compiled)))
            memory = memory if before is None else (_resident("VmHWM") - before) / 2**10
        (first, num_first), (second, num_second), *rest = calls
        yield {
            "method": name,
            "first": first,
            "compilations": num_first,
            "second": second,
            "compilations_again": num_second,
            "images_per_second": config.batch_size / min(seconds for seconds, _ in rest),
            "memory_mb": memory,
        }


def network(config: Config):
    """Function, variables and number of classes."""
    if config.network in SMALL_NAMES:
        return *build_small(config.network, NUM_CLASSES, image_size=config.size), NUM_CLASSES
    return *build(config.network)[:2], 1000


def drawn_relevance(table, num_classes: int) -> Relevance:
    """A few features of each class, with weights of a third."""
    layout = layout_of(default_layers(table))
    weights = np.zeros((layout_size(layout), num_classes))
    random = np.random.default_rng(0)
    for label in range(num_classes):
        weights[random.choice(len(weights), NUM_RELEVANT, replace=False), label] = 1 / 3
    zeros = np.zeros(num_classes)
    return Relevance(weights, zeros, zeros, 2.0, layout, tuple(f"class {n}" for n in range(num_classes)))


def seconds_of(method, *arguments, **options) -> float:
    """How long one call takes, on the device to its end."""
    started = time.perf_counter()
    jax.block_until_ready(method(*arguments, **options))
    return time.perf_counter() - started


def _reset_largest() -> float | None:
    """The resident set, kB, which is now the largest one too; `None` where no Linux counts it."""
    if not _LARGEST.exists():
        return None
    _LARGEST.write_text("5")
    return _resident("VmRSS")


def _resident(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name)))


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.methods"))
