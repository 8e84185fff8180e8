"""Networks that others wrote, as they come from PyPI: Linen, Equinox, and NNX in another style than ours.

Nothing of theirs is changed. The reference of guided backpropagation is the same network with guided ReLUs,
put in as its authors foresaw, by an argument, or in place of `jax.nn.relu` where there is none.
"""

import collections
import functools

import equimo.models
import equinox as eqx
import jax
import jax.numpy as jnp
import jax_resnet
import lpips_nnx.vgg
import numpy as np
import pytest
from flax import nnx

import vexplain as vx

NUM_CLASSES = 3
SHAPE = (4, 33, 35, 3)


@jax.custom_vjp
def guided_relu(x):
    return jnp.maximum(x, 0)


guided_relu.defvjp(lambda x: (guided_relu(x), x), lambda x, g: (jnp.where((x > 0) & (g > 0), g, 0),))


def drawn(shapes):
    """Random weights of the shapes of a network, which its own initialization takes long to draw."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if leaf.ndim < 2:
            return np.full(leaf.shape, "bias" not in name and "mean" not in name, leaf.dtype)
        fan_in = leaf.size / max(leaf.shape[0], leaf.shape[-1])
        return rng.normal(0, np.sqrt(2 / fan_in), leaf.shape).astype(leaf.dtype)

    return jax.device_put(jax.tree_util.tree_map_with_path(draw, shapes))


def linen_resnet(relu=jax.nn.relu):
    """`jax-resnet`: basic blocks with batch normalization."""
    network = jax_resnet.ResNet(
        functools.partial(jax_resnet.ResNetBlock, activation=relu),
        stage_sizes=(1, 1),
        n_classes=NUM_CLASSES,
        hidden_sizes=(5, 6),
        conv_block_cls=functools.partial(jax_resnet.ConvBlock, activation=relu),
    )
    variables = drawn(jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *SHAPE[1:]))))

    def hands_out(variables, images):
        kept = network.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])[1]
        block = kept["intermediates"]["layers_2"]["ConvBlock_1"]
        return {f"layers_2/ConvBlock_1/{n}": block[n]["__call__"][0] for n in ("Conv_0", "BatchNorm_0")}

    return functools.partial(network.apply, mutable=False), variables, hands_out


def equinox_convnext(relu=jax.nn.relu):
    """`equimo`: ConvNeXt with ReLUs, one image at a time, channels first."""
    network = eqx.filter_eval_shape(
        equimo.models.ConvNeXt,
        depths=(1, 1, 1, 1),
        dims=(5, 6, 7, 8),
        num_classes=NUM_CLASSES,
        act_layer=relu,
        layer_scale_init_value=1.0,
        key=jax.random.key(0),
    )
    shapes, static = eqx.partition(network, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    network = eqx.nn.inference_mode(eqx.combine(drawn(shapes), static))
    variables, static = eqx.partition(network, eqx.is_inexact_array)

    def apply(variables, images):
        return jax.vmap(eqx.combine(variables, static))(images.transpose(0, 3, 1, 2))

    def hands_out(variables, images):
        first, second, *_ = eqx.combine(variables, static).blocks
        first, second = (functools.partial(block, key=jax.random.key(0)) for block in (first, second))
        x = jax.vmap(first)(images.transpose(0, 3, 1, 2))
        return {"add_1": x, "add_2": jax.vmap(second)(x)}

    return apply, variables, hands_out


def nnx_vgg(relu=jax.nn.relu):
    """`lpips-nnx`: VGG-16 in full width, which returns five maps; a linear head on the last makes scores."""
    with pytest.MonkeyPatch.context() as patched:  # it loads its weights in the constructor
        zeros = collections.defaultdict(lambda: {"kernel": 0.0, "bias": 0.0})
        patched.setattr(lpips_nnx.vgg, "load_vgg16_weights", lambda: zeros)
        network = nnx.eval_shape(lambda: lpips_nnx.vgg.VGG16Features(rngs=nnx.Rngs(0)))
    graph, shapes = nnx.split(network)
    head = jax.ShapeDtypeStruct((512, NUM_CLASSES), jnp.float32)
    variables = drawn((nnx.to_pure_dict(shapes), head))

    def maps(variables, images):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(jax.nn, "relu", relu)
            return nnx.merge(graph, variables[0])(images)

    def apply(variables, images):
        return maps(variables, images)[-1].mean((1, 2)) @ variables[1]

    def hands_out(variables, images):
        names = ("relu_2", "relu_4", "relu_7", "relu_10", "relu_13")
        return dict(zip(names, maps(variables, images), strict=True))

    return apply, variables, hands_out


NETWORKS = {"linen": linen_resnet, "equinox": equinox_convnext, "nnx": nnx_vgg}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return request.param, *NETWORKS[request.param]()


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(7), SHAPE)


def test_their_layers_are_found(network, images):
    style, apply, variables, _ = network
    table = vx.layers(apply, variables, images)
    kinds = collections.Counter(row.kind for row in table)
    expected = {
        "linen": {"conv": 7, "norm": 7, "relu": 5, "add": 2, "pool": 2, "dense": 1},
        "equinox": {"conv": 16, "norm": 9, "relu": 4, "add": 4, "pool": 1, "dense": 1},
        "nnx": {"conv": 13, "relu": 13, "pool": 5, "dense": 1},
    }
    assert kinds == expected[style]
    named = {"linen": "layers_2/ConvBlock_0/Conv_0", "equinox": "conv_5", "nnx": "relu_13"}[style]
    channels = {"linen": 5, "equinox": 6, "nnx": 512}[style]
    assert table[named].num_channels == channels
    assert table[named].batch_axis == 0


def test_their_activations_are_read_and_their_relus_guided(network, images):
    """In one program: activations against those that a network hands out, guided against guided by hand."""
    style, apply, variables, hands_out = network
    by_hand, same_variables, _ = NETWORKS[style](guided_relu)
    targets = jnp.array([0, 2, 1, 0])

    @jax.jit
    def run(variables, same_variables, images):
        expected = hands_out(variables, images)
        found = vx.read(apply, list(expected))(variables, images)[1]
        guided = vx.guided_backprop(apply, variables, images, targets)
        reference = vx.gradient(by_hand, same_variables, images, targets)
        return expected, found, guided, reference

    expected, found, guided, reference = run(variables, same_variables, images)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, expected)
    assert np.abs(reference).max() > 0
    np.testing.assert_allclose(guided, reference, rtol=1e-4, atol=1e-5 * np.abs(reference).max())


def test_the_way_from_network_to_heatmap(network, images):
    """Relevant features, and a heatmap for each image that has one of its class."""
    style, apply, variables, _ = network
    labels = np.array([0, 1, 2, 1])
    source = vx.ArraySource(np.asarray(images), labels, class_names=("a", "b", "c"))
    table = vx.layers(apply, variables, images)
    rows = [row for row in table if row.kind == ("add" if style != "nnx" else "pool")]
    found = vx.learn_relevance(apply, variables, source, layers=rows, labels="true", batch_size=4)
    assert {row.name for row in rows} == set(found.layers)
    explanation = vx.explain(apply, variables, images, labels, relevance=found, num_features=1)
    assert explanation.heatmaps.shape == SHAPE[:3]
    valid = np.asarray(explanation.features.valid[:, 0])
    assert valid.any()
    np.testing.assert_array_equal(np.asarray(explanation.heatmaps).max((1, 2)) > 0, valid)


def test_an_activation_function_that_is_no_relu_is_refused(images):
    apply, variables, _ = equinox_convnext("gelu")
    table = vx.layers(apply, variables, images)
    assert len(table.select("gelu")) == 4
    with pytest.raises(ValueError, match="gelu_1"):
        jax.eval_shape(vx.with_rules(apply, vx.GUIDED, on_unmatched="ignore"), variables, images)
