"""DeepFashion's two retrieval benchmarks, and folders by item: a garment in two kinds of pictures.

Both have a list `Eval/list_eval_partition.txt`: the number of lines, the names of the columns, and lines.

    img/WOMEN/Dresses/id_00000002/02_1_front.jpg id_00000002 train

is of In-shop (image, item, and "train", "query" or "gallery"), and

    img/TOPS/T_Shirt/id_00000218/comsumer_01.jpg img/TOPS/T_Shirt/id_00000218/shop_01.jpg id_00000218 train

of Consumer-to-shop ("train", "val" or "test"); its images are so spelled. In-shop, the first number of a name
tells the colors of one item apart, and the last word is the view: front, side, back, full, flat (the garment
alone) or additional. Columns and statuses are those of the READMEs of the set; names of views and colors rest
on public loaders. The data itself was not at hand. It is not downloaded here: its owners allow research
only.

In all functions:
    path: the folder of the benchmark.
    size: as in the module `image_files`.
    on_unreadable: as in the module `image_files`.

References:
    Liu, Luo, Qiu, Wang, Tang, *DeepFashion: Powering Robust Clothes Recognition and Retrieval with Rich
    Annotations*, CVPR 2016.
"""

from pathlib import Path
from typing import Literal

from vexplain._checks import check_choice
from vexplain.datasets.image_files import SUFFIXES, OnUnreadable, Resizing
from vexplain.datasets.paired_files import Domains, FileOf, check_exist, domains_of, list_lines

VIEWS = ("front", "side", "back", "full", "flat", "additional")
_LISTS = ("Eval/list_eval_partition.txt", "list_eval_partition.txt")
_IN_SHOP = ("image_name", "item_id", "evaluation_status")
_CONSUMER_TO_SHOP = ("image_pair_name_1", "image_pair_name_2", "item_id", "evaluation_status")


def in_shop_views(
    path: str | Path,
    *,
    views: tuple[str, str] = ("flat", "front"),
    split: Literal["train", "query", "gallery"] = "train",
    size: int | Resizing,
    on_unreadable: OnUnreadable = "skip",
) -> Domains:
    """Returns the images of two views of In-shop Clothes Retrieval; partners show an item in one color.

    Args:
        views: of A and of B, two of `VIEWS`; by default the garment alone, and worn.
        split: "train", "query" or "gallery".

    Raises:
        FileNotFoundError: a list, or a file that it names is not there.
        ValueError: an unknown view or split, another list, or no image of a view.

    Example:
        >>> flat, worn, pairs = in_shop_views("In-shop Clothes Retrieval", size=64)  # doctest: +SKIP
    """
    for view in views:
        check_choice("views", view, VIEWS)
    check_choice("split", split, ("train", "query", "gallery"))
    listed, rows = _partition(Path(path), _IN_SHOP)
    chosen: dict[str, list[FileOf]] = {view: [] for view in views}
    for name, item, status in rows:
        color, *_, view = Path(name).stem.split("_")
        if status == split and view in chosen:
            chosen[view].append(FileOf(_image(Path(path), name), f"{item}-{color}"))
    files_a, files_b = (chosen[view] for view in views)
    for view, files in zip(views, (files_a, files_b), strict=True):
        if not files:
            raise ValueError(
                f"views: {listed} has no image {view!r} of the split {split!r}; expected names such as "
                f"id_00000002/02_1_{view}.jpg"
            )
        check_exist([file.path for file in files], str(listed))
    return domains_of(files_a, files_b, size=size, on_unreadable=on_unreadable)


