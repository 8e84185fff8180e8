"""Relevance on disk: one `.npz` file with the arrays, and the names as JSON beside them.

The file appears whole or not at all, and reading it never runs code that it carries.
"""

import io
import json
import os
from typing import Any

import numpy as np

from vexplain._files import MAX_BYTES, read_npz, write_whole
from vexplain.relevance._features import Relevance
from vexplain.relevance._responses import check_measure
from vexplain.relevance.layout import FeatureLayout, layout_size

_ARRAYS = ("weights", "gaps", "penalties", "mu")
_VERSION = 1


def save_relevance(relevance: Relevance, path: str | os.PathLike[str]) -> None:
    """Writes a relevance to a file, in place of what was there.

    Args:
        relevance: what to write.
        path: the file, taken as given (`.npz` by custom); its folder is made if it does not exist.

    Example:
        >>> weights, zeros = np.array([[0.5], [0.0]]), np.zeros(1)
        >>> relevance = Relevance(weights, zeros, zeros, np.array(1.0), (("conv_1", 2),), ("cat",))
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_relevance(relevance, f"{folder}/cat.npz")
        ...     print(load_relevance(f"{folder}/cat.npz").weights.ravel())
        [0.5 0. ]
    """
    metadata = {
        "version": _VERSION,
        "layout": [list(entry) for entry in relevance.layout],
        "class_names": list(relevance.class_names),
        "measure": relevance.measure,
    }
    arrays: dict[str, Any] = {name: np.asarray(getattr(relevance, name)) for name in _ARRAYS}
    if relevance.copied is not None:
        arrays["copied"] = np.asarray(relevance.copied)
    arrays["metadata"] = np.array(json.dumps(metadata))
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_whole(path, buffer.getvalue())


def load_relevance(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> Relevance:
    """The relevance that `save_relevance` wrote, bit for bit.

    Args:
        path: of the file.
        max_bytes: that its arrays may have together.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, too large, or not one that `save_relevance` wrote.

    Example:
        >>> load_relevance("nowhere.npz")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.npz'
    """
    try:
        file = read_npz(path, max_bytes=max_bytes)
        metadata = json.loads(str(file["metadata"]))
        arrays = {name: file[name] for name in _ARRAYS}
        if metadata["version"] != _VERSION:
            raise ValueError(f"format version {metadata['version']}, expected {_VERSION}")
        layout = _layout(metadata["layout"])
        class_names, measure = tuple(map(str, metadata["class_names"])), metadata.get("measure", "energy")
        check_measure(measure)
        names: dict[str, Any] = {"layout": layout, "class_names": class_names, "measure": measure}
        relevance = Relevance(**arrays, **names, copied=file.get("copied"))
        _check_values(relevance)
    except FileNotFoundError:
        raise
    except Exception as error:  # damage shows as any of a dozen kinds, of zip, zlib, NumPy and JSON
        raise ValueError(
            f"{os.fspath(path)!r} is damaged or holds no relevance ({error}); "
            "make it again with save_relevance"
        ) from error
    return relevance


def _layout(entries: Any) -> FeatureLayout:
    for name, size in entries:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"layer {name!r} has {size} channels: expected a whole number, 1 or more")
    return tuple((str(name), size) for name, size in entries)


def _check_values(relevance: Relevance) -> None:
    num_classes = len(relevance.class_names)
    expected = ((layout_size(relevance.layout), num_classes), (num_classes,), (num_classes,), ())
    for name, shape in zip(_ARRAYS, expected, strict=True):
        array = getattr(relevance, name)
        if array.shape != shape or not np.issubdtype(array.dtype, np.floating):
            raise ValueError(f"{name}: expected numbers of shape {shape}, got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    copied, size = relevance.copied, layout_size(relevance.layout)
    if copied is not None:
        if copied.shape != (size,) or not np.issubdtype(copied.dtype, np.integer):
            raise ValueError(f"copied: expected whole numbers of shape {(size,)}, got {copied.shape}")
        if copied.min() < -1 or (copied >= np.arange(size)).any():
            raise ValueError("copied: expected the number of an earlier feature, or -1")
    if not relevance.mu > 0:
        raise ValueError(f"mu: expected a positive number, got {relevance.mu}")
