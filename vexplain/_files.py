"""Files written in one piece, and arrays read that are as large as they say.

A crash leaves the old file or the new one, never a half. What a reader allocates is known from the header,
and compared with a limit, before anything is decoded.
"""

import hashlib
import json
import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 2**30  # of what a file says that it holds, decoded; functions that read have it as an option


def write_whole(path: str | os.PathLike[str], content: bytes) -> Path:
    """Returns the path, after the content has replaced what was there.

    The content goes to a temporary file of the same folder, to the disk, and then takes the name.

    Args:
        path: of the file; its folder is made if it does not exist.
        content: all of it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(f"{folder}/note.txt", b"done").read_bytes()
        b'done'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{zlib.crc32(path.name.encode()):08x}.{os.getpid()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:  # the disk is full: the error of `write` has no name
        raise type(error)(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def digest_of_file(path: str | os.PathLike[str]) -> str | None:
    """Returns hexadecimal digits that tell the content of a file from others; `None` where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def sweep(folder: Path) -> None:
    """Removes the parts of files that a killed process left in a folder and below it."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Returns the path, after the content has replaced what was there, as JSON made by `plain_json`.

    Args:
        path: of the file; its folder is made if it does not exist.
        content: dicts, sequences, text and numbers.
    """
    return write_whole(path, (json.dumps(plain_json(content), indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one where there is no file, or one that holds none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_npz(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Returns the arrays of an `.npz` file by name. Pickled objects are refused.

    Args:
        path: of the file.
        max_bytes: that all arrays together may have.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is broken, an array has another size than its header says, or they are too large.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/a.npz", numbers=np.arange(3))
        ...     read_npz(f"{folder}/a.npz")
        {'numbers': array([0, 1, 2])}
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            check_size(f"{os.fspath(path)}", sum(info.file_size for info in archive.infolist()), max_bytes)
            for info in archive.infolist():
                with archive.open(info) as file:
                    arrays[info.filename.removesuffix(".npy")] = _read_npy(file, info.file_size)
    except FileNotFoundError:
        raise
    except Exception as error:  # damage shows as any of a dozen kinds, of zip, zlib and NumPy
        raise ValueError(f"{os.fspath(path)} is no whole .npz file: {error}") from error
    return arrays


def _read_npy(file: Any, size: int) -> np.ndarray:
    """An array whose header agrees with the size of its file; NumPy would allocate what the header says."""
    version = np.lib.format.read_magic(file)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"version {version} of NumPy's format: expected 1.0 or 2.0")
    shape, is_fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, and to read them is to run what is in them")
    count = math.prod(shape)
    if file.tell() + count * dtype.itemsize != size:
        raise ValueError(
            f"an array says that it has the shape {shape} and {dtype}: its file is of another size"
        )
    array = np.frombuffer(file.read(), dtype, count)
    return array.reshape(shape, order="F" if is_fortran else "C").copy()


def check_size(what: str, num_bytes: int, max_bytes: int) -> None:
    """Raises ValueError where something is larger than it may be, in bytes."""
    if num_bytes > max_bytes:
        raise ValueError(
            f"{what} says that it holds {num_bytes:,} bytes: expected at most {max_bytes:,}; where that is "
            "right, raise max_bytes"
        )


def plain_json(content: Any) -> Any:
    """Returns what a JSON file gives back: NaN and infinities are `None`, what JSON does not know is text.

    Args:
        content: dicts, sequences, text and numbers.

    Example:
        >>> plain_json({"loss": float("nan"), "out": Path("runs"), "sizes": (1, 2)})
        {'loss': None, 'out': 'runs', 'sizes': [1, 2]}
    """
    return json.loads(json.dumps(content, default=str), parse_constant=lambda _: None)
