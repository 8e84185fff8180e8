"""Closed forms, and the papers' algorithms written out as loops, in float64 to 1e-10."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from scipy import ndimage

import vexplain as vx
from tests.transforms import networks
from vexplain.attribution import superpixels
from vexplain.attribution.calling import Network
from vexplain.attribution.full_gradient import full_gradient
from vexplain.attribution.integrated_paths import blurred

EXACT = {"rtol": 1e-10, "atol": 1e-12}
SIGNED = {"interpolation": None, "is_rectified": False}
GENERATOR = np.random.default_rng(0)
TARGETS = np.array([1, 0])


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def whole(outputs, targets):
    return outputs


def uniform(*shape):
    return GENERATOR.uniform(size=shape)


def normal(*shape):
    return GENERATOR.normal(size=shape)


def explained(method, apply, variables, images, targets=TARGETS, **options):
    """Inside a caller's jit, where images of any range are explained; options stay as they are."""
    return jax.jit(lambda v, x, t: vx.attribute(method, apply, v, x, t, **options))(
        variables, images, targets
    )


# -------------------------------------------------------------------------- class activation maps


def averaged(variables, images):
    """A ReLU, a global average and a linear classifier: all follows from its activations."""
    return jax.nn.relu(images).mean((1, 2)) @ variables


@pytest.fixture(scope="module")
def given():
    """Images of four channels, of both signs, and a classifier; the activations are the positive part."""
    images = normal(2, 5, 3, 4)
    return normal(4, 3), images, np.maximum(images, 0)


def test_hires_cam_and_xgrad_cam_of_a_global_average_are_grad_cam(given):
    dense, images, activations = given
    expected = (activations * dense[:, TARGETS].T[:, None, None] / 15).sum(-1, keepdims=True)
    for method in ("grad_cam", "hires_cam", "xgrad_cam"):
        found = explained(method, averaged, dense, images, layer="relu_1", **SIGNED)
        np.testing.assert_allclose(found, expected, **EXACT)


def test_hires_cam_of_a_dense_head_sums_to_the_score_and_xgrad_cam_too():
    """Both Σ over positions of A_k g_k: the one in place, the other spread over the activation."""
    dense, images = normal(60, 3), normal(2, 5, 3, 4)
    apply = lambda v, x: jax.nn.relu(x).reshape(len(x), -1) @ v  # noqa: E731
    scores = apply(dense, images)[np.arange(2), TARGETS]
    for method in ("hires_cam", "xgrad_cam"):
        found = explained(method, apply, dense, images, layer="relu_1", **SIGNED)
        np.testing.assert_allclose(found.sum((1, 2, 3)), scores, **EXACT)


@pytest.mark.parametrize("sign", [1, -1])
def test_ablation_cam_of_a_linear_head(given, sign):
    """The weight of channel k is its share of the score, whose sign does not turn the map over."""
    dense, images, activations = given
    shares = activations.mean((1, 2)) * sign * dense[:, TARGETS].T
    weights = shares / abs(shares.sum(1, keepdims=True))
    expected = np.maximum((activations * weights[:, None, None]).sum(-1), 0)
    for at_once in (1, 3):
        options = {"layer": "relu_1", "channels_at_once": at_once}
        found = explained("ablation_cam", averaged, sign * dense, images, **options)
        np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.parametrize("is_softmaxed", [False, True])
def test_score_cam_against_a_loop_over_channels(given, is_softmaxed):
    dense, images, activations = given
    weights = np.zeros((2, 4))
    for k in range(4):
        low, high = (f(activations[..., k], (1, 2), keepdims=True) for f in (np.min, np.max))
        masked = images * ((activations[..., k] - low) / (high - low))[..., None]
        weights[:, k] = (averaged(dense, masked) - averaged(dense, 0 * images))[np.arange(2), TARGETS]
    if is_softmaxed:
        weights = np.exp(weights) / np.exp(weights).sum(1, keepdims=True)
    expected = np.maximum((activations * weights[:, None, None]).sum(-1), 0)
    options = {"layer": "relu_1", "is_softmaxed": is_softmaxed, "channels_at_once": 3}
    np.testing.assert_allclose(explained("score_cam", averaged, dense, images, **options), expected, **EXACT)


