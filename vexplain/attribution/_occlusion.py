"""What the score loses when a window of the image is covered."""

from typing import Any

import jax
import jax.numpy as jnp

from vexplain.attribution.averaged_gradients import broadcast_baseline
from vexplain.typing import AnyArray, Array, Float, Images, PyTree, ScoreFn, Variables


def occlusion(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    window: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    baseline: float | AnyArray = 0.0,
) -> Float[Array, "batch height width 1"]:
    """Returns for each pixel what the score loses in the mean over the windows that cover it.

    With x_w the image whose window w holds the baseline,

        map(p) = mean over windows w that hold p of y(x) - y(x_w)

    Windows start every `stride` pixels at the top left; the last ones are cut off at the border, so that
    every pixel is covered where the stride is no longer than the window. A pixel between windows gets 0.
    Windows are covered one after the other, in one compiled loop: memory does not depend on their number.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        window: (height, width) of the windows in pixels, or one number for both.
        stride: (rows, columns) from a window to the next, or one number for both.
        baseline: what covers a window: a number, (channels,), or an array that broadcasts to the images.

    Raises:
        ValueError: a window or stride is not positive, a window is larger than the images, or the baseline
            does not broadcast to them.

    References:
        Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, Section 4.2.

    Example:
        >>> score = lambda variables, images, targets: images.sum((1, 2, 3))
        >>> images = jnp.array([[[[1.0], [2.0], [4.0]]]])
        >>> print(occlusion(score, None, images, None, window=(1, 2)).ravel())
        [3.  4.5 6. ]
    """
    images = jnp.asarray(images)
    window, stride = _pair("window", window), _pair("stride", stride)
    size = (images.shape[1], images.shape[2])
    if any(w > n for w, n in zip(window, size, strict=True)):
        raise ValueError(f"window is {window}: expected at most the size of the images, {size}")
    cover = broadcast_baseline(baseline, images)
    rows, columns = (-(-(n - w) // s) + 1 for n, w, s in zip(size, window, stride, strict=True))
    whole = score_fn(variables, images, targets)

    def step(n, state):
        lost, count = state
        inside = _inside(n // columns * stride[0], n % columns * stride[1], window, size)
        covered = jnp.where(inside[:, :, None], cover, images)
        loss = whole - score_fn(variables, covered, targets)
        return lost + loss[:, None, None] * inside, count + inside

    start = (jnp.zeros(images.shape[:3], whole.dtype), jnp.zeros(size, whole.dtype))
    lost, count = jax.lax.fori_loop(0, rows * columns, step, start)
    return (lost / jnp.maximum(count, 1))[..., None]


def _inside(top: Any, left: Any, window: tuple[int, int], size: tuple[int, int]) -> Array:
    down, across = jnp.arange(size[0]), jnp.arange(size[1])
    is_row = (down >= top) & (down < top + window[0])
    is_column = (across >= left) & (across < left + window[1])
    return is_row[:, None] & is_column


def _pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"{name} is {value}: expected a positive number of pixels, or (rows, columns)")
    return pair
