"""Attributions of whole regions: which segments of an image, in which order, hold most of what explains."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.gradients import integrated
from vexplain.attribution.partitions import superpixels
from vexplain.typing import AnyArray, Array, Float, Targets


def _check_segments(targets: Any, *, segments: Any = None, **options: Any) -> None:
    """Negative labels, or more than there are pixels, would be left out of all sums."""
    if segments is not None and not isinstance(segments, Tracer):
        labels = np.asarray(segments)
        most = labels.shape[-2] * labels.shape[-1]
        if labels.size and not (labels.min() >= 0 and labels.max() < most):
            raise ValueError(
                f"segments go from {labels.min()} to {labels.max()}: expected labels from 0 to {most - 1}, "
                "one less than there are pixels"
            )


@attribution_method(after=_check_segments)
def xrai(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    segments: AnyArray | None = None,
    num_segments: Sequence[int] = (16, 48, 144),
    baselines: Sequence[float] = (0.0, 1.0),
    num_steps: int = 25,
) -> Float[Array, "batch height width 1"]:
    """Returns for each pixel the attribution density of the region that covers it first.

    Let A be integrated gradients, the mean over baselines, summed over channels. Segments of several scales
    are added to a mask C one after the other, always the one of highest density of what it adds:

        s* = argmax over s of the mean of A over s \\ C,        M = that mean on s* \\ C,        C = C ∪ s*

    Args:
        segments: labels of whole numbers from 0, (height, width) or (batch, height, width), at most as many
            as there are pixels; superpixels of several scales if left out.
        num_segments: of superpixels at each scale, about.
        baselines: black and white, as in the paper.
        num_steps: of the integrals.

    Raises:
        ValueError: segments of another form, or a number of segments or steps below 1.

    References:
        Kapishnikov et al., XRAI: Better Attributions Through Regions, ICCV 2019, Algorithm 1. There segments
        are Felzenszwalb's, enlarged by 5 pixels; superpixels in their place are *ours*.

    Example:
        >>> apply = lambda weights, images: (images * weights).sum((1, 2))
        >>> images, weights = jnp.ones((1, 1, 4, 2)), jnp.array([1.0, 3.0, 0.0, 0.0])[:, None]
        >>> print(xrai(apply, weights, images, 0, segments=jnp.array([[0, 0, 1, 1]]))[0, 0, :, 0])
        [1. 1. 0. 0.]
    """
    if not baselines:
        raise ValueError("baselines is empty: expected numbers in [0, 1]")
    ends = jnp.asarray(baselines, images.dtype)
    found = jax.lax.map(lambda end: integrated(network, images, targets, end, num_steps), ends)
    density = found.mean(0).sum(-1)
    if segments is not None:
        owners, count = _as_labels(segments, images), density[0].size
    else:
        if not num_segments or min(num_segments) < 1:
            raise ValueError(f"num_segments is {tuple(num_segments)}: expected numbers of 1 or more")
        scales = [superpixels(images, count=n) for n in num_segments]
        labels = jnp.stack([scale.labels for scale in scales])
        count = sum(scale.count for scale in scales)
        owners = jax.vmap(lambda a, s: _first_covers(a, s, count), in_axes=(0, 1))(density, labels)
    return jax.vmap(lambda a, s: _means_of(a, s, count)[0][s])(density, owners)[..., None]


def _first_covers(density: Any, labels: Any, count: int) -> Any:
    """Which of the segments that are added one after the other covers a pixel first, by its number.

    Args:
        density: (height, width).
        labels: (scales, height, width).
        count: segments of all scales together.
    """
    density = jax.lax.stop_gradient(density)

    def add(number, owners):
        is_left = owners < 0
        means, sizes = jax.vmap(lambda s: _means_of(density, s, count, is_left))(labels)
        best = jnp.where(sizes > 0, means, -jnp.inf).argmax()
        is_best = labels[best // count] == best % count
        return jnp.where(is_left & is_best, number, owners)

    return jax.lax.fori_loop(0, count, add, jnp.full(density.shape, -1))


def _means_of(density: Any, labels: Any, count: int, is_in: Any = True) -> tuple[Any, Any]:
    """The mean of each segment, 0 of one without a pixel, and its number of pixels."""
    is_in = jnp.broadcast_to(is_in, density.shape)
    total = jnp.zeros(count, density.dtype).at[labels].add(jnp.where(is_in, density, 0))
    size = jnp.zeros(count, density.dtype).at[labels].add(is_in.astype(density.dtype))
    return total / jnp.maximum(size, 1), size


def _as_labels(segments: Any, images: Any) -> Any:
    labels = jnp.asarray(segments)
    if labels.shape not in (images.shape[1:3], images.shape[:3]) or not jnp.issubdtype(
        labels.dtype, jnp.integer
    ):
        raise ValueError(
            f"segments has shape {labels.shape} and dtype {labels.dtype}: expected labels of whole numbers, "
            f"{images.shape[1:3]} or {images.shape[:3]}"
        )
    return jnp.broadcast_to(labels, images.shape[:3])
