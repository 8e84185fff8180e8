"""The TFDS builders: what is read is what was rendered or released, in clean folds, without TensorFlow."""

import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vexplain.datasets import epoch_batches, from_tfds
from vexplain.datasets.an8flower import RenderedSource, fold_indices, fold_of
from vexplain.datasets.an8flower_release import An8flowerRelease, fold_of_rendering, views
from vexplain.datasets.an8flower_rendered import An8flowerRendered, RenderedConfig
from vexplain.streaming import fold
from vexplain.streaming.devices import data_mesh

FOLDS = [f"fold_{n}" for n in range(5)]
RENDERINGS = (1, 2, 4, 8, 11)  # one a fold
HEIGHT, WIDTH = 7, 10
IN_A_FRESH_PROCESS = """
import sys
from vexplain.datasets import from_tfds
assert "tensorflow_datasets" not in sys.modules
from vexplain.datasets.an8flower import RenderedSource
from vexplain.datasets.an8flower_rendered import An8flowerRendered, RenderedConfig
source = RenderedSource("single_6c", num_per_class=5, size=16, samples=1)
builder = An8flowerRendered(config=RenderedConfig(source=source), data_dir=sys.argv[1])
builder.download_and_prepare()
assert len(from_tfds(builder.as_data_source(split="fold_0+fold_1"))[[0, 1]]["images"]) == 2
assert "tensorflow" not in sys.modules
"""


def rendered(variant="single_6c", **settings):
    return RenderedSource(variant, **{"num_per_class": 5, "size": 16, "samples": 1, **settings})


def prepared(source, data_dir):
    builder = An8flowerRendered(config=RenderedConfig(source=source), data_dir=data_dir)
    builder.download_and_prepare()
    return builder


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def single(data_dir):
    return prepared(rendered(), data_dir)


def drawn(source, indices):
    """Rendered directly, 64 at once as in the builder, so that nothing is compiled anew."""
    return {name: np.asarray(v)[: len(indices)] for name, v in source[np.resize(indices, 64)].items()}


def records_equal(records, source):
    batch = drawn(source, [record["index"] for record in records])
    for record, image, mask, label in zip(
        records, batch["images"], batch["masks"], batch["labels"], strict=True
    ):
        np.testing.assert_array_equal(record["image"], np.round(image * 255))
        np.testing.assert_array_equal(record["mask"][..., 0], np.round(mask * 255))
        assert record["label"] == label


@pytest.mark.parametrize("variant", ["single_6c", "double_12c"])
def test_what_is_read_is_what_was_rendered(variant, data_dir):
    source = rendered(variant)
    builder = prepared(source, data_dir)
    splits = builder.as_data_source()
    assert sorted(splits) == FOLDS
    records = [record for name in FOLDS for record in splits[name]]
    records_equal(records, source)
    assert sorted(int(record["index"]) for record in records) == list(range(len(source)))
    assert builder.info.features["label"].names == list(source.class_names)
    assert builder.info.metadata["num_per_class"] == 5


def test_folds_are_those_of_the_keys(single):
    keys = single.source.keys(np.arange(30))
    for n, name in enumerate(FOLDS):
        found = [(int(r["index"]), int(r["fold"])) for r in single.as_data_source(split=name)]
        assert found
        assert all(fold_of(keys[index]) == n == fold_number for index, fold_number in found)
        train = single.as_data_source(split="+".join(set(FOLDS) - {name}))
        assert sorted(int(r["index"]) for r in train) == fold_indices(single.source, n)[0].tolist()


def stored(builder, split):
    """The records with their images as PNG bytes. (Protobuf orders the fields anew in each process.)"""
    as_bytes = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
    return list(builder.as_data_source(split=split, decoders=as_bytes))


