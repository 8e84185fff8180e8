"""Speed of two workarounds for XLA's CPU backend: `fast_gradients` in training, `fast_in_loops` in loops.

    python -m benchmarks.loops                     64 px, training at batch 64, 25 gradients at batch 20
    python -m benchmarks.loops --num-samples 4 --batch-size 4

Prints a row a variant: seconds a call (median of the repetitions, all variants in turn, so that other work on
the machine slows them alike) and seconds to compile. "barrier" hides the weights from XLA inside the loop by
`jax.lax.optimization_barrier`; "unrolled" has no loop.
"""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from vexplain._text import aligned
from vexplain.classifiers import build_small, small
from vexplain.transforms import fast_in_loops

NUM_CLASSES = 6


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    networks: tuple[str, ...] = ("flower_net", "all_conv_net")
    variants: tuple[str, ...] = ("plain", "barrier", "fast_in_loops", "unrolled")
    size: int = 64
    batch_size: int = 20  # of the averaged gradients
    num_samples: int = 25
    training_batch_size: int = 64
    repetitions: int = 3


def main(config: Config) -> None:
    """Prints the table."""
    for network in config.networks:
        training = {name: training_step(config, network, name) for name in ("fast_gradients", "plain")}
        show(f"{network}: training step", training, config.repetitions)
        loops = {name: averaged_gradient(config, network, name) for name in config.variants}
        show(f"{network}: mean of {config.num_samples} gradients", loops, config.repetitions)


def training_step(config: Config, network: str, variant: str) -> tuple[Any, float]:
    """One step of SGD with momentum, by our derivatives or those of XLA, compiled."""
    ours = small.convolution, small.max_pool
    if variant == "plain":
        small.convolution, small.max_pool = jax.lax.conv_general_dilated, plain_max_pool
    apply, variables = build_small(network, NUM_CLASSES, image_size=config.size)
    images = drawn(config.training_batch_size, config.size)
    labels = jnp.arange(len(images)) % NUM_CLASSES
    optimizer = optax.sgd(1e-3, momentum=0.9)

    def loss(variables, images):
        return optax.softmax_cross_entropy_with_integer_labels(apply(variables, images), labels).mean()

    def step(variables, opt_state, images):
        updates, opt_state = optimizer.update(jax.grad(loss)(variables, images), opt_state)
        return optax.apply_updates(variables, updates), opt_state

    found = compiled(step, variables, optimizer.init(variables), images)
    small.convolution, small.max_pool = ours
    return found


def plain_max_pool(x: jax.Array) -> jax.Array:
    """The maximum over windows of 2 × 2 pixels, with the derivative of XLA."""
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def averaged_gradient(config: Config, network: str, variant: str) -> tuple[Any, float]:
    """The mean gradient over copies of the images, one after the other, compiled."""
    apply, variables = build_small(network, NUM_CLASSES, image_size=config.size)
    images, count = drawn(config.batch_size, config.size), config.num_samples

    def mean(variables, images):
        def sample(n):
            hidden = jax.lax.optimization_barrier(variables) if variant == "barrier" else variables
            return jax.grad(lambda x: apply(hidden, x).max(-1).sum())(images * (n + 0.5) / count)

        body = fast_in_loops(sample) if variant == "fast_in_loops" else sample
        total, unroll = jnp.zeros_like(images), variant == "unrolled"
        return jax.lax.fori_loop(0, count, lambda n, total: total + body(n), total, unroll=unroll) / count

    return compiled(mean, variables, images)


def drawn(batch_size: int, size: int) -> jax.Array:
    """Images of noise."""
    return jax.random.uniform(jax.random.key(0), (batch_size, size, size, 3))


def compiled(fn: Any, *arguments: Any) -> tuple[Any, float]:
    """A function without arguments that runs `fn` to its end, and the seconds that compiling took."""
    started = time.perf_counter()
    program = jax.jit(fn).lower(*arguments).compile()
    return lambda: jax.block_until_ready(program(*arguments)), time.perf_counter() - started


def show(title: str, calls: dict[str, tuple[Any, float]], repetitions: int) -> None:
    """Runs all in turn and prints the medians."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repetition in range(repetitions + 1):
        for name, (call, _) in calls.items():
            started = time.perf_counter()
            call()
            if repetition:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    slowest = max(map(np.median, seconds.values()))
    rows = [
        [name, f"{np.median(taken):.3f}", f"{slowest / np.median(taken):.1f}", f"{calls[name][1]:.1f}"]
        for name, taken in seconds.items()
    ]
    print(f"{title}\n{aligned(['variant', 'seconds', 'times as fast', 'to compile'], rows)}\n", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.loops"))
