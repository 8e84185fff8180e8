"""Published sets in their true layouts, written small: domains, true pairs, masks, and every wrong folder."""

import itertools

import numpy as np
import pytest
from PIL import Image

from vexplain.datasets import (
    UnreadableImage,
    consumer_to_shop,
    context_images,
    in_memory,
    in_shop_views,
    item_folders,
    multi_pie_views,
    read_pairs,
    unpaired,
    unpaired_batches,
    viton_folders,
)

SIZE = 6
IN_SHOP = "image_name item_id evaluation_status"
C2S = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"


def picture(path, gray, *, size=(6, 8), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, gray).save(path)


def grays(source):
    """The gray level of each image, by which it is known which file it is."""
    return np.round(source[np.arange(len(source))]["images"][:, 0, 0, 0] * 255).astype(int).tolist()


def gray_pairs(domains):
    a, b = grays(domains.a), grays(domains.b)
    return sorted((a[n], b[m]) for n, m in domains.pairs)


# --- VITON --------------------------------------------------------------------------------------------------


@pytest.fixture
def viton(tmp_path):
    """Persons 000001, 000002, 000005 and products 000001, 000002, 000004; the test list tries others on."""
    for number in (1, 2, 5):
        picture(tmp_path / f"test/image/{number:06}_0.jpg", 10 * number)
        labels = np.zeros((8, 6), np.uint8)
        labels[:, :3], labels[0] = 5, 7  # upper clothes, coat
        labels[:, 5] = 13  # face
        (tmp_path / "test/image-parse").mkdir(exist_ok=True)
        palette = Image.fromarray(labels).convert("P")
        palette.putdata(labels.ravel().tolist())
        palette.save(tmp_path / f"test/image-parse/{number:06}_0.png")
    for number in (1, 2, 4):
        picture(tmp_path / f"test/cloth/{number:06}_1.jpg", 100 + 10 * number)
        picture(tmp_path / f"test/cloth-mask/{number:06}_1.jpg", 255 if number == 1 else 100)
    lines = "000001_0.jpg 000002_1.jpg\n000002_0.jpg 000004_1.jpg\n000005_0.jpg 000001_1.jpg\n"
    (tmp_path / "test_pairs.txt").write_text(lines)
    return tmp_path


def test_viton_pairs_people_with_what_they_wear_and_not_with_what_they_try_on(viton):
    domains = viton_folders(viton, split="test", size=SIZE)
    assert gray_pairs(domains) == [(110, 10), (120, 20)]
    assert domains.a.class_names == ("000001", "000002", "000004", "000005")
    labels = domains.b[np.arange(3)]["labels"]
    assert [domains.b.class_names[n] for n in labels] == ["000001", "000002", "000005"]


def test_viton_has_masks_of_products_and_of_worn_garments(viton):
    products, people, _ = viton_folders(viton, split="test", size=SIZE)
    masks = products[np.arange(3)]["masks"]
    assert masks.mean((1, 2)).tolist() == [0, 0, 1]  # 000002, 000004, 000001, as in the list
    worn = people[[0]]
    np.testing.assert_array_equal(worn["masks"][0, :, :3], 1)
    np.testing.assert_array_equal(worn["masks"][0, 1:, 3:], 0)
    context = np.asarray(context_images(worn["images"], worn["masks"], margin=0.1))
    np.testing.assert_array_equal(context[0, 3, :4], 0.5)
    np.testing.assert_array_equal(context[0, 3, 4:], worn["images"][0, 3, 4:])
    assert in_memory(people)[[0]]["masks"].shape == (1, SIZE, SIZE)


def test_viton_hd_has_one_name_for_both_and_another_folder_of_labels(tmp_path):
    for number in (1, 2):
        for kind in ("cloth", "image"):
            picture(tmp_path / f"train/{kind}/{number:05}_00.jpg", 10 * number + 100 * (kind == "cloth"))
        picture(tmp_path / f"train/image-parse-v3/{number:05}_00.png", 6)
    (tmp_path / "train_pairs.txt").write_text("00001_00.jpg 00001_00.jpg\n00002_00.jpg 00002_00.jpg\n\n")
    domains = viton_folders(tmp_path, size=SIZE)
    assert gray_pairs(domains) == [(110, 10), (120, 20)]
    assert domains.b[[0]]["masks"].min() == 1
    assert "masks" not in domains.a[[0]]
    found = read_pairs(domains)
    assert sorted(found) == ["images_a", "images_b", "masks_b"]
    assert len(read_pairs(domains, num_pairs=1)["images_a"]) == 1


