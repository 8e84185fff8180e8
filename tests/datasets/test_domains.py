"""Two domains without pairs: batches by seed and step, folders of images, 3D Shapes and its partners."""

import itertools
import subprocess
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from vexplain.datasets import (
    ArraySource,
    Shapes3DSource,
    Source,
    gather,
    image_folder,
    paired_batches,
    subset,
    unpaired_batches,
)
from vexplain.datasets.shape_swap import ShapeSwapSource


def numbered(count, *, size=(2, 3), channels=1):
    """Images that are their own index."""
    images = np.broadcast_to(np.arange(count)[:, None, None, None] / 100, (count, *size, channels))
    return ArraySource(images, np.zeros(count, int), class_names=("a",))


def numbers(images):
    return np.round(np.asarray(images)[:, 0, 0, 0] * 100).astype(int).tolist()


# --- batches ------------------------------------------------------------------------------------------------


def test_batches_hold_images_of_both_domains_and_nothing_else():
    source_a, source_b = (ShapeSwapSource(domain, num_images=5, size=8) for domain in (0, 1))
    batch_fn, steps = unpaired_batches(source_a, source_b, 2, seed=0)
    assert steps == 2
    batch = batch_fn(0)
    assert set(batch) == {"a", "b"}
    assert batch["a"].shape == batch["b"].shape == (2, 8, 8, 3)


def test_each_domain_is_seen_once_before_it_is_seen_twice():
    batch_fn, steps = unpaired_batches(numbered(6), numbered(13), 3, seed=1)
    assert steps == 2
    batches = [batch_fn(t) for t in range(8)]
    for name, passes in (("a", 2), ("b", 4)):
        seen = np.concatenate([numbers(batch[name]) for batch in batches])
        orders = seen.reshape(-1, 3 * passes).tolist()
        assert all(len(set(order)) == 3 * passes for order in orders)
        assert len({tuple(order) for order in orders}) == len(orders)


def test_batches_are_a_function_of_seed_and_step():
    def order(seed, t):
        batch = unpaired_batches(numbered(40), numbered(40), 20, seed=seed)[0](t)
        return numbers(batch["a"]), numbers(batch["b"])

    assert order(3, 5) == order(3, 5)
    drawn = [order(seed, t) for seed, t in ((3, 4), (3, 5), (3, 6), (4, 5))]
    for first, second in itertools.combinations([a for a, _ in drawn] + [b for _, b in drawn], 2):
        assert first != second  # the permutation of one domain tells nothing of the other's


@pytest.mark.parametrize(
    ("a", "b", "batch_size", "message"),
    [
        (numbered(5), numbered(3), 4, "batch_size is 4: domain B has only 3 images; add images or take a sm"),
        (numbered(0), numbered(3), 1, "domain A has only 0 images"),
        (numbered(5), numbered(5), 0, "batch_size is 0: expected at least 1"),
        (
            *(numbered(5), numbered(5, size=(3, 3)), 2),
            r"A has images of size \(2, 3\) and domain B of \(3, 3\): .*the same size=",
        ),
        (numbered(5), numbered(5, channels=3), 2, "A has images of 1 channels and domain B of 3: .*repeat a"),
    ],
)
def test_domains_that_do_not_fit_are_named(a, b, batch_size, message):
    with pytest.raises(ValueError, match=message):
        unpaired_batches(a, b, batch_size, seed=0)


def test_paired_batches_keep_partners_together():
    batch_fn, steps = paired_batches(numbered(7), numbered(7), 3, seed=0)
    assert steps == 2
    seen = [numbers(batch_fn(t)[d]) for t in range(2) for d in "ab"]
    assert seen[0] == seen[1] != seen[2] == seen[3]
    assert len(set(seen[0] + seen[2])) == 6
    with pytest.raises(
        ValueError, match=r"A has 5 images and domain B 6: expected pairs; .*unpaired_batches"
    ):
        paired_batches(numbered(5), numbered(6), 2, seed=0)


# --- a folder -----------------------------------------------------------------------------------------------


