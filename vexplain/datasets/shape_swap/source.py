"""One domain of shape swap as a source of images, rendered when they are asked for."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.datasets.shape_swap.factors import VARIANTS, Factors, draw_factors
from vexplain.datasets.shape_swap.renderer import render_factors
from vexplain.datasets.shape_swap.shapes import shape_names
from vexplain.datasets.sources import LazySource, rounded

SPLITS = ("train", "validation", "test", "pairs", "partners")
PAIRED = ("pairs", "partners")  # example i of A and of B are the same object


@dataclasses.dataclass(frozen=True)
class ShapeSwapSource(LazySource):
    """A fixed set of renderings of one domain; the label is the domain.

    Split and domain are part of every random key: the sets of the two domains, and the splits, share no
    vector of factors. Two splits leave the domain out, so that example i of A and example i of B are the same
    object: `"pairs"`, the truth of an evaluation, never seen in training, and `"partners"`, on which a
    supervised upper bound is trained. Images are rounded to 8 bits, so that they are those of the same set
    stored as files.

    Args:
        domain: 0 for A, 1 for B.
        level: which shapes, 1 to 4.
        variant: `"U"`, all hues equally likely, or `"N"`, skewed.
        num_images: how many.
        size: height and width in pixels.
        samples: points a pixel along each axis.
        seed: of the keys.
        split: `"train"`, `"validation"`, `"test"`, `"pairs"` or `"partners"`.

    Raises:
        ValueError: an unknown domain, level, variant or split, or a number below 1.

    Example:
        >>> source = ShapeSwapSource(1, num_images=10, size=16)
        >>> batch = source[np.array([0, 7])]
        >>> batch["images"].shape, batch["masks"].shape, batch["labels"].tolist()
        ((2, 16, 16, 3), (2, 16, 16), [1, 1])
    """

    domain: int
    _: dataclasses.KW_ONLY
    level: int = 4
    variant: str = "U"
    num_images: int = 20_000
    size: int = 64
    samples: int = 3
    seed: int = 0
    split: str = "train"

    def __post_init__(self):
        shape_names(self.level)  # an unknown level raises
        for name, choices in (("domain", (0, 1)), ("variant", VARIANTS), ("split", SPLITS)):
            check_choice(name, getattr(self, name), choices)
        check_positive(num_images=self.num_images, size=self.size, samples=self.samples)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The shapes of domains A and B."""
        return shape_names(self.level)

    def __len__(self) -> int:
        return self.num_images

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        options = {"level": self.level, "size": self.size, "samples": self.samples}
        images, masks = render_batch(self.factors(indices), self.domain, **options)
        return {"images": images, "masks": masks, "labels": np.full(indices.shape, self.domain, np.int32)}

    def keys(self, indices: Any) -> jax.Array:
        """Returns the random keys of some examples: functions of seed, split, domain and index."""
        indices = jnp.asarray(self.checked(indices).astype(np.uint32))
        root = jax.random.fold_in(jax.random.key(self.seed), SPLITS.index(self.split))
        root = root if self.split in PAIRED else jax.random.fold_in(root, self.domain)
        return jax.vmap(lambda index: jax.random.fold_in(root, index))(indices)

    def factors(self, indices: Any) -> Factors:
        """Returns the factors of some examples, batched."""
        return _draw_batch(self.keys(indices), level=self.level, variant=self.variant)


@functools.partial(jax.jit, static_argnames=("level", "variant"))
def _draw_batch(keys: jax.Array, *, level: int, variant: str) -> Factors:
    return jax.vmap(functools.partial(draw_factors, level=level, variant=variant))(keys)


@functools.partial(jax.jit, static_argnames=("level", "size", "samples"))
def render_batch(
    factors: Factors, domain: jax.Array | int, *, level: int, size: int, samples: int
) -> tuple[jax.Array, jax.Array]:
    """Returns images and masks of batched factors, rounded to 8 bits.

    One image after the other, whose points stay in a CPU's cache; the points of one fill an accelerator.
    """

    def one(factors):
        found = render_factors(factors, domain, level=level, size=size, samples=samples)
        return jax.tree.map(rounded, found)

    return jax.lax.map(one, factors)
