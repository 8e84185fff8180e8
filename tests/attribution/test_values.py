"""Values of methods: closed forms, loops, and what the papers say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage, stats

import vexplain as vx
from tests.transforms import networks
from vexplain import attribution, classifiers
from vexplain.classifiers.fast_gradients import max_pool
from vexplain.transforms import layers

GENERATOR = np.random.default_rng(0)


def whole(outputs, targets):
    """The score of a function that returns one number an image itself."""
    return outputs


def uniform(*shape):
    return jnp.asarray(GENERATOR.uniform(size=shape), jnp.float32)


def normal(*shape):
    return jnp.asarray(GENERATOR.normal(size=shape), jnp.float32)


def traced(method, apply, variables, images, targets=None, **options):
    """Inside a caller's jit, where images of any range are explained."""
    return jax.jit(lambda v, x, t: method(apply, v, x, t, **options))(variables, images, targets)


@pytest.fixture(scope="module")
def network():
    return networks.plain_network()


def test_guided_backprop_of_a_network_without_relu_is_the_gradient_where_asked():
    arguments = (lambda v, x: jax.nn.gelu(x).mean((1, 2)) @ v, jnp.ones((3, 4)), uniform(2, 5, 3, 3), [3, 1])
    with pytest.raises(ValueError, match=r'matches nothing.*pass on_unmatched="ignore"'):
        vx.guided_backprop(*arguments, on_uncovered="gradient")
    with pytest.raises(ValueError, match=r'says nothing of .*gelu.*pass on_uncovered="gradient"'):
        vx.guided_backprop(*arguments, on_unmatched="ignore")
    found = vx.guided_backprop(*arguments, on_uncovered="gradient", on_unmatched="ignore")
    np.testing.assert_array_equal(found, vx.gradient(*arguments))


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet", "guided_grad_cam"])
def test_poolings_are_resampled_where_a_method_is_told_so(method):
    """Of one ReLU, max pooling and a sum, every pixel sees a quarter: g [x > 0] [g > 0], or g [g > 0]."""
    images, scale = uniform(2, 4, 6, 3) - 0.5, jnp.array([1.0, -1.0, 2.0])
    apply = lambda v, x: max_pool(jax.nn.relu(x)).sum((1, 2)) * v  # noqa: E731
    rules = vx.METHODS[method].rules | vx.RESAMPLED_POOL
    targets = jnp.array([2, 1])
    found = traced(getattr(attribution, method), apply, scale, images, targets, rules=rules)
    passing = jnp.ones_like(images) if method == "deconvnet" else images > 0
    expected = passing * jnp.array([[0, 0, 0.5], [0, 0, 0]])[:, None, None]
    if method == "guided_grad_cam":
        expected *= traced(attribution.grad_cam, apply, scale, images, targets)[..., None]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_gradient_of_a_linear_network_is_its_weights():
    weights = normal(4 * 5 * 3, 6)
    found = vx.gradient(lambda v, x: x.reshape(len(x), -1) @ v, weights, jnp.ones((2, 4, 5, 3)), [5, 1])
    np.testing.assert_allclose(found.reshape(2, -1), weights[:, jnp.array([5, 1])].T, rtol=1e-6)


def test_attributions_of_a_linear_network_without_biases_sum_to_the_score():
    weights, images = normal(4 * 5 * 3, 6), uniform(2, 4, 5, 3)
    apply = lambda v, x: x.reshape(len(x), -1) @ v  # noqa: E731
    found = attribution.input_x_gradient(apply, weights, images, [5, 1])
    expected = apply(weights, images)[jnp.arange(2), jnp.array([5, 1])]
    np.testing.assert_allclose(found.sum((1, 2, 3)), expected, rtol=1e-4)


def test_integrated_gradients_are_complete(network):
    apply, variables = network
    images, baseline, targets = uniform(3, 13, 11, 3), jnp.array([0.2, 0.9, 0.5]), jnp.array([4, 0, 2])
    options = {"baseline": baseline, "num_steps": 500}
    found = attribution.integrated_gradients(apply, variables, images, targets, **options)
    scores = [
        vx.logit(apply(variables, x), targets) for x in (images, jnp.broadcast_to(baseline, images.shape))
    ]
    np.testing.assert_allclose(found.sum((1, 2, 3)), scores[0] - scores[1], rtol=5e-3, atol=1e-3)


def test_integrated_gradients_of_a_polynomial_against_its_integral():
    """Of x³, (x - x') ∫ 3 (x' + α (x - x'))² dα is x³ - x'³; the midpoint rule misses (x - x')³ / (4 n²)."""
    images = uniform(2, 3, 2, 1)
    apply = lambda v, x: (x**3).sum((1, 2, 3))  # noqa: E731
    for steps in (1, 4):
        options = {"score": whole, "baseline": 0.2, "num_steps": steps}
        found = attribution.integrated_gradients(apply, None, images, **options)
        exact = images**3 - 0.2**3 - (images - 0.2) ** 3 / (4 * steps**2)
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6)