def test_eigen_cam_is_the_leading_singular_map_with_the_sign_of_its_sum():
    """Of activations of rank one, the map itself, also where their mean is negative."""
    apply = lambda v, x: (x + v).mean((1, 2))  # noqa: E731
    one = np.abs(normal(5, 3, 1)) * normal(4)
    images = np.stack([one, -one, normal(5, 3, 4)])
    found = explained("eigen_cam", lambda v, x: apply(v, checkpoint_name(x, "here")),
                      np.zeros(4), images, np.zeros(3, int), layer="here", **SIGNED)  # fmt: skip
    np.testing.assert_allclose(found[0], np.linalg.norm(one, axis=-1, keepdims=True), **EXACT)
    np.testing.assert_allclose(found[1], found[0], **EXACT)
    flat = images[2].reshape(15, 4)
    expected = flat @ np.linalg.svd(flat)[2][0]
    np.testing.assert_allclose(found[2].ravel(), np.sign(expected.sum()) * expected, **EXACT)


def test_finer_cam_is_the_difference_of_two_maps(given):
    dense, images, _ = given
    options = {"layer": "relu_1", **SIGNED}
    finer, own, other = (
        explained("grad_cam", averaged, dense, images, targets, score=score, **options)
        for targets, score in ((TARGETS, vx.against(2)), (TARGETS, vx.logit), (TARGETS * 0 + 2, vx.logit))
    )
    np.testing.assert_allclose(finer, own - other, **EXACT)


def test_maps_of_channels_on_tokens():
    apply, variables = networks.attention_network()
    images = jnp.asarray(uniform(2, 13, 11, 3), jnp.float32)
    names = ("hires_cam", "xgrad_cam", "score_cam", "ablation_cam", "eigen_cam")

    @jax.jit
    def maps(variables, images):
        return {n: vx.attribute(n, apply, variables, images, TARGETS, interpolation=None) for n in names}

    for name, found in maps(variables, images).items():
        assert found.shape == (2, 4, 3), name
        assert jnp.isfinite(found).all(), name


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam"])
def test_memory_does_not_depend_on_the_number_of_channels(name):
    def scratch(channels):
        def apply(variables, images):
            x = lax.conv_general_dilated(images, variables, (8, 8), "VALID", dimension_numbers=networks.NHWC)
            return jax.nn.relu(x).mean((1, 2))[:, :3]

        given = (jnp.ones((8, 8, 3, channels)), jnp.zeros((4, 32, 32, 3)), jnp.array([0, 1, 2, 0]))
        maps = jax.jit(lambda v, x, t: vx.attribute(name, apply, v, x, t, interpolation=None))
        return maps.lower(*given).compile().memory_analysis().temp_size_in_bytes

    image = 4 * 32 * 32 * 3 * 8  # bytes of the batch, which a mask of every channel would take 24 times more
    assert scratch(32) - scratch(8) < 3 * image


# --------------------------------------------------------------------------------------- FullGrad


def relu_network(variables, images):
    """A mean, convolution, batch normalization, pooling and two dense layers, all with biases."""
    v = variables
    x = (images - v["mean"]) / 0.3
    x = lax.conv_general_dilated(x, v["conv"], (1, 1), "SAME", dimension_numbers=networks.NHWC) + v["bias"]
    x = (x - v["center"]) * v["scale"] / jnp.sqrt(v["variance"] + 1e-5) + v["shift"]
    x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(x.reshape(len(x), -1) @ v["dense"] + v["offset"])
    return x @ v["scores"] + v["last"]


