"""What the score loses where parts of the image are covered: one after the other, or many at random.

In all functions:
    features: what is covered as one: (rows, columns) of a grid of patches, or one number for both; "pixel",
        "channel" or "superpixel"; labels of the pixels, integers (height, width), (batch, height, width), or
        of four axes that broadcast to the images; a `Partition`; or a function of the images that returns
        one, such as `superpixels`.
    baseline: what covers: a number, (channels,), or an array that broadcasts to the images.
    num_at_once: perturbed copies of each image in a pass: more are faster on an accelerator where few images
        are explained, and memory is in proportion. By default 16 of one image, else one.
Features or a baseline that do not fit the images, or a count less than 1, raise ValueError.
"""

from typing import Any

import jax
import jax.numpy as jnp

from vexplain._checks import check_positive
from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.masking import covered, game
from vexplain.attribution.partitions import Features, known_features
from vexplain.typing import AnyArray, Array, Float, Shaped, Targets

_Pixels = int | tuple[int, int]
_Maps = Float[Array, "batch height width 1"]


@attribution_method
def occlusion(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    window: _Pixels | None = None,
    stride: _Pixels | None = None,
    baseline: float | AnyArray = 0.0,
    num_at_once: int | None = None,
) -> _Maps:
    """Returns for each pixel what the score loses in the mean over the windows that cover it.

    With x_w the image whose window w holds the baseline,

        map(p) = mean over windows w that hold p of y(x) - y(x_w)

    Windows start every `stride` pixels at the top left; the last ones are cut off at the border, so that
    every pixel is covered where the stride is no longer than the window. A pixel between windows gets 0.

    Args:
        window: (height, width) of the windows in pixels, or one number for both; an eighth of the image if
            left out.
        stride: (rows, columns) from a window to the next, or one number for both; half a window if left out.

    Raises:
        ValueError: a window or stride is not positive, or a window is larger than the images.

    References:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, Section 4.2.

    Example:
        >>> apply = lambda variables, images: images.sum((1, 2))
        >>> images = jnp.array([[[[0.25, 0.0], [0.5, 0.0], [1.0, 0.0]]]])
        >>> print(occlusion(apply, None, images, targets=0, window=(1, 2), stride=1).ravel())
        [0.75  1.125 1.5  ]
    """
    size = (images.shape[1], images.shape[2])
    window = (max(size[0] // 8, 1), max(size[1] // 8, 1)) if window is None else _pair("window", window)
    stride = (max(window[0] // 2, 1), max(window[1] // 2, 1)) if stride is None else _pair("stride", stride)
    if any(w > n for w, n in zip(window, size, strict=True)):
        raise ValueError(f"window is {window}: expected at most the size of the images, {size}")
    parts = covered(network, images, targets, baseline)
    rows, columns = (-(-(n - w) // s) + 1 for n, w, s in zip(size, window, stride, strict=True))
    whole = network.scores(images, targets)

    def term(n):
        inside = _inside(n // columns * stride[0], n % columns * stride[1], window, size)
        loss = whole - parts.scores(~inside[:, :, None])
        return loss[:, None, None] * inside, inside.astype(whole.dtype)

    lost, count = parts.total(term, rows * columns, num_at_once)
    return (lost / jnp.maximum(count, 1))[..., None]


@attribution_method(before=known_features)
def feature_ablation(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    features: Features = 8,
    baseline: float | AnyArray = 0.0,
    num_at_once: int | None = None,
) -> Float[Array, "batch height width _channels"]:
    """Returns at each pixel what the score loses when the feature that it belongs to is covered.

    With N all features and v(S) the score of the image whose features S are kept,

        φ_j = v(N) - v(N without j)

    References:
        Zeiler and Fergus, 2014, for patches; Captum's `FeatureAblation` for any features.

    Example:
        >>> apply = lambda variables, images: images.prod((1, 2))
        >>> images, labels = jnp.array([[[[0.5, 1.0], [0.25, 1.0], [1.0, 1.0]]]]), [[0, 0, 1]]
        >>> print(feature_ablation(apply, None, images, targets=0, features=labels, baseline=0.5).ravel())
        [-0.125  -0.125   0.0625]
    """
    played = game(network, images, targets, features, baseline)
    whole = network.scores(images, targets)

    def term(n):
        is_kept = jnp.arange(played.num_features) != n
        return (whole - played.scores(is_kept))[:, None] * ~is_kept

    return played.as_map(played.covered.total(term, played.num_features, num_at_once))


@attribution_method
def rise(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    key: Shaped[Array, " batch"],
    num_masks: int = 4000,
    cells: _Pixels = 7,
    keep_probability: float = 0.5,
    baseline: float | AnyArray = 0.0,
    num_at_once: int | None = None,
) -> _Maps:
    """Returns the mean of random masks, weighted by the score of the image that each leaves visible.

    With M_i the N masks, 1 with probability p, and b the baseline (0, black, in the paper),

        S(λ) = 1 / (p N) Σ_i y(M_i x + (1 - M_i) b) M_i(λ)

    A mask is a binary grid of `cells`, enlarged by bilinear interpolation to one cell more than the image and
    shifted by a random part of a cell. The expectation for an additive score Σ_λ w_λ x_λ with independent
    masks of pixels and b = 0 is (1 - p) w_λ x_λ + p y(x): differences between pixels count, not the zero.

    Args:
        num_masks: N.
        cells: (rows, columns) of the grid, or one number for both.
        keep_probability: p, between 0 and 1.

    References:
        Petsiuk, Das, Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018,
        Section 3.1, the Monte Carlo estimate, and Section 3.2, the masks; a cell has the pixels of the
        authors' program, which rounds up.

    Example:
        >>> apply = lambda variables, images: images[:, :, :5].mean((1, 2))
        >>> options = {"key": jax.random.key(0), "cells": (1, 5)}
        >>> maps = rise(apply, None, jnp.ones((1, 1, 10, 2)), targets=0, **options)
        >>> bool(maps[0, 0, :5].min() > maps[0, 0, 5:].max())
        True
    """
    check_positive(num_masks=num_masks)
    if not 0 < keep_probability < 1:
        raise ValueError(f"keep_probability is {keep_probability}: expected a number between 0 and 1")
    grid, size = _pair("cells", cells), images.shape[1:3]
    parts = covered(network, images, targets, baseline)

    def drawn(key):
        uniform = jax.random.uniform(key, (grid[0] * grid[1] + 2,), images.dtype)
        is_kept = (uniform[2:].reshape(grid) < keep_probability).astype(images.dtype)
        down, across = (_stretched(uniform[axis], size[axis], grid[axis]) for axis in (0, 1))
        return jnp.einsum("hi,ij,wj->hw", down, is_kept, across, precision="highest")[..., None]

    def term(n):
        masks = jax.vmap(lambda k: drawn(jax.random.fold_in(k, n)))(key)
        return parts.scores(masks)[:, None, None, None] * masks

    return parts.total(term, num_masks, num_at_once) / (keep_probability * num_masks)


def _inside(top: Any, left: Any, window: tuple[int, int], size: tuple[int, int]) -> Array:
    down, across = jnp.arange(size[0]), jnp.arange(size[1])
    is_row = (down >= top) & (down < top + window[0])
    is_column = (across >= left) & (across < left + window[1])
    return is_row[:, None] & is_column


def _stretched(shift: Array, length: int, cells: int) -> Float[Array, "length cells"]:
    """Weights of linear interpolation from cells to pixels, cut out where `shift` in [0, 1) says.

    The cells fill (cells + 1) times the pixels of one, of which the image sees a part.
    """
    pixels = -(-length // cells)  # of a cell
    places = jnp.arange(length) + jnp.floor(shift * pixels)
    centers = (places + 0.5) * cells / ((cells + 1) * pixels) - 0.5
    distances = jnp.clip(centers, 0, cells - 1)[:, None] - jnp.arange(cells)
    return jnp.maximum(1 - jnp.abs(distances), 0)


def _pair(name: str, value: _Pixels) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} is {value}: expected a positive number of pixels, or (rows, columns)")
    return pair
