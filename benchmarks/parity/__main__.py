"""Logits and maps against torchvision, timm, Captum and pytorch-grad-cam, at full size.

    make parity                                     (python -m benchmarks.parity, with the extra `parity`)
    python -m benchmarks.parity logits resnet50     (only some; networks by name)
    python -m benchmarks.parity maps vgg16

Prints network × method × relative error (max |difference| / max |value|, float32, one image) and exits with 1
where an error is above 1e-4. Weights are random. They go through `safetensors.torch.save_file` and
`vexplain.classifiers.pretrained`, as those of users do.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
    print(f"{'network':16}{'against':18}{'method':28}{'relative error':>16}")
    worst = 0.0
    for name in names:
        for against, method, error in _rows(name, kinds):
            note = "" if error <= TOLERANCE else f"   above {TOLERANCE:.0e}"
            print(f"{name:16}{against:18}{method:28}{error:16.1e}{note}", flush=True)
            worst = max(worst, error)
    print(f"largest: {worst:.1e}")
    return int(worst > TOLERANCE)


def _rows(name: str, kinds: list[str]) -> Iterator[tuple[str, str, float]]:
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
            expected = peers_maps(network, LAYERS[name], images, targets)
            found = our_maps(apply, variables, images, targets)
            for method, value in expected.items():
                yield *method.split("/"), relative_error(found[method], value)


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
