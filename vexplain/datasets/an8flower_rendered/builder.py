"""The rendered an8Flower, prepared once as files and read at random: the set that an experiment can name.

The examples are those of `RenderedSource`, in 8 bits, in the order of their indices. They come in one split a
fold, because that is the unit that TFDS can add: the paper's test set of fold 0 is `split="fold_0"` and its
training set `split="fold_1+fold_2+fold_3+fold_4"`, with no reading and dropping of examples. The fold is also
a feature.

TFDS writes into a folder named `incomplete...` and renames it when all is written. A preparation that fails
removes that folder; one that is killed leaves it behind, never to be read, and the next one begins anew.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vexplain.datasets.an8flower.scene import VARIANTS
from vexplain.datasets.an8flower.source import NUM_FOLDS, RenderedSource, fold_indices

_BATCH = 64  # images rendered at once; always as many, so that the renderer is compiled once


@dataclasses.dataclass(eq=False)
class RenderedConfig(tfds.core.BuilderConfig):
    """What is rendered. The name is made of the settings, so that no two sets share a folder.

    Args:
        source: variant, images a class, size, samples and seed.

    Example:
        >>> RenderedConfig(source=RenderedSource("double_12c", num_per_class=5, size=16)).name
        'double_12c-num_per_class_5-size_16'
    """

    name: str = dataclasses.field(init=False)
    source: RenderedSource = dataclasses.field(default_factory=RenderedSource, kw_only=True)

    def __post_init__(self):
        settings = dataclasses.asdict(self.source)
        usual = dataclasses.asdict(RenderedSource(self.source.variant))
        changed = [f"{name}_{value}" for name, value in settings.items() if value != usual[name]]
        self.name = "-".join([self.source.variant, *changed])
        self.description = ", ".join(f"{name} {value}" for name, value in settings.items())


class An8flowerRendered(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the rendered an8Flower, in configs `single_6c` and `double_12c` of 1000 images a class.

    Features: "image" (height, width, 3) and "mask" (height, width, 1), both PNG of 8 bits, the mask being
    coverage of the part that tells the class, times 255; "label"; "fold", 0 to 4, a hash of the example's
    random key; "index" in the `RenderedSource`. Splits: `fold_0` to `fold_4`.

    The same settings give the same PNG bytes on one kind of device; another kind may round a value of 8 bits
    differently. Checksums of whole files differ, as protobuf orders the fields of a record anew in each run.

    Args:
        config: `"single_6c"`, `"double_12c"`, or a `RenderedConfig`.
        data_dir: where TFDS keeps its datasets.
        file_format: of the records; `"array_record"` needs no TensorFlow and has random access.

    Raises:
        ValueError: while preparing, if so few images are asked for that a fold is empty.

    Example:
        >>> config = RenderedConfig(source=RenderedSource(num_per_class=50, size=48))
        >>> builder = An8flowerRendered(config=config)
        >>> builder.info.features["image"].shape
        (48, 48, 3)
        >>> builder.download_and_prepare()  # doctest: +SKIP
        >>> train = builder.as_data_source(split="fold_1+fold_2+fold_3+fold_4")  # doctest: +SKIP
    """

    VERSION = tfds.core.Version("1.0.0")  # to be raised when the renderer draws other images
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012  # TFDS annotates it
    BUILDER_CONFIGS = [RenderedConfig(source=RenderedSource(variant)) for variant in VARIANTS]  # noqa: RUF012

    def __init__(self, *, config: Any = None, file_format: Any = "array_record", **kwargs: Any):
        if isinstance(config, RenderedConfig):  # TFDS refuses a copy of a config that it lists
            config = self.builder_configs.get(config.name, config)
        super().__init__(config=config, file_format=file_format, **kwargs)

    @property
    def source(self) -> RenderedSource:
        """The same examples, rendered when they are asked for."""
        assert isinstance(self.builder_config, RenderedConfig)
        return self.builder_config.source

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.source.size
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(self.source.class_names)),
            "fold": tfds.features.Scalar(dtype=np.int32),
            "index": tfds.features.Scalar(dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="an8Flower, re-created by a renderer: a flower whose class is the color of a part.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(dataclasses.asdict(self.source)),
            disable_shuffling=True,  # the index mixes the classes already, and slices then hold all of them
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager
        folds = [fold_indices(self.source, fold)[1] for fold in range(NUM_FOLDS)]
        if empty := [fold for fold, indices in enumerate(folds) if not len(indices)]:
            raise ValueError(
                f"num_per_class is {self.source.num_per_class}: no image falls into the folds {empty}; "
                "ask for more"
            )
        return {f"fold_{fold}": self._generate_examples(indices, fold) for fold, indices in enumerate(folds)}

    def _generate_examples(self, indices: np.ndarray, fold: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for start in range(0, len(indices), _BATCH):
            chosen = indices[start : start + _BATCH]
            batch = self.source[np.resize(chosen, _BATCH)]
            images, masks = _eight_bits(batch["images"]), _eight_bits(batch["masks"])
            for place, index in enumerate(chosen):
                yield (
                    int(index),
                    {
                        "image": Image.fromarray(images[place]),
                        "mask": Image.fromarray(masks[place]),
                        "label": int(batch["labels"][place]),
                        "fold": fold,
                        "index": int(index),
                    },
                )


def _eight_bits(values) -> np.ndarray:
    return np.round(np.asarray(values) * 255).astype(np.uint8)
