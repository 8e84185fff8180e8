"""Values that were computed by hand for constant-weight models and published in Captum's tests (BSD-3).

The numbers of the cases are those of the table in which the project keeps them. All hold in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attribution import models
from vexplain import attribution

GUIDED_MAP = [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]
GUIDED_MAP_OF_TWO = [[1, 2, 2, 1], [2, 4, 4, 2], [2, 4, 4, 2], [1, 2, 2, 1]]
DECONVNET_MAP = [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]
CHANNELS = [[[-3.75, 3], [23.25, 30]], [[15, 10.5], [-3, -7.5]]]
GUIDED_CAM_MAP = [[0, 0, 4, 4], [0, 0, 12, 8], [28, 84, 97.5, 65], [28, 56, 65, 32.5]]
WHOLE = lambda outputs, targets: outputs  # noqa: E731
SIGNED = {"interpolation": None, "is_rectified": False}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def ramp():
    return jnp.arange(16, dtype=jnp.float64).reshape(1, 4, 4, 1)


def traced(method, apply, variables, images, **options):
    """Inside a caller's jit, where images of any range are explained."""
    return jax.jit(lambda v, x: method(apply, v, x, 0, **options))(variables, images)


def explained(method, offset=0.0, **options):
    """Maps of model A for the ramp; `offset` is its second input, which it adds to the first."""
    apply, variables = models.one_conv()
    maps = traced(method, lambda v, x: apply(v, x + offset), variables, ramp(), **options)
    assert maps.dtype == jnp.float64
    return maps[0]


@pytest.mark.parametrize(
    ("method", "offset", "expected"),
    [
        pytest.param(attribution.guided_backprop, 0.0, GUIDED_MAP, id="case 1"),
        pytest.param(attribution.guided_backprop, 1.0, GUIDED_MAP_OF_TWO, id="case 2"),
        pytest.param(attribution.deconvnet, 0.0, DECONVNET_MAP, id="case 3"),
    ],
)
def test_backward_rules(method, offset, expected):
    np.testing.assert_array_equal(explained(method, offset)[..., 0], expected)


@pytest.mark.parametrize(
    ("layer", "offset", "expected"),
    [
        pytest.param("conv_1", 0.0, [[11.25, 13.5], [20.25, 22.5]], id="case 4"),
        pytest.param("relu_1", 0.0, [[0, 4], [28, 32.5]], id="case 6"),
        pytest.param("conv_1", 1.0, [[14.5, 19], [32.5, 37]], id="case 7"),
    ],
)
def test_grad_cam(layer, offset, expected):
    found = explained(attribution.grad_cam, offset, layer=layer, **SIGNED)
    np.testing.assert_array_equal(found[..., 0], expected)


def test_grad_cam_by_channel_case_5():
    found = explained(attribution.grad_cam, layer="conv_1", is_summed=False, **SIGNED)
    np.testing.assert_array_equal(jnp.moveaxis(found, -1, 0), CHANNELS)


def test_grad_cam_of_an_identity_layer_case_9():
    apply, variables = models.multi_layer()
    images = jnp.array([0.0, 100, 0]).reshape(1, 1, 1, 3)
    found = traced(attribution.grad_cam, apply, variables, images, layer="conv_1", **SIGNED)
    assert found.item() == 400


def test_guided_grad_cam_case_10():
    found = explained(attribution.guided_grad_cam, layer="relu_1", interpolation="nearest")
    np.testing.assert_array_equal(found[..., 0], GUIDED_CAM_MAP)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"window": 1}, (80, 200, 120), id="case 12"),
        pytest.param({"window": (1, 2), "baseline": 10.0}, (200, 220, 240), id="case 13"),
        pytest.param({"window": (1, 2), "stride": (1, 2)}, (280, 280, 120), id="case 14"),
    ],
)
@pytest.mark.parametrize("is_column", [False, True])
def test_occlusion(options, expected, is_column):
    apply, variables = models.multi_layer()
    images = jnp.array([20.0, 50, 30]).reshape(1, 1, 3, 1)
    if is_column:
        images = images.reshape(1, 3, 1, 1)
        options = {k: v[::-1] if isinstance(v, tuple) else v for k, v in options.items()}
    found = traced(attribution.occlusion, apply, variables, images, **({"stride": 1} | options))
    np.testing.assert_array_equal(found.ravel(), expected)


@pytest.mark.parametrize(
    "inner",
    [
        lambda a, b: jax.nn.relu(a) - 1 - jax.nn.relu(b),
        lambda a, b: jax.nn.relu(a - 1) - jax.nn.relu(b),
    ],
)
def test_integrated_gradients_do_not_see_the_implementation_case_18(inner):
    def apply(variables, images):
        return jax.nn.relu(inner(images[:, 0, 0, 0], images[:, 0, 1, 0]))

    images = jnp.array([3.0, 1.0]).reshape(1, 1, 2, 1)
    found = traced(attribution.integrated_gradients, apply, None, images, score=WHOLE, num_steps=50)
    # The kink is at half of the way, between two of an even number of middles: the sum is the integral.
    np.testing.assert_allclose(found.ravel(), (1.5, -0.5), rtol=1e-14)


def test_the_gradient_at_the_kink_is_zero_case_19():
    images = jnp.array([1.0, 2, 3, 0, -1, 7]).reshape(1, 1, 6, 1)
    apply = lambda variables, x: (1 - jax.nn.relu(1 - x)).sum((1, 2, 3))  # noqa: E731
    found = traced(attribution.gradient, apply, None, images, score=WHOLE)
    np.testing.assert_array_equal(found.ravel(), (0, 0, 0, 1, 1, 0))
