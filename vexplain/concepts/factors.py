"""Concepts that are found, not given: non-negative factors of the activations of crops of images (CRAFT).

The mean activations A of crops, (crops, channels), are written as U V with both of 0 or more: each row of V
is a direction in the space of channels, a concept, and U says how much of it each crop shows. What a crop
shows is then a sum of concepts, and never a difference.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain._text import aligned, html_table
from vexplain.attribution import Network, attribution_method
from vexplain.attribution.cam_layers import enlarged, spatial_layer
from vexplain.concepts._crops import as_crop_size, cropped, no_crops
from vexplain.concepts._layers import (
    activations_of,
    as_features,
    check_source,
    concept_layer,
    layer_of_source,
)
from vexplain.concepts.factorization import nonnegative_factors, nonnegative_least_squares
from vexplain.concepts.sobol import total_sobol_indices
from vexplain.datasets import Source, subset
from vexplain.streaming import fold_epoch
from vexplain.streaming.devices import Mesh
from vexplain.transforms import Layer, as_layer_output, edit, layers
from vexplain.typing import ApplyFn, Array, Float, Targets, Variables


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConceptFactors:
    """Concepts of a layer, and how much of each the crops show that they were found on.

    A pytree whose layer and size of crops are static. `print` shows what each concept adds.

    Attributes:
        directions: (concepts, channels), 0 or more, of length one, the largest concept first.
        coefficients: (crops, concepts), 0 or more.
        crops: (crops, 3), the image of each crop in its source, and its first row and column, in pixels.
        relative_error: ‖A - U V‖ / ‖A‖ of the activations A of the crops.
        crop_size: (height, width) in pixels.
        layer: where they are.
    """

    # Transformations put placeholders into the leaves, so that their types are not checked here.
    directions: Any
    coefficients: Any
    crops: Any
    relative_error: Any
    crop_size: tuple[int, int] = dataclasses.field(metadata={"static": True})
    layer: str | Layer = dataclasses.field(metadata={"static": True})

    @property
    def num_concepts(self) -> int:
        return len(self.directions)

    def __str__(self) -> str:
        return aligned(*self._table()) + f"\nrelative error {float(self.relative_error):.3f}"

    def _repr_html_(self) -> str:
        return html_table(*self._table(), caption=f"Relative error {float(self.relative_error):.3f}")

    def _table(self) -> tuple[list[str], list[list[str]]]:
        coefficients = np.asarray(self.coefficients)
        total = coefficients.sum(0) / max(coefficients.sum(), np.finfo(np.float32).tiny)
        leads = np.bincount(coefficients.argmax(1), minlength=self.num_concepts) / len(coefficients)
        rows = [[str(n), f"{a:.1%}", f"{b:.1%}"] for n, (a, b) in enumerate(zip(total, leads, strict=True))]
        return ["concept", "of all coefficients", "largest in"], rows


def concept_factors(
    apply: ApplyFn,
    variables: Variables,
    source: Source,
    *,
    num_concepts: int = 10,
    layer: str | Layer | None = None,
    crop_size: int | tuple[int, int] | None = None,
    crops_per_image: int = 8,
    num_images: int = 200,
    num_restarts: int = 4,
    max_iterations: int = 1000,
    batch_size: int = 64,
    seed: int = 0,
    mesh: Mesh | None = None,
    description: str | None = None,
) -> ConceptFactors:
    """Returns concepts that a network composes the images of a source of (CRAFT).

    Crops at random places are enlarged to the size of the images and go through the network. The mean over
    positions of the layer's activations is factorized, see `nonnegative_factors`. The recursion of the paper,
    which factorizes a concept again in an earlier layer, is a second call with that layer and the images of
    the crops.

    Args:
        source: images, usually those that the network assigns to one class: what is found explains these.
        num_concepts: factors; the paper takes 10 to 25.
        layer: by name or from the layer table, with activations of 0 or more, such as those of a ReLU; that
            of class activation maps, `cam_layer`, if left out.
        crop_size: side of the crops in pixels, or (height, width); 0.3 of the sides of the image if left out.
        crops_per_image: at random places.
        num_images: drawn from the source where it has more; what is held in memory grows with it.
        num_restarts: of the factorization.
        max_iterations: of the factorization.
        batch_size: crops a step.
        seed: of the images, the places and the starts of the factorization.
        mesh: devices; one if left out, or where there are several processes one of each.
        description: of the progress bar; `None` shows none.

    Raises:
        KeyError: there is no layer of this name.
        ValueError: the layer has negative activations, or none that is not 0, or there are more concepts than
            crops or channels.

    References:
        Fel et al., CRAFT: Concept Recursive Activation FacTorization for Explainability, CVPR 2023, Sections
        3.1 and 3.2.

    Example:
        >>> from vexplain.datasets import ArraySource
        >>> apply = lambda w, images: jax.nn.relu(images @ w).mean((1, 2))
        >>> images = np.zeros((8, 12, 12, 2), np.float32)
        >>> images[:, :6, :, 0], images[:, 6:, :, 1] = 0.6, 0.9  # red above green
        >>> source = ArraySource(images, np.zeros(8, int), class_names=("flag",))
        >>> found = concept_factors(apply, jnp.eye(2), source, num_concepts=2, crop_size=3)
        >>> print(np.sort(found.directions, 0).round(2), float(found.relative_error) < 0.01)
        [[0. 0.]
         [1. 1.]] True
    """
    check_positive(
        num_concepts=num_concepts,
        crops_per_image=crops_per_image,
        num_images=num_images,
        batch_size=batch_size,
    )
    check_source("source", source)
    size = as_crop_size(crop_size, np.shape(source[[0]]["images"])[1:3])
    chosen = np.sort(np.random.default_rng(seed).permutation(len(source))[:num_images])
    at_once = math.ceil(batch_size / crops_per_image)
    row = layer_of_source(apply, variables, source, layer, at_once * crops_per_image)
    layer = layer if isinstance(layer, Layer) else row.name
    count = len(chosen) * crops_per_image
    state = fold_epoch(
        functools.partial(cropped, apply, layer, size, crops_per_image, seed),
        no_crops(count, row.num_channels),
        subset(source, chosen),
        batch_size=at_once,
        constants=variables,
        mesh=mesh,
        description=description,
    )
    is_read = np.asarray(state.weights) > 0
    features, crops = np.asarray(state.features)[is_read], np.asarray(state.crops)[is_read]
    _check_features(features, num_concepts, row.name, apply, variables, source)
    found = nonnegative_factors(
        features, num_concepts, num_restarts=num_restarts, max_iterations=max_iterations, seed=seed
    )
    crops[:, 0] = chosen[crops[:, 0]]
    return ConceptFactors(
        found.directions, found.coefficients, jnp.asarray(crops), found.relative_error, size, layer
    )


def concept_crops(
    factors: ConceptFactors, source: Source, concept: int, *, num_crops: int = 10
) -> Float[np.ndarray, "crops height width channels"]:
    """Returns the crops that show most of a concept, the first one most, at their own size.

    Args:
        factors: of `concept_factors`.
        source: that they were found on.
        concept: which of them, from 0 on.
        num_crops: how many.

    Raises:
        ValueError: there is no such concept.

    Example:
        >>> from vexplain.datasets import ArraySource
        >>> images = np.linspace(0, 1, 32, dtype=np.float32).reshape(2, 4, 4, 1)
        >>> source = ArraySource(images, np.zeros(2, int), class_names=("a",))
        >>> coefficients, crops = jnp.array([[0.2], [0.9]]), jnp.array([[0, 0, 0], [1, 2, 1]])
        >>> factors = ConceptFactors(jnp.ones((1, 1)), coefficients, crops, jnp.zeros(()), (2, 2), "relu_1")
        >>> print(concept_crops(factors, source, 0, num_crops=1)[0, ..., 0] == images[1, 2:4, 1:3, 0])
        [[ True  True]
         [ True  True]]
    """
    if not 0 <= concept < factors.num_concepts:
        raise ValueError(f"concept is {concept}: expected 0 to {factors.num_concepts - 1}")
    check_positive(num_crops=num_crops)
    best = np.argsort(-np.asarray(factors.coefficients)[:, concept], kind="stable")[:num_crops]
    indices, tops, lefts = np.asarray(factors.crops)[best].T
    height, width = factors.crop_size
    images = np.asarray(source[indices]["images"])
    rows, columns = tops[:, None] + np.arange(height), lefts[:, None] + np.arange(width)
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


@attribution_method
def concept_maps(
    network: Network, images: Array, *, factors: ConceptFactors, interpolation: str | None = "bilinear"
) -> Float[Array, "batch _rows _columns concepts"]:
    """Returns where each concept is in images, 0 or more, (batch, height, width, concepts).

    The activation at each position is written as a sum of the concepts by `nonnegative_least_squares`; their
    coefficients are enlarged to the image. For pixels instead of positions, see `concept_network`.

    Args:
        factors: of `concept_factors`, for this network.
        interpolation: "bilinear" or "nearest" to the size of the images; `None` keeps that of the layer.

    Raises:
        ValueError: the layer has no positions, or another interpolation.

    References:
        Fel et al., CRAFT, CVPR 2023, Section 3.4.

    Example:
        >>> apply = lambda w, images: jax.nn.relu(images).mean((1, 2)) @ w
        >>> directions = jnp.array([[1.0, 0.0], [0.6, 0.8]])
        >>> factors = ConceptFactors(directions, None, None, None, (1, 1), "relu_1")
        >>> images = jnp.array([[[[0.8, 0.4], [0.5, 0.0]]]])
        >>> print(np.asarray(concept_maps(apply, jnp.eye(2), images, factors=factors)[0, 0]).round(3))
        [[0.5 0.5]
         [0.5 0. ]]
    """
    spatial_layer(network, images, factors.layer)
    return enlarged(_coefficients(network, images, factors), images, interpolation)


@attribution_method
def concept_importance(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    factors: ConceptFactors,
    num_designs: int = 32,
    seed: int = 0,
    designs_at_once: int = 1,
) -> Float[Array, "batch concepts"]:
    """Returns how much of the score's variance each concept takes part in when concepts are masked, [0, 1].

    With U the coefficients of an image and m in [0, 1] a mask of the concepts, the activations become (U ⊙ m)
    V at every position, and the score a function of m, whose total Sobol indices these are, see
    `total_sobol_indices`. Class and register tokens keep what they have. An image whose score does not depend
    on the concepts has indices 0. The importance of concepts for a class is the mean over its images
    (*paper*).

    Args:
        factors: of `concept_factors`, for this network.
        num_designs: points of the estimate, a power of 2: (concepts + 2) times as many passes from the layer
            on. The authors' code has 32.
        seed: of the masks.
        designs_at_once: how many masks of each image go through the network together.

    Raises:
        ValueError: `num_designs` is no power of 2.

    References:
        Fel et al., CRAFT, CVPR 2023, Section 3.3; Fel et al., Look at the Variance! Efficient Black-box
        Explanations with Sobol-based Sensitivity Analysis, NeurIPS 2021.

    Example:
        >>> apply = lambda w, images: jax.nn.relu(images).mean((1, 2)) @ w
        >>> factors = ConceptFactors(jnp.eye(3), None, None, None, (1, 1), "relu_1")
        >>> image, w = jnp.full((1, 2, 2, 3), 0.5), jnp.array([[3.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> found = concept_importance(apply, w, image, targets=0, factors=factors, num_designs=256)
        >>> print(np.asarray(found).round(2))
        [[0.9 0.1 0. ]]
    """
    row = concept_layer(network.apply, network.variables, images, factors.layer)
    found = _coefficients(network, images, factors)
    directions = jnp.asarray(factors.directions, found.dtype)

    def masked(mask):
        composed = (found * mask.astype(found.dtype)) @ directions
        put = {row.name: lambda a: as_layer_output(composed.astype(a.dtype), row, like=a)}
        return network._replace(apply=edit(network.apply, put)).scores(images, targets)

    options = {"num_designs": num_designs, "seed": seed, "designs_at_once": designs_at_once}
    return total_sobol_indices(masked, len(directions), **options)


def concept_network(apply: ApplyFn, factors: ConceptFactors) -> Callable[[Variables, Any], Array]:
    """Returns the function `(variables, images) -> (batch, concepts)`: the mean coefficient of each concept.

    It is a network whose outputs are concepts: passed as `apply` to a method of the catalog, with a concept
    as `targets`, it says which pixels that concept comes from. Its derivative is that of the least-squares
    solution (implicit differentiation, *paper*).

    Args:
        apply: the network.
        factors: of `concept_factors`, for this network.

    References:
        Fel et al., CRAFT, CVPR 2023, Section 3.4.

    Example:
        >>> from vexplain.attribution import gradient
        >>> apply = lambda w, images: jax.nn.relu(images).mean((1, 2)) @ w
        >>> factors = ConceptFactors(jnp.eye(2), None, None, None, (1, 1), "relu_1")
        >>> image = jnp.array([[[[0.8, 0.4], [0.2, 0.3]]]])
        >>> print(np.asarray(concept_network(apply, factors)(jnp.eye(2), image)).round(3))
        [[0.5  0.35]]
        >>> print(gradient(concept_network(apply, factors), jnp.eye(2), image, targets=1)[0, 0].round(3))
        [[0.  0.5]
         [0.  0.5]]
    """
    return functools.partial(_mean_coefficients, apply, factors)


def _mean_coefficients(apply: ApplyFn, factors: ConceptFactors, variables: Variables, images: Any) -> Array:
    return as_features(_coefficients(Network(apply, variables, None), images, factors), "mean")


def _coefficients(network: Network, images: Any, factors: ConceptFactors) -> Array:
    """(batch, *positions, concepts)."""
    found = activations_of(network.apply, network.variables, images, factors.layer)
    if found.shape[-1] != factors.directions.shape[1]:
        raise ValueError(
            f"factors have directions of {factors.directions.shape[1]} channels, and layer {factors.layer!r} "
            f"has {found.shape[-1]}: they are of another network"
        )
    return nonnegative_least_squares(found, factors.directions)


def _check_features(
    features: np.ndarray, num_concepts: int, name: str, apply: Any, variables: Any, source: Source
) -> None:
    if not np.isfinite(features).all():
        raise ValueError(f"layer {name!r} has NaN or infinite activations: look for NaN in variables")
    if features.min(initial=0) < 0:
        table = layers(apply, variables, np.asarray(source[[0]]["images"]))
        others = [row.name for row in table if row.kind.startswith("relu") and row.is_readable]
        raise ValueError(
            f"layer {name!r} has negative activations, down to {features.min():.3g} in the mean of a crop: "
            "only values of 0 or more are sums of concepts; "
            + (f"take a ReLU: {', '.join(others)}" if others else "this network has no ReLU to take instead")
        )
    if not features.any():
        raise ValueError(f"layer {name!r} is 0 for all crops: there is nothing to factorize; choose another")
    if num_concepts > min(features.shape):
        raise ValueError(
            f"num_concepts is {num_concepts}: expected at most the number of crops, {len(features)}, and of "
            f"channels of layer {name!r}, {features.shape[1]}"
        )
