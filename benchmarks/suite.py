"""The metrics of explanations beside those of Quantus, on the same network, images and maps, in one process.

    make suite                                     (python -m benchmarks.suite, in .venv-quantus)
    python -m benchmarks.suite --network flower_net --batch-size 64
    python -m benchmarks.suite --metrics pixel_flipping max_sensitivity

Prints a row a metric: seconds a call of each (median of the repetitions, both in turn, so that other work on
the machine slows them alike), seconds of CPU time, and how many times as fast ours is; beside it the seconds
of our first call, which compiles. Both evaluate the network equally often. The networks have random weights,
the same on both sides, and gray images, so that a pixel is what Quantus calls a feature; maps are gradients.
Where both compute the same, the largest difference of the values is shown.
"""

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import quantus
import torch
import tyro

from vexplain import attribution, evaluation
from vexplain._text import aligned

NETWORKS = {  # pixels, channels of two convolutions of 5 × 5, units of the dense layers
    "lenet": (28, (6, 16), (120, 84)),  # the network of Quantus' examples
    "flower_net": (64, (20, 50), (500,)),
}
NUM_CLASSES = 10
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
QUIET = {"disable_warnings": True, "display_progressbar": False}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    network: str = "lenet"
    batch_size: int = 64
    repetitions: int = 3
    metrics: tuple[str, ...] = ()  # all, if left out


class Case(NamedTuple):
    """The same images, classes and maps for both."""

    apply: Any
    variables: Any
    model: torch.nn.Module
    images: np.ndarray  # (batch, height, width, 1)
    targets: np.ndarray
    maps: np.ndarray  # (batch, height, width)

    @property
    def ours(self) -> tuple[Any, Any, Any, Any]:
        return self.apply, self.variables, self.images, self.targets

    def theirs(self, metric: Any, **options: Any) -> np.ndarray:
        """What a metric of Quantus returns."""
        images, maps = np.moveaxis(self.images, -1, 1), self.maps[:, None]
        batch = {"x_batch": images, "y_batch": self.targets, "a_batch": maps.copy()}
        options = {"softmax": True, "batch_size": len(images), "device": "cpu"} | options
        return np.asarray(metric(model=self.model, **batch, **options))


class Pair(NamedTuple):
    """A metric of both sides; `is_same` where the values are meant to be equal."""

    ours: Callable[[Case], Any]
    theirs: Callable[[Case], Any]
    is_same: bool = False


def main(config: Config) -> dict[str, float]:
    """Prints the table, and returns how many times as fast each metric is."""
    warnings.simplefilter("ignore")
    case = case_of(config)
    chosen = {name: pair for name, pair in PAIRS.items() if name in (config.metrics or PAIRS)}
    rows, found = [], {}
    for name, pair in chosen.items():
        first = seconds_of(lambda pair=pair: pair.ours(case))[0]
        times = [
            (*seconds_of(lambda: pair.ours(case)), *seconds_of(lambda: pair.theirs(case)))  # noqa: B023
            for _ in range(config.repetitions)
        ]
        ours, ours_cpu, theirs, theirs_cpu = np.median(times, axis=0)
        found[name] = theirs / ours
        difference = ""
        if pair.is_same:
            difference = f"{abs(np.asarray(pair.ours(case)) - np.asarray(pair.theirs(case))).max():.0e}"
        shown = [f"{ours:.3f}", f"{theirs:.3f}", f"{ours_cpu:.3f}", f"{theirs_cpu:.3f}"]
        rows.append([name, *shown, f"{theirs / ours:.1f}", f"{first:.1f}", difference])
        print(*rows[-1], sep="  ", flush=True)
    header = ["metric", "ours, s", "Quantus, s", "ours, CPU s", "Quantus, CPU s", "times as fast"]
    header += ["our first call, s", "difference"]
    versions = f"Quantus {quantus.__version__}, PyTorch {torch.__version__}, JAX {jax.__version__}"
    print(f"\n{config.network}, batch {config.batch_size}; {versions}\n\n{aligned(header, rows)}")
    return found


