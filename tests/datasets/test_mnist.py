"""MNIST's IDX files, and what TFDS prepared of it, made small in their true formats."""

import gzip
import io
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vexplain.datasets import ArraySource, epoch_batches, from_tfds, mnist_folder

NAMES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
PIXELS = {
    split: np.random.default_rng(n).integers(0, 256, (count, 28, 28), np.uint8)
    for n, (split, count) in enumerate((("train", 7), ("test", 3)))
}
LABELS = {"train": [5, 0, 4, 1, 9, 2, 1], "test": [7, 2, 1]}


def idx(values, code=8):
    """The format as its authors describe it: magic, lengths in big-endian order, values."""
    values = np.asarray(values, np.uint8)
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, code, values.ndim, *values.shape)
    return header + values.tobytes()


def write(folder, *, suffix=".gz", separator="-"):
    for split, names in NAMES.items():
        for name, values in zip(names, (PIXELS[split], LABELS[split]), strict=True):
            content = idx(values)
            path = folder / (name.replace("-idx", f"{separator}idx") + suffix)
            path.write_bytes(gzip.compress(content) if suffix else content)
    return folder


@pytest.mark.parametrize(("suffix", "separator"), [(".gz", "-"), ("", "-"), ("", "."), (".gz", ".")])
def test_images_and_labels_are_those_of_the_files(tmp_path, suffix, separator):
    write(tmp_path, suffix=suffix, separator=separator)
    for split in NAMES:
        source = mnist_folder(tmp_path, split=split)
        assert isinstance(source, ArraySource)
        assert source.class_names == tuple("0123456789")
        batch = source[np.arange(len(source))]
        np.testing.assert_allclose(batch["images"][..., 0], PIXELS[split] / 255, atol=1e-7)
        assert batch["labels"].tolist() == LABELS[split]
    assert len(mnist_folder(tmp_path)) == 7


def test_a_name_that_lies_about_compression_does_not_matter(tmp_path):
    write(tmp_path)
    for split in NAMES.values():
        for name in split:
            path = tmp_path / f"{name}.gz"
            path.write_bytes(gzip.decompress(path.read_bytes()))
    assert mnist_folder(tmp_path).labels.tolist() == LABELS["train"]


def test_sets_of_the_same_format_have_their_own_names(tmp_path):
    names = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", *"56789")
    assert mnist_folder(write(tmp_path), class_names=names).class_names == names
    with pytest.raises(ValueError, match="labels go from 0 to 9: class_names has 3 classes"):
        mnist_folder(tmp_path, class_names="abc")


def test_a_missing_file_says_which_four_and_where_from(tmp_path):
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    assert len(mnist_folder(tmp_path)) == 7
    with pytest.raises(FileNotFoundError) as error:
        mnist_folder(tmp_path, split="test")
    message = str(error.value)
    assert f"path is {str(tmp_path)!r}: there is no t10k-labels-idx1-ubyte.gz in it" in message
    assert all(f"{name}.gz" in message for pair in NAMES.values() for name in pair)
    assert "https://storage.googleapis.com/cvdf-datasets/mnist/" in message
    with pytest.raises(FileNotFoundError, match="there is no train-images-idx3-ubyte"):
        mnist_folder(tmp_path / "none")


GOOD = idx(PIXELS["train"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train-images-idx3-ubyte begins with the bytes \(none\): expected 00 00 08 03"),
        (
            b"<html>not found",
            "begins with the bytes 3c 68 74 6d: expected 00 00 08 03, an IDX file of 3 axes",
        ),
        (idx(LABELS["train"]), "begins with the bytes 00 00 08 01: expected 00 00 08 03"),
        (idx(PIXELS["train"], code=13), "begins with the bytes 00 00 0d 03"),
        (GOOD[:9], "ends within its header: it was cut off"),
        (GOOD[:-5], r"holds 5483 values: expected 5488, 7 × 28 × 28; it was cut off or changed, download"),
        (GOOD + b"x", "holds more than 5488 values: expected 5488"),
        (gzip.compress(GOOD)[:-300], "cannot be decompressed, it was cut off or changed: .*; download"),
        (gzip.compress(GOOD)[:40] + b"\0" * 99, "cannot be decompressed"),
        (idx(PIXELS["train"][:6]), "has 6 images and .*labels-idx1-ubyte 7 labels: they are of different"),
    ],
)
def test_files_that_are_not_the_published_ones_are_named(tmp_path, content, message):
    write(tmp_path, suffix="")
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        mnist_folder(tmp_path)


def test_what_tfds_prepared_is_read(tmp_path):
    """By the builder of TFDS itself, whose download is replaced by the records above."""
    builder = tfds.builder("mnist", data_dir=tmp_path, file_format="array_record")

    def records(split):
        for index, (pixels, label) in enumerate(zip(PIXELS[split], LABELS[split], strict=True)):
            content = io.BytesIO()
            Image.fromarray(pixels).save(content, "PNG")
            content.seek(0)
            yield index, {"image": content, "label": label}

    builder._split_generators = lambda manager: {split: records(split) for split in NAMES}
    builder.download_and_prepare()
    read = tfds.builder("mnist", data_dir=tmp_path, file_format="array_record")
    for split in NAMES:
        source = from_tfds(read.as_data_source(split=split))
        assert source.class_names == tuple("0123456789")
        batch = epoch_batches(source, len(LABELS[split]))[0](0)
        order = [
            int(np.flatnonzero(np.abs(PIXELS[split] / 255 - image[..., 0]).max((1, 2)) < 1e-6)[0])
            for image in batch["images"]
        ]
        assert sorted(order) == list(range(len(order)))  # TFDS shuffles
        assert batch["labels"].tolist() == [LABELS[split][n] for n in order]


def test_no_more_is_decompressed_than_the_header_says(tmp_path):
    """3 MB that would become 3 GB, with a true and with a lying header."""
    zeros = gzip.compress(bytes(2**20)) * 64
    for shape, message in (((3, 28, 28), "more than 2352 values"), ((2**16, 2**8, 2**8), "raise max_bytes")):
        header = gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", *shape))
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(header + zeros)
        (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"")
        with pytest.raises(ValueError, match=rf"train-images.*{message}"):
            mnist_folder(tmp_path)
