"""Shape swap, prepared once as files and read at random: the set that an experiment can name.

The examples are those of `ShapeSwapSource`, in 8 bits, in the order of their indices. Each domain has splits
of its own: `train_a` and `train_b`, `validation_a` and `validation_b`, which share no factors, and `test_a`
and `test_b`, which are pairs: their records of the same index show the same object in both shapes.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vexplain.datasets.shape_swap.factors import VARIANTS, Factors
from vexplain.datasets.shape_swap.shapes import LEVELS, shape_names
from vexplain.datasets.shape_swap.source import ShapeSwapSource

_BATCH = 64  # images rendered at once; always as many, so that the renderer is compiled once
_SPLIT_OF = {"train": "train", "validation": "validation", "test": "pairs"}  # the split of the source
_INTEGERS = ("texture", "corners", "spikes")


@dataclasses.dataclass(eq=False)
class ShapeSwapConfig(tfds.core.BuilderConfig):
    """What is rendered. The name is made of the settings, so that no two sets share a folder.

    Args:
        level: which shapes, 1 to 4.
        variant: `"U"` or `"N"`.
        num_train: training images of each domain.
        num_validation: validation images of each domain.
        num_test: pairs.
        size: height and width in pixels.
        samples: points a pixel along each axis.
        seed: of the keys.

    Raises:
        ValueError: an unknown level or variant, or a number below 1.

    Example:
        >>> ShapeSwapConfig(level=4, variant="N", num_train=5, size=16).name
        'level_4_N-num_train_5-size_16'
    """

    name: str = dataclasses.field(init=False)
    _: dataclasses.KW_ONLY
    level: int = 4
    variant: str = "U"
    num_train: int = 20_000
    num_validation: int = 1_000
    num_test: int = 2_000
    size: int = 64
    samples: int = 3
    seed: int = 0

    def __post_init__(self):
        for name in ("num_train", "num_validation", "num_test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        self.source("train", 0)  # wrong settings raise
        settings = self.settings()
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        hidden = ("level", "variant")
        changed = [
            f"{name}_{value}"
            for name, value in settings.items()
            if name not in hidden and value != usual[name]
        ]
        self.name = "-".join([f"level_{self.level}_{self.variant}", *changed])
        self.description = ", ".join(f"{name} {value}" for name, value in settings.items())

    def settings(self) -> dict[str, Any]:
        """What the images depend on, by name."""
        counts = ("num_train", "num_validation", "num_test")
        return {
            name: getattr(self, name) for name in ("level", "variant", *counts, "size", "samples", "seed")
        }

    def source(self, split: str, domain: int) -> ShapeSwapSource:
        """The same examples, rendered when they are asked for.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            domain: 0 for A, 1 for B.
        """
        return ShapeSwapSource(
            domain,
            level=self.level,
            variant=self.variant,
            num_images=getattr(self, f"num_{split}"),
            size=self.size,
            samples=self.samples,
            seed=self.seed,
            split=_SPLIT_OF[split],
        )


class ShapeSwapRendered(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of shape swap, in configs `level_1_U`, `level_1_N`, ..., `level_4_N` at 64 pixels.

    Features: "image" (height, width, 3) and "mask" (height, width, 1), both PNG of 8 bits, the mask being
    coverage by the object times 255; "label", the domain; "index" in the `ShapeSwapSource`; "factors", a
    dictionary of all `Factors`. Splits: `train_a`, `train_b`, `validation_a`, `validation_b`, and `test_a`
    and `test_b`, whose records are pairs.

    The same settings give the same PNG bytes on one kind of device; another kind may round a value of 8 bits
    differently.

    Args:
        config: a name as above, or a `ShapeSwapConfig`.
        data_dir: where TFDS keeps its datasets.
        file_format: of the records; `"array_record"` needs no TensorFlow and has random access.

    Example:
        >>> builder = ShapeSwapRendered(config=ShapeSwapConfig(level=3, num_train=50, size=48))
        >>> builder.info.features["image"].shape, builder.info.features["label"].names
        ((48, 48, 3), ['polygon', 'star'])
        >>> builder.download_and_prepare()  # doctest: +SKIP
        >>> train_a = from_tfds(builder.as_data_source(split="train_a"))  # doctest: +SKIP
    """

    VERSION = tfds.core.Version("1.0.0")  # to be raised when the renderer draws other images
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012  # TFDS annotates it
    BUILDER_CONFIGS = [  # noqa: RUF012
        ShapeSwapConfig(level=level, variant=variant) for level in LEVELS for variant in VARIANTS
    ]

    def __init__(self, *, config: Any = None, file_format: Any = "array_record", **kwargs: Any):
        if isinstance(config, ShapeSwapConfig):  # TFDS refuses a copy of a config that it lists
            config = self.builder_configs.get(config.name, config)
        super().__init__(config=config, file_format=file_format, **kwargs)

    @property
    def config(self) -> ShapeSwapConfig:
        """What is rendered."""
        assert isinstance(self.builder_config, ShapeSwapConfig)
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.config.size
        factors = {
            name: tfds.features.Scalar(dtype=np.int32 if name in _INTEGERS else np.float32)
            for name in Factors._fields
        }
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(size, size, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(shape_names(self.config.level))),
            "index": tfds.features.Scalar(dtype=np.int32),
            "factors": tfds.features.FeaturesDict(factors),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Shape swap: objects of two shapes that share appearance and pose, with the truth.",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(self.config.settings()),
            disable_shuffling=True,  # records of the same index in test_a and test_b are pairs
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        del dl_manager
        return {
            f"{split}_{name}": self._generate_examples(self.config.source(split, domain))
            for split in _SPLIT_OF
            for domain, name in enumerate("ab")
        }

    def _generate_examples(self, source: ShapeSwapSource) -> Iterator[tuple[int, dict[str, Any]]]:
        for start in range(0, len(source), _BATCH):
            chosen = np.minimum(np.arange(start, start + _BATCH), len(source) - 1)
            batch = source[chosen]
            images, masks = _eight_bits(batch["images"]), _eight_bits(batch["masks"])
            factors = {name: np.asarray(leaf) for name, leaf in source.factors(chosen)._asdict().items()}
            for place in range(min(_BATCH, len(source) - start)):
                yield (
                    start + place,
                    {
                        "image": Image.fromarray(images[place]),
                        "mask": Image.fromarray(masks[place]),
                        "label": source.domain,
                        "index": start + place,
                        "factors": {name: leaf[place].item() for name, leaf in factors.items()},
                    },
                )


def _eight_bits(values) -> np.ndarray:
    return np.round(np.asarray(values) * 255).astype(np.uint8)
