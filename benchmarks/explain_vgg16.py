"""Seconds an image and peak memory of explaining images with VGG-16 at 224 px, beside Captum, in one run.

    make .venv-parity/.installed
    .venv-parity/bin/python -m benchmarks.explain_vgg16                        64 images, batches of 8
    .venv-parity/bin/python -m benchmarks.explain_vgg16 --batch-size 64 --num-images 512

Each row is a process of its own, one after the other, on the first accelerator or on all cores: after one
batch for warming up (compilation), the images by the clock, from the host and to the end of each batch.
Memory is the largest the process had, libraries and weights (0.55 GB) included; on an accelerator, the
largest that was allocated there. Weights are random: time does not depend on them. PyTorch and JAX both let a
GPU multiply float32 with 10 bits in convolutions by default; `--precision float32` asks both for all bits.
"""

import dataclasses
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import tyro

Precision = Literal["default", "float32"]
Row = Literal["captum", "ours", "recipe"]
TITLES: dict[Row, str] = {
    "captum": "guided backpropagation, Captum",
    "ours": "guided backpropagation, vexplain",
    "recipe": "relevant features (K = 3 maps an image), vexplain",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    batch_size: int = 8
    num_images: int = 64
    size: int = 224
    precision: Precision = "default"
    rows: tuple[Row, ...] = ("captum", "ours", "recipe")
    here: bool = False  # measure in this process, which prints the numbers as JSON; of one row


def main(config: Config) -> None:
    """Runs a process for each row and prints the table, or measures the one row."""
    if config.here:
        print(json.dumps(_measure(config, config.rows[0])))
        return
    print(f"{'method':52}{'s an image':>12}{'peak memory, GB':>18}")
    for row in measurements(config):
        print(f"{TITLES[row['row']]:52}{row['seconds']:12.4f}{row['memory']:18.2f}", flush=True)


def measurements(config: Config) -> Iterator[dict[str, Any]]:
    """Yields a row a method: seconds of the first batch and of an image of later ones, memory in GB, device.

    Raises:
        RuntimeError: a row failed, with what it said last.
    """
    environment = dict(os.environ)
    if config.precision == "float32":
        environment["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    for row in config.rows:
        settings = {name.replace("_", "-"): getattr(config, name) for name in ("size", "precision")}
        settings |= {"batch-size": config.batch_size, "num-images": config.num_images, "rows": row}
        options = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
        command = [sys.executable, "-m", "benchmarks.explain_vgg16", "--here", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{TITLES[row]}: {done.stderr.strip()[-2000:]}")
        yield {"row": row, "precision": config.precision} | json.loads(done.stdout.splitlines()[-1])


def _measure(config: Config, row: Row) -> dict[str, Any]:
    explain_batch, facts = MAKERS[row](config)
    shape = (config.num_images, config.size, config.size, 3)
    images = np.random.default_rng(0).random(shape, np.float32)
    started = time.monotonic()
    explain_batch(images[: config.batch_size])
    first = time.monotonic() - started
    started = time.monotonic()
    for start in range(0, config.num_images, config.batch_size):
        explain_batch(images[start : start + config.batch_size])
    seconds = (time.monotonic() - started) / config.num_images
    device, on_device = facts()
    on_host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    memory = {"memory": on_device or on_host, "host_memory": on_host}
    return {"first": first, "seconds": seconds, "device": device} | memory


def _captum(config: Config) -> tuple[Callable[[np.ndarray], object], Callable[[], tuple[str, float | None]]]:
    import torch

    from benchmarks.parity.torch_networks import full_network

    torch.backends.cudnn.allow_tf32 = config.precision == "default"
    on = "cuda" if torch.cuda.is_available() else "cpu"
    network = full_network("vgg16", "torchvision").to(on)
    from captum.attr import GuidedBackprop

    explainer = GuidedBackprop(network)

    def explain_batch(images):
        # Noise looks the same in either layout; a copy would be timed as part of the explanation.
        pixels = torch.from_numpy(images.reshape(len(images), 3, config.size, config.size))
        pixels = pixels.to(on).requires_grad_()
        targets = network(pixels).argmax(-1)
        found = explainer.attribute(pixels, target=targets)
        if on == "cuda":
            torch.cuda.synchronize()
        return found

    def facts():
        if on == "cpu":
            return "cpu", None
        return torch.cuda.get_device_name(), torch.cuda.max_memory_allocated() / 2**30

    return explain_batch, facts


def _ours(config: Config):
    import jax

    from vexplain import guided_backprop
    from vexplain.classifiers import build

    apply, variables, _ = build("vgg16")
    return lambda images: jax.block_until_ready(guided_backprop(apply, variables, images)), _facts


def _recipe(config: Config):
    import jax

    from vexplain import explain, layers
    from vexplain.classifiers import build
    from vexplain.relevance import Relevance, default_layers, layout_of, layout_size

    apply, variables, _ = build("vgg16")
    shape = (config.batch_size, config.size, config.size, 3)
    layout = layout_of(default_layers(layers(apply, variables, jax.ShapeDtypeStruct(shape, np.float32))))
    rng = np.random.default_rng(0)
    weights = rng.random((layout_size(layout), 1000)) * (rng.random((layout_size(layout), 1000)) < 0.01)
    zeros, names = np.zeros(1000), tuple(map(str, range(1000)))
    relevance = Relevance(weights, zeros, zeros, np.float64(10), layout, names)

    def explain_batch(images):
        return jax.block_until_ready(explain(apply, variables, images, relevance=relevance))

    return explain_batch, _facts


def _facts() -> tuple[str, float | None]:
    """The device, and the most that was allocated on it in GB; `None` on a CPU, which does not say."""
    import jax

    device = jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return device.device_kind, peak and peak / 2**30


MAKERS = {"captum": _captum, "ours": _ours, "recipe": _recipe}

if __name__ == "__main__":
    main(tyro.cli(Config, prog="python -m benchmarks.explain_vgg16"))
