"""Backward rules against hand-computed values, a second implementation, and every enclosing call."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transforms import networks
from tests.transforms.test_activations import straight_through
from vexplain.transforms import DECONVNET, GUIDED, RESAMPLED_STRIDE, matched_layers, read, with_rules

SHAPE = (3, 13, 11, 3)


@pytest.fixture
def images(key):
    return jax.random.uniform(key, SHAPE)


def pulled_back(fn, variables, images, rules=None, **options):
    fn = with_rules(fn, rules, **options) if rules is not None else fn
    return _gradient(fn, variables, images)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(fn, variables, images):
    return jax.grad(lambda x: fn(variables, x)[:, 0].sum())(images)


def one_conv(variables, images):
    """Convolution of ones, ReLU, then five +1 and three -1 (channel first), ReLU."""
    kernel, dense = variables
    x = jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=networks.NHWC)
    x = jax.nn.relu(x + jnp.array([-50.0, -75.0]))
    return jax.nn.relu(jnp.moveaxis(x, -1, 1).reshape(len(x), 8) @ dense)


ONE_CONV = (
    jnp.ones((3, 3, 1, 2)),
    jnp.tile(jnp.array([1.0, 1, 1, 1, 1, -1, -1, -1])[:, None], (1, 4)),
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (GUIDED, [[0, 1, 1, 1], [1, 3, 3, 2], [1, 3, 3, 2], [1, 2, 2, 1]]),
        (DECONVNET, [[2, 3, 3, 1], [3, 5, 5, 2], [3, 5, 5, 2], [1, 2, 2, 1]]),
    ],
)
def test_hand_computed_values(rule, expected):
    """The constant-weight model of Captum's tests, computed by hand."""
    images = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(pulled_back(one_conv, ONE_CONV, images, rule)[0, :, :, 0], expected)


@pytest.mark.parametrize("rule", [GUIDED, DECONVNET, RESAMPLED_STRIDE, GUIDED | RESAMPLED_STRIDE])
@pytest.mark.parametrize("style", ["nnx", "linen", "plain"])
def test_outputs_stay_bit_for_bit(rule, style, images):
    apply, variables = networks.ALL[style]()
    options = {"on_unmatched": "ignore"} if style == "linen" else {}
    ruled = jax.jit(with_rules(apply, rule, **options))
    np.testing.assert_array_equal(ruled(variables, images), jax.jit(apply)(variables, images))
    if style != "linen" or rule is not RESAMPLED_STRIDE:
        assert not np.allclose(
            pulled_back(apply, variables, images, rule, **options), pulled_back(apply, variables, images)
        )


def test_guided_equals_a_network_written_with_guided_relus(images):
    @jax.custom_vjp
    def guided(x):
        return jnp.maximum(x, 0)

    guided.defvjp(lambda x: (guided(x), x), lambda x, g: (g * (x > 0) * (g > 0),))
    apply, variables = networks.plain_network()
    kernel, bias, dense = variables

    def by_hand(variables, images):
        x = jax.lax.conv_general_dilated(
            images, kernel, (3, 2), ((2, 1), (0, 2)), dimension_numbers=networks.NHWC
        )
        return guided(x + bias).max((1, 2)) @ dense

    np.testing.assert_array_equal(
        pulled_back(apply, variables, images, GUIDED), pulled_back(by_hand, variables, images)
    )


def test_guided_is_the_gradient_where_all_weights_are_positive(images):
    apply, variables = networks.plain_network()
    positive = jax.tree.map(jnp.abs, variables)
    np.testing.assert_array_equal(
        pulled_back(apply, positive, images, GUIDED), pulled_back(apply, positive, images)
    )


def test_every_way_to_write_a_relu_is_found(images):
    @jax.custom_jvp
    def own_relu(x):
        return jnp.maximum(x, 0)

    own_relu.defjvp(lambda xs, ts: (own_relu(*xs), ts[0] * (xs[0] > 0)))
    ways = [
        jax.nn.relu,
        own_relu,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.maximum(0.0, x),
        lambda x: jnp.where(x > 0, x, 0.0),
        lambda x: jnp.clip(x, 0),
        lambda x: jnp.where(x <= 0, 0, x),
        lambda x: jnp.where(jnp.less(0, x), x, 0),
        lambda x: (x + abs(x)) / 2,
        lambda x: -jnp.minimum(-x, 0),
        lambda x: jnp.maximum(x, np.zeros(3, np.float32)),
        lambda x: x * (x > 0),
        lambda x: jnp.maximum(x, jnp.zeros_like(x)),
        jax.jit(lambda x: jax.lax.max(x, 0.0)),
    ]
    expected = -2.0 * (np.asarray(images) > 0.5)
    for relu in ways:
        score = lambda v, x, relu=relu: -2 * relu(x - 0.5).sum((1, 2))  # noqa: E731
        assert matched_layers(score, GUIDED, None, images) == {"GUIDED": ("relu_1",)}
        np.testing.assert_array_equal(
            jax.jit(jax.grad(lambda x, s=score: s(None, x).sum()))(images), expected
        )
        ruled = jax.jit(jax.grad(lambda x, s=score: with_rules(s, GUIDED)(None, x).sum()))(images)
        np.testing.assert_array_equal(ruled, np.zeros_like(images))


