"""No way of reading data imports TensorFlow, or TFDS before it is asked for: seen in a process of its own."""

import gzip
import io
import struct
import subprocess
import sys
import tarfile

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

IN_A_FRESH_PROCESS = """
import sys
from pathlib import Path

class Witness:  # of who asks for TensorFlow, also where it is not installed; TFDS looks whether it is there
    asked = []

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            self.asked.append(name)

sys.meta_path.insert(0, Witness())
import numpy as np
from vexplain import datasets

folder, size = Path(sys.argv[1]), datasets.Resizing(8, 9)
sources = {
    "image_folder": datasets.image_folder(folder / "photos", size=size),
    "class_folders": datasets.class_folders(folder / "photos", size=size),
    "mnist_folder": datasets.mnist_folder(folder),
    "digits": datasets.digits_source(size=8),
    "train": datasets.imagenet_archives(folder, size=size),
    "validation": datasets.imagenet_archives(folder, split="validation", size=size),
}
for name, source in sources.items():
    assert source[np.array([0])]["images"].max() > 0.1, name
assert "tensorflow_datasets" not in sys.modules
assert not Witness.asked

import grain
import tensorflow_datasets as tfds

for name in ("mnist", "imagenet2012"):
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    records = builder.as_data_source(split="train")
    sources[name] = datasets.from_tfds(records, size=size)
    served = grain.MapDataset.source(records)
    sources[f"{name} by Grain"] = datasets.from_tfds(served, size=size, class_names=["any"] * 1000)
    undecoded = builder.as_data_source(split="train", decoders={"image": tfds.decode.SkipDecoding()})
    sources[f"{name} undecoded"] = datasets.from_tfds(undecoded, size=size)
for name, source in sources.items():
    assert source[np.array([0])]["images"].max() > 0.1, name
assert "tensorflow" not in sys.modules

def message(read):
    try:
        read()
    except ValueError as error:
        return str(error)

# What a type checker would refuse is explained to those who use none.
for read in (datasets.mnist_folder, datasets.imagenet_archives, datasets.digits_source):
    arguments = () if read is datasets.digits_source else (folder,)
    settings = {"size": size} if read is datasets.imagenet_archives else {}
    assert "split is 'dev': expected" in message(lambda: read(*arguments, split="dev", **settings))
assert "interpolation is 'nearest': expected one of" in message(lambda: datasets.Resizing(8, 9, "nearest"))
wrong = {"size": size, "on_unreadable": "stop"}
for read, data in ((datasets.image_folder, folder / "photos"), (datasets.from_tfds, records)):
    assert "on_unreadable is 'stop': expected" in message(lambda: read(data, **wrong))
"""


def encoded(kind, *shape):
    content = io.BytesIO()
    Image.fromarray(np.full(shape, 200, np.uint8)).save(content, kind)
    return content.getvalue()


def packed(name, data):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def prepare(folder, name, records):
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    builder._split_generators = lambda manager: {"train": enumerate(records)}
    builder.download_and_prepare()


def test_nothing_that_reads_data_needs_tensorflow(tmp_path):
    photo, digit = encoded("JPEG", 12, 15, 3), encoded("PNG", 28, 28)
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/1.jpg").write_bytes(photo)
    images = struct.pack(">4B3I", 0, 0, 8, 3, 1, 2, 2) + bytes([0, 255, 0, 51])
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 1) + b"\7")
    class_tar = packed("n02123045_1.JPEG", photo)
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(packed("n02123045.tar", class_tar))
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(packed("ILSVRC2012_val_00000001.JPEG", photo))
    prepare(tmp_path, "mnist", [{"image": io.BytesIO(digit), "label": 3}])
    record = {"image": io.BytesIO(photo), "label": "n02123045", "file_name": "n02123045_1.JPEG"}
    prepare(tmp_path, "imagenet2012", [record])
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
