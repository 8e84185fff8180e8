"""Weights from files of other frameworks, converted to the names, axes and shapes of a module here.

`.safetensors` with the names of torchvision or timm, and `.mat` of MatConvNet. Files that hold programs
(pickles: `.pth`, `.pt`, `.bin`) are refused, for reading them would run them. A module tells the names of its
layers in another framework by `torchvision_names()`, `timm_names()` and `matconvnet_names()`.
"""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vexplain._files import MAX_BYTES
from vexplain.classifiers._matconvnet import read_matconvnet
from vexplain.typing import PyTree

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_PICKLES = (".pth", ".pt", ".bin", ".pkl", ".ckpt")
_IGNORED = ("num_batches_tracked", ".param")  # counters of PyTorch that nothing reads; options of a layer
_SHOWN = 12  # names in a message

_CONVERSION = (
    'import torch, safetensors.torch as s; weights = torch.load("{name}", weights_only=True)\n'
    '    s.save_file({{k: v.contiguous() for k, v in weights.items()}}, "{stem}.safetensors")'
)


def read_weights(path: str | Path, *, max_bytes: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name.

    Of a MatConvNet file, a layer's arrays are "conv1.weight" and "conv1.bias" in its own order of axes,
    "average_image" is what is subtracted from images in [0, 255], and a local response normalization is
    "norm1.param".

    Args:
        path: a `.safetensors` or `.mat` file.
        max_bytes: that the arrays of a `.mat` file, which is compressed, may have together.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is a pickle, of an unknown kind, or broken.
        ModuleNotFoundError: the library that reads it is not installed: `pip install vexplain[weights]`.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"path is {str(file)!r}: there is no such file")
    suffix = file.suffix.lower()
    if suffix in _PICKLES:
        conversion = _CONVERSION.format(name=file.name, stem=file.stem)
        raise ValueError(
            f"{file} is a pickle, and to read one is to run what is in it. Where it was made, or with "
            f"PyTorch, turn it into a file of numbers:\n    {conversion}"
        )
    if suffix == ".safetensors":
        return _read_safetensors(file)
    if suffix == ".mat":
        return read_matconvnet(file, max_bytes)
    raise ValueError(f"{file} ends in {suffix!r}: expected .safetensors or .mat")


def place_weights(
    module: nnx.Module, arrays: Mapping[str, np.ndarray], dialect: str, *, source: str = "the file"
) -> PyTree:
    """Returns the variables of a module, as `functionalize` gives them, filled from named arrays.

    Args:
        module: to fill; its own weights are ignored, and may be abstract (`nnx.eval_shape`).
        arrays: by name, from `read_weights`.
        dialect: the framework of the names: "torchvision", "timm" or "matconvnet".
        source: of the arrays, for messages.

    Raises:
        ValueError: names are missing or left over, shapes differ, numbers are not finite or not of floating
            point, or variances negative; all of them are listed.
    """
    table: dict[str, str] = getattr(module, f"{dialect}_names")()
    flattened = getattr(module, "flattened", {})
    _, _, state = nnx.split(module, nnx.RngState, ...)
    leaves, structure = jax.tree.flatten_with_path(nnx.to_pure_dict(state))
    missing, misfits, wrong, used, filled = [], [], [], {"average_image"}, []
    for keys, leaf in leaves:
        path = jax.tree_util.keystr(keys, simple=True, separator=".")
        name = _foreign_name(path, table)
        if name in arrays:
            used.add(name)
            convert = _from_matconvnet if dialect == "matconvnet" else _from_torch
            array, shape = arrays[name], leaf.shape
            if not jnp.issubdtype(array.dtype, jnp.floating):
                wrong.append(f"{name} of {array.dtype}, expected floating point")
            leaf = convert(array, path, shape, flattened).astype(np.float32)
            if leaf.shape != shape:
                misfits.append(f"{name} {array.shape}, expected as {shape}")
            if not np.isfinite(leaf).all():
                wrong.append(f"{name} with NaN or infinity")
            elif path.rpartition(".")[2] == "var" and leaf.min(initial=0) < 0:
                wrong.append(f"{name} below 0, a variance")
        elif name != "average_image":
            missing.append(name)
        filled.append(leaf)
    unknown = [name for name in arrays if name not in used and not name.endswith(_IGNORED)]
    _check(missing, misfits, wrong, unknown, f"{source}, read with the names of {dialect},")
    return jax.tree.unflatten(structure, filled)


