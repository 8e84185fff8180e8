"""Losses against closed forms, and what each similarity loss can and cannot see."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.datasets.filters import gaussian_blur
from vexplain.datasets.shape_swap import ShapeSwapSource, render_factors
from vexplain.translation import (
    absolute_error,
    adversarial_loss,
    color_distance,
    gradient_penalty,
    gram_distance,
    kl_divergence,
    latent_distance,
    low_pass_distance,
    offset_distance,
    pose_distance,
    soft_foreground,
)

# Compiled as a whole: one after the other their operations are hundreds of programs.
color_distance, gram_distance, latent_distance, offset_distance, pose_distance, soft_foreground = map(
    jax.jit,
    (color_distance, gram_distance, latent_distance, offset_distance, pose_distance, soft_foreground),
)


@pytest.fixture
def objects(key):
    """Five images of a striped object on a light background, and the same objects moved and reshaped."""
    rng = np.random.default_rng(0)
    images, moved = np.full((2, 5, 24, 24, 3), 0.9, np.float32)
    for n in range(5):
        colors = np.array(
            [colorsys.hsv_to_rgb(h, s, 0.9) for h, s in rng.uniform(0.3, 1, (2, 2))], np.float32
        )
        stripes = colors[(np.arange(24) // 2) % 2]
        images[n, 4:16, 4:12] = stripes[4:16, None]  # tall
        moved[n, 8:16, 6:18] = stripes[8:16, None]  # wide, of the same area
    return jnp.asarray(images), jnp.asarray(moved)


def hue_turned(images):
    """Red to green to blue: a third of a turn, the gray background unchanged."""
    return jnp.roll(images, 1, axis=-1)


def test_kl_is_the_integral_of_its_definition():
    mean, log_variance = np.array([[0.7, -1.2, 0.0]]), np.array([[0.4, -0.9, 0.0]])
    x = np.linspace(-12, 12, 200_001)[:, None]
    deviation = np.exp(log_variance / 2)
    q = np.exp(-(((x - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))
    log_p = -(x**2) / 2 - np.log(np.sqrt(2 * np.pi))
    inside = np.where(q > 0, q * (np.log(np.maximum(q, 1e-300)) - log_p), 0)
    expected = np.trapezoid(inside, x, axis=0).mean()
    found = jax.jit(kl_divergence)(mean, log_variance)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_errors_and_adversarial_losses_are_means_per_example():
    a, b = jnp.arange(12.0).reshape(2, 3, 2), jnp.ones((2, 3, 2))
    np.testing.assert_allclose(absolute_error(a, b), np.abs(a - b).mean((1, 2)), rtol=1e-6)
    scores = jnp.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_allclose(adversarial_loss(scores, target=1), ((scores - 1) ** 2 / 2).mean((1, 2)))
    np.testing.assert_allclose(adversarial_loss(scores[:, 0, 0], target=0), [0.0, 8.0])


def test_r1_is_half_the_squared_slope():
    rng = np.random.default_rng(0)
    weights, images = (rng.uniform(-1, 1, s).astype(np.float32) for s in ((4, 5, 3), (2, 4, 5, 3)))

    def score(x):
        return jnp.sin((x * weights).sum((1, 2, 3)))

    slope = np.cos((images * weights).sum((1, 2, 3)))
    expected = slope**2 * (weights**2).sum() / 2
    two_scores = lambda x: jnp.stack([score(x), score(x)], -1)  # noqa: E731
    for fn in (score, two_scores):
        found = jax.jit(gradient_penalty, static_argnums=0)(fn, images)
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_foreground_is_what_differs_from_the_border(objects):
    images, _ = objects
    mask = soft_foreground(images)
    inside = np.zeros((5, 24, 24), bool)
    inside[:, 4:16, 4:12] = True
    assert mask[inside].min() > 0.9
    assert mask[~inside].max() < 0.06


@pytest.mark.parametrize(
    "distance", [color_distance, lambda a, b: gram_distance(a, b, key=jax.random.key(1))]
)
def test_appearance_distances_see_color_and_not_shape_or_place(distance, objects):
    images, moved = objects
    same, turned = distance(images, moved), distance(images, hue_turned(moved))
    others = distance(images, jnp.roll(moved, 1, axis=0))
    assert (turned > 4 * same).all()
    assert (others > 2 * same).all()
    np.testing.assert_allclose(distance(images, images), 0, atol=1e-6)


def test_color_distance_is_that_of_known_statistics():
    """Half of the object at 0.2, half at 0.6: mean 0.4, variance 0.04; all at 0.4: variance 0."""
    a = jnp.full((1, 16, 16, 1), 0.95).at[0, 2:8, 2:14].set(0.2).at[0, 8:14, 2:14].set(0.6)
    b = jnp.full((1, 16, 16, 1), 0.95).at[0, 2:14, 2:14].set(0.4)
    np.testing.assert_allclose(color_distance(a, b), 4 * 0.04, rtol=0.15)


def test_low_pass_distance_sees_place_and_color_but_not_what_is_in_a_block(objects):
    images, _ = objects
    shuffled = images.reshape(5, 3, 8, 3, 8, 3)[:, :, ::-1, :, ::-1].reshape(images.shape)
    np.testing.assert_allclose(low_pass_distance(images, shuffled), 0, atol=1e-6)
    assert (low_pass_distance(images, jnp.roll(images, 8, axis=2)) > 0.02).all()
    assert (low_pass_distance(images, hue_turned(images)) > 0.01).all()
    with pytest.raises(ValueError, match=r"factor is 5: expected a divisor of the image's 24×24"):
        low_pass_distance(images, images, factor=5)


def ellipses(tilt, *, length=13.0, width=6.0, colors=(0.8, 0.1, 0.2)):
    """Ellipses on a light background, of half axes `length` and `width`, turned by `tilt` radians."""
    y, x = np.mgrid[:48, :48] - 23.5
    c, s = np.cos(tilt), np.sin(tilt)
    inside = ((c * x + s * y) / length) ** 2 + ((c * y - s * x) / width) ** 2 < 1
    return jnp.asarray(np.where(inside[None, ..., None], np.array(colors), 0.9).astype(np.float32))


def test_pose_distance_is_that_of_known_ellipses():
    """Tilt: r² (1 - cos 2φ) / (r² + 0.05²), r = (a² - b²) / (a² + b²); size: the logarithm of the areas."""
    anisotropy = (13**2 - 6**2) / (13**2 + 6**2)
    for angle in (0.2, 0.7, np.pi / 2):
        expected = anisotropy**2 * (1 - np.cos(2 * angle)) / (anisotropy**2 + 0.05**2)
        found = pose_distance(ellipses(0.3), ellipses(0.3 + angle))
        np.testing.assert_allclose(found, expected, rtol=0.02, atol=0.02)  # pixels have no tilt
    larger = pose_distance(ellipses(0.3), ellipses(0.3, length=13 * 1.2, width=6 * 1.2))
    np.testing.assert_allclose(larger, 2 * np.log(1.2), rtol=0.05)


def test_pose_distance_sees_no_hue_no_place_and_no_tilt_of_what_is_round():
    tilted = ellipses(0.4)
    blurred = gaussian_blur(tilted, sigma=1.0, radius=4)
    for other in (ellipses(0.4, colors=(0.1, 0.2, 0.8)), jnp.roll(tilted, (5, -4), (1, 2)), blurred):
        np.testing.assert_allclose(pose_distance(tilted, other), 0, atol=0.05)
    wide = ellipses(0.0, length=11.0, width=7.1)
    round_one = ellipses(0.0, length=8.84, width=8.84)
    for angle in (0.0, 0.8, np.pi / 2):
        np.testing.assert_allclose(
            pose_distance(round_one, ellipses(angle, length=11.0, width=7.1)), 0, atol=0.15
        )
    assert pose_distance(wide, ellipses(np.pi / 2, length=11.0, width=7.1)) > 1.7


def test_only_the_pose_distance_tells_a_turn_from_its_mirror_image():
    """Trousers of a T-shirt that leans to one side, against trousers that lean to the other."""
    chosen = np.arange(100)
    factors = jax.device_get(ShapeSwapSource(0, num_images=100, size=32, split="pairs").factors(chosen))
    mirrored = factors._replace(rotation=-factors.rotation)
    draw = jax.jit(jax.vmap(lambda f, d: render_factors(f, d, size=32)[0], in_axes=(0, None)))
    shirts, trousers, others = draw(factors, 0), draw(factors, 1), draw(mirrored, 1)
    for blind in (color_distance, low_pass_distance):
        true, false = (blind(shirts, x).mean() for x in (trousers, others))
        assert true > 0.95 * false
    true, false = (pose_distance(shirts, x).mean() for x in (trousers, others))
    assert true < 0.5 * false


def test_offset_distance_sees_who_is_shifted_otherwise_than_the_rest():
    """Partners agree on the shift; trousers that do not swing about the middle of the T-shirt do not."""
    chosen = np.arange(100)
    factors = jax.device_get(ShapeSwapSource(0, num_images=100, size=32, split="pairs").factors(chosen))
    draw = jax.jit(jax.vmap(lambda f, d: render_factors(f, d, size=32)[0], in_axes=(0, None)))
    shirts, trousers = draw(factors, 0), draw(factors, 1)
    lateral = 4.35 / 32 * factors.rotation  # what a shift along the image's own axis leaves out
    beside = draw(factors._replace(center_x=factors.center_x - lateral), 1)
    anywhere = jnp.roll(trousers, 1, axis=0)
    true, false, worst = (offset_distance(shirts, x).mean() for x in (trousers, beside, anywhere))
    assert true < 0.3 * false < 0.15 * worst
    np.testing.assert_allclose(offset_distance(shirts, shirts), 0, atol=2e-4)


def test_latent_distance_cannot_tell_an_orthogonal_change_of_both(key):
    a, b = jax.random.normal(key, (2, 3, 7))
    turn = jnp.linalg.qr(jax.random.normal(key, (7, 7)))[0]
    np.testing.assert_allclose(latent_distance(a @ turn, b @ turn), latent_distance(a, b), rtol=1e-4)
    np.testing.assert_allclose(latent_distance(a, b), ((a - b) ** 2).mean(1), rtol=1e-6)


def test_every_loss_has_a_finite_slope_on_images_of_one_color():
    flat = jnp.full((2, 16, 16, 3), 0.5)
    for distance in (
        color_distance,
        low_pass_distance,
        pose_distance,
        offset_distance,
        lambda a, b: gram_distance(a, b, key=jax.random.key(0)),
    ):
        slope = jax.jit(jax.grad(lambda x: distance(flat, x).sum()))(flat)  # noqa: B023
        assert jnp.isfinite(slope).all()
