"""Which layers are candidates, and that their responses agree with their layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from tests.transforms import networks
from vexplain.classifiers import VGG, VGGF, ConvNeXt, ResNet, VisionTransformer, functionalize
from vexplain.relevance import (
    candidate_layers,
    default_layers,
    feature_index,
    gram_bytes,
    layout_of,
    layout_size,
    response_fn,
    responses,
)
from vexplain.transforms import layers, read

SHAPE = jax.ShapeDtypeStruct((2, 13, 11, 3), jnp.float32)
DENSE = jnp.ones((3, 3))


def names(apply, variables, **options):
    return [row.name for row in candidate_layers(layers(apply, variables, SHAPE), **options)]


@pytest.mark.parametrize(
    ("style", "every", "convolutional"),
    [
        ("nnx", "conv_1 norm_1 relu_1 conv_2 conv_3 add_1 relu_2 pool_1", "conv_1 conv_2 conv_3"),
        ("linen", "Conv_0 relu_1 pool_1 Conv_1 GroupNorm_0 relu_2 pool_2", "Conv_0 Conv_1"),
        ("plain", "conv_1 relu_1 pool_1", "conv_1"),
    ],
)
def test_every_layer_but_the_class_scores_is_a_candidate(style, every, convolutional):
    apply, variables = networks.ALL[style]()
    table = layers(apply, jax.eval_shape(lambda: variables), SHAPE)  # shapes are all it needs
    found = {row.name for row in candidate_layers(table)}
    assert found == set(every.split()) == set(table.names[:-1])
    assert {row.name for row in candidate_layers(table, convolutional_only=True)} == set(
        convolutional.split()
    )


@pytest.mark.parametrize(
    "finish",
    [
        lambda scores: scores,
        jax.nn.tanh,
        lambda scores: jax.nn.log_softmax(scores),
        lambda scores: checkpoint_name(scores, "scores"),
        lambda scores: checkpoint_name(jax.nn.sigmoid(checkpoint_name(scores, "logits")), "probabilities"),
    ],
    ids=["plain", "tanh", "log_softmax", "named", "named twice"],
)
def test_class_scores_are_left_out_whatever_is_done_to_them(finish):
    """The layers before have as many channels as there are classes, and stay."""

    def apply(variables, images):
        return finish(jax.nn.relu(images.mean((1, 2)) @ variables) @ variables)

    assert names(apply, DENSE) == ["pool_1", "dense_1", "relu_1"]


def test_what_cannot_be_read_is_left_out():
    @jax.custom_vjp
    def rounded(x):
        return 2 * jax.nn.relu(x - 0.5)

    rounded.defvjp(lambda x: (rounded(x), None), lambda _, g: (g,))

    def apply(variables, images):
        x = jax.nn.relu(rounded(images) @ variables)
        return x.sum((1, 2)) @ variables

    table = layers(apply, DENSE, SHAPE)
    hidden = [row.name for row in table if row.inside is not None]
    assert hidden
    assert names(apply, DENSE) == [n for n in table.names[:-1] if n not in hidden]


def test_what_mixes_the_images_of_a_batch_is_left_out():
    """A convolution over all images as one tall image shifts the scores."""

    def apply(variables, images):
        tall = images.reshape(1, 26, 11, 3)
        mixed = lax.conv_general_dilated(tall, variables, (1, 1), "SAME", dimension_numbers=networks.NHWC)
        return jax.nn.relu(images @ DENSE).mean((1, 2)) @ DENSE + mixed.max()

    kernel = jnp.ones((3, 3, 3, 4))
    assert layers(apply, kernel, SHAPE)["conv_1"].batch_axis is None
    assert names(apply, kernel) == ["dense_1", "relu_1", "pool_1"]
    with pytest.raises(ValueError, match="no convolution that could be read"):
        names(apply, kernel, convolutional_only=True)


def test_nothing_left_shows_the_table():
    only = lambda v, x: x.reshape(2, -1) @ v  # noqa: E731
    table = layers(only, jnp.ones((429, 5)), SHAPE)
    with pytest.raises(ValueError, match=r"no layer before the class scores.*\n(.*\n)*dense_1 +dense +5 "):
        candidate_layers(table)
    two = lambda v, x: jax.nn.relu(x.mean((1, 2))) @ v  # noqa: E731
    table = layers(two, DENSE, SHAPE)
    with pytest.raises(ValueError, match=r"no convolution that could be read:\n(.*\n)*relu_1 +relu +3 "):
        candidate_layers(table, convolutional_only=True)


def test_responses_are_laid_out_as_the_layout_says(key):
    """A channels-first network, so that rows, columns and channels are not taken for each other."""
    dense = jax.random.normal(key, (4, 5))
    kernel = jax.random.normal(key, (4, 3, 3, 2))

    def apply(variables, images):
        x = lax.conv_general_dilated(images.transpose(0, 3, 1, 2), variables, (2, 1), "SAME")
        return jax.nn.relu(x).max((2, 3)) @ dense

    images = jax.random.uniform(key, (6, 13, 11, 3))
    table = layers(apply, kernel, images)
    rows = [table[name] for name in ("relu_1", "pool_1", "conv_1")]  # neither sorted nor in order
    layout = layout_of(rows)
    assert layout == (("relu_1", 4), ("pool_1", 4), ("conv_1", 4))
    assert layout_of(candidate_layers(table)) == (("conv_1", 4), ("relu_1", 4), ("pool_1", 4))

    @jax.jit
    def run(kernel, images):
        expected, activations = read(apply, table.names)(kernel, images)
        in_order = {n: jnp.moveaxis(activations[n], 1, -1) for n in ("relu_1", "pool_1", "conv_1")}
        return *response_fn(apply, rows)(kernel, images), expected, activations, responses(in_order)

    found, logits, expected_logits, activations, expected = run(kernel, images)
    assert found.shape == (6, layout_size(layout))
    np.testing.assert_allclose(logits, expected_logits, rtol=1e-5)
    for name in ("conv_1", "relu_1", "pool_1"):
        activation = np.asarray(activations[name], np.float64)
        energies = (activation.reshape(6, 4, -1) ** 2).sum(-1)
        start = feature_index(layout, name, 0)
        block = found[:, start : start + 4]
        np.testing.assert_allclose(
            block / block.sum(1, keepdims=True), energies / energies.sum(1, keepdims=True), rtol=1e-4
        )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


PUBLISHED = {  # name: (network, all layers and features, default layers and features, their first and last)
    "vgg_f": (VGGF, (19, 19_456), (19, 19_456), ("conv_1", "relu_7")),
    "vgg16": (
        lambda **options: VGG((2, 2, 3, 3, 3), 1000, **options),
        (36, 26_307),
        (15, 12_416),
        ("relu_1", "relu_15"),
    ),
    "resnet50": (
        lambda **options: ResNet((3, 4, 6, 3), 1000, **options),
        (174, 93_059),
        (16, 15_104),
        ("layer1/0/relu_3", "layer4/2/relu_3"),
    ),
    "convnext_tiny": (ConvNeXt, (119, 83_235), (18, 6_624), ("stage1/0/add_1", "stage4/2/add_1")),
    "vit_b_16": (VisionTransformer, (111, 158_211), (24, 18_432), ("block/0/add_1", "block/11/add_2")),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_deep_networks_are_searched_at_the_outputs_of_their_blocks(name):
    """768 + 2048 + 6144 + 6144 channels of ResNet-50's blocks, 12 × 2 × 768 of ViT's, and so on."""
    make, everything, expected, ends = PUBLISHED[name]
    apply, variables = functionalize(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))
    table = layers(apply, variables, jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    every, rows = candidate_layers(table), default_layers(table)
    assert (len(every), sum(row.num_channels for row in every)) == everything
    assert (len(rows), sum(row.num_channels for row in rows)) == expected
    assert (rows[0].name, rows[-1].name) == ends
    assert gram_bytes(rows) == 4 * expected[1] ** 2 <= 2 * 2**30
    assert [row for row in table if row in rows] == list(rows)
    if name == "resnet50":
        stages = default_layers(table, max_gram_bytes=2**27)
        assert [row.name for row in stages] == [f"layer{n}/{k}/relu_3" for n, k in enumerate((2, 3, 5, 2), 1)]
        assert gram_bytes(stages) == 4 * (256 + 512 + 1024 + 2048) ** 2


def test_small_networks_keep_all_layers():
    apply, variables = networks.plain_network()
    table = layers(apply, variables, SHAPE)
    assert default_layers(table) == candidate_layers(table)
    assert gram_bytes(candidate_layers(table)) == 4 * (6 + 6 + 6) ** 2