def test_a_broken_mask_or_image_is_passed_over_by_name_or_raises(viton):
    picture(viton / "test/image-parse/000002_0.png", 5, size=(4, 4))
    (viton / "test/cloth/000002_1.jpg").write_bytes(b"no image")
    domains = viton_folders(viton, split="test", size=SIZE)
    assert domains.b[np.arange(3)]["weights"].tolist() == [1, 0, 1]
    assert "it has (4, 4) pixels" in next(iter(domains.b.skipped.values()))
    found = read_pairs(domains)
    assert np.round(found["images_b"][:, 0, 0, 0] * 255).tolist() == [10]
    strict = viton_folders(viton, split="test", size=SIZE, on_unreadable="raise")
    with pytest.raises(UnreadableImage, match=r"000002_1\.jpg cannot be read"):
        strict.a[np.arange(3)]
    with pytest.raises(ValueError, match=r"none of 2 pairs can be read; .*000002"):
        read_pairs(domains._replace(pairs=domains.pairs[[0, 0]]))
    picture(viton / "test/image-parse/000001_0.png", (5, 5, 5), mode="RGB")
    domains.b[[0]]
    assert "3 channels" in domains.b.skipped[str(viton / "test/image-parse/000001_0.png")]


@pytest.mark.parametrize(
    ("broken", "error", "message"),
    [
        (
            lambda root: (root / "test_pairs.txt").unlink(),
            FileNotFoundError,
            r"there is no .*test_pairs\.txt",
        ),
        (lambda root: (root / "test_pairs.txt").write_text(""), ValueError, "is empty"),
        (lambda root: (root / "test_pairs.txt").write_text("a.jpg\n"), ValueError, "line 1, has 1 fields"),
        (
            lambda root: (root / "test/cloth/000004_1.jpg").unlink(),
            FileNotFoundError,
            r"lists .*000004_1\.jpg",
        ),
        (lambda root: (root / "test/cloth-mask/000004_1.jpg").unlink(), FileNotFoundError, "cloth-mask"),
        (
            lambda root: (root / "test/image").rename(root / "test/person"),
            FileNotFoundError,
            "no folder .*image",
        ),
        (
            lambda root: (root / "test_pairs.txt").write_text("000005_0.jpg 000004_1.jpg"),
            ValueError,
            "no image and cloth have the same number",
        ),
    ],
)
def test_a_wrong_folder_of_viton_is_named(viton, broken, error, message):
    broken(viton)
    with pytest.raises(error, match=message):
        viton_folders(viton, split="test", size=SIZE)


# --- Multi-PIE ----------------------------------------------------------------------------------------------


@pytest.fixture
def multi_pie(tmp_path):
    """Two subjects, of whom the second has no image of camera 19_0 in session 2."""
    gray = 0
    for session, subject, camera in itertools.product((1, 2), (1, 7), ("05_1", "19_0", "08_0")):
        for flash in (0, 7) if (session, subject, camera) != (2, 7, "19_0") else ():
            gray += 10
            name = f"{subject:03}_{session:02}_01_{camera.replace('_', '')}_{flash:02}.png"
            picture(tmp_path / f"data/session{session:02}/multiview/{subject:03}/01/{camera}/{name}", gray)
    return tmp_path


def test_views_that_were_taken_at_once_are_pairs(multi_pie):
    domains = multi_pie_views(multi_pie, cameras=("05_1", "19_0"), size=SIZE)
    assert (len(domains.a), len(domains.b), len(domains.pairs)) == (4, 3, 3)
    for n, m in domains.pairs:
        a, b = domains.a.files[n].name, domains.b.files[m].name
        assert a.replace("_051_", "_190_") == b
        assert a.endswith("_07.png")
    assert domains.a.class_names == ("001", "007")
    every = multi_pie_views(multi_pie / "data", cameras=("05_1", "19_0"), illumination=None, size=SIZE)
    assert (len(every.a), len(every.pairs)) == (8, 6)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"cameras": ("051", "19_0")}, ValueError, r"cameras are .*expected names of folders such as '05_1'"),
        ({"cameras": ("05_1", "05_1")}, ValueError, "expected two different ones"),
        ({"cameras": ("05_1", "24_0")}, ValueError, "has no image of 24_0 with illumination 7"),
        ({"illumination": 20}, ValueError, "illumination is 20: expected 0 to 19"),
        ({"path": "elsewhere"}, FileNotFoundError, "expected folders such as session01/multiview"),
    ],
)
def test_wrong_settings_of_views_are_named(multi_pie, settings, error, message):
    with pytest.raises(error, match=message):
        multi_pie_views(**{"path": multi_pie, "cameras": ("05_1", "19_0"), "size": SIZE, **settings})


def test_a_view_in_the_folder_of_another_is_named(multi_pie):
    folder = multi_pie / "data/session01/multiview/001/01/05_1"
    (folder / "001_01_01_051_07.png").rename(folder / "002_01_01_051_07.png")
    with pytest.raises(ValueError, match=r"002_01_01_051_07\.png is of subject 002"):
        multi_pie_views(multi_pie, cameras=("05_1", "19_0"), size=SIZE)


# --- DeepFashion and folders by item ------------------------------------------------------------------------


def write_list(root, columns, lines, *, count=None):
    (root / "Eval").mkdir(exist_ok=True)
    rows = [str(len(lines) if count is None else count), columns, *lines]
    (root / "Eval/list_eval_partition.txt").write_text("\n".join(rows) + "\n")


