"""The paired test set of shape swap: each object in both domains, for evaluation and never for training."""

from typing import NamedTuple

import jax
import numpy as np

from vexplain.datasets.shape_swap.factors import NUM_CORNERS, NUM_SPIKES, Factors
from vexplain.datasets.shape_swap.source import ShapeSwapSource, render_batch
from vexplain.typing import Float

_BATCH = 100  # pairs rendered at once


class Pairs(NamedTuple):
    """The same objects in domains A and B, in [0, 1], and the factors behind them.

    `targets_b` are all true translations of an A to B, and `targets_a` of a B to A: a domain's own factor is
    free, so that at level 3 there are the stars of 4 to 8 spikes, and the polygons of 3 to 6 corners. At all
    other levels there is one, the partner.
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


def paired_test(
    num_pairs: int,
    *,
    level: int = 4,
    variant: str = "U",
    size: int = 64,
    samples: int = 3,
    seed: int = 0,
) -> Pairs:
    """Returns objects in both domains: the split `"pairs"` of `ShapeSwapSource`, in memory, with its truth.

    Args:
        num_pairs: how many; 2000 for the figures that others can compare with.
        level: which shapes, 1 to 4.
        variant: `"U"` or `"N"`.
        size: height and width in pixels.
        samples: points a pixel along each axis.
        seed: of the keys.

    Raises:
        ValueError: an unknown level or variant, or a number below 1.

    Example:
        >>> pairs = paired_test(2, level=3, size=16)
        >>> pairs.images_a.shape, pairs.targets_b.shape
        ((2, 16, 16, 3), (2, 5, 16, 16, 3))
    """
    if num_pairs < 1:
        raise ValueError(f"num_pairs is {num_pairs}: expected at least 1")
    settings = {"level": level, "size": size, "samples": samples}
    source = ShapeSwapSource(0, variant=variant, num_images=num_pairs, seed=seed, split="pairs", **settings)
    factors = jax.device_get(source.factors(np.arange(num_pairs)))

    def rendered(domain, **own):
        return _render_all(factors._replace(**own), domain, **settings)

    (images_a, masks_a), (images_b, masks_b) = rendered(0), rendered(1)
    a, b = [(images_a, masks_a)], [(images_b, masks_b)]
    if level == 3:
        a = [rendered(0, corners=np.full(num_pairs, count, np.int32)) for count in NUM_CORNERS]
        b = [rendered(1, spikes=np.full(num_pairs, count, np.int32)) for count in NUM_SPIKES]
    targets_a, target_masks_a = (np.stack(arrays, axis=1) for arrays in zip(*a, strict=True))
    targets_b, target_masks_b = (np.stack(arrays, axis=1) for arrays in zip(*b, strict=True))
    return Pairs(
        *(images_a, images_b, masks_a, masks_b),
        *(targets_a, targets_b, target_masks_a, target_masks_b),
        factors,
    )


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
