"""Two rendered domains with the true partner of each image: splits, random keys and rendering in parts."""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.datasets.appearance import VARIANTS
from vexplain.datasets.sources import LazySource, as_places

SPLITS = ("train", "validation", "test", "pairs", "partners")
PAIRED = ("pairs", "partners")  # example i of A and of B are the same object
_BATCH = 100  # examples rendered at once


@dataclasses.dataclass(frozen=True)
class RenderedDomain(LazySource):
    """A fixed set of renderings of one domain; the label is the domain.

    Split and domain are part of every random key: the sets of the two domains, and the splits, share no
    vector of factors. In two splits example i of A and example i of B are the same object: `"pairs"`, the
    truth of an evaluation, never seen in training, and `"partners"`, on which a supervised upper bound is
    trained. Images are rounded to 8 bits, as those of the same set stored as files are.

    Args:
        domain: 0 for A, 1 for B.
        variant: `"U"`, `"N"` or `"F"`, of the appearance.
        num_images: how many.
        size: height and width in pixels.
        samples: points a pixel along each axis.
        seed: of the keys.
        split: `"train"`, `"validation"`, `"test"`, `"pairs"` or `"partners"`.
    """

    domain: int
    _: dataclasses.KW_ONLY
    variant: str = "U"
    num_images: int = 20_000
    size: int = 64
    samples: int = 3
    seed: int = 0
    split: str = "train"

    def __post_init__(self):
        for name, choices in (("domain", (0, 1)), ("variant", VARIANTS), ("split", SPLITS)):
            check_choice(name, getattr(self, name), choices)
        check_positive(num_images=self.num_images, size=self.size, samples=self.samples)

    def __len__(self) -> int:
        return self.num_images

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        rendered = self.rendered(self.factors(indices), self.domain)
        return {**rendered, "labels": np.full(indices.shape, self.domain, np.int32)}

    @abc.abstractmethod
    def factors(self, indices: Any) -> Any:
        """Returns the factors of some examples, batched."""

    @abc.abstractmethod
    def rendered(self, factors: Any, domain: int) -> dict[str, Any]:
        """Returns images, masks and what else a batch has, of batched factors in a domain."""

    def keys(self, indices: Any) -> jax.Array:
        """Returns the random keys of some examples: functions of seed, split, domain and index."""
        indices = jnp.asarray(as_places(indices, len(self)).astype(np.uint32))
        root = jax.random.fold_in(jax.random.key(self.seed), SPLITS.index(self.split))
        root = root if self.split in PAIRED else jax.random.fold_in(root, self.domain)
        return jax.vmap(lambda index: jax.random.fold_in(root, index))(indices)


def in_parts(function: Callable[[Any], Any], factors: Any) -> Any:
    """Returns `function(factors)`, a tree of arrays, over parts of one size, so that one program serves all.

    Args:
        function: of batched factors.
        factors: any number of them.
    """
    count = len(jax.tree.leaves(factors)[0])
    parts = []
    for start in range(0, count, _BATCH):
        chosen = np.minimum(np.arange(start, start + _BATCH), count - 1)
        part = function(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], factors))
        parts.append(jax.tree.map(lambda array, end=count - start: np.asarray(array)[:end], part))
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
