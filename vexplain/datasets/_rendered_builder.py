"""A rendered set as files of TFDS: what the builders of all such sets share.

The examples of a source, in 8 bits, are kept in the order of their indices. TFDS writes into a folder named
`incomplete...` and renames it when all is written. A preparation that fails removes that folder; one that is
killed leaves it behind, never to be read, and the next one begins anew.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from vexplain.datasets.sources import Source, as_eight_bits

Examples = Iterator[tuple[int, dict[str, Any]]]

_PICTURES = {
    "image": "images",
    "mask": "masks",
    "context": "context_images",
}  # by the keys of a batch
_BATCH = 64  # images rendered at once; always as many, so that the renderer is compiled once


@dataclasses.dataclass(eq=False)
class RenderedBuilderConfig(tfds.core.BuilderConfig):
    """What is rendered. The name is made of the settings, so that no two sets share a folder."""

    name: str = dataclasses.field(init=False)

    def settings(self) -> dict[str, Any]:
        """Returns what the images depend on, by name."""
        raise NotImplementedError

    def describe(self, start: str, usual: Mapping[str, Any]) -> None:
        """Sets the name, which begins with `start` and tells what is not as usual, and the description."""
        settings = self.settings()
        changed = [f"{name}_{value}" for name, value in settings.items() if value != usual[name]]
        self.name = "-".join([start, *changed])
        self.description = ", ".join(f"{name} {value}" for name, value in settings.items())


class RenderedBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder of renderings: "image" and "mask" as PNG of 8 bits, "label", and "index" in the source.

    Images are (height, width, 3), masks (height, width, 1), the coverage by what tells the class times 255.
    The same settings give the same PNG bytes on one kind of device; another kind may round a value of 8 bits
    differently. Checksums of whole files differ, as protobuf orders the fields of a record anew in each run.
    Records are `array_record` files: random access, no TensorFlow. `data_dir` is where TFDS keeps its sets.
    """

    VERSION = tfds.core.Version("1.0.0")  # to be raised when the renderer draws other images
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}

    def __init__(self, *, config: Any = None, file_format: Any = "array_record", **kwargs: Any):
        if isinstance(config, RenderedBuilderConfig):  # TFDS refuses a copy of a config that it lists
            config = self.builder_configs.get(config.name, config)
        super().__init__(config=config, file_format=file_format, **kwargs)

    def rendered_info(self, source: Any, description: str, **features: Any) -> tfds.core.DatasetInfo:
        """Returns the information about examples of a source with more features."""
        assert isinstance(self.builder_config, RenderedBuilderConfig)
        features |= {
            "image": tfds.features.Image(shape=(source.size, source.size, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(source.size, source.size, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=list(source.class_names)),
            "index": tfds.features.Scalar(dtype=np.int32),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(self.builder_config.settings()),
            disable_shuffling=True,  # an index mixes the classes already, or tells which records are pairs
        )

    def _generate_examples(self, source: Source, indices: np.ndarray) -> Examples:
        for start in range(0, len(indices), _BATCH):
            chosen = indices[start : start + _BATCH]
            filled = np.resize(chosen, _BATCH)
            batch, more = source[filled], jax.device_get(self._more_features(source, filled))
            pictures = {name: as_eight_bits(batch[key]) for name, key in _PICTURES.items() if key in batch}
            for place, index in enumerate(chosen.tolist()):
                example = {name: Image.fromarray(values[place]) for name, values in pictures.items()}
                example |= {"label": int(batch["labels"][place]), "index": index}
                yield index, example | jax.tree.map(lambda values, n=place: values[n].item(), more)

    def _more_features(self, source: Any, indices: np.ndarray) -> dict[str, Any]:
        """Returns arrays, or dictionaries of arrays, with a row an example."""
        raise NotImplementedError