def test_no_tensorflow_and_the_same_bytes_again(single, tmp_path):
    command = [sys.executable, "-W", "error", "-c", IN_A_FRESH_PROCESS, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    again = An8flowerRendered(config=single.builder_config, data_dir=tmp_path)
    assert again.is_prepared()
    for name in FOLDS:
        assert stored(again, name) == stored(single, name)
    assert stored(again, "fold_0")[0]["mask"].startswith(b"\x89PNG")


def test_another_seed_draws_another_set_into_another_folder(single, data_dir):
    other = prepared(rendered(seed=1), data_dir)
    assert other.data_dir != single.data_dir
    assert (
        other.info.full_name == "an8flower_rendered/single_6c-num_per_class_5-size_16-samples_1-seed_1/1.0.0"
    )
    ours, theirs = (b.as_data_source(split="fold_0")[0]["image"] for b in (single, other))
    assert not np.array_equal(ours, theirs)


def test_tfds_knows_the_builders_by_name(single, data_dir):
    name = f"an8flower_rendered/{single.builder_config.name}"
    by_name = tfds.data_source(name, split="fold_2", data_dir=data_dir, download=False)
    records_equal(list(by_name), single.source)
    usual = tfds.builder("an8flower_rendered/double_12c", data_dir=data_dir)
    assert usual.source == RenderedSource("double_12c", num_per_class=1000, size=112, samples=3)
    assert usual.info.file_format.value == "array_record"
    same = An8flowerRendered(config=RenderedConfig(source=RenderedSource("double_12c")), data_dir=data_dir)
    assert same.data_dir == usual.data_dir
    assert tfds.builder("an8flower_release", data_dir=data_dir).variant == "single_6c"


def test_an_interrupted_preparation_leaves_nothing_to_read(monkeypatch, tmp_path):
    calls = []

    def interrupted(self, indices):
        calls.append(indices)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render(self, indices)

    render = RenderedSource.__getitem__
    with monkeypatch.context() as patched:
        patched.setattr(RenderedSource, "__getitem__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared(rendered(), tmp_path)
    killed = next(tmp_path.glob("*/single_6c-*")) / "incomplete.ABCDEF_1.0.0"
    assert list(killed.parent.iterdir()) == []
    killed.mkdir()
    (killed / "an8flower_rendered-fold_0.array_record-00000-of-00001").write_bytes(b"half")
    builder = prepared(rendered(), tmp_path)
    records_equal(list(builder.as_data_source(split="fold_3")), builder.source)


def test_a_fold_without_an_image_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"num_per_class is 1: no image falls into the folds \[.*ask for more"
    ):
        prepared(rendered(num_per_class=1), tmp_path)


# --- the original release -------------------------------------------------------------------------------


def draw_release(root, num_classes=6, *, variant="single_6c", suffix=".png", mask_mode="L"):
    """The known format, in small: a class folder, a parallel folder of masks, two views of each rendering."""
    generator = np.random.default_rng(0)
    for label in range(1, num_classes + 1):
        for rendering in RENDERINGS:
            for view in ("p1_r1", "p3_r5"):
                name = f"class{label}_img{rendering}_{view}"
                pixels = generator.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
                mask = np.zeros((HEIGHT, WIDTH), np.uint8)
                mask[label % HEIGHT, rendering % WIDTH :] = 255
                folder = root / f"an8Flower_{variant}" / f"flower{label}"
                save(Image.fromarray(pixels), folder / f"{name}.jpg")
                parallel = root / f"an8Flower_{variant}_MASK" / f"flower{label}"
                save(Image.fromarray(mask).convert(mask_mode), parallel / f"{name}{suffix}")
    return root


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def prepare_release(manual_dir, data_dir, variant="single_6c"):
    builder = An8flowerRelease(config=variant, data_dir=data_dir)
    settings = tfds.download.DownloadConfig(manual_dir=manual_dir)
    builder.download_and_prepare(download_config=settings)
    return builder


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return draw_release(tmp_path_factory.mktemp("release"))


@pytest.fixture
def copy(release, tmp_path):
    return Path(shutil.copytree(release, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("variant", "num_classes", "suffix"), [("single_6c", 6, ".png"), ("double_12c", 12, ".JPG")]
)
def test_the_release_is_read_as_it_is(variant, num_classes, suffix, tmp_path):
    root = draw_release(tmp_path / "downloads" / "manual", num_classes, variant=variant, suffix=suffix)
    builder = An8flowerRelease(config=variant, data_dir=tmp_path)
    builder.download_and_prepare()
    seen = {}
    for n, name in enumerate(FOLDS):
        for record in builder.as_data_source(split=name):
            file = record["name"].decode()
            assert record["fold"] == n == fold_of_rendering(int(record["rendering"]))
            assert f"_img{record['rendering']}_" in file
            folder = f"flower{record['label'] + 1}"
            original = root / f"an8Flower_{variant}" / folder / f"{file}.jpg"
            mask = root / f"an8Flower_{variant}_MASK" / folder / f"{file}{suffix}"
            np.testing.assert_array_equal(record["image"], np.asarray(Image.open(original)))
            np.testing.assert_array_equal(record["mask"][..., 0], np.asarray(Image.open(mask)))
            seen[file] = n
    assert len(seen) == num_classes * len(RENDERINGS) * 2


def test_views_of_a_rendering_share_a_fold(release):
    found = views(release, "single_6c")
    folds = {}
    for view in found:
        folds.setdefault(view.rendering, set()).add(view.fold)
    assert all(len(numbers) == 1 for numbers in folds.values())
    assert set.union(*folds.values()) == set(range(5))


def test_details_that_are_not_known_do_not_matter(release, tmp_path):
    other = draw_release(tmp_path / "other", suffix="_mask.PNG", mask_mode="RGB")
    (other / "an8Flower_single_6c").rename(other / "AN8flower_Single_6c")
    image = next((other / "AN8flower_Single_6c").rglob("class2_img4_p1_r1.jpg"))
    image.rename(image.with_name("Class2_IMG04_p1_r1.JPG"))
    mask = next(other.rglob("class2_img4_p1_r1_mask.PNG"))
    mask.rename(mask.with_name("class2_img04_P1_r1.png"))
    for junk in (".DS_Store", "._class1_img1_p1_r1.jpg", "readme.txt"):
        (image.parent / junk).write_text("junk")
    plain, odd = (views(root, "single_6c") for root in (release, other))
    assert sorted((v.label, v.rendering) for v in plain) == sorted((v.label, v.rendering) for v in odd)
    gray = next(other.rglob("class3_img8_p1_r1.jpg"))
    Image.open(gray).convert("L").save(gray)
    mask = next(other.rglob("class3_img8_p1_r1_mask.PNG"))
    blue = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    blue[2:, 1:, 2] = 255
    Image.fromarray(blue).save(mask)
    builder = prepare_release(other, tmp_path / "data")
    records = builder.as_data_source(split=f"fold_{fold_of_rendering(8)}")
    record = next(r for r in records if r["name"] == b"class3_img8_p1_r1")
    assert record["image"].shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(record["mask"][..., 0], blue[..., 2])


def test_a_missing_release_says_where_to_get_it_and_where_to_put_it(tmp_path):
    expected = r"(?s)empty.*visualExplanationByInterpretation.*an8Flower_single_6c_MASK"
    with pytest.raises(FileNotFoundError, match=expected) as error:
        prepare_release(tmp_path / "manual", tmp_path)
    assert str(tmp_path / "manual") in str(error.value)
    draw_release(tmp_path / "manual", variant="double_12c")
    with pytest.raises(
        FileNotFoundError, match=r"(?s)an8Flower_single_6c is not a folder in .*Download"
    ) as error:
        prepare_release(tmp_path / "manual", tmp_path)
    assert str(tmp_path / "manual") in str(error.value)
    assert not An8flowerRelease(config="single_6c", data_dir=tmp_path).is_prepared()


def move(name, new):
    def change(root):
        path = next(root.rglob(name))
        path.rename(path.with_name(new))

    return change


def remove(pattern):
    def change(root):
        for path in root.rglob(pattern):
            path.unlink()

    return change


def both(*changes):
    return lambda root: [change(root) for change in changes]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("class2_img4_*.png"), "masks: missing for the images class2_img4_p1_r1, class2_img4_p3_r5$"),
        (remove("*.png"), r"masks: missing for the images class1_img11_p1_r1, .* and 55 more"),
        (remove("class6_img1_p3_r5.jpg"), "images: missing for the masks class6_img1_p3_r5"),
        (remove("class5_*"), "classes: no image of class5"),
        (remove("*_img11_*"), "renderings: none of them falls into the folds 0"),
        (move("class1_img1_p1_r1.jpg", "flower.jpg"), "expected like class4_img22_p3_r5.jpg flower"),
        (
            both(
                move("class1_img1_p1_r1.jpg", "class7_img1_p1_r1.jpg"),
                move("class1_img1_p1_r1.png", "class7_img1_p1_r1.png"),
            ),
            "classes: expected 1 to 6, got class7_img1_p1_r1",
        ),
        (
            both(
                move("class1_img1_p1_r1.jpg", "class3_img99_p1_r1.jpg"),
                move("class1_img1_p1_r1.png", "class3_img99_p1_r1.png"),
            ),
            "folders: more than one class in flower1",
        ),
        (move("class1_img1_p1_r1.jpg", "class1_img1_p3_r5.jpeg"), "names: .* have the same"),
    ],
)
def test_files_that_do_not_fit_are_named(copy, change, message):
    change(copy)
    with pytest.raises(ValueError, match=message):
        views(copy, "single_6c")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "class4_img2_p1_r1.png",
            np.zeros((HEIGHT, WIDTH + 1), np.uint8),
            r"mask .*class4_img2_p1_r1.png has",
        ),
        ("class4_img2_p1_r1.png", np.ones((HEIGHT, WIDTH), np.uint8), "goes up to 1: expected 255 inside"),
        ("class4_img2_p1_r1.jpg", None, "class4_img2_p1_r1.jpg cannot be read as an image"),
    ],
)
def test_pixels_that_do_not_fit_are_named(copy, tmp_path, name, content, message):
    path = next(copy.rglob(name))
    if content is None:
        path.write_bytes(path.read_bytes()[:300])
    else:
        Image.fromarray(content).save(path)
    with pytest.raises(ValueError, match=message):
        prepare_release(copy, tmp_path / "data")
    assert not An8flowerRelease(config="single_6c", data_dir=tmp_path / "data").is_prepared()


