"""Maps that know nothing of the network. A method that does not beat them explains nothing."""

import jax
import jax.numpy as jnp

from vexplain.typing import Array, Float, Images, Key


def random_map(key: Key, images: Images) -> Float[Array, "batch height width 1"]:
    """Returns independent uniform noise in [0, 1) for every pixel.

    Args:
        key: of the noise.
        images: (batch, height, width, channels); only the shape counts.
    """
    return jax.random.uniform(key, (*images.shape[:3], 1))


def sobel_edges(images: Images) -> Float[Array, "batch height width 1"]:
    """Returns the magnitude of the Sobel gradient, summed over the channels.

    Args:
        images: (batch, height, width, channels) in [0, 1].

    Example:
        >>> step = jnp.zeros((1, 3, 4, 1)).at[:, :, 2:].set(1.0)
        >>> print(sobel_edges(step)[0, 1, :, 0])
        [0. 4. 4. 0.]
    """
    smooth, slope = jnp.array([1.0, 2.0, 1.0]), jnp.array([-1.0, 0.0, 1.0])
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")

    def filtered(rows, columns):
        height, width = images.shape[1:3]
        return sum(
            rows[i] * columns[j] * padded[:, i : i + height, j : j + width]
            for i in range(3)
            for j in range(3)
        )

    down, across = filtered(slope, smooth), filtered(smooth, slope)
    return jnp.sqrt(down**2 + across**2).sum(-1, keepdims=True)