def best_dialect(module: nnx.Module, arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the framework that has most of the names of the arrays among its names for the module.

    Raises:
        ValueError: no framework has any of them.
    """
    known = {}
    for dialect in ("torchvision", "timm", "matconvnet"):
        if hasattr(module, f"{dialect}_names"):
            prefixes = getattr(module, f"{dialect}_names")().values()
            known[dialect] = sum(any(n == p or n.startswith(p + ".") for n in arrays) for p in prefixes)
    best = max(known, key=lambda dialect: known[dialect])
    if not known[best]:
        raise ValueError(
            f"no name in the file is one of this network's: it has {_some(list(arrays))}; expected those of "
            f"{' or '.join(known)}, such as {_some(list(getattr(module, f'{best}_names')().values())[:3])}"
        )
    return best


def _read_safetensors(file: Path) -> dict[str, np.ndarray]:
    try:
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("safetensors is not installed: pip install 'vexplain[weights]'") from error
    try:
        return load_file(file)
    except Exception as error:  # of an unknown type of numbers an AttributeError
        raise ValueError(
            f"{file} is no whole safetensors file of numbers that NumPy has: {error}; fetch it again, or "
            "save it in float32"
        ) from error


def _from_torch(array, path: str, shape: tuple[int, ...], flattened) -> np.ndarray:
    """Kernels (out, in, rows, columns) → (rows, columns, in, out); dense ones on a flattened map likewise."""
    array, (layer, _, leaf) = np.asarray(array), path.rpartition(".")
    if leaf != "kernel":
        return _without_ones(array, shape)
    if array.ndim == 2 and layer in flattened and array.shape[1] == np.prod(flattened[layer]):
        array = array.reshape(len(array), *flattened[layer])
    if array.ndim == 2:
        return array.T
    array = array.transpose(2, 3, 1, 0)
    return array.reshape(-1, array.shape[-1]) if len(shape) == 2 else array


def _from_matconvnet(array, path: str, shape: tuple[int, ...], flattened) -> np.ndarray:
    """Kernels are (rows, columns, in, out) already, also those of dense layers."""
    array = np.asarray(array)
    if path == "mean":
        return np.broadcast_to(array / 255, shape)
    if len(shape) == 2 and array.size == np.prod(shape) and array.shape[-1] == shape[-1]:
        return array.reshape(shape)
    return _without_ones(array, shape)


def _without_ones(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """In a shape that differs by axes of length one alone."""
    is_same = [n for n in array.shape if n > 1] == [n for n in shape if n > 1]
    return array.reshape(shape) if is_same else array


def _foreign_name(path: str, table: Mapping[str, str]) -> str:
    if path in table:
        return table[path]
    layer, _, leaf = path.rpartition(".")
    return f"{table[layer]}.{_LEAVES[leaf]}" if layer in table else "average_image"


def _check(missing: list[str], misfits: list[str], wrong: list[str], unknown: list[str], what: str) -> None:
    parts = []
    if missing:
        parts.append(f"lacks {_some(missing)}")
    if unknown:
        parts.append(f"has {_some(unknown)}, which this network has not")
    if misfits:
        parts.append(f"has other shapes: {_some(misfits, '; ')}")
    if wrong:
        parts.append(f"has other values: {_some(wrong, '; ')}")
    if parts:
        raise ValueError(f"{what} does not fit: it {'; it '.join(parts)}")


def _some(names: list[str], separator: str = ", ") -> str:
    more = len(names) - _SHOWN
    return separator.join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
