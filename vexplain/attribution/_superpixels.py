"""Parts an image into superpixels: clusters of pixels that are near each other and of one color."""

from typing import Any

import jax
import jax.numpy as jnp

from vexplain.typing import Array, Int

_COMPACTNESS = 0.1  # of a color's distance: how much a step of one cell in the image counts


def superpixels(images: Array, num_segments: int, num_rounds: int = 5) -> Int[Array, "batch height width"]:
    """Returns labels of about `num_segments` superpixels, from 0 on; some may have no pixel.

    K-means of color and place, where each pixel chooses among the clusters of the nine grid cells around it.

        distance² = |color - color of the cluster|² + (0.1 distance in the image / size of a cell)²

    Args:
        images: (batch, height, width, channels) in [0, 1].
        num_segments: cells of the grid that is begun with, at most as many as there are pixels.
        num_rounds: of k-means.

    References:
        Achanta et al., SLIC Superpixels Compared to State-of-the-Art Superpixel Methods, TPAMI 2012
        (the idea; in the colors of the image, and without a step that joins stray pixels).

    Example:
        >>> print(superpixels(jnp.array([[[0.0, 0.0, 0.0, 1.0]] * 2])[..., None], 2))
        [[[0 0 0 1]
          [0 0 0 1]]]
    """
    images = jax.lax.stop_gradient(images)
    rows, columns = grid_of(num_segments, images.shape[1], images.shape[2])
    return jax.vmap(lambda image: _clustered(image, rows, columns, num_rounds))(images)


def grid_of(num_segments: int, height: int, width: int) -> tuple[int, int]:
    """Returns (rows, columns) of about square cells, about as many as asked for."""
    cell = (height * width / num_segments) ** 0.5
    return tuple(min(max(round(n / cell), 1), n) for n in (height, width))  # type: ignore[return-value]


def _clustered(image: Any, rows: int, columns: int, num_rounds: int) -> Any:
    height, width, _ = image.shape
    down, across = (
        (jnp.arange(n, dtype=image.dtype) + 0.5) * m / n for n, m in ((height, rows), (width, columns))
    )
    places = jnp.stack(jnp.broadcast_arrays(down[:, None], across), -1)
    points = jnp.concatenate([image, _COMPACTNESS * places], -1).reshape(height * width, -1)
    cell = jnp.floor(places).astype(int).reshape(-1, 2)
    steps = jnp.stack(jnp.meshgrid(*[jnp.arange(-1, 2)] * 2, indexing="ij"), -1).reshape(9, 2)
    near = jnp.clip(cell[:, None] + steps, 0, jnp.array([rows - 1, columns - 1]))
    near = near[..., 0] * columns + near[..., 1]
    own = cell[:, 0] * columns + cell[:, 1]

    def centers_of(labels, before):
        total = jax.ops.segment_sum(points, labels, rows * columns)
        count = jax.ops.segment_sum(jnp.ones(len(points), points.dtype), labels, rows * columns)[:, None]
        return jnp.where(count > 0, total / jnp.maximum(count, 1), before)

    def labels_of(centers):
        distances = ((points[:, None] - centers[near]) ** 2).sum(-1)
        return jnp.take_along_axis(near, distances.argmin(1)[:, None], axis=1)[:, 0]

    centers = centers_of(own, jnp.zeros((rows * columns, points.shape[1]), points.dtype))
    centers = jax.lax.fori_loop(0, num_rounds, lambda _, c: centers_of(labels_of(c), c), centers)
    return labels_of(centers).reshape(height, width)
