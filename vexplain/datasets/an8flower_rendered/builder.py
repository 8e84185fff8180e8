"""The rendered an8Flower, prepared once as files and read at random: the set that an experiment can name.

The examples are those of `RenderedSource`. They come in one split a fold, because that is the unit that TFDS
can add: the paper's test set of fold 0 is `split="fold_0"` and its training set
`split="fold_1+fold_2+fold_3+fold_4"`, with no example read in vain. The fold is also a feature.
"""

import dataclasses
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vexplain.datasets._rendered_builder import Examples, RenderedBuilder, RenderedBuilderConfig
from vexplain.datasets.an8flower.scene import VARIANTS
from vexplain.datasets.an8flower.source import NUM_FOLDS, RenderedSource, fold_indices, folds_of


@dataclasses.dataclass(eq=False)
class RenderedConfig(RenderedBuilderConfig):
    """What is rendered: a `RenderedSource`. The name is made of its settings: no two sets share a folder.

    Example:
        >>> RenderedConfig(source=RenderedSource("double_12c", num_per_class=5, size=16)).name
        'double_12c-num_per_class_5-size_16'
    """

    source: RenderedSource = dataclasses.field(default_factory=RenderedSource, kw_only=True)

    def __post_init__(self):
        self.describe(self.source.variant, dataclasses.asdict(RenderedSource(self.source.variant)))

    def settings(self) -> dict[str, Any]:
        return dataclasses.asdict(self.source)


class An8flowerRendered(RenderedBuilder):
    """TFDS builder of the rendered an8Flower, in configs `single_6c` and `double_12c` of 1000 images a class.

    Features: those of `RenderedBuilder`, and "fold", 0 to 4, a hash of the example's random key. Splits:
    `fold_0` to `fold_4`.

    Args:
        config: `"single_6c"`, `"double_12c"`, or a `RenderedConfig`.

    Raises:
        ValueError: while preparing, if so few images are asked for that a fold is empty.

    Example:
        >>> config = RenderedConfig(source=RenderedSource(num_per_class=50, size=48))
        >>> builder = An8flowerRendered(config=config)
        >>> builder.download_and_prepare()  # doctest: +SKIP
        >>> train = builder.as_data_source(split="fold_1+fold_2+fold_3+fold_4")  # doctest: +SKIP
    """

    BUILDER_CONFIGS = [RenderedConfig(source=RenderedSource(variant)) for variant in VARIANTS]  # noqa: RUF012

    @property
    def source(self) -> RenderedSource:
        """The same examples, rendered when they are asked for."""
        assert isinstance(self.builder_config, RenderedConfig)
        return self.builder_config.source

    def _info(self) -> tfds.core.DatasetInfo:
        description = "an8Flower, re-created by a renderer: a flower whose class is the color of a part."
        return self.rendered_info(self.source, description, fold=tfds.features.Scalar(dtype=np.int32))

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        del dl_manager
        folds = [fold_indices(self.source, fold)[1] for fold in range(NUM_FOLDS)]
        if empty := [fold for fold, indices in enumerate(folds) if not len(indices)]:
            raise ValueError(
                f"num_per_class is {self.source.num_per_class}: no image falls into the folds {empty}; "
                "ask for more"
            )
        return {f"fold_{n}": self._generate_examples(self.source, fold) for n, fold in enumerate(folds)}

    def _more_features(self, source: RenderedSource, indices: np.ndarray) -> dict[str, Any]:
        return {"fold": folds_of(source, indices)}