# --- TFDS records as a source ---------------------------------------------------------------------------


def test_batches_of_tfds_are_those_of_the_renderer(single):
    parts = single.as_data_source(split=["fold_3", "fold_0"])
    source = from_tfds(parts, mask="mask")
    assert source.class_names == single.source.class_names
    order = [int(record["index"]) for part in parts for record in part]
    batch_fn, num_steps = epoch_batches(source, 4)
    batches = [batch_fn(t) for t in range(num_steps)]
    counts = np.concatenate([b["weights"] for b in batches]) > 0
    expected = drawn(single.source, order)
    for name in ("images", "labels", "masks"):
        found = np.concatenate([b[name] for b in batches])[counts]
        assert found.dtype == expected[name].dtype
        np.testing.assert_allclose(found, expected[name], atol=1e-7)
    assert np.concatenate([b["indices"] for b in batches])[counts].tolist() == list(range(len(order)))


def test_indices_in_any_order_and_more_than_once(single):
    source = from_tfds(single.as_data_source(split=FOLDS))
    everything = source[np.arange(len(source))]
    chosen = np.array([29, 0, 7, 7, 3])
    batch = source[chosen]
    np.testing.assert_array_equal(batch["images"], everything["images"][chosen])
    np.testing.assert_array_equal(batch["labels"], everything["labels"][chosen])
    assert "masks" not in batch
    assert source[np.array([], int)]["images"].shape == (0, 16, 16, 3)


