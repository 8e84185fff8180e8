"""Concept activation vectors: the direction in a layer in which images of a concept differ from random ones.

A concept is given by images, "striped" by a hundred pictures of striped things. A linear classifier tells
their activations from those of random images, and the normal of its plane, towards the concept, is the vector
of the concept (Kim et al., 2018). One vector says little, for a classifier finds a direction between any two
sets: many are fitted, each against another random set, and beside them vectors of random sets, which stand
for no concept.
"""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vexplain._checks import check_choice, check_positive
from vexplain._text import aligned, html_table
from vexplain.concepts._classifiers import Images, fit_classifiers
from vexplain.concepts._layers import (
    POOLINGS,
    JoinedSource,
    Pooling,
    check_source,
    features_of_source,
    layer_of_source,
)
from vexplain.datasets import Source, subset
from vexplain.streaming.devices import Mesh
from vexplain.transforms import Layer
from vexplain.typing import ApplyFn, Array, Variables

_LOG = logging.getLogger(__name__)
_LEVEL = 0.05  # of the test of a vector against chance
_MOST_NAMED = 10  # concepts in a message
_FEWEST_HELD_OUT = 3  # of each set: with 2 and 2, all right happens by chance in 1 of 16


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConceptVectors:
    """The vectors of some concepts in a layer, and as many of random sets: a pytree whose names are static.

    `print` shows the accuracies as a table.

    Attributes:
        vectors: (concepts, runs, size), of length one, towards the concept.
        accuracies: (concepts, runs), the share of the held-out images, half of them of the concept, on the
            right side.
        random_vectors: (runs, size), between two random sets.
        random_accuracies: (runs,), near one half.
        concepts: their names.
        num_held_out: images of each concept that a vector was tested on, and as many random ones.
        layer: where they are.
        pooling: "mean" over positions, or "none".
    """

    # Transformations put placeholders into the leaves, so that their types are not checked here.
    vectors: Any
    accuracies: Any
    random_vectors: Any
    random_accuracies: Any
    concepts: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    num_held_out: tuple[int, ...] = dataclasses.field(metadata={"static": True})
    layer: str | Layer = dataclasses.field(metadata={"static": True})
    pooling: Pooling = dataclasses.field(metadata={"static": True})

    @property
    def is_above_chance(self) -> np.ndarray:
        """(concepts, runs), whether a vector tells its concept from random images: one-sided binomial test
        at 5 %.
        """
        counts = 2 * np.array(self.num_held_out)[:, None]
        right = np.round(np.asarray(self.accuracies, np.float64) * counts)
        return stats.binom.sf(right - 1, counts, 0.5) < _LEVEL

    def __str__(self) -> str:
        return aligned(*self._table())

    def _repr_html_(self) -> str:
        return html_table(*self._table(), caption=f"Vectors of concepts in {_name(self.layer)}")

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["concept", "held-out accuracy", "vectors above chance"]
        is_above, count = self.is_above_chance, self.accuracies.shape[1]
        rows = [
            [name, _spread(of), f"{above.sum()} of {count}"]
            for name, of, above in zip(self.concepts, self.accuracies, is_above, strict=True)
        ]
        return header, [*rows, ["random sets", _spread(self.random_accuracies), ""]]


