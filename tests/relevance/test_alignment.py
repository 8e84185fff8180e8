"""Alignment: known moves of a known pattern are found, noise is left alone; variances against loops."""

import numpy as np
import pytest

from vexplain.relevance import Alignment, align_crops, identity_alignment, move_crops, residual_variance

SIZE, COUNT = (30, 26), 24
BLOBS = np.array([(-6, -5, 1.0), (-6, 2, 0.9), (0, -5, 0.8), (6, -5, 0.7), (5, 5, 0.4)])  # no symmetry
OTHER = np.array([(-4, 0, 0.9), (0, 4, 1.0), (0, -4, 1.0), (4, 0, 0.6), (7, 0, 0.5)])


def pattern(q, blobs=BLOBS):
    """A sum of Gaussians at points (row, column), counted from the center."""
    squares = ((q[..., None, :] - blobs[:, :2]) ** 2).sum(-1)
    return 0.05 + 0.8 * (blobs[:, 2] * np.exp(-squares / (2 * 1.6**2))).sum(-1)


def drawn(rng, count=COUNT, *, mirror=False):
    """Random moves."""
    return Alignment(
        rng.uniform(-np.pi, np.pi, count),
        np.exp(rng.uniform(-0.2, 0.2, count)),
        rng.uniform(-4, 4, (count, 2)),
        rng.uniform(size=count) < (0.4 if mirror else 0),
        np.zeros(count, int),
    )


def places(size=SIZE):
    lines = [np.arange(n) - (n - 1) / 2 for n in size]
    return np.stack(np.meshgrid(*lines, indexing="ij"), -1)


def crops_of(moves, rng, blobs=BLOBS):
    """What the moved pattern looks like, exactly, each crop lighter or darker; a border is not seen."""
    crops = []
    for angle, scale, shift, is_mirrored in zip(*moves[:4], strict=True):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        q = (places() - shift) @ turn / scale * (1, -1 if is_mirrored else 1)
        crops.append(pattern(q, blobs) + rng.normal(0, 0.02, SIZE) + rng.uniform(-0.05, 0.05))
    crops = np.clip(np.stack(crops), 0, 1)[..., None].astype(np.float32)
    crops[::5, :3] = np.nan
    return crops


def differences(found, truth):
    """Errors of angles (degrees), scales (percent) and places (pixels), up to a move of the mean itself."""
    sign = np.where(found.is_mirrored, -1, 1)
    turns = np.exp(1j * sign * (found.angles - truth.angles))
    turns = np.degrees(np.angle(turns / turns.mean()))
    logs = np.log(found.scales / truth.scales)
    centers = []
    for angle, scale, shift, is_mirrored, center in zip(*found[:4], truth.shifts, strict=True):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centers.append((center - shift) @ turn / scale * (1, -1 if is_mirrored else 1))
    moved = np.linalg.norm(np.array(centers) - np.mean(centers, 0), axis=1)
    return np.abs(turns).max(), 100 * np.abs(logs - logs.mean()).max(), moved.max()


@pytest.mark.parametrize("mirror", [False, True])
def test_known_moves_are_found(mirror):
    """Mirror images are looked for in both cases: one program."""
    rng = np.random.default_rng(2)
    truth = drawn(rng, mirror=mirror)
    crops = crops_of(truth, rng)
    found = align_crops(crops, mirror=True)
    assert found.shares == (1.0,)
    flips = found.is_mirrored ^ truth.is_mirrored
    assert flips.all() or not flips.any()
    degrees, percent, pixels = differences(found, truth)
    assert degrees < 3
    assert percent < 4
    assert pixels < 0.5
    before = residual_variance(crops, identity_alignment(COUNT)).mean()
    assert residual_variance(crops, found).mean() < 0.15 * before


@pytest.mark.parametrize("kind", ["shuffled", "of one color", "few"])
def test_crops_in_which_nothing_is_to_be_found_stay_as_they_are(kind):
    rng = np.random.default_rng(1)
    crops = crops_of(drawn(rng), rng)
    if kind == "shuffled":
        crops = np.nan_to_num(crops).reshape(COUNT, -1)
        crops = rng.permuted(crops, axis=1).reshape(COUNT, *SIZE, 1)
    elif kind == "of one color":
        crops = np.full_like(crops, 0.25)
    else:
        crops = crops[:7]
    found = align_crops(crops, mirror=True)
    for leaf, kept in zip(found, identity_alignment(len(crops)), strict=True):
        np.testing.assert_allclose(leaf, kept, atol=1e-6)


