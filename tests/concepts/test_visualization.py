"""Images that were made for a score reach what is known of it: bounds, receptive fields, each as if alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.attribution import similarity
from vexplain.concepts import fourier_images, mean_channel, visualize
from vexplain.transforms import layers

SHAPE = (5, 6, 2)
DRAWN = fourier_images(SHAPE)
KEY = jax.random.key(0)
FAST = {"num_steps": 60, "learning_rate": 0.3, "key": KEY}
SIGNS = np.where(np.random.default_rng(0).uniform(size=(60, 3)) < 0.4, -1.0, 1.0).astype(np.float32)


def linear(weights, images):
    return images.reshape(len(images), -1) @ weights


def small(variables, images):
    """Channels first inside, a ReLU that is off for gray in its last channel, tokens, a head."""
    kernel, bias, dense = variables
    x = jax.lax.conv_general_dilated(jnp.moveaxis(images, -1, 1), kernel, (1, 2), "VALID")
    x = jax.nn.relu(x + bias[:, None, None])
    tokens = jnp.moveaxis(x, 1, -1).reshape(len(x), -1, 3) @ dense
    return jnp.tanh(tokens).mean(1)


@pytest.fixture(scope="module")
def network():
    generator = np.random.default_rng(1)
    kernel = generator.normal(size=(3, 2, 3, 2)).astype(np.float32)
    bias = np.abs(kernel).sum((1, 2, 3)) * [0.05, 0.05, -0.25] - kernel.sum((1, 2, 3)) / 2
    dense = generator.normal(size=(3, 4)).astype(np.float32)
    variables = (jnp.asarray(kernel), jnp.asarray(bias, jnp.float32), jnp.asarray(dense))
    return variables, layers(small, variables, jnp.zeros((1, *SHAPE)))


def test_the_optimum_of_a_linear_channel_is_reached_together_as_one_by_one():
    """Over images in [0, 1], w·x is at most the sum of the positive weights, at [w > 0].

    Adam, which normalizes each coefficient, may leave one pixel of 60 on the wrong side of the sigmoid.
    """
    targets, keys = np.array([2, 0, 1]), jax.random.split(KEY, 3)
    options = {"view": None, "num_steps": 300, "learning_rate": 0.1}
    found = visualize(linear, SIGNS, targets, DRAWN, key=keys, **options)
    best = np.maximum(SIGNS, 0).sum(0)[targets]
    assert (found.scores > 0.96 * best).all()
    assert (found.scores <= best).all()
    for image, target in zip(found.images, targets, strict=True):
        assert np.corrcoef(np.ravel(image), SIGNS[:, target])[0, 1] > 0.96
    alone = visualize(linear, SIGNS, [0], DRAWN, key=keys[1:2], **options)
    np.testing.assert_allclose(alone.images[0], found.images[1], atol=1e-5)
    np.testing.assert_allclose(found.opacity, 1, atol=1e-4)  # all pixels have weights of one size
    assert found.history.shape == (300, 3)


def test_a_channel_is_a_direction_and_a_relu_that_is_off_is_turned_on(network):
    variables, table = network
    options = {"layer": table["relu_1"], "view": None, **FAST}
    gray = np.full((1, *SHAPE), 0.5, np.float32)
    off = np.asarray(jax.jit(lambda v, x: jax.nn.relu(first_map(v, x)))(variables, gray))
    assert off[..., 2].max() == 0
    channels = visualize(small, variables, [2, 0], DRAWN, **options)
    maps = np.maximum(np.asarray(jax.jit(first_map)(variables, channels.images)), 0)
    np.testing.assert_allclose(channels.scores, maps.mean((1, 2))[[0, 1], [2, 0]], rtol=1e-5)
    assert np.asarray(channels.scores).min() > 0.5
    directions = visualize(small, variables, [[0.0, 0, 7], [1, 0, 0]], DRAWN, **options)
    np.testing.assert_allclose(directions.images, channels.images, atol=1e-4)


def first_map(variables, images):
    kernel, bias, _ = variables
    x = jax.lax.conv_general_dilated(jnp.moveaxis(images, -1, 1), kernel, (1, 2), "VALID")
    return jnp.moveaxis(x + bias[:, None, None], 1, -1)


def test_a_position_draws_in_its_receptive_field_alone(network):
    variables, table = network
    layer = table["conv_1"]
    found = visualize(small, variables, 1, DRAWN, layer=layer, position=(2, 1), view=None, **FAST)
    top, left, bottom, right = layer.visible(2, 1)
    is_seen = np.zeros(SHAPE[:2], bool)
    is_seen[top:bottom, left:right] = True
    assert 0 < is_seen.sum() < is_seen.size
    np.testing.assert_array_equal(found.opacity[0] > 0, is_seen)
    assert found.history[-1, 0] > found.history[0, 0] + 0.5


def test_images_of_tokens_differ_more_where_diversity_is_asked_for(network):
    variables, table = network
    layer = table["tanh_1"]
    assert layer.shape == (1, 9, 4)

    def likeness(images):
        tokens = np.tanh(
            np.maximum(np.asarray(first_map(variables, images)), 0).reshape(2, 9, 3) @ variables[2]
        )
        grams = np.einsum("npc,npd->ncd", tokens, tokens).reshape(2, -1)
        return grams[0] @ grams[1] / np.prod(np.linalg.norm(grams, axis=1))

    target = int(variables[2].sum(0).argmax())
    options = {"layer": layer, **FAST, "num_steps": 30}
    found = {v: visualize(small, variables, [target] * 2, DRAWN, diversity=v, **options) for v in (0.0, 3.0)}
    assert likeness(found[3.0].images) < likeness(found[0.0].images) - 0.05
    apart = visualize(small, variables, [target, (target + 1) % 4], DRAWN, diversity=3.0, **options)
    np.testing.assert_allclose(apart.images[0], found[0.0].images[0], atol=1e-5)  # no other has its target


def test_a_score_of_ones_own_is_followed_and_nothing_is_compiled_twice(network):
    variables, _ = network
    vector = np.array([1.0, 0.0, -1.0, 0.5], np.float32)
    options = {"score": similarity(vector), **FAST, "num_steps": 20, "key": jax.random.split(KEY)}
    found = visualize(small, variables, np.zeros(2), DRAWN, **options)
    outputs = np.asarray(small(variables, found.images))
    cosines = outputs @ vector / np.linalg.norm(outputs, axis=1) / np.linalg.norm(vector)
    np.testing.assert_allclose(found.scores, cosines, rtol=1e-5)
    assert (found.history[-5:].mean(0) > found.history[0]).all()
    with jax.no_tracing():
        again = visualize(small, variables, np.zeros(2), fourier_images(SHAPE), **options)
    np.testing.assert_array_equal(again.images, found.images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": 3}, "targets go from 3 to 3: layer 'relu_1' has the channels 0 to 2"),
        ({"targets": [[1.0, 2.0]]}, r"targets has shape \[\(1, 2\)\]: expected channels of layer 'relu_1'"),
        ({"targets": [[0.0, 0, 0]]}, "targets has directions of zeros"),
        ({"targets": []}, "expected one an image, with a leading axis"),
        ({"layer": None, "targets": 4}, "targets go from 4 to 4: expected classes from 0 to 3"),
        ({"layer": None, "position": (0, 0)}, r"position is \(0, 0\) without a layer"),
        ({"layer": None, "diversity": 1.0}, "diversity is 1.0 without a layer"),
        ({"diversity": -1.0}, "diversity is -1.0: expected 0 or more"),
        ({"position": (3, 0)}, r"position is \(3, 0\): layer 'relu_1' has 3 × 3 of them"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: expected a positive number"),
        ({"num_steps": 0}, "num_steps is 0: expected at least 1"),
        ({"key": None}, "key is None: visualize draws at random"),
        ({"parametrization": fourier_images((6, 6, 2))}, r"layer 'relu_1' is of images of \(5, 6\), and"),
        ({"score": lambda a, t: a.mean()}, r"score returned \(\): expected one number an image, \(1,\)"),
        ({"view": lambda key, image: image[1:]}, r"view returned shape \(4, 6, 2\): expected that of"),
        ({"score": lambda a, t: a.reshape(1, -1).sum(1) * jnp.nan}, "score is not finite for 1 of 1 images"),
        ({"score": lambda a, t: a.reshape(1, -1).sum(1) * 0}, "no gradient reached 1 of 1 images"),
    ],
)
def test_what_cannot_be_visualized_is_refused(network, options, message):
    variables, table = network
    given = {"targets": 0, "parametrization": DRAWN, "layer": table["relu_1"], "key": KEY, "num_steps": 1}
    with pytest.raises(ValueError, match=message):
        visualize(small, variables, **(given | options))


def test_a_mean_over_positions_is_a_mean():
    activations = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = activations.mean((1, 2))[[0, 1], [4, 2]]
    np.testing.assert_allclose(mean_channel(activations, jnp.array([4, 2])), expected, rtol=1e-5)
