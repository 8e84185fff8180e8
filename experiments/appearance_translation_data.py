"""The rendered data of appearance translation: to train on, to test on, and to find objects again in."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from tqdm.auto import tqdm

from vexplain.datasets import Source, context_holes, shape_swap, try_on
from vexplain.datasets.batches import gather
from vexplain.streaming import is_writer

Data = Literal["shape_swap", "try_on"]


@dataclasses.dataclass(frozen=True)
class ShapeSwap:
    """Objects in the same pose before plain backgrounds: nothing but their images is needed."""

    options: Mapping[str, Any]  # variant and size
    level: int
    seed: int  # of what is trained on
    num_images: int
    num_pairs: int
    has_scenes: ClassVar[bool] = False

    def training(self, *, split: str) -> dict[str, np.ndarray]:
        """Arrays in 8 bits by name; the last letter is the domain."""
        return {d: self._gathered(n, split)["images"] for n, d in enumerate("ab")}

    def pairs(self) -> Any:
        """The test set."""
        return shape_swap.paired_test(self.num_pairs, level=self.level, **self.options)

    def galleries(self, pairs, direction: str, matched: str) -> np.ndarray:
        """Candidates of the other domain for each pair, the partner first."""
        return shape_swap.galleries(pairs, direction, level=self.level, matched=matched)

    def given(self, pairs, direction: str) -> dict[str, np.ndarray]:
        """What the model is told of each test image beside its pixels."""
        return {}

    def gallery_coverage(self, pairs, direction: str, gallery: np.ndarray) -> np.ndarray | None:
        """Where the objects of the candidates are, if it has to be told."""
        return None

    def _source(self, domain: int, split: str) -> Source:
        return shape_swap.ShapeSwapSource(
            domain,
            split=split,
            num_images=self.num_images,
            level=self.level,
            seed=self.seed,
            **self.options,
        )

    def _gathered(self, domain: int, split: str) -> dict[str, np.ndarray]:
        bar = functools.partial(tqdm, desc=f"Rendering domain {'AB'[domain]}", unit="batch")
        return gather(
            self._source(domain, split), batch_size=256, progress=lambda r: bar(r, disable=not is_writer())
        )


@dataclasses.dataclass(frozen=True)
class TryOn(ShapeSwap):
    """Garments as products (A) and worn (B): where they are is told, and for try-on the wearer without it."""

    has_scenes: ClassVar[bool] = True

    def training(self, *, split: str) -> dict[str, np.ndarray]:
        product, worn = (self._gathered(n, split) for n in (0, 1))
        return {
            "a": product["images"],
            "coverage_a": product["masks"],
            "b": worn["images"],
            "coverage_b": worn["masks"],
            "scenes_b": worn["context_images"],
            "holes_b": (255 * _holes(worn["masks"])).astype(np.uint8),
        }

    def pairs(self) -> Any:
        return try_on.paired_test(self.num_pairs, **self.options)

    def galleries(self, pairs, direction: str, matched: str) -> np.ndarray:
        return try_on.galleries(pairs, direction, matched=matched)

    def given(self, pairs, direction: str) -> dict[str, np.ndarray]:
        if direction == "ba":
            return {"coverage": pairs.masks_b}
        return {"coverage": pairs.masks_a, "scenes": pairs.contexts_b, "holes": _holes(pairs.masks_b)}

    def gallery_coverage(self, pairs, direction: str, gallery: np.ndarray) -> np.ndarray | None:
        masks = {"ab": pairs.masks_b, "ba": pairs.masks_a}[direction]
        return np.broadcast_to(masks[:, None], gallery.shape[:-1])

    def _source(self, domain: int, split: str) -> Source:
        return try_on.TryOnSource(
            domain, split=split, num_images=self.num_images, seed=self.seed, **self.options
        )


def rendered_data(config) -> ShapeSwap:
    """The data of a configuration."""
    kind = {"shape_swap": ShapeSwap, "try_on": TryOn}[config.data]
    options = {"variant": config.variant, "size": config.size}
    return kind(options, config.level, config.seed, config.num_images, config.num_pairs)


def _holes(masks: np.ndarray) -> np.ndarray:
    return np.asarray(context_holes(masks))
