"""ImageNet from small archives of the published form, from TFDS' own builder, and its cats."""

import io
from importlib import resources

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.files.archives import packed
from vexplain.datasets import (
    IMAGENET_CATS,
    Resizing,
    class_folders,
    from_tfds,
    gather,
    imagenet_archives,
    imagenet_synsets,
)

TFDS_FILES = resources.files("tensorflow_datasets") / "datasets/imagenet2012"
SYNSETS = ("n02123045", "n01440764", "n15075141", "n02130308")  # tabby, tench, toilet tissue, cheetah
LABELS = (281, 0, 999, 293)  # as every list of ImageNet's classes has them
SIZE = Resizing(8, 10)


def jpeg(value, size=(17, 12), mode="RGB"):
    content = io.BytesIO()
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(content, "JPEG")
    return content.getvalue()


def training_files(number):
    """Of each class three photographs as bright as 60 · class + 10 · photograph, one of them gray."""
    values = {n: 60 * number + 10 * n for n in range(3)}
    return {f"{SYNSETS[number]}_{n}.JPEG": jpeg(v, mode="L" if n == 1 else "RGB") for n, v in values.items()}


def training_tars():
    return {f"{synset}.tar": packed(training_files(n)) for n, synset in enumerate(SYNSETS)}


def validation_name(number):
    return f"ILSVRC2012_val_{number:08}.JPEG"


@pytest.fixture
def archives(tmp_path):
    (tmp_path / "ILSVRC2012_img_train.tar").write_bytes(packed(training_tars()))
    numbers = (3, 50_000, 1, 2)  # a tar is in no order
    files = {validation_name(n): jpeg(n % 251) for n in numbers}
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(packed(files))
    return tmp_path


def brightness(images):
    return np.asarray(images)[:, 4, 4, 0] * 255


def test_training_images_have_the_label_of_their_synset(archives):
    source = imagenet_archives(archives, size=SIZE)
    assert source.class_names == imagenet_synsets()
    batch = source[np.arange(12)]
    assert batch["images"].shape == (12, 8, 8, 3)
    numbers = np.array([LABELS.index(label) for label in batch["labels"].tolist()])
    assert batch["labels"].tolist() == sorted(LABELS * 3)
    np.testing.assert_allclose(brightness(batch["images"]), 60 * numbers + 10 * (np.arange(12) % 3), atol=2)
    assert str(source.files[3]) == f"{archives}/ILSVRC2012_img_train.tar/n02123045/n02123045_0.JPEG"
    assert source[3]["labels"] == 281


def test_an_archive_in_an_archive_and_folders_give_the_same_pixels(archives, tmp_path):
    for number, synset in enumerate(SYNSETS):
        for name, content in training_files(number).items():
            path = tmp_path / "extracted" / synset / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    extracted = class_folders(tmp_path / "extracted", size=SIZE)
    archived = imagenet_archives(archives, size=SIZE)
    np.testing.assert_array_equal(gather(extracted)["images"], gather(archived)["images"])


def test_validation_images_have_the_published_labels(archives):
    source = imagenet_archives(archives, split="validation", size=8)
    batch = source[np.arange(4)]
    np.testing.assert_allclose(brightness(batch["images"]), [1, 2, 3, 50_000 % 251], atol=2)
    lines = (TFDS_FILES / "validation_labels.txt").read_text().splitlines()
    names = [imagenet_synsets()[label] for label in batch["labels"]]
    assert names == [lines[0], lines[1], lines[2], lines[-1]]
    assert names[:2] == ["n01751748", "n09193705"]  # of the first two images of ImageNet's own ground truth


def test_headers_are_read_once(archives, tmp_path):
    for _ in range(2):
        imagenet_archives(archives, size=8, index_folder=tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["ILSVRC2012_img_train.tar.index.npz"]
    one = imagenet_archives(archives / "ILSVRC2012_img_train.tar", size=8)
    assert len(one) == 12


def test_a_broken_photograph_is_skipped_and_named(archives, caplog):
    tars = training_tars()
    files = training_files(0) | {f"{SYNSETS[0]}_1.JPEG": b"broken"}
    (archives / "ILSVRC2012_img_train.tar").write_bytes(packed(tars | {f"{SYNSETS[0]}.tar": packed(files)}))
    source = imagenet_archives(archives, size=8)
    assert np.flatnonzero(source[np.arange(12)]["weights"] == 0).tolist() == [4]
    name = f"{archives}/ILSVRC2012_img_train.tar/n02123045/n02123045_1.JPEG"
    assert list(source.skipped) == [name]
    assert f"skipped: {name} cannot be read as an image" in caplog.text
    assert len(gather(source)["labels"]) == 11


# --- classes ------------------------------------------------------------------------------------------------


def test_the_synsets_are_sorted_and_cats_lie_together_among_them():
    synsets = imagenet_synsets()
    assert synsets == tuple(sorted(set(synsets)))
    assert len(synsets) == 1000
    assert [synsets.index(cat) for cat in IMAGENET_CATS] == list(range(281, 294))


def test_cats_are_found_in_the_archive(archives):
    files = training_tars()
    tars = {f"{cat}.tar": packed({f"{cat}_7.JPEG": jpeg(10 * n)}) for n, cat in enumerate(IMAGENET_CATS)}
    (archives / "ILSVRC2012_img_train.tar").write_bytes(packed(files | tars))
    source = imagenet_archives(archives, size=8, classes=IMAGENET_CATS)
    assert len(source) == len(IMAGENET_CATS) == 13
    assert source.class_names[0] == "tabby"
    batch = source[np.arange(13)]
    assert batch["labels"].tolist() == list(range(13))
    np.testing.assert_allclose(brightness(batch["images"]), 10 * np.arange(13), atol=2)


def test_classes_have_the_order_in_which_they_are_given(archives):
    source = imagenet_archives(archives, size=8, classes=["n15075141", "n01440764"])
    assert source.class_names == ("n15075141", "n01440764")
    batch = source[np.arange(6)]
    assert batch["labels"].tolist() == [1, 1, 1, 0, 0, 0]
    np.testing.assert_allclose(brightness(batch["images"])[[0, 3]], [60, 120], atol=2)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["tabby"], "classes: ILSVRC2012 has no tabby; expected names such as 'n01440764'"),
        (
            ["n01440764", "n01440764"],
            "classes are n01440764, n01440764: expected at least one, and each once",
        ),
        ([], "classes are none: expected at least one"),
        (IMAGENET_CATS, "has no image of n02123159, n02123394"),
    ],
)
def test_classes_that_are_not_there_are_named(archives, classes, message):
    with pytest.raises(ValueError, match=message):
        imagenet_archives(archives, size=8, classes=classes)


