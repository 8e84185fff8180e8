"""Closed forms: an impulse has a flat spectrum, a harmonic under a Hann window has known bins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vexplain.evaluation import (
    edge_correlation,
    fine_detail_share,
    stride_artifact_energy,
    stride_artifact_share,
)

# Compiled as a whole: one after the other their operations are hundreds of programs.
edge_correlation = jax.jit(edge_correlation)
fine_detail_share, stride_artifact_energy, stride_artifact_share = (
    jax.jit(metric, static_argnums=1)
    for metric in (fine_detail_share, stride_artifact_energy, stride_artifact_share)
)
SIZE, STRIDE = 48, 4
Y, X = np.mgrid[:SIZE, :SIZE]


def band_bins(size, stride):
    """The bins of the bands, from their definition, one by one."""
    half, bins = max(size / (8 * stride), 1.5), range(-(size // 2), size - size // 2)
    places = [i * size / stride for i in range(-(stride // 2), stride // 2 + 1)]
    places += [-size / 2] if stride % 2 == 0 else []

    def order(k):
        return next((i for i, p in enumerate(places) if abs(k - p) <= half + 1e-6), None)

    zero = order(0)
    orders = [(order(v), order(u)) for v in bins for u in bins]
    return sum(None not in pair and pair != (zero, zero) for pair in orders)


def impulse_and_harmonic(amplitude):
    """An impulse in the middle, and a sine across that is zero there: no cross term, for the window is even.

    With them: the energy of the impulse in a bin, |w(p)|², that of the sine in all bins, two lines of a/2
    with the window's energy N² Σ w² (Parseval), and that of rounding in a bin, σ² Σ w².
    """
    size, stride = 45, 5
    x = np.arange(size)[None].repeat(size, 0) - size // 2
    maps = amplitude * np.sin(2 * np.pi * x / stride)
    maps[size // 2, size // 2] += 1
    window = 0.5 + 0.5 * np.cos(2 * np.pi * x[0] / size)
    energy = np.outer(window, window) ** 2
    span = maps.max() - maps.min()
    lines = 2 * (amplitude / 2) ** 2 * size**2 * energy.sum()
    return maps[None].astype(np.float32), 1.0, lines, span**2 * energy.sum() / 12 / 255**2


@pytest.mark.parametrize("amplitude", [0.0, 0.01, 0.1, 1.0])
def test_an_impulse_with_a_harmonic_of_known_amplitude(amplitude):
    maps, flat, lines, rounding = impulse_and_harmonic(amplitude)
    expected = 1 + lines / band_bins(45, 5) / (flat + rounding)
    np.testing.assert_allclose(stride_artifact_energy(maps, 5), expected, rtol=1e-3)
    share = lines / (lines + 45**2 * flat)
    np.testing.assert_allclose(stride_artifact_share(maps, 5), share, rtol=3e-3, atol=1e-5)


@pytest.mark.parametrize(("shape", "stride"), [((48, 48), 4), ((50, 45), 4), ((47, 61), 5), ((64, 64), 2)])
def test_white_noise_has_no_grid_at_any_size(shape, stride):
    noise = np.random.default_rng(0).uniform(size=(40, *shape)).astype(np.float32)
    energy = stride_artifact_energy(noise, stride)
    assert energy.shape == (40,)
    np.testing.assert_allclose(energy.mean(), 1, atol=0.05)
    np.testing.assert_allclose(stride_artifact_share(noise, stride).mean(), 0, atol=0.02)


@pytest.mark.parametrize(("shape", "stride"), [((48, 48), 4), ((50, 45), 4), ((47, 61), 5)])
def test_a_nearest_upsampled_lattice_scores_high(shape, stride):
    """Dots on every second cell, enlarged by nearest neighbors: a lattice of period `stride`."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    dots = (y % stride < stride // 2) & (x % stride < stride // 2)
    blob = np.exp(-((y - 20) ** 2 + (x - 25) ** 2) / 300)
    maps = np.stack([blob, blob * (1 + dots)]).astype(np.float32)
    smooth, gridded = stride_artifact_energy(maps, stride)
    assert 0.5 < smooth < 1.5
    assert gridded > 100
    smooth, gridded = stride_artifact_share(maps, stride)
    assert abs(smooth) < 1e-3
    assert gridded > 0.05


def test_boxes_empty_the_harmonics():
    """A random map enlarged by nearest neighbors has the zeros of the box there."""
    coarse = np.random.default_rng(0).uniform(size=(4, 12, 12)).astype(np.float32)
    enlarged = coarse.repeat(4, axis=1).repeat(4, axis=2)
    assert (stride_artifact_energy(enlarged, 4) < 0.5).all()


def test_scale_and_offset_change_nothing():
    grid = (Y % 4 == 0) & (X % 4 == 0)
    maps = (np.random.default_rng(0).uniform(size=(2, SIZE, SIZE)) + 2 * grid).astype(np.float32)
    for metric in (stride_artifact_energy, stride_artifact_share, fine_detail_share):
        expected = metric(maps, STRIDE)
        np.testing.assert_allclose(metric(1e-12 * maps, STRIDE), expected, rtol=1e-4)
        np.testing.assert_allclose(metric(7 * maps - 30, STRIDE), expected, rtol=1e-4)


def test_a_constant_map_has_no_grid_and_no_detail():
    flat = np.full((1, SIZE, SIZE), 0.3, np.float32)
    np.testing.assert_allclose(stride_artifact_energy(flat, 4), 1, rtol=1e-6)
    assert stride_artifact_share(flat, 4) == 0 == fine_detail_share(flat, 4)


def test_detail_is_what_is_above_half_a_cycle_a_stride():
    coarse, fine = (np.sin(2 * np.pi * k / SIZE * X)[None].astype(np.float32) for k in (4, 9))  # 6: the limit
    assert fine_detail_share(coarse, STRIDE) < 1e-5
    assert fine_detail_share(fine, STRIDE) > 1 - 1e-5
    np.testing.assert_allclose(fine_detail_share(coarse + fine, STRIDE), 0.5, rtol=1e-3)


@pytest.mark.parametrize(
    ("shape", "stride", "message"),
    [
        ((1, 48, 48), 1, "stride is 1 .* expected 2 or more"),
        ((1, 48, 23), 4, "stride is 4 for maps of 48 × 23 pixels"),
    ],
)
def test_strides_that_cannot_be_measured(shape, stride, message):
    with pytest.raises(ValueError, match=message):
        stride_artifact_energy(jnp.zeros(shape), stride)


def test_edges_by_hand():
    """A step at another place has slopes where the mask has none: r = -1/(n - 1) of n equal places."""
    masks, moved = np.zeros((2, 1, 4, 9), np.float32)
    masks[..., 5:] = moved[..., 2:] = 1
    # slopes in 2 of 9 columns each, disjoint: r = (0 - 4/81) / (2/9 · 7/9)
    np.testing.assert_allclose(edge_correlation(moved, masks), -(4 / 81) / (14 / 81), rtol=1e-5)
    np.testing.assert_allclose(edge_correlation(5 - 3 * masks, masks), 1, rtol=1e-5)
    noisy = masks + 0.3 * np.random.default_rng(0).normal(size=masks.shape).astype(np.float32)
    assert 0 < edge_correlation(noisy, masks)[0] < 0.95
