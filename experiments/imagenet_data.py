"""ImageNet's images wherever they are: the published archives, folders of classes, or what TFDS prepared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorflow_datasets as tfds

from vexplain.datasets import (
    Resizing,
    Source,
    class_folders,
    from_tfds,
    imagenet_archives,
    imagenet_synsets,
    subset,
)

_ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "validation": "ILSVRC2012_img_val.tar"}
_FOLDERS = {"train": "train", "validation": "val"}


def imagenet_images(
    path: Path, resizing: Resizing, *, num_per_class: int, classes: Mapping[str, str] | None = None
) -> tuple[Source, Source]:
    """Images to fit on, at most `num_per_class` of each class, and all validation images.

    Where there are no training images, one half of the validation images is fitted on and the other held out.

    Raises:
        FileNotFoundError: neither archives, nor folders of classes, nor a data set of TFDS is there.
    """
    train, validation = (_images(path, split, resizing, classes) for split in ("train", "validation"))
    if validation is None:
        raise FileNotFoundError(
            f"images is {str(path)!r}: expected {' and '.join(_ARCHIVES.values())} in it, or folders of "
            "classes in `train` and `val`, or a prepared `imagenet2012` of TFDS; the images are to be had "
            "from https://image-net.org after registration"
        )
    if train is None:
        places = np.arange(len(validation))
        return subset(validation, places[::2]), subset(validation, places[1::2])
    return first_of_each_class(train, num_per_class), validation


def first_of_each_class(source: Source, num_per_class: int) -> Source:
    """The first images of each class; of a source that does not tell its labels, as many from its start."""
    labels = getattr(source, "classes", None)
    num_classes = len(source.class_names)
    if labels is None:  # TFDS shuffles what it prepares
        return subset(source, np.arange(min(len(source), num_per_class * num_classes)))
    chosen = [np.flatnonzero(labels == c)[:num_per_class] for c in range(num_classes)]
    return subset(source, np.sort(np.concatenate(chosen)))


def _images(
    path: Path, split: Literal["train", "validation"], resizing: Resizing, classes: Mapping[str, str] | None
) -> Source | None:
    if (path / _ARCHIVES[split]).is_file():
        return imagenet_archives(path, split=split, size=resizing, classes=classes)
    if (path / _FOLDERS[split]).is_dir():
        return class_folders(path / _FOLDERS[split], size=resizing, classes=classes or imagenet_synsets())
    if (path / "imagenet2012").is_dir():
        builder: Any = tfds.builder("imagenet2012", data_dir=path, file_format="array_record")
        return from_tfds(builder.as_data_source(split), size=resizing, classes=classes)
    return None
