"""Weights from files of other frameworks, converted to the names, axes and shapes of a module here.

`.safetensors` with the names of torchvision or timm, and `.mat` of MatConvNet. Files that hold programs
(pickles: `.pth`, `.pt`, `.bin`) are refused, for reading them would run them. A module tells the names of its
layers in another framework by `torchvision_names()`, `timm_names()` and `matconvnet_names()`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

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


def read_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file by name.

    Of a MatConvNet file, a layer's arrays are "conv1.weight" and "conv1.bias" in its own order of axes,
    "average_image" is what is subtracted from images in [0, 255], and a local response normalization is
    "norm1.param".

    Args:
        path: a `.safetensors` or `.mat` file.

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
        return _read_matconvnet(file)
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
        ValueError: names are missing or left over, or shapes differ; all of them are listed.
    """
    table: dict[str, str] = getattr(module, f"{dialect}_names")()
    flattened = getattr(module, "flattened", {})
    _, _, state = nnx.split(module, nnx.RngState, ...)
    leaves, structure = jax.tree.flatten_with_path(nnx.to_pure_dict(state))
    missing, misfits, used, filled = [], [], {"average_image"}, []
    for keys, leaf in leaves:
        path = jax.tree_util.keystr(keys, simple=True, separator=".")
        name = _foreign_name(path, table)
        if name in arrays:
            used.add(name)
            convert = _from_matconvnet if dialect == "matconvnet" else _from_torch
            leaf, shape = convert(arrays[name], path, leaf.shape, flattened).astype(np.float32), leaf.shape
            if leaf.shape != shape:
                misfits.append(f"{name} {arrays[name].shape}, expected as {shape}")
        elif name != "average_image":
            missing.append(name)
        filled.append(leaf)
    unknown = [name for name in arrays if name not in used and not name.endswith(_IGNORED)]
    _check(missing, misfits, unknown, f"{source}, read with the names of {dialect},")
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
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("safetensors is not installed: pip install 'vexplain[weights]'") from error
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{file} is no whole safetensors file: {error}; fetch it again") from error


def _read_matconvnet(file: Path) -> dict[str, np.ndarray]:
    try:
        from scipy.io import loadmat
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("scipy is not installed: pip install 'vexplain[weights]'") from error
    try:
        content = loadmat(file, squeeze_me=True, struct_as_record=False)
    except NotImplementedError as error:
        raise ValueError(f"{file} is a MATLAB 7.3 file: save it again by save(name, '-v7')") from error
    except Exception as error:  # scipy raises many kinds for broken files
        raise ValueError(f"{file} cannot be read as a MATLAB file: {error}") from error
    content = content.get("net", content)
    layers = content.get("layers") if isinstance(content, dict) else getattr(content, "layers", None)
    if layers is None:
        raise ValueError(f"{file} has no `layers`: expected a network of MatConvNet (SimpleNN)")
    arrays: dict[str, np.ndarray] = {}
    for layer in np.atleast_1d(layers):
        arrays |= _layer_arrays(layer)
    image = _average_image(content)
    return arrays if image is None else arrays | {"average_image": image}


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


def _from_torch(array, path: str, shape: tuple[int, ...], flattened) -> np.ndarray:
    """Kernels (out, in, rows, columns) → (rows, columns, in, out); dense ones on a flattened map likewise."""
    array, (layer, _, leaf) = np.asarray(array), path.rpartition(".")
    if leaf != "kernel":
        return array.reshape(shape) if array.size == np.prod(shape) else array
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
    return array.reshape(shape) if array.size == np.prod(shape) else array


def _foreign_name(path: str, table: Mapping[str, str]) -> str:
    if path in table:
        return table[path]
    layer, _, leaf = path.rpartition(".")
    return f"{table[layer]}.{_LEAVES[leaf]}" if layer in table else "average_image"


def _check(missing: list[str], misfits: list[str], unknown: list[str], what: str) -> None:
    parts = []
    if missing:
        parts.append(f"lacks {_some(missing)}")
    if unknown:
        parts.append(f"has {_some(unknown)}, which this network has not")
    if misfits:
        parts.append(f"has other shapes: {_some(misfits, '; ')}")
    if parts:
        raise ValueError(f"{what} does not fit: it {'; it '.join(parts)}")


def _some(names: list[str], separator: str = ", ") -> str:
    more = len(names) - _SHOWN
    return separator.join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
