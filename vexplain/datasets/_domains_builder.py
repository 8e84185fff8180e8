"""Two rendered domains as files of TFDS: what the builders of such sets share.

Each domain has splits of its own: `train_a` and `train_b`, `validation_a` and `validation_b`, which share no
factors, and `test_a` and `test_b`, which are pairs: their records of the same index show the same object.
"""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from vexplain._checks import check_positive
from vexplain.datasets._rendered_builder import Examples, RenderedBuilder, RenderedBuilderConfig
from vexplain.datasets.rendered_domains import RenderedDomain

_SPLIT_OF = {"train": "train", "validation": "validation", "test": "pairs"}  # the split of the source
_NUMBERS = ("num_train", "num_validation", "num_test")


@dataclasses.dataclass(eq=False)
class DomainsConfig(RenderedBuilderConfig):
    """What is rendered: `num_train` and `num_validation` images of each domain, and `num_test` pairs."""

    _: dataclasses.KW_ONLY
    variant: str = "U"
    num_train: int = 20_000
    num_validation: int = 1_000
    num_test: int = 2_000
    size: int = 64
    samples: int = 3
    seed: int = 0

    SOURCE: ClassVar[type[RenderedDomain]]

    def __post_init__(self):
        check_positive(**{name: getattr(self, name) for name in _NUMBERS})
        self.source("train", 0)  # wrong settings raise
        settings = self.settings()
        usual = {field.name: field.default for field in dataclasses.fields(self)}
        self.describe(self.start, usual | {name: settings[name] for name in self.told})

    @property
    def start(self) -> str:
        """What the name begins with."""
        raise NotImplementedError

    @property
    def told(self) -> tuple[str, ...]:
        """The settings that the beginning of the name tells."""
        return ("variant",)

    def settings(self) -> dict[str, Any]:
        names = (field.name for field in dataclasses.fields(self))
        inherited = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        return {name: getattr(self, name) for name in names if name not in inherited}

    def source(self, split: str, domain: int) -> Any:
        """Returns the same examples of a split, "train", "validation" or "test", rendered when asked for."""
        settings = {name: value for name, value in self.settings().items() if name not in _NUMBERS}
        num_images = getattr(self, f"num_{split}")
        return self.SOURCE(domain, num_images=num_images, split=_SPLIT_OF[split], **settings)


class DomainsBuilder(RenderedBuilder, skip_registration=True):
    """TFDS builder of two domains. "label" is the domain, and "factors" a dictionary of all factors."""

    DESCRIPTION: ClassVar[str]

    @property
    def config(self) -> Any:
        """What is rendered."""
        assert isinstance(self.builder_config, DomainsConfig)
        return self.builder_config

    def _info(self) -> tfds.core.DatasetInfo:
        source = self.config.source("train", 0)
        factors = {
            name: tfds.features.Scalar(dtype=np.asarray(value).dtype)
            for name, value in source.factors(np.arange(1))._asdict().items()
        }
        return self.rendered_info(
            source, self.DESCRIPTION, factors=tfds.features.FeaturesDict(factors), **self.more_images(source)
        )

    def more_images(self, source: Any) -> dict[str, Any]:
        """Returns the features of images beside the usual ones."""
        del source
        return {}

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        del dl_manager
        parts = [(split, domain) for split in _SPLIT_OF for domain in (0, 1)]
        sources = {f"{split}_{'ab'[domain]}": self.config.source(split, domain) for split, domain in parts}
        return {name: self._generate_examples(s, np.arange(len(s))) for name, s in sources.items()}

    def _more_features(self, source: Any, indices: np.ndarray) -> dict[str, Any]:
        return {"factors": source.factors(indices)._asdict()}
