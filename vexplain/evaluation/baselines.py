"""What stands in for a pixel that is taken away.

A number (`baseline=0.0`) and a color need no function. Every choice leaves traces that the network may react
to: a constant makes new edges, a blur leaves large shapes. So a curve is reported for two of them.
"""

import jax.numpy as jnp

from vexplain.datasets.filters import gaussian_blur
from vexplain.typing import Array, Float, Images


def blurred_images(images: Images, *, sigma: float) -> Float[Array, "batch height width channels"]:
    """Returns the images under a Gaussian blur: their colors stay, their details go.

    Args:
        images: (batch, height, width, channels) in [0, 1].
        sigma: standard deviation of the Gaussian in pixels; a tenth of the side removes what small parts
            show.

    Returns:
        The images, convolved with a Gaussian that is cut off at 3 sigma; mirrored borders.

    Raises:
        ValueError: `sigma` is not positive.

    References:
        Petsiuk, Das, Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018
        (insertion).

    Example:
        >>> images = jnp.zeros((1, 7, 9, 1)).at[0, 3, 4].set(1.0)
        >>> print(float(blurred_images(images, sigma=2.0).sum().round(3)))
        1.0
    """
    if sigma <= 0:
        raise ValueError(f"sigma is {sigma}: expected a positive number of pixels")
    reach = max(round(3 * sigma), 1)
    return gaussian_blur(images, sigma=sigma, radius=min(reach, *images.shape[1:3]))


def darkest_values(images: Images) -> Float[Array, "batch 1 1 1"]:
    """Returns the smallest value of each image over all pixels and channels: what Quantus calls "black".

    It is 0 only where the image has a black pixel. Here to compare with published curves; pass
    `baseline=0.0` for black.

    Args:
        images: (batch, height, width, channels).

    Example:
        >>> print(darkest_values(jnp.array([[[[0.3], [0.2]]]])).ravel())
        [0.2]
    """
    return jnp.asarray(images).min((1, 2, 3), keepdims=True)


def border_colors(images: Images) -> Float[Array, "batch 1 1 channels"]:
    """Returns the mean color of the border pixels of each image: what a plain background would show.

    On a plain background a deleted object leaves no edge; on a textured one it leaves a patch of one color.

    Args:
        images: (batch, height, width, channels).

    Example:
        >>> images = jnp.ones((1, 3, 3, 1)).at[0, 1, 1].set(0.0)
        >>> print(border_colors(images).ravel())
        [1.]
    """
    images = jnp.asarray(images)
    sides = images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]
    return jnp.concatenate(sides, axis=1).mean(1)[:, None, None]
