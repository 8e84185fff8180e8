"""What the score loses when a part of the image is covered."""

from typing import Any

import jax
import jax.numpy as jnp

from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.typing import AnyArray, Array, Float, Targets

_Pixels = int | tuple[int, int]


@attribution_method
def occlusion(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    window: _Pixels | None = None,
    stride: _Pixels | None = None,
    baseline: float | AnyArray = 0.0,
) -> Float[Array, "batch height width 1"]:
    """Returns for each pixel what the score loses in the mean over the windows that cover it.

    With x_w the image whose window w holds the baseline,

        map(p) = mean over windows w that hold p of y(x) - y(x_w)

    Windows start every `stride` pixels at the top left; the last ones are cut off at the border, so that
    every pixel is covered where the stride is no longer than the window. A pixel between windows gets 0.
    Windows are covered one after the other, in one compiled loop: memory does not depend on their number.

    Args:
        window: (height, width) of the windows in pixels, or one number for both; an eighth of the image if
            left out.
        stride: (rows, columns) from a window to the next, or one number for both; half a window if left out.
        baseline: what covers a window: a number, (channels,), or an array that broadcasts to the images.

    Raises:
        ValueError: a window or stride is not positive, a window is larger than the images, or the baseline
            does not broadcast to them.

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
    cover = broadcast_baseline(baseline, images)
    rows, columns = (-(-(n - w) // s) + 1 for n, w, s in zip(size, window, stride, strict=True))
    whole = network.scores(images, targets)

    def step(n, state):
        lost, count = state
        inside = _inside(n // columns * stride[0], n % columns * stride[1], window, size)
        covered = jnp.where(inside[:, :, None], cover, images)
        loss = whole - network.scores(covered, targets)
        return lost + loss[:, None, None] * inside, count + inside

    start = (jnp.zeros(images.shape[:3], whole.dtype), jnp.zeros(size, whole.dtype))
    lost, count = jax.lax.fori_loop(0, rows * columns, step, start)
    return (lost / jnp.maximum(count, 1))[..., None]


def _inside(top: Any, left: Any, window: tuple[int, int], size: tuple[int, int]) -> Array:
    down, across = jnp.arange(size[0]), jnp.arange(size[1])
    is_row = (down >= top) & (down < top + window[0])
    is_column = (across >= left) & (across < left + window[1])
    return is_row[:, None] & is_column


def _pair(name: str, value: _Pixels) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} is {value}: expected a positive number of pixels, or (rows, columns)")
    return pair
