"""Colors against published values, scikit-image and the standard library; pixels in the region of a mask."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.datasets.filters import ssim_map
from vexplain.translation import (
    delta_e,
    hue,
    hue_error,
    lab_from_rgb,
    masked_l1,
    masked_psnr,
    masked_ssim,
    mean_color,
    overlap_error,
    texture_correlation,
)

# sRGB -> skimage.color.rgb2lab of scikit-image 0.26.0 (its matrix has six digits)
LAB = {
    (1.0, 0.0, 0.0): (53.2406, 80.0923, 67.2028),
    (0.0, 1.0, 0.0): (87.7351, -86.183, 83.1797),
    (0.0, 0.0, 1.0): (32.2957, 79.1856, -107.8573),
    (1.0, 1.0, 1.0): (100.0, -0.0025, 0.0047),
    (0.5, 0.5, 0.5): (53.389, -0.0015, 0.0028),
    (0.2, 0.4, 0.6): (42.008, -0.154, -32.8429),
    (0.02, 0.03, 0.01): (1.8478, -1.3761, 1.6953),
    (0.9, 0.7, 0.1): (75.3621, 6.2336, 74.4063),
}


def test_lab_against_scikit_image():
    colors = jnp.array(list(LAB))
    np.testing.assert_allclose(lab_from_rgb(colors), list(LAB.values()), atol=0.02)
    np.testing.assert_allclose(
        jax.jit(lab_from_rgb)(colors[:6].reshape(2, 3, 3))[1, 0], LAB[1.0, 1.0, 1.0], atol=0.02
    )
    np.testing.assert_allclose(lab_from_rgb(jnp.zeros(3)), 0, atol=1e-4)


def test_delta_e_is_the_distance_in_lab():
    (red, lab_red), (green, lab_green) = list(LAB.items())[:2]
    expected = np.linalg.norm(np.subtract(lab_red, lab_green))
    np.testing.assert_allclose(delta_e(jnp.array([red]), jnp.array([green])), expected, rtol=1e-3)


def test_hue_against_the_standard_library():
    random = np.random.default_rng(0).random((50, 3))
    colors = np.concatenate([random, [[0.3, 0.3, 0.3], [1, 1, 0], [0, 1, 1]]]).astype(np.float32)
    expected = [360 * colorsys.rgb_to_hsv(*map(float, color))[0] for color in colors]
    np.testing.assert_allclose(hue(jnp.asarray(colors)), expected, atol=1e-2)
    np.testing.assert_allclose(jax.jit(hue)(colors), expected, atol=1e-2)


def test_hue_error_goes_around_the_circle():
    degrees = np.array([0, 20, 120, 180, 270, 359])
    colors = [colorsys.hsv_to_rgb((130 + angle) / 360 % 1, 0.7, 0.8) for angle in degrees]
    truth = [colorsys.hsv_to_rgb(130 / 360, 0.7, 0.8)] * len(degrees)
    error = hue_error(jnp.array(colors), jnp.array(truth))
    np.testing.assert_allclose(error, [0, 20, 120, 180, 90, 1], atol=0.01)


def test_gray_has_no_hue():
    gray, red = [0.4, 0.4, 0.4], [0.6, 0.2, 0.2]
    error = hue_error(jnp.array([gray, red, gray]), jnp.array([red, gray, gray]))
    np.testing.assert_array_equal(error, [90, 0, 0])


def test_mean_color_of_a_region():
    random = np.random.default_rng(0)
    images, masks = random.random((4, 5, 7, 3), np.float32), random.random((4, 5, 7), np.float32)
    masks[2], masks[3] = 0, 1
    expected = [image[mask >= 0.5].mean(0) for image, mask in zip(images[:2], masks[:2], strict=True)]
    whole = [image.mean((0, 1)) for image in images[2:]]
    np.testing.assert_allclose(mean_color(images, jnp.asarray(masks)), [*expected, *whole], rtol=1e-5)


def waves():
    y, x = np.mgrid[:13, :17][..., None]
    first, second = (np.sin(0.9 * x + 0.4 * y * np.arange(1, 4) + phase) / 2 + 0.5 for phase in (0, 0.4))
    return jnp.asarray(first, jnp.float32)[None], jnp.asarray(0.7 * second + 0.1, jnp.float32)[None]


def test_only_the_region_counts():
    images, truth = waves()
    masks = jnp.asarray(np.random.default_rng(0).random((1, 13, 17), np.float32))
    inside = np.asarray(masks[0]) >= 0.5
    difference = np.asarray(images - truth)[0][inside]
    np.testing.assert_allclose(masked_l1(images, truth, masks), np.abs(difference).mean(), rtol=1e-5)
    np.testing.assert_allclose(
        masked_psnr(images, truth, masks), -10 * np.log10((difference**2).mean()), rtol=1e-5
    )
    expected = np.asarray(ssim_map(images, truth))[0][inside].mean()
    np.testing.assert_allclose(masked_ssim(images, truth, masks), expected, rtol=1e-5)
    elsewhere = jnp.where(masks[..., None] >= 0.5, images, 0.123)
    assert masked_l1(elsewhere, truth, masks) == masked_l1(images, truth, masks)


def test_overlap_is_where_both_show_the_object():
    outputs, inputs = waves()
    output_masks, input_masks = jnp.zeros((2, 1, 13, 17)).at[0, :, 2:9].set(0.5).at[1, :, 5:, 3:11].set(0.9)
    expected = np.abs(outputs - inputs)[0, 5:9, 3:11].mean()
    np.testing.assert_allclose(overlap_error(outputs, inputs, output_masks, input_masks), expected, rtol=1e-5)


def test_in_an_empty_region_and_of_equal_images_nothing_differs():
    images, truth = waves()
    for masks, other in ((jnp.zeros((1, 13, 17)), truth), (jnp.ones((1, 13, 17)), images)):
        assert masked_l1(images, other, masks) == 0
        np.testing.assert_allclose(masked_psnr(images, other, masks), 100, rtol=1e-6)
        np.testing.assert_allclose(masked_ssim(images, other, masks), 1, rtol=1e-5)
    assert overlap_error(images, truth, jnp.zeros((1, 13, 17)), jnp.ones((1, 13, 17))) == 0


def test_texture_is_the_correlation_within_the_region():
    random = np.random.default_rng(0)
    truth, images = (random.random((4, 6, 5, 3), np.float32) for _ in range(2))
    truth[3] = 0.4  # no pattern
    images[2] = 0.7
    masks = (random.random((4, 6, 5)) < 0.6).astype(np.float32)
    found = texture_correlation(jnp.asarray(images), jnp.asarray(truth), jnp.asarray(masks))
    for n in range(2):
        ours, true = (x[n][masks[n] == 1] for x in (images, truth))
        ours, true = ((x - x.mean(0)).ravel() for x in (ours, true))
        np.testing.assert_allclose(found[n], ours @ true / np.sqrt(ours @ ours * (true @ true)), rtol=1e-4)
    assert found[2] == 0
    assert np.isnan(found[3])