def concept_vectors(
    apply: ApplyFn,
    variables: Variables,
    concepts: Any,
    random: Any,
    *,
    layer: str | Layer | None = None,
    pooling: Pooling = "mean",
    num_runs: int = 20,
    num_images: int = 200,
    penalty: float | int = 0.01,
    held_out: float = 1 / 3,
    batch_size: int = 64,
    seed: int = 0,
    mesh: Mesh | None = None,
    description: str | None = None,
) -> ConceptVectors:
    """Returns the activation vectors of concepts in a layer, and vectors of random sets to hold them against.

    Run r tells the images of each concept from the same random set B_r, of as many images, and another random
    set A_r from B_r. The classifier is a logistic regression with a quadratic penalty; all are fitted in one
    compiled program. A part of both sets is held out, another one in each run. A concept of which less than
    half of the vectors are better than chance is named in a WARNING: the layer does not hold it, or its
    images have nothing in common.

    Args:
        concepts: images of each concept, by its name. The labels of these sources are not looked at.
        random: images of anything, as many as two sets need; where there are not twice `num_runs` times as
            many as in a set, runs share images, and are less independent than the test takes them to be.
        layer: by name or from the layer table; that of class activation maps, `cam_layer`, if left out.
        pooling: "mean" over positions (*ours*): a texture or a part is the same concept wherever it is, and
            vectors of a few hundred numbers are found from a few dozen images. "none" takes the activations
            of all positions as they are (*paper*): for concepts that have a place.
        num_runs: vectors of each concept, 2 or more. The paper has 500.
        num_images: of each concept, drawn where there are more; what is held in memory grows with it.
        penalty: on the squared weights, positive, see `fit_classifiers`; 0.01 as in the authors' code.
        held_out: share of the images that the accuracy is measured on; a third as in the authors' code.
        batch_size: images a step.
        seed: of the random sets and of what is held out.
        mesh: devices; one if left out, or where there are several processes one of each.
        description: of the progress bar; `None` shows none.

    Raises:
        KeyError: there is no layer of this name.
        ValueError: no concept, too few images, or a layer that cannot be read or is the same for all images.

    References:
        Kim et al., Interpretability Beyond Feature Attribution: Quantitative Testing with Concept Activation
        Vectors (TCAV), ICML 2018, Sections 3.2 and 3.5.

    Example:
        >>> from vexplain.datasets import ArraySource
        >>> apply = lambda w, images: jax.nn.relu(images @ w).mean((1, 2))
        >>> noise = np.random.default_rng(0).uniform(size=(72, 4, 4, 3)).astype("float32")
        >>> anything = ArraySource(noise[:60], np.zeros(60, int), class_names=("any",))
        >>> red = noise[60:] * np.float32([0.5, 0.2, 0.2]) + np.float32([0.5, 0, 0])
        >>> red = ArraySource(red, np.zeros(12, int), class_names=("red",))
        >>> found = concept_vectors(apply, jnp.eye(3), {"red": red}, anything, num_runs=2)
        >>> print((found.vectors.mean((0, 1)) > 0).tolist(), found.accuracies.mean())
        [True, False, False] 1.0
    """
    check_choice("pooling", pooling, POOLINGS)
    check_positive(num_images=num_images, batch_size=batch_size)
    _check(concepts, random, num_runs, penalty, held_out)
    rng = np.random.default_rng(seed)
    sets = {name: _drawn(source, num_images, rng) for name, source in concepts.items()}
    sizes = [len(source) for source in sets.values()]
    chosen, random_sets = _random_sets(len(random), max(sizes), num_runs, rng)
    joined = JoinedSource(
        {f"concepts[{name!r}]": s for name, s in sets.items()} | {"random": subset(random, chosen)}
    )
    row = layer_of_source(apply, variables, joined, layer, batch_size)
    layer = layer if isinstance(layer, Layer) else row.name
    options = {"pooling": pooling, "batch_size": batch_size, "mesh": mesh, "description": description}
    found = features_of_source(apply, variables, joined, layer=layer, **options)
    _check_features(found.features, found.weights, row.name)
    is_read = np.asarray(found.weights) > 0
    training, testing, num_held_out = _problems(sizes, random_sets, is_read, held_out, rng)
    fitted = fit_classifiers(found.features, training, testing, penalty=penalty)
    free = [jnp.asarray(np.asarray(leaf)) for leaf in fitted]  # of the devices that the pass ran on
    normals, accuracies = (leaf.reshape(len(sets) + 1, num_runs, *leaf.shape[1:]) for leaf in free)
    vectors = ConceptVectors(
        normals[:-1], accuracies[:-1], normals[-1], accuracies[-1], tuple(sets), num_held_out, layer, pooling
    )
    _warn_of_chance(vectors)
    return vectors


def _drawn(source: Source, count: int, rng: np.random.Generator) -> Source:
    return subset(source, np.sort(rng.permutation(len(source))[:count]))


