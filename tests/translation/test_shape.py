"""Outlines against closed forms and distances that SciPy computes pair by pair; pose of drawn ellipses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.spatial.distance import cdist

from vexplain import translation
from vexplain.translation import centroid_error, iou_gain, mask_iou, rotation_error, scale_ratio

chamfer_distance = jax.jit(translation.chamfer_distance)
boundary_f1 = jax.jit(translation.boundary_f1, static_argnames="tolerance")


def blobs(seed):
    noise = np.random.default_rng(seed).standard_normal((4, 13, 18))
    smooth = gaussian_filter(noise, (0, 1.5, 1.5))
    return jnp.asarray(np.clip(0.5 + 2 * smooth, 0, 1), jnp.float32)


def stack(*masks):
    return jnp.asarray(np.stack(masks), jnp.float32)


def boundary_points(mask):
    region = np.asarray(mask) >= 0.5
    return np.argwhere(region & ~binary_erosion(region))


def test_against_distances_between_all_pairs_of_points():
    masks, truth = blobs(0), blobs(1)
    f1, chamfer = boundary_f1(masks, truth), chamfer_distance(masks, truth)
    wide = boundary_f1(masks, truth, tolerance=2.3)
    for n in range(len(masks)):
        distances = cdist(boundary_points(masks[n]), boundary_points(truth[n]))
        there, back = distances.min(1), distances.min(0)
        np.testing.assert_allclose(chamfer[n], (there.mean() + back.mean()) / 2, rtol=1e-5)
        for tolerance, value in ((1, f1[n]), (2.3, wide[n])):
            precision, recall = (there <= tolerance).mean(), (back <= tolerance).mean()
            np.testing.assert_allclose(value, 2 * precision * recall / (precision + recall), rtol=1e-5)


def test_a_shifted_square():
    truth = np.zeros((13, 18))
    truth[2:8, 3:9] = 1
    shifted = np.roll(truth, 3, axis=1)
    masks, truth = (
        stack(truth, np.roll(truth, 1, axis=0), shifted, shifted),
        stack(truth, truth, truth, truth),
    )
    np.testing.assert_allclose(mask_iou(masks, truth)[::2], [1, 18 / 54], rtol=1e-6)
    f1, distance = boundary_f1(masks, truth), chamfer_distance(masks, truth)
    assert f1[0] == f1[1] == 1
    assert f1[2] < 0.8
    assert distance[0] == 0
    assert 0 < distance[1] < distance[2] < 3


def test_gain_is_the_share_of_the_missing_overlap():
    gain = iou_gain(jnp.array([0.25, 1.0, 0.625, 0.0, 0.7]), jnp.array([0.25, 0.25, 0.25, 0.5, 1.0]))
    np.testing.assert_allclose(gain, [0, 1, 0.5, -1, 0], atol=1e-6)


def test_an_empty_region_agrees_with_nothing_and_a_full_one_has_the_frame_as_its_boundary():
    empty, full = np.zeros((13, 18)), np.ones((13, 18))
    inner = np.pad(full[1:-1, 1:-1], 1)
    masks, truth = stack(empty, empty, full, inner), stack(empty, full, empty, full)
    np.testing.assert_allclose(mask_iou(masks, truth), [0, 0, 0, 11 * 16 / (13 * 18)], rtol=1e-6)
    np.testing.assert_array_equal(boundary_f1(masks, truth, tolerance=0.9), 0)
    frame = (54 + 4 * 2**0.5) / 58  # from the frame inward: its corners are diagonal to the next ring
    expected = [*[(13**2 + 18**2) ** 0.5] * 3, (1 + frame) / 2]
    np.testing.assert_allclose(chamfer_distance(masks, truth), expected, rtol=1e-6)
    assert (boundary_f1(truth, truth)[jnp.array([1, 3])] == 1).all()


def test_jitted_they_are_the_same():
    masks, truth = blobs(0), blobs(1)
    for metric in (translation.mask_iou, translation.boundary_f1, translation.chamfer_distance):
        np.testing.assert_allclose(jax.jit(metric)(masks, truth), metric(masks, truth), rtol=1e-6)


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


def test_jitted_scores_of_pose_are_the_same():
    masks, truth = ellipse(30, 37, 20, 40), ellipse(26, 34, 15, 15)
    for metric in (centroid_error, scale_ratio, rotation_error):
        np.testing.assert_allclose(jax.jit(metric)(masks, truth), metric(masks, truth), rtol=1e-5)
