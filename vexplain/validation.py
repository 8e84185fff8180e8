"""What every entry point asks of images, so that a mistake is named where it is made."""

import jax.numpy as jnp
from jax.core import Tracer

from vexplain.typing import AnyArray


def check_images(images: AnyArray) -> None:
    """Raises unless `images` is a batch of finite floats in [0, 1]; traced values are checked by shape only.

    Args:
        images: should be (batch, height, width, channels), floating point, in [0, 1].

    Raises:
        ValueError: another rank, dtype or range, or NaN.

    Example:
        >>> check_images(jnp.ones((2, 8, 8, 3)) * 255)
        Traceback (most recent call last):
        ValueError: images go from 255 to 255: expected [0, 1]; divide 8-bit images by 255
    """
    if images.ndim != 4:
        raise ValueError(
            f"images has shape {images.shape}: expected (batch, height, width, channels); for one image pass "
            "images[None]"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images has dtype {images.dtype}: expected floats in [0, 1]; divide by 255")
    if isinstance(images, Tracer) or images.size == 0:
        return
    low, high = float(images.min()), float(images.max())
    if not (jnp.isfinite(low) and jnp.isfinite(high)):
        raise ValueError("images hold NaN or infinite values: expected finite floats in [0, 1]")
    if low < 0 or high > 1:
        raise ValueError(
            f"images go from {low:g} to {high:g}: expected [0, 1]; "
            + ("divide 8-bit images by 255" if high > 2 else "undo the normalization, it belongs into apply")
        )
