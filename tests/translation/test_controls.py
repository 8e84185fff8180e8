"""Controls by brute force and closed forms. Their scores are in `test_scores.py`."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.translation import fill_with_mean_color, hue_error, mean_image, nearest_neighbor, turn_hue


def test_nearest_neighbor_against_brute_force():
    random = np.random.default_rng(0)
    images = random.random((5, 4, 7, 3), np.float32)
    candidates = random.random((23, 4, 7, 3), np.float32)
    candidates[17] = images[2] + 0.01
    expected = candidates[((images[:, None] - candidates) ** 2).sum((2, 3, 4)).argmin(1)]
    for block in (23, 8):
        np.testing.assert_array_equal(nearest_neighbor(images, candidates, block=block), expected)
    np.testing.assert_array_equal(jax.jit(nearest_neighbor)(images, candidates), expected)


def test_mean_image():
    candidates = np.random.default_rng(0).random((6, 4, 5, 3), np.float32)
    means = mean_image(np.zeros((2, 4, 5, 3), np.float32), candidates)
    np.testing.assert_allclose(means, np.stack([candidates.mean(0)] * 2), rtol=1e-5)


def test_turned_hues_are_those_of_hsv():
    images = np.random.default_rng(0).random((1, 3, 4, 3), np.float32)
    turned_images = np.asarray(turn_hue(images))
    for color, turned in zip(images.reshape(-1, 3), turned_images.reshape(-1, 3), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*map(float, color))
        np.testing.assert_allclose(turned, colorsys.hsv_to_rgb((h + 1 / 3) % 1, s, v), atol=1e-5)
    np.testing.assert_allclose(
        hue_error(jnp.asarray(turned_images[0, 0]), jnp.asarray(images[0, 0])), 120, atol=0.01
    )


def test_mean_color_in_the_true_shape():
    masks = jnp.zeros((1, 5, 6)).at[:, :, 0].set(1.0).at[:, :, 1].set(0.4)
    images = jnp.full((1, 5, 6, 3), 0.9).at[:, :, 0].set(jnp.array([0.5, 0.25, 0.0])).at[:, :, 1].set(0.1)
    coverage = jnp.zeros((1, 5, 6)).at[:, 2, 3].set(1.0).at[:, 2, 4].set(0.5)
    filled = fill_with_mean_color(images, masks, coverage)
    np.testing.assert_allclose(filled[0, 2, 3], [0.5, 0.25, 0.0], rtol=1e-6)
    np.testing.assert_allclose(filled[0, 2, 4], [0.7, 0.575, 0.45], rtol=1e-6)
    np.testing.assert_allclose(filled[0, 0, 0], 0.9, rtol=1e-6)
