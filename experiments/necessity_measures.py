"""The rankings of features that are compared, and the accuracy of a network without or with only their first.

Each ranking scores every feature for every class. All but the regression have a score for every feature, so
that they can be asked for as many features of each layer as the regression has selected.
"""

from typing import Any

import jax
import numpy as np

from vexplain import relevance
from vexplain.attribution import logit, margin
from vexplain.datasets import subset
from vexplain.relevance import ablation_counts, layout_of, leading_features, matched_random, matched_top
from vexplain.relevance.ablation import Replacement
from vexplain.streaming import fold_epoch
from vexplain.transforms import layers

PAPER, OURS = "mu-lasso (paper)", "mu-lasso weighted by contribution (ours)"
CONTROLS = (
    "mean response",
    "magnitude of gradient × activation",
    "linear probe",
    "contribution to the margin",
)
RANDOM = "random"
REPLACEMENTS: tuple[Replacement, ...] = ("zero", "mean", "resampled")
_NUM_REFERENCES = 64  # images from which replacements are taken
_RIDGE = 1e-3  # of the linear probe, relative to the mean second moment of a response


def measure(config: Any, job: Any, mesh: Any) -> dict[str, Any]:
    """What the tables and curves show, as JSON knows it."""
    table, num_classes = layers(job.apply, job.variables, job.test[[0]]["images"]), len(job.test.class_names)
    # A layer of one channel a class is the scores themselves: without it there is nothing to ask.
    rows = [row for row in relevance.default_layers(table) if row.num_channels != num_classes]
    layout = layout_of(rows)
    selected, scores = rank(config, job, rows, mesh)
    references = _references(config, job)

    def accuracies(removed: np.ndarray, replacement: Replacement) -> tuple[np.ndarray, np.ndarray]:
        """Correct predictions (ablations, classes), and the images of each class."""
        init, update = ablation_counts(job.apply, rows, num_classes, replacement=replacement)
        counts = fold_epoch(
            update,
            init(len(removed)),
            job.test,
            batch_size=config.batch_size,
            constants=(job.variables, removed, None if replacement == "zero" else references),
            mesh=mesh,
            description=f"{len(removed)} ablations, {replacement}",
        )
        return np.asarray(counts.correct), np.asarray(counts.images)

    sets = {PAPER: selected[PAPER], OURS: selected[OURS]}
    last = np.concatenate([np.full(row.num_channels, row is rows[-1]) for row in rows])
    return {
        "layers": [list(pair) for pair in layout],
        "last_layer": rows[-1].name,
        "num_selected": {name: [int(n) for n in chosen.sum(1)] for name, chosen in sets.items()},
        "num_union": {name: int(chosen.any(0).sum()) for name, chosen in sets.items()},
        "by_layer": {name: _by_layer(chosen.any(0), layout) for name, chosen in sets.items()},
        "selections": {
            name: {
                how: _compared(config, chosen, scores, layout, accuracies, how)
                for how in (REPLACEMENTS if name == PAPER else REPLACEMENTS[:1])
            }
            for name, chosen in sets.items()
        },
        "removed": _curves(config, scores, np.ones_like(last), accuracies, "zero", keep=False),
        "kept": _curves(config, scores, last, accuracies, "mean", keep=True),
    }


