"""Logits and maps against torchvision, timm, Captum and pytorch-grad-cam, at full size.

    make parity                                     (python -m benchmarks.parity, with the extra `parity`)
    python -m benchmarks.parity logits resnet50     (only some; networks by name)
    python -m benchmarks.parity maps vgg16

Prints network × method × relative error (max |difference| / max |value|, one image) in float32. Guided rules
ask for signs, and among millions of ReLUs some are so near to zero that float32 gives them another sign, in
each library its own. Where an error is above 1e-4, both sides compute again in float64, and its error is
printed beside it. Exits with 1 where that is above 1e-4 too. Weights are random. They go through
`safetensors.torch.save_file` and `vexplain.classifiers._pretrained`, as those of users do.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.torch
import torch

from benchmarks.parity import torch_networks
from benchmarks.parity.ours import our_maps, relative_error
from benchmarks.parity.peers import peers_maps
from tests.references.weights import seeded_images
from vexplain.classifiers import pretrained

TOLERANCE = 1e-4
SIZE = 224
LAYERS = {  # whose outputs the class activation maps are made of: the last convolution, after its ReLU
    "alexnet": "network.features.11",
    "vgg16": "network.features.29",
    "resnet50": "network.layer4.2",
}


def main(arguments: list[str]) -> int:
    kinds = [a for a in arguments if a in ("logits", "maps")] or ["logits", "maps"]
    names = [a for a in arguments if a in torch_networks.DIALECTS] or list(torch_networks.DIALECTS)
    unknown = [a for a in arguments if a not in kinds + names]
    if unknown:
        print(f"{unknown[0]!r}: expected logits, maps, or some of {', '.join(torch_networks.DIALECTS)}")
        return 2
    print(f"{'network':16}{'against':18}{'method':28}{'float32':>10}{'float64':>10}")
    worst = 0.0
    for name in names:
        for against, method, *errors in _rows(name, kinds):
            shown = "".join(f"{error:10.1e}" for error in errors)
            print(f"{name:16}{against:18}{method:28}{shown}", flush=True)
            worst = max(worst, min(errors))
    print(f"largest, in float64 where float32 is above {TOLERANCE:.0e}: {worst:.1e}")
    return int(worst > TOLERANCE)


def _rows(name: str, kinds: list[str]) -> Iterator[tuple[Any, ...]]:
    images = seeded_images(1, SIZE)
    for dialect in torch_networks.DIALECTS[name]:
        has_maps = "maps" in kinds and dialect == "torchvision" and name in LAYERS
        if "logits" not in kinds and not has_maps:
            continue
        network, apply, variables = _both(name, dialect)
        with torch.no_grad():
            logits = network(torch.from_numpy(np.moveaxis(images, -1, 1).copy())).numpy()
        if "logits" in kinds:
            found = jax.jit(apply)(variables, jnp.asarray(images))
            yield dialect, "logits", relative_error(np.asarray(found), logits)
        if has_maps:
            targets = logits.argmax(1)
            errors, exact = _map_errors(network, LAYERS[name], apply, variables, images, targets), {}
            if max(errors.values()) > TOLERANCE:
                with jax.enable_x64(True):
                    doubled = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf), jnp.float64), variables)
                    arguments = (apply, doubled, images.astype(np.float64), targets)
                    exact = _map_errors(network.double(), LAYERS[name], *arguments)
            for method, error in errors.items():
                yield *method.split("/"), error, *([exact[method]] if error > TOLERANCE else [])


def _map_errors(network, layer: str, apply, variables, images, targets) -> dict[str, float]:
    expected = peers_maps(network, layer, images, targets)
    found = our_maps(apply, variables, images, targets)
    return {method: relative_error(found[method], value) for method, value in expected.items()}


def _both(name: str, dialect: str):
    """A network with the same weights in PyTorch and here, for images in [0, 1]."""
    network = torch_networks.full_network(name, dialect)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        weights = {key: value.contiguous() for key, value in network.state_dict().items()}
        safetensors.torch.save_file(weights, file)
        apply, variables, _ = pretrained(name, file)
    settings = torch_networks.preprocessing(name, dialect)
    return torch_networks.OnUnitImages(network, settings), apply, variables


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
