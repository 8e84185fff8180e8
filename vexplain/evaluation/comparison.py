"""Whether one method is better than another: differences on the same images, with their intervals.

Images differ more than methods do, so methods are compared image by image (a paired bootstrap). Over several
tasks (data sets, networks) the mean over tasks is compared, with the images of each task drawn again within
it, so that a large task counts no more than a small one.

An interval speaks of one difference. Among the many of a table some leave out 0 by chance; and what training
another network would change is in none of them.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.evaluation.bootstrap import bootstrap_intervals
from vexplain.evaluation.scores import SCORES, Score


class Difference(NamedTuple):
    """The mean score of a method minus that of the reference, and its interval."""

    mean: float
    low: float
    high: float

    @property
    def is_above(self) -> bool:
        """The method is significantly above the reference."""
        return self.low > 0

    @property
    def is_below(self) -> bool:
        """The method is significantly below the reference."""
        return self.high < 0


def compare(
    tasks: Mapping[str, Mapping[str, Score]],
    reference: str,
    *,
    num_resamples: int = 1000,
    coverage: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, Difference]]:
    """Returns by method and score how far each method is above a reference, in the mean over tasks.

    Only what is scored in every task is compared.

    Args:
        tasks: by name of the task, the scores of the methods in it, as `summarize` returned them.
        reference: the name of the method that the others are compared with.
        num_resamples: how often the images of each task are drawn, within the task.
        coverage: of the intervals, in (0, 1).
        seed: of the drawing.

    Raises:
        KeyError: the reference is not in every task.
        ValueError: no task, or one with scores of different images.

    Example:
        >>> curve, values = np.zeros(101), np.linspace(0, 1, 9)
        >>> scores = {
        ...     "ours": Score({"best IoU": values}, curve, ""),
        ...     "gradient": Score({"best IoU": values - 0.25}, curve, ""),
        ... }
        >>> difference = compare({"flowers": scores}, "ours")["gradient"]["best IoU"]
        >>> round(difference.mean, 3), difference.is_below
        (-0.25, True)
    """
    if not tasks:
        raise ValueError("tasks is empty: expected the scores of one or more")
    for name, scores in tasks.items():
        _check_scores(name, scores, reference)
    everywhere = list(tasks.values())
    methods = [m for m in everywhere[0] if m != reference and all(m in scores for scores in everywhere)]
    names = [s for s in SCORES if all(s in scores[m].values for scores in everywhere for m in scores)]
    if not methods or not names:
        return {method: {} for method in methods}
    strata = [_differences(scores, methods, names, reference) for scores in everywhere]
    intervals = bootstrap_intervals(
        jax.random.key(seed),
        [jnp.asarray(values, jnp.float32) for values in strata],
        num_resamples=num_resamples,
        coverage=coverage,
    )
    means = np.mean([values.mean(0) for values in strata], axis=0)
    found = np.concatenate([means[:, None], np.asarray(intervals)], axis=1).reshape(-1, len(names), 3)
    return {
        method: {name: Difference(*map(float, row)) for name, row in zip(names, rows, strict=True)}
        for method, rows in zip(methods, found, strict=True)
    }


def _differences(
    scores: Mapping[str, Score], methods: list[str], names: list[str], reference: str
) -> np.ndarray:
    """(images, methods × scores)."""
    values = np.stack([[scores[m].values[name] for name in names] for m in methods])
    others = np.stack([scores[reference].values[name] for name in names])
    return np.moveaxis(values - others, -1, 0).reshape(others.shape[1], -1)


def _check_scores(task: str, scores: Mapping[str, Score], reference: str) -> None:
    if reference not in scores:
        raise KeyError(f"reference: no method {reference!r} in {task!r}: expected one of {list(scores)}")
    counts = {name: len(values) for name, s in scores.items() for values in s.values.values()}
    if len(set(counts.values())) > 1:
        raise ValueError(
            f"{task!r} has scores of {min(counts.values())} to {max(counts.values())} images: expected those "
            "of the same images for every method, from one pass"
        )
