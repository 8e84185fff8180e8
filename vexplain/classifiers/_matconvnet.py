"""Weights of a MatConvNet network, read from a `.mat` file in a process of its own.

SciPy's reader is compiled code that a damaged file can crash, and the whole process with it; and what is
compressed can be of any size. So a child reads the file, under a limit of memory, and leaves an `.npz` file.
"""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vexplain._files import read_npz

_OVERHEAD = 2**31  # bytes of address space that Python, NumPy and SciPy take
_SECONDS = 600


def read_matconvnet(file: Path, max_bytes: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name, see `read_weights`.

    Args:
        file: a `.mat` file.
        max_bytes: that the arrays may have together.

    Raises:
        ModuleNotFoundError: SciPy is not installed.
        ValueError: the file cannot be read, or is too large.
    """
    if importlib.util.find_spec("scipy") is None:
        raise ModuleNotFoundError("scipy is not installed: pip install 'vexplain[weights]'")
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "weights.npz"
        command = [sys.executable, "-m", __name__, str(file), str(found), str(max_bytes)]
        options: Any = {"capture_output": True, "text": True, "timeout": _SECONDS}
        try:
            done = subprocess.run(
                command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, **options
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(
                f"{file} cannot be read as a MATLAB file: {_SECONDS} s were not enough"
            ) from error
        if done.returncode:
            cause = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            if done.returncode < 0:
                cause = [f"the reader died of it ({signal.Signals(-done.returncode).name})"]
            raise ValueError(f"{file} cannot be read as a MATLAB file: {cause[0]}")
        return read_npz(found, max_bytes=2 * max_bytes)  # with the headers of arrays


def _main(file: str, to: str, max_bytes: int) -> int:
    """Reads in the child; the last line that it prints says what went wrong."""
    _limit_memory(max_bytes)
    try:
        arrays: dict[str, Any] = _arrays(file)
        if sum(array.nbytes for array in arrays.values()) > max_bytes:
            raise MemoryError
        np.savez(to, **arrays)
    except MemoryError:
        sys.stderr.write(f"it takes more than max_bytes = {max_bytes:,}; raise it where that is right\n")
        return 1
    except Exception as error:  # SciPy raises many kinds for broken files
        sys.stderr.write((" ".join(f"{error}".split()) or type(error).__name__) + "\n")
        return 1
    return 0


def _limit_memory(max_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # on Windows
        return
    limit = _OVERHEAD + 2 * max_bytes  # what is read, and what is written
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _arrays(file: str) -> dict[str, np.ndarray]:
    from scipy.io import loadmat

    try:
        content = loadmat(file, squeeze_me=True, struct_as_record=False)
    except NotImplementedError as error:
        raise ValueError("it is a MATLAB 7.3 file: save it again by save(name, '-v7')") from error
    content = content.get("net", content)
    layers = content.get("layers") if isinstance(content, dict) else getattr(content, "layers", None)
    if layers is None:
        raise ValueError("it has no `layers`: expected a network of MatConvNet (SimpleNN)")
    arrays: dict[str, np.ndarray] = {}
    for layer in np.atleast_1d(layers):
        arrays |= _layer_arrays(layer)
    image = _average_image(content)
    arrays = arrays if image is None else arrays | {"average_image": image}
    if objects := [name for name, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"{objects[0]} holds no numbers")
    return arrays


def _layer_arrays(layer: Any) -> dict[str, np.ndarray]:
    """The weights of a layer in the newer form (`weights`) or the older one (`filters`, `biases`)."""
    kind, name = str(layer.type), str(getattr(layer, "name", ""))
    if kind in ("normalize", "lrn"):
        return {f"{name}.param": np.asarray(layer.param, np.float64)}
    if kind != "conv":
        return {}
    if hasattr(layer, "weights"):
        weight, bias = layer.weights[:2]
    else:
        weight, bias = layer.filters, layer.biases
    return {f"{name}.weight": np.asarray(weight), f"{name}.bias": np.atleast_1d(bias)}


def _average_image(content: Any) -> np.ndarray | None:
    def field(owner: Any, name: str) -> Any:
        return owner.get(name) if isinstance(owner, dict) else getattr(owner, name, None)

    owner = field(content, "meta") or content
    settings = field(owner, "normalization")
    image = None if settings is None else field(settings, "averageImage")
    return None if image is None or not np.size(image) else np.asarray(image, np.float32)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
