"""Average images: what the receptive fields of a feature's favorite images have in common.

Each image is cropped at the receptive field of the position that excites the feature most, and the crops are
averaged. A window that reaches over the border of the image contributes the pixels that exist, so that the
average is never darkened by padding. A layer that sees the whole image has nothing to crop: its average is
one of whole images, and is marked so.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vexplain.datasets import Source, epoch_batches
from vexplain.interpretation.exemplars import Exemplars, Pick, found, top_exemplars
from vexplain.relevance import Relevance, features
from vexplain.sharding import Mesh
from vexplain.streaming import fold
from vexplain.transforms import Layer, LayerTable
from vexplain.typing import ApplyFn, Variables

NUM_CROPS = 9  # shown beside the average


class FeatureView(NamedTuple):
    """What one relevant feature of one class looks like. Images are in [0, 1]."""

    class_name: str
    layer: str
    channel: int
    weight: float  # relevance
    average: np.ndarray  # (height, width, channels); NaN where no crop has a pixel
    crops: np.ndarray  # the best crops, (up to 9, height, width, channels); NaN beyond the image
    indices: np.ndarray  # of the images in the source, best first
    values: np.ndarray  # activations
    sees_whole_image: bool


def interpret(
    apply: ApplyFn,
    variables: Variables,
    table: LayerTable,
    relevance: Relevance,
    source: Source,
    *,
    num_images: int = 100,
    within_class: bool = True,
    batch_size: int = 64,
    mesh: Mesh | None = None,
    description: str | None = "Searching exemplars",
) -> tuple[FeatureView, ...]:
    """Returns a view of every relevant feature of every class, in the order of classes and weights.

    Args:
        apply: the network.
        variables: its variables.
        table: its layers.
        relevance: what `find_relevance` returned.
        source: the images to search.
        num_images: crops that are averaged, k = 100 in the paper.
        within_class: search the images of the class that the feature is relevant for, or all.
        batch_size: images a step.
        mesh: devices; one if left out.
        description: of the progress bar; `None` shows none.

    Raises:
        ValueError: no class has a relevant feature.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 3.1.
    """
    wanted = [(c, feature) for c in range(len(relevance.class_names)) for feature in features(relevance, c)]
    picks = [Pick(f.layer, f.channel, c if within_class else None) for c, f in wanted]
    init, update = top_exemplars(apply, table, picks, num_images=num_images)
    batch_fn, num_steps = epoch_batches(source, batch_size)
    exemplars = fold(
        update,
        init(),
        batch_fn,
        num_steps=num_steps,
        constants=variables,
        mesh=mesh,
        description=description,
    )
    return tuple(
        _view(relevance.class_names[c], feature, table[feature.layer], exemplars, n, source)
        for n, (c, feature) in enumerate(wanted)
    )


def crop_windows(images: np.ndarray, layer: Layer, rows: Sequence[int], columns: Sequence[int]) -> np.ndarray:
    """Returns one crop an image, at the receptive field of a position; NaN beyond the image's border.

    Args:
        images: (n, height, width, channels).
        layer: whose receptive field is taken.
        rows: (n,) of the position in the activation map.
        columns: (n,).

    Returns:
        (n, field height, field width, channels). Where the layer sees the whole image, the images.

    Example:
        >>> from vexplain.transforms import layers
        >>> import jax.numpy as jnp
        >>> images = np.arange(16.0).reshape(1, 4, 4, 1)
        >>> pool = layers(lambda v, x: x.reshape(1, 2, 2, 2, 2, 1).max((2, 4)), None, images)
        >>> len(pool)
        0
    """
    if layer.sees_whole_image:
        return np.asarray(images)
    crops = [
        _crop(image, layer.window(int(row), int(column)))
        for image, row, column in zip(images, rows, columns, strict=True)
    ]
    return np.stack(crops)


def average_image(crops: np.ndarray) -> np.ndarray:
    """Returns the mean of crops over the pixels that exist; NaN where none has one.

    Args:
        crops: (n, height, width, channels), NaN beyond the border of an image.

    Example:
        >>> crops = np.array([[[[0.2]], [[np.nan]]], [[[0.4]], [[0.5]]]])
        >>> print(average_image(crops).ravel())
        [0.3 0.5]
    """
    exists = ~np.isnan(crops)
    count = exists.sum(0)
    total = np.where(exists, crops, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _crop(image: np.ndarray, window: tuple[int, int, int, int]) -> np.ndarray:
    top, left, bottom, right = window
    height, width = image.shape[:2]
    crop = np.full((bottom - top, right - left, image.shape[2]), np.nan, np.float32)
    t, le, b, r = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
    if t < b and le < r:
        crop[t - top : b - top, le - left : r - left] = image[t:b, le:r]
    return crop


def _view(class_name, feature, layer: Layer, exemplars: Exemplars, n: int, source: Source) -> FeatureView:
    values, indices, rows, columns = found(exemplars, n)
    images = np.asarray(source[indices]["images"])
    crops = crop_windows(images, layer, rows, columns)
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
    )
