"""Regions of an image that a metric replaces together: pixels, patches or superpixels, drawn or in an order.

A region is a number of an image's pixels, so that one mechanism serves metrics of pixels (patches of 1), of
patches, and of the superpixels of any segmentation.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vexplain._checks import check_choice
from vexplain.attribution import Score
from vexplain.attribution.calling import checked_key
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Images, Int, PyTree, Shaped, Variables

CORRELATIONS = ("pearson", "spearman")
Maps = AnyArray  # (batch, height, width) of any sign; see check_maps
Regions = int | AnyArray
Keys = Any  # one key, or one an image


def grid_regions(height: int, width: int, size: int) -> Int[np.ndarray, "height width"]:
    """Returns for each pixel the number of its square patch, row by row from 0.

    Args:
        height: of the images, and so is `width`.
        width: in pixels.
        size: of a patch in pixels; the last ones are cut off at the border.

    Example:
        >>> print(grid_regions(2, 5, 2))
        [[0 0 1 1 2]
         [0 0 1 1 2]]
    """
    if size < 1:
        raise ValueError(f"regions is {size}: expected patches of 1 pixel or more, or an array of integers")
    across = -(-width // size)
    return np.arange(height)[:, None] // size * across + np.arange(width) // size


def as_regions(regions: Regions, maps: Maps, num_regions: int | None) -> tuple[Array, int]:
    """Returns the number of the region of each pixel, (batch, height, width), and how many regions there are.

    Args:
        regions: the size of square patches, or the numbers, (height, width) or (batch, height, width).
        maps: the maps of the images.
        num_regions: how many there are; to be given where `regions` is traced.

    Raises:
        ValueError: numbers of another shape or kind, negative ones, or traced ones without `num_regions`.
    """
    shape = maps.shape
    numbers: Any = regions
    if isinstance(regions, int):
        numbers = grid_regions(shape[1], shape[2], regions)
    if not jnp.issubdtype(numbers.dtype, jnp.integer) or numbers.shape not in (shape, shape[1:]):
        raise ValueError(
            f"regions has shape {numbers.shape} and dtype {numbers.dtype}: expected integers {shape} or "
            f"{shape[1:]}, or the size of square patches"
        )
    if isinstance(numbers, Tracer):
        if num_regions is None:
            raise ValueError("num_regions is None: pass how many regions there are where regions is traced")
    else:
        num_regions = count_regions(numbers, num_regions)
    return jnp.broadcast_to(jnp.asarray(numbers), shape), num_regions


def count_regions(numbers: AnyArray, num_regions: int | None) -> int:
    """Returns how many regions there are; numbers that are negative or not below `num_regions` raise.

    Args:
        numbers: of the regions, whose values are known.
        num_regions: how many there are; one more than the largest number if left out.
    """
    low, high = int(numbers.min()), int(numbers.max())
    count = high + 1 if num_regions is None else num_regions
    if low < 0 or high >= count:
        raise ValueError(f"regions go from {low} to {high}: expected 0 to {count - 1}")
    return count


def check_several(num_regions: int) -> None:
    """Raises ValueError unless there are two regions or more, of which one may be in a subset."""
    if num_regions < 2:
        raise ValueError(f"regions has {num_regions} region: expected 2 or more, such as smaller patches")


def of_each_region(values: Maps, regions: Array, num_regions: int) -> Float[Array, "batch regions"]:
    """Returns the sum of the values over each region.

    Args:
        values: of each pixel.
        regions: of each pixel, (batch, height, width).
        num_regions: how many there are.
    """

    def totals(values, regions):
        return jax.ops.segment_sum(values.ravel(), regions.ravel(), num_segments=num_regions)

    return jax.vmap(totals)(values, regions)


def at_pixels(values: Shaped[Array, "batch regions"], regions: Array) -> Array:
    """Returns the value of its region at each pixel, (batch, height, width).

    Args:
        values: of each region.
        regions: of each pixel.
    """
    return jax.vmap(lambda row, numbers: row[numbers])(values, regions)


def drawn_subsets(keys: Any, count: int, size: Any) -> Shaped[Array, "batch count"]:
    """Returns for each key which of `count` things are in a random subset of exactly `size` of them."""
    return jax.vmap(lambda key: jax.random.permutation(key, count) < size)(keys)


def subset_effects(
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    cover: Array,
    score: Score,
    heatmaps: Maps,
    regions: tuple[Array, int],
    keys: Any,
    draws: tuple[Array, Array],
) -> tuple[Float[Array, "draws batch"], Float[Array, "draws batch"]]:
    """Returns the mass of random subsets of regions, and what the score loses where they are replaced.

    Args:
        cover: what replaces them.
        regions: as `as_regions` returned them.
        keys: one an image.
        draws: the number of each draw, from which its key follows, and the size of its subset.
    """
    places, count = regions
    totals = of_each_region(heatmaps, places, count)
    whole = score(apply(variables, images), targets)

    def of_draw(draw):
        number, size = draw
        chosen = drawn_subsets(jax.vmap(lambda key: jax.random.fold_in(key, number))(keys), count, size)
        covered = jnp.where(at_pixels(chosen, places)[..., None], cover, images)
        return (chosen * totals).sum(1), whole - score(apply(variables, covered), targets)

    return jax.lax.map(of_draw, draws)


def image_keys(name: str, key: Keys, count: int) -> Any:
    """Returns one key an image: those given, or what follows from one key and the place in the batch.

    Args:
        name: of the function that draws.
        key: one, or (count,).
        count: of the images.

    Raises:
        ValueError: there is no key, it is something else, or there are others in number.
    """
    key = checked_key(name, key, True, count)
    return key if key.ndim else jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.arange(count))


def check_maps(name: str, maps: Any, images: Images) -> Array:
    """Returns maps as an array, once they have one value a pixel.

    Raises:
        ValueError: they have another shape than (batch, height, width) of the images.
    """
    if getattr(maps, "shape", None) != images.shape[:3]:
        given = f"shape {maps.shape}" if hasattr(maps, "shape") else f"the type {type(maps).__name__}"
        advice = "; sum attributions over channels" if getattr(maps, "ndim", 0) == 4 else ""
        raise ValueError(f"{name} has {given}: expected {images.shape[:3]}, one value a pixel{advice}")
    return jnp.asarray(maps)


def check_correlation(value: str) -> None:
    """Raises ValueError unless it is the name of a correlation."""
    check_choice("correlation", value, CORRELATIONS)
