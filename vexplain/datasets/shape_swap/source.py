"""Shape swap as a source of one domain, rendered when asked for, and as a paired test set of both."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from vexplain._checks import check_positive
from vexplain.datasets.rendered_domains import PAIRED as PAIRED
from vexplain.datasets.rendered_domains import SPLITS as SPLITS
from vexplain.datasets.rendered_domains import RenderedDomain, in_parts
from vexplain.datasets.shape_swap.factors import NUM_CORNERS, NUM_SPIKES, Factors, draw_factors
from vexplain.datasets.shape_swap.renderer import render_factors, shape_names
from vexplain.datasets.sources import rounded
from vexplain.typing import Float


@dataclasses.dataclass(frozen=True)
class ShapeSwapSource(RenderedDomain):
    """The source of one domain of shape swap; all else is told in `RenderedDomain`.

    Args:
        level: which shapes, 1 to 4.

    Raises:
        ValueError: an unknown domain, level, variant or split, or a number below 1.

    Example:
        >>> source = ShapeSwapSource(1, num_images=10, size=16)
        >>> batch = source[np.array([0, 7])]
        >>> batch["images"].shape, batch["masks"].shape, batch["labels"].tolist()
        ((2, 16, 16, 3), (2, 16, 16), [1, 1])
    """

    _: dataclasses.KW_ONLY
    level: int = 4

    def __post_init__(self):
        shape_names(self.level)  # an unknown level raises
        super().__post_init__()

    @property
    def class_names(self) -> tuple[str, ...]:
        return shape_names(self.level)

    def rendered(self, factors: Factors, domain: int) -> dict[str, Any]:
        """Returns images and masks of batched factors in a domain."""
        options = {"level": self.level, "size": self.size, "samples": self.samples}
        return dict(zip(("images", "masks"), render_batch(factors, domain, **options), strict=True))

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
        made = in_parts(lambda part: source.rendered(part, domain), factors._replace(**own))
        return made["images"], made["masks"]

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
