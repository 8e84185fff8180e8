"""The engine of all methods that ask what the score is where a part of the image is covered.

A mask m, 1 where the image x is kept and 0 where a baseline b covers it, makes the image m x + (1 - m) b.
Each such method is a sum over masks, of a term of the mask and of the score that is left; the methods differ
in which masks they take, and in the term. Masks are made, shown and forgotten in one compiled loop: memory
does not depend on how many there are.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vexplain._checks import check_positive
from vexplain.attribution.calling import Network
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.attribution.partitions import Features, partition_of
from vexplain.typing import AnyArray, Array, Float, Targets

_FILLED = 16  # copies of one image in a pass, where nothing else is said


class Covered(NamedTuple):
    """Images that parts can be covered of, and the score of what is left."""

    network: Network
    images: Array
    targets: Targets
    cover: Array  # of the shape of the images

    def scores(self, mask: Array) -> Float[Array, " batch"]:
        """The scores where `mask` is kept: booleans or weights in [0, 1] that broadcast to the images."""
        if mask.dtype == bool:
            return self.network.scores(jnp.where(mask, self.images, self.cover), self.targets)
        return self.network.scores(mask * self.images + (1 - mask) * self.cover, self.targets)

    def total(self, term: Callable[[Any], Any], count: int, num_at_once: int | None = None) -> Any:
        """Σ term(n) for n from 0 to `count` - 1: arrays with a leading batch axis, in one compiled loop.

        Args:
            term: of the number of a mask, traced.
            count: of the masks.
            num_at_once: terms in one step; memory is in proportion. By default 16 of one image, and one of
                several: images that are split over devices stay where they are.
        """
        if num_at_once is None:
            num_at_once = _FILLED if len(self.images) == 1 else 1
        check_positive(num_at_once=num_at_once)
        size = min(num_at_once, count)

        def step(n, total):
            if size == 1:
                return jax.tree.map(jnp.add, total, term(n))
            numbers = n * size + jnp.arange(size)
            return jax.tree.map(
                lambda t, found: t + jnp.where(_like(numbers < count, found), found, 0).sum(0),
                total,
                jax.vmap(term)(numbers),
            )

        start = jax.tree.map(lambda found: jnp.zeros(found.shape, found.dtype), jax.eval_shape(term, 0))
        return jax.lax.fori_loop(0, -(-count // size), step, start)


def covered(network: Network, images: Array, targets: Targets, baseline: float | AnyArray) -> Covered:
    """Returns the images with what covers them.

    Args:
        baseline: a number, or an array that broadcasts to the images; else a ValueError.
    """
    return Covered(network, images, targets, broadcast_baseline(baseline, images))


class Game(NamedTuple):
    """Scores of coalitions of features, v(S): those of S are kept, the others covered."""

    covered: Covered
    labels: Array  # of four axes
    num_features: int

    def scores(self, kept: Array) -> Float[Array, " batch"]:
        """v of the features that are kept: booleans (features,) for all images, or (batch,
        features)."""
        return self.covered.scores(kept[self.labels] if kept.ndim == 1 else self._of_each(kept))

    def ends(self) -> tuple[Array, Array]:
        """v of no feature and of all, (batch,) each."""
        return self.scores(jnp.zeros(self.num_features, bool)), self.scores(jnp.ones(self.num_features, bool))

    def as_map(self, values: Float[Array, "batch features"]) -> Float[Array, "batch height width _channels"]:
        """The value of the feature that each pixel belongs to."""
        height, width = self.covered.images.shape[1:3]
        found = self._of_each(values)
        return jnp.broadcast_to(found, (len(values), height, width, found.shape[-1]))

    def _of_each(self, values: Array) -> Array:
        labels = jnp.broadcast_to(self.labels, (len(values), *self.labels.shape[1:]))
        return jax.vmap(lambda row, places: row[places])(values, labels)


def game(
    network: Network, images: Array, targets: Targets, features: Features, baseline: float | AnyArray
) -> Game:
    """Returns the game that the features of the images play.

    Raises:
        ValueError: the images have no such features, or the baseline does not broadcast to them.
    """
    partition = partition_of(features, images)
    return Game(covered(network, images, targets, baseline), partition.labels, partition.count)


def coalition(number: Any, num_features: int) -> Array:
    """Returns the features whose bits are set in a number below 2^num_features, booleans (features,)."""
    return (number >> jnp.arange(num_features)) % 2 == 1


def _like(values: Array, other: Array) -> Array:
    return values.reshape(-1, *[1] * (other.ndim - 1))
