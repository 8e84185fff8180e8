"""The folder of the original an8Flower (Oramas, Wang, Tuytelaars, ICLR 2019): which files belong together.

Known, from code that reads the release: a variant is a folder `an8Flower_double_12c` of class folders, beside
it a folder `an8Flower_double_12c_MASK` with masks of matching names; files are named like
`class4_img22_p3_r5.jpg`.

Assumed: `class4` is the class, counted from 1; `img22` is the rendering, of which `p3_r5` is one view; a mask
has its image's name but for the extension, the case of letters, and perhaps an ending `_mask`; masks are
white (or another bright color) on black. Names of class folders are not assumed, only that each holds one
class. Hidden files and files that are no images are left out. What else does not fit is named and refused.
"""

import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from vexplain.datasets.an8flower.scene import class_names
from vexplain.datasets.an8flower.source import NUM_FOLDS

PROJECT_PAGE = (
    "https://webserver.idlab.uantwerpen.be/~joramasmogrovejo/projects/"
    "visualExplanationByInterpretation/index.html"
)
INSTRUCTIONS = f"""\
Download an8Flower from the page of the project, {PROJECT_PAGE}
and unpack it so that this folder holds `an8Flower_single_6c` and `an8Flower_single_6c_MASK` (for the other
variant: `an8Flower_double_12c` and `an8Flower_double_12c_MASK`), with one folder a class in each. To keep
them elsewhere: `download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=...))`.
"""
_NAME = re.compile(r"class(\d+)_img(\d+)(_\w+)?", re.IGNORECASE)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff"}


class View(NamedTuple):
    """One view of one rendering: an image and the mask of the part that tells its class."""

    name: str  # as in "class4_img22_p3_r5"
    image: Path
    mask: Path
    label: int  # from 0 on
    rendering: int

    @property
    def fold(self) -> int:
        return fold_of_rendering(self.rendering)


def fold_of_rendering(rendering: int) -> int:
    """Returns the fold, 0 to 4, of all views of a rendering: a hash of its number mod 5.

    The views of one rendering are near copies: were they spread over folds, a test image would have its twin
    in the training set. Equal numbers in different classes share a fold too, as they may share a pose.

    Example:
        >>> [fold_of_rendering(n) for n in (1, 2, 3)]
        [1, 4, 4]
    """
    return zlib.crc32(f"img{rendering}".encode()) % NUM_FOLDS


def views(root: Path, variant: str) -> list[View]:
    """Returns the views of a variant of the release, ordered by name.

    Args:
        root: holds the folders of the release.
        variant: `"single_6c"` or `"double_12c"`.

    Raises:
        FileNotFoundError: a folder of the variant is not there.
        ValueError: a name that does not tell class and rendering, an image without a mask, a mask without
            an image, two files of one name, two classes in a folder, a class or a fold without an image.
    """
    num_classes = len(class_names(variant))
    folder = _folder(root, f"an8Flower_{variant}")
    images = _files(folder)
    masks = _files(_folder(root, f"{folder.name}_MASK"))
    _refuse("names: expected like class4_img22_p3_r5.jpg", {n for n in images if not _NAME.fullmatch(n)})
    _refuse("masks: missing for the images", images.keys() - masks.keys())
    _refuse("images: missing for the masks", masks.keys() - images.keys())
    found = [_view(name, images[name], masks[name]) for name in sorted(images)]
    _check_classes(found, num_classes)
    _check_folders(found, folder)
    empty = set(range(NUM_FOLDS)) - {view.fold for view in found}
    _refuse("renderings: none of them falls into the folds", map(str, empty))
    return found


def _folder(root: Path, name: str) -> Path:
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.is_dir() and path.name.lower() == name.lower():
            return path
    raise FileNotFoundError(f"{name} is not a folder in {root}.\n{INSTRUCTIONS}")


def _files(folder: Path) -> dict[str, Path]:
    """The images of a folder and the folders in it, by name in lower case and without extension."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in _SUFFIXES or path.name.startswith("."):
            continue
        name = path.stem.lower().removesuffix("_mask")
        if name in found:
            raise ValueError(f"names: {found[name]} and {path} have the same; expected each once")
        found[name] = path
    return found


def _view(name: str, image: Path, mask: Path) -> View:
    match = _NAME.fullmatch(name)
    assert match
    return View(name, image, mask, int(match[1]) - 1, int(match[2]))


def _check_classes(found: list[View], num_classes: int) -> None:
    expected = set(range(num_classes))
    unknown = {view.name for view in found if view.label not in expected}
    _refuse(f"classes: expected 1 to {num_classes}, got", unknown)
    _refuse("classes: no image of", {f"class{n + 1}" for n in expected - {view.label for view in found}})


def _check_folders(found: list[View], root: Path) -> None:
    """Were the class not in the name, but in the folder only, this would tell."""
    labels: dict[Path, set[int]] = {}
    for view in found:
        if view.image.parent != root:
            labels.setdefault(view.image.parent, set()).add(view.label)
    _refuse(
        "folders: more than one class in", {path.name for path, classes in labels.items() if len(classes) > 1}
    )


def _refuse(message: str, names: Iterable[str]) -> None:
    names = sorted(names)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"{message} {', '.join(names[:5])}{more}")
