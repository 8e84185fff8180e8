"""Parameters become images of a stated spectrum, and views are the maps that SciPy and NumPy know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from vexplain.concepts import RandomViews, fixed_magnitudes, fourier_images, image_statistics
from vexplain.concepts.drawn_images import IMAGENET_COLORS, ImageStatistics, moved
from vexplain.datasets import ArraySource


def before_sigmoid(image):
    return jnp.log(image / (1 - image))


@pytest.mark.parametrize(("height", "width", "decay"), [(6, 5, 1.0), (5, 6, 2.0), (4, 8, 0.0)])
def test_white_coefficients_have_the_power_spectrum_that_is_stated(height, width, decay):
    drawn = fourier_images((height, width, 1), decay=decay, deviation=1.0)
    with jax.enable_x64(True):
        white = jnp.zeros((2, height, width // 2 + 1, 1))
        matrix = np.asarray(jax.jit(jax.jacfwd(lambda z: before_sigmoid(drawn.image(z))))(white))
    spectra = np.fft.fft2(matrix[..., 0, :, :, :, 0], axes=(0, 1), norm="ortho")
    power = (abs(spectra) ** 2).sum((2, 3, 4))  # of white noise: the squares over all coefficients
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    expected = np.maximum(frequencies, 1 / max(height, width)) ** (-2 * decay)
    np.testing.assert_allclose(power, expected / expected.mean(), rtol=1e-10)


def test_colors_have_the_covariance_that_is_given_and_variance_one_in_the_mean():
    colors = np.array([[0.5, 0.1], [0.2, -0.3]])
    drawn = fourier_images((2, 3, 2), colors=colors)
    with jax.enable_x64(True):
        white = jnp.zeros((2, 2, 2, 2))
        matrix = np.asarray(jax.jit(jax.jacfwd(lambda z: before_sigmoid(drawn.image(z))))(white))
    found = np.einsum("hwcabde,hwCabde->cC", matrix, matrix) / 6
    np.testing.assert_allclose(found / np.trace(found), colors @ colors.T / (colors**2).sum(), atol=1e-12)
    np.testing.assert_allclose(np.trace(found) / 2, 1, rtol=1e-10)


def test_the_default_colors_are_those_of_imagenet_and_gray_has_one():
    assert fourier_images((2, 2, 1)).colors.shape == (1, 1)
    three = fourier_images((2, 2, 3)).colors
    np.testing.assert_allclose(three / three[0, 0], IMAGENET_COLORS / IMAGENET_COLORS[0, 0], atol=1e-12)


@pytest.mark.parametrize("width", [4, 5])
def test_phases_leave_the_magnitudes_as_they_are(width):
    generator = np.random.default_rng(0)
    magnitudes = generator.uniform(0.01, 0.1, (6, width // 2 + 1, 2))
    columns = [0] if width % 2 else [0, -1]  # of a real image, those of f and -f are the same
    magnitudes[:, columns] = (magnitudes + np.roll(magnitudes[::-1], 1, 0))[:, columns] / 2
    mean, colors = np.array([0.3, 0.6]), np.array([[1.0, 0.5], [0.25, -1.0]])
    drawn = fixed_magnitudes(ImageStatistics(mean, colors, magnitudes, (6, width, 2)))
    with jax.enable_x64(True):
        image = drawn.image(jnp.asarray(generator.uniform(-4, 4, magnitudes.shape)))
        slope = mean * (1 - mean)
        away = (before_sigmoid(image) - np.log(mean / (1 - mean))) * slope
    found = np.fft.rfft2(np.asarray(away) @ np.linalg.inv(colors).T, axes=(0, 1), norm="ortho")
    magnitudes[0, 0] = 0
    np.testing.assert_allclose(abs(found), magnitudes, atol=1e-10)


def test_statistics_are_those_of_numpy_and_heed_the_images_that_count():
    images = np.random.default_rng(0).uniform(size=(5, 4, 6, 3)).astype(np.float32)
    images[..., 1] = images[..., 0] ** 2
    source = ArraySource(images, np.zeros(5, int), class_names=("noise",))
    found = image_statistics(source, batch_size=2)
    pixels = images.reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found.mean, pixels.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.colors @ found.colors.T, np.cov(pixels.T, bias=True), atol=1e-6)
    assert (np.diff((found.colors**2).sum(0)) <= 0).all()
    away = (images - pixels.mean(0)) @ np.linalg.inv(found.colors).T
    magnitudes = abs(np.fft.rfft2(away, axes=(1, 2), norm="ortho")).mean(0)
    np.testing.assert_allclose(found.magnitudes, magnitudes, atol=1e-4)
    assert found.image_shape == (4, 6, 3)


def test_images_are_moved_as_scipy_moves_them():
    image = np.random.default_rng(0).uniform(size=(5, 7, 2))
    angle, scale, shift, center = np.deg2rad(25), 1.3, np.array([0.7, -1.2]), np.array([2, 3])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
    with jax.enable_x64(True):
        found = moved(jnp.asarray(image), shift=shift, scale=scale, degrees=25.0, fill=0.25)
        quarter = moved(jnp.asarray(image[:, :5]), degrees=90.0)
    options = {"offset": center - turn @ (center + shift), "order": 1, "mode": "grid-constant", "cval": 0.25}
    for channel in range(2):
        expected = scipy.ndimage.affine_transform(image[..., channel], turn, **options)
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-10)
    np.testing.assert_allclose(quarter, np.rot90(image[:, :5]), atol=1e-10)


def test_the_derivative_of_a_view_is_its_own_transpose():
    """A view is affine: <v, T'u> = <T'*v, u>, and T'u is a difference of two views."""
    generator = np.random.default_rng(1)
    u, v, x = generator.uniform(size=(3, 4, 5, 1))
    view, key = RandomViews(shift=0.3, scales=(0.5, 2.0), degrees=40.0), jax.random.key(3)

    @jax.jit
    def both(u, v, x):
        base, pull = jax.vjp(lambda image: view(key, image), x)
        return (v * (view(key, x + u) - base)).sum(), (pull(v)[0] * u).sum()

    with jax.enable_x64(True):
        found, expected = both(u, v, x)
        first, second = (jax.jit(view)(jax.random.key(n), x) for n in range(2))
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert np.abs(np.asarray(first) - np.asarray(second)).max() > 0.01


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fourier_images((4, 4, 0)), "channels is 0: expected at least 1"),
        (
            lambda: fourier_images((4, 4, 3), colors=np.eye(2)),
            r"colors has shape \(2, 2\): expected \(3, 3\)",
        ),
        (
            lambda: fourier_images((4, 4, 1), colors=np.zeros((1, 1))),
            "colors has NaN, infinite values or zer",
        ),
        (lambda: fourier_images((4, 4, 3), deviation=0.0), "deviation is 0.0: expected a positive number"),
        (lambda: RandomViews(shift=1.5), r"shift is 1.5: expected a share of the image in \[0, 1\)"),
        (lambda: RandomViews(scales=(1.1, 0.9)), r"scales is \(1.1, 0.9\): expected two positive factors"),
        (lambda: RandomViews(degrees=-1.0), "degrees is -1.0: expected the largest angle"),
        (
            lambda: fixed_magnitudes(ImageStatistics(np.ones(1), np.eye(1), np.zeros((4, 3, 1)), (4, 4, 1))),
            "statistics has magnitudes that are all zero",
        ),
        (
            lambda: image_statistics(ArraySource(np.zeros((0, 4, 4, 1)), np.zeros(0, int), class_names=())),
            "source is empty",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
