"""Testing with concept activation vectors: how often the score of a class grows towards a concept.

    S(x) = ∇_a y_k(x) · v          sensitivity of the score of class k to the concept      (Equation 1)
    TCAV = share of the images x of class k with S(x) > 0                                  (Equation 2)

A vector of a random set has a TCAV score too, near 0 or near 1 as often as near one half. A concept counts
for a class where the scores of its vectors differ from those of random sets.
"""

import dataclasses
import functools
import logging
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from vexplain._checks import check_choice, check_positive
from vexplain._text import aligned, html_table
from vexplain.attribution import Network, Score, attribution_method, logit
from vexplain.attribution.scores import num_classes_of, predicted_targets
from vexplain.concepts._layers import along, check_source, gradients_of, layer_of_source
from vexplain.concepts.vectors import ConceptVectors
from vexplain.datasets import Source
from vexplain.streaming import Checkpoint, fold_epoch
from vexplain.streaming.devices import Mesh
from vexplain.typing import ApplyFn, Array, Batch, Float, Targets, Variables

_LOG = logging.getLogger(__name__)
LABELS = ("true", "predicted")


@attribution_method
def concept_sensitivity(
    network: Network, images: Array, targets: Targets, *, vectors: ConceptVectors
) -> Float[Array, "batch concepts runs"]:
    """Returns the derivative of the score of each image along the vectors of each concept.

    With a the features of the layer, y the score and v a vector, S = ∇_a y · v. For vectors of means over
    positions (`pooling="mean"`), v is added at every position.

    Args:
        vectors: of `concept_vectors`, for this network.

    Returns:
        (batch, concepts, runs), signed, in units of the score per unit of the activations.

    References:
        Kim et al., TCAV, ICML 2018, Equation 1.

    Example:
        >>> apply = lambda w, images: jax.nn.relu(images).mean((1, 2)) @ w
        >>> vectors = jnp.array([[[0.6, 0.8]]])
        >>> striped = ConceptVectors(vectors, None, None, None, ("striped",), (9,), "relu_1", "mean")
        >>> image, w = jnp.ones((1, 2, 2, 2)), jnp.array([[1.0, 0.0], [0.0, -1.0]])
        >>> print(concept_sensitivity(apply, w, image, targets=1, vectors=striped))
        [[[-0.8]]]
    """
    return _sensitivities(network, images, targets, vectors.layer, vectors.pooling, vectors.vectors)


def _sensitivities(
    network: Network, images: Any, targets: Any, layer: Any, pooling: Any, vectors: Array
) -> Any:
    found = along(gradients_of(network, images, targets, layer), pooling)
    if found.shape[1] != vectors.shape[-1]:
        raise ValueError(
            f"vectors have {vectors.shape[-1]} numbers, and layer {layer!r} has {found.shape[1]} features "
            f"for images of shape {images.shape}: they are of another network, or of images of another size"
        )
    return jnp.einsum("ns,crs->ncr", found, vectors.astype(found.dtype))