def test_a_sharded_fold_reads_them(single):
    source = from_tfds(single.as_data_source(split="all"), mask="mask")
    batch_fn, num_steps = epoch_batches(source, 8)

    def update(total, batch):
        return total + jnp.einsum("n,nhwc,nhw->c", batch["weights"], batch["images"], batch["masks"])

    total = fold(update, jnp.zeros(3), batch_fn, num_steps=num_steps, mesh=data_mesh(8))
    whole = drawn(single.source, np.arange(30))
    np.testing.assert_allclose(total, jnp.einsum("nhwc,nhw->c", whole["images"], whole["masks"]), rtol=1e-5)


def test_views_of_different_sizes_are_resized_as_jax_does():
    generator = np.random.default_rng(1)
    sizes = [(9, 13), (5, 4), (30, 31)]
    records = [
        {
            "picture": generator.integers(0, 256, (*size, 3), np.uint8),
            "class": np.int64(n),
            "part": generator.random(size, np.float32) > 0.5,
        }
        for n, size in enumerate(sizes)
    ]
    fields = {"image": "picture", "label": "class", "mask": "part", "class_names": "abc"}
    batch = from_tfds([records], **fields, size=(7, 11))[np.arange(3)]
    for n, record in enumerate(records):
        picture = jax.image.resize(record["picture"] / 255.0, (7, 11, 3), "linear", antialias=True)
        part = jax.image.resize(record["part"].astype(np.float32), (7, 11), "linear", antialias=True)
        np.testing.assert_allclose(batch["images"][n], picture, atol=1e-5)
        np.testing.assert_allclose(batch["masks"][n], part, atol=1e-5)
    with pytest.raises(ValueError, match=r"'picture' of record 1 has shape \(5, 4, 3\).*pass size=\(height"):
        from_tfds([records], **fields)[np.array([0, 1])]


