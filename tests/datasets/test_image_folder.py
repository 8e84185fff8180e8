"""Folders of image files: a broken file costs its own example and nothing else, and is named."""

import logging

import numpy as np
import pytest
from PIL import Image

from vexplain.datasets import (
    IMAGENET_CATS,
    Source,
    UnreadableImage,
    class_folders,
    epoch_batches,
    gather,
    image_folder,
    in_memory,
    shuffled_batches,
    subset,
    threads,
    unpaired_batches,
)

BROKEN = ("cat/1.png", "dog/0.jpg", "dog/3.png")  # empty, no image, cut off
CITIES = (  # twelve names to stand for those of Fashion144k
    *("Amsterdam", "Barcelona", "Berlin", "Chicago", "London", "Los Angeles"),
    *("Manila", "Melbourne", "New York", "Paris", "San Francisco", "Tokyo"),
)


def save(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4), (value, value, value)).save(path)


@pytest.fixture
def folder(tmp_path):
    """Two classes of four images, each of which is as bright as its index times 10; three are broken."""
    for index in range(8):
        name = f"{('cat', 'dog')[index // 4]}/{index % 4}"
        save(tmp_path / f"{name}.png", index * 10)
    (tmp_path / "dog/0.png").unlink()
    (tmp_path / "dog/0.jpg").write_bytes(b"no image")
    (tmp_path / "cat/1.png").write_bytes(b"")
    content = (tmp_path / "dog/3.png").read_bytes()
    (tmp_path / "dog/3.png").write_bytes(content[: len(content) // 2])
    return tmp_path


READABLE = [0, 2, 3, 5, 6]


def brightness(images):
    return np.round(np.asarray(images)[:, 0, 0, 0] * 255 / 10).astype(int).tolist()


def test_a_broken_file_is_named_and_counted_once(folder, caplog):
    source = class_folders(folder, size=4)
    with caplog.at_level(logging.WARNING):
        batches = [source[np.arange(8)] for _ in range(2)]
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    for number, (name, message) in enumerate(zip(BROKEN, messages, strict=True), start=1):
        assert message.startswith(f"skipped: {folder / name} cannot be read as an image: ")
        assert message.endswith(f"({number} so far)")
    assert list(source.skipped) == [str(folder / name) for name in BROKEN]
    for batch in batches:
        assert np.flatnonzero(batch["weights"]).tolist() == READABLE
        assert batch["images"].shape == (8, 4, 4, 3)
        assert not batch["images"][batch["weights"] == 0].any()


def test_a_source_counts_its_own_files(folder):
    first, second = (class_folders(folder, size=4) for _ in range(2))
    gather(first)
    assert len(first.skipped) == 3
    assert not second.skipped


def test_weight_0_goes_through_epochs(folder):
    batch_fn, num_steps = epoch_batches(class_folders(folder, size=4), 3)
    weights = np.concatenate([batch_fn(t)["weights"] for t in range(num_steps)])
    assert np.flatnonzero(weights).tolist() == READABLE
    assert len(weights) == 9  # the last one fills the batch up
    assert weights.dtype == np.float32


def test_weight_0_goes_through_shuffled_epochs(folder):
    batch_fn, num_steps = shuffled_batches(class_folders(folder, size=4), 4, seed=0)
    batches = [batch_fn(t) for t in range(num_steps)]
    indices, weights = (np.concatenate([b[name] for b in batches]) for name in ("indices", "weights"))
    assert sorted(indices[weights > 0]) == READABLE
    assert sorted(indices) == list(range(8))


def test_what_is_gathered_has_no_broken_image(folder):
    source = class_folders(folder, size=4)
    found = gather(source, batch_size=3)
    assert found["indices"].tolist() == READABLE
    assert brightness(found["images"] / 255) == READABLE
    held = in_memory(source, batch_size=5)
    assert len(held) == 5
    assert held.labels.tolist() == [0, 0, 0, 1, 1]
    assert held.class_names == ("cat", "dog")


def test_weight_0_goes_through_subsets(folder):
    part = subset(class_folders(folder, size=4), [7, 6, 1, 0])
    batch = part[np.array([0, 1, 2, 3])]
    assert batch["weights"].tolist() == [0, 1, 0, 1]
    assert brightness(gather(part)["images"] / 255) == [6, 0]
    assert part[1]["weights"] == 1


def test_broken_images_give_their_place_to_readable_ones(folder):
    domains = [image_folder(folder / name, size=4) for name in ("cat", "dog")]
    batch_fn, _ = unpaired_batches(*domains, 4, seed=0)
    for t in range(3):
        batch = batch_fn(t)
        assert batch["a"].shape == batch["b"].shape == (4, 4, 4, 3)
        assert set(brightness(batch["a"])) == {0, 2, 3}
        assert set(brightness(batch["b"])) == {5, 6}


def test_a_broken_image_gives_its_place_to_the_same_one_whichever_rows_are_read(folder):
    domains = [image_folder(folder / name, size=4) for name in ("cat", "dog")]
    batches, _ = unpaired_batches(*domains, 4, seed=0)
    for rows in ([0, 1], [2, 3]):
        for name, images in batches.read(1, np.array(rows)).items():
            np.testing.assert_array_equal(images, batches(1)[name][rows])


@pytest.mark.parametrize("cores", [1, 3])
def test_threads_change_neither_images_nor_the_order_of_messages(folder, caplog, monkeypatch, cores):
    monkeypatch.setattr(threads, "num_cores", lambda: cores)
    source = class_folders(folder, size=4)
    chosen = np.array([7, 6, 5, 4, 3, 2, 1, 0] * 3)
    images = source[chosen]["images"]
    one_by_one = [class_folders(folder, size=4)[int(n)]["images"] for n in chosen]
    np.testing.assert_array_equal(images, np.stack(one_by_one))
    assert list(source.skipped) == [str(folder / name) for name in reversed(BROKEN)]
    stopping = class_folders(folder, size=4, on_unreadable="raise")
    with pytest.raises(UnreadableImage, match=BROKEN[2]):
        stopping[chosen]


def test_a_batch_of_broken_files_alone_stops_an_unpaired_training(folder, tmp_path):
    for name in ("0.png", "1.png"):
        path = tmp_path / "broken" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    domains = [image_folder(folder / "cat", size=4), image_folder(tmp_path / "broken", size=4)]
    batch_fn, _ = unpaired_batches(*domains, 2, seed=0)
    with pytest.raises(ValueError, match="none of the files of a whole batch is a readable image; see the l"):
        batch_fn(0)


def test_stopping_at_a_broken_file_can_be_asked_for(folder, caplog):
    source = class_folders(folder, size=4, on_unreadable="raise")
    assert brightness(source[np.array([0, 2])]["images"]) == [0, 2]
    with pytest.raises(
        UnreadableImage, match=r"cat/1\.png cannot be read .*mend or remove it, or pass on_un"
    ):
        source[np.array([0, 1])]
    assert not caplog.records


def test_a_file_that_is_mended_is_read(folder):
    source = class_folders(folder, size=4)
    assert source[1]["weights"] == 0
    save(folder / "cat/1.png", 10)
    assert source[1]["weights"] == 1
    assert brightness(source[np.array([1])]["images"]) == [1]


def test_one_integer_gives_one_example_and_a_loop_ends(folder):
    source = class_folders(folder, size=4)
    example = source[5]
    assert example["images"].shape == (4, 4, 3)
    assert (example["labels"], example["indices"]) == (1, 5)
    assert [int(one["labels"]) for one in source] == [0] * 4 + [1] * 4
    assert source[-3]["indices"] == 5
    for index in (-9, 8):
        with pytest.raises(IndexError, match=f"indices go from {index} to {index}: there are 8 images"):
            source[index]


# --- classes ------------------------------------------------------------------------------------------------


def test_classes_can_be_chosen_ordered_and_named(folder):
    chosen = class_folders(folder, size=4, classes=["dog", "cat"])
    assert chosen.class_names == ("dog", "cat")
    assert chosen[np.arange(8)]["labels"].tolist() == [0] * 4 + [1] * 4
    assert brightness(chosen[np.array([1, 4])]["images"]) == [5, 0]
    named = class_folders(folder, size=4, classes={"dog": "Hund"})
    assert (len(named), named.class_names) == (4, ("Hund",))
    assert isinstance(named, Source)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "cow", "owl"], "has no folder cow, owl"),
        (["cat", "cat"], "classes are cat, cat: expected at least one, and each once"),
        ([], "classes are none: expected at least one"),
        (["empty"], "there is no image in empty"),
    ],
)
def test_classes_that_are_not_there_are_named(folder, classes, message):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        class_folders(folder, size=4, classes=classes)


