"""What every entry point asks of images and targets, so that a mistake is named where it is made."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

_UNDO = "undo the normalization, it belongs into apply"


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
    check_image_form(images)
    if isinstance(images, Tracer) or images.size == 0:
        return
    check_unit_range("images", images, _UNDO)


def check_image_form(images: Any) -> None:
    """Raises ValueError unless `images` is one array of four axes, of floating point."""
    _check_is_array(
        "images", images, "(batch, height, width, channels)", "np.stack(images), and the rest within apply"
    )
    if images.ndim != 4:
        raise ValueError(
            f"images has shape {images.shape}: expected (batch, height, width, channels)"
            + _rank_advice(images.ndim)
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images has dtype {images.dtype}: expected floats in [0, 1]; divide by 255")


def as_classes(targets: Any, num_images: int, num_classes: int | None) -> Any:
    """Returns one class an image as int32, from one integer for all, a list or an array.

    Args:
        targets: an integer, or (num_images,) integers; traced values are checked by shape and dtype only.
        num_images: of the batch.
        num_classes: of the network; `None` leaves the range unchecked.

    Raises:
        ValueError: another shape or dtype, or classes out of range.

    Example:
        >>> as_classes(2, 3, 4)
        array([2, 2, 2], dtype=int32)
        >>> as_classes([0, 4], 2, 4)
        Traceback (most recent call last):
        ValueError: targets go from 0 to 4: expected classes from 0 to 3
    """
    array = targets if hasattr(targets, "dtype") and hasattr(targets, "ndim") else np.asarray(targets)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(
            f"targets is {_shown(targets)}: expected integers, the classes to explain"
            + ("; of one-hot rows pass targets.argmax(-1)" if array.ndim == 2 else "")
            + ("; of names pass their places in class_names" if array.dtype.kind in "UO" else "")
        )
    if array.ndim == 0 and not isinstance(array, Tracer):
        array = np.full(num_images, array)
    elif array.ndim == 0:
        array = jnp.broadcast_to(array, (num_images,))
    if array.shape != (num_images,):
        raise ValueError(
            f"targets has shape {array.shape}: expected ({num_images},), one class an image, or one integer "
            "for all" + _target_advice(array.shape, num_images)
        )
    if isinstance(array, Tracer):
        return array.astype(jnp.int32)
    values = np.asarray(array)
    if num_classes is not None and num_images:
        low, high = values.min(), values.max()
        if not 0 <= low <= high < num_classes:
            raise ValueError(f"targets go from {low} to {high}: expected classes from 0 to {num_classes - 1}")
    return values.astype(np.int32)


def check_positive(**counts: int) -> None:
    """Raises ValueError unless every argument, named as the caller knows it, is at least 1."""
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}: expected at least 1")


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Raises ValueError unless argument `name` has one of the values that it may have."""
    if value not in (choices := tuple(choices)):
        raise ValueError(f"{name} is {value!r}: expected one of {choices}")


def check_unit_range(name: str, values: Any, advice: str) -> None:
    """Raises ValueError unless all values of an argument are finite and in [0, 1], with advice for others."""
    low, high, is_finite = _extent(values)
    check_range(name, low, high, advice, is_finite=is_finite)


def check_range(name: str, low: float, high: float, advice: str = _UNDO, *, is_finite: bool) -> None:
    """Raises ValueError unless an argument, which goes from `low` to `high`, is finite and in [0, 1]."""
    if not is_finite:
        raise ValueError(f"{name} hold NaN or infinite values: expected finite floats in [0, 1]")
    if low < 0 or high > 1:
        advice = f"divide 8-bit {name} by 255" if high > 2 else advice
        raise ValueError(f"{name} go from {low:g} to {high:g}: expected [0, 1]; {advice}")


def _check_is_array(name: str, value: Any, expected: str, advice: str) -> None:
    if not all(hasattr(value, attribute) for attribute in ("shape", "dtype", "ndim")):
        raise ValueError(f"{name} is a {type(value).__name__}: expected one array {expected}; pass {advice}")


def _extent(array: Any) -> tuple[float, float, bool]:
    """Returns the smallest and the largest value, and whether all are finite."""
    if isinstance(array, np.ndarray):
        return float(array.min()), float(array.max()), bool(np.isfinite(array).all())
    with jax.ensure_compile_time_eval():  # a constant within a traced function has values too
        low, high, is_finite = _extent_on_device(array)
        return float(low), float(high), bool(is_finite)


@jax.jit
def _extent_on_device(array: Any) -> tuple[Any, Any, Any]:
    """Looks at every value, for min and max of XLA on a CPU can skip a NaN."""
    return array.min(), array.max(), jnp.isfinite(array).all()


def _rank_advice(ndim: int) -> str:
    if ndim == 3:
        return "; for one image pass images[None], for a batch of gray ones images[..., None]"
    return "; for one gray image pass images[None, ..., None]" if ndim == 2 else ""


def _target_advice(shape: tuple[int, ...], num_images: int) -> str:
    if shape == (num_images, 1):
        return "; pass targets[:, 0]"
    if len(shape) == 2:
        return "; of one-hot rows pass targets.argmax(-1)"
    return ""


def _shown(value: Any) -> str:
    if hasattr(value, "dtype"):
        return f"of shape {value.shape} and dtype {value.dtype}"
    return repr(value) if len(repr(value)) < 60 else f"a {type(value).__name__}"
