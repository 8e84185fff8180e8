"""How concepts read a layer: its activations as features, and those of all images of a source."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain.attribution import Network, cam_layer
from vexplain.datasets import Source
from vexplain.datasets.sources import LazySource
from vexplain.streaming import fold_epoch
from vexplain.streaming.devices import Mesh
from vexplain.transforms import Layer, channels_last, edit, read
from vexplain.transforms import layers as layers_of
from vexplain.typing import Array, Batch, Float, Int, Variables

Pooling: TypeAlias = Literal["mean", "none"]
POOLINGS = ("mean", "none")


class Rows(NamedTuple):
    """The features of each image of a source, and which images could be read."""

    features: Float[Array, "images size"]
    weights: Float[Array, " images"]
    num_rows: Int[Array, ""]  # that are filled


def concept_layer(apply: Any, variables: Variables, images: Any, layer: str | Layer | None) -> Layer:
    """Returns a layer whose channels can be read, with its shape for these images.

    Args:
        layer: by name or from the layer table; that of class activation maps, `cam_layer`, if left out.

    Raises:
        KeyError: there is no layer of this name.
        ValueError: its channels cannot be told apart, image by image.
    """
    table = layers_of(apply, variables, images)
    name = cam_layer(table) if layer is None else layer if isinstance(layer, str) else layer.name
    row = table[name]
    if isinstance(layer, Layer):  # of a table of other batch sizes, perhaps
        row = dataclasses.replace(layer, shape=row.shape)
    if not row.is_readable or row.inside is not None:
        raise ValueError(
            f"layer {name!r} of shape {row.shape} cannot be read, "
            f"{row.unreadable or f'inside {row.inside}'}: "
            "choose another one of vexplain.layers(apply, variables, images)"
        )
    return row


def layer_of_source(
    apply: Any, variables: Variables, source: Source, layer: str | Layer | None, batch_size: int
) -> Layer:
    """Returns the layer for batches of a source, as `concept_layer`."""
    (image,) = np.asarray(source[[0]]["images"])
    return concept_layer(
        apply, variables, jax.ShapeDtypeStruct((batch_size, *image.shape), image.dtype), layer
    )


def activations_of(apply: Any, variables: Variables, images: Any, layer: str | Layer) -> Array:
    """Returns the activations of a layer, (batch, *positions, channels)."""
    row = concept_layer(apply, variables, images, layer)
    return channels_last(read(apply, [row.name])(variables, images)[1][row.name], row)


def gradients_of(network: Network, images: Any, targets: Any, layer: str | Layer) -> Array:
    """Returns ∂ score / ∂ activations of a layer, (batch, *positions, channels)."""
    row = concept_layer(network.apply, network.variables, images, layer)

    def total(delta):
        moved = edit(network.apply, {row.name: lambda a: a + delta})
        return network.score(moved(network.variables, images), targets).sum()

    return channels_last(jax.grad(total)(jnp.zeros(row.shape, jnp.asarray(images).dtype)), row)


def as_features(activations: Array, pooling: Pooling) -> Float[Array, "batch size"]:
    """Returns the numbers that a classifier sees of each image.

    Args:
        activations: (batch, *positions, channels).
        pooling: "mean" over positions, or "none": all positions and channels in a row.
    """
    check_choice("pooling", pooling, POOLINGS)
    activations = activations.astype(jnp.promote_types(activations.dtype, jnp.float32))
    if pooling == "mean":
        return activations.mean(tuple(range(1, activations.ndim - 1)))
    return activations.reshape(len(activations), -1)


def along(gradients: Array, pooling: Pooling) -> Float[Array, "batch size"]:
    """Returns gradients such that their product with a vector of features is the derivative along it.

    Along a vector of means over positions every position moves by that vector, so that gradients add up.
    """
    gradients = gradients.astype(jnp.promote_types(gradients.dtype, jnp.float32))
    if pooling == "mean":
        return gradients.sum(tuple(range(1, gradients.ndim - 1)))
    return gradients.reshape(len(gradients), -1)


def features_of_source(
    apply: Any,
    variables: Variables,
    source: Source,
    *,
    layer: str | Layer,
    pooling: Pooling,
    batch_size: int,
    mesh: Mesh | None,
    description: str | None,
) -> Rows:
    """Returns the features of all images of a source, in order: `size` numbers an image are held."""
    row = layer_of_source(apply, variables, source, layer, batch_size)
    size = row.num_channels * (max(row.num_positions, 1) if pooling == "none" else 1)
    count = len(source)
    state = Rows(jnp.zeros((count, size)), jnp.zeros(count), jnp.zeros((), jnp.int32))
    return fold_epoch(
        functools.partial(_filled, apply, layer, pooling),
        state,
        source,
        batch_size=batch_size,
        constants=variables,
        mesh=mesh,
        description=description,
    )


def _filled(
    apply: Any, layer: Any, pooling: Pooling, state: Rows, batch: Batch, variables: Variables
) -> Rows:
    images = jnp.asarray(batch["images"])
    found = as_features(activations_of(apply, variables, images, layer), pooling)
    places = state.num_rows + jnp.arange(len(images))
    weights = batch["weights"].astype(state.weights.dtype)
    return Rows(
        state.features.at[places].set(found.astype(state.features.dtype), mode="drop"),
        state.weights.at[places].set(weights, mode="drop"),
        state.num_rows + len(images),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class JoinedSource(LazySource):
    """The images of several sources, one after the other, by name.

    Raises:
        ValueError: a source is none, is empty, or has images of another size.
    """

    sources: Mapping[str, Source]

    def __post_init__(self):
        shapes = {}
        for name, source in self.sources.items():
            check_source(name, source)
            shapes[name] = np.shape(source[[0]]["images"])[1:]
        if len(set(shapes.values())) > 1:
            raise ValueError(f"images of {shapes}: expected one size for all, that of the network")

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.sources)

    def __len__(self) -> int:
        return sum(map(len, self.sources.values()))

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        ends = np.cumsum([len(source) for source in self.sources.values()])
        labels = np.searchsorted(ends, indices, side="right")
        parts, weights, order = [], [], []
        for place in np.unique(labels):
            source, chosen = list(self.sources.values())[place], np.flatnonzero(labels == place)
            batch = source[indices[chosen] - (ends[place] - len(source))]
            parts.append(np.asarray(batch["images"]))
            weights.append(np.broadcast_to(np.asarray(batch.get("weights", 1.0), np.float32), len(chosen)))
            order.append(chosen)
        back = np.argsort(np.concatenate(order))
        found = {"images": np.concatenate(parts)[back], "weights": np.concatenate(weights)[back]}
        return {**found, "labels": labels.astype(np.int32)}


def check_source(name: str, source: Any) -> None:
    """Raises ValueError unless an argument, or one of its entries, is a source that holds an image."""
    if isinstance(source, Mapping) or not isinstance(source, Source):
        raise ValueError(
            f"{name} is a {type(source).__name__}: expected a source of images; for arrays pass "
            "vexplain.ArraySource(images, labels, class_names=...)"
        )
    if not len(source):
        raise ValueError(f"{name} holds no image")
