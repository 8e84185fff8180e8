"""The true frames against rendered parts, the errors of known alignments, and moments of a known signal."""

import numpy as np

from experiments.aligned_averages_rivals import by_moments
from experiments.aligned_averages_truth import FOLDS, Frames, errors_of, frames_of, in_crops, true_alignment
from vexplain.datasets.an8flower import RenderedSource
from vexplain.relevance import identity_alignment


def test_the_head_is_where_it_is_rendered():
    source = RenderedSource(num_per_class=2, size=64)
    frames, coverage = frames_of(source, np.arange(4))
    rows, columns = np.indices((64, 64))
    for n, head in enumerate(coverage[..., 0]):
        middle = np.array([(head * rows).sum(), (head * columns).sum()]) / head.sum()
        np.testing.assert_allclose(frames["head"].centers[n], middle, atol=2)  # a cup, seen from a side
    part, moved = in_crops(frames, coverage, np.zeros((4, 2)), is_whole=False)
    assert part == "head"
    np.testing.assert_allclose(moved.centers, frames["head"].centers - 31.5)
    assert in_crops(frames, coverage[..., ::-1], np.zeros((4, 2)), is_whole=False)[0] == "leaf"


def test_the_true_alignment_has_no_error_and_none_has_that_of_the_frames():
    rng = np.random.default_rng(0)
    frames = Frames(rng.normal(0, 3, (20, 2)), rng.uniform(-3, 3, 20), rng.uniform(0.8, 1.2, 20))
    for fold in FOLDS.values():
        found = errors_of(true_alignment(frames, fold), frames, fold)
        np.testing.assert_allclose(list(found.values()), 0, atol=1e-6)
    none = errors_of(identity_alignment(20), frames, 1)
    expected = np.median(np.linalg.norm(frames.centers - np.median(frames.centers, 0), axis=1))
    np.testing.assert_allclose(none["px"], expected)
    logs = np.log(frames.sizes)
    np.testing.assert_allclose(none["percent"], 100 * np.median(np.abs(logs - np.median(logs))))


def test_moments_find_a_wedge():
    """A triangle that points right, up and left."""
    signal = np.zeros((3, 21, 21))
    for column in range(4, 16):
        half = (16 - column) // 3
        signal[0, 10 - half : 11 + half, column] = 1
    signal[1], signal[2] = np.rot90(signal[0]), np.rot90(signal[0], 2)
    found = by_moments(signal)
    turns = np.degrees((found.angles - found.angles[0] + 0.1) % (2 * np.pi) - 0.1)
    np.testing.assert_allclose(turns, [0, 90, 180], atol=1e-4)
    np.testing.assert_allclose(found.scales, 1, atol=1e-6)