def test_smooth_grad_of_a_quadratic_has_the_mean_and_spread_of_its_noise(key):
    """The gradient of x² / 2 is x + σ ε: its mean over n samples is x, give or take σ / √n."""
    images = jnp.stack([jnp.linspace(0.2, 0.7, 600), jnp.linspace(0.0, 1.0, 600)]).reshape(2, 20, 30, 1)
    given = (attribution.smooth_grad, lambda v, x: (x**2 / 2).sum((1, 2, 3)), None, images)
    found = traced(*given, score=whole, key=key, num_samples=25, noise_level=0.4)
    deviation = (found - images).std((1, 2, 3))
    np.testing.assert_allclose(deviation, 0.4 * np.array([0.5, 1.0]) / 5, rtol=0.1)
    none = traced(*given, score=whole, key=key, num_samples=2, noise_level=0.0)
    np.testing.assert_allclose(none, images, rtol=1e-6)


def test_grad_cam_of_a_global_average_is_cam():
    kernel, dense, images = normal(3, 3, 3, 6), normal(6, 5), uniform(2, 7, 5, 3)

    def features(images):
        return jax.nn.relu(
            jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=networks.NHWC)
        )

    found = vx.grad_cam(lambda v, x: features(x).mean((1, 2)) @ dense, None, images, [3, 1], layer="relu_1")
    cam = jax.nn.relu(jnp.einsum("bhwk,kb->bhw", features(images), dense[:, jnp.array([3, 1])]) / 35)
    np.testing.assert_allclose(found, cam, rtol=1e-4, atol=1e-6)


def _one_channel():
    """ReLU, then weights of both signs; the network, its A and its g."""
    weights, images = normal(5, 7, 1), normal(2, 5, 7, 1)
    apply = lambda v, x: (jax.nn.relu(x) * v).sum((1, 2, 3))  # noqa: E731
    return (apply, weights, images), np.maximum(images, 0), np.asarray(weights)


def test_layer_cam_of_one_channel_is_its_positive_part():
    given, activation, slope = _one_channel()
    found = traced(attribution.layer_cam, *given, score=whole, layer="relu_1")
    np.testing.assert_allclose(found[..., None], np.maximum(slope, 0) * activation, rtol=1e-6)


def test_grad_cam_plus_plus_of_one_channel_is_the_closed_form_of_the_paper():
    given, activation, g = _one_channel()
    for epsilon in (0.0, 1e-3):
        alpha = g**2 / (2 * g**2 + g**3 * activation.sum((1, 2), keepdims=True) + epsilon)
        weight = (alpha * np.maximum(g, 0)).sum((1, 2), keepdims=True)
        options = {"score": whole, "layer": "relu_1", "epsilon": epsilon}
        found = traced(attribution.grad_cam_plus_plus, *given, **options)
        np.testing.assert_allclose(found[..., None], np.maximum(weight * activation, 0), rtol=1e-4)


def test_grad_cam_plus_plus_does_not_lose_small_gradients():
    """For gradients near zero α is ½; squares of 1e-25 would be rounded to 0."""
    (apply, weights, images), activation, g = _one_channel()
    given = (attribution.grad_cam_plus_plus, apply, 1e-25 * weights, images)
    found = traced(*given, score=whole, layer="relu_1")
    expected = np.maximum(g, 0).sum() / 2 * activation
    np.testing.assert_allclose(1e25 * found[..., None], expected, rtol=1e-4)


def test_occlusion_of_a_linear_network_against_loops():
    """Odd sizes, windows cut at the border, gaps between windows where the stride is longer."""
    images, weights = uniform(2, 7, 5, 3), normal(7, 5, 3)
    baseline = np.array([0.1, 0.5, 0.9], np.float32)
    for window, stride in [((3, 2), (2, 1)), ((2, 2), (3, 2))]:
        loss = ((np.asarray(images) - baseline) * weights).sum(-1)
        total, count = np.zeros((2, 7, 5)), np.zeros((7, 5))
        for top in range(0, 7 - window[0] + stride[0], stride[0]):
            for left in range(0, 5 - window[1] + stride[1], stride[1]):
                inside = np.s_[top : top + window[0], left : left + window[1]]
                total[:, *inside] += loss[:, *inside].sum((1, 2), keepdims=True)
                count[inside] += 1
        options = {"score": whole, "window": window, "stride": stride, "baseline": baseline}
        found = attribution.occlusion(lambda v, x: (x * v).sum((1, 2, 3)), weights, images, **options)
        np.testing.assert_allclose(found[..., 0], total / np.maximum(count, 1), rtol=1e-4, atol=1e-5)


