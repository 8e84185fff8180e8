"""MNIST from its four published files, and the sets that are released in the same format.

An IDX file is a header (two zero bytes, a type code, the number of axes, the length of each as a big-endian
32-bit integer) and then the values. What TFDS prepared as `mnist` is read by `from_tfds` instead.

References:
    LeCun, Bottou, Bengio, Haffner, *Gradient-Based Learning Applied to Document Recognition*, 1998.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vexplain._checks import check_choice
from vexplain._files import MAX_BYTES, check_size
from vexplain.datasets.sources import ArraySource

_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
_FROM = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_UNSIGNED_BYTES = 8  # the type code


def mnist_folder(
    path: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    class_names: Sequence[str] = tuple("0123456789"),
    max_bytes: int = MAX_BYTES,
) -> ArraySource:
    """Returns the images of MNIST as a source, (28, 28, 1) each, white on black.

    Fashion-MNIST, KMNIST and QMNIST's copies are files of the same names and format: pass `class_names`.

    Args:
        path: of the folder with `train-images-idx3-ubyte.gz` and the three other files, compressed or not.
        split: "train" (60000 images) or "test" (10000).
        class_names: one a class.
        max_bytes: that the values of a file may have, by its header.

    Raises:
        FileNotFoundError: there is no such folder, or a file is missing.
        ValueError: another `split`; a file is not IDX, is cut off or has bytes too many, or is too large; the
            numbers of images and labels differ.

    Example:
        >>> mnist_folder("data/mnist", split="test")  # doctest: +SKIP
        ArraySource(10000 images of 28×28×1, 10 classes)
    """
    check_choice("split", split, _FILES)
    files = [_file(Path(path), name) for name in _FILES[split]]
    images, labels = (_read_idx(file, axes, max_bytes) for file, axes in zip(files, (3, 1), strict=True))
    if len(images) != len(labels):
        raise ValueError(
            f"{files[0]} has {len(images)} images and {files[1]} {len(labels)} labels: they are of "
            f"different releases, download both from {_FROM}"
        )
    return ArraySource(images[..., None], labels.astype(np.int32), class_names=tuple(class_names))


def _file(folder: Path, name: str) -> Path:
    dotted = name.replace("-idx", ".idx")  # what some programs make of the name when they decompress
    for candidate in (f"{name}.gz", name, f"{dotted}.gz", dotted):
        if (folder / candidate).is_file():
            return folder / candidate
    names = ", ".join(f"{file}.gz" for pair in _FILES.values() for file in pair)
    raise FileNotFoundError(
        f"path is {str(folder)!r}: there is no {name}.gz in it, compressed or not; expected {names}, to be "
        f"downloaded from {_FROM}"
    )


def _read_idx(file: Path, num_axes: int, max_bytes: int) -> np.ndarray:
    """The 8-bit values of an IDX file with so many axes; no more is decompressed than the header says."""
    try:
        with _opened(file) as content:
            return _values(file, content, num_axes, max_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{file} cannot be decompressed, it was cut off or changed: {error}; download it from {_FROM}"
        ) from error


def _values(file: Path, content: Any, num_axes: int, max_bytes: int) -> np.ndarray:
    start, sizes = content.read(4), content.read(4 * num_axes)
    if start != bytes([0, 0, _UNSIGNED_BYTES, num_axes]):
        raise ValueError(
            f"{file} begins with the bytes {start.hex(' ') or '(none)'}: expected "
            f"00 00 08 {num_axes:02}, an IDX file of {num_axes} axes; download it from {_FROM}"
        )
    if len(sizes) < 4 * num_axes:
        raise ValueError(f"{file} ends within its header: it was cut off; download it from {_FROM}")
    shape = struct.unpack(f">{num_axes}I", sizes)
    count = math.prod(shape)
    check_size(str(file), count, max_bytes)
    values = content.read(count + 1)
    if len(values) != count:
        held = f"{len(values)}" if len(values) < count else f"more than {count}"
        raise ValueError(
            f"{file} holds {held} values: expected {count}, {' × '.join(map(str, shape))}; it was cut off or "
            f"changed, download it from {_FROM}"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def _opened(file: Path) -> Any:
    with open(file, "rb") as raw:  # browsers decompress some downloads: the name says nothing
        is_compressed = raw.read(2) == b"\x1f\x8b"
    return gzip.open(file, "rb") if is_compressed else open(file, "rb")