@pytest.fixture
def in_shop(tmp_path):
    """One item in two colors, one in one color without a flat view, one of the query."""
    names = ["id_1/01_6_flat", "id_1/01_1_front", "id_1/02_6_flat", "id_1/02_1_front", "id_2/01_1_front"]
    lines = [f"img/WOMEN/Tees/{name}.jpg {name[:4]}    train" for name in names]
    for n, name in enumerate([*names, "id_3/01_6_flat"]):
        picture(tmp_path / f"Img/img/WOMEN/Tees/{name}.jpg", 10 * (n + 1))
    write_list(tmp_path, IN_SHOP, [*lines, "img/WOMEN/Tees/id_3/01_6_flat.jpg id_3 query"])
    return tmp_path


def test_in_shop_pairs_views_of_an_item_in_one_color(in_shop):
    domains = in_shop_views(in_shop, size=SIZE)
    assert grays(domains.a) == [10, 30]
    assert grays(domains.b) == [20, 40, 50]
    assert gray_pairs(domains) == [(10, 20), (30, 40)]
    with pytest.raises(ValueError, match="has no image 'front' of the split 'query'"):
        in_shop_views(in_shop, split="query", size=SIZE)
    with pytest.raises(ValueError, match="views is 'top'"):
        in_shop_views(in_shop, views=("top", "front"), size=SIZE)
    (in_shop / "Img/img/WOMEN/Tees/id_2/01_1_front.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"lists .*id_2/01_1_front\.jpg"):
        in_shop_views(in_shop, size=SIZE)


def test_consumer_to_shop_has_the_pairs_of_its_list(tmp_path):
    folder = "img/TOPS/T_Shirt/id_00000218"
    names = ["comsumer_01", "comsumer_02", "shop_01", "shop_02"]
    for n, name in enumerate(names):
        picture(tmp_path / f"{folder}/{name}.jpg", 10 * (n + 1))
    pairs = [(0, 2), (1, 2), (1, 3), (1, 3)]
    lines = [f"{folder}/{names[n]}.jpg {folder}/{names[m]}.jpg id_00000218 test" for n, m in pairs]
    write_list(tmp_path, C2S, lines)
    domains = consumer_to_shop(tmp_path, split="test", size=SIZE)
    assert gray_pairs(domains) == [(30, 10), (30, 20), (40, 20)]
    with pytest.raises(ValueError, match=r"split is 'val': .* has no line of it"):
        consumer_to_shop(tmp_path, split="val", size=SIZE)
    with pytest.raises(ValueError, match="In-shop is read by in_shop_views"):
        in_shop_views(tmp_path, size=SIZE)
    write_list(tmp_path, C2S, [*lines, lines[0].replace("id_00000218 test", "id_9 test")])
    with pytest.raises(ValueError, match=r"comsumer_01\.jpg is of id_00000218 in one line and of id_9"):
        consumer_to_shop(tmp_path, split="test", size=SIZE)
    write_list(tmp_path, C2S, lines, count=9)
    with pytest.raises(ValueError, match="has 4 lines and promises 9: download it again"):
        consumer_to_shop(tmp_path, split="test", size=SIZE)
    with pytest.raises(FileNotFoundError, match=r"there is no Eval/list_eval_partition\.txt"):
        consumer_to_shop(tmp_path / "img", size=SIZE)


def test_folders_by_item_become_domains_and_unpaired_ones_share_no_item(tmp_path):
    for item in range(6):
        for kind, count in (("shop", 1), ("street", 2)):
            for n in range(count):
                picture(tmp_path / f"tops/{item}/{kind}/{n}.png", 10 * item + n + 100 * (kind == "street"))
    picture(tmp_path / "tops/7/street/0.png", 250)
    domains = item_folders(tmp_path, domains=("shop", "street"), size=SIZE)
    assert gray_pairs(domains) == [(10 * n, 100 + 10 * n + m) for n in range(6) for m in (0, 1)]
    halves = [unpaired(domains, seed=seed) for seed in (0, 0, 1)]
    items = [[set(half[np.arange(len(half))]["labels"]) for half in pair] for pair in halves]
    assert items[0] == items[1] != items[2]
    for a, b in items:
        assert not a & b
        assert (len(a), len(b)) == (3, 4)  # the seventh is worn only
    batch_fn, steps = unpaired_batches(*halves[0], 3, seed=0)
    assert steps == 1
    assert batch_fn(0)["b"].shape == (3, SIZE, SIZE, 3)
    with pytest.raises(ValueError, match="no image in folders named 'product'"):
        item_folders(tmp_path, size=SIZE)
    with pytest.raises(ValueError, match="two different names"):
        item_folders(tmp_path, domains=("shop", "shop"), size=SIZE)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        item_folders(tmp_path / "none", size=SIZE)
    with pytest.raises(ValueError, match="1 items in common and domain B no other"):
        unpaired(item_folders(tmp_path / "tops/3", domains=("shop", "street"), size=SIZE))