def test_full_gradient_of_a_relu_network_is_its_score():
    shapes = {"mean": 3, "bias": 4, "center": 4, "scale": 4, "shift": 4, "offset": 6, "last": 3}
    variables = {name: normal(size) for name, size in shapes.items()}
    variables |= {"conv": normal(3, 3, 3, 4), "dense": normal(24, 6), "scores": normal(6, 3)}
    variables |= {"variance": uniform(4) + 0.5}
    images = uniform(2, 6, 4, 3)

    @jax.jit
    def parts(variables, images):
        found = full_gradient(Network(relu_network, variables, vx.logit), images, TARGETS)
        return found.image, {layer.name: product for layer, product, _ in found.biases}

    image, biases = parts(variables, images)
    assert set(biases) == {"conv_1", "norm_1", "dense_1", "dense_2"}
    total = image.sum((1, 2, 3)) + sum(p.reshape(2, -1).sum(1) for p in biases.values())
    np.testing.assert_allclose(total, relu_network(variables, images)[np.arange(2), TARGETS], **EXACT)
    slope = jax.grad(lambda v: relu_network(v, images)[np.arange(2), TARGETS].sum())(variables)
    expected = sum((slope[n] * variables[n]).sum() for n in ("shift", "center"))
    np.testing.assert_allclose(biases["norm_1"].sum(), expected, **EXACT)


def test_full_gradient_in_a_scan_and_without_what_goes_to_a_divisor():
    """Layers of one form in a loop have a bias each; the number that guards a deviation is none."""
    kernels, biases, images = normal(3, 4, 4), normal(3, 4), uniform(2, 2, 3, 4)

    def apply(variables, images):
        def layer(x, own):
            return jax.nn.relu(x @ own[0] + own[1]), None

        x = lax.scan(layer, images, variables)[0]
        return x.mean((1, 2)) / jnp.sqrt(0 * (images**2).sum((1, 2)) + 4.0)

    def parts(variables, images):
        found = full_gradient(Network(apply, variables, vx.logit), images, TARGETS)
        return found.image, [product for _, product, _ in found.biases]

    image, terms = jax.jit(parts)((kernels, biases), images)
    assert len(terms) == 3
    total = image.sum((1, 2, 3)) + sum(p.reshape(2, -1).sum(1) for p in terms)
    np.testing.assert_allclose(total, apply((kernels, biases), images)[np.arange(2), TARGETS], **EXACT)


def test_a_bias_that_cannot_be_reached_is_named():
    """Within a function with a derivative of its own, whose part of the score would be missing."""

    @jax.custom_vjp
    def dense(x):
        return x @ np.ones((3, 2)) + np.arange(2.0)

    dense.defvjp(lambda x: (dense(x), None), lambda _, g: (g @ np.ones((2, 3)),))
    with pytest.raises(ValueError, match="layer 'dense_1' adds its bias inside a custom_vjp function"):
        jax.eval_shape(
            lambda x: vx.attribute("full_grad", lambda v, x: dense(x).mean((1, 2)), None, x, TARGETS),
            jnp.zeros((2, 4, 5, 3)),
        )


# -------------------------------------------------------------------------------------- attention


def transformer(variables, images, added=()):
    """Two layers over a class token and 2 × 3 pixels: the scores, and the attention with what is added to it.

    Heads are joined with the batch, and the softmax is written out.
    """
    x = jnp.concatenate([jnp.broadcast_to(variables["token"], (len(images), 1, 4)),
                         images.reshape(len(images), 6, 4)], 1)  # fmt: skip
    found = []
    for n in range(2):
        parts = (x @ variables["qkv"][n]).reshape(len(x), 7, 3, 2, 2).transpose(2, 0, 3, 1, 4)
        query, key, value = parts.reshape(3, len(x) * 2, 7, 2)
        shares = jnp.exp(query @ key.transpose(0, 2, 1))
        shares = shares / shares.sum(-1, keepdims=True)
        shares = shares.reshape(len(x), 2, 7, 7)
        found.append(shares + added[n] if added else shares)
        mixed = (found[-1].reshape(-1, 7, 7) @ value).reshape(len(x), 2, 7, 2).transpose(0, 2, 1, 3)
        x = x + jnp.tanh(mixed.reshape(len(x), 7, 4))
    read = x[:, 0] if variables["is_first"] is None else x.mean(1)
    return read @ variables["scores"], found