def rank(config: Any, job: Any, rows: Any, mesh: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The selections (classes, features), and the scores of every ranking, of the same shape."""
    layout, num_classes = layout_of(rows), len(job.train.class_names)
    options = {"batch_size": config.batch_size, "constants": job.variables, "mesh": mesh}
    init, update, finish = relevance.gram_statistics(
        relevance.response_fn(job.apply, rows), relevance.layout_size(layout), num_classes, mesh=mesh
    )
    sums = finish(fold_epoch(update, init(), job.train, layouts=relevance.MOMENTS_LAYOUT, **options))
    found = {}
    for score in (logit, margin):
        init, update = relevance.contribution_sums(job.apply, rows, num_classes, score=score)
        total, magnitude, count = map(np.asarray, fold_epoch(update, init(), job.train, **options))
        found[score] = total / np.maximum(count, 1), magnitude / np.maximum(count, 1)
    contributions = np.maximum(found[margin][0], 0)
    mean_response = sums.cross / np.maximum(sums.counts, 1)
    lasso = np.asarray(
        relevance.find_relevance(sums, layout, mu=config.mu, on_empty_class="leave_out").weights
    )
    weighted = _weighted(sums, contributions, config.mu)
    scores = {
        PAPER: lasso * mean_response,  # as the features of an image are ranked
        OURS: weighted * mean_response,
        "mean response": mean_response,
        "magnitude of gradient × activation": found[logit][1],
        "linear probe": _probe(sums),
        "contribution to the margin": contributions,
    }
    selected = {PAPER: lasso.T > 0, OURS: weighted.T > 0}
    return selected, {name: np.asarray(values.T) for name, values in scores.items()}


def _weighted(sums: Any, contributions: np.ndarray, mu: float) -> np.ndarray:
    """The mu-lasso of responses that are multiplied by what their feature adds to the margin of the class.

    A feature that indicates the class and does not change the decision has to pay with a larger weight.
    """
    weights = np.zeros_like(sums.cross)
    for label in np.flatnonzero(sums.counts):
        factors = contributions[:, label] / max(contributions[:, label].max(), 1e-30)
        solution = relevance.mu_lasso(
            sums.gram * np.outer(factors, factors),
            (factors * sums.cross[:, label])[:, None],
            sums.counts[[label]],
            mu=mu,
        )
        weights[:, label] = solution.weights[:, 0] * factors
    return weights


def _probe(sums: Any) -> np.ndarray:
    """Weights of a ridge regression, times the deviation of the response: what a feature adds to its fit."""
    mean = sums.cross.sum(1) / sums.total  # every image has one class
    deviation = np.sqrt(np.maximum(np.diagonal(sums.gram) / sums.total - mean**2, 0))
    ridge = _RIDGE * np.trace(sums.gram) / len(mean)
    weights = np.linalg.solve(sums.gram + ridge * np.eye(len(mean)), sums.cross)
    return np.maximum(weights, 0) * deviation[:, None]


def _compared(config: Any, chosen: np.ndarray, scores: Any, layout: Any, accuracies: Any, how: Any):
    """Accuracy without the selection, and without as many features of the same layers by other rankings."""
    union, key = np.asarray(chosen.any(0))[None], jax.random.key(config.seed)
    draws = matched_random(key, np.repeat(union, config.num_draws, axis=0), layout)
    unions = {"nothing": np.zeros_like(union), "selection": union}
    unions |= {name: matched_top(_union_scores(scores[name]), union, layout) for name in CONTROLS}
    classes = {"selection": chosen}
    classes |= {name: matched_top(scores[name], chosen, layout) for name in CONTROLS}
    classes[RANDOM] = matched_random(jax.random.fold_in(key, 1), chosen, layout)
    rows = [*unions.values(), draws, *classes.values()]
    correct, images = accuracies(np.concatenate(rows), how)
    correct, of_classes = np.split(correct, [len(unions) + len(draws)])
    overall = (correct.sum(1) / images.sum()).tolist()
    per_class = {}
    for name, part in zip(classes, np.split(of_classes, len(classes)), strict=True):
        own, seen = np.diagonal(part), images > 0
        others = (part.sum(1) - own) / np.maximum(images.sum() - images, 1)
        own = own / np.maximum(images, 1)
        per_class[name] = {"own": own[seen].tolist(), "others": others[seen].tolist()}
    of_unions = dict(zip(unions, overall, strict=False)) | {RANDOM: overall[len(unions) :]}
    return {"union": of_unions, "per_class": per_class}


def _curves(config: Any, scores: Any, allowed: np.ndarray, accuracies: Any, how: Any, *, keep: bool):
    """Accuracy against the number of features that are removed, or kept, of the allowed ones."""
    counts = [n for n in config.counts if n <= allowed.sum()]
    within = {name: np.where(allowed, values, 0.0) for name, values in scores.items()}
    rankings = [leading_features(_union_scores(values), counts)[0] for values in within.values()]
    rng = np.random.default_rng(config.seed)
    draws = np.where(allowed, rng.uniform(size=(config.num_draws, len(allowed))), -1.0)
    random = leading_features(draws, counts).reshape(-1, len(allowed))
    rows = np.concatenate([*rankings, random])
    correct, images = accuracies(allowed & ~rows if keep else rows, how)
    values = (correct.sum(1) / images.sum()).reshape(-1, len(counts))
    curves: dict[str, Any] = {"counts": counts, RANDOM: values[len(within) :].tolist()}
    for (name, scored), curve in zip(within.items(), values, strict=False):
        num_scored = np.count_nonzero((scored > 0).any(0))  # beyond them the order means nothing
        curves[name] = [float(v) for v, n in zip(curve, counts, strict=True) if n <= num_scored]
    return curves


def _union_scores(scores: np.ndarray) -> np.ndarray:
    """One row of scores for all classes: a feature is as good as its best place among the classes."""
    places = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
    best = np.where(scores > 0, places, scores.shape[1]).min(0)
    ties = scores.max(0) / max(scores.max(), 1e-30)
    return -(best - 0.5 * ties)[None].astype(float)


def _references(config: Any, job: Any) -> np.ndarray:
    drawn = np.random.default_rng(config.seed).permutation(len(job.train))[:_NUM_REFERENCES]
    source = subset(job.train, np.sort(drawn))
    images = source[np.arange(len(source))]["images"]
    return images[np.random.default_rng(config.seed + 1).permutation(len(images))]


def _by_layer(chosen: np.ndarray, layout: Any) -> dict[str, int]:
    return {name: int(part.sum()) for name, part in relevance.split_features(layout, chosen).items()}
