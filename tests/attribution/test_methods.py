"""One table of cases for every method: plain, jitted, mapped over, split over devices, compiled once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transforms import networks
from vexplain import attribution
from vexplain.streaming.devices import data_mesh

OPTIONS = {
    attribution.gradient: {},
    attribution.input_x_gradient: {},
    attribution.guided_backprop: {},
    attribution.deconvnet: {},
    attribution.smooth_grad: {"key": jax.random.key(7), "num_samples": 3},
    attribution.integrated_gradients: {"baseline": np.array([0.2, 0.4, 0.6], np.float32), "num_steps": 3},
    attribution.upsampled_activation: {"layer": "relu_1"},
    attribution.grad_cam: {"layer": "relu_1"},
    attribution.grad_cam_plus_plus: {"layer": "relu_1"},
    attribution.layer_cam: {"layer": "relu_1"},
    attribution.guided_grad_cam: {"layer": "relu_1", "interpolation": "nearest"},
    attribution.guided_grad_cam_plus_plus: {"layer": "relu_1"},
    attribution.occlusion: {"window": (5, 4), "stride": (4, 3), "baseline": 0.5},
}
CASES = {method.__name__: functools.partial(method, **options) for method, options in OPTIONS.items()}
DRAWS_FOR_THE_BATCH = ("smooth_grad",)
SPLIT = ("smooth_grad", "integrated_gradients", "guided_grad_cam_plus_plus", "occlusion")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
GENERATOR = np.random.default_rng(0)


def uniform(*shape):
    return jnp.asarray(GENERATOR.uniform(size=shape), jnp.float32)


def normal(*shape):
    return jnp.asarray(GENERATOR.normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def network():
    apply, variables = networks.plain_network()
    return attribution.class_score(apply), variables


@pytest.mark.parametrize("name", CASES)
def test_every_method_alike_plain_jitted_and_mapped(name, network):
    (score, variables), method = network, CASES[name]
    images, targets = uniform(3, 13, 11, 3), jnp.array([4, 0, 2])
    plain = method(score, variables, images, targets)
    assert plain.shape in (images.shape, (*images.shape[:3], 1))
    assert jnp.isfinite(plain).all()
    assert jnp.ptp(plain) > 0
    traces = []

    @jax.jit
    def jitted(variables, images, targets):
        traces.append(1)
        return method(score, variables, images, targets)

    np.testing.assert_allclose(plain, jitted(variables, images, targets), **CLOSE)
    other = jitted(variables, images, targets[::-1])
    assert len(traces) == 1, "new targets are traced again"
    if name != "upsampled_activation":
        assert not np.allclose(plain, other)
    mapped = jax.jit(jax.vmap(lambda x, t: method(score, variables, x[None], t[None])[0]))(images, targets)
    if name in DRAWS_FOR_THE_BATCH:
        first = method(score, variables, images[:1], targets[:1])
        np.testing.assert_allclose(mapped[0], first[0], **CLOSE)
    else:
        np.testing.assert_allclose(mapped, plain, **CLOSE)


@pytest.mark.parametrize("name", SPLIT)
def test_methods_alike_on_one_device_and_on_eight(name, network):
    (score, variables), method = network, CASES[name]
    images, targets = uniform(8, 13, 11, 3), jnp.arange(8) % 5
    method = jax.jit(functools.partial(method, score))
    expected = method(variables, images, targets)
    mesh = data_mesh()
    split = jax.NamedSharding(mesh, jax.P("data"))
    whole = jax.device_put(variables, jax.NamedSharding(mesh, jax.P()))
    compiled = method.lower(whole, jax.device_put(images, split), jax.device_put(targets, split)).compile()
    found = compiled(whole, jax.device_put(images, split), jax.device_put(targets, split))
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert "all-gather" not in compiled.as_text()
    assert "all-reduce" not in compiled.as_text()


@pytest.mark.parametrize("option", ["num_samples", "num_steps", "window"])
def test_memory_is_flat_in_the_number_of_copies(option, network, key):
    score, variables = network
    images, targets = jnp.zeros((4, 13, 11, 3)), jnp.array([0, 1, 2, 3])

    def scratch(**options):
        method, more = {
            "num_samples": (attribution.smooth_grad, {"key": key}),
            "num_steps": (attribution.integrated_gradients, {}),
            "window": (attribution.occlusion, {}),
        }[option]
        maps = jax.jit(lambda *arguments: method(score, *arguments, **more, **options))
        return maps.lower(variables, images, targets).compile().memory_analysis().temp_size_in_bytes

    few, many = ({"window": 10}, {"window": 2}) if option == "window" else ({option: 2}, {option: 200})
    assert scratch(**many) == pytest.approx(scratch(**few), rel=0.05)


def test_attributions_of_a_linear_network_without_biases_sum_to_the_score():
    weights = normal(4 * 5 * 3, 6)
    score = attribution.class_score(lambda v, x: x.reshape(len(x), -1) @ v)
    images, targets = uniform(2, 4, 5, 3), jnp.array([5, 1])
    found = attribution.input_x_gradient(score, weights, images, targets)
    np.testing.assert_allclose(found.sum((1, 2, 3)), score(weights, images, targets), rtol=1e-4)


def test_integrated_gradients_are_complete(network):
    score, variables = network
    images, baseline = uniform(3, 13, 11, 3), jnp.array([0.2, 0.9, 0.5])
    targets = jnp.array([4, 0, 2])
    found = attribution.integrated_gradients(
        score, variables, images, targets, baseline=baseline, num_steps=500
    )
    start = score(variables, jnp.broadcast_to(baseline, images.shape), targets)
    np.testing.assert_allclose(
        found.sum((1, 2, 3)), score(variables, images, targets) - start, rtol=5e-3, atol=1e-3
    )


def test_integrated_gradients_of_a_polynomial_against_its_integral():
    """Of x³, (x - x') ∫ 3 (x' + α (x - x'))² dα is x³ - x'³; the midpoint rule misses (x - x')³ / (4 n²)."""
    images = uniform(2, 3, 2, 1)
    score = lambda variables, x, targets: (x**3).sum((1, 2, 3))  # noqa: E731
    for steps in (1, 4):
        found = attribution.integrated_gradients(score, None, images, None, baseline=0.2, num_steps=steps)
        exact = images**3 - 0.2**3 - (images - 0.2) ** 3 / (4 * steps**2)
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6)


def test_smooth_grad_of_a_quadratic_has_the_mean_and_spread_of_its_noise(key):
    """The gradient of x² / 2 is x + σ ε: its mean over n samples is x, give or take σ / √n."""
    images = jnp.stack([jnp.linspace(0.2, 0.7, 600), jnp.linspace(0.1, 1.1, 600)]).reshape(2, 20, 30, 1)
    score = lambda variables, x, targets: (x**2 / 2).sum((1, 2, 3))  # noqa: E731
    found = attribution.smooth_grad(score, None, images, None, key=key, num_samples=25, noise_level=0.4)
    deviation = (found - images).std((1, 2, 3))
    np.testing.assert_allclose(deviation, 0.4 * np.array([0.5, 1.0]) / 5, rtol=0.1)
    none = attribution.smooth_grad(score, None, images, None, key=key, num_samples=2, noise_level=0.0)
    np.testing.assert_allclose(none, images, rtol=1e-6)


def test_grad_cam_of_a_global_average_is_cam():
    kernel = normal(3, 3, 3, 6)
    dense = normal(6, 5)

    def features(images):
        return jax.nn.relu(
            jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=networks.NHWC)
        )

    score = attribution.class_score(lambda v, x: features(x).mean((1, 2)) @ dense)
    images = uniform(2, 7, 5, 3)
    found = attribution.grad_cam(score, None, images, jnp.array([3, 1]), layer="relu_1")
    cam = jax.nn.relu(jnp.einsum("bhwk,kb->bhw", features(images), dense[:, jnp.array([3, 1])]) / 35)
    np.testing.assert_allclose(found[..., 0], cam, rtol=1e-4, atol=1e-6)


def _one_channel():
    """ReLU, then weights of both signs; the score and A and g of its layer."""
    weights = normal(5, 7, 1)
    images = normal(2, 5, 7, 1)
    score = lambda v, x, targets: (jax.nn.relu(x) * v).sum((1, 2, 3))  # noqa: E731
    return score, weights, images, np.maximum(images, 0), np.asarray(weights)


def test_layer_cam_of_one_channel_is_its_positive_part():
    score, weights, images, activation, slope = _one_channel()
    found = attribution.layer_cam(score, weights, images, None, layer="relu_1")
    np.testing.assert_allclose(found, np.maximum(slope, 0) * activation, rtol=1e-6)


def test_grad_cam_plus_plus_of_one_channel_is_the_closed_form_of_the_paper():
    score, weights, images, activation, g = _one_channel()
    for epsilon in (0.0, 1e-3):
        alpha = g**2 / (2 * g**2 + g**3 * activation.sum((1, 2), keepdims=True) + epsilon)
        weight = (alpha * np.maximum(g, 0)).sum((1, 2), keepdims=True)
        found = attribution.grad_cam_plus_plus(score, weights, images, None, layer="relu_1", epsilon=epsilon)
        np.testing.assert_allclose(found, np.maximum(weight * activation, 0), rtol=1e-4)


def test_grad_cam_plus_plus_does_not_lose_small_gradients():
    """For gradients near zero α is ½; squares of 1e-25 would be rounded to 0."""
    score, weights, images, activation, g = _one_channel()
    found = attribution.grad_cam_plus_plus(score, 1e-25 * weights, images, None, layer="relu_1")
    expected = np.maximum(g, 0).sum() / 2 * activation
    np.testing.assert_allclose(1e25 * found, expected, rtol=1e-4)


def test_occlusion_of_a_linear_network_against_loops():
    """Odd sizes, windows cut at the border, gaps between windows where the stride is longer."""
    images, weights = uniform(2, 7, 5, 3), normal(7, 5, 3)
    score = lambda v, x, targets: (x * v).sum((1, 2, 3))  # noqa: E731
    baseline = np.array([0.1, 0.5, 0.9], np.float32)
    for window, stride in [((3, 2), (2, 1)), ((2, 2), (3, 2))]:
        loss = ((np.asarray(images) - baseline) * weights).sum(-1)
        total, count = np.zeros((2, 7, 5)), np.zeros((7, 5))
        for top in range(0, 7 - window[0] + stride[0], stride[0]):
            for left in range(0, 5 - window[1] + stride[1], stride[1]):
                inside = np.s_[top : top + window[0], left : left + window[1]]
                total[:, *inside] += loss[:, *inside].sum((1, 2), keepdims=True)
                count[inside] += 1
        found = attribution.occlusion(
            score, weights, images, None, window=window, stride=stride, baseline=baseline
        )
        np.testing.assert_allclose(found[..., 0], total / np.maximum(count, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (attribution.occlusion, {"window": 12}, r"window is \(12, 12\): expected at most .*\(13, 11\)"),
        (attribution.occlusion, {"window": (2, 0)}, r"window is \(2, 0\): expected a positive"),
        (attribution.occlusion, {"window": 2, "stride": 0}, "stride is 0: expected a positive"),
        (attribution.occlusion, {"window": 2, "baseline": jnp.ones(2)}, r"baseline has shape \(2,\)"),
        (attribution.integrated_gradients, {"num_steps": 0}, "num_steps is 0: expected 1 or more"),
        (attribution.smooth_grad, {"key": jax.random.key(0), "num_samples": 0}, "num_samples is 0"),
        (attribution.smooth_grad, {"key": jax.random.key(0), "noise_level": -0.1}, "noise_level is -0.1"),
        (attribution.grad_cam, {"layer": "relu_1", "interpolation": "cubic"}, "interpolation is 'cubic'"),
        (attribution.guided_grad_cam, {"layer": "relu_1", "interpolation": "area"}, "interpolation is"),
        (attribution.layer_cam, {"layer": "dense_1"}, r"'dense_1' .* has no spatial axes"),
    ],
)
def test_what_cannot_be_done_raises(method, options, message, network):
    with pytest.raises(ValueError, match=message):
        method(*network, jnp.zeros((1, 13, 11, 3)), jnp.array([0]), **options)


def test_no_public_method_is_missing_from_the_table():
    others = {"cam_layer", "class_score", "guided_filter"}  # no attribution
    others |= {"random_map", "sobel_edges", "center_gaussian", "object_segmentation"}  # no network
    others |= {name for name in vars(attribution) if name.endswith("_heatmaps")}
    public = {name for name, value in vars(attribution).items() if callable(value)}
    assert public - others == set(CASES)