def transformer_variables(scale=1.0, is_first=None):
    made = {"token": normal(1, 1, 4), "qkv": scale * normal(2, 4, 12), "scores": normal(4, 3)}
    return made | {"is_first": is_first}


def scores_of(variables, images):
    return transformer(variables, images)[0]


@pytest.mark.parametrize("is_first", [None, 0.0])
def test_rollout_of_uniform_attention(is_first):
    """R = .5^L I + (1 - .5^L) / n: the class token's row, or the mean of all rows."""
    variables = transformer_variables(0.0, is_first)
    variables["qkv"][:, :, 8:] = normal(2, 4, 4)  # values alone
    found = explained("attention_rollout", scores_of, variables, uniform(2, 2, 3, 4), interpolation=None)
    expected = 0.75 / 7 if is_first is None else 1 / 7
    np.testing.assert_allclose(found, np.full((2, 2, 3), expected), **EXACT)


@pytest.mark.parametrize("is_first", [None, 0.0])
def test_generic_attention_and_rollout_of_two_layers(is_first):
    """The gradient by the probabilities is that by what is added to them."""
    variables, images = transformer_variables(1.0, is_first), uniform(2, 2, 3, 4)
    shares = transformer(variables, images)[1]
    score = lambda added: vx.logit(transformer(variables, images, added)[0], TARGETS).sum()  # noqa: E731
    gradients = jax.jit(jax.grad(score))([np.zeros((2, 2, 7, 7))] * 2)
    first, second = (np.maximum(a * g, 0).mean(1) for a, g in zip(shares, gradients, strict=True))
    identity = np.eye(7)
    expected = (identity + second) @ (identity + first)
    rolled = (identity + shares[1].mean(1)) @ (identity + shares[0].mean(1)) / 4
    for name, rows in (("generic_attention", expected), ("attention_rollout", rolled)):
        row = rows[:, 0] if is_first is None else rows.mean(1)
        found = explained(name, scores_of, variables, images, interpolation=None)
        np.testing.assert_allclose(found, row[:, 1:].reshape(2, 2, 3), **EXACT)


def of_jax(variables, images):
    x = images.reshape(len(images), 8, 2, 2)
    return jax.nn.dot_product_attention(x, x, x).mean((1, 2))


@jax.checkpoint
def twice(x):
    return x + jax.nn.softmax(x @ x.swapaxes(1, 2) + 0.1 * np.eye(8)) @ x


def in_a_loop(variables, images):
    x = images.reshape(len(images), 8, 4)
    return lax.scan(lambda x, _: (twice(x), None), x, length=2)[0].mean(1)


@pytest.mark.parametrize("apply", [of_jax, in_a_loop])
def test_attention_is_found_in_other_spellings(apply):
    """Rows of the rollout sum to 1, and so does their mean."""
    found = explained("attention_rollout", apply, None, uniform(2, 2, 4, 4), interpolation=None)
    np.testing.assert_allclose(found.sum((1, 2)), 1, rtol=1e-6)  # that of JAX takes its softmax in float32
    assert np.ptp(found) > 1e-3


def windows(variables, images):
    x = images.reshape(len(images), 2, 2, 2, 4).swapaxes(1, 2).reshape(-1, 4, 4)
    return (jax.nn.softmax(x @ x.swapaxes(1, 2)) @ x).reshape(len(images), 8, 4).mean(1)