def test_two_kinds_of_crops_are_two_modes():
    rng = np.random.default_rng(4)
    count = 30
    still = identity_alignment(count)
    kinds = rng.permutation(np.arange(count) < 18)
    crops = np.where(
        kinds[:, None, None, None], crops_of(still, rng), crops_of(still, rng, OTHER)
    )  # borders are missing in the same ones
    found = align_crops(crops, mirror=True)
    np.testing.assert_array_equal(found.modes, np.where(kinds, 0, 1))
    np.testing.assert_allclose(found.shares, (0.6, 0.4))
    both = residual_variance(crops, found, free_offset=True).mean()
    one = align_crops(crops, mirror=True, max_modes=1)
    assert one.shares == (1.0,)
    assert both < 0.4 * residual_variance(crops, one, free_offset=True).mean()


def test_moving_crops_by_whole_pixels_and_quarter_turns_is_exact():
    rng = np.random.default_rng(0)
    crops = rng.uniform(size=(3, 5, 5, 2)).astype(np.float32)
    crops[0, 4, 4] = np.nan
    still = identity_alignment(3)
    shifts = np.array([[0, 0], [1, -2], [0, 0]], np.float32)
    angles = np.array([0, 0, np.pi / 2], np.float32)
    moved = move_crops(crops, still._replace(shifts=shifts, angles=angles))
    np.testing.assert_allclose(moved[0], crops[0], atol=1e-6)
    np.testing.assert_allclose(moved[1, :4, 2:], crops[1, 1:, :3], atol=1e-5)
    assert np.isnan(moved[1, 4]).all()
    assert np.isnan(moved[1, :, :2]).all()
    np.testing.assert_allclose(
        moved[2], np.rot90(crops[2], -1), atol=1e-5
    )  # a crop turned left is turned back
    flipped = move_crops(crops, still._replace(is_mirrored=np.ones(3, bool)))
    np.testing.assert_allclose(flipped, crops[:, :, ::-1], atol=1e-5)


def test_the_variance_of_crops_as_they_are_is_that_of_a_loop():
    rng = np.random.default_rng(3)
    crops = rng.uniform(size=(9, 4, 6, 2)).astype(np.float32)
    crops[2, 1:3, 4:] = np.nan
    modes = np.arange(9) % 2
    alignment = identity_alignment(9)._replace(modes=modes)
    expected, free = [], []
    for n, crop in enumerate(crops.astype(np.float64)):
        ours = crops[modes == modes[n]].astype(np.float64)
        fill = np.nanmean(ours, (0, 1, 2))
        seen = ~np.isnan(ours)

        def mean(values, n=n, seen=seen, fill=fill):
            own = np.nan_to_num(values[np.flatnonzero(modes == modes[n]).tolist().index(n)])
            total = np.nan_to_num(values).sum(0) - own
            return (total + fill) / (seen.sum(0) - ~np.isnan(crops[n]) + 1)

        expected.append(np.nanmean((crop - mean(ours)) ** 2))
        offsets = []
        for other in np.flatnonzero(modes == modes[n]):
            place = np.flatnonzero(modes == modes[n]).tolist().index(other)
            total = np.nan_to_num(ours).sum(0) - np.nan_to_num(ours[place])
            others = (total + fill) / (seen.sum(0) - seen[place] + 1)
            offsets.append(np.nanmean(ours[place] - others, (0, 1)))
        difference = crop - mean(ours - np.array(offsets)[:, None, None])
        free.append(np.nanmean((difference - np.nanmean(difference, (0, 1))) ** 2))
    np.testing.assert_allclose(residual_variance(crops, alignment), expected, rtol=1e-5)
    np.testing.assert_allclose(residual_variance(crops, alignment, free_offset=True), free, rtol=1e-5)


def test_no_crop_and_wrong_shapes():
    assert align_crops(np.zeros((0, 5, 5, 3), np.float32)).shares == ()
    with pytest.raises(ValueError, match=r"crops has shape \(5, 5, 3\): expected \(n, height"):
        align_crops(np.zeros((5, 5, 3), np.float32))
    with pytest.raises(ValueError, match="max_modes is 0: expected at least 1"):
        align_crops(np.zeros((9, 5, 5, 3), np.float32), max_modes=0)