@dataclasses.dataclass(frozen=True, eq=False)
class ConceptScores:
    """The TCAV scores of each class, and their test against random sets. `print` it for the table.

    Attributes:
        scores: (classes, concepts, runs), the share of the images of a class whose score grows along a
            vector, in [0, 1]; NaN for a class without images.
        random_scores: (classes, runs), the same for vectors of random sets.
        num_images: (classes,), how many were counted.
        concepts: names.
        class_names: names.
        is_above_chance: (concepts,), whether half of the vectors or more tell the concept from random images.
    """

    scores: np.ndarray
    random_scores: np.ndarray
    num_images: np.ndarray
    concepts: tuple[str, ...]
    class_names: tuple[str, ...]
    is_above_chance: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """(classes, concepts), over the runs."""
        return self.scores.mean(-1)

    @property
    def p_values(self) -> np.ndarray:
        """(classes, concepts), of the two-sided test that a concept's scores have the mean of random ones.

        Welch's t-test over the runs, times the number of concepts, at most 1 (Bonferroni). The paper says
        that scores are tested against 0.5, the authors' code tests them against those of random sets, by
        Student's test; random scores vary more than those of a concept, which Welch's allows for (*ours*).
        Where neither varies the value is 0 if they differ, else 1. Of several classes each is a family of
        tests of its own.
        """
        first, second = self.scores, np.broadcast_to(self.random_scores[:, None], self.scores.shape)
        is_constant = (np.ptp(first, -1) == 0) & (np.ptp(second, -1) == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            means = [values.mean(-1) for values in (first, second)]
            variances = [values.var(-1, ddof=1) / values.shape[-1] for values in (first, second)]
            statistic = (means[0] - means[1]) / np.sqrt(sum(variances))
            freedom = sum(variances) ** 2 / sum(v**2 for v in variances) * (first.shape[-1] - 1)
        found = np.where(is_constant, means[0] == means[1], 2 * stats.t.sf(np.abs(statistic), freedom))
        found = np.where(self.num_images[:, None] > 0, found, np.nan)
        return np.minimum(found * len(self.concepts), 1)

    def is_significant(self, level: float = 0.05) -> np.ndarray:
        """(classes, concepts), whether a concept that the layer holds matters to a class, at a level."""
        return (self.p_values < level) & self.is_above_chance

    def __str__(self) -> str:
        return aligned(*self._table())

    def _repr_html_(self) -> str:
        return html_table(*self._table(), caption="TCAV scores")

    def _table(self) -> tuple[list[str], list[list[str]]]:
        header = ["class", "images", "concept", "TCAV score", "random sets", "p", ""]
        p_values, is_significant, rows = self.p_values, self.is_significant(), []
        for k in np.flatnonzero(self.num_images):
            beside = f"{self.random_scores[k].mean():.2f} ± {self.random_scores[k].std():.2f}"
            for c, concept in enumerate(self.concepts):
                score = f"{self.scores[k, c].mean():.2f} ± {self.scores[k, c].std():.2f}"
                note = "*" if is_significant[k, c] else "" if self.is_above_chance[c] else "vectors at chance"
                count = str(int(self.num_images[k]))
                rows.append(
                    [self.class_names[k], count, concept, score, beside, f"{p_values[k, c]:.2g}", note]
                )
        return header, rows


class _Counts(NamedTuple):
    positive: Float[Array, "classes vectors runs"]  # images with a positive derivative; last, random sets
    images: Float[Array, " classes"]
    flat: Float[Array, ""]  # images whose score does not depend on the layer


def tcav(
    apply: ApplyFn,
    variables: Variables,
    vectors: ConceptVectors,
    source: Source,
    *,
    score: Score = logit,
    labels: Literal["true", "predicted"] = "true",
    batch_size: int = 64,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    description: str | None = None,
) -> ConceptScores:
    """Returns the TCAV scores of concepts for every class, in one pass over the images of a source.

    Memory does not grow with the images. A concept whose vectors are at chance is never significant.

    Args:
        vectors: of `concept_vectors`, for this network.
        source: images of the classes to ask about; a class without images has no score.
        score: of which the derivative is taken, for the class of each image.
        labels: an image counts for its "true" class (*paper*) or for the "predicted" one.
        batch_size: images a step.
        mesh: devices; one if left out, or where there are several processes one of each.
        checkpoint: of `fold_epoch`.
        description: of the progress bar; `None` shows none.

    Raises:
        ValueError: vectors of another network, classes that the score does not have, or a layer on which no
            image's score depends.

    References:
        Kim et al., TCAV, ICML 2018, Sections 3.3 to 3.5.

    Example:
        >>> from vexplain.concepts import concept_vectors
        >>> from vexplain.datasets import ArraySource
        >>> apply = lambda w, images: jax.nn.relu(images).mean((1, 2)) @ w
        >>> noise = np.random.default_rng(0).uniform(size=(120, 4, 4, 2)).astype("float32")
        >>> anything = ArraySource(noise, np.arange(120) % 2, class_names=("likes red", "does not"))
        >>> red = noise[:12] * np.float32([0.5, 0.1]) + np.float32([0.5, 0])
        >>> red = ArraySource(red, np.zeros(12, int), class_names=("red",))
        >>> w = jnp.array([[1.0, -1.0], [0.0, 0.0]])
        >>> vectors = concept_vectors(apply, w, {"red": red}, anything, layer="relu_1", num_runs=5)
        >>> print(tcav(apply, w, vectors, anything).means)
        [[1.]
         [0.]]
    """
    check_choice("labels", labels, LABELS)
    check_positive(batch_size=batch_size)
    check_source("source", source)
    layer_of_source(
        apply, variables, source, vectors.layer, batch_size
    )  # a name that is not there is said now
    _check_classes(apply, variables, source, score, labels)
    every = np.concatenate([np.asarray(vectors.vectors), np.asarray(vectors.random_vectors)[None]])
    shape = len(source.class_names), *every.shape[:2]
    counts = fold_epoch(
        functools.partial(_count, apply, score, vectors.layer, vectors.pooling, labels),
        _Counts(jnp.zeros(shape), jnp.zeros(shape[0]), jnp.zeros(())),
        source,
        batch_size=batch_size,
        constants=(variables, every),
        mesh=mesh,
        checkpoint=checkpoint,
        description=description,
    )
    positive, num_images, num_flat = (np.asarray(leaf, np.float64) for leaf in counts)
    _check_flat(num_flat, num_images.sum(), vectors)
    with np.errstate(invalid="ignore"):
        shares = positive / num_images[:, None, None]
    is_above = vectors.is_above_chance.mean(1) >= 0.5
    return ConceptScores(
        shares[:, :-1], shares[:, -1], num_images.astype(int), vectors.concepts, source.class_names, is_above
    )


def _count(
    apply: Any,
    score: Score,
    layer: Any,
    pooling: Any,
    labels: str,
    state: _Counts,
    batch: Batch,
    constants: tuple[Variables, Array],
) -> _Counts:
    variables, vectors = constants
    images = jnp.asarray(batch["images"])
    targets = batch["labels"] if labels == "true" else predicted_targets(score, apply(variables, images))
    found = _sensitivities(Network(apply, variables, score), images, targets, layer, pooling, vectors)
    own = jax.nn.one_hot(targets, len(state.images)) * (batch["weights"] > 0)[:, None]
    return _Counts(
        state.positive + jnp.einsum("nk,ncr->kcr", own, (found > 0).astype(own.dtype)),
        state.images + own.sum(0),
        state.flat + own.sum(1) @ (found == 0).all((1, 2)),
    )


def _check_classes(apply: Any, variables: Any, source: Source, score: Score, labels: str) -> None:
    image = np.asarray(source[[0]]["images"])
    outputs = jax.eval_shape(apply, variables, jax.ShapeDtypeStruct(image.shape, image.dtype))
    num_classes, num_names = num_classes_of(score, outputs), len(source.class_names)
    if num_classes is not None and (
        num_classes < num_names or (labels == "predicted" and num_classes > num_names)
    ):
        raise ValueError(
            f"source has {num_names} class_names, and score tells {num_classes} classes: an image counts for "
            "the class of its label; name as many classes as there are outputs"
        )
    if labels == "predicted" and num_classes is None:
        raise ValueError('labels is "predicted", and this score predicts no class: pass labels="true"')


def _check_flat(num_flat: Any, num_images: Any, vectors: ConceptVectors) -> None:
    name = vectors.layer if isinstance(vectors.layer, str) else vectors.layer.name
    if num_images and num_flat == num_images:
        raise ValueError(
            f"layer {name!r}: the score of no image depends on its positions; of a transformer with a class "
            "token take an earlier layer, see vexplain.cam_layer"
        )
    if num_flat:
        _LOG.warning(
            "the score of %d of %d images does not depend on layer %r: they count as not positive",
            num_flat,
            num_images,
            name,
        )
