"""Shape swap, prepared once as files and read at random: the set that an experiment can name.

The examples are those of `ShapeSwapSource`. Each domain has splits of its own: `train_a` and `train_b`,
`validation_a` and `validation_b`, which share no factors, and `test_a` and `test_b`, which are pairs: their
records of the same index show the same object in both shapes.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vexplain._checks import check_positive
from vexplain.datasets._rendered_builder import Examples, RenderedBuilder, RenderedBuilderConfig
from vexplain.datasets.shape_swap.factors import VARIANTS, Factors
from vexplain.datasets.shape_swap.renderer import LEVELS
from vexplain.datasets.shape_swap.source import ShapeSwapSource

_SPLIT_OF = {"train": "train", "validation": "validation", "test": "pairs"}  # the split of the source
_SETTINGS = ("level", "variant", "num_train", "num_validation", "num_test", "size", "samples", "seed")
_INTEGERS = ("texture", "corners", "spikes")


@dataclasses.dataclass(eq=False)
class ShapeSwapConfig(RenderedBuilderConfig):
    """What is rendered. The name is made of the settings: no two sets share a folder.

    There are `num_train` and `num_validation` images of each domain, and `num_test` pairs; what else there is
    is told in `ShapeSwapSource`, also what raises.

    Example:
        >>> ShapeSwapConfig(level=4, variant="N", num_train=5, size=16).name
        'level_4_N-num_train_5-size_16'
    """

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
        check_positive(**{name: getattr(self, name) for name in _SETTINGS[2:5]})
        self.source("train", 0)  # wrong settings raise
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        told = {"level": self.level, "variant": self.variant}
        self.describe(f"level_{self.level}_{self.variant}", usual | told)

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _SETTINGS}

    def source(self, split: str, domain: int) -> ShapeSwapSource:
        """Returns the same examples of a split, "train", "validation" or "test", rendered when asked for."""
        settings = {name: getattr(self, name) for name in ("level", "variant", "size", "samples", "seed")}
        num_images = getattr(self, f"num_{split}")
        return ShapeSwapSource(domain, num_images=num_images, split=_SPLIT_OF[split], **settings)


class ShapeSwapRendered(RenderedBuilder):
    """TFDS builder of shape swap, in configs `level_1_U`, `level_1_N`, ..., `level_4_N` at 64 pixels.

    Features: those of `RenderedBuilder`, and "factors", a dictionary of all `Factors`; "label" is the domain.
    Splits: `train_a`, `train_b`, `validation_a`, `validation_b`, and `test_a` and `test_b`, records of pairs.

    Args:
        config: a name as above, or a `ShapeSwapConfig`.

    Example:
        >>> builder = ShapeSwapRendered(config=ShapeSwapConfig(level=3, num_train=50, size=48))
        >>> builder.info.features["image"].shape, builder.info.features["label"].names
        ((48, 48, 3), ['polygon', 'star'])
        >>> builder.download_and_prepare()  # doctest: +SKIP
        >>> train_a = from_tfds(builder.as_data_source(split="train_a"))  # doctest: +SKIP
    """

    BUILDER_CONFIGS = [  # noqa: RUF012
        ShapeSwapConfig(level=level, variant=variant) for level in LEVELS for variant in VARIANTS
    ]

    @property
    def config(self) -> ShapeSwapConfig:
        """What is rendered."""
        assert isinstance(self.builder_config, ShapeSwapConfig)
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        factors = {
            name: tfds.features.Scalar(dtype=np.int32 if name in _INTEGERS else np.float32)
            for name in Factors._fields
        }
        return self.rendered_info(
            self.config.source("train", 0),
            "Shape swap: objects of two shapes that share appearance and pose, with the truth.",
            factors=tfds.features.FeaturesDict(factors),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        del dl_manager
        parts = [(split, domain) for split in _SPLIT_OF for domain in (0, 1)]
        sources = {f"{split}_{'ab'[domain]}": self.config.source(split, domain) for split, domain in parts}
        return {name: self._generate_examples(s, np.arange(len(s))) for name, s in sources.items()}

    def _more_features(self, source: ShapeSwapSource, indices: np.ndarray) -> dict[str, Any]:
        return {"factors": source.factors(indices)._asdict()}
