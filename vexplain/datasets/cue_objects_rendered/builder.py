"""Cue objects, prepared once as files and read at random: the set that an experiment can name.

The examples are those of `CueSource`, in its four splits: `train`, `validation`, `test`, and `conflict`, in
which the three cues of an image show three different classes.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vexplain._checks import check_choice, check_positive
from vexplain.datasets._rendered_builder import Examples, RenderedBuilder, RenderedBuilderConfig
from vexplain.datasets.cue_objects.factors import CUES, NAMES
from vexplain.datasets.cue_objects.source import SPLITS, CueSource

_COUNTS = tuple(f"num_{split}" for split in SPLITS)
_RENDERED = (*CUES, "size", "samples", "background", "clutter", "seed")


@dataclasses.dataclass(eq=False)
class CueObjectsConfig(RenderedBuilderConfig):
    """What is rendered. The name is made of the settings: no two sets share a folder.

    There are `num_train`, ... images a class of each split; what else there is is told in `CueSource`, also
    what raises.

    Example:
        >>> CueObjectsConfig(texture=1.0, num_train=5, size=16).name
        'texture_1.0-num_train_5-size_16'
    """

    _: dataclasses.KW_ONLY
    shape: float | None = None
    texture: float | None = None
    color: float | None = None
    num_train: int = 1000
    num_validation: int = 100
    num_test: int = 200
    num_conflict: int = 200
    size: int = 48
    samples: int = 3
    background: str = "plain"
    clutter: int = 0
    seed: int = 0

    def __post_init__(self):
        check_positive(**{name: getattr(self, name) for name in _COUNTS})
        self.source("train")  # wrong settings raise
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        told = {cue: getattr(self, cue) for cue in CUES if getattr(self, cue) is not None}
        self.describe("-".join(f"{cue}_{p}" for cue, p in told.items()), usual | told)

    def settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in (*CUES, *_COUNTS, *_RENDERED[len(CUES) :])}

    def source(self, split: str) -> CueSource:
        """Returns the same examples of a split, rendered when asked for."""
        check_choice("split", split, SPLITS)
        settings = {name: getattr(self, name) for name in _RENDERED}
        return CueSource(split=split, num_per_class=getattr(self, f"num_{split}"), **settings)


class CueObjectsRendered(RenderedBuilder):
    """TFDS builder of cue objects, in configs `shape_1.0`, `texture_1.0` and `color_1.0` at 48 pixels.

    Features: those of `RenderedBuilder`, and "shape", "texture" and "color", the values of the cues. Splits:
    `train`, `validation`, `test` and `conflict`.

    Args:
        config: a name as above, or a `CueObjectsConfig`.

    Example:
        >>> builder = CueObjectsRendered(config=CueObjectsConfig(shape=1.0, texture=0.8, size=32))
        >>> builder.info.features["image"].shape, builder.info.features["texture"].names[0]
        ((32, 32, 3), 'stripes')
        >>> builder.download_and_prepare()  # doctest: +SKIP
        >>> train = from_tfds(builder.as_data_source(split="train"))  # doctest: +SKIP
    """

    BUILDER_CONFIGS = [CueObjectsConfig(**{cue: 1.0}) for cue in CUES]  # type: ignore  # noqa: RUF012

    @property
    def config(self) -> CueObjectsConfig:
        """What is rendered."""
        assert isinstance(self.builder_config, CueObjectsConfig)
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        cues = {cue: tfds.features.ClassLabel(names=list(NAMES[cue])) for cue in CUES}
        return self.rendered_info(
            self.config.source("train"),
            "Cue objects: an object with a shape, a texture and a color that are independent, or the class.",
            **cues,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        del dl_manager
        sources = {split: self.config.source(split) for split in SPLITS}
        return {name: self._generate_examples(s, np.arange(len(s))) for name, s in sources.items()}

    def _more_features(self, source: CueSource, indices: np.ndarray) -> dict[str, Any]:
        factors = source.factors(indices)
        return {cue: getattr(factors, cue) for cue in CUES}
