"""LRP, AttnLRP and DeepLIFT of transformers and networks of every style; what is refused; the cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.attribution.test_propagation import EXACT, LRP_0, run
from tests.transforms import networks
from vexplain import transforms as t
from vexplain.attribution import attn_lrp, deeplift, lrp, propagate


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


STOP = jax.lax.stop_gradient


def by_gradients(f, x):
    """An activation function whose gradient is its secant."""
    return x * STOP(f(x) / x)


def transformer(
    v, images, *, activation=lambda f, x: f(x), product=lambda f, a, b: f(a, b), held=lambda d: d
):
    """Patches, layer norms without shift, attention, a gated MLP; no bias anywhere."""

    def norm(x):
        centered = x - x.mean(-1, keepdims=True)
        return centered / held(jnp.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6))

    x = jax.lax.conv_general_dilated(images, v["patch"], (2, 2), "VALID", dimension_numbers=networks.NHWC)
    x = x.reshape(len(x), -1, 6)
    q, k, values = (norm(x) @ w for w in v["qkv"])
    logits = product(lambda a, b: jnp.einsum("nqc,nkc->nqk", a, b), q, k)
    x = x + product(lambda a, b: a @ b, jax.nn.softmax(logits / jnp.sqrt(6.0)), values)
    gate, up = (norm(x) @ w for w in v["mlp"])
    x = x + product(lambda a, b: a * b, activation(jax.nn.silu, gate), up) @ v["down"]
    return norm(x)[:, 1] @ v["head"]


@pytest.fixture(scope="module")
def tokens():
    rng = np.random.default_rng(8)
    sizes = {"patch": (2, 2, 3, 6), "qkv": (3, 6, 6), "mlp": (2, 6, 9), "down": (9, 6), "head": (6, 4)}
    return {n: rng.normal(size=s) / 2 for n, s in sizes.items()}, rng.uniform(size=(2, 4, 6, 3))


def halved(f, a, b):
    return (f(a, STOP(b)) + f(STOP(a), b)) / 2


def test_attn_lrp_is_input_times_gradient_of_a_network_written_for_it(tokens):
    """The identities by which its authors compute it, as `stop_gradient` (Achtibat et al., 2024)."""
    rewritten = functools.partial(transformer, activation=by_gradients, product=halved, held=STOP)

    def both(v, x):
        slope = jax.grad(lambda x: rewritten(v, x)[:, 2].sum())(x)
        return attn_lrp(transformer, v, x, 2, composite=t.attention_lrp(0.0)), x * slope

    found, expected = run(both, *tokens)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


def test_cp_lrp_conserves_through_attention(tokens):
    """Nothing goes through the attention weights, and so, without biases, nothing is lost."""
    found = run(lambda v, x: propagate(transformer, v, x, 2, composite=t.conservative_lrp(0.0)), *tokens)
    np.testing.assert_allclose(found.absorbed, 0, atol=1e-11 * np.abs(found.scores).max())


def test_attn_lrp_of_a_softmax_is_input_times_gradient():
    apply = lambda v, x: jax.nn.softmax(x.reshape(len(x), -1))  # noqa: E731

    def both(x):
        s = apply(None, x)
        x = x.reshape(len(x), -1)
        return attn_lrp(apply, None, x.reshape(-1, 1, 2, 2), 1), x * s[:, 1:2] * (jnp.eye(4)[1] - s)

    found, expected = run(both, np.random.default_rng(2).normal(size=(3, 1, 2, 2)))
    np.testing.assert_allclose(found.reshape(3, 4), expected, **EXACT)


def test_deeplift_is_complete_for_a_transformer(tokens):
    weights, images = tokens

    def parts(v, x):
        found = deeplift(transformer, v, x, 2, baseline=0.25)
        return found.sum((1, 2, 3)), transformer(v, x)[:, 2] - transformer(v, x * 0 + 0.25)[:, 2]

    np.testing.assert_allclose(*run(parts, weights, images), rtol=1e-9)


@pytest.mark.parametrize("style", ["nnx", "linen", "gated"])
def test_networks_of_every_style(style):
    """Batch and group normalization, residual branches, gates, remat, poolings that overlap."""
    apply, variables = networks.ALL[style]()
    variables, images = (
        jax.tree.map(np.asarray, variables),
        np.random.default_rng(4).uniform(size=(2, 13, 11, 3)),
    )

    def parts(v, x):
        composite = t.epsilon_gamma_box() if style != "gated" else t.lrp_gamma()
        found = propagate(apply, v, x, 1, composite=composite)
        change = apply(v, x)[:, 1] - apply(v, x * 0 + 0.5)[:, 1]
        return found, deeplift(apply, v, x, 1, baseline=0.5).sum((1, 2, 3)), change

    found, total, change = run(parts, variables, images)
    np.testing.assert_allclose(total, change, rtol=1e-5)
    assert np.isfinite(found.attributions).all()
    assert np.abs(found.attributions).max() > 0


# ---------------------------------------------------------------------------- what is refused, and cost


def refused(fn, *args, **options):
    jax.eval_shape(lambda x: fn(*args, x, 0, **options), jnp.zeros((2, 5, 4, 3)))


def test_what_no_rule_is_for_is_refused_by_name():
    w = np.eye(3)
    exponential = lambda v, x: jnp.exp(x.mean((1, 2)) @ w)  # noqa: E731
    maximum = lambda v, x: (x @ w).max(-1)[:, 0]  # noqa: E731
    for apply, name in ((exponential, "exp_1"), (maximum, "reduce_max")):
        with pytest.raises(ValueError, match=rf'says nothing of 1 .*{name}.*on_uncovered="gradient"'):
            refused(lrp, apply, None, composite=LRP_0)
    refused(lrp, exponential, None, composite=LRP_0, on_uncovered="gradient")
    with pytest.raises(ValueError, match=r"says nothing of 1 .*relu_1"):
        jax.eval_shape(t.with_rules(lambda v, x: jax.nn.relu(x @ w), LRP_0), None, jnp.zeros((1, 2, 2, 3)))
    with pytest.raises(ValueError, match=r"DIFFERENCES has no multiplier for layer .*cumprod"):
        refused(deeplift, lambda v, x: jnp.cumprod(x.mean((1, 2)), 1), None)


def test_a_rule_of_pixels_is_refused_where_these_go_elsewhere_too():
    w = np.eye(3)
    around = lambda v, x: (jax.nn.relu(x @ w) + x).mean((1, 2))  # noqa: E731
    with pytest.raises(ValueError, match=r"lrp_flat is for the first linear layer.* images also go to: add"):
        refused(lrp, around, None)
    with pytest.raises(ValueError, match=r"lrp_flat .* none of this network takes pixels"):
        refused(lrp, lambda v, x: jax.nn.relu(x).mean((1, 2)) @ w, None)
    refused(lrp, around, None, composite=LRP_0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: t.lrp_epsilon(-1.0), "epsilon is -1.0: expected 0 or more"),
        (lambda: t.lrp_gamma(float("nan")), "gamma is nan: expected 0 or more"),
        (lambda: t.lrp_alpha_beta(2.0, 0.5), r"alpha is 2.0 and beta 0.5: expected alpha - beta = 1"),
        (lambda: t.lrp_box(1.0, 0.0), "low is 1.0 and high 0.0: expected low < high"),
    ],
)
def test_parameters_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("composite", "most"),
    [
        (t.lrp_epsilon(), 2),
        (t.attention_lrp(), 2),
        (t.epsilon_plus_flat(), 4),
        (t.epsilon_gamma_box(), 4),
        (t.lrp_gamma(), 4),
        (t.epsilon_alpha2_beta1_flat(), 4),
    ],
    ids=("epsilon", "attn_lrp", "epsilon_plus_flat", "epsilon_gamma_box", "gamma", "alpha2_beta1"),
)
def test_cost_in_backward_passes(composite, most):
    """By XLA's count of operations: of a forward pass, and of the backward pass of the gradient."""

    def apply(v, x):
        for w in v:
            x = jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=networks.NHWC)
            x = jax.nn.relu(x)
        return x.mean((1, 2))

    shapes = [(3, 3, 3, 16), *[(3, 3, 16, 16)] * 4]
    given = (
        [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes],
        jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32),
    )
    flops = lambda fn: jax.jit(fn).lower(*given).compile().cost_analysis()["flops"]  # noqa: E731
    forward = flops(apply)
    backward = flops(lambda v, x: jax.grad(lambda x: apply(v, x)[:, 0].sum())(x)) - forward
    cost = flops(lambda v, x: lrp(apply, v, x, 0, composite=composite)) - forward
    print("COST", round(cost / backward, 3))
    assert cost <= most * backward