def channels(variables, images):
    x = images.reshape(len(images), -1, 4)
    return (x @ jax.nn.softmax(x.swapaxes(1, 2) @ x)).mean(1)


def pooled(variables, images):
    x = images.reshape(len(images), -1, 4)
    return (jax.nn.softmax(jnp.einsum("qc,ntc->nqt", variables, x)) @ x).mean(1)


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (averaged, "no attention was found in this network.*such as grad_cam"),
        (windows, "not one of all tokens of an image to all, but within windows"),
        (channels, "not one of all tokens of an image to all, but within windows, along channels"),
        (pooled, "or of queries that have no place in the image"),
    ],
)
def test_attention_of_another_kind_is_refused(apply, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            lambda x: vx.attribute("generic_attention", apply, np.ones((4, 4)), x, TARGETS),
            jnp.zeros((2, 2, 4, 4)),
        )


# ----------------------------------------------------------------- noise, paths, regions, embeddings


def test_square_grad_is_smooth_grad_squared_plus_var_grad(key):
    apply, images = lambda v, x: (x**4 * v).sum((1, 2, 3)), uniform(2, 3, 2, 2)

    @jax.jit
    def maps(weights, images):
        options = {"score": whole, "key": key, "num_samples": 7}
        names = ("smooth_grad", "square_grad", "var_grad")
        return [vx.attribute(n, apply, weights, images, TARGETS, **options) for n in names]

    mean, square, variance = maps(normal(3, 2, 2), images)
    np.testing.assert_allclose(square, mean**2 + variance, **EXACT)
    assert variance.min() > 0


def bent(variables, images):
    return (jnp.sin(images * variables) * images[:, ::-1]).sum((1, 2, 3))


def guided_by_loops(slope, image, start, num_steps, fraction, distance):
    """Algorithm 1: groups of smallest gradients move to the front of the corridor, as far as is needed."""
    x, total = start.copy(), np.zeros_like(image)
    whole_way = np.abs(image - start).sum()
    for t in range(num_steps):
        way, gradient = (t + 1) / num_steps, slope(x)
        low, high = (start + min(max(a, 0), 1) * (image - start) for a in (way - distance, way + distance))
        before, open_ = x.copy(), np.ones(x.shape, bool)
        is_behind = (x - start) / (image - start) < max(way - distance, 0)
        x[is_behind] = low[is_behind]
        while (left := np.abs(x - image).sum() - (1 - way) * whole_way) > 1e-12:
            open_ &= (high - x) * np.sign(image - start) > 0
            size = np.where(open_, np.abs(gradient), np.inf)
            chosen = open_ & (size <= np.quantile(size, fraction, method="lower"))
            room = np.abs(high - x)[chosen].sum()
            x[chosen] += min(left / room, 1) * (high - x)[chosen]
            open_ &= ~chosen
        total += gradient * (x - before)
    return total


@pytest.mark.parametrize(("fraction", "distance"), [(0.25, 0.3), (0.1, 1.0), (0.6, 0.05)])
def test_guided_integrated_gradients_against_loops(fraction, distance):
    images, weights = uniform(2, 3, 2, 2), normal(3, 2, 2) * 3
    options = {"num_steps": 5, "fraction": fraction, "max_distance": distance, "baseline": 0.4}
    found = explained("guided_integrated_gradients", bent, weights, images, score=whole, **options)
    slope = jax.jit(jax.grad(lambda x: bent(weights, x[None])[0]))
    for image, own in zip(images, found, strict=True):
        start = np.full_like(image, 0.4)
        expected = guided_by_loops(lambda x: np.asarray(slope(x)), image, start, 5, fraction, distance)
        np.testing.assert_allclose(own, expected, **EXACT)


