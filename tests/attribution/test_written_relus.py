"""Guided rules for one network written in many ways, against the same network with guided ReLUs of our own.

Functional ReLUs, one ReLU for all layers, a layer called twice, overwriting and loops break libraries that
change modules. Networks without ReLUs are refused.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from vexplain import attribution
from vexplain.classifiers import ConvNeXt, VisionTransformer, functionalize

CHANNELS, CLASSES = 3, 4
GUIDED_PLUS_PLUS = attribution.guided_grad_cam_plus_plus
RULES = {
    attribution.guided_backprop: lambda x, g: (x > 0) & (g > 0),
    attribution.deconvnet: lambda x, g: g > 0,
}


def draw(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) / 2


WEIGHTS = {
    "first": (draw(3, 3, CHANNELS, CHANNELS, seed=1), draw(CHANNELS, seed=2)),
    "twice": (draw(3, 3, CHANNELS, CHANNELS, seed=3), draw(CHANNELS, seed=4)),
    "head": draw(CHANNELS, CLASSES, seed=5),
}
IMAGES, TARGETS = draw(2, 5, 7, CHANNELS, seed=6), jnp.array([3, 1])


def conv(x, kernel, bias):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers) + bias


def written_out(relu):
    """The reference: three convolutions, the last two of which share their weights."""

    def apply(variables, x):
        x = relu(conv(x, *variables["first"]))
        x = relu(conv(x, *variables["twice"]))
        x = relu(conv(x, *variables["twice"]))
        return x.mean((1, 2)) @ variables["head"]

    return apply, WEIGHTS


def overwriting():
    return written_out(lambda x: x.at[...].set(jnp.maximum(x, 0)))


def looped():
    """The blocks are a `lax.scan` over stacked weights, each with its own rematerialization."""

    def apply(variables, x):
        first, twice = variables["first"], variables["twice"]
        stacked = jax.tree.map(lambda a, b: jnp.stack([a, b, b]), first, twice)
        block = jax.checkpoint(lambda x, weights: (jax.nn.relu(conv(x, *weights)), None))
        return jax.lax.scan(block, x, stacked)[0].mean((1, 2)) @ variables["head"]

    return apply, WEIGHTS


class _NNX(nnx.Module):
    """One convolution is called twice, one activation module everywhere."""

    def __init__(self, rngs):
        self.first, self.twice = (nnx.Conv(CHANNELS, CHANNELS, (3, 3), rngs=rngs) for _ in range(2))
        self.head = nnx.Linear(CHANNELS, CLASSES, use_bias=False, rngs=rngs)
        self.activation = nnx.relu

    def __call__(self, x):
        x = self.activation(self.first(x))
        for _ in range(2):
            x = self.activation(self.twice(x))
        return self.head(x.mean((1, 2)))


def of_nnx():
    apply, _ = functionalize(nnx.eval_shape(lambda: _NNX(nnx.Rngs(0))))
    convolutions = {n: {"kernel": WEIGHTS[n][0], "bias": WEIGHTS[n][1]} for n in ("first", "twice")}
    return apply, convolutions | {"head": {"kernel": WEIGHTS["head"]}}


class _Linen(linen.Module):
    def setup(self):
        self.first, self.twice = (linen.Conv(CHANNELS, (3, 3)) for _ in range(2))
        self.head = linen.Dense(CLASSES, use_bias=False)

    def __call__(self, x):
        x = linen.relu(self.twice(linen.relu(self.first(x))))
        return self.head(linen.relu(self.twice(x)).mean((1, 2)))


def of_linen():
    return _Linen().apply, {"params": of_nnx()[1]}


STYLES = {
    "functional": lambda: written_out(jax.nn.relu),
    "maximum": lambda: written_out(lambda x: jnp.maximum(x, 0)),
    "where": lambda: written_out(lambda x: jnp.where(x > 0, x, 0)),
    "overwriting": overwriting,
    "scan": looped,
    "nnx": of_nnx,
    "linen": of_linen,
}


@pytest.fixture(scope="module")
def expected():
    maps = {}
    for method, passes in RULES.items():

        @jax.custom_vjp
        def relu(x):
            return jnp.maximum(x, 0)

        def forward(x):
            return jnp.maximum(x, 0), x

        def backward(x, g, passes=passes):
            return (jnp.where(passes(x, g), g, 0),)

        relu.defvjp(forward, backward)
        maps[method] = _explained(attribution.gradient, *written_out(relu))
    return maps


def _explained(method, apply, variables):
    return jax.jit(lambda v, x, t: method(apply, v, x, t))(variables, jnp.asarray(IMAGES), TARGETS)


@pytest.mark.parametrize("method", RULES, ids=lambda method: method.__name__)
@pytest.mark.parametrize("style", STYLES)
def test_guided_rules_do_not_depend_on_how_a_network_is_written(style, method, expected):
    found = _explained(method, *STYLES[style]())
    assert np.abs(expected[method]).max() > 0.01
    np.testing.assert_allclose(found, expected[method], rtol=1e-4, atol=1e-6)


def test_the_rules_of_this_network_are_no_gradient(expected):
    plain = _explained(attribution.gradient, *STYLES["functional"]())
    guided, deconvnet = expected.values()
    assert not np.allclose(plain, guided, atol=1e-3)
    assert not np.allclose(deconvnet, guided, atol=1e-3)


def drawn(make):
    """A module as a function, with weights by NumPy, which needs no compilation."""
    apply, shapes = functionalize(nnx.eval_shape(lambda: make(nnx.Rngs(0))))
    return apply, jax.device_put(jax.tree.map(lambda leaf: draw(*leaf.shape, seed=8), shapes))


def transformer(rngs):
    return VisionTransformer(5, image_size=16, patch_size=8, depth=1, width=4, num_heads=2, rngs=rngs)


def swish(variables, images):
    return jax.nn.silu(conv(images, *variables)).mean((1, 2))


WITHOUT_RELUS = {
    "convnext": (lambda: drawn(lambda rngs: ConvNeXt((1, 1), 5, widths=(3, 4), rngs=rngs)), "gelu"),
    "vit": (lambda: drawn(transformer), "gelu"),
    "silu": (lambda: (swish, WEIGHTS["first"]), "silu"),
}


@pytest.mark.parametrize("name", WITHOUT_RELUS)
def test_networks_without_relus_are_refused_unless_the_caller_says_what_to_do(name):
    make, activation = WITHOUT_RELUS[name]
    apply, variables = make()
    images = jnp.asarray(0.5 + 0.1 * draw(2, 16, 16, 3, seed=7))
    arguments = (apply, variables, images, jnp.array([2, 0]))
    cases = [(attribution.guided_backprop, {}), (attribution.deconvnet, {})]
    if name == "silu":
        cases += [(m, {"layer": "conv_1"}) for m in (attribution.guided_grad_cam, GUIDED_PLUS_PLUS)]
    for method, options in cases:
        with pytest.raises(
            ValueError, match=rf'says nothing of .*{activation}.*pass on_uncovered="gradient"'
        ):
            method(*arguments, **options)
        with pytest.raises(ValueError, match=r'matches nothing.*pass on_unmatched="ignore"'):
            method(*arguments, **options, on_uncovered="gradient")
    kept = jax.jit(
        lambda v, x, t: attribution.guided_backprop(
            apply, v, x, t, on_uncovered="gradient", on_unmatched="ignore"
        )
    )(*arguments[1:])
    plain = jax.jit(lambda v, x, t: attribution.gradient(apply, v, x, t))(*arguments[1:])
    np.testing.assert_allclose(kept, plain, rtol=1e-5, atol=1e-7)
