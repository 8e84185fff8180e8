"""Seconds an image and peak memory of explaining 64 images with VGG-16 at 224 px, beside Captum, in one run.

    make .venv-parity/.installed
    .venv-parity/bin/python -m benchmarks.explain_vgg16

Each row is a process of its own, one after the other, on all cores, in batches of 8: after one batch for
warming up (compilation), 64 images by the clock. Memory is the largest the process had, libraries and weights
(0.55 GB) included. Weights are random: time does not depend on them.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

BATCH, NUM_IMAGES, SIZE = 8, 64, 224
ROWS = {
    "captum": "guided backpropagation, Captum",
    "ours": "guided backpropagation, vexplain",
    "recipe": "relevant features (K = 3 maps an image), vexplain",
}


def main(arguments: list[str]) -> None:
    """Measures the row that is named, or runs a process for each."""
    if arguments:
        _measure(MAKERS[arguments[0]]())
        return
    print(f"{'method':52}{'s an image':>12}{'peak memory, GB':>18}")
    for row, title in ROWS.items():
        command = [sys.executable, "-m", "benchmarks.explain_vgg16", row]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds, memory = done.stdout.split()[-2:]
        print(f"{title:52}{float(seconds):12.3f}{float(memory):18.2f}", flush=True)


def _measure(explain_batch: Callable[[np.ndarray], object]) -> None:
    images = np.random.default_rng(0).random((NUM_IMAGES, SIZE, SIZE, 3), np.float32)
    explain_batch(images[:BATCH])
    started = time.monotonic()
    for start in range(0, NUM_IMAGES, BATCH):
        explain_batch(images[start : start + BATCH])
    seconds = (time.monotonic() - started) / NUM_IMAGES
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def _captum() -> Callable[[np.ndarray], object]:
    import torch

    from benchmarks.parity.torch_networks import full_network

    network = full_network("vgg16", "torchvision")
    from captum.attr import GuidedBackprop

    explainer = GuidedBackprop(network)

    def explain_batch(images):
        pixels = torch.from_numpy(np.moveaxis(images, -1, 1).copy()).requires_grad_()
        targets = network(pixels).argmax(-1)
        return explainer.attribute(pixels, target=targets)

    return explain_batch


def _ours() -> Callable[[np.ndarray], object]:
    import jax

    from vexplain import guided_backprop
    from vexplain.classifiers import build

    apply, variables, _ = build("vgg16")
    return lambda images: jax.block_until_ready(guided_backprop(apply, variables, images))


def _recipe() -> Callable[[np.ndarray], object]:
    import jax

    from vexplain import explain, layers
    from vexplain.classifiers import build
    from vexplain.relevance import Relevance, default_layers, layout_of, layout_size

    apply, variables, _ = build("vgg16")
    table = layers(apply, variables, jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), np.float32))
    layout = layout_of(default_layers(table))
    rng = np.random.default_rng(0)
    weights = rng.random((layout_size(layout), 1000)) * (rng.random((layout_size(layout), 1000)) < 0.01)
    zeros, names = np.zeros(1000), tuple(map(str, range(1000)))
    relevance = Relevance(weights, zeros, zeros, np.float64(10), layout, names)

    def explain_batch(images):
        return jax.block_until_ready(explain(apply, variables, images, relevance=relevance))

    return explain_batch


MAKERS = {"captum": _captum, "ours": _ours, "recipe": _recipe}

if __name__ == "__main__":
    main(sys.argv[1:])