def test_blur_integrated_gradients_of_a_quadratic_are_complete():
    images, weights = uniform(2, 9, 6, 2), normal(9, 6, 2)
    apply = lambda v, x: (x**2 * v + x[:, ::-1] * x).sum((1, 2, 3))  # noqa: E731
    found = explained(
        "blur_integrated_gradients", apply, weights, images, score=whole, max_sigma=3.0, num_steps=4
    )
    smooth = np.asarray(jax.jit(blurred)(images, 3.0))
    np.testing.assert_allclose(found.sum((1, 2, 3)), apply(weights, images) - apply(weights, smooth), **EXACT)
    by_scipy = ndimage.gaussian_filter(images, (0, 3, 3, 0), mode="reflect", truncate=9)
    np.testing.assert_allclose(smooth, by_scipy, rtol=1e-8)


def test_xrai_against_a_loop_over_regions():
    images, weights = uniform(2, 6, 5, 2), normal(6, 5, 2)
    apply = lambda v, x: (x * v).sum((1, 2, 3))  # noqa: E731
    options = {"score": whole, "num_segments": (2, 9), "num_steps": 1}
    found = explained("xrai", apply, weights, images, **options)
    density = ((images - 0.5) * weights).sum(-1)
    found_by = jax.jit(lambda x: [superpixels(x, count=n).labels for n in (2, 9)])
    scales = [*map(np.asarray, found_by(images))]
    for n in range(2):
        left, expected = np.ones((6, 5), bool), np.zeros((6, 5))
        while left.any():
            regions = [left & (s[n] == label) for s in scales for label in np.unique(s[n])]
            best = max((r for r in regions if r.any()), key=lambda r: density[n][r].mean())
            expected[best] = density[n][best].mean()
            left &= ~best
        np.testing.assert_allclose(found[n, ..., 0], expected, **EXACT)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("xrai", {"segments": np.full((2, 2), 4)}, "segments go from 4 to 4: expected labels from 0 to 3"),
        ("xrai", {"segments": np.zeros((2, 3), int)}, r"segments has shape \(2, 3\)"),
        ("xrai", {"segments": np.zeros((2, 2))}, "dtype float64: expected labels of whole numbers"),
        ("xrai", {"num_segments": (0,)}, r"num_segments is \(0,\)"),
        ("blur_integrated_gradients", {"max_sigma": 0.0}, "max_sigma is 0.0"),
        ("guided_integrated_gradients", {"fraction": 0.0}, "fraction is 0.0"),
        ("score_cam", {"channels_at_once": 0, "layer": "relu_1"}, "channels_at_once is 0"),
    ],
)
def test_what_cannot_be_done_raises(name, options, message):
    with pytest.raises(ValueError, match=message):
        vx.attribute(name, averaged, np.eye(3), np.zeros((1, 2, 2, 3)), 0, **options)


def test_similarity_is_the_cosine_and_explains_an_encoder():
    outputs, vector = normal(3, 4), normal(4)
    expected = outputs @ vector / np.linalg.norm(outputs, axis=1) / np.linalg.norm(vector)
    for other in (vector, np.stack([vector] * 3)):
        found = jax.jit(lambda x, v: vx.similarity(v)(x, None))(outputs, other)
        np.testing.assert_allclose(found, expected, **EXACT)
    slope = jax.jit(jax.grad(lambda x: vx.similarity(vector)(x, None).sum()))(np.zeros((1, 4)))
    np.testing.assert_array_equal(slope, np.zeros((1, 4)))
    encode = lambda v, x: x.mean((1, 2)) @ v  # noqa: E731
    dense, images = normal(4, 4), uniform(2, 3, 2, 4)
    found = vx.gradient(encode, dense, images, score=vx.similarity(vector))
    wanted = jax.jit(jax.grad(lambda x: vx.similarity(vector)(encode(dense, x), None).sum()))(images)
    np.testing.assert_allclose(found, wanted, **EXACT)
    with pytest.raises(ValueError, match=r"vector has shape \(3,\): similarity is for embeddings"):
        vx.gradient(encode, dense, images, score=vx.similarity(vector[:3]))
