"""Does the map explain the network? Sanity checks of many methods at once, with a verdict.

A method may score well because it shows edges or objects, whatever the network learned. So its maps are
compared with those of other networks, of the same shape and on the same images: with weights shuffled layer
after layer, and trained on random labels; and with those of another class of the same network. The relevant
features are part of an explanation and are found again in each of these networks.

An image whose map is constant in the trained network is left out of every mean. Where less than half of the
images can be compared a check is *undecided*. How alike two maps of the same image are depends on the image
too: where there is one object before a plain background, a blob at the center is like any map. So a map that
is no more like that of the trained network than a control's is, which sees no network, is undecided too. A
method passes when no check failed and none is undecided. The thresholds are *ours*.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain._text import html_table
from vexplain.catalog import Methods, as_methods
from vexplain.evaluation.changed_networks import (
    Comparison,
    MapSimilarity,
    Reference,
    iou_areas,
    shuffled_sets,
    with_control,
    with_other_network,
    with_shuffled,
)
from vexplain.evaluation.comparison import bootstrap_intervals
from vexplain.evaluation.explained_network import (
    ExplainedNetwork,
    Sample,
    heatmaps_of,
    make_sample,
)
from vexplain.evaluation.randomization import MODES, parameter_groups_from_output
from vexplain.relevance import Relevance
from vexplain.typing import ApplyFn, Batch, Key, Labels, Variables

SURVIVES = 0.5  # Spearman, or SSIM above chance: from here on the map of another network is the same map
SAME_FOR_ANOTHER_CLASS = 0.9  # Spearman and SSIM: from here on a map does not tell the class
LEAST_COMPARED = 0.5  # share of the images whose trained map varies, below which a check is undecided
OTHER_CLASSES = ("drawn", "runner-up")
EXPLAINED = ("same class", "own prediction")


class SanityScores(NamedTuple):
    """What the checks found for one method; per image, in the order of the batch."""

    stages: dict[str, dict[str, MapSimilarity]]  # by mode, then by the group that the stage shuffled
    draws: tuple[MapSimilarity, ...]  # with all groups shuffled; the first is the end of the cascade
    controls: dict[str, MapSimilarity]  # by control: its map with that of the trained network
    random_labels: MapSimilarity | None
    other_class: MapSimilarity
    trained_area: np.ndarray  # IoU area with the mask, (batch,)
    randomized_area: np.ndarray  # the same, of the networks with all groups shuffled, mean over the draws
    best_control: str  # the control with the largest mean area
    above_control: tuple[float, float]  # 95 % interval of randomized_area - control; NaN where no map varies
    failures: tuple[str, ...] = ()  # in words
    undecided: tuple[str, ...] = ()  # in words

    @property
    def passes(self) -> bool:
        return not self.failures and not self.undecided

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it does not pass, in few words."""
        undecided = (f"{text.partition(':')[0]} (undecided)" for text in self.undecided)
        return (*(text.partition(":")[0] for text in self.failures), *undecided)

    @property
    def randomized(self) -> MapSimilarity:
        """With all groups shuffled, mean over the draws."""
        return MapSimilarity(*np.mean(self.draws, axis=0))


class SanityChecks(NamedTuple):
    """The scores of all methods, and the Jaccard index of the relevant features: see `selected_jaccard`."""

    scores: dict[str, SanityScores]
    jaccard: dict[str, dict[str, np.ndarray]]  # by mode, then by the group that the stage shuffled
    random_labels_jaccard: np.ndarray | None

    def _repr_html_(self) -> str:
        rows = [
            (name, *(f"{np.mean(a):.3f}" for a in (s.trained_area, s.randomized_area)), _verdict(s))
            for name, s in self.scores.items()
        ]
        return html_table(("method", "IoU area", "IoU area, weights shuffled", "sanity checks"), rows)


def _verdict(scores: SanityScores) -> str:
    return "; ".join(scores.reasons) or "pass"


