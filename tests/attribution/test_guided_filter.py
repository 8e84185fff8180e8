"""The area-filling step against its equations, window by window."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.attribution import guided_filter


def by_windows(heatmap, image, radius, smoothness):
    """He, Sun, Tang, Guided Image Filtering, Equations 14 to 16, by loops over the windows of one image."""
    height, width, channels = image.shape

    def window(y, x):
        return slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), x + radius + 1)

    slopes, intercepts = np.zeros(image.shape), np.zeros(heatmap.shape)
    for y, x in np.ndindex(height, width):
        colors, values = image[window(y, x)].reshape(-1, channels), heatmap[window(y, x)].ravel()
        covariance = np.cov(colors.T, bias=True).reshape(channels, channels)
        products = (colors * values[:, None]).mean(0) - colors.mean(0) * values.mean()
        slopes[y, x] = np.linalg.inv(covariance + smoothness * np.eye(channels)) @ products  # 14
        intercepts[y, x] = values.mean() - slopes[y, x] @ colors.mean(0)  # 15
    filtered = np.zeros(heatmap.shape)
    for y, x in np.ndindex(height, width):
        slope = slopes[window(y, x)].reshape(-1, channels).mean(0)
        filtered[y, x] = slope @ image[y, x] + intercepts[window(y, x)].mean()  # 16
    return filtered


@pytest.mark.parametrize(
    ("shape", "radius", "smoothness"),
    [((2, 5, 7, 3), 2, 1e-2), ((1, 6, 4, 1), 1, 1e-3), ((1, 4, 5, 3), 9, 1e-1)],  # the last sees all at once
    ids=["color", "gray", "windows larger than the image"],
)
def test_the_filter_against_its_equations(shape, radius, smoothness):
    rng = np.random.default_rng(0)
    images, heatmaps = rng.random(shape), rng.random(shape[:3])
    expected = [by_windows(h, x, radius, smoothness) for h, x in zip(heatmaps, images, strict=True)]
    filtering = functools.partial(guided_filter, radius=radius, smoothness=smoothness)
    with jax.enable_x64(True):
        found = jax.jit(filtering)(jnp.asarray(heatmaps), images)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    single = jax.jit(filtering)(jnp.asarray(heatmaps, jnp.float32), images.astype(np.float32))
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-4)


def test_a_constant_map_stays_and_a_constant_image_leaves_means():
    rng = np.random.default_rng(1)
    images = rng.random((2, 5, 7, 3)).astype(np.float32)
    images[1] = 0.25
    heatmaps = np.full((2, 5, 7), 0.7, np.float32)
    heatmaps[1] = rng.random((5, 7))
    found = guided_filter(jnp.asarray(heatmaps), images, radius=3, smoothness=1e-3)
    np.testing.assert_allclose(found[0], 0.7, atol=1e-5)
    means = by_windows(heatmaps[1], np.zeros((5, 7, 1)), 3, 1.0)  # nothing to follow: two means in a row
    np.testing.assert_allclose(found[1], means, atol=1e-5)


def test_an_edge_of_color_stops_it_and_a_faint_one_does_not():
    heatmaps = jnp.zeros((2, 8, 10)).at[:, :, 5:].set(1.0)
    images = np.full((2, 8, 10, 3), 0.5, np.float32)
    images[0, :, 5:, 1] += 0.4
    images[1, :, 5:, 1] += 0.004
    sharp, blurred = guided_filter(heatmaps, images, radius=2, smoothness=1e-4)
    np.testing.assert_allclose(sharp, heatmaps[0], atol=0.01)
    assert 0.2 < blurred[4, 4] < 0.5 < blurred[4, 5] < 0.8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": 0}, "radius is 0: expected a number of pixels"),
        ({"smoothness": 0.0}, "smoothness is 0.0: expected a positive number"),
        ({"smoothness": float("nan")}, "smoothness is nan"),
    ],
)
def test_what_is_out_of_range_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        guided_filter(
            jnp.zeros((1, 3, 3)), np.zeros((1, 3, 3, 1)), **({"radius": 1, "smoothness": 0.1} | change)
        )
