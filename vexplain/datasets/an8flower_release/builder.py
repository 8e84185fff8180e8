"""The original an8Flower (Oramas, Wang, Tuytelaars, ICLR 2019), read from a folder downloaded by hand.

Test on `split="fold_0"`, train on `split="fold_1+fold_2+fold_3+fold_4"`. All views of a rendering are in one
fold.

Known, from code that reads the release: a variant is a folder `an8Flower_double_12c` of class folders, beside
it a folder `an8Flower_double_12c_MASK` with masks of matching names; files are named like
`class4_img22_p3_r5.jpg`.

Assumed: `class4` is the class, counted from 1; `img22` is the rendering, of which `p3_r5` is one view; a mask
has its image's name but for the extension, the case of letters, and perhaps an ending `_mask`; masks are
white (or another bright color) on black; each class folder holds one class. What does not fit is refused.
"""

import collections
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vexplain.datasets.an8flower.scene import VARIANTS, class_names
from vexplain.datasets.an8flower.source import NUM_FOLDS

_PROJECT_PAGE = (
    "https://webserver.idlab.uantwerpen.be/~joramasmogrovejo/projects/"
    "visualExplanationByInterpretation/index.html"
)
_INSTRUCTIONS = f"""\
Download an8Flower from the page of the project, {_PROJECT_PAGE}
and unpack it so that this folder holds `an8Flower_single_6c` and `an8Flower_single_6c_MASK` (for the other
variant: `an8Flower_double_12c` and `an8Flower_double_12c_MASK`), with one folder a class in each. To keep
them elsewhere: `download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=...))`.
"""
_NAME = re.compile(r"class(\d+)_img(\d+)(_\w+)?", re.IGNORECASE)
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff"}
_DIM = 128  # a mask that is nowhere brighter holds numbers of another meaning


class An8flowerRelease(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the original an8Flower, in configs `single_6c` and `double_12c`.

    Features: "image" (height, width, 3), the bytes of the release where they are JPEG or PNG of three
    channels; "mask" (height, width, 1), PNG, 255 where the part that tells the class is (gray edges of a JPEG
    are kept); "label"; "fold", 0 to 4, a hash of the rendering; "rendering", the number after `img`; "name"
    of the file. Splits: `fold_0` to `fold_4`, shuffled by a fixed hash.

    Args:
        config: `"single_6c"` or `"double_12c"`.
        data_dir: where TFDS keeps its datasets; the release is looked for in its `downloads/manual`.

    Raises:
        FileNotFoundError: while preparing, if the release is not there; says where to get and to put it.
        ValueError: while preparing, for files that do not fit together (see `views`), that cannot be read, a
            mask of another size than its image, or a mask without a bright pixel that is not black.

    Example:
        >>> builder = An8flowerRelease(config="double_12c")
        >>> builder.info.features["label"].num_classes
        12
        >>> builder.download_and_prepare()  # doctest: +SKIP
        >>> train = builder.as_data_source(split="fold_1+fold_2+fold_3+fold_4")  # doctest: +SKIP
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012  # TFDS annotates it
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=variant, description=f"{len(class_names(variant))} classes")
        for variant in VARIANTS
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = _INSTRUCTIONS

    def __init__(self, *, file_format: Any = "array_record", **kwargs: Any):
        super().__init__(file_format=file_format, **kwargs)

    @property
    def variant(self) -> str:
        """`"single_6c"` or `"double_12c"`."""
        assert self.builder_config is not None
        return self.builder_config.name

    def _info(self) -> tfds.core.DatasetInfo:
        names = [f"class{n + 1}" for n in range(len(class_names(self.variant)))]
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=names),
            "fold": tfds.features.Scalar(dtype=np.int32),
            "rendering": tfds.features.Scalar(dtype=np.int32),
            "name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="an8Flower (Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, 2019).",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=_PROJECT_PAGE,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        try:
            root = Path(dl_manager.manual_dir)
        except AssertionError as error:  # what TFDS raises where the folder is missing or empty
            raise FileNotFoundError(str(error)) from None
        found = views(root, self.variant)
        return {
            f"fold_{fold}": self._generate_examples([view for view in found if view.fold == fold])
            for fold in range(NUM_FOLDS)
        }

    def _generate_examples(self, views_of_fold: list["View"]) -> Iterator[tuple[str, dict[str, Any]]]:
        for view in views_of_fold:
            image, mask = _read(view.image), _read(view.mask)
            if mask.size != image.size:
                raise ValueError(
                    f"mask {view.mask} has (width, height) {mask.size}: its image has {image.size}"
                )
            is_kept = image.mode == "RGB" and image.format in ("JPEG", "PNG")
            pixels = {
                "image": view.image if is_kept else image.convert("RGB"),
                "mask": Image.fromarray(_coverage(mask, view.mask)),
            }
            numbers = {name: getattr(view, name) for name in ("label", "fold", "rendering", "name")}
            yield view.name, pixels | numbers


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

    The views of one rendering are near copies: were they spread over folds, a test image would have a near
    copy in the training set. Equal numbers in different classes may share a pose: they share a fold too.

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
    matches = {name: _NAME.fullmatch(name) for name in sorted(images)}
    _refuse("names: expected like class4_img22_p3_r5.jpg", {n for n, match in matches.items() if not match})
    _refuse("masks: missing for the images", images.keys() - masks.keys())
    _refuse("images: missing for the masks", masks.keys() - images.keys())
    found = [
        View(name, images[name], masks[name], int(match[1]) - 1, int(match[2]))
        for name, match in matches.items()
        if match
    ]
    expected = set(range(num_classes))
    unknown = {view.name for view in found if view.label not in expected}
    _refuse(f"classes: expected 1 to {num_classes}, got", unknown)
    _refuse("classes: no image of", {f"class{n + 1}" for n in expected - {view.label for view in found}})
    _check_folders(found, folder)
    empty = set(range(NUM_FOLDS)) - {view.fold for view in found}
    _refuse("renderings: none of them falls into the folds", map(str, empty))
    return found


def _read(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()  # a file that was cut off is found now, not by who reads the dataset
            return image
    except OSError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}; download it again") from error


def _coverage(mask: Image.Image, path: Path) -> np.ndarray:
    """The brightest channel, as a saturated blue is a mask too."""
    coverage = np.asarray(mask.convert("RGB")).max(axis=-1)
    if 0 < (high := coverage.max()) < _DIM:
        raise ValueError(f"mask {path} goes up to {high}: expected 255 inside the region, 0 outside")
    return coverage


def _folder(root: Path, name: str) -> Path:
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.is_dir() and path.name.lower() == name.lower():
            return path
    raise FileNotFoundError(f"{name} is not a folder in {root}.\n{_INSTRUCTIONS}")


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


def _check_folders(found: list[View], root: Path) -> None:
    """Were the class not in the name, but in the folder only, this would tell."""
    pairs = {(view.image.parent, view.label) for view in found if view.image.parent != root}
    counts = collections.Counter(folder for folder, _ in pairs)
    _refuse("folders: more than one class in", {path.name for path, count in counts.items() if count > 1})


def _refuse(message: str, names: Iterable[str]) -> None:
    names = sorted(names)
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"{message} {', '.join(names[:5])}{more}")
