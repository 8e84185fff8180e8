"""Closed forms, hand-computed values, and one table of cases for every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.transforms import networks
from tests.transforms.test_rules import ONE_CONV, one_conv
from vexplain import attribution
from vexplain.transforms import layers

RAMP = jnp.arange(16.0).reshape(1, 4, 4, 1)
METHODS = {
    "gradient": attribution.gradient,
    "guided_backprop": attribution.guided_backprop,
    "grad_cam": lambda *args: attribution.grad_cam(*args, layer="relu_1"),
    "upsampled_activation": lambda *args: attribution.upsampled_activation(*args, layer="relu_1"),
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_alike_plain_jitted_and_one_by_one(name, key):
    apply, variables = networks.nnx_network()
    score, method = attribution.class_score(apply), METHODS[name]
    images, targets = jax.random.uniform(key, (3, 13, 11, 3)), jnp.array([4, 0, 2])
    plain = method(score, variables, images, targets)
    assert plain.shape[:3] == images.shape[:3]
    jitted = jax.jit(lambda *args: method(score, *args))(variables, images, targets)
    np.testing.assert_allclose(plain, jitted, rtol=1e-4, atol=1e-5)
    for n in range(3):
        single = method(score, variables, images[n : n + 1], targets[n : n + 1])
        np.testing.assert_allclose(plain[n], single[0], rtol=1e-4, atol=1e-5)


def test_guided_backprop_of_a_network_without_relu_is_the_gradient_where_asked(key):
    score = attribution.class_score(lambda v, x: jax.nn.gelu(x).mean((1, 2)) @ v)
    arguments = (score, jnp.ones((3, 4)), jax.random.normal(key, (2, 5, 3, 3)), jnp.array([3, 1]))
    with pytest.raises(ValueError, match=r'matches nothing.*pass on_unmatched="ignore"'):
        attribution.guided_backprop(*arguments, on_uncovered="gradient")
    with pytest.raises(ValueError, match=r'says nothing of .*gelu.*pass on_uncovered="gradient"'):
        attribution.guided_backprop(*arguments, on_unmatched="ignore")
    found = attribution.guided_backprop(*arguments, on_uncovered="gradient", on_unmatched="ignore")
    np.testing.assert_array_equal(found, attribution.gradient(*arguments))


def test_gradient_of_a_linear_network_is_its_weights(key):
    weights = jax.random.normal(key, (4 * 5 * 3, 6))
    score = attribution.class_score(lambda v, x: x.reshape(2, -1) @ v)
    found = attribution.gradient(score, weights, jnp.ones((2, 4, 5, 3)), jnp.array([5, 1]))
    np.testing.assert_allclose(found.reshape(2, -1), weights[:, jnp.array([5, 1])].T, rtol=1e-6)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [("relu_1", [[0, 4], [28, 32.5]]), ("conv_1", [[11.25, 13.5], [20.25, 22.5]])],
)
def test_grad_cam_has_the_hand_computed_values_of_captum(layer, expected):
    """Captum publishes the map before its last ReLU; here both are positive."""
    score = attribution.class_score(one_conv)
    small = attribution.grad_cam(score, ONE_CONV, RAMP, jnp.array([0]), layer=layer)
    corners = small[0, :, :, 0][jnp.array([0, -1])][:, jnp.array([0, -1])]
    np.testing.assert_allclose(corners, expected, rtol=1e-5)  # a corner is not interpolated


def test_grad_cam_of_a_global_average_is_cam(key):
    kernel = jax.random.normal(key, (3, 3, 3, 6))
    dense = jax.random.normal(jax.random.key(1), (6, 5))

    def features(images):
        return jax.nn.relu(
            jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=networks.NHWC)
        )

    score = attribution.class_score(lambda v, x: features(x).mean((1, 2)) @ dense)
    images = jax.random.uniform(key, (2, 7, 5, 3))
    found = attribution.grad_cam(score, None, images, jnp.array([3, 1]), layer="relu_1")
    cam = jax.nn.relu(jnp.einsum("bhwk,kb->bhw", features(images), dense[:, jnp.array([3, 1])]) / 35)
    np.testing.assert_allclose(found[..., 0], cam, rtol=1e-4, atol=1e-6)


def test_cam_layer_is_the_last_convolution_after_its_relu():
    shape = jax.ShapeDtypeStruct((2, 13, 11, 3), jnp.float32)
    for style, expected in [("nnx", "relu_2"), ("linen", "relu_2"), ("plain", "relu_1")]:
        apply, variables = networks.ALL[style]()
        assert attribution.cam_layer(layers(apply, variables, shape)) == expected
    with pytest.raises(ValueError, match="no convolution"):
        attribution.cam_layer(layers(lambda v, x: x.mean((1, 2)), None, shape))


def test_a_layer_without_positions_has_no_map(key):
    apply, variables = networks.nnx_network()
    images = jnp.zeros((1, 13, 11, 3))
    with pytest.raises(ValueError, match=r"'dense_1' .* has no spatial axes"):
        attribution.grad_cam(
            attribution.class_score(apply), variables, images, jnp.array([0]), layer="dense_1"
        )


def test_sobel_against_scipy(key):
    images = jax.random.uniform(key, (2, 6, 9, 3))
    found = attribution.sobel_edges(images)[..., 0]
    for n in range(2):
        channels = [np.asarray(images[n, :, :, c], np.float64) for c in range(3)]
        expected = sum(
            np.hypot(ndimage.sobel(c, 0, mode="nearest"), ndimage.sobel(c, 1, mode="nearest"))
            for c in channels
        )
        np.testing.assert_allclose(found[n], expected, rtol=1e-4)


def test_random_map_depends_on_the_key_only(key):
    images = jnp.zeros((2, 3, 4, 3))
    first = attribution.random_map(key, images)
    np.testing.assert_array_equal(first, attribution.random_map(key, images + 1))
    assert not np.array_equal(first, attribution.random_map(jax.random.key(1), images))
    assert first.shape == (2, 3, 4, 1)


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_heatmaps_span_zero_to_one_at_any_scale(scale, key):
    attributions = scale * jax.random.normal(key, (2, 3, 5, 3))
    positive = attribution.positive_heatmaps(attributions)
    assert positive.min() == 0
    np.testing.assert_allclose(positive.max((1, 2)), 1, rtol=1e-6)
    signless = np.linalg.norm(np.asarray(attributions, np.float64), axis=-1)
    low, high = signless.min((1, 2), keepdims=True), signless.max((1, 2), keepdims=True)
    np.testing.assert_allclose(
        attribution.absolute_heatmaps(attributions), (signless - low) / (high - low), rtol=1e-4, atol=1e-6
    )


def test_a_constant_map_is_zero():
    assert not attribution.normalize_heatmaps(jnp.full((1, 3, 3), 0.7)).any()
    assert not attribution.positive_heatmaps(-jnp.ones((1, 3, 3, 2))).any()
