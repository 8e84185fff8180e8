"""Shape swap, prepared once as files and read at random: the set that an experiment can name.

The examples are those of `ShapeSwapSource`. Each domain has splits of its own: `train_a` and `train_b`,
`validation_a` and `validation_b`, which share no factors, and `test_a` and `test_b`, which are pairs: their
records of the same index show the same object in both shapes.
"""

import dataclasses
from typing import ClassVar

from vexplain.datasets._domains_builder import DomainsBuilder, DomainsConfig
from vexplain.datasets.shape_swap.factors import VARIANTS
from vexplain.datasets.shape_swap.renderer import LEVELS
from vexplain.datasets.shape_swap.source import ShapeSwapSource


@dataclasses.dataclass(eq=False)
class ShapeSwapConfig(DomainsConfig):
    """What is rendered. The name is made of the settings: no two sets share a folder.

    There are `num_train` and `num_validation` images of each domain, and `num_test` pairs; what else there is
    is told in `ShapeSwapSource`, also what raises.

    Example:
        >>> ShapeSwapConfig(level=4, variant="N", num_train=5, size=16).name
        'level_4_N-num_train_5-size_16'
    """

    _: dataclasses.KW_ONLY
    level: int = 4

    SOURCE: ClassVar = ShapeSwapSource

    @property
    def start(self) -> str:
        return f"level_{self.level}_{self.variant}"

    @property
    def told(self) -> tuple[str, ...]:
        return ("level", "variant")


class ShapeSwapRendered(DomainsBuilder):
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

    DESCRIPTION = "Shape swap: objects of two shapes that share appearance and pose, with the truth."
    BUILDER_CONFIGS = [  # noqa: RUF012
        ShapeSwapConfig(level=level, variant=variant) for level in LEVELS for variant in VARIANTS
    ]
