"""Networks of the zoo (`make zoo`) whose packages the tests have: axes and the layer for maps, by shapes.

What is true of each stands in `benchmarks.zoo.cases`. Guided gradients are compared with ReLUs that are
guided by hand, in small networks.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vexplain as vx
from benchmarks.zoo import measure, reference
from benchmarks.zoo.builders import Built, drawn, haiku_module
from benchmarks.zoo.cases import CASES
from benchmarks.zoo.packages import BUILDERS, keras_application

NAMES = (
    "keras/MobileNetV2",
    "keras/ConvNeXtTiny",
    "dm-haiku/MobileNetV1",
    "jax-resnet/ResNeSt50",
    "equimo/mobilenetv3_small",
    "equimo/convnext_t",
    "equimo/vit_tiny_patch16_224",
)
BATCHES = (1, 64)  # what is known of a network does not depend on them
SMALL = {case.name: case for case in CASES if case.name in NAMES}
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)


@pytest.mark.parametrize("name", NAMES)
def test_the_layers_and_the_one_for_maps(name, monkeypatch):
    reference.install(monkeypatch.setattr)
    case = dataclasses.replace(SMALL[name], batches=BATCHES)
    found = measure.by_shapes(case, BUILDERS[case.package](case.network, case.size, **case.options))
    for batch in BATCHES:
        at = found[f"batch_{batch}"]
        assert at["cam_right"], (batch, at["cam"])
        assert at["unknown"] == 0, (batch, at["unknown_first"])
    # some are not counted in a package that another test imported before
    assert found["relus_found"] >= sum(found["relus_called"].values())


def keras_mobilenet() -> Built:
    """Clipped ReLUs, depthwise convolutions, batch normalization."""
    return keras_application("MobileNet", 32, alpha=0.25)


def haiku_mobilenet() -> Built:
    """The same with ReLUs, in few blocks."""
    import haiku as hk

    return haiku_module(lambda: hk.nets.MobileNetV1((1, 2, 1), (6, 8, 7), num_classes=10), 32)


@pytest.mark.parametrize("make", [keras_mobilenet, haiku_mobilenet])
def test_guided_gradients_are_those_of_relus_guided_by_hand(make, monkeypatch):
    reference.install(monkeypatch.setattr)
    built = make()
    variables, images = drawn(built.shapes), jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    targets = jnp.array([3, 1])

    @jax.jit
    def run(variables, images):
        guided = vx.guided_backprop(built.apply, variables, images, targets)
        with reference.guided_by_hand() as calls:
            by_hand = vx.gradient(lambda *arguments: built.apply(*arguments), variables, images, targets)
            assert calls
        return guided, by_hand

    guided, by_hand = run(variables, images)
    assert np.abs(by_hand).max() > 0
    np.testing.assert_allclose(guided, by_hand, rtol=1e-4, atol=1e-5 * np.abs(by_hand).max())