def case_of(config: Config) -> Case:
    """The network on both sides, and what is explained."""
    size, widths, hidden = NETWORKS[config.network]
    generator = np.random.default_rng(0)
    spatial = ((size - 4) // 2 - 4) // 2
    shapes = [(5, 5, 1, widths[0]), (5, 5, *widths)]
    shapes += list(zip((spatial * spatial * widths[1], *hidden), (*hidden, NUM_CLASSES), strict=True))
    weights = [
        generator.normal(size=s, scale=np.sqrt(2 / np.prod(s[:-1]))).astype(np.float32) for s in shapes
    ]
    images = generator.uniform(size=(config.batch_size, size, size, 1)).astype(np.float32)
    model = torch_network(weights).eval()
    logits = np.asarray(jax.jit(apply)(weights, images))
    with torch.no_grad():
        peer = model(torch.from_numpy(np.moveaxis(images, -1, 1).copy())).numpy()
    np.testing.assert_allclose(logits, peer, atol=1e-4 * abs(peer).max())
    targets = logits.argmax(1)
    maps = np.asarray(attribution.gradient(apply, weights, images, targets))[..., 0]
    return Case(apply, [jnp.asarray(w) for w in weights], model, images, targets, maps)


def apply(weights: Any, images: Any) -> jax.Array:
    """Two convolutions with ReLU and max pooling, and dense layers."""
    x = images
    for kernel in weights[:2]:
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.lax.reduce_window(jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)  # flattened as PyTorch does it
    for dense in weights[2:-1]:
        x = jax.nn.relu(x @ dense)
    return x @ weights[-1]


def torch_network(weights: Any) -> torch.nn.Module:
    """The same in PyTorch."""
    steps: list[torch.nn.Module] = []
    for kernel in weights[:2]:
        conv = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], 5, bias=False)
        conv.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        steps += [conv, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    steps.append(torch.nn.Flatten())
    for n, dense in enumerate(weights[2:]):
        linear = torch.nn.Linear(*dense.shape, bias=False)
        linear.weight.data = torch.from_numpy(dense.T.copy())
        steps += [linear] + ([torch.nn.ReLU()] if n < len(weights) - 3 else [])
    return torch.nn.Sequential(*steps)


def torch_gradient(model: Any, inputs: np.ndarray, targets: np.ndarray, **_: Any) -> np.ndarray:
    """The plain gradient, for metrics of Quantus that explain again."""
    images = torch.from_numpy(np.asarray(inputs, np.float32)).requires_grad_()
    scores = model(images)[torch.arange(len(images)), torch.from_numpy(np.asarray(targets))]
    return torch.autograd.grad(scores.sum(), images)[0].numpy()


def seconds_of(call: Callable[[], Any]) -> tuple[float, float]:
    """How long a call takes to its end, by the clock and in CPU time."""
    started, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    return time.perf_counter() - started, time.process_time() - used


def _black(case: Case) -> Any:
    return evaluation.darkest_values(case.images)


def _side(case: Case) -> int:
    return case.images.shape[1] // 7


def _num_regions(case: Case) -> int:
    return (case.images.shape[1] // _side(case)) ** 2


def _side_of_map(case: Case) -> int:
    return case.images.shape[1]


PROBABILITY = {"score": attribution.probability}
KEY = jax.random.key(0)
EXPLAINED = {"explain_func": torch_gradient, "softmax": False}
PAIRS = {
    "pixel_flipping": Pair(
        lambda c: evaluation.pixel_flipping(
            *c.ours, c.maps, pixels_per_step=_side_of_map(c), baseline=_black(c), **PROBABILITY
        ).scores[:, 1:],
        lambda c: c.theirs(quantus.PixelFlipping(features_in_step=_side_of_map(c), **QUIET)),
        is_same=True,
    ),
    "selectivity": Pair(
        lambda c: evaluation.selectivity(
            *c.ours, c.maps, regions=_side(c), baseline=_black(c), **PROBABILITY
        ).scores[:, 1:],
        lambda c: c.theirs(quantus.Selectivity(patch_size=_side(c), **QUIET)),
    ),
    "region_perturbation": Pair(
        lambda c: evaluation.region_perturbation(
            *c.ours, c.maps, regions=_side(c), num_steps=_num_regions(c), key=KEY, **PROBABILITY
        ),
        lambda c: c.theirs(
            quantus.RegionPerturbation(patch_size=_side(c), perturb_baseline="uniform", **QUIET)
        ),
    ),
    "faithfulness_estimate": Pair(
        lambda c: evaluation.faithfulness_estimate(
            *c.ours, c.maps, pixels_per_step=_side_of_map(c), baseline=_black(c), **PROBABILITY
        ),
        lambda c: c.theirs(quantus.FaithfulnessEstimate(features_in_step=_side_of_map(c), **QUIET)),
        is_same=True,
    ),
    "faithfulness_correlation": Pair(
        lambda c: evaluation.faithfulness_correlation(
            *c.ours, c.maps, key=KEY, share=0.25, num_samples=50, **PROBABILITY
        ),
        lambda c: c.theirs(
            quantus.FaithfulnessCorrelation(
                subset_size=c.maps[0].size // 4, nr_runs=50, return_aggregate=False, **QUIET
            )
        ),
    ),
    "monotonicity": Pair(
        lambda c: evaluation.monotonicity(
            *c.ours, c.maps, pixels_per_step=_side_of_map(c), baseline=_black(c), **PROBABILITY
        ),
        lambda c: c.theirs(quantus.Monotonicity(features_in_step=_side_of_map(c), **QUIET)),
    ),
    "monotonicity_correlation": Pair(
        lambda c: evaluation.monotonicity_correlation(
            *c.ours, c.maps, key=KEY, pixels_per_step=_side_of_map(c), num_samples=2, **PROBABILITY
        ),
        lambda c: c.theirs(
            quantus.MonotonicityCorrelation(features_in_step=_side_of_map(c), nr_samples=2, **QUIET)
        ),
    ),
    "infidelity": Pair(
        lambda c: evaluation.infidelity(
            *c.ours, c.maps[..., None], key=KEY, size=_side(c), num_samples=_num_regions(c), **PROBABILITY
        ),
        lambda c: c.theirs(quantus.Infidelity(perturb_patch_sizes=[_side(c)], n_perturb_samples=1, **QUIET)),
    ),
    "road": Pair(
        lambda c: evaluation.road(*c.ours, c.maps, key=KEY, shares=SHARES).scores,
        lambda c: c.theirs(quantus.ROAD(percentages=[100 * share for share in SHARES], **QUIET)),
    ),
    "max_sensitivity": Pair(
        lambda c: evaluation.max_sensitivity(
            attribution.gradient, *c.ours, key=KEY, radius=0.2, num_samples=10
        ),
        lambda c: c.theirs(quantus.MaxSensitivity(nr_samples=10, lower_bound=0.2, **QUIET), **EXPLAINED),
    ),
    "avg_sensitivity": Pair(
        lambda c: evaluation.avg_sensitivity(
            attribution.gradient, *c.ours, key=KEY, radius=0.2, num_samples=10
        ),
        lambda c: c.theirs(quantus.AvgSensitivity(nr_samples=10, lower_bound=0.2, **QUIET), **EXPLAINED),
    ),
    "local_lipschitz_estimate": Pair(
        lambda c: evaluation.local_lipschitz_estimate(
            attribution.gradient, *c.ours, key=KEY, radius=0.1, num_samples=10
        ),
        lambda c: c.theirs(quantus.LocalLipschitzEstimate(nr_samples=10, **QUIET), **EXPLAINED),
    ),
    "relative_input_stability": Pair(
        lambda c: evaluation.relative_input_stability(attribution.gradient, *c.ours, key=KEY, num_samples=10),
        lambda c: c.theirs(quantus.RelativeInputStability(nr_samples=10, **QUIET), **EXPLAINED),
    ),
}


if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.suite"))
