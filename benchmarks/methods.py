"""How many images a second each method explains, by the network for an8Flower.

    python -m benchmarks.methods                     112 px, batch 64, as the accelerator preset does
    python -m benchmarks.methods --size 64 --batch-size 20

Prints a row a method: images a second (best of the repetitions, after compilation) and the seconds that
compiling took. Weights are random and the features of each class are drawn: neither changes the cost.
SmoothGrad and integrated gradients take 25 gradients, occlusion a window of an eighth at steps of half that.
"""

import dataclasses
import time

import jax
import numpy as np
import tyro

from vexplain._text import aligned
from vexplain.classifiers import build_small
from vexplain.evaluation import methods_for
from vexplain.relevance import Relevance, default_layers, layout_of, layout_size
from vexplain.transforms import layers

NUM_CLASSES, NUM_RELEVANT = 6, 4


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    network: str = "flower_net"
    size: int = 112
    batch_size: int = 64
    repetitions: int = 3
    names: tuple[str, ...] | None = None  # all methods, if left out


def main(config: Config) -> dict[str, float]:
    """Prints the table, and returns images a second by method."""
    apply, variables = build_small(config.network, NUM_CLASSES, image_size=config.size)
    images = jax.random.uniform(jax.random.key(0), (config.batch_size, config.size, config.size, 3))
    table = layers(apply, variables, images[:1])
    keys = jax.random.split(jax.random.key(1), config.batch_size)
    targets = apply(variables, images).argmax(-1)
    methods = methods_for(apply, table, drawn_relevance(table), names=config.names)
    rates, rows = {}, []
    for name, method in methods.items():
        compiled = jax.jit(method)
        first = seconds_of(compiled, variables, images, targets, keys)
        best = min(seconds_of(compiled, variables, images, targets, keys) for _ in range(config.repetitions))
        rates[name] = config.batch_size / best
        rows.append([name, f"{rates[name]:.1f}", f"{max(first - best, 0):.1f}"])
        print(*rows[-1], sep="  ", flush=True)
    device = jax.devices()[0].device_kind
    print(f"\n{config.network}, {config.size} px, batch {config.batch_size}, {device}\n")
    print(aligned(["method", "images a second", "seconds to compile"], rows))
    return rates


def drawn_relevance(table) -> Relevance:
    """A few features of each class, with weights of a third."""
    layout = layout_of(default_layers(table))
    weights = np.zeros((layout_size(layout), NUM_CLASSES))
    random = np.random.default_rng(0)
    for label in range(NUM_CLASSES):
        weights[random.choice(len(weights), NUM_RELEVANT, replace=False), label] = 1 / 3
    zeros = np.zeros(NUM_CLASSES)
    return Relevance(weights, zeros, zeros, 2.0, layout, tuple(f"class {n}" for n in range(NUM_CLASSES)))


def seconds_of(compiled, *arguments) -> float:
    """How long one call takes, on the device to its end."""
    started = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    return time.perf_counter() - started


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.methods"))
