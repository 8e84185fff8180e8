"""Average images (Oramas et al., 2019, Section 3.1): what a feature's favorite images have in common.

Each image is cropped at the receptive field of the position that excites the feature most, and the crops are
averaged: as they are, and aligned (*ours*, `alignment`). A window that reaches over the border of the image
contributes the pixels that are seen, so that the average is never darkened by padding. The average of a layer
that sees the whole image is one of whole images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vexplain.datasets import Source
from vexplain.relevance._features import WHY_NO_FEATURE, Relevance, features
from vexplain.relevance.alignment import Alignment, align_crops, move_crops
from vexplain.relevance.exemplars import Exemplars, Pick, found, top_exemplars
from vexplain.streaming import Checkpoint, fold_epoch
from vexplain.streaming.checkpoints import digest
from vexplain.streaming.devices import Mesh
from vexplain.streaming.processes import shared_out
from vexplain.transforms import Layer, LayerTable, Rule, Rules, epsilon_plus_flat
from vexplain.typing import ApplyFn, Variables

NUM_CROPS = 9  # shown beside the average


class AlignedAverage(NamedTuple):
    """The mean of the aligned crops of one mode (*ours*), and the share of the crops that are of it.

    `image` is (height, width, channels) in [0, 1]; NaN where no crop has a pixel.
    """

    image: np.ndarray
    share: float


class FeatureView(NamedTuple):
    """What one relevant feature of one class looks like: its average images and its best crops.

    A crop is the window that one position of the layer may see, so that it can be larger than the image; what
    lies outside the image is NaN. `weight` is the relevance of `channel` of `layer` for the class.

    Attributes:
        average: (height, width, channels) in [0, 1], the mean over the crops of all `indices` as they are
            (*paper*); NaN where no crop has a pixel.
        crops: (up to 9, height, width, channels) in [0, 1], the best ones; NaN where nothing is seen.
        indices: (up to num_images,) of the images in the source, the best first; `values` are the activations
            there, or the relevances.
        sees_whole_image: every position does; then the crops are whole images.
        receptive_field: (height, width) in pixels that one position sees, at most the image; None where it
            is not known.
        aligned: the means of the crops after they were aligned, one a mode, the largest share first; none
            where this was not asked for.
        alignment: of the crops of all `indices`.
    """

    class_name: str
    layer: str
    channel: int
    weight: float
    average: np.ndarray
    crops: np.ndarray
    indices: np.ndarray
    values: np.ndarray
    sees_whole_image: bool
    receptive_field: tuple[int, int] | None = None
    aligned: tuple[AlignedAverage, ...] = ()
    alignment: Alignment | None = None


def interpret(
    apply: ApplyFn,
    variables: Variables,
    table: LayerTable,
    relevance: Relevance,
    source: Source,
    *,
    num_images: int = 100,
    within_class: bool = True,
    by: str = "activation",
    composite: Rule | Rules = epsilon_plus_flat(),  # noqa: B008
    on_uncovered: str = "raise",
    align: bool = True,
    mirror: bool = False,
    max_modes: int = 3,
    batch_size: int = 64,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    description: str | None = "Searching exemplars",
) -> tuple[FeatureView, ...]:
    """Returns a view of every relevant feature of every class, in the order of classes and weights.

    Args:
        table: the layers of the network.
        relevance: what `learn_relevance` returned.
        source: the images to search.
        num_images: crops that are averaged, k = 100 in the paper.
        within_class: search the images of the class that the feature is relevant for, or all.
        by: take the images that excite the feature most, or with "relevance" those in which it counts most
            for the class, see `top_exemplars`.
        composite: of the relevance, see `attribution.lrp`.
        on_uncovered: of the relevance, see `attribution.lrp`.
        align: also average the crops after they were aligned, see `align_crops`.
        mirror: a crop may also be aligned as a mirror image.
        max_modes: as many aligned averages of a feature at most.
        batch_size: images a step.
        mesh: devices; one if left out, or where there are several processes one of each.
        checkpoint: where the best images so far are saved, and where a search that was interrupted goes on;
            `checkpoint.remove()` once the result is kept.
        description: of the progress bar; `None` shows none.

    Raises:
        CheckpointError: the checkpoint is damaged, or of another search.
        ValueError: no class has a relevant feature.

    Example:
        >>> from vexplain.datasets import ArraySource
        >>> from vexplain.relevance import learn_relevance
        >>> from vexplain.transforms import layers
        >>> images = np.eye(2).repeat(5, axis=0).reshape(10, 1, 1, 2)  # five red ones, five green ones
        >>> source = ArraySource(images, np.array([0, 1]).repeat(5), class_names=("red", "green"))
        >>> apply = lambda variables, images: images.mean((1, 2)) @ variables
        >>> relevance = learn_relevance(apply, np.eye(2), source, mu=1)
        >>> table = layers(apply, np.eye(2), images)
        >>> views = interpret(apply, np.eye(2), table, relevance, source, num_images=3, description=None)
        >>> for view in views:
        ...     print(view.class_name, view.layer, view.channel, view.average.ravel(), view.indices)
        red pool_1 0 [1. 0.] [0 1 2]
        green pool_1 1 [0. 1.] [5 6 7]
    """
    wanted = [(c, feature) for c in range(len(relevance.class_names)) for feature in features(relevance, c)]
    if not wanted:
        raise ValueError(f"relevance: no class has a relevant feature, {WHY_NO_FEATURE}")
    picks = [Pick(f.layer, f.channel, c if within_class else None) for c, f in wanted]
    ranked = {"by": by, "composite": composite, "on_uncovered": on_uncovered}
    init, update = top_exemplars(apply, table, picks, num_images=num_images, **ranked)
    settings = {"pass": "exemplars", "picks": digest(picks), "k": num_images}
    settings |= {} if by == "activation" else {"by": by, "composite": digest(composite)}
    exemplars = fold_epoch(
        update,
        init(),
        source,
        batch_size=batch_size,
        constants=variables,
        mesh=mesh,
        checkpoint=checkpoint and checkpoint.of(**settings),
        description=description,
    )

    def view(n: int) -> FeatureView:
        c, feature = wanted[n]
        options = {"mirror": mirror, "max_modes": max_modes} if align else None
        return _view(relevance.class_names[c], feature, table[feature.layer], exemplars, n, source, options)

    return tuple(shared_out(view, len(wanted)))


def crop_windows(
    images: np.ndarray, layer: Layer, rows: Sequence[int] | np.ndarray, columns: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Returns one crop an image, at the receptive field of a position; NaN for pixels it does not see.

    Args:
        layer: whose receptive field is taken.
        rows: (n,) of the position in the activation map, and so are `columns`.
        columns: (n,).

    Returns:
        (n, field height, field width, channels). Where the layer sees the whole image, the images.

    Example:
        >>> import jax
        >>> from vexplain.transforms import layers
        >>> def apply(kernel, images):
        ...     numbers = ("NHWC", "HWIO", "NHWC")
        ...     x = jax.lax.conv_general_dilated(images, kernel, (2, 2), "SAME", dimension_numbers=numbers)
        ...     return x.mean((1, 2))
        >>> images = np.arange(16.0).reshape(1, 4, 4, 1)
        >>> conv = layers(apply, np.ones((3, 3, 1, 1)), images)["conv_1"]
        >>> print(crop_windows(images, conv, [1], [0])[0, :, :, 0])  # rows 2 to 4 of an image of rows 0 to 3
        [[ 8.  9. 10.]
         [12. 13. 14.]
         [nan nan nan]]
    """
    if layer.sees_whole_image:
        return np.asarray(images)
    top, left, bottom, right = layer.window(0, 0)
    crops = np.full((len(images), bottom - top, right - left, images.shape[3]), np.nan, np.float32)
    for crop, image, row, column in zip(crops, images, rows, columns, strict=True):
        top, left, _, _ = layer.window(int(row), int(column))
        t, le, b, r = layer.visible(int(row), int(column))
        if t < b and le < r:
            crop[t - top : b - top, le - left : r - left] = image[t:b, le:r]
    return crops