def test_twelve_cities_of_fashion144k(tmp_path):
    for number, city in enumerate(CITIES):
        for image in range(1 + number % 3):
            save(tmp_path / city / "snaps" / f"{image}.jpg", 20 * number)
    source = class_folders(tmp_path, size=4)
    assert source.class_names == CITIES
    batch = source[np.arange(len(source))]
    assert np.bincount(batch["labels"]).tolist() == [1, 2, 3] * 4
    np.testing.assert_allclose(batch["images"][:, 1, 1, 1] * 255, 20 * batch["labels"], atol=2)


def test_cats_of_extracted_imagenet(tmp_path):
    for number, synset in enumerate(["n01440764", *IMAGENET_CATS, "n15075141"]):
        save(tmp_path / synset / f"{synset}_1.JPEG", 10 * number)
    source = class_folders(tmp_path, size=4, classes=IMAGENET_CATS)
    assert source.class_names == tuple(IMAGENET_CATS.values())
    batch = source[np.arange(13)]
    assert batch["labels"].tolist() == list(range(13))
    np.testing.assert_allclose(batch["images"][:, 0, 0, 0] * 255, 10 * np.arange(1, 14), atol=2)


def test_names_that_begin_with_a_dot_are_passed_over_and_links_followed(tmp_path):
    for name in (
        "a/0.png",
        "a/sub/1.png",
        "a/.hidden.png",
        "a/._0.png",
        "a/.ipynb_checkpoints/0.png",
        ".x/2.png",
    ):
        save(tmp_path / "root" / name, 10)
    save(tmp_path / "elsewhere/3.png", 20)
    (tmp_path / "root/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/a/again").symlink_to(tmp_path / "root")  # a circle
    root = tmp_path / "root"
    found = [str(file.relative_to(root)) for file in image_folder(root, size=4).files]
    assert found == ["a/0.png", "a/sub/1.png", "b/3.png"]
    source = class_folders(root, size=4)
    assert source.class_names == ("a", "b")
    assert np.bincount(source.classes).tolist() == [3, 1]  # b/3.png, by the circle through a
    assert [file.name for file in source.files] == ["0.png", "3.png", "1.png", "3.png"]
