"""Pose of ellipses that were drawn at a known place, size and angle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.translation import centroid_error, rotation_error, scale_ratio


def ellipse(row, column, size, degrees, aspect=0.5):
    y, x = np.mgrid[:61, :75] - np.array([row, column])[:, None, None]
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return jnp.asarray(((c * x + s * y) ** 2 + ((c * y - s * x) / aspect) ** 2 < size**2), jnp.float32)[None]


def test_position_and_size():
    truth, masks = ellipse(30, 37, 20, 15), ellipse(26, 34, 15, 15)
    np.testing.assert_allclose(centroid_error(masks, truth), 5, atol=0.05)
    np.testing.assert_allclose(scale_ratio(masks, truth), 0.75, rtol=0.01)
    np.testing.assert_allclose(scale_ratio(truth, truth), 1)


@pytest.mark.parametrize(
    ("angle", "true_angle", "expected"), [(0, 30, 30), (30, 0, 30), (85, -85, 10), (120, 35, 85), (7, 7, 0)]
)
def test_rotation_is_that_of_an_axis(angle, true_angle, expected):
    error = rotation_error(ellipse(30, 37, 20, angle), ellipse(25, 30, 22, true_angle))
    np.testing.assert_allclose(error, expected, atol=1)


def test_what_cannot_be_read_is_chance_or_worst():
    bar, disc, empty = ellipse(30, 37, 20, 40), ellipse(30, 37, 20, 0, aspect=1), jnp.zeros((1, 61, 75))
    full = jnp.ones((1, 61, 61))
    assert rotation_error(disc, bar) == rotation_error(empty, bar) == 45
    assert rotation_error(bar, disc) == rotation_error(empty, empty) == rotation_error(full, full) == 0
    np.testing.assert_allclose(centroid_error(empty, bar), np.hypot(61, 75), rtol=1e-6)
    np.testing.assert_allclose(centroid_error(bar, empty), np.hypot(61, 75), rtol=1e-6)
    assert scale_ratio(empty, bar) == 0
    assert np.isfinite(scale_ratio(bar, empty))


def test_jitted_they_are_the_same():
    masks, truth = ellipse(30, 37, 20, 40), ellipse(26, 34, 15, 15)
    for metric in (centroid_error, scale_ratio, rotation_error):
        np.testing.assert_allclose(jax.jit(metric)(masks, truth), metric(masks, truth), rtol=1e-5)