def average_image(crops: np.ndarray) -> np.ndarray:
    """Returns the mean of crops over the pixels that exist, those not NaN; NaN where none has one.

    Example:
        >>> crops = np.array([[[[0.2]], [[np.nan]]], [[[0.4]], [[0.5]]]])
        >>> print(average_image(crops).ravel())
        [0.3 0.5]
    """
    exists = ~np.isnan(crops)
    count = exists.sum(0)
    total = np.where(exists, crops, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def aligned_averages(crops: np.ndarray, alignment: Alignment) -> tuple[AlignedAverage, ...]:
    """Returns the mean of the aligned crops of each mode, the mode with the most crops first.

    Args:
        crops: (n, height, width, channels) in [0, 1]; NaN for pixels that are not seen.
        alignment: of these crops.

    Example:
        >>> from vexplain.relevance import identity_alignment
        >>> crops = np.array([[[[0.2]]], [[[0.4]]]])
        >>> aligned_averages(crops, identity_alignment(2))[0].image.ravel().round(3).tolist()
        [0.3]
    """
    moved = move_crops(crops, alignment)
    return tuple(
        AlignedAverage(average_image(moved[alignment.modes == mode]), share)
        for mode, share in enumerate(alignment.shares)
    )


def _view(
    class_name, feature, layer: Layer, exemplars: Exemplars, n: int, source: Source, options
) -> FeatureView:
    values, indices, rows, columns = found(exemplars, n)
    images = np.asarray(source[indices]["images"])
    crops = crop_windows(images, layer, rows, columns)
    alignment = None if options is None else align_crops(crops, **options)
    return FeatureView(
        class_name=class_name,
        layer=feature.layer,
        channel=feature.channel,
        weight=feature.weight,
        average=average_image(crops),
        crops=crops[:NUM_CROPS],
        indices=indices,
        values=values,
        sees_whole_image=layer.sees_whole_image,
        receptive_field=layer.receptive_field,
        aligned=() if alignment is None else aligned_averages(crops, alignment),
        alignment=alignment,
    )
