"""Seconds of the two steps that find relevant features: the pass that sums G = Σ x xᵀ, and the mu-lasso.

    python -m benchmarks.relevance                                        m = 5,696, as VGG-16 has
    python -m benchmarks.relevance --num-images 2000 --num-features 1500

The pass is `gram_statistics` of the library over responses that are on the device already, in batches, beside
the plain matrix product XᵀX of all of them, which is the least that there is to do: once in float32, and once
as the device multiplies by default, which on a GPU is with 10 bits of each number. The error is that of 64
rows of G against float64, relative to the largest number of G. The mu-lasso runs on the host and on the
device, all classes at once, beside the path of scikit-learn's LARS on the same G down to the same penalty,
for a few classes. `benchmarks.rivals` compares it with other solvers.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from vexplain._text import aligned
from vexplain.relevance import gram_statistics, mu_lasso
from vexplain.streaming.devices import best_precision

_CHECKED = 64  # rows of G that are compared with float64
_NUM_CAUSES = 64  # of responses and classes


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    num_images: int = 20_000
    num_features: int = 5696  # the convolutions and pooled maps of VGG-16
    num_classes: int = 100
    batch_sizes: tuple[int, ...] = (64, 512)
    repetitions: int = 3  # the median counts
    designs: tuple[tuple[int, int], ...] = ((1500, 10), (5696, 100))  # features and classes of the mu-lasso
    mu: float = 0.1  # so small that it bounds most classes
    num_lars: int = 3  # classes that scikit-learn solves too


def main(config: Config) -> None:
    """Prints both tables."""
    shown = [[row["pass"], *_figures(row, ("first", "seconds", "tflops", "error"))] for row in passes(config)]
    print(aligned(["pass over the images", "first, s", "later, s", "TFLOP/s", "error"], shown), "\n")
    names = ("features", "classes", "seconds", "device_seconds", "gap", "num_relevant")
    names += ("lars_seconds", "difference")
    shown = [_figures(row, names) for row in solutions(config)]
    header = ["features", "classes", "host, s", "device, s", "gap", "relevant, a class"]
    header += ["LARS, s a class", "difference"]
    print(aligned(header, shown))


def passes(config: Config) -> Iterator[dict[str, Any]]:
    """Yields a row a way to sum G: seconds of the first and of later calls, TFLOP/s, error."""
    count, m = config.num_images, config.num_features
    padded = -(-count // max(config.batch_sizes)) * max(config.batch_sizes)
    responses, logits = _drawn(padded, m, config.num_classes)
    weights = (jnp.arange(padded) < count).astype(jnp.float32)
    responses *= weights[:, None]
    doubled = np.asarray(responses, np.float64)
    expected = doubled[:, :_CHECKED].T @ doubled
    del doubled

    def row(name: str, run: Callable[[], Any], sums: Callable[[Any], np.ndarray]) -> dict[str, Any]:
        first, later, found = timed(run, config.repetitions)
        error = np.abs(sums(found) - expected).max() / expected.max()
        return {"pass": name, "first": first, "seconds": later, "error": float(error)} | {
            "tflops": 2 * count * m**2 / later / 1e12
        }

    for name, precision in (("plain product, float32", "highest"), ("plain product, default", None)):
        product = jax.jit(functools.partial(_product, precision=precision))
        run = functools.partial(product, responses, responses)
        yield row(name, run, lambda gram: np.asarray(gram[:_CHECKED], np.float64))
    arrays = responses, logits, weights  # arguments: what a program closes over is copied into it
    best = best_precision()
    ways: list[tuple[int, Any]] = [(size, best) for size in config.batch_sizes]
    if jax.default_backend() != "tpu":  # which has no float64
        ways.append((max(config.batch_sizes), "float32" if best == "float64" else "float64"))
    for batch_size, precision in ways:
        init, update, finish = gram_statistics(_as_drawn, m, config.num_classes, precision=precision)

        @functools.partial(jax.jit, donate_argnums=0)
        def step(state, start, arrays, batch_size=batch_size, update=update):
            images, logits, weights = (jax.lax.dynamic_slice_in_dim(x, start, batch_size) for x in arrays)
            return update(state, {"images": images, "weights": weights}, logits)

        def run(step=step, batch_size=batch_size, init=init):
            state = init()
            for start in range(0, count, batch_size):
                state = step(state, start, arrays)
            return state

        yield row(
            f"gram_statistics, batch {batch_size}, {precision}",
            run,
            lambda state, finish=finish: finish(state).gram[:_CHECKED],
        )


def _as_drawn(logits: Any, responses: Any) -> tuple[Any, Any]:
    return responses, logits


def solutions(config: Config) -> Iterator[dict[str, Any]]:
    """Yields a row a design: seconds on host and device, gap and size of the solution, and LARS."""
    for m, num_classes in config.designs:
        count = min(config.num_images, 4 * m)
        responses, logits = _drawn(count, m, num_classes)
        indicators = jax.nn.one_hot(logits.argmax(1), num_classes)
        gram, cross = (
            np.asarray(_product(responses, x, precision="highest"), np.float64)
            for x in (responses, indicators)
        )
        counts = np.asarray(indicators.sum(0), np.float64)
        kept = counts > 0
        solve = functools.partial(mu_lasso, gram, cross[:, kept], counts[kept], mu=config.mu)
        first, seconds, found = timed(solve, 1)
        _, device_seconds, _ = timed(functools.partial(solve, solver="device"), 1)
        yield {
            "features": m,
            "classes": int(kept.sum()),
            "mu": config.mu,
            "first": first,
            "seconds": seconds,
            "device_seconds": device_seconds,
            "gap": float(found.gaps.max()),
            "num_relevant": float((found.weights > 0).sum(0).mean()),
        } | _lars(config, gram, cross[:, kept], found, count)


def timed(run: Callable[[], Any], repetitions: int) -> tuple[float, float, Any]:
    """Seconds of the first call, the median of later ones, and what the last one returned."""
    seconds, found = [], None
    for _ in range(1 + repetitions):
        del found
        started = time.perf_counter()
        found = jax.block_until_ready(run())
        seconds.append(time.perf_counter() - started)
    return seconds[0], float(np.median(seconds[1:])), found


def _product(x: jax.Array, y: jax.Array, *, precision: str | None) -> jax.Array:
    return jnp.matmul(x.T, y, precision=precision)


def _lars(config: Config, gram: np.ndarray, cross: np.ndarray, found: Any, count: int) -> dict[str, Any]:
    """Seconds a class of scikit-learn, and how far its weights are from ours."""
    try:
        from sklearn.linear_model import lars_path_gram
    except ImportError:
        return {"lars_seconds": None, "difference": None}
    bounded = np.flatnonzero(found.penalties)[: config.num_lars]
    seconds, differences = [], []
    for j in bounded:
        started = time.perf_counter()
        options = {"method": "lasso", "positive": True, "return_path": False}
        alpha = found.penalties[j] / (2 * count)
        weights = lars_path_gram(cross[:, j], gram, n_samples=count, alpha_min=alpha, **options)[2]
        seconds.append(time.perf_counter() - started)
        differences.append(np.abs(weights - found.weights[:, j]).max() / found.weights[:, j].max())
    if not seconds:
        return {"lars_seconds": None, "difference": None}
    return {"lars_seconds": float(np.median(seconds)), "difference": float(max(differences))}


def _drawn(count: int, num_features: int, num_classes: int) -> tuple[jax.Array, jax.Array]:
    """Responses that are never negative, and logits, both of the same hidden causes: dozens are relevant."""
    keys = jax.random.split(jax.random.key(0), 4)
    causes = jax.random.normal(keys[0], (count, _NUM_CAUSES))
    mixed = causes @ jax.random.normal(keys[1], (_NUM_CAUSES, num_features)) / math.sqrt(_NUM_CAUSES)
    noise = jax.random.normal(keys[2], (count, num_features))
    return jax.nn.relu(mixed + noise / 2), causes @ jax.random.normal(keys[3], (_NUM_CAUSES, num_classes))


def _figures(row: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return ["" if row[name] is None else f"{row[name]:.3g}" for name in names]


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.relevance"))
