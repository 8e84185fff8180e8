"""How much of a heatmap is the grid of a strided convolution, and how much is detail finer than that grid.

The transpose of a convolution of stride s puts its signal on every s-th pixel: overlapping kernels then leave
a pattern of period s (Odena et al., 2016), whose energy lies at the harmonics (i, j)/s of the 2-D power
spectrum. What belongs to the image has no reason to be there rather than beside it, so the neighbors of the
same radius, outside all harmonics, tell how much energy there would be without the grid.

The convention (*ours*). A map is shifted and scaled to [0, 1], less its mean under the window, times a Hann
window along both axes, so that its borders leave no cross in the spectrum; P is the squared modulus of its
Fourier transform, f = (f_y, f_x) in cycles a pixel.

* The band of the harmonic (i, j)/s, with (i, j) ≠ (0, 0) and |i|, |j| <= s/2, is the square of the f that are
  no farther from it, along either axis, than 1/(8s) or 1.5 bins, whichever is more.
* The square around (0, 0) belongs neither to the bands nor to their neighbors.
* Rings are |f| in bins of the shorter side, rounded. The neighbors of a band are all f of its rings in no
  band; a ring without neighbors is left out.
* The expected energy of the bands is, ring by ring, the mean of P over the neighbors times the number of
  bins in bands.
* What rounding the map to 8 bits would add to P, σ² Σ w² with σ² = 1/(12 · 255²) and w the window, is added
  to both: a grid that no screen shows does not count, and a map without any energy there scores 1.

Bins need not fall on harmonics: any size of 6 strides or more will do.

In all functions:
    heatmaps: (batch, height, width), of any range; a positive scale and an offset change nothing.
    stride: s, the period of the grid in pixels, 2 or more; at most a sixth of height and width, else a
        ValueError.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float

_LEAST_PERIODS = 6  # a side; with fewer, bands of 3 bins leave no neighbors between them
_ROUNDING = 1 / (12 * 255**2)  # variance of the error, in units of the map's range
_Maps = Float[Array, "batch height width"]


def stride_artifact_energy(heatmaps: _Maps, stride: int) -> Float[Array, " batch"]:
    """Returns the energy at the harmonics of 1/stride over that expected from their neighbors.

        E = Σ_bands (P + q) / Σ_rings (number of band bins) · (mean_neighbors P + q)      q: 8-bit rounding

    It is 0 or more. 1 means no grid, 10 ten times the energy that belongs there, below 1 that the harmonics
    are emptied, which a box of the size of the stride does. A constant map has no grid: 1.

    References:
        Odena, Dumoulin, Olah, Deconvolution and Checkerboard Artifacts, Distill 2016.
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 3.3.

    Example:
        >>> y, x = jnp.mgrid[:32, :32]
        >>> blob = jnp.exp(-((y - 15.5) ** 2 + (x - 15.5) ** 2) / 50)
        >>> grid = ((y % 4 == 0) & (x % 4 == 0)).astype(jnp.float32)
        >>> print(stride_artifact_energy(jnp.stack([blob, blob + 0.1 * grid]), 4) > 10)
        [False  True]
    """
    regions, power = _regions(*_checked(heatmaps, stride)), _power(heatmaps)
    rounding = regions.bands.sum() * (_ROUNDING * _window(*heatmaps.shape[1:]) ** 2).sum()
    found, expected = ((power * w).sum((1, 2)) + rounding for w in (regions.bands, regions.expectation))
    return found / expected


def stride_artifact_share(heatmaps: _Maps, stride: int) -> Float[Array, " batch"]:
    """Returns the share of the map's energy that is grid: what the bands hold beyond the expected energy.

        (Σ_bands P − expected) / Σ P

    It is at most 1; near 0 without a grid, a little below where the bands are emptier than their neighbors; 0
    for a constant map. A very smooth map with a faint grid has a large ratio of `stride_artifact_energy`, and
    a small share.
    """
    regions, power = _regions(*_checked(heatmaps, stride)), _power(heatmaps)
    total = power.sum((1, 2))
    excess = (power * (regions.bands - regions.expectation)).sum((1, 2))
    return jnp.where(total > 0, excess / jnp.where(total > 0, total, 1), 0)


def fine_detail_share(heatmaps: _Maps, stride: int) -> Float[Array, " batch"]:
    """Returns the share of the energy outside all bands that is finer than the grid can carry: |f| > 1/(2s).

    It is in [0, 1]; 0 for a constant map. A map that is known at every s-th pixel only, and interpolated, has
    little; a box blur of s pixels takes most of it away. The grid itself does not count, speckle does: where
    the truth is known, see `edge_correlation`.
    """
    regions, power = _regions(*_checked(heatmaps, stride)), _power(heatmaps)
    total = (power * (1 - regions.bands)).sum((1, 2))
    fine = (power * regions.fine).sum((1, 2))
    return jnp.where(total > 0, fine / jnp.where(total > 0, total, 1), 0)


class _Regions(NamedTuple):
    """Weights of the frequencies, each (height, width)."""

    bands: np.ndarray  # 1 in the bands
    expectation: np.ndarray  # on the neighbors; the sum with P is the expected energy of the bands
    fine: np.ndarray  # 1 above half a cycle a stride, outside the bands


@functools.lru_cache(maxsize=32)
def _regions(height: int, width: int, stride: int) -> _Regions:
    near, is_zeroth = [], []
    frequencies = np.meshgrid(np.fft.fftfreq(height), np.fft.fftfreq(width), indexing="ij")
    for f, length in zip(frequencies, (height, width), strict=True):
        order = np.round(f * stride)
        near.append(np.abs(f - order / stride) <= max(1 / (8 * stride), 1.5 / length) + 1e-9)
        is_zeroth.append(order == 0)
    on_lattice, at_zero = near[0] & near[1], is_zeroth[0] & is_zeroth[1]
    bands, neighbors = on_lattice & ~at_zero, ~on_lattice
    radius = np.hypot(*frequencies)
    rings = np.round(radius * min(height, width)).astype(int).ravel()
    num_bands, num_neighbors = (np.bincount(rings, of.ravel()) for of in (bands, neighbors))
    weights = num_bands / np.maximum(num_neighbors, 1)
    bands &= (num_neighbors > 0)[rings].reshape(bands.shape)
    expectation = weights[rings].reshape(bands.shape) * neighbors
    fine = (radius > 1 / (2 * stride)) & ~on_lattice
    return _Regions(*(w.astype(np.float32) for w in (bands, expectation, fine)))


def _power(heatmaps: _Maps) -> _Maps:
    """The power spectrum of each map under a Hann window, in units of its range."""
    low = heatmaps.min((1, 2), keepdims=True)
    span = heatmaps.max((1, 2), keepdims=True) - low
    maps = (heatmaps - low) / jnp.where(span > 0, span, 1)
    window = jnp.asarray(_window(*heatmaps.shape[1:]), maps.dtype)
    mean = (maps * window).sum((1, 2), keepdims=True) / window.sum()
    return jnp.abs(jnp.fft.fft2((maps - mean) * window)) ** 2


def _window(height: int, width: int) -> np.ndarray:
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2 for n in (height, width))
    return np.outer(rows, columns)


def _checked(heatmaps: _Maps, stride: int) -> tuple[int, int, int]:
    if heatmaps.ndim != 3:
        raise ValueError(f"heatmaps has shape {heatmaps.shape}: expected (batch, height, width)")
    height, width = heatmaps.shape[1:]
    if not 2 <= stride <= min(height, width) / _LEAST_PERIODS:
        raise ValueError(
            f"stride is {stride} for maps of {height} × {width} pixels: expected 2 or more, and "
            f"{_LEAST_PERIODS} periods a side; measure larger maps, or the grid of an earlier convolution"
        )
    return height, width, stride