def _random_sets(
    num_images: int, size: int, num_runs: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Which images are used, and (runs, 2, size), which of these are in the two sets of each run.

    Sets of one permutation share no image; a further permutation begins where it is used up.
    """
    if num_images < 2 * size:
        raise ValueError(
            f"random holds {num_images} images: expected {2 * size} or more, two sets as large as the "
            "largest concept; or pass a smaller num_images"
        )
    a_permutation = num_images // (2 * size)
    permutations = [rng.permutation(num_images) for _ in range(math.ceil(num_runs / a_permutation))]
    sets = np.concatenate([p[: a_permutation * 2 * size].reshape(-1, 2, size) for p in permutations])
    chosen, places = np.unique(sets[:num_runs], return_inverse=True)
    return chosen, places.reshape(num_runs, 2, size)


def _problems(
    sizes: Sequence[int],
    random_sets: np.ndarray,
    is_read: np.ndarray,
    held_out: float,
    rng: np.random.Generator,
) -> tuple[Images, Images, tuple[int, ...]]:
    """Training and held-out images, of all concepts and runs, then of random sets; how many are held out."""
    starts = np.cumsum([0, *sizes])
    random_sets = random_sets + starts[-1]
    made, all_held_out = [], []
    for n, size in enumerate([*sizes, max(sizes)]):
        own = (starts[n] + np.arange(size) if n < len(sizes) else first for first, _ in random_sets)
        pairs = list(zip(own, random_sets[:, 1, :size], strict=True))
        read = [[places[is_read[places]] for places in pair] for pair in pairs]
        count = min(len(places) for pair in read for places in pair)
        num_held_out = round(count * held_out)
        all_held_out.append(num_held_out)
        _check_held_out(count, num_held_out)
        for pair in read:
            drawn = np.stack([rng.permutation(places)[:count] for places in pair])
            made.append((drawn[:, num_held_out:], drawn[:, :num_held_out]))
    training, testing = (_filled_up(sets) for sets in zip(*made, strict=True))
    return training, testing, tuple(all_held_out[:-1])


def _filled_up(sets: Sequence[np.ndarray]) -> Images:
    """Sets of (2, images) places, the positive ones first, as rows of one length."""
    most = max(places.shape[1] for places in sets)
    rows, weights = np.zeros((len(sets), 2, most), int), np.zeros((len(sets), 2, most), np.float32)
    for n, places in enumerate(sets):
        rows[n, :, : places.shape[1]], weights[n, :, : places.shape[1]] = places, 1
    is_positive = np.broadcast_to(np.arange(2)[:, None] == 0, rows.shape)
    return Images(*(part.reshape(len(sets), -1) for part in (rows, is_positive, weights)))


def _check(concepts: Any, random: Any, num_runs: int, penalty: float | int, held_out: float) -> None:
    if not isinstance(concepts, Mapping) or not concepts:
        raise ValueError(
            f"concepts is {type(concepts).__name__}: expected sources by name, {{'striped': source, ...}}, "
            "one or more"
        )
    for name, source in concepts.items():
        check_source(f"concepts[{name!r}]", source)
    check_source("random", random)
    if num_runs < 2:
        raise ValueError(f"num_runs is {num_runs}: expected 2 or more, for vectors are compared over runs")
    if not 0 < penalty < math.inf:
        raise ValueError(f"penalty is {penalty}: expected a positive number")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out is {held_out}: expected a share of the images, between 0 and 1")


def _check_held_out(count: int, num_held_out: int) -> None:
    if not _FEWEST_HELD_OUT <= num_held_out < count:
        raise ValueError(
            f"concepts has {count} readable images of one, of which {num_held_out} are held out: expected "
            f"{_FEWEST_HELD_OUT} or more to be held out, as a third of 10 are, and some to be left; of fewer "
            "no accuracy can be told from chance"
        )


def _check_features(features: Array, weights: Array, name: str) -> None:
    is_read = weights[:, None] > 0
    if not bool(jnp.isfinite(jnp.where(is_read, features, 0)).all()):
        raise ValueError(f"layer {name!r} has NaN or infinite activations: look for NaN in variables")
    if bool((jnp.where(is_read, features - features[jnp.argmax(weights)], 0) == 0).all()):
        raise ValueError(
            f"layer {name!r} has the same activations for all images: nothing can be told by it; choose "
            "another layer"
        )


def _warn_of_chance(vectors: ConceptVectors) -> None:
    is_at_chance = vectors.is_above_chance.mean(1) < 0.5
    if is_at_chance.any():
        accuracies = np.asarray(vectors.accuracies).mean(1)
        pairs = [
            p
            for p, at in zip(zip(vectors.concepts, accuracies, strict=True), is_at_chance, strict=True)
            if at
        ]
        shown = ", ".join(f"{name!r} ({accuracy:.2f})" for name, accuracy in pairs[:_MOST_NAMED])
        more = f" and {len(pairs) - _MOST_NAMED} more" if len(pairs) > _MOST_NAMED else ""
        _LOG.warning(
            "in layer %r most vectors of these concepts are no better than chance (held-out accuracy), and "
            "stand for no concept: %s%s",
            _name(vectors.layer),
            shown,
            more,
        )


def _name(layer: str | Layer) -> str:
    return layer if isinstance(layer, str) else layer.name


def _spread(values: Array) -> str:
    return f"{float(np.mean(values)):.2f} ± {float(np.std(values)):.2f}"
