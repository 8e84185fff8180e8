"""Try-on, prepared once as files and read at random: the set that an experiment can name.

The examples are those of `TryOnSource`, in the splits `train_a`, `train_b`, `validation_a`, `validation_b`,
and `test_a` and `test_b`, whose records of the same index show the same garment as a product and worn.
"""

import dataclasses
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from vexplain.datasets._domains_builder import DomainsBuilder, DomainsConfig
from vexplain.datasets.appearance import VARIANTS
from vexplain.datasets.try_on.source import TryOnSource


@dataclasses.dataclass(eq=False)
class TryOnConfig(DomainsConfig):
    """What is rendered. The name is made of the settings: no two sets share a folder.

    There are `num_train` and `num_validation` images of each domain, and `num_test` pairs; what else there is
    is told in `TryOnSource`, also what raises.

    Example:
        >>> TryOnConfig(variant="F", num_train=5, size=32).name
        'try_on_F-num_train_5-size_32'
    """

    SOURCE: ClassVar = TryOnSource

    @property
    def start(self) -> str:
        return f"try_on_{self.variant}"


class TryOnRendered(DomainsBuilder):
    """TFDS builder of try-on, in configs `try_on_U`, `try_on_N` and `try_on_F` at 64 pixels.

    Features: those of `RenderedBuilder`, "context", the image without the garment, and "factors", a
    dictionary of all `Factors`; "label" is the domain. Splits: `train_a`, `train_b`, `validation_a`,
    `validation_b`, and `test_a` and `test_b`, records of pairs.

    Args:
        config: a name as above, or a `TryOnConfig`.

    Example:
        >>> builder = TryOnRendered(config=TryOnConfig(num_train=50, size=48))
        >>> builder.info.features["context"].shape, builder.info.features["label"].names
        ((48, 48, 3), ['product', 'worn'])
        >>> builder.download_and_prepare()  # doctest: +SKIP
        >>> train_a = from_tfds(builder.as_data_source(split="train_a"))  # doctest: +SKIP
    """

    DESCRIPTION = "Try-on: garments as products and worn by a figure, with masks and context images."
    BUILDER_CONFIGS = [TryOnConfig(variant=variant) for variant in VARIANTS]  # noqa: RUF012

    def more_images(self, source: Any) -> dict[str, Any]:
        shape = (source.size, source.size, 3)
        return {"context": tfds.features.Image(shape=shape, encoding_format="png")}
