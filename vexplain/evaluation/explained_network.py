"""A network together with what was found in it, and the heatmaps of many methods for such a pair.

The relevant features belong to the explanation: when the weights of a network are changed, they have to be
found again. So what a check exchanges is the pair, and both halves are arguments of one compiled program
that makes the maps of all methods: a dozen networks of the same shape cost one compilation.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_images, check_targets
from vexplain.attribution import absolute_heatmaps, normalize_heatmaps, positive_heatmaps
from vexplain.evaluation.methods import Method
from vexplain.evaluation.scores import READINGS
from vexplain.relevance import Relevance
from vexplain.typing import ApplyFn, Array, Batch, Heatmaps, Images, Key, Labels, Shaped, Variables

MethodsFn = Callable[[Relevance], Mapping[str, Method]]


class ExplainedNetwork(NamedTuple):
    """The variables of a network and the features that are relevant in it."""

    variables: Variables
    relevance: Relevance


class Sample(NamedTuple):
    """The images that are explained, the class of each that is asked about, and one key an image."""

    images: Images
    targets: Labels
    keys: Shaped[Array, " batch"]


HeatmapsFn = Callable[[ExplainedNetwork, Sample], dict[str, Heatmaps]]


def make_sample(
    apply: ApplyFn, network: ExplainedNetwork, batch: Batch, *, key: Key, targets: Labels | None = None
) -> Sample:
    """Returns the images of a batch with their targets and keys.

    Args:
        apply: the network.
        network: its variables; the relevant features are not needed here.
        batch: "images", (batch, height, width, channels) in [0, 1], and optionally "indices": the key of an
            image follows from its index, whatever batch it is in.
        key: of methods that draw.
        targets: (batch,), the classes to explain; the predicted ones when left out.

    Raises:
        ValueError: images or targets of another shape, dtype or range.
    """
    check_images(batch["images"])
    images = jnp.asarray(batch["images"])
    if targets is None:
        targets = jax.jit(apply)(network.variables, images).argmax(-1)
    num_classes = jax.eval_shape(apply, network.variables, images).shape[-1]
    check_targets(targets, len(images), num_classes)
    indices = jnp.asarray(batch.get("indices", np.arange(len(images))))
    return Sample(images, jnp.asarray(targets), jax.vmap(lambda n: jax.random.fold_in(key, n))(indices))


def heatmaps_of(
    methods_fn: MethodsFn, *, readings: Mapping[str, str] | None = None, batch_size: int = 32
) -> HeatmapsFn:
    """Returns the function `(network, sample) -> {method: heatmaps}`, one compiled program for all methods.

    Args:
        methods_fn: relevance -> methods by name, as `methods_for` makes them; it is called while JAX traces.
        readings: for methods that return signed attributions, whether their "positive part" or their
            "absolute value" is the map, by name; "positive part" for those not named.
        batch_size: how many images are explained at once; memory does not depend on their number.

    Returns:
        A function whose maps are (batch, height, width) in [0, 1]. A map with NaN or infinite values is zero
        everywhere.

    Raises:
        ValueError: (at the first call) a reading of another name, or of a method that there is not.

    Example:
        >>> from vexplain.evaluation.explained_network import ExplainedNetwork, Sample
        >>> brightness = lambda variables, images, targets, keys: images.sum(-1)
        >>> heatmaps = heatmaps_of(lambda relevance: {"brightness": brightness})
        >>> images = jnp.array([[[[0.5], [0.25], [0.0]]]])
        >>> sample = Sample(images, jnp.zeros(1, int), jax.random.split(jax.random.key(0), 1))
        >>> print(heatmaps(ExplainedNetwork(None, None), sample)["brightness"])
        [[[1.  0.5 0. ]]]
    """
    chosen, order = dict(readings or {}), []

    @jax.jit
    def of_slice(network, sample):
        methods = methods_fn(network.relevance)
        check_readings(chosen, tuple(methods))
        order[:] = methods
        return {
            name: _read(method(network.variables, *sample), chosen.get(name, READINGS[0]))
            for name, method in methods.items()
        }

    def of_sample(network: ExplainedNetwork, sample: Sample) -> dict[str, Heatmaps]:
        arrays = ExplainedNetwork(network.variables, jax.tree.map(jnp.asarray, network.relevance))
        found = in_slices(lambda part: of_slice(arrays, part), sample, batch_size)
        return {name: found[name] for name in order}  # a compiled function returns dicts sorted by name

    return of_sample


def in_slices(function: Callable[[Any], Any], arrays: Any, batch_size: int) -> Any:
    """Returns what a function makes of arrays with a leading batch axis, `batch_size` rows at a time.

    The last rows are filled up with the first, so that all slices have one shape.

    Args:
        function: a pytree of arrays -> a pytree of arrays, row by row.
        arrays: with a leading batch axis.
        batch_size: rows at a time, 1 or more.

    Raises:
        ValueError: `batch_size` is below 1.

    Example:
        >>> print(in_slices(lambda x: 2 * x, jnp.arange(5), 2))
        [0 2 4 6 8]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected the number of images at a time, 1 or more")
    count = len(jax.tree.leaves(arrays)[0])
    size = min(batch_size, count)
    parts = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        parts.append(function(jax.tree.map(lambda leaf, rows=rows: leaf[rows], arrays)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:count], *parts)


def check_readings(readings: Mapping[str, str], names: Sequence[str]) -> None:
    """Raises ValueError for a reading of another name, or of a method that there is not."""
    for name, reading in readings.items():
        if name not in names:
            raise ValueError(f"readings: there is no method {name!r}; expected some of {list(names)}")
        if reading not in READINGS:
            raise ValueError(f"readings[{name!r}] is {reading!r}: expected one of {READINGS}")


def _read(maps: Any, reading: str) -> Heatmaps:
    maps = jnp.asarray(maps)
    is_finite = jnp.isfinite(maps).all(tuple(range(1, maps.ndim)))[:, None, None]
    if maps.ndim == 3:
        heatmaps = normalize_heatmaps(maps)
    else:
        heatmaps = positive_heatmaps(maps) if reading == READINGS[0] else absolute_heatmaps(maps)
    return jnp.where(is_finite, heatmaps, 0)
