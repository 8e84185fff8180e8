"""What every entry point asks of images and targets, so that a mistake is named where it is made."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def check_images(images: Any) -> None:
    """Raises unless `images` is a batch of finite floats in [0, 1]; traced values are checked by shape only.

    Args:
        images: should be (batch, height, width, channels), floating point, in [0, 1].

    Raises:
        ValueError: no array, another rank, dtype or range, or NaN.

    Example:
        >>> check_images(jnp.ones((2, 8, 8, 3)) * 255)
        Traceback (most recent call last):
        ValueError: images go from 255 to 255: expected [0, 1]; divide 8-bit images by 255
    """
    _check_is_array("images", images, "(batch, height, width, channels)", "np.stack(images)")
    if images.ndim != 4:
        raise ValueError(
            f"images has shape {images.shape}: expected (batch, height, width, channels)"
            + _rank_advice(images.ndim)
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images has dtype {images.dtype}: expected floats in [0, 1]; divide by 255")
    if isinstance(images, Tracer) or images.size == 0:
        return
    check_unit_range("images", images, "undo the normalization, it belongs into apply")


def check_targets(targets: Any, num_images: int, num_classes: int) -> None:
    """Raises unless `targets` names one class an image; traced values are checked by shape and dtype only.

    Args:
        targets: should be (num_images,) integers from 0 to num_classes - 1.
        num_images: of the batch.
        num_classes: of the network.

    Raises:
        ValueError: no array, another shape, dtype or range.

    Example:
        >>> check_targets(jnp.array([0, 4]), 2, 4)
        Traceback (most recent call last):
        ValueError: targets go from 0 to 4: expected classes from 0 to 3
    """
    _check_is_array("targets", targets, f"({num_images},) integers", f"np.full({num_images}, 2) for class 2")
    if targets.shape != (num_images,):
        raise ValueError(
            f"targets has shape {targets.shape}: expected ({num_images},), one class an image; for one class "
            f"for all pass np.full({num_images}, target)"
        )
    if not jnp.issubdtype(targets.dtype, jnp.integer):
        raise ValueError(f"targets has dtype {targets.dtype}: expected integers, the classes to explain")
    if isinstance(targets, Tracer) or not num_images:
        return
    low, high = _range(targets)
    if not 0 <= low <= high < num_classes:
        raise ValueError(f"targets go from {low:g} to {high:g}: expected classes from 0 to {num_classes - 1}")


def check_positive(**counts: int) -> None:
    """Raises ValueError unless every argument, named as the caller knows it, is at least 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}: expected at least 1")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises ValueError unless argument `name` has one of the values that it may have."""
    if value not in (choices := tuple(choices)):
        raise ValueError(f"{name} is {value!r}: expected one of {choices}")


def check_unit_range(name: str, values: Any, way_out: str) -> None:
    """Raises ValueError unless argument `name`, some values, is finite and in [0, 1]."""
    if not _is_finite(values):
        raise ValueError(f"{name} hold NaN or infinite values: expected finite floats in [0, 1]")
    low, high = _range(values)
    if low < 0 or high > 1:
        way_out = f"divide 8-bit {name} by 255" if high > 2 else way_out
        raise ValueError(f"{name} go from {low:g} to {high:g}: expected [0, 1]; {way_out}")


def _check_is_array(name: str, value: Any, expected: str, way: str) -> None:
    if not all(hasattr(value, attribute) for attribute in ("shape", "dtype", "ndim")):
        raise ValueError(f"{name} is a {type(value).__name__}: expected one array {expected}; pass {way}")


def _is_finite(array: Any) -> bool:
    """Looks at every value, for min and max of XLA on a CPU can skip a NaN."""
    if isinstance(array, np.ndarray):
        return bool(np.isfinite(array).all())
    with jax.ensure_compile_time_eval():  # a constant within a traced function has values too
        return bool(jnp.isfinite(array).all())


def _range(array: Any) -> tuple[float, float]:
    with jax.ensure_compile_time_eval():
        return float(array.min()), float(array.max())


def _rank_advice(ndim: int) -> str:
    if ndim == 3:
        return "; for one image pass images[None], for a batch of gray ones images[..., None]"
    return "; for one gray image pass images[None, ..., None]" if ndim == 2 else ""
