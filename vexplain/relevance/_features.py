"""Which features of a network are relevant for which class.

A feature is one channel of one layer. It is relevant for a class where the sparse regression gave it a weight
that is not zero.
"""

import functools
import logging
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, SupportsIndex

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Float, Int

from vexplain._checks import check_choice
from vexplain._text import html_table
from vexplain.attribution import Score, logit
from vexplain.relevance._responses import Measure, check_measure
from vexplain.relevance.copies import copied_features
from vexplain.relevance.lasso import mu_lasso
from vexplain.relevance.layout import FeatureLayout, layer_and_channel, layout_size, split_features
from vexplain.relevance.statistics import Statistics
from vexplain.typing import Labels

ON_EMPTY_CLASS = ("raise", "leave_out")
_LOG = logging.getLogger(__name__)
# A larger mu would not help: a class that mu limits has features.
WHY_NO_FEATURE = (
    "which is so where no image was of a class or all were of one, where every response is zero (a dead "
    "network), or where none grows with the score of the class (learn with nonnegative=False)"
)
_HEAVIEST = 5  # features of a class that a notebook shows
_NUMBERS = (np.ndarray, np.number, jax.Array, float, int)


class Feature(NamedTuple):
    """One channel of one layer, with its weight for a class."""

    layer: str
    channel: int
    weight: float


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Relevance:
    """The weight of every feature for every class: a pytree whose names are static.

    `print` shows the relevant features as a table. The weights are float64 arrays of the host, for which the
    gaps hold; inside `jax.jit` they take the precision of JAX.

    Attributes:
        weights: (features, classes), mostly exact zeros; non-negative unless asked otherwise.
        gaps: (classes,), the duality gap of each class divided by its sum of l^2.
        penalties: (classes,), multiplier of ||w||_1 <= mu; 0 where mu did not limit the class.
        mu: (), the bound on the L1 norm of each class.
        layout: the (layer name, number of channels) that the features come from, in order.
        measure: of a channel's response, see `responses`; the features of an image are ranked by it too.
        copied: (features,), the number of the feature of which each is a copy, or -1: see
            `copied_features`. `None` where that is not known.
    """

    # Transformations put placeholders into the leaves, so that their types are not checked here.
    weights: Any
    gaps: Any
    penalties: Any
    mu: Any
    layout: FeatureLayout = field(metadata={"static": True})
    class_names: tuple[str, ...] = field(metadata={"static": True})
    measure: Measure = field(default="energy", metadata={"static": True})
    copied: Any = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, in the order of the features."""
        return tuple(name for name, _ in self.layout)

    def __repr__(self) -> str:
        if not self._has_numbers():  # inside a transformation there are no values to show
            return f"Relevance(layout={self.layout}, class_names={self.class_names}, weights={self.weights})"
        return _table(self)

    def _repr_html_(self) -> str | None:
        return _html_table(self) if self._has_numbers() else None

    def _has_numbers(self) -> bool:
        leaves = (self.weights, self.gaps, self.penalties, self.mu)
        are_numbers = all(isinstance(leaf, _NUMBERS) and not isinstance(leaf, Tracer) for leaf in leaves)
        return are_numbers and np.ndim(self.weights) == 2


def find_relevance(
    statistics: Statistics,
    layout: FeatureLayout,
    *,
    mu: float | int = 10.0,
    nonnegative: bool = True,
    class_names: Sequence[str] | None = None,
    membership: Literal["one", "any"] = "one",
    on_empty_class: Literal["raise", "leave_out"] = "raise",
    measure: Measure = "energy",
    copies: Literal["all", "one"] = "all",
    solver: Literal["host", "device"] = "host",
) -> Relevance:
    """The relevant features of every class, from the sums over a dataset.

    Args:
        statistics: the sums over all images, from `gram_statistics`.
        layout: of the responses.
        mu: bound on the L1 norm of each class's weights, see `mu_lasso`.
        nonnegative: demand weights >= 0.
        class_names: one name per class; their numbers when left out.
        membership: each image is of "one" class, so that a label that is none is an error; or of "any" number
            of classes.
        on_empty_class: "raise" for a class without images, or "leave_out": all of its weights are 0. So are
            those of a class that has all images, for there is nothing to tell it from. (Where there is
            one class in all, the regression fits a constant.)
        measure: what the responses were made with.
        copies: "all" where copies of a feature (a convolution, its ReLU, its pooled map) are candidates of
            their own (*paper*), or "one": the first of those that `copied_features` finds. The table of the
            relevance says which features are copies.
        solver: where the weights are found, see `mu_lasso`.

    Raises:
        ValueError, RuntimeError: as `mu_lasso`; a layout or labels that do not fit the statistics.

    Example:
        >>> cross = np.array([[3.0, 0.0], [1.0, 2.0], [2.0, 0.0]])
        >>> statistics = Statistics(np.eye(3), cross, np.array([14.0, 4.0]), np.array(18.0))
        >>> found = find_relevance(
        ...     statistics, (("conv_1", 1), ("conv_2", 2)), mu=3, class_names=("cat", "dog")
        ... )
        >>> features(found, "dog")
        (Feature(layer='conv_2', channel=0, weight=2.0),)
    """
    check_measure(measure)
    check_choice("copies", copies, ("all", "one"))
    check_choice("membership", membership, ("one", "any"))
    counts = statistics.counts
    _check_statistics(statistics, layout, membership)
    if not np.diagonal(statistics.gram).any():
        _LOG.warning("no feature is relevant: every response of every image is zero, the network is dead")
    names = tuple(map(str, range(len(counts)))) if class_names is None else tuple(class_names)
    is_empty = counts == 0 if on_empty_class == "leave_out" else np.full(len(counts), False)
    solved = ~is_empty
    if not solved.any():
        raise ValueError("statistics: no class has an image")
    gram = statistics.gram
    copied = copied_features(gram, layout)
    taken = copied < 0 if copies == "one" else np.full(len(gram), True)
    solution = mu_lasso(
        gram if taken.all() else gram[np.ix_(taken, taken)],
        statistics.cross[np.ix_(taken, solved)],
        counts[solved],
        mu=mu,
        nonnegative=nonnegative,
        class_names=names if solved.all() else [names[c] for c in np.flatnonzero(solved)],
        solver=solver,
    )
    weights = np.zeros((len(taken), int(solved.sum())))
    weights[taken] = solution.weights
    found = {"weights": weights, "gaps": solution.gaps, "penalties": solution.penalties}
    if len(solved) > 1:  # a class of all images is a constant, fitted by features of any kind
        is_of_all = counts[solved] > statistics.total - 0.5
        found = {name: np.where(is_of_all, 0.0, values) for name, values in found.items()}
    return Relevance(
        **{name: _with_zeros(values, solved) for name, values in found.items()},
        mu=np.asarray(mu, np.float64),
        layout=layout,
        class_names=names,
        measure=measure,
        copied=copied,
    )


def _with_zeros(values: Float[np.ndarray, "*rows solved"], solved: np.ndarray) -> Any:
    """Puts zeros at the classes that were left out."""
    every = np.zeros((*values.shape[:-1], len(solved)))
    every[..., solved] = values
    return every


def features(relevance: Relevance, target: SupportsIndex | str) -> tuple[Feature, ...]:
    """The relevant features of a class, largest weight first.

    Args:
        relevance: the weights.
        target: the class, by name or by number; a ValueError where there is no such class.

    Example:
        >>> weights, zeros = np.array([[0.5], [0.0], [2.0]]), np.zeros(1)
        >>> relevance = Relevance(weights, zeros, zeros, 3.0, (("conv_1", 1), ("conv_2", 2)), ("cat",))
        >>> features(relevance, "cat")[0]
        Feature(layer='conv_2', channel=1, weight=2.0)
    """
    weights = np.asarray(relevance.weights)[:, _class_index(relevance, target)]
    support = np.flatnonzero(weights)
    order = support[np.argsort(-np.abs(weights[support]), kind="stable")]
    return tuple(
        Feature(*layer_and_channel(relevance.layout, index), float(weights[index])) for index in order
    )


def num_features(relevance: Relevance) -> Int[np.ndarray, " classes"]:
    """The number of relevant features of each class."""
    return np.count_nonzero(np.asarray(relevance.weights), axis=0)


def relevant_union(relevance: Relevance) -> dict[str, tuple[int, ...]]:
    """By layer, the channels that are relevant for some class; layers without any are left out."""
    is_relevant = np.any(np.asarray(relevance.weights) != 0, axis=1)
    by_layer = split_features(relevance.layout, is_relevant)
    return {name: tuple(map(int, np.flatnonzero(mask))) for name, mask in by_layer.items() if mask.any()}


def _class_index(relevance: Relevance, target: SupportsIndex | str) -> int:
    names = relevance.class_names
    if isinstance(target, str):
        if target not in names:
            raise ValueError(f"target: {target!r} is no class name, expected one of {list(names)}")
        return names.index(target)
    index = operator.index(target)
    if not 0 <= index < len(names):
        raise ValueError(f"target: classes go from 0 to {len(names) - 1}, got {index}")
    return index


def _check_statistics(statistics: Statistics, layout: FeatureLayout, membership: str) -> None:
    if layout_size(layout) != len(statistics.gram):
        raise ValueError(
            f"layout: has {layout_size(layout)} features, but the statistics were made of "
            f"{len(statistics.gram)}; give the layout of the same layers"
        )
    outside = float(statistics.total) - statistics.counts.sum()
    if outside > 0.5 and membership == "one":
        raise ValueError(
            f"statistics: {outside:.0f} images have a label outside 0 to "
            f"{len(statistics.counts) - 1}; check the labels and num_classes"
        )


def _summary(relevance: Relevance) -> str:
    union = sum(map(len, relevant_union(relevance).values()))
    return (
        f"{union} of {layout_size(relevance.layout)} features of {len(relevance.layout)} layers are relevant "
        f"for some of {len(relevance.class_names)} classes (mu = {float(relevance.mu):g})"
    )


def _html_table(relevance: Relevance) -> str:
    """A row a class."""
    rows = []
    for index, name in enumerate(relevance.class_names):
        found = features(relevance, index)
        rest = f", and {len(found) - _HEAVIEST} more" if len(found) > _HEAVIEST else ""
        heaviest = ", ".join(f"{f.layer}[{f.channel}] {f.weight:.3g}" for f in found[:_HEAVIEST])
        rows.append((name, str(len(found)), f"{heaviest}{rest}"))
    return html_table(("class", "features", "largest weights"), rows, caption=_summary(relevance))


def _table(relevance: Relevance) -> str:
    counts, norms = num_features(relevance), np.abs(np.asarray(relevance.weights)).sum(axis=0)
    width, origins = max(5, *map(len, relevance.layers)), _origins(relevance)
    lines = [_summary(relevance)]
    for index, name in enumerate(relevance.class_names):
        is_active = float(relevance.penalties[index]) > 0
        lines += [
            "",
            f"{name}: {counts[index]} feature{'' if counts[index] == 1 else 's'}, "
            f"sum of |weights| {norms[index]:.4g} "
            f"({'at the bound' if is_active else 'below the bound'}), "
            f"relative gap {float(relevance.gaps[index]):.0e}",
            f"  {'layer':<{width}}  channel    weight",
        ]
        lines += [
            f"  {layer:<{width}}  {channel:>7}  {weight:>8.4g}{origins.get((layer, channel), '')}"
            for layer, channel, weight in features(relevance, index)
        ]
    return "\n".join(lines)


def _origins(relevance: Relevance) -> dict[tuple[str, int], str]:
    """What the table says of features that are copies."""
    if relevance.copied is None:
        return {}
    name, copied = functools.partial(layer_and_channel, relevance.layout), np.asarray(relevance.copied)
    return {name(i): "  copy of {}[{}]".format(*name(copied[i])) for i in np.flatnonzero(copied >= 0)}


def check_relevance(relevance: Any, score: Score) -> None:
    """Raises unless there is a relevance, and the class itself is explained, not another score."""
    if not isinstance(relevance, Relevance):
        raise TypeError(
            f"relevance is a {type(relevance).__name__}: expected what learn_relevance returned for this "
            "network"
        )
    if score is not logit:
        raise ValueError(
            f"score is {getattr(score, '__name__', score)!r}: relevant features explain the class, "
            "through the weights of the regression; leave score out. What images have in common for an "
            "encoder is a class of vexplain.relevance.with_prototypes"
        )


def check_score_count(relevance: Relevance, num_scores: int) -> None:
    """Raises ValueError where the network has another number of scores than the relevance has classes."""
    if num_scores != len(relevance.class_names):
        raise ValueError(
            f"relevance has {len(relevance.class_names)} classes, but the network scores {num_scores}: "
            "give the relevance that was found for this network; of an encoder that is the one of "
            "vexplain.relevance.with_prototypes"
        )


def check_classes_have_features(targets: Labels, *, relevance: Relevance, **options: Any) -> None:
    """Raises ValueError for a class to explain that has no relevant feature."""
    empty = [relevance.class_names[c] for c in np.unique(targets) if num_features(relevance)[c] == 0]
    if empty:
        names = ", ".join(map(repr, empty))
        raise ValueError(
            f"no feature is relevant for class {names} at mu = {float(relevance.mu):g}, {WHY_NO_FEATURE}; "
            "explain another class by `targets`"
        )
