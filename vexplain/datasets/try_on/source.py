"""Try-on as a source of one domain, rendered when asked for, and as a paired test set of both."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from vexplain._checks import check_positive
from vexplain.datasets.foreground import context_images
from vexplain.datasets.rendered_domains import PAIRED, RenderedDomain, in_parts
from vexplain.datasets.sources import rounded
from vexplain.datasets.try_on.factors import Factors, draw_factors, in_catalog_pose
from vexplain.datasets.try_on.renderer import render_factors
from vexplain.typing import Float

DOMAINS = ("product", "worn")
_AT_ONCE = 10  # images whose points are in memory


@dataclasses.dataclass(frozen=True)
class TryOnSource(RenderedDomain):
    """The source of one domain of try-on; all else is told in `RenderedDomain`.

    Batches have "context_images" too: the images without the garment and what is next to it
    (`context_images`). In the splits `"pairs"` and `"partners"` product pictures are all taken alike, so that
    a worn garment has one product picture.

    Raises:
        ValueError: an unknown domain, variant or split, or a number below 1.

    Example:
        >>> source = TryOnSource(1, num_images=10, size=16)
        >>> batch = source[np.array([0, 7])]
        >>> batch["images"].shape, batch["context_images"].shape, batch["masks"].shape
        ((2, 16, 16, 3), (2, 16, 16, 3), (2, 16, 16))
    """

    @property
    def class_names(self) -> tuple[str, ...]:
        return DOMAINS

    def factors(self, indices: Any) -> Factors:
        """Returns the factors of some examples, batched."""
        drawn = _draw_batch(self.keys(indices), variant=self.variant)
        return in_catalog_pose(drawn) if self.split in PAIRED else drawn

    def rendered(self, factors: Factors, domain: int) -> dict[str, Any]:
        """Returns images, masks and context images of batched factors in a domain."""
        made = render_batch(factors, domain, size=self.size, samples=self.samples)
        return dict(zip(("images", "masks", "context_images"), made, strict=True))


class Pairs(NamedTuple):
    """The same garments as products (A) and worn (B), in [0, 1], and their factors.

    `targets_b` are the true translations of A to B given `contexts_b`, and `targets_a` those of B to A: one
    each, the partner. All other fields are those of `shape_swap.Pairs`.
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
    contexts_b: Float[np.ndarray, "pairs height width 3"]


def paired_test(num_pairs: int, **settings: Any) -> Pairs:
    """Returns garments in both domains: the split `"pairs"` of `TryOnSource`, in memory, with its truth.

    Args:
        num_pairs: how many; 2000 for the figures that others can compare with.
        **settings: variant, size, samples and seed, as in `TryOnSource`.

    Raises:
        ValueError: an unknown variant, or a number below 1.

    Example:
        >>> pairs = paired_test(2, size=16)
        >>> pairs.images_a.shape, pairs.contexts_b.shape
        ((2, 16, 16, 3), (2, 16, 16, 3))
    """
    check_positive(num_pairs=num_pairs)
    source = TryOnSource(0, num_images=num_pairs, split="pairs", **settings)
    factors = jax.device_get(source.factors(np.arange(num_pairs)))
    a, b = (in_parts(lambda part, d=domain: source.rendered(part, d), factors) for domain in (0, 1))
    return Pairs(
        *(a["images"], b["images"], a["masks"], b["masks"]),
        *(a["images"][:, None], b["images"][:, None], a["masks"][:, None], b["masks"][:, None]),
        factors,
        b["context_images"],
    )


@functools.partial(jax.jit, static_argnames="variant")
def _draw_batch(keys: jax.Array, *, variant: str) -> Factors:
    return jax.vmap(functools.partial(draw_factors, variant=variant))(keys)


@functools.partial(jax.jit, static_argnames=("size", "samples"))
def render_batch(
    factors: Factors, domain: jax.Array | int, *, size: int, samples: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns images, masks and context images of batched factors, rounded to 8 bits.

    A few images at once: all points of many would not stay in a CPU's cache, and one costs more calls than
    arithmetic.
    """

    def one(factors):
        return jax.tree.map(rounded, render_factors(factors, domain, size=size, samples=samples))

    images, masks = jax.lax.map(one, factors, batch_size=_AT_ONCE)
    return images, masks, rounded(context_images(images, masks))
