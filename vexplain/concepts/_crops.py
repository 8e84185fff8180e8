"""Crops of the images of a source at random places, and what a layer says of each."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vexplain.concepts._layers import activations_of, as_features
from vexplain.transforms import Layer
from vexplain.typing import Array, Batch, Float, Int, Variables

CROP_SHARE = 0.3  # of the sides of an image


class Crops(NamedTuple):
    """The mean activations of crops, which crops they are of, and which could be read."""

    features: Float[Array, "crops size"]
    crops: Int[Array, "crops 3"]
    weights: Float[Array, " crops"]
    num_rows: Int[Array, ""]


def no_crops(count: int, num_channels: int) -> Crops:
    """Returns the state before the first batch."""
    return Crops(
        jnp.zeros((count, num_channels)),
        jnp.zeros((count, 3), jnp.int32),
        jnp.zeros(count),
        jnp.zeros((), jnp.int32),
    )


def cropped(
    apply: Any,
    layer: str | Layer,
    size: tuple[int, int],
    count: int,
    seed: int,
    state: Crops,
    batch: Batch,
    variables: Variables,
) -> Crops:
    """Returns the state with the crops of a batch: an update for `fold_epoch`.

    Args:
        apply: the network.
        layer: that is read.
        size: (height, width) of the crops.
        count: crops an image, at places that follow from the seed and the index of the image.
        seed: of the places.
        state: so far.
        batch: with "images", "indices" and "weights".
        variables: of the network.
    """
    images, indices = jnp.asarray(batch["images"]), jnp.asarray(batch["indices"])
    shape = images.shape
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), indices)
    ends = jnp.array([shape[1] - size[0] + 1, shape[2] - size[1] + 1])
    corners = jax.vmap(lambda key: jax.random.randint(key, (count, 2), 0, ends))(keys)

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (*size, shape[3]))

    cuts = jax.vmap(jax.vmap(cut, (None, 0)))(images, corners).reshape(-1, *size, shape[3])
    whole = jax.image.resize(cuts, (len(cuts), *shape[1:]), "linear")
    found = as_features(activations_of(apply, variables, whole, layer), "mean")
    crops = jnp.concatenate([jnp.repeat(indices, count)[:, None], corners.reshape(-1, 2)], 1)
    places = state.num_rows + jnp.arange(len(whole))
    weights = jnp.repeat(batch["weights"], count)
    return Crops(
        state.features.at[places].set(found.astype(state.features.dtype), mode="drop"),
        state.crops.at[places].set(crops.astype(state.crops.dtype), mode="drop"),
        state.weights.at[places].set(weights.astype(state.weights.dtype), mode="drop"),
        state.num_rows + len(whole),
    )


def as_crop_size(given: int | tuple[int, int] | None, whole: tuple[int, ...]) -> tuple[int, int]:
    """Returns (height, width) of the crops of images, from what was given.

    Raises:
        ValueError: they are larger than the images.
    """
    if given is None:
        given = round(whole[0] * CROP_SHARE) or 1, round(whole[1] * CROP_SHARE) or 1
    height, width = (given, given) if isinstance(given, int) else given
    if not (1 <= height <= whole[0] and 1 <= width <= whole[1]):
        raise ValueError(f"crop_size is {given}: expected 1 pixel up to the size of the images, {whole}")
    return height, width
