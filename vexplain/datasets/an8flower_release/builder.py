"""The original an8Flower, read from a folder that was downloaded by hand: the set of the paper's Table 1.

One split a fold, because that is the unit that TFDS can add: test on `split="fold_0"`, train on
`split="fold_1+fold_2+fold_3+fold_4"`. All views of a rendering are in one fold. What is known of the release
and what is assumed: `vexplain.datasets.an8flower_release.folder`.

TFDS writes into a folder named `incomplete...` and renames it when all is written. A preparation that fails
removes that folder; one that is killed leaves it behind, never to be read, and the next one begins anew.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vexplain.datasets.an8flower.scene import VARIANTS, class_names
from vexplain.datasets.an8flower.source import NUM_FOLDS
from vexplain.datasets.an8flower_release.folder import INSTRUCTIONS, PROJECT_PAGE, View, views

_DIM = 128  # a mask that is nowhere brighter holds numbers of another meaning


class An8flowerRelease(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the original an8Flower, in configs `single_6c` and `double_12c`.

    Features: "image" (height, width, 3), the bytes of the release where they are JPEG or PNG of three
    channels; "mask" (height, width, 1), PNG, 255 where the part that tells the class is; "label"; "fold",
    0 to 4, a hash of the rendering; "rendering", the number after `img`; "name" of the file. Splits: `fold_0`
    to `fold_4`, shuffled by a fixed hash. A mask stored as JPEG has gray edges: they are kept.

    Args:
        config: `"single_6c"` or `"double_12c"`.
        data_dir: where TFDS keeps its datasets; the release is looked for in its `downloads/manual`.
        file_format: of the records; `"array_record"` needs no TensorFlow and has random access.

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
    MANUAL_DOWNLOAD_INSTRUCTIONS = INSTRUCTIONS

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
            homepage=PROJECT_PAGE,
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

    def _generate_examples(self, views_of_fold: list[View]) -> Iterator[tuple[str, dict[str, Any]]]:
        for view in views_of_fold:
            image, mask = _read(view.image), _read(view.mask)
            if mask.size != image.size:
                raise ValueError(
                    f"mask {view.mask} has (width, height) {mask.size}: its image has {image.size}"
                )
            is_kept = image.mode == "RGB" and image.format in ("JPEG", "PNG")
            yield (
                view.name,
                {
                    "image": view.image if is_kept else image.convert("RGB"),
                    "mask": Image.fromarray(_coverage(mask, view.mask)),
                    "label": view.label,
                    "fold": view.fold,
                    "rendering": view.rendering,
                    "name": view.name,
                },
            )


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
    if 0 < coverage.max() < _DIM:
        raise ValueError(
            f"mask {path} goes up to {coverage.max()}: expected 255 inside the region, 0 outside"
        )
    return coverage
