"""The gradient, the customary layer, the controls, and heatmaps of attributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage, stats

from tests.transforms import networks
from vexplain import attribution, classifiers
from vexplain.transforms import layers


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


def test_cam_layer_is_the_last_convolution_after_its_relu():
    shape = jax.ShapeDtypeStruct((2, 13, 11, 3), jnp.float32)
    for style, expected in [("nnx", "relu_2"), ("linen", "relu_2"), ("plain", "relu_1")]:
        apply, variables = networks.ALL[style]()
        assert attribution.cam_layer(layers(apply, variables, shape)) == expected
    with pytest.raises(ValueError, match="no convolution"):
        attribution.cam_layer(layers(lambda v, x: x.mean((1, 2)), None, shape))


def test_cam_layer_has_positions_where_some_layer_has():
    apply, variables = classifiers.functionalize(classifiers.LeNet(rngs=nnx.Rngs(0)))
    shape = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    assert attribution.cam_layer(layers(apply, variables, shape)) == "conv_2"  # conv_3 leaves 1 × 1


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


def test_center_gaussian_is_a_normal_density_along_each_axis():
    found = attribution.center_gaussian(jnp.zeros((2, 5, 8, 3)))[1, :, :, 0]
    down, across = (stats.norm.pdf(np.arange(n), (n - 1) / 2, 5 / 4) for n in (5, 8))
    expected = np.outer(down, across) * 2 * np.pi * (5 / 4) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    narrow = attribution.center_gaussian(jnp.zeros((1, 5, 8, 3)), sigma=0.5)
    assert narrow.mean() < found.mean()
    with pytest.raises(ValueError, match="sigma is -1"):
        attribution.center_gaussian(jnp.zeros((1, 5, 8, 3)), sigma=-1.0)


def test_object_segmentation_covers_both_colors_of_an_object():
    images = jnp.full((2, 14, 11, 3), 0.8)
    images = images.at[:, 4:9, 3:6].set(jnp.array([0.9, 0.1, 0.1])).at[:, 4:9, 6:8].set(0.2)
    expected = jnp.zeros((2, 14, 11, 1)).at[:, 4:9, 3:8].set(1.0)
    np.testing.assert_array_equal(attribution.object_segmentation(images), expected)


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
