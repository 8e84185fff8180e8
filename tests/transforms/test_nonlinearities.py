"""What is not linear in the images is known by its values, or refused by its name: nothing passes unseen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tests.transforms.networks import NHWC
from vexplain.transforms import DECONVNET, GUIDED, Rule, layers, read, with_rules

SHAPE = (2, 6, 7, 3)
KERNEL = jax.random.normal(jax.random.key(0), (3, 3, 3, 8)) / 2
relu = jax.nn.relu


def conv(v, images, scale=1.0):
    return lax.conv_general_dilated(images, scale * v, (1, 1), "SAME", dimension_numbers=NHWC)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(3), SHAPE)


def summed(fn):
    """A network of one convolution, the function, a ReLU and a sum over all but the batch."""

    def apply(v, images):
        x = relu(fn(conv(v, images)))
        return x.sum(tuple(range(1, x.ndim)))[:, None]

    return apply


def energy(x):
    return (x * x).mean((1, 2)) - 0.05


SQUARES = {
    "a square": lambda x: x - (2 * x) ** 2,
    "energy pooling": energy,
    "prototype distance": lambda x: 1 - ((x - 0.3) * (x - 0.3)).sum(-1),
    "capsule margin": lambda x: jnp.linalg.norm(x, axis=-1) - 0.3,
    "a variance": lambda x: x.var((1, 2)) - 0.05,
}


@pytest.mark.parametrize("name", SQUARES)
def test_a_relu_of_a_square_a_norm_or_a_variance_is_a_relu(name, images):
    apply = summed(SQUARES[name])
    assert layers(apply, KERNEL, images).select("relu").names == ("relu_1",)
    with pytest.raises(ValueError, match=r"GUIDED says nothing of .*(mul|square|integer_pow)"):
        with_rules(apply, GUIDED)(KERNEL, images)


REFUSED = {
    "sinh": jnp.sinh,
    "tan": jnp.tan,
    "asinh": jnp.arcsinh,
    "sign": jnp.sign,
    "pow": lambda x: x**1.5,
    "lgamma": jax.scipy.special.gammaln,
    "erf_inv": jax.scipy.special.erfinv,
    "bessel_i0e": jax.scipy.special.i0e,
    "atan2": lambda x: jnp.arctan2(x, x + 1),
    "div": lambda x: 1 / (x + 1),
    "div_1": lambda x: x / (x + 1),
    "log1p": jnp.log1p,
    "cbrt": jnp.cbrt,
    "sqrt": jnp.sqrt,
    "floor": jnp.floor,
    "round": jnp.round,
    "mul": lambda x: x * x,
    "mul_1": lambda x: x * x[:, ::-1],
    "mul_2": lambda x: x * x.mean((1, 2), keepdims=True),
    "rsqrt": lambda x: x * lax.rsqrt(x * x + 1),
    "reduce_max": lambda x: x.max(-1),
    "reduce_max_1": lambda x: jnp.stack([x, 0 * x]).max(0),
    "reduce_prod": lambda x: x.prod(-1),
    "cummax": lambda x: lax.cummax(x, 3),
    "sort": lambda x: jnp.sort(x, -1),
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "maxout": lambda x: jnp.maximum(x[..., :4], x[..., 4:]),
    "hard_silu": jax.nn.hard_silu,
    "abs": jnp.abs,
    "select": lambda x: jnp.where(x > 0.1, x, 2 * x),
    "minimum": lambda x: jnp.minimum(x, 0.3),
    "sinh_1": lambda x: x * lax.rsqrt(jnp.sinh(x).mean((1, 2), keepdims=True) + 1),
    "logistic_1": lambda x: x / (jax.lax.logistic(x).sum(-1, keepdims=True) + 1),
    "cond": lambda x: lax.cond(x.mean() > 0, jnp.negative, lambda x: 2 * x, x),
    "gather": lambda x: jnp.take_along_axis(x, x.argmax(1, keepdims=True), 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_linear_is_refused_by_name(name, images):
    apply = summed(REFUSED[name])
    kind = name.rsplit("_", 1)[0] if name[-1].isdigit() else name
    with pytest.raises(ValueError, match=rf'GUIDED says nothing of .*\b{kind}.*on_uncovered="gradient"'):
        with_rules(apply, GUIDED)(KERNEL, images)

    @jax.jit
    def pulled_back(images):
        networks = (with_rules(apply, GUIDED, on_uncovered="gradient"), apply)
        return [jax.grad(lambda x, fn=fn: fn(KERNEL, x).sum())(images) for fn in networks]

    kept, plain = pulled_back(images)
    np.testing.assert_allclose(kept, plain, rtol=1e-4, atol=1e-5)  # one ReLU, of what comes last


@jax.custom_vjp
def called_back(x):
    return jax.pure_callback(lambda a: np.maximum(a, 0), x, x)


called_back.defvjp(lambda x: (called_back(x), x > 0), lambda kept, g: (g * kept,))


def test_a_callback_is_a_program_that_cannot_be_looked_into(images):
    with pytest.raises(ValueError, match=r"'pure_callback' \(a program that cannot be looked into\)"):
        with_rules(summed(called_back), GUIDED)(KERNEL, images)


def test_many_uncovered_layers_make_a_short_message(images):
    def apply(v, images):
        x = images
        for _ in range(49):
            x = jnp.tanh(x)
        return relu(x).mean((1, 2))

    with pytest.raises(ValueError, match=r"of 49 of this network's .*tanh_3 \(tanh\) and 46 more") as error:
        with_rules(apply, GUIDED)(KERNEL, images)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    "again", [lambda y: lax.max(y, 0.0), lambda y: -lax.min(-y, 0.0), lambda y: (y + jnp.abs(y)) / 2]
)
def test_a_relu_of_what_was_clipped_is_a_layer_of_its_own(again, images):
    table = layers(lambda v, x: again(lax.clamp(0.0, conv(v, x), 6.0)), KERNEL, images)
    assert [row.kind for row in table] == ["conv", "relu6", "relu"]


CLIPPED = {
    "relu6": ((0, 6), jax.nn.relu6),
    "clip": ((0, 6), lambda x: jnp.clip(x, 0, 6)),
    "minimum of maximum": ((0, 6), lambda x: jnp.minimum(jnp.maximum(x, 0), 6)),
    "clamp": ((0, 6), lambda x: lax.clamp(0.0, x, 6.0)),
    "hard_tanh": ((-1, 1), jax.nn.hard_tanh),
    "hard_sigmoid": ((-3, 3), jax.nn.hard_sigmoid),
    "another clip": ((-0.5, 2), lambda x: jnp.clip(x, -0.5, 2)),
}


@pytest.mark.parametrize("name", CLIPPED)
def test_clipped_activations_are_guided_between_their_bounds(name, images):
    (low, high), clipped = CLIPPED[name]
    sent = np.random.default_rng(4).normal(size=(*SHAPE[:3], 8)).astype(np.float32)
    x = 6 * np.asarray(conv(KERNEL, images)) - 1
    for rule, passes in [(GUIDED, True), (DECONVNET, False)]:
        ruled = with_rules(lambda v, x: clipped(x), rule)
        inside = (x > low) & (x < high) if passes else True
        slope = 1 / 6 if (name, passes) == ("hard_sigmoid", True) else 1
        pull = jax.jit(lambda x, sent, ruled=ruled: jax.vjp(lambda x: ruled(None, x), x)[1](sent)[0])
        found = pull(x, sent)
        np.testing.assert_allclose(found, slope * sent * inside * (sent > 0), rtol=1e-6)


SECANT_KINDS = ("relu", "gelu", "silu", "tanh", "elu", "softplus")


def _secant(step, layer, original, inputs, cotangent):
    x, sent = inputs[step.operand], [None] * len(inputs)
    slope = jnp.where(x == 0, 0, original(*inputs) / jnp.where(x == 0, 1, x))
    sent[step.operand] = cotangent * slope
    return sent


SECANT = Rule("SECANT", lambda layer, table: layer.kind in SECANT_KINDS, _secant, covers_activations=True)


@pytest.mark.parametrize(
    "activation",
    [
        relu,
        jax.nn.gelu,
        lambda x: jax.nn.gelu(x, approximate=False),
        jax.nn.silu,
        lambda x: x * jax.nn.sigmoid(x),
        lambda x: 0.5 * x * (1 + lax.erf(x / np.sqrt(2))),
        lambda x: 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        jnp.tanh,
        jax.nn.elu,
        jax.nn.softplus,
    ],
)
def test_a_rule_is_handed_the_whole_activation(activation):
    """A secant rule sends back f(x)/x, so that what arrives times the input is the output: to 1e-12."""
    with jax.enable_x64(True):
        x, w = (np.random.default_rng(5).normal(size=shape) for shape in ((2, 5, 4, 3), (3, 4)))
        apply = lambda w, x: activation(activation(x @ w) @ w.T)  # noqa: E731

        @jax.jit
        def explained(x):
            out, send = jax.vjp(lambda x: with_rules(apply, SECANT)(w, x), x)
            return out, send(jnp.ones_like(out))[0] * x

        out, relevance = explained(x)
        np.testing.assert_allclose(relevance.sum(), out.sum(), rtol=1e-12)


@pytest.mark.parametrize("kind", ["norm", "conv"])
def test_a_rule_is_handed_a_norm_with_its_statistics_and_a_convolution_with_its_bias(kind, images):
    seen = []

    def watched(step, layer, original, inputs, cotangent):
        seen.append((layer.index, original(*inputs), inputs[step.operand]))
        return jax.vjp(original, *inputs)[1](cotangent)

    def apply(v, images):
        x = conv(v, images) + jnp.linspace(-1, 1, 8)
        x = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * 3.0 + 0.5
        return x.mean((1, 2))

    rule = Rule("WATCHED", lambda layer, table: layer is table.select(kind)[0], watched)
    ruled = with_rules(apply, rule)
    gradient = jax.grad(lambda x: ruled(KERNEL, x)[:, 0].sum())(images)
    plain = jax.grad(lambda x: apply(KERNEL, x)[:, 0].sum())(images)
    np.testing.assert_allclose(gradient, plain, rtol=1e-4, atol=1e-6)
    ((index, out, entering),) = seen
    name = layers(apply, KERNEL, images)[index].name
    found = read(apply, [name, "conv_1"])(KERNEL, images)[1]
    np.testing.assert_allclose(out, found[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(entering, images if kind == "conv" else found["conv_1"])


@pytest.mark.parametrize("rule", [GUIDED, DECONVNET])
def test_a_relu_that_is_multiplied_by_zero_is_a_relu(rule, images):
    """Together they are a constant, which is no activation function."""

    def apply(v, images):
        x = conv(v, images)
        return jnp.concatenate([x, jnp.where(x > 0, x, 0) * 0], -1).sum((1, 2))

    assert layers(apply, KERNEL, images).select("relu").names == ("relu_1",)
    found = jax.grad(lambda x: with_rules(apply, rule)(KERNEL, x).sum())(images)
    expected = jax.grad(lambda x: conv(KERNEL, x).sum())(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)


SATURATING = {
    "soft_sign": lambda x: x / (1 + jnp.abs(x)),
    "abs": lambda x: x / (2 + jnp.abs(x)),
    "mul": lambda x: x / jnp.sqrt(1 + x * x),
    "mul_1": lambda x: x * lax.rsqrt(x * x + 2),
    "integer_pow": lambda x: x * (x**2 + 1) ** -0.5,
    "abs_1": lambda x: jnp.abs(x) / (1 + jnp.abs(x)),
    "exp": lambda x: jnp.exp(x) / (2 + jnp.exp(x)),
    "exp_1": lambda x: x / (1.5 + jnp.exp(-x)),
    "log": lambda x: x - jnp.log(1 + jnp.exp(2 * x)),
}
POOLED = {
    "global": lambda x: x.mean((1, 2)),
    "windows": lambda x: x[:, :, :6].reshape(2, 3, 2, 3, 2, 8).mean((2, 4)),
    "over channels": lambda x: x.reshape(*x.shape[:3], 4, 2).sum(-1),
}


@pytest.mark.parametrize("pool", POOLED)
@pytest.mark.parametrize("name", SATURATING)
def test_a_saturating_function_of_pooled_numbers_is_no_normalization(name, pool, images):
    apply = summed(lambda x: SATURATING[name](POOLED[pool](x)))
    with pytest.raises(ValueError, match="GUIDED says nothing of"):
        with_rules(apply, GUIDED)(KERNEL, images)


NORMALIZED = {
    "L2": lambda y: y / jnp.sqrt((y * y).sum(-1, keepdims=True) + 1e-6),
    "L1": lambda y: y / (jnp.abs(y).sum(-1, keepdims=True) + 1e-6),
    "root mean square": lambda y: y * lax.rsqrt((y**2).mean(-1, keepdims=True) + 1e-6),
    "layer": lambda y: (y - y.mean(-1, keepdims=True)) * lax.rsqrt(y.var(-1, keepdims=True) + 1e-6),
    "softmax": lambda y: jax.nn.softmax(y, -1),
    "softmax by hand": lambda y: jnp.exp(y) / jnp.exp(y).sum(-1, keepdims=True),
}


@pytest.mark.parametrize("pool", POOLED)
@pytest.mark.parametrize("name", NORMALIZED)
def test_pooled_numbers_can_be_normalized(name, pool, images):
    apply = summed(lambda x: NORMALIZED[name](POOLED[pool](x)) - 0.3)
    found, plain = jax.jit(lambda v, x: (with_rules(apply, GUIDED)(v, x), apply(v, x)))(KERNEL, images)
    np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-6)
