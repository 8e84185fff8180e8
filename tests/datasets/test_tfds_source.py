"""Records as batches: the sizes that networks want, encoded images, chosen classes, Grain on both sides."""

import io
import pickle

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vexplain.datasets import (
    ArraySource,
    Resizing,
    Source,
    UnreadableImage,
    decode_image,
    digits_source,
    epoch_batches,
    from_tfds,
    gather,
    image_folder,
    subset,
)
from vexplain.datasets.shape_swap import ShapeSwapSource

NAMES = ("cat", "dog", "owl")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def color_records():
    """Images of four sizes, the class of each, and its content as a file."""
    pixels = [noise(*size, 3, seed=n) for n, size in enumerate([(30, 41), (9, 8), (8, 20), (64, 64)])]
    return [{"image": p, "label": n % 3, "file": encoded(p)} for n, p in enumerate(pixels)]


RECORDS = color_records()


# --- sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resizing", [Resizing(8), Resizing(7, 9, "bicubic"), Resizing(8, 20)])
def test_a_resizing_makes_of_records_what_it_makes_of_files(resizing):
    batch = from_tfds([RECORDS], class_names=NAMES, size=resizing)[np.arange(4)]
    for image, record in zip(batch["images"], RECORDS, strict=True):
        np.testing.assert_array_equal(image, decode_image(record["file"], resizing))
    assert batch["labels"].tolist() == [0, 1, 2, 0]


def test_a_pair_stretches_and_a_resizing_keeps_the_proportions():
    half = np.zeros((4, 8, 3), np.uint8)
    half[:, 2:6] = 255  # the middle square is white
    records = [{"image": half, "label": 0}]
    cut = from_tfds([records], class_names=NAMES, size=Resizing(4))[[0]]["images"]
    stretched = from_tfds([records], class_names=NAMES, size=(4, 4))[[0]]["images"]
    np.testing.assert_array_equal(cut, np.ones((1, 4, 4, 3)))
    assert 0.4 < stretched.mean() < 0.6


def test_masks_are_cut_as_images_are():
    mask = np.zeros((6, 10), bool)
    mask[:, :5] = True
    record = {"image": np.repeat(mask[..., None] * np.uint8(255), 3, -1), "mask": mask, "label": 0}
    for kind in (bool, np.uint8, np.float32):
        scale = 255 if kind == np.uint8 else 1
        records = [{**record, "mask": mask.astype(kind) * kind(scale)}]
        batch = from_tfds([records], class_names=NAMES, mask="mask", size=Resizing(3))[[0]]
        assert batch["masks"].shape == (1, 3, 3)
        np.testing.assert_allclose(batch["masks"], batch["images"][..., 0], atol=1 / 255)


def test_bicubic_stays_in_the_unit_interval():
    record = {"image": np.kron(np.eye(4), np.ones((9, 9))).astype(np.float32), "label": 0}
    image = from_tfds([[record]], class_names=NAMES, size=Resizing(20, None, "bicubic"))[[0]]["images"]
    assert image.shape == (1, 20, 20, 1)
    assert (image.min(), image.max()) == (0, 1)


def test_gray_among_colors_becomes_rgb():
    """TFDS gives (height, width) for a gray JPEG though its features say three channels."""
    gray = {"image": noise(9, 9, seed=7), "label": 1}
    batch = from_tfds([[*RECORDS, gray]], class_names=NAMES, size=Resizing(9))[[4]]
    np.testing.assert_allclose(
        batch["images"][0] * 255, np.repeat(gray["image"][..., None], 3, -1), atol=1e-4
    )


# --- encoded images -----------------------------------------------------------------------------------------


def test_encoded_images_are_decoded():
    source = from_tfds([RECORDS], class_names=NAMES, image="file", size=Resizing(8))
    expected = from_tfds([RECORDS], class_names=NAMES, size=Resizing(8))
    for name, values in expected[np.arange(4)].items():
        np.testing.assert_array_equal(source[np.arange(4)][name], values)
    with pytest.raises(ValueError, match="'file' of record 0 is an encoded image: expected size=Resizing"):
        from_tfds([RECORDS], class_names=NAMES, image="file")


def test_a_broken_record_is_skipped_and_named(caplog):
    records = [*RECORDS, {"file": b"broken", "label": 2}]
    source = from_tfds([records], class_names=NAMES, image="file", size=Resizing(8))
    assert source[np.array([4, 0])]["weights"].tolist() == [0, 1]
    assert "skipped: field 'file' of record 4 cannot be read as an image" in caplog.text
    assert list(source.skipped) == ["field 'file' of record 4"]
    batch_fn, _ = epoch_batches(source, 6)
    assert batch_fn(0)["weights"].tolist() == [1, 1, 1, 1, 0, 0]
    assert len(gather(source)["labels"]) == 4
    settings = {"class_names": NAMES, "image": "file", "size": Resizing(8), "on_unreadable": "raise"}
    with pytest.raises(UnreadableImage, match="record 4 cannot be read"):
        from_tfds([records], **settings)[[4]]


