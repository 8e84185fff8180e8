"""Maps of narrow networks against Captum 0.9.0 and pytorch-grad-cam 1.5.7, whose maps are in references."""

import json
from pathlib import Path

import numpy as np
import pytest
from flax import nnx

from benchmarks.parity.ours import our_maps, relative_error
from tests.references.weights import seeded_images, seeded_weights
from vexplain.classifiers import VGG, AlexNet, ResNet, functionalize, place_weights

REFERENCES = Path(__file__).parent.parent / "references" / "maps.npz"
SIZE, STEP, CLASSES = 64, 4, 7
EIGHTH = {"widths": (8, 16, 32, 64, 64), "hidden": 512}
NETWORKS = {
    "vgg16": lambda rngs: VGG((2, 2, 3, 3, 3), CLASSES, **EIGHTH, rngs=rngs),
    "alexnet": lambda rngs: AlexNet(CLASSES, widths=(8, 24, 48, 32, 32), hidden=512, rngs=rngs),
    "bottlenecks": lambda rngs: ResNet((1, 1, 1, 1), CLASSES, width=8, rngs=rngs),
}


@pytest.fixture(scope="module")
def references():
    with np.load(REFERENCES) as file:
        return dict(file)


def network_of(name, references):
    module = nnx.eval_shape(lambda: NETWORKS[name](nnx.Rngs(0)))
    weights = seeded_weights(json.loads(str(references[f"{name}/shapes"])))
    return functionalize(module)[0], place_weights(module, weights, "torchvision")


@pytest.mark.parametrize("name", NETWORKS)
def test_maps_are_those_of_the_peers(name, references):
    apply, variables = network_of(name, references)
    images, targets = seeded_images(2, SIZE), references[f"{name}/targets"]
    found = our_maps(apply, variables, images, targets)
    expected = {
        key.removeprefix(f"{name}/"): value
        for key, value in references.items()
        if key.startswith(f"{name}/") and key.count("/") == 2
    }
    assert set(found) == set(expected)
    assert len(expected) == 12
    errors = {m: relative_error(found[m][:, ::STEP, ::STEP], expected[m]) for m in expected}
    assert max(errors.values()) <= 1e-4, errors