def consumer_to_shop(
    path: str | Path,
    *,
    split: Literal["train", "val", "test"] = "train",
    size: int | Resizing,
    on_unreadable: OnUnreadable = "skip",
) -> Domains:
    """Returns the shops' images (A) and the consumers' (B); partners are the pairs of the list.

    Args:
        split: "train", "val" or "test".

    Raises:
        FileNotFoundError: a list, or a file that it names is not there.
        ValueError: an unknown split, another list, a split without a pair, or an image of two items.

    Example:
        >>> shop, street, pairs = consumer_to_shop("Consumer-to-shop", size=64)  # doctest: +SKIP
    """
    check_choice("split", split, ("train", "val", "test"))
    listed, rows = _partition(Path(path), _CONSUMER_TO_SHOP)
    rows = [row for row in rows if row[3] == split]
    if not rows:
        raise ValueError(f"split is {split!r}: {listed} has no line of it")
    item_of: dict[str, str] = {}
    for consumer, shop, item, _ in rows:
        for name in (consumer, shop):
            if item_of.setdefault(name, item) != item:
                raise ValueError(
                    f"{listed}: {name} is of {item_of[name]} in one line and of {item} in another"
                )
    shops, consumers = (list(dict.fromkeys(row[n] for row in rows)) for n in (1, 0))
    files_a, files_b = (
        [FileOf(_image(Path(path), name), item_of[name]) for name in names] for names in (shops, consumers)
    )
    for files in (files_a, files_b):
        check_exist([file.path for file in files], str(listed))
    place_a, place_b = ({name: n for n, name in enumerate(names)} for names in (shops, consumers))
    pairs = list(dict.fromkeys((place_a[shop], place_b[consumer]) for consumer, shop, *_ in rows))
    return domains_of(files_a, files_b, size=size, on_unreadable=on_unreadable, pairs=pairs)


def item_folders(
    path: str | Path,
    *,
    domains: tuple[str, str] = ("product", "worn"),
    size: int | Resizing,
    on_unreadable: OnUnreadable = "skip",
) -> Domains:
    """Returns images that lie by item: ITEM/product/*.jpg are A and ITEM/worn/*.jpg are B.

    Items may lie in folders of their category. All images of an item are partners.

    Args:
        domains: the names of the two folders of an item.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: twice the same name, or no image in any folder of a name.

    Example:
        >>> shop, street, pairs = item_folders("clothes", domains=("shop", "street"), size=64)
        ... # doctest: +SKIP
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"path is {str(root)!r}: there is no such folder")
    if domains[0] == domains[1]:
        raise ValueError(f"domains are {domains}: expected two different names of folders")
    files_a, files_b = (
        [
            FileOf(file, folder.parent.relative_to(root).as_posix())
            for folder in sorted(root.rglob(name))
            for file in sorted(folder.iterdir() if folder.is_dir() else ())
            if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
        ]
        for name in domains
    )
    for name, files in zip(domains, (files_a, files_b), strict=True):
        if not files:
            raise ValueError(
                f"path is {str(root)!r}: there is no image in folders named {name!r}; expected "
                f"ITEM/{domains[0]}/... and ITEM/{domains[1]}/..., or pass domains="
            )
    return domains_of(files_a, files_b, size=size, on_unreadable=on_unreadable)


def _partition(root: Path, columns: tuple[str, ...]) -> tuple[Path, list[list[str]]]:
    """The list of a benchmark, and its lines without the first two."""
    listed = next((root / name for name in _LISTS if (root / name).is_file()), root / _LISTS[0])
    if not listed.is_file():
        raise FileNotFoundError(f"path is {str(root)!r}: there is no {_LISTS[0]} in it, nor {_LISTS[1]}")
    head = listed.read_text(encoding="utf-8", errors="replace").split("\n", 2)
    if len(head) < 3 or not head[0].strip().isdigit() or tuple(head[1].split()) != columns:
        raise ValueError(
            f"{listed} begins with {head[:2]}: expected the number of lines, then {' '.join(columns)}; "
            "In-shop is read by in_shop_views and Consumer-to-shop by consumer_to_shop"
        )
    rows = list_lines(listed, len(columns), " ".join(columns), num_skipped=2)
    if len(rows) != int(head[0]):
        raise ValueError(f"{listed} has {len(rows)} lines and promises {head[0].strip()}: download it again")
    return listed, rows


def _image(root: Path, name: str) -> Path:
    """Where an image of a list is: its archive may have been unpacked beside the list or into Img."""
    inside = root / "Img" / name
    return inside if inside.is_file() else root / name
