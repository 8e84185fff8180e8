"""The published cue-conflict images: a small tree of the same names, and what is wrong with others."""

import numpy as np
import pytest
from PIL import Image

from vexplain.datasets import cue_conflict_folder, epoch_batches, imagenet_categories, subset

FILES = ("airplane1-bicycle2", "airplane10-airplane1", "cat3-elephant2", "truck2-oven3", "truck7-cat1")


@pytest.fixture
def folder(tmp_path):
    for n, name in enumerate(FILES):
        save(tmp_path / name.rstrip("0123456789").split("-")[0].rstrip("0123456789") / f"{name}.png", 40 * n)
    return tmp_path


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 6), (value, value, value)).save(path)


def test_names_tell_both_cues(folder):
    source, names = cue_conflict_folder(folder, size=4), list(imagenet_categories())
    assert source.class_names == tuple(names)
    batch = source[np.arange(len(FILES))]
    found = {
        round(float(image.mean()) * 255 / 40): (names[shape], names[texture])
        for image, shape, texture in zip(batch["images"], batch["shapes"], batch["textures"], strict=True)
    }
    assert found == {
        0: ("airplane", "bicycle"),
        1: ("airplane", "airplane"),
        2: ("cat", "elephant"),
        3: ("truck", "oven"),
        4: ("truck", "cat"),
    }
    np.testing.assert_array_equal(batch["labels"], batch["shapes"])
    assert batch["images"].shape == (5, 4, 4, 3)
    assert subset(source, [3])[[0]]["textures"].tolist() == [names.index("oven")]


def test_a_broken_file_has_no_weight(folder):
    (folder / "cat/cat3-elephant2.png").write_bytes(b"")
    batches, _ = epoch_batches(cue_conflict_folder(folder, size=4), 5)
    assert batches(0)["weights"].tolist() == [1, 1, 0, 1, 1]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cat/cat1.png", r"in the folder of 'cat', expected a name such as cat1-airplane2.png"),
        ("cat/dog1-cat2.png", "in the folder of 'cat'"),
        ("cat/cat1-zebra2.png", "in the folder of 'cat'"),
        ("zebra/zebra1-cat2.png", "it has a folder 'zebra', expected some of airplane, bear"),
    ],
)
def test_other_files_are_named(folder, name, message):
    save(folder / name, 0)
    with pytest.raises(ValueError, match=message):
        cue_conflict_folder(folder, size=4)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        cue_conflict_folder(tmp_path / "stimuli", size=4)