def test_a_missing_archive_says_where_to_get_it(archives, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no ILSVRC2012_img_val\.tar; log in at https://image-net\.o"
    ):
        imagenet_archives(tmp_path / "none", split="validation", size=8)
    with pytest.raises(FileNotFoundError, match=r"there is no ILSVRC2012_img_val\.tar"):
        imagenet_archives(archives / "ILSVRC2012_img_train.tar", split="validation", size=8)


@pytest.mark.parametrize(
    ("split", "archive", "files", "message"),
    [
        ("train", "train", {"n1.tar": packed({"a.JPEG": b""})}, "one tar for each class, .* found n1 in it"),
        ("train", "train", {"a.JPEG": b""}, "one tar for each class, .* found none in it"),
        (
            "validation",
            "val",
            {"a.JPEG": b""},
            r"it holds a\.JPEG, expected names from ILSVRC2012_val_00000001",
        ),
        ("validation", "val", {validation_name(50_001): b""}, "to ILSVRC2012_val_00050000"),
        ("validation", "val", {validation_name(0): b""}, "it holds ILSVRC2012_val_00000000"),
        ("validation", "val", {}, "has no image of any class"),
    ],
)
def test_other_archives_are_refused(tmp_path, split, archive, files, message):
    (tmp_path / f"ILSVRC2012_img_{archive}.tar").write_bytes(packed(files))
    with pytest.raises(ValueError, match=message):
        imagenet_archives(tmp_path, split=split, size=8)


# --- prepared by TFDS ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """TFDS' own builder, its features and its reading of the training archive; only the search for files,
    which needs TensorFlow, is replaced."""
    folder = tmp_path_factory.mktemp("imagenet2012")
    builder = tfds.builder("imagenet2012", data_dir=folder, file_format="array_record")
    tars = [(name, io.BytesIO(content)) for name, content in training_tars().items()]
    builder._split_generators = lambda manager: {"train": builder._generate_examples(archive=tars)}
    builder.download_and_prepare()
    return tfds.builder("imagenet2012", data_dir=folder, file_format="array_record")


@pytest.mark.parametrize("decoding", [True, False])
def test_what_tfds_prepared_is_what_the_archive_holds(prepared, archives, decoding):
    decoders = None if decoding else {"image": tfds.decode.SkipDecoding()}
    records = prepared.as_data_source(split="train", decoders=decoders)
    source = from_tfds(records, size=SIZE)
    assert source.class_names == imagenet_synsets()
    names = [f"{record['file_name'].decode()[:9]}/{record['file_name'].decode()}" for record in records]
    archived = imagenet_archives(archives, size=SIZE)
    places = {member.name: place for place, member in enumerate(archived.files)}
    expected = archived[np.array([places[name] for name in names])]
    batch = source[np.arange(12)]
    for name in ("images", "labels", "weights"):
        np.testing.assert_array_equal(batch[name], expected[name])


@pytest.mark.parametrize("decoding", [True, False])
def test_classes_of_what_tfds_prepared(prepared, decoding):
    decoders = None if decoding else {"image": tfds.decode.SkipDecoding()}
    records = prepared.as_data_source(split="train", decoders=decoders)
    chosen = {"n02130308": "cheetah", "n02123045": "tabby"}
    source = from_tfds(records, size=SIZE, classes=chosen)
    assert (len(source), source.class_names) == (6, ("cheetah", "tabby"))
    batch = source[np.arange(6)]
    assert sorted(np.round(brightness(batch["images"][batch["labels"] == 0]), -1)) == [180, 190, 200]
    assert sorted(np.round(brightness(batch["images"][batch["labels"] == 1]), -1)) == [0, 10, 20]
    with pytest.raises(ValueError, match="classes: the records have no image of n02123159, n02123394"):
        from_tfds(records, size=SIZE, classes=IMAGENET_CATS)
    with pytest.raises(ValueError, match="classes: the records know no cat"):
        from_tfds(records, size=SIZE, classes=["cat"])
