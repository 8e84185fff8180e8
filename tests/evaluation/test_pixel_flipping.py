"""Values of Quantus 0.6.0 on the softmax of a linear model, and closed forms of linear scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.heatmap_case import ATTRIBUTIONS
from vexplain.attribution import probability
from vexplain.evaluation import blurred_images, darkest_values, faithfulness_estimate, pixel_flipping

WEIGHTS = (jnp.arange(32.0).reshape(2, 16) / 31 - 0.5).T
IMAGES = jnp.linspace(-1, 1, 16).reshape(1, 4, 4, 1)
TARGETS = jnp.array([1])


def linear(weights, images):
    return images.reshape(len(images), -1) @ weights


def flipped(heatmaps, **options):
    curve = pixel_flipping(linear, WEIGHTS, IMAGES, TARGETS, heatmaps, score=probability, **options)
    np.testing.assert_allclose(curve.scores[:, 0], probability(linear(WEIGHTS, IMAGES), TARGETS), rtol=1e-6)
    return curve.scores[0, 1:]


def test_against_quantus():
    black = {"baseline": darkest_values(IMAGES)}
    expected = [0.099558, 0.015843, 0.0023385, 0.00025909]
    np.testing.assert_allclose(flipped(ATTRIBUTIONS, pixels_per_step=4, **black), expected, rtol=3e-5)
    expected = [0.27619, 0.099558, 0.068176, 0.015843, 0.0065374, 0.0023385, 0.0010253, 0.00025909]
    np.testing.assert_allclose(flipped(ATTRIBUTIONS, pixels_per_step=2, **black), expected, rtol=3e-5)


def test_a_true_zero_is_another_baseline():
    expected = [0.46565, 0.5, 0.53435, 0.5]
    np.testing.assert_allclose(flipped(ATTRIBUTIONS, num_steps=4, baseline=0.0), expected, atol=5e-6)


def test_flipping_patches_is_selectivity():
    pooled = ATTRIBUTIONS.reshape(1, 2, 2, 2, 2).sum((2, 4)).repeat(2, 1).repeat(2, 2)
    expected = [0.052634, 0.027159, 0.00089360, 0.00025909]
    found = flipped(pooled, pixels_per_step=4, baseline=darkest_values(IMAGES))
    np.testing.assert_allclose(found, expected, rtol=3e-5)


def test_faithfulness_estimate_against_quantus():
    """The value came without its settings: of those tried, the logit and groups of two pixels give it."""
    arguments, black = (WEIGHTS, IMAGES, TARGETS, ATTRIBUTIONS), darkest_values(IMAGES)
    found = faithfulness_estimate(linear, *arguments, pixels_per_step=2, baseline=black)
    np.testing.assert_allclose(found, -0.40175, atol=5e-6)


def test_faithfulness_estimate_against_a_loop_of_numpy():
    weights, pixels, values = (
        np.asarray(a, np.float64) for a in (WEIGHTS, IMAGES.ravel(), ATTRIBUTIONS.ravel())
    )

    def score(x):
        logits = x @ weights
        return np.exp(logits[1]) / np.exp(logits).sum()

    groups = np.split(np.argsort(-values, kind="stable"), [5, 10, 15])
    mass = [values[g].sum() for g in groups]
    loss = [score(pixels) - score(np.where(np.isin(np.arange(16), g), 0.3, pixels)) for g in groups]
    found = faithfulness_estimate(
        linear,
        WEIGHTS,
        IMAGES,
        TARGETS,
        ATTRIBUTIONS,
        score=probability,
        pixels_per_step=5,
        baseline=0.3,
    )
    np.testing.assert_allclose(found, np.corrcoef(mass, loss)[0, 1], rtol=1e-4)


def weighted_sum(weights, images):
    return (weights * images).sum((1, 2, 3))


def plus_targets(outputs, targets):
    return outputs + targets


def test_both_modes_of_a_linear_score_by_hand(key):
    """Two images, uneven steps: 15 pixels in steps of 4, three channels, a baseline for each channel."""
    weights, images = jax.random.normal(key, (3, 5, 3)), jax.random.uniform(jax.random.key(1), (2, 3, 5, 3))
    heatmaps, cover = jax.random.normal(jax.random.key(2), (2, 3, 5)), jnp.array([0.2, 0.9, 0.4])
    targets = jnp.array([5.0, -3.0])
    arguments = (weighted_sum, weights, images, targets, heatmaps)
    down = pixel_flipping(*arguments, score=plus_targets, pixels_per_step=4, baseline=cover)
    up = pixel_flipping(*arguments, score=plus_targets, pixels_per_step=4, baseline=cover, mode="insertion")
    gain = np.asarray((weights * (images - cover)).sum(-1)).reshape(2, 15)
    shares = np.array([0, 4, 8, 12, 15]) / 15
    np.testing.assert_allclose(down.shares, shares, rtol=1e-6)
    for n in range(2):
        taken = np.cumsum(gain[n][np.argsort(-np.ravel(heatmaps[n]))])[[3, 7, 11, 14]]
        whole = float((weighted_sum(weights, images) + targets)[n])
        scores = whole - np.array([0, *taken])
        np.testing.assert_allclose(down.scores[n], scores, atol=1e-5)
        np.testing.assert_allclose(up.scores[n], whole - taken[-1] + np.array([0, *taken]), atol=1e-5)
        np.testing.assert_allclose(down.area[n], np.trapezoid(scores, shares), atol=1e-5)


def test_the_true_gain_has_the_least_area_of_deletion_and_the_most_of_insertion(key):
    weights, images = jax.random.normal(key, (3, 5, 1)), jnp.ones((1, 3, 5, 1))
    truth = weights[None, ..., 0]
    noise = jax.random.normal(jax.random.key(1), (1, 3, 5))

    def area(heatmaps, mode):
        targets = jnp.zeros(1)
        return pixel_flipping(
            weighted_sum,
            weights,
            images,
            targets,
            heatmaps,
            score=plus_targets,
            pixels_per_step=4,
            mode=mode,
        ).area

    assert area(truth, "deletion") < area(noise, "deletion") < area(-truth, "deletion")
    assert area(truth, "insertion") > area(noise, "insertion") > area(-truth, "insertion")


def test_equal_pixels_go_row_by_row_or_as_the_key_says(key):
    images, flat = jnp.arange(16.0).reshape(1, 4, 4, 1), jnp.zeros((1, 4, 4))
    arguments = (weighted_sum, jnp.ones((4, 4, 1)), images, jnp.zeros(1), flat)
    rows = pixel_flipping(*arguments, score=plus_targets, pixels_per_step=4)
    np.testing.assert_allclose(-np.diff(rows.scores[0]), [6, 22, 38, 54])
    drawn = pixel_flipping(*arguments, score=plus_targets, pixels_per_step=4, key=key)
    assert (drawn.scores != rows.scores).any()
    np.testing.assert_array_equal(drawn.scores[:, [0, -1]], rows.scores[:, [0, -1]])


def test_it_is_traced_once_whatever_the_maps(key):
    traces = []

    def apply(variables, images):
        traces.append(0)
        return linear(variables, images)

    compiled = jax.jit(lambda h: pixel_flipping(apply, WEIGHTS, IMAGES, TARGETS, h, num_steps=16).area)
    first, count = compiled(ATTRIBUTIONS), len(traces)
    second = compiled(-ATTRIBUTIONS)
    assert len(traces) == count
    assert first != second


def test_memory_does_not_grow_with_the_steps(key):
    images = jax.random.uniform(key, (4, 16, 16, 3))

    def area(images, num_steps):
        heatmaps, targets = images.sum(-1), jnp.zeros(4)
        return pixel_flipping(
            weighted_sum,
            jnp.ones((16, 16, 3)),
            images,
            targets,
            heatmaps,
            score=plus_targets,
            num_steps=num_steps,
        ).area

    few, many = (
        jax.jit(area, static_argnums=1).lower(images, n).compile().memory_analysis().temp_size_in_bytes
        for n in (2, 200)
    )
    assert many < few + images.nbytes


def test_blur_keeps_a_plain_image_and_the_sum_of_any(key):
    images = jax.random.uniform(key, (2, 6, 9, 3))
    blurred = blurred_images(images, sigma=1.5)
    np.testing.assert_allclose(blurred.sum((1, 2)), images.sum((1, 2)), rtol=1e-5)
    assert (blurred.std((1, 2)) < 0.5 * images.std((1, 2))).all()
    np.testing.assert_allclose(blurred_images(jnp.full((1, 6, 9, 3), 0.3), sigma=40.0), 0.3, rtol=1e-5)
    with pytest.raises(ValueError, match="sigma is 0"):
        blurred_images(images, sigma=0.0)


def test_mistakes_are_named():
    arguments = (linear, WEIGHTS, IMAGES, TARGETS, ATTRIBUTIONS)
    with pytest.raises(ValueError, match="num_steps is None and pixels_per_step is None: expected one"):
        pixel_flipping(*arguments)
    with pytest.raises(ValueError, match="num_steps is 17: expected 1 to 16"):
        pixel_flipping(*arguments, num_steps=17)
    with pytest.raises(ValueError, match="baseline has shape"):
        pixel_flipping(*arguments, num_steps=4, baseline=jnp.zeros((4, 3, 1)))