def test_occlusion_covers_an_eighth_at_half_steps_where_nothing_is_said():
    given = (attribution.occlusion, lambda v, x: x.mean((1, 2)), None, uniform(1, 17, 24, 3), jnp.array([1]))
    np.testing.assert_array_equal(traced(*given), traced(*given, window=(2, 3), stride=(1, 1)))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("occlusion", {"window": 12}, r"window is \(12, 12\): expected at most .*\(13, 11\)"),
        ("occlusion", {"window": (2, 0)}, r"window is \(2, 0\): expected a positive"),
        ("occlusion", {"window": 2, "stride": 0}, "stride is 0: expected a positive"),
        ("occlusion", {"window": 2, "baseline": jnp.ones(2)}, r"baseline has shape \(2,\)"),
        ("integrated_gradients", {"num_steps": 0}, "num_steps is 0: expected 1 or more"),
        ("smooth_grad", {"key": jax.random.key(0), "num_samples": 0}, "num_samples is 0"),
        ("smooth_grad", {"key": jax.random.key(0), "noise_level": -0.1}, "noise_level is -0.1"),
        ("grad_cam", {"layer": "relu_1", "interpolation": "cubic"}, "interpolation is 'cubic'"),
        ("guided_grad_cam", {"layer": "relu_1", "interpolation": "area"}, "interpolation is"),
        ("guided_grad_cam_plus_plus", {"layer": "relu_1", "interpolation": "area"}, "interpolation is"),
        ("layer_cam", {"layer": "dense_1"}, r"'dense_1' .* has no spatial axes"),
    ],
)
def test_what_cannot_be_done_raises(name, options, message, network):
    with pytest.raises(ValueError, match=message):
        vx.attribute(name, *network, jnp.zeros((1, 13, 11, 3)), 0, **options)


def test_cam_layer_is_the_map_that_is_reduced_last():
    shape = jax.ShapeDtypeStruct((2, 13, 11, 3), jnp.float32)
    for style, expected in [("nnx", "relu_2"), ("linen", "relu_2"), ("plain", "relu_1")]:
        apply, variables = networks.ALL[style]()
        assert attribution.cam_layer(layers(apply, variables, shape)) == expected
    with pytest.raises(ValueError, match=r"no layer of this network has rows and columns.*with_grid\("):
        attribution.cam_layer(layers(lambda v, x: x.mean((1, 2)), None, shape))


def test_cam_layer_has_positions_where_some_layer_has():
    apply, variables = classifiers.functionalize(classifiers.LeNet(rngs=nnx.Rngs(0)))
    shape = jax.ShapeDtypeStruct((2, 28, 28, 1), jnp.float32)
    assert attribution.cam_layer(layers(apply, variables, shape)) == "conv_2"  # conv_3 leaves 1 × 1


def test_sobel_against_scipy():
    images = uniform(2, 6, 9, 3)
    found = attribution.sobel_edges(None, None, images)
    for n in range(2):
        channels = [np.asarray(images[n, :, :, c], np.float64) for c in range(3)]
        expected = sum(
            np.hypot(ndimage.sobel(c, 0, mode="nearest"), ndimage.sobel(c, 1, mode="nearest"))
            for c in channels
        )
        np.testing.assert_allclose(found[n], expected, rtol=1e-4)


def test_random_map_depends_on_the_key_only(key):
    images = jnp.zeros((2, 3, 4, 3))
    first = attribution.random_map(None, None, images, key=key)
    np.testing.assert_array_equal(first, attribution.random_map(None, None, images + 1, key=key))
    assert not np.array_equal(first, attribution.random_map(None, None, images, key=jax.random.key(1)))
    assert not np.array_equal(first[0], first[1])


def test_center_gaussian_is_a_normal_density_along_each_axis():
    found = attribution.center_gaussian(None, None, jnp.zeros((2, 5, 8, 3)))[1]
    down, across = (stats.norm.pdf(np.arange(n), (n - 1) / 2, 5 / 4) for n in (5, 8))
    expected = np.outer(down, across) * 2 * np.pi * (5 / 4) ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    narrow = attribution.center_gaussian(None, None, jnp.zeros((1, 5, 8, 3)), sigma=0.5)
    assert narrow.mean() < found.mean()
    with pytest.raises(ValueError, match="sigma is -1"):
        attribution.center_gaussian(None, None, jnp.zeros((1, 5, 8, 3)), sigma=-1.0)


def test_object_segmentation_covers_both_colors_of_an_object():
    images = jnp.full((2, 14, 11, 3), 0.8)
    images = images.at[:, 4:9, 3:6].set(jnp.array([0.9, 0.1, 0.1])).at[:, 4:9, 6:8].set(0.2)
    expected = jnp.zeros((2, 14, 11)).at[:, 4:9, 3:8].set(1.0)
    np.testing.assert_array_equal(attribution.object_segmentation(None, None, images), expected)


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
