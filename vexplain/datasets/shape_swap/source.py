"""Shape swap as a source of one domain, rendered when asked for, and as a paired test set of both."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.datasets.shape_swap.factors import (
    NUM_CORNERS,
    NUM_SPIKES,
    VARIANTS,
    Factors,
    draw_factors,
)
from vexplain.datasets.shape_swap.renderer import render_factors, shape_names
from vexplain.datasets.sources import LazySource, as_places, rounded
from vexplain.typing import Float

SPLITS = ("train", "validation", "test", "pairs", "partners")
PAIRED = ("pairs", "partners")  # example i of A and of B are the same object
_BATCH = 100  # pairs rendered at once


@dataclasses.dataclass(frozen=True)
class ShapeSwapSource(LazySource):
    """A fixed set of renderings of one domain; the label is the domain.

    Split and domain are part of every random key: the sets of the two domains, and the splits, share no
    vector of factors. In two splits example i of A and example i of B are the same object: `"pairs"`, the
    truth of an evaluation, never seen in training, and `"partners"`, on which a supervised upper bound is
    trained. Images are rounded to 8 bits, as those of the same set stored as files are.

    Domain, level, variant, size and samples are those of `render`.

    Args:
        num_images: how many.
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
        return shape_names(self.level)

    def __len__(self) -> int:
        return self.num_images

    @property
    def options(self) -> dict[str, int]:
        """Those of `render_batch`."""
        return {"level": self.level, "size": self.size, "samples": self.samples}

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        images, masks = render_batch(self.factors(indices), self.domain, **self.options)
        return {"images": images, "masks": masks, "labels": np.full(indices.shape, self.domain, np.int32)}

    def keys(self, indices: Any) -> jax.Array:
        """Returns the random keys of some examples: functions of seed, split, domain and index."""
        indices = jnp.asarray(as_places(indices, len(self)).astype(np.uint32))
        root = jax.random.fold_in(jax.random.key(self.seed), SPLITS.index(self.split))
        root = root if self.split in PAIRED else jax.random.fold_in(root, self.domain)
        return jax.vmap(lambda index: jax.random.fold_in(root, index))(indices)

    def factors(self, indices: Any) -> Factors:
        """Returns the factors of some examples, batched."""
        return _draw_batch(self.keys(indices), level=self.level, variant=self.variant)


class Pairs(NamedTuple):
    """The same objects in domains A and B, in [0, 1], and their factors.

    `targets_b` are all true translations of an A to B, and `targets_a` of a B to A: at level 3 the stars of 4
    to 8 spikes and the polygons of 3 to 6 corners, for a domain's own factor is free; else the partner alone.
    """

    images_a: Float[np.ndarray, "pairs height width 3"]
    images_b: Float[np.ndarray, "pairs height width 3"]
    masks_a: Float[np.ndarray, "pairs height width"]
    masks_b: Float[np.ndarray, "pairs height width"]
    targets_a: Float[np.ndarray, "pairs targets_a height width 3"]
    targets_b: Float[np.ndarray, "pairs targets_b height width 3"]
    target_masks_a: Float[np.ndarray, "pairs targets_a height width"]
    target_masks_b: Float[np.ndarray, "pairs targets_b height width"]
    factors: Factors


def paired_test(num_pairs: int, **settings: Any) -> Pairs:
    """Returns objects in both domains: the split `"pairs"` of `ShapeSwapSource`, in memory, with its truth.

    Args:
        num_pairs: how many; 2000 for the figures that others can compare with.
        **settings: level, variant, size, samples and seed, as in `ShapeSwapSource`.

    Raises:
        ValueError: an unknown level or variant, or a number below 1.

    Example:
        >>> pairs = paired_test(2, level=3, size=16)
        >>> pairs.images_a.shape, pairs.targets_b.shape
        ((2, 16, 16, 3), (2, 5, 16, 16, 3))
    """
    check_positive(num_pairs=num_pairs)
    source = ShapeSwapSource(0, num_images=num_pairs, split="pairs", **settings)
    factors = jax.device_get(source.factors(np.arange(num_pairs)))

    def rendered(domain, **own):
        return _render_all(factors._replace(**own), domain, **source.options)

    (images_a, masks_a), (images_b, masks_b) = rendered(0), rendered(1)
    a, b = [(images_a, masks_a)], [(images_b, masks_b)]
    if source.level == 3:
        a = [rendered(0, corners=np.full(num_pairs, count, np.int32)) for count in NUM_CORNERS]
        b = [rendered(1, spikes=np.full(num_pairs, count, np.int32)) for count in NUM_SPIKES]
    targets_a, target_masks_a = (np.stack(arrays, axis=1) for arrays in zip(*a, strict=True))
    targets_b, target_masks_b = (np.stack(arrays, axis=1) for arrays in zip(*b, strict=True))
    return Pairs(
        *(images_a, images_b, masks_a, masks_b),
        *(targets_a, targets_b, target_masks_a, target_masks_b),
        factors,
    )


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


def _render_all(factors: Factors, domain: int, **settings: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks in batches of one size, so that one program serves all."""
    count = len(factors.hue)
    parts = []
    for start in range(0, count, _BATCH):
        chosen = np.minimum(np.arange(start, start + _BATCH), count - 1)
        batch = render_batch(Factors(*(leaf[chosen] for leaf in factors)), domain, **settings)
        parts.append([np.asarray(array)[: count - start] for array in batch])
    images, masks = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return images, masks