def _explicit_resampled_stride(kernel, cotangent, size, stride, padding):
    """The rule in NumPy loops: enlarge by nearest neighbors, correlate with the kernel at stride 1."""
    (lead, trail), taps = padding, kernel.shape[0]
    full = size + lead + trail - taps + 1
    index = np.floor((np.arange(full) + 0.5) * len(cotangent) / full).astype(int)
    enlarged = cotangent[index]
    sent = np.zeros(size + lead + trail)
    for i in range(full):
        sent[i : i + taps] += kernel * enlarged[i]
    return sent[lead : lead + size]


def test_resampled_stride_against_loops(key):
    kernel, signal = jax.random.normal(key, (4,)), jax.random.uniform(key, (1, 15, 1, 1))
    padding = (2, 1)

    def apply(variables, images):
        out = jax.lax.conv_general_dilated(
            images, variables[:, None, None, None], (3, 1), (padding, (0, 0)), dimension_numbers=networks.NHWC
        )
        return out[:, :, 0, 0]

    ruled = with_rules(apply, RESAMPLED_STRIDE)
    shape = jax.eval_shape(apply, kernel, signal).shape
    cotangent = np.random.default_rng(9).normal(size=shape).astype(np.float32)
    sent = jax.jit(lambda x, g: jax.vjp(lambda x: ruled(kernel, x), x)[1](g)[0])(signal, cotangent)
    expected = _explicit_resampled_stride(np.array(kernel), np.array(cotangent[0]), 15, 3, padding)
    np.testing.assert_allclose(sent[0, :, 0, 0], expected, rtol=1e-5, atol=1e-6)


def test_resampled_stride_keeps_the_gradient_of_the_weights(images):
    apply, variables = networks.plain_network()

    def gradient(fn):
        return jax.jit(jax.grad(lambda v: fn(v, images).sum()))(variables)

    for ruled, plain in zip(gradient(with_rules(apply, RESAMPLED_STRIDE)), gradient(apply), strict=True):
        np.testing.assert_array_equal(ruled, plain)


def test_resampled_stride_fills_the_lattice_of_a_large_first_convolution():
    """VGG-F's first layer: 224 pixels, kernel 11, stride 4: 54 positions, 214 at stride 1."""
    kernel = jax.random.normal(jax.random.key(0), (11, 11, 1, 2))

    def apply(kernel, images):
        x = jax.lax.conv_general_dilated(images, kernel, (4, 4), "VALID", dimension_numbers=networks.NHWC)
        assert x.shape == (1, 54, 54, 2)
        return x

    images = jnp.ones((1, 224, 224, 1))
    for fn, expected in [(apply, False), (with_rules(apply, RESAMPLED_STRIDE), True)]:
        sent = jax.vjp(lambda x, fn=fn: fn(kernel, x), images)[1](jnp.ones((1, 54, 54, 2)))[0]
        inner = np.asarray(sent[0, 20:-20, 20:-20, 0])
        assert (np.ptp(inner) < 1e-3) == expected


def test_every_strided_convolution_of_a_network_is_matched(images):
    apply, variables = networks.nnx_network()
    found = matched_layers(apply, GUIDED | RESAMPLED_STRIDE, variables, images)
    assert found == {"GUIDED": ("relu_1", "relu_2"), "RESAMPLED_STRIDE": ("conv_1", "conv_2", "conv_3")}


def test_rules_reach_into_scan_remat_cond_and_jit(images):
    def apply(variables, images):
        def step(x, w):
            return jax.checkpoint(lambda x: jax.jit(jax.nn.relu)(x * w))(x), None

        x = jax.lax.scan(step, images, variables)[0]
        x = jax.lax.cond(variables[0] > 0, jax.nn.relu, jnp.negative, x)
        return -x.mean((1, 2))

    def by_hand(variables, images):
        x = images
        for w in variables:
            x = jnp.maximum(x * w, 0)
        return -jnp.maximum(x, 0).mean((1, 2))

    weights = jnp.array([1.0, 2.0, 0.5])
    for rule in (GUIDED, DECONVNET):
        np.testing.assert_allclose(
            pulled_back(apply, weights, images, rule),
            pulled_back(by_hand, weights, images, rule),
            rtol=1e-5,
        )
    assert not pulled_back(apply, weights, images, GUIDED).any()


def test_rules_go_through_vmap_of_vjp_and_compile_once(images):
    apply, variables = networks.plain_network()
    traces = []

    @jax.jit
    def maps(variables, images, seeds):
        traces.append(1)
        _, send = jax.vjp(lambda x: with_rules(apply, GUIDED)(variables, x), images)
        return jax.vmap(send)(seeds)[0]

    seeds = jnp.eye(5)[:4, None, :].repeat(3, 1)
    found = maps(variables, images, seeds)
    assert found.shape == (4, *SHAPE)
    single = jax.jit(jax.grad(lambda x, k: with_rules(apply, GUIDED)(variables, x)[:, k].sum()))
    for k in range(4):
        np.testing.assert_allclose(found[k], single(images, k), rtol=1e-5, atol=1e-6)
    maps(variables, images + 1, seeds)
    assert len(traces) == 1