class GrayDigits(tfds.core.GeneratorBasedBuilder):
    """A set that is not ours, made like MNIST: gray, with splits train and test."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = Path(__file__).parent

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 5, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for n in range(count):
            pixels = np.full((6, 5), n * 20, np.uint8)
            yield n, {"image": Image.fromarray(pixels), "label": n % 10}


def test_a_gray_set_of_others_is_read_too(tmp_path):
    builder = GrayDigits(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    source = from_tfds(builder.as_data_source(split=["test", "train"]))
    batch = source[np.arange(15)]
    assert batch["images"].shape == (15, 6, 5, 1)
    assert source.class_names == tuple("0123456789")
    values = np.round(batch["images"][:, 0, 0, 0] * 255 / 20).astype(int)
    assert sorted(values[:3]) == [0, 1, 2]
    np.testing.assert_array_equal(values % 10, batch["labels"])


GOOD = {"image": np.zeros((2, 3, 1), np.uint8), "label": 0}


@pytest.mark.parametrize(
    ("records", "settings", "error", "message"),
    [
        ([], {}, ValueError, "hold no record"),
        ([GOOD], {"image": "img"}, ValueError, "image is 'img': the records have the fields image, label"),
        ([GOOD], {"mask": "mask"}, ValueError, "mask is 'mask'"),
        ([GOOD], {"class_names": None}, ValueError, "pass class_names="),
        ([GOOD], {"size": (0, 3)}, ValueError, r"size is \(0, 3\)"),
        ([1.0], {}, TypeError, "a record is a float"),
        ([{**GOOD, "label": 2}], {}, ValueError, "record 0 is 2: class_names has 2"),
        ([{**GOOD, "label": np.ones(1)}], {}, ValueError, "expected one integer"),
        ([{**GOOD, "image": np.zeros((2, 3), int)}], {}, ValueError, "dtype int64: expected"),
        ([{**GOOD, "image": np.full((2, 3), 1.5)}], {}, ValueError, "goes from 1.5 to 1.5"),
        ([{**GOOD, "image": np.full((2, 3), np.nan)}], {}, ValueError, "goes from nan"),
        ([GOOD, {**GOOD, "image": np.zeros((2, 3, 3))}], {}, ValueError, "record 1 .*channels must agree"),
    ],
)
def test_what_cannot_be_a_source_is_named(records, settings, error, message):
    with pytest.raises(error, match=message):
        from_tfds([records], **{"class_names": ("a", "b"), **settings})[np.arange(len(records))]


def test_a_mapping_of_splits_and_indices_beyond_are_refused(single):
    with pytest.raises(TypeError, match="data_sources is a mapping"):
        from_tfds(single.as_data_source())
    with pytest.raises(IndexError, match="indices go from 0 to 30: there are 30 images"):
        from_tfds(single.as_data_source(split="all"))[np.array([0, 30])]
