"""Deletion and insertion of many methods: the areas under their curves, with more than one baseline.

What replaces a deleted pixel leaves traces that the network may react to: a constant makes new edges, a blur
leaves large shapes, and a method may do well with one replacement alone. So the areas are given for two: the
blurred image, and the color of its border.

In all functions:
    images: (batch, height, width, channels) in [0, 1].
"""

import collections
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._keeping import Store, identity, kept
from vexplain._text import html_table
from vexplain.attribution import Score, logit, probability
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.catalog import Methods
from vexplain.datasets.filters import gaussian_blur
from vexplain.evaluation._pixel_flipping import MODES, pixel_flipping
from vexplain.evaluation.explained_network import (
    ExplainedNetwork,
    heatmaps_of,
    in_slices,
    make_sample,
)
from vexplain.typing import AnyArray, ApplyFn, Array, Batch, Float, Heatmaps, Images, Key

BaselineFn = Callable[[Images], float | AnyArray]  # images -> what broadcasts to them

_PROGRAMS: Store = collections.OrderedDict()


class FlippingScores(NamedTuple):
    """Areas under the curves of one method, (batch,) each, by the name of the baseline."""

    deletion: dict[str, np.ndarray]  # small where the map finds what the network uses
    insertion: dict[str, np.ndarray]  # large there

    def _repr_html_(self) -> str:
        rows = [
            (name, f"{np.mean(self.deletion[name]):.3f}", f"{np.mean(self.insertion[name]):.3f}")
            for name in self.deletion
        ]
        return html_table(("baseline", "deletion", "insertion"), rows, caption="Means of areas over images")


def blurred_images(images: Images, *, sigma: float) -> Float[Array, "batch height width channels"]:
    """Returns the images under a Gaussian blur: their colors stay, their details go.

    Args:
        sigma: standard deviation of the Gaussian in pixels, positive; it is cut off at 3 sigma.

    References:
        Petsiuk, Das, Saenko, RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018.

    Example:
        >>> images = jnp.zeros((1, 7, 9, 1)).at[0, 3, 4].set(1.0)
        >>> print(float(blurred_images(images, sigma=2.0).sum().round(3)))
        1.0
    """
    if sigma <= 0:
        raise ValueError(f"sigma is {sigma}: expected a positive number of pixels")
    reach = max(round(3 * sigma), 1)
    return gaussian_blur(images, sigma=sigma, radius=min(reach, *images.shape[1:3]))


def darkest_values(images: Images) -> Float[Array, "batch 1 1 1"]:
    """Returns the smallest value of each image over all pixels and channels: what Quantus calls "black".

    Here to compare with published curves; pass `baseline=0.0` for black.

    Example:
        >>> print(darkest_values(jnp.array([[[[0.3], [0.2]]]])).ravel())
        [0.2]
    """
    return jnp.asarray(images).min((1, 2, 3), keepdims=True)


def border_colors(images: Images) -> Float[Array, "batch 1 1 channels"]:
    """Returns the mean color of the border pixels of each image: what a plain background would show.

    On a plain background a deleted object leaves no edge; on a textured one it leaves a patch of one color.

    Example:
        >>> images = jnp.ones((1, 3, 3, 1)).at[0, 1, 1].set(0.0)
        >>> print(border_colors(images).ravel())
        [1.]
    """
    images = jnp.asarray(images)
    sides = images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]
    return jnp.concatenate(sides, axis=1).mean(1)[:, None, None]


def strongly_blurred(images: Images) -> Float[Array, "batch height width channels"]:
    """Returns the images under a blur of a tenth of their shorter side: what small parts show is gone."""
    return blurred_images(images, sigma=min(images.shape[1:3]) / 10)


BASELINES: Mapping[str, BaselineFn] = {"blurred": strongly_blurred, "border color": border_colors}


def flipping_scores(
    apply: ApplyFn,
    methods: Methods,
    network: ExplainedNetwork,
    batch: Batch,
    *,
    key: Key,
    baselines: Mapping[str, BaselineFn] = BASELINES,
    num_steps: int = 32,
    score: Score = probability,
    explained: Score = logit,
    targets: Any = None,
    signs: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> dict[str, FlippingScores]:
    """Returns the areas of deletion and insertion of each method and image, for each baseline.

    Equal pixels go in a random order, the same for all methods and baselines: a constant map scores as a
    random one. Areas are in the unit of the score.

    Args:
        methods: as `as_methods` takes them.
        network: the variables, and the features that are relevant in them.
        batch: "images", and optionally their "indices", from which their keys follow.
        baselines: by name, what replaces the pixels of a batch of images: images -> a number, or an array
            that broadcasts to them; traced.
        num_steps: steps from no pixel to all.
        score: what falls or rises.
        explained: the score that the methods explain.
        signs: as in `sanity_checks`.
        batch_size: images at once.

    Example:
        >>> apply = lambda variables, images: images.sum((1, 2))  # one class, its logit the sum
        >>> scores = flipping_scores(
        ...     apply,
        ...     {"the image": lambda apply, variables, images, targets=None, *, score=None, key=None: images},
        ...     ExplainedNetwork(None),
        ...     {"images": jnp.array([[[[0.25], [1.0], [0.5]]]])},
        ...     key=jax.random.key(0),
        ...     baselines={"black": jnp.zeros_like},
        ...     num_steps=3,
        ...     score=lambda outputs, targets: outputs[:, 0],
        ...     targets=0,
        ... )
        >>> print(scores["the image"].deletion["black"].round(3))  # of the scores 1.75, 0.75, 0.25, 0
        [0.625]
    """
    if not baselines:
        raise ValueError("baselines is empty: name one or more, such as vexplain.evaluation.BASELINES")
    sample = make_sample(apply, network, batch, key=key, targets=targets)
    maps_fn = heatmaps_of(apply, methods, score=explained, signs=signs, batch_size=batch_size)
    heatmaps = maps_fn(network, sample)
    name = (identity(apply), identity(score), identity(tuple(baselines.items())), num_steps)
    areas = kept(_PROGRAMS, name, lambda: _areas_fn(apply, score, baselines, num_steps))
    order = sample._replace(keys=jax.vmap(lambda key: jax.random.fold_in(key, 0))(sample.keys))

    def of_method(maps: Heatmaps) -> FlippingScores:
        found = in_slices(lambda part: areas(network.variables, *part), (order, maps), batch_size)
        return FlippingScores(
            *({name: np.asarray(found[mode, name]) for name in baselines} for mode in MODES)
        )

    return {name: of_method(maps) for name, maps in heatmaps.items()}


def _areas_fn(apply: ApplyFn, score: Score, baselines: Mapping[str, BaselineFn], num_steps: int) -> Callable:
    """Returns (variables, sample, heatmaps) -> {(mode, baseline): (batch,) areas}, compiled once."""

    def of_image(variables, example, cover, heatmap, mode):
        one = jax.tree.map(lambda leaf: leaf[None], (example.images, example.targets, heatmap, cover))
        images, targets, heatmaps, baseline = one
        options = {"num_steps": num_steps, "baseline": baseline, "mode": mode, "key": example.keys}
        return pixel_flipping(apply, variables, images, targets, heatmaps, score=score, **options).area[0]

    @jax.jit
    def areas(variables, sample, heatmaps):
        covers = {
            name: broadcast_baseline(fn(sample.images), sample.images) for name, fn in baselines.items()
        }
        return {
            (mode, name): jax.vmap(lambda e, c, h, m=mode: of_image(variables, e, c, h, m))(
                sample, cover, heatmaps
            )
            for mode in MODES
            for name, cover in covers.items()
        }

    return areas