def sanity_checks(
    apply: ApplyFn,
    methods: Methods,
    network: ExplainedNetwork,
    batch: Batch,
    *,
    key: Key,
    relearn: Callable[[Variables], Relevance],
    control_names: Sequence[str],
    random_labels: ExplainedNetwork | None = None,
    modes: Sequence[str] = MODES,
    num_draws: int = 5,
    draw: Literal["permutation", "normal"] = "permutation",
    other_class: Literal["drawn", "runner-up"] = "drawn",
    explained: Literal["same class", "own prediction"] = "same class",
    targets: Any = None,
    signs: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> SanityChecks:
    """Returns how the maps of each method change when the network, its training or the class do.

    A check fails where

    - all layers are shuffled and the mean Spearman correlation with the map of the trained network is still
      0.5 or more, or the SSIM is by 0.5 or more of what is possible above chance ("survives randomization");
      where that is not significantly (paired bootstrap over the images, 95 %) more than the map of every
      control has in common with it, the check is undecided; a map that became constant counts as 0;
    - on that network the IoU area is significantly above that of the best control ("scores without a trained
      network");
    - the map of the network with random labels is as alike as that ("same map for random labels");
    - Spearman and SSIM with the map of another class are 0.9 or more ("same map for another class").

    A map that holds NaN or infinity counts as constant. All networks go through one compiled program.

    Args:
        methods: as `as_methods` takes them; those of relevant features get those of each network.
        network: the trained variables, and the features that are relevant in them.
        batch: "images" and "masks" of a sample, say 24 to 64, and optionally their "indices".
        relearn: variables -> relevance, over the layers of `network.relevance`: how the relevant features are
            found in a changed network. A shuffled network may predict few of the classes: let
            `learn_relevance` leave the others out. Regress on predictions: the true labels would bring the
            truth back into the maps, through the features of any network.
        control_names: which of the methods see no network.
        random_labels: the same network trained on shuffled labels, with the features relevant for those.
        modes: of "cascading" and "independent"; the network with all layers shuffled is always looked at.
        num_draws: of networks with all layers shuffled; the stages are of the first.
        draw: how weights are shuffled, see `randomized_variables`.
        explained: which class a changed network is asked about: that of the trained one, or what it predicts
            itself. For methods made of relevant features the second: a class that a network never predicts
            has none.
        other_class: the other class is "drawn" among the others, or the "runner-up" of the trained network.
        signs: as of `heatmaps_of`.
        batch_size: images that are explained at once.

    References:
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.

    Example:
        >>> from vexplain.relevance import Relevance
        >>> apply = lambda variables, images: images.reshape(len(images), -1) @ variables["dense"]
        >>> relevance = Relevance(np.ones((1, 2)), np.zeros(2), np.zeros(2), 1.0, (("x", 1),), ("a", "b"))
        >>> variables = {"dense": jax.random.normal(jax.random.key(0), (192, 2))}
        >>> images = jax.random.uniform(jax.random.key(1), (2, 12, 16, 1))
        >>> checks = sanity_checks(
        ...     apply,
        ...     ["gradient", "sobel_edges"],
        ...     ExplainedNetwork(variables, relevance),
        ...     {"images": images, "masks": images[..., 0]},
        ...     key=jax.random.key(2),
        ...     relearn=lambda variables: relevance,
        ...     control_names=["sobel_edges"],
        ... )
        >>> checks.scores["gradient"].passes, checks.scores["sobel_edges"].passes
        (True, False)
    """
    functions = as_methods(methods)
    if num_draws < 1:
        raise ValueError(f"num_draws is {num_draws}: expected 1 or more")
    _check(tuple(functions), batch, control_names, modes)
    check_choice("other_class", other_class, OTHER_CLASSES)
    check_choice("explained", explained, EXPLAINED)
    for_sample, for_weights, for_class, for_bootstrap = jax.random.split(key, 4)
    sample = make_sample(apply, network, batch, key=for_sample, targets=targets)
    heatmaps_fn = heatmaps_of(apply, functions, signs=signs, batch_size=batch_size)
    masks = jnp.asarray(batch["masks"])
    trained = Reference(network, sample, masks, heatmaps_fn, heatmaps_fn(network, sample))
    groups = parameter_groups_from_output(apply, network.variables, sample.images[:1])
    stages = {mode: shuffled_sets(groups, mode) for mode in modes}
    sets = [chosen for by_group in stages.values() for chosen in by_group.values()] + [groups]
    predict = jax.jit(lambda variables: apply(variables, sample.images).argmax(-1))

    def targets_of(variables: Variables) -> Labels:
        return sample.targets if explained == "same class" else predict(variables)

    shuffle = functools.partial(with_shuffled, trained, relearn=relearn, targets_of=targets_of, draw=draw)
    first = shuffle(for_weights, sets)
    others = [shuffle(jax.random.fold_in(for_weights, n), [groups]) for n in range(1, num_draws)]
    another = _other_targets(apply, network, sample, for_class, other_class)
    found = _Comparisons(
        {mode: {g: first[chosen] for g, chosen in by_group.items()} for mode, by_group in stages.items()},
        [comparisons[groups] for comparisons in (first, *others)],
        random_labels
        and with_other_network(trained, random_labels, targets=targets_of(random_labels.variables)),
        with_other_network(trained, network, targets=another),
        {name: with_control(trained, name) for name in control_names},
    )
    return _checks(found, iou_areas(trained.heatmaps, masks), for_bootstrap)


class _Comparisons(NamedTuple):
    stages: dict[str, dict[str, Comparison]]
    draws: list[Comparison]
    random_labels: Comparison | None
    other_class: Comparison
    controls: dict[str, dict[str, MapSimilarity]]  # by control, then by method


def _checks(found: _Comparisons, areas: dict[str, np.ndarray], key: Any) -> SanityChecks:
    best = max(found.controls, key=lambda name: areas[name].mean())
    labels = found.random_labels
    scores = {}
    for name, trained_area in areas.items():
        draws = tuple(comparison.similarities[name] for comparison in found.draws)
        area = np.mean([comparison.areas[name] for comparison in found.draws], axis=0)
        scores[name] = SanityScores(
            stages={
                mode: {group: comparison.similarities[name] for group, comparison in by_group.items()}
                for mode, by_group in found.stages.items()
            },
            draws=draws,
            controls={control: of[name] for control, of in found.controls.items() if control != name},
            random_labels=None if labels is None else labels.similarities[name],
            other_class=found.other_class.similarities[name],
            trained_area=trained_area,
            randomized_area=area,
            best_control=best,
            above_control=_difference(key, area, areas[best], np.isfinite(draws[0].ssim)),
        )
    jaccard = {mode: {g: c.jaccard for g, c in by_group.items()} for mode, by_group in found.stages.items()}
    judged = {name: _judged(score, areas[best], key) for name, score in scores.items()}
    return SanityChecks(judged, jaccard, None if labels is None else labels.jaccard)


def _judged(score: SanityScores, control_area: np.ndarray, key: Any) -> SanityScores:
    """Adds the verdict: which checks failed, and which could not be decided."""
    failures, undecided = [], []

    def look(name: str, similarity: MapSimilarity | None, find: Callable[[MapSimilarity], Any]) -> None:
        if similarity is None:
            return
        rho, ssim, chance = similarity.means
        words = f"{name}: Spearman {rho:.2f}, SSIM {ssim:.2f} ({chance:.2f} by chance)"
        if similarity.num_compared < max(LEAST_COMPARED * len(similarity.ssim), 1):
            undecided.append(f"{name}: {similarity.num_compared} of {len(similarity.ssim)} maps vary")
        elif (found := find(similarity)) is True:
            failures.append(words)
        elif found:
            undecided.append(f"{words}, no more alike than {found}")

    survives = functools.partial(_survives, controls=score.controls, key=key)
    look("survives randomization", score.randomized, survives)
    look("same map for random labels", score.random_labels, survives)
    look(
        "same map for another class",
        score.other_class,
        lambda similarity: min(similarity.means[:2]) >= SAME_FOR_ANOTHER_CLASS,
    )
    if score.above_control[0] > 0:
        failures.append(
            f"scores without a trained network: IoU area {score.randomized_area.mean():.3f} on shuffled "
            f"weights, {score.best_control} {control_area.mean():.3f}"
        )
    return score._replace(failures=tuple(failures), undecided=tuple(undecided))


def _survives(similarity: MapSimilarity, *, controls: Mapping[str, MapSimilarity], key: Any) -> bool | str:
    """True or False; the name of a control where the map is beyond a threshold, but no more than its map."""
    varies, blamed = np.isfinite(similarity.ssim), ""
    for is_beyond, measure in (
        (similarity.means[0] >= SURVIVES, lambda s: s.rank_correlation),
        (similarity.ssim_above_chance >= SURVIVES, lambda s: s.ssim - s.chance_ssim),
    ):
        if not is_beyond:
            continue
        alike = {name: measure(control) for name, control in controls.items()}
        if all(_difference(key, measure(similarity), a, varies)[0] > 0 for a in alike.values()):
            return True
        blamed = blamed or max(alike, key=lambda name: float(np.nanmean(alike[name])))
    return blamed or False


def _difference(key: Any, values: np.ndarray, others: np.ndarray, varies: np.ndarray) -> tuple[float, float]:
    """95 % interval of values - others, over the images whose map varies; NaN where none does."""
    if not varies.any():
        return (np.nan, np.nan)
    difference = jnp.asarray(values[varies] - others[varies])[:, None]
    low, high = bootstrap_intervals(key, [difference])[0]
    return float(low), float(high)


def _other_targets(
    apply: ApplyFn, network: ExplainedNetwork, sample: Sample, key: Any, other_class: str
) -> Labels:
    num_classes = len(network.relevance.class_names)
    if other_class == "drawn":
        step = jax.random.randint(key, sample.targets.shape, 1, num_classes)
        return (sample.targets + step) % num_classes
    logits = jax.jit(apply)(network.variables, sample.images)
    own = jax.nn.one_hot(sample.targets, num_classes, dtype=bool)
    return jnp.where(own, -jnp.inf, logits).argmax(-1)


def _check(names: Sequence[str], batch: Batch, control_names: Sequence[str], modes: Sequence[str]) -> None:
    if not len(control_names) or not set(control_names) <= set(names):
        raise ValueError(
            f"control_names is {list(control_names)}: expected one or more of the methods, {list(names)}"
        )
    if not set(modes) <= set(MODES):
        raise ValueError(f"modes is {list(modes)}: expected some of {MODES}")
    if "masks" not in batch:
        raise KeyError(f"batch: the IoU of the maps needs 'masks', got {sorted(batch)}")