def save(folder, name, pixels, **options):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path, **options)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    for number, name in enumerate(["b/1.png", "a.PNG", "b/0.bmp", "c.jpg"]):
        save(tmp_path, name, np.full((4, 4, 3), 50 * number, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")
    source = image_folder(tmp_path, size=4)
    assert isinstance(source, Source)
    assert source.class_names == (tmp_path.name,)
    batch = source[np.array([3, 0, 1, 2])]
    np.testing.assert_allclose(batch["images"][:, 1, 2, 0] * 255, [150, 50, 100, 0], atol=2)
    assert batch["labels"].tolist() == [0] * 4
    assert batch["images"].dtype == np.float32
    assert gather(source)["images"].shape == (4, 4, 4, 3)


def test_the_central_square_is_resized_with_antialiasing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    save(tmp_path, "wide.png", pixels)
    np.testing.assert_allclose(image_folder(tmp_path, size=12)[[0]]["images"][0] * 255, pixels[:, 4:16])
    checker = np.indices((64, 64)).sum(0) % 2 * 255
    save(tmp_path, "checker.png", checker.astype(np.uint8))
    small = image_folder(tmp_path, size=8)[[0]]["images"][0]
    np.testing.assert_allclose(small, 0.5, atol=0.02)


def test_what_is_transparent_is_white_and_gray_becomes_rgb(tmp_path):
    red = np.zeros((2, 2, 4), np.uint8)
    red[..., 0], red[..., 3] = 255, [[255, 0], [51, 255]]
    save(tmp_path, "a.png", red)
    save(tmp_path, "b.png", np.full((2, 2), 100, np.uint8))
    save(tmp_path, "c.png", np.full((2, 2), 100 * 257, np.uint16))
    Image.fromarray(red[..., 3]).convert("P").save(tmp_path / "d.png", transparency=255)
    images = image_folder(tmp_path, size=2)[np.arange(4)]["images"]
    np.testing.assert_allclose(images[0, ..., 0], 1)
    np.testing.assert_allclose(images[0, ..., 1], [[0, 1], [0.8, 0]], atol=0.005)
    np.testing.assert_allclose(images[1:3], 100 / 255, atol=1e-6)
    np.testing.assert_allclose(images[3, ..., 0], [[1, 0], [0.2, 1]], atol=0.005)


def test_photographs_are_turned_upright(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    save(tmp_path, "photo.png", pixels, exif=exif)
    image = image_folder(tmp_path, size=8)[[0]]["images"][0, ..., 0]
    np.testing.assert_array_equal(image, np.rot90(pixels[..., 0] / 255, -1))


def test_folders_that_are_no_domain_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path is '.*missing': there is no such folder"):
        image_folder(tmp_path / "missing", size=4)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"expected images in it, files that end in \.bmp, "):
        image_folder(tmp_path, size=4)
    with pytest.raises(ValueError, match="size is 0"):
        image_folder(tmp_path, size=0)
    save(tmp_path, "a.png", np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    content = (tmp_path / "a.png").read_bytes()
    source = image_folder(tmp_path, size=4, on_unreadable="raise")
    with pytest.raises(IndexError, match="indices go from 0 to 1: there are 1 images"):
        source[np.array([0, 1])]
    for broken in (b"", b"no image", content[: len(content) // 2]):
        (tmp_path / "a.png").write_bytes(broken)
        with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: .*mend or remove it"):
            source[np.array([0])]


def test_two_folders_are_two_domains(tmp_path):
    for name in ("cats", "dogs"):
        for n in range(3):
            save(tmp_path / name, f"{n}.png", np.full((5, 6, 3), n, np.uint8))
    domains = [image_folder(tmp_path / name, size=4) for name in ("cats", "dogs")]
    batch_fn, steps = unpaired_batches(*domains, 3, seed=0)
    assert steps == 1
    assert batch_fn(0)["b"].shape == (3, 4, 4, 3)


# --- 3D Shapes ----------------------------------------------------------------------------------------------

VALUES = (  # in the order and units of the release, with fewer values
    *((0.0, 0.1), (0.3,), (0.0, 0.9), (0.75, 1.25)),
    *((0.0, 1.0, 2.0, 3.0), (-30.0, 0.0, 30.0)),
)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A small file in the true format; a pixel holds the row of its image."""
    path = tmp_path_factory.mktemp("shapes") / "3dshapes.h5"
    labels = np.array(list(itertools.product(*VALUES)))
    images = np.zeros((len(labels), 64, 64, 3), np.uint8)
    images[:, 5, 6, 0] = np.arange(len(labels))
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images)
        file.create_dataset("labels", data=labels)
    return path, labels


def test_3d_shapes_are_those_of_the_file(release):
    path, labels = release
    for shape in range(4):
        source = Shapes3DSource(path, shape)
        assert isinstance(source, Source)
        assert len(source) == len(labels) // 4
        chosen = np.array([7, 0, 7, 23])
        batch = source[chosen]
        rows = np.flatnonzero(labels[:, 4] == shape)[chosen]
        np.testing.assert_array_equal(np.round(batch["images"][:, 5, 6, 0] * 255), rows)
        assert batch["images"].shape == (4, 64, 64, 3)
        assert batch["labels"].tolist() == [shape] * 4
        assert batch["indices"].tolist() == chosen.tolist()
        np.testing.assert_array_equal(source.factors(chosen), labels[rows])
    assert source[np.array([], int)]["images"].shape == (0, 64, 64, 3)


def test_partners_differ_in_the_shape_alone(release):
    path, _ = release
    cubes, spheres = Shapes3DSource(path, 0), Shapes3DSource(str(path), 2)
    chosen = np.array([20, 3, 3, 11])
    found = spheres.factors(cubes.partners(spheres, chosen))
    expected = cubes.factors(chosen)
    expected[:, 4] = 2
    np.testing.assert_array_equal(found, expected)
    everything = np.arange(len(cubes))
    back = spheres.partners(cubes, cubes.partners(spheres, everything))
    np.testing.assert_array_equal(back, everything)


def test_halves_of_3d_shapes_are_unpaired_domains(release):
    path, _ = release
    cubes, spheres = Shapes3DSource(path, 0), Shapes3DSource(path, 2)
    a, b = np.split(np.random.default_rng(0).permutation(len(cubes)), 2)
    domains = subset(cubes, a), subset(spheres, cubes.partners(spheres, b))
    batch_fn, steps = unpaired_batches(*domains, 6, seed=0)
    assert steps == 2
    assert batch_fn(1)["a"].shape == (6, 64, 64, 3)


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
    return path


def test_files_that_are_not_3d_shapes_are_named(release, tmp_path):
    path, labels = release
    with pytest.raises(ValueError, match=r"shape is 4: expected one of \(0, 1, 2, 3\)"):
        Shapes3DSource(path, 4)
    with pytest.raises(FileNotFoundError, match=r"path is '.*none\.h5'"):
        Shapes3DSource(tmp_path / "none.h5", 0)
    (tmp_path / "text.h5").write_text("no data")
    with pytest.raises(ValueError, match=r"text\.h5 is not a whole HDF5 file: .*download 3dshapes\.h5 again"):
        Shapes3DSource(tmp_path / "text.h5", 0)
    for arrays in (
        {"images": np.zeros((2, 4, 4, 3), np.uint8)},
        {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.zeros((2, 5))},
        {"images": np.zeros((2, 4, 4, 3)), "labels": np.zeros((2, 6))},
    ):
        with pytest.raises(ValueError, match=r"expected 3D Shapes, images \(n, height, width, 3\) of 8 bits"):
            Shapes3DSource(write(tmp_path / "other.h5", **arrays), 0)
    part = write(tmp_path / "part.h5", images=np.zeros((8, 4, 4, 3), np.uint8), labels=labels[:8])
    assert labels[:8, 4].tolist() == [0] * 3 + [1] * 3 + [2] * 2
    with pytest.raises(ValueError, match="has no image of a capsule"):
        Shapes3DSource(part, 3)
    with pytest.raises(ValueError, match="image 2 has no partner among the images of a sphere"):
        Shapes3DSource(part, 1).partners(Shapes3DSource(part, 2), [0, 1, 2])


def test_without_h5py_the_extra_is_named(release, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImportError, match=r"pip install 'vexplain\[shapes3d\]'"):
        Shapes3DSource(release[0], 0)


def test_the_room_imports_neither_h5py_nor_tfds():
    code = "import sys, vexplain.datasets; assert not {'h5py', 'tensorflow_datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_3d_shapes_are_read_from_the_file_alone(release, tmp_path):
    """An HDF5 file can name another file, or another place, whose bytes would come back as pixels."""
    _, labels = release
    (tmp_path / "secret.txt").write_bytes(bytes(2400))
    for name in ("external", "link", "virtual"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("labels", data=labels[:50])
            shape = (50, 4, 4, 3)
            if name == "external":
                file.create_dataset(
                    "images", shape, np.uint8, external=[(str(tmp_path / "secret.txt"), 0, 2400)]
                )
            elif name == "link":
                file["images"] = h5py.ExternalLink("other.h5", "images")
            else:
                layout = h5py.VirtualLayout(shape, np.uint8)
                layout[:] = h5py.VirtualSource("other.h5", "images", shape)
                file.create_virtual_dataset("images", layout)
        with pytest.raises(ValueError, match=rf"{name}\.h5 keeps its images outside of itself"):
            Shapes3DSource(tmp_path / f"{name}.h5", 0)