def test_reading_and_rules_compose_in_either_order(images):
    apply, variables = networks.nnx_network()

    def channel(fn):
        return jax.jit(jax.grad(lambda x: fn(variables, x)[1]["relu_2"][..., 3].sum()))(images)

    inner = channel(read(with_rules(apply, GUIDED | RESAMPLED_STRIDE), ["relu_2"]))
    outer = channel(with_rules(read(apply, ["relu_2"]), GUIDED | RESAMPLED_STRIDE))
    np.testing.assert_allclose(inner, outer, rtol=1e-6)


def test_what_cannot_be_done_raises(images):
    apply, variables = networks.linen_network()
    with pytest.raises(ValueError, match=r"RESAMPLED_STRIDE matches nothing.*conv, dense.*on_unmatched="):
        with_rules(apply, RESAMPLED_STRIDE)(variables, images)
    with pytest.raises(ValueError, match="GUIDED and DECONVNET both match layer 'relu_1'"):
        with_rules(apply, GUIDED | DECONVNET)(variables, images)
    with pytest.raises(ValueError, match="on_uncovered is 'pass'"):
        with_rules(apply, GUIDED, on_uncovered="pass")
    with pytest.raises(ValueError, match="inside a custom_vjp function"):
        with_rules(lambda v, x: straight_through(x), GUIDED)(None, images)
    transposed = lambda v, x: jax.lax.conv_general_dilated(  # noqa: E731
        x, v, (2, 2), "SAME", lhs_dilation=(2, 2), dimension_numbers=networks.NHWC
    )
    with pytest.raises(ValueError, match="transposed convolution"):
        jax.grad(lambda x: with_rules(transposed, RESAMPLED_STRIDE)(jnp.ones((2, 2, 3, 3)), x).sum())(images)


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (jax.nn.gelu, "gelu"),
        (lambda x: jax.nn.gelu(x, approximate=False), "gelu"),
        (jax.nn.silu, "silu"),
        (jnp.tanh, "tanh"),
        (jax.nn.leaky_relu, "leaky_relu"),
        (jax.nn.elu, "elu"),
        (jax.nn.softplus, "softplus"),
        (jnp.abs, "abs"),
        (lambda x: jnp.where(x > 0.3, x, 0.0), "select"),
        (lambda x: x + (x > 0), "step"),
        (jax.nn.hard_silu, "hard_silu"),
    ],
)
def test_activations_that_a_rule_says_nothing_of_raise(activation, name, images):
    def apply(variables, images):
        return jax.nn.relu(activation(images)).mean((1, 2))

    with pytest.raises(ValueError, match=rf'GUIDED says nothing of.*{name}.*on_uncovered="gradient"'):
        with_rules(apply, GUIDED)(None, images)
    kept = pulled_back(apply, None, images, GUIDED, on_uncovered="gradient")
    np.testing.assert_allclose(kept, pulled_back(apply, None, images), rtol=1e-6)


def test_a_network_without_relus_hears_of_its_activations_first(images):
    apply = lambda variables, images: jax.nn.gelu(images).mean((1, 2))  # noqa: E731
    with pytest.raises(ValueError, match=r"GUIDED says nothing of.*gelu_1 \(gelu\).*on_uncovered="):
        with_rules(apply, GUIDED)(None, images)
    with pytest.raises(ValueError, match=r'GUIDED matches nothing.*gelu, pool.*on_unmatched="ignore"'):
        with_rules(apply, GUIDED, on_uncovered="gradient")(None, images)
    kept = pulled_back(apply, None, images, GUIDED, on_uncovered="gradient", on_unmatched="ignore")
    np.testing.assert_allclose(kept, pulled_back(apply, None, images), rtol=1e-6)


def test_help_says_what_each_rule_does_and_in_which_mode():
    for rule in (GUIDED, DECONVNET, RESAMPLED_STRIDE):
        assert rule.name in (rule.__doc__ or "")
        assert rule.name in (with_rules.__doc__ or "")
    assert "reverse mode only" in (with_rules.__doc__ or "")


def test_forward_mode_fails_rather_than_forgets_the_rule(images):
    score = with_rules(lambda v, x: jax.nn.relu(x).sum(), GUIDED)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: score(None, x), (images,), (images,))


def test_softmax_attention_and_gates_are_no_activations(images):
    def apply(variables, images):
        tokens = images.reshape(3, -1, 3)
        attention = jax.nn.softmax(tokens @ jnp.moveaxis(tokens, 1, 2))
        x = jax.nn.relu(attention @ tokens)
        gate = jax.nn.sigmoid(x.mean(1) @ jnp.ones((3, 3)))
        return (x * gate[:, None, :]).mean(1)

    jax.eval_shape(with_rules(apply, GUIDED), None, images)