# --- classes ------------------------------------------------------------------------------------------------


def test_classes_are_chosen_over_all_parts():
    parts = [RECORDS[:1], [], RECORDS[1:]]
    source = from_tfds(parts, class_names=NAMES, classes={"owl": "night", "cat": "day"}, size=Resizing(8))
    assert (len(source), source.class_names) == (3, ("night", "day"))
    batch = source[np.arange(3)]
    assert batch["labels"].tolist() == [1, 0, 1]
    assert batch["indices"].tolist() == [0, 1, 2]
    everything = from_tfds(parts, class_names=NAMES, size=Resizing(8))[np.array([0, 2, 3])]
    np.testing.assert_array_equal(batch["images"], everything["images"])
    with pytest.raises(ValueError, match="classes are none: expected at least one"):
        from_tfds(parts, class_names=NAMES, classes=[], size=Resizing(8))


# --- Grain --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Thirty images as TFDS writes MNIST."""
    builder = tfds.builder("mnist", data_dir=tmp_path_factory.mktemp("mnist"), file_format="array_record")
    records = [{"image": io.BytesIO(encoded(noise(28, 28, seed=n))), "label": n % 10} for n in range(30)]
    builder._split_generators = lambda manager: {"train": enumerate(records)}
    builder.download_and_prepare()
    return builder.as_data_source(split="train")


def test_from_tfds_reads_what_grain_serves(digits):
    plain = from_tfds(digits)
    served = from_tfds(grain.MapDataset.source(digits), class_names=plain.class_names)
    assert len(served) == 30
    for name, values in plain[np.arange(30)].items():
        np.testing.assert_array_equal(served[np.arange(30)][name], values)
    turned = grain.MapDataset.source(digits).map(lambda r: {**r, "image": 255 - r["image"]})
    images = from_tfds(turned, class_names=plain.class_names)[np.arange(30)]["images"]
    np.testing.assert_allclose(images, 1 - plain[np.arange(30)]["images"], atol=1e-6)


def test_grain_serves_what_from_tfds_reads(digits):
    source = from_tfds(digits)
    batches = grain.MapDataset.source(source).shuffle(seed=3).batch(7, drop_remainder=True)
    assert len(batches) == 4
    seen = [batches[t] for t in range(4)]
    for batch in seen:
        assert batch["images"].shape == (7, 28, 28, 1)
        expected = source[batch["indices"]]
        np.testing.assert_array_equal(batch["images"], expected["images"])
        np.testing.assert_array_equal(batch["labels"], expected["labels"])
    assert len(set(np.concatenate([batch["indices"] for batch in seen]))) == 28


@pytest.fixture(params=["arrays", "folder", "records", "subset", "digits", "shape_swap"])
def source(request, tmp_path) -> Source:
    if request.param == "folder":
        for n in range(4):
            Image.fromarray(noise(9, 8, 3, seed=n)).save(tmp_path / f"{n}.png")
    arrays = ArraySource(noise(4, 6, 5, 1), np.arange(4) % 3, class_names=NAMES)
    return {
        "arrays": lambda: arrays,
        "folder": lambda: image_folder(tmp_path, size=8),
        "records": lambda: from_tfds([RECORDS], class_names=NAMES, size=Resizing(8)),
        "subset": lambda: subset(arrays, [3, 1, 2]),
        "digits": lambda: digits_source(split="test", size=8),
        "shape_swap": lambda: ShapeSwapSource(0, num_images=3, size=8, samples=1),
    }[request.param]()


def test_every_source_is_a_random_access_source_of_grain(source):
    served = grain.MapDataset.source(source)
    assert len(served) == len(source)
    batch, example = source[np.array([2])], served[2]
    assert set(example) == set(batch)
    for name, values in batch.items():
        assert np.shape(example[name]) == np.shape(values)[1:]
        np.testing.assert_array_equal(np.asarray(example[name]), np.asarray(values)[0])


def test_sources_travel_to_the_processes_of_a_loader(tmp_path):
    Image.fromarray(noise(9, 8, 3)).save(tmp_path / "a.png")
    for source in (image_folder(tmp_path, size=8), from_tfds([RECORDS], class_names=NAMES, size=Resizing(8))):
        copy = pickle.loads(pickle.dumps(source))
        np.testing.assert_array_equal(copy[0]["images"], source[0]["images"])
