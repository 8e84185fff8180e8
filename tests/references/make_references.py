"""Makes `logits.npz` and `maps.npz`, of narrow networks in torchvision, timm, Captum and pytorch-grad-cam.

`propagation.npz` is made by `propagation_references`.

    make references        (python -m tests.references.make_references, with the extra `parity`)

Weights and images are drawn anew by both sides (`weights.py`); the files hold shapes and results only. Maps
are kept at every fourth pixel of both axes.
"""

import json
from pathlib import Path

import numpy as np
import torch

from benchmarks.parity import torch_networks
from benchmarks.parity.peers import peers_maps
from tests.references import propagation_references
from tests.references.weights import seeded_images

HERE = Path(__file__).parent
STEP = 4
LAYERS = {"vgg16": "network.features.29", "alexnet": "network.features.11", "bottlenecks": "network.layer4.0"}


def main() -> None:
    images = seeded_images(2, torch_networks.NARROW_SIZE)
    pixels = torch.from_numpy(np.moveaxis(images, -1, 1).copy())
    logits, maps = {}, {}
    for name, dialects in torch_networks.DIALECTS.items():
        for dialect in dialects:
            settings = torch_networks.preprocessing(name, dialect)
            network = torch_networks.narrow_network(name, dialect)
            with torch.no_grad():
                found = torch_networks.OnUnitImages(network, settings)(pixels)
            logits[f"{name}/{dialect}/logits"] = found.numpy()
            logits[f"{name}/{dialect}/settings"] = _text(settings._asdict())
            logits[f"{name}/{dialect}/shapes"] = _shapes(network)
    for name, layer in LAYERS.items():
        network = (
            torch_networks.narrow_bottlenecks()
            if name == "bottlenecks"
            else torch_networks.narrow_network(name, "torchvision")
        )
        settings = torch_networks.preprocessing("vgg16", "torchvision")
        network = torch_networks.OnUnitImages(network, settings)
        with torch.no_grad():
            targets = network(pixels).argmax(1).numpy()  # the map of a class with no evidence may be all zero
        found = peers_maps(network, layer, images, targets)
        maps |= {f"{name}/{method}": value[:, ::STEP, ::STEP] for method, value in found.items()}
        maps |= {f"{name}/shapes": _shapes(network.network), f"{name}/targets": targets}
    np.savez_compressed(HERE / "logits.npz", **logits)
    np.savez_compressed(HERE / "maps.npz", **maps)
    propagation_references.main()


def _shapes(network: torch.nn.Module) -> np.ndarray:
    return _text({name: list(value.shape) for name, value in network.state_dict().items()})


def _text(value: dict) -> np.ndarray:
    return np.array(json.dumps(value))


if __name__ == "__main__":
    main()
