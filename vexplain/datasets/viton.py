"""VITON and VITON-HD from their folders: garments as products, and people who wear them.

Both are laid out alike, in the form that CP-VTON gave VITON:

    train_pairs.txt  test_pairs.txt     lines of "image cloth", names of files
    train/cloth  train/image            products and people
    train/cloth-mask                    white where the product is
    train/image-parse                   a label for each pixel, of the classes of LIP (image-parse-v3 in HD)
    test/...                            likewise

In VITON the person 000003_0.jpg wears the product 000003_1.jpg; in HD both are 00003_00.jpg. The test list
pairs people with garments that they do *not* wear, to be tried on, so that true pairs are known by the number
in the names and not by the lines.

This rests on public loaders of both sets (CP-VTON, CP-VTON+, VITON-HD, HR-VITON) and their lists; the data
itself was not at hand. Neither is downloaded here: their owners allow research only.

References:
    Han, Wu, Wu, Yu, Davis, *VITON: An Image-based Virtual Try-on Network*, CVPR 2018.
    Choi, Park, Lee, Choo, *VITON-HD: High-Resolution Virtual Try-On via Misalignment-Aware Normalization*,
    CVPR 2021.
"""

from pathlib import Path
from typing import Any, Literal

from vexplain._checks import check_choice
from vexplain.datasets.image_files import SUFFIXES, OnUnreadable, Resizing
from vexplain.datasets.paired_files import Domains, FileOf, check_exist, domains_of, list_lines

UPPER_CLOTHES = (5, 6, 7)  # of LIP: upper clothes, dress, coat
_PARSES = ("image-parse", "image-parse-v3")


def viton_folders(
    path: str | Path,
    *,
    split: Literal["train", "test"] = "train",
    size: int | Resizing,
    on_unreadable: OnUnreadable = "skip",
) -> Domains:
    """Returns the products (A) and the people (B) of a list, and who wears what.

    Batches have "masks" of the products where there is a folder `cloth-mask`, and of the garments that people
    wear where there is `image-parse` or `image-parse-v3`: `context_images(images, masks)` are then what a
    translation to B is given. Pictures are upright, three wide and four high: the square that is cut from the
    middle lacks the top of most heads.

    Args:
        path: the folder with `train_pairs.txt` and `train`.
        split: "train" or "test".
        size: as in the module `image_files`.
        on_unreadable: what to do about a broken image or mask, as in the module `image_files`.

    Raises:
        FileNotFoundError: a folder, a list, or a file that it names is not there.
        ValueError: an unknown split, a line of another form, or no person wears a product of the list.

    Example:
        >>> products, people, pairs = viton_folders("viton_resize", split="test", size=64)  # doctest: +SKIP
        >>> worn = people[pairs[:8, 1]]  # doctest: +SKIP
        >>> context = context_images(worn["images"], worn["masks"])  # doctest: +SKIP
    """
    check_choice("split", split, ("train", "test"))
    root = Path(path)
    folder = root / split
    for needed in (root, folder / "cloth", folder / "image"):
        if not needed.is_dir():
            raise FileNotFoundError(
                f"path is {str(root)!r}: there is no folder {needed}; expected {split}/cloth and "
                f"{split}/image in it"
            )
    listed = root / f"{split}_pairs.txt"
    rows = list_lines(listed, 2, 'two names, "image cloth"')
    people, products = (
        [FileOf(folder / kind / name, _number(name)) for name in dict.fromkeys(row[n] for row in rows)]
        for n, kind in enumerate(("image", "cloth"))
    )
    for files in (people, products):
        check_exist([file.path for file in files], str(listed))
    parse = next((folder / name for name in _PARSES if (folder / name).is_dir()), None)
    masks = (
        _masks(products, folder / "cloth-mask" if (folder / "cloth-mask").is_dir() else None),
        _masks(people, parse, mask_labels=UPPER_CLOTHES),
    )
    found = domains_of(products, people, size=size, on_unreadable=on_unreadable, masks=masks)
    if not len(found.pairs):
        raise ValueError(
            f"{listed}: no image and cloth have the same number, as {rows[0][0]} and {rows[0][1]} should: "
            "expected names such as 000003_0.jpg and 000003_1.jpg, or 00003_00.jpg for both"
        )
    return found


def _number(name: str) -> str:
    return Path(name).stem.rpartition("_")[0] or Path(name).stem


def _masks(files: list[FileOf], folder: Path | None, **options: Any) -> dict[str, Any]:
    """The mask of each file, which has its name but for the suffix; nothing without a folder."""
    if folder is None:
        return {}
    by_stem = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES}
    found = [by_stem.get(file.path.stem, folder / f"{file.path.stem}.png") for file in files]
    check_exist(found, f"{folder}, which should have a file for each in {files[0].path.parent},")
    return {"mask_files": tuple(found), **options}
