"""Small valid files of every format that is read, and how each is read to its end."""

import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from scipy.io import savemat

from tests.files.archives import packed
from vexplain._files import read_json
from vexplain.classifiers import read_weights
from vexplain.datasets import Resizing, Shapes3DSource, decode_image, mnist_folder
from vexplain.datasets.tar_files import tar_members
from vexplain.relevance import Relevance, load_relevance, save_relevance
from vexplain.streaming import Checkpoint, fold

MNIST_LABELS = "train-labels-idx1-ubyte"


@dataclasses.dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        file: its name, with the folder; what an error must hold.
        write: makes the valid file, or files, in a folder.
        read: reads the file of a folder to its end, and checks what comes out.
    """

    file: str
    write: Callable[[Path], Any]
    read: Callable[[Path], Any]


def _image(suffix: str, mode: str = "RGB") -> Format:
    def write(folder):
        pixels = np.random.default_rng(0).integers(0, 256, (23, 17, 4), np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"image.{suffix}")

    def read(folder):
        image = decode_image(str(folder / f"image.{suffix}"), Resizing(8))
        assert image.shape == (8, 8, 3)
        assert 0 <= image.min() <= image.max() <= 1

    return Format(f"image.{suffix}", write, read)


def _write_tar(folder, *, nested=False):
    files = {f"{n}.png": bytes(200 * n) for n in range(1, 4)}
    content = packed({"a.tar": packed(files), "b.tar": packed(files)} if nested else files)
    (folder / "archive.tar").write_bytes(content)


def _read_tar(folder, *, nested=False):
    (folder / "archive.tar.index.npz").unlink(missing_ok=True)
    for member in tar_members(folder / "archive.tar", nested=nested):
        assert len(member.read_bytes()) <= member.size


def _write_index(folder):
    _write_tar(folder)
    tar_members(folder / "archive.tar")


def _write_mnist(folder, *, pack=bytes):
    header = bytes([0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 28, 0, 0, 0, 28])
    (folder / "train-images-idx3-ubyte").write_bytes(pack(header + bytes(range(256)) * 15 + bytes(80)))
    (folder / MNIST_LABELS).write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 5, 0, 1, 2, 3, 4]))


def _read_mnist(folder):
    source = mnist_folder(folder)
    assert source[[0]]["images"].shape == (1, *source.images.shape[1:])


def _write_shapes(folder):
    with h5py.File(folder / "3dshapes.h5", "w") as file:
        file.create_dataset(
            "images", data=np.zeros((8, 4, 4, 3), np.uint8), chunks=(2, 4, 4, 3), compression=4
        )
        file.create_dataset("labels", data=np.arange(48.0).reshape(8, 6) % 4)


def _read_shapes(folder):
    source = Shapes3DSource(folder / "3dshapes.h5", 0)
    assert len(source[np.arange(len(source))]["images"]) == len(source)


def _write_mat(folder):
    layers = np.empty(2, object)
    for n in range(2):
        weights = np.empty(2, object)
        weights[:] = [np.ones((3, 3, 2, 4), np.float32), np.zeros(4, np.float32)]
        layers[n] = {"type": "conv", "name": f"conv{n}", "weights": weights}
    savemat(folder / "net.mat", {"layers": layers}, do_compression=True)


def _write_relevance(folder):
    weights = np.array([[0.5, 0.0], [0.0, 1.0], [0.25, 0.0]])
    relevance = Relevance(weights, np.zeros(2), np.zeros(2), np.float64(1), (("conv_1", 3),), ("cat", "dog"))
    save_relevance(relevance, folder / "relevance.npz")


def _write_checkpoint(folder):
    fold(_added, np.zeros(3, np.float32), _batch, num_steps=2, checkpoint=Checkpoint(folder / "state"))


def _read_checkpoint(folder):
    found = fold(
        _added, np.zeros(3, np.float32), _batch, num_steps=2, checkpoint=Checkpoint(folder / "state")
    )
    assert found.shape == (3,)


def _added(state, batch):
    return state + batch["x"].sum()


def _batch(t):
    return {"x": np.ones(2, np.float32)}


def _numbers(read):
    def checked(folder):
        for array in read(folder).values():
            assert array.dtype.kind in "fiubV"

    return checked


FORMATS = {
    **{suffix: _image(suffix) for suffix in ("png", "jpg", "bmp", "ppm", "tif", "webp")},
    "gif": _image("gif", "P"),
    "png-alpha": _image("png", "RGBA"),
    "tar": Format("archive.tar", _write_tar, _read_tar),
    "tar-of-tars": Format(
        "archive.tar", functools.partial(_write_tar, nested=True), functools.partial(_read_tar, nested=True)
    ),
    "tar-index": Format("archive.tar.index.npz", _write_index, lambda f: tar_members(f / "archive.tar")),
    "idx": Format("train-images-idx3-ubyte", _write_mnist, _read_mnist),
    "idx-gz": Format(
        "train-images-idx3-ubyte",
        functools.partial(_write_mnist, pack=__import__("gzip").compress),
        _read_mnist,
    ),
    "safetensors": Format(
        "w.safetensors",
        lambda f: save_file({"a": np.ones((3, 4), np.float32), "b": np.zeros(5)}, f / "w.safetensors"),
        _numbers(lambda f: read_weights(f / "w.safetensors")),
    ),
    "mat": Format("net.mat", _write_mat, _numbers(lambda f: read_weights(f / "net.mat"))),
    "hdf5": Format("3dshapes.h5", _write_shapes, _read_shapes),
    "npz": Format("relevance.npz", _write_relevance, lambda f: load_relevance(f / "relevance.npz")),
    "json": Format(
        "results.json",
        lambda f: (f / "results.json").write_text(json.dumps({"images": [1, 2.5, None], "name": "ü"})),
        lambda f: read_json(f / "results.json"),
    ),
    "checkpoint": Format("state", _write_checkpoint, _read_checkpoint),
}
