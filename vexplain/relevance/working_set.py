"""The sparse regression of one class, solved over a working set of few features and certified over all.

    minimize  w^T G w - 2 b^T w   subject to  ||w||_1 <= mu   (and w >= 0)

Each round solves the problem over the working set alone, where G is a small matrix, and then computes the
gradient of all from the rows of G whose feature has a weight: its largest entry bounds the duality gap. While
that is too large, the features that lower the objective fastest join the working set, as many as have a
weight, so that its size doubles; features without a weight leave it.
"""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from vexplain.relevance.active_set import solve_small
from vexplain.relevance.pivoting import pivot

_FIRST = 16  # features of the first working set
_SLACK = 0.1  # share of the gap aimed at that is left to the features outside the working set
_MAX_STALLS = 3  # rounds without progress: more will not help
_STEPS_A_FEATURE = 10  # of the active-set method; two are usual, and rounding may ask for any number
_ROWS = 16  # of G that are read at once
_AT_ONCE = 16  # classes a thread takes
_LEAST_PENALTY = 1e-8  # of the norm mu, relative to the sum of l^2: far below what is certified


class Support(NamedTuple):
    """The weights of one class that are not zero."""

    indices: np.ndarray  # (support,) of the features
    values: np.ndarray  # (support,) float64


class ClassSolution(NamedTuple):
    """What was found for one class."""

    support: Support
    gap: float  # duality gap
    penalty: float  # Lagrange multiplier of ||w||_1 <= mu; 0 where it is inactive
    num_steps: int  # factorizations, and steps of the active-set method


def solve_classes(
    gram: np.ndarray,
    cross: np.ndarray,
    counts: np.ndarray,
    *,
    mu: float,
    nonnegative: bool,
    target_gap: float,
    max_steps: int,
    starts: Sequence[Support] | None = None,
) -> list[ClassSolution]:
    """The solution of each class, see `solve_class`; classes are shared among one thread for each core.

    Args:
        cross: b of each class, (features, classes).
        counts: (classes,); `target_gap` is relative to them.
        starts: a feasible guess for each class.
    """

    def solve(first: int) -> list[ClassSolution]:
        some = slice(first, first + _AT_ONCE)
        linears = np.ascontiguousarray(cross[:, some].T, dtype=np.float64)
        guesses = [None] * len(linears) if starts is None else starts[some]
        options = {"mu": mu, "nonnegative": nonnegative, "max_steps": max_steps}
        return [
            _of_least_norm(gram, linear, float(count), target_gap=target_gap, start=start, **options)
            for linear, count, start in zip(linears, counts[some], guesses, strict=True)
        ]

    with _linear_algebra().limit(limits=1, user_api="blas"):  # its own threads would wait for each other
        found = in_threads(solve, range(0, len(counts), _AT_ONCE))
    return [solution for solutions in found for solution in solutions]


def in_threads(task: Callable[[int], Any], arguments: Sequence[int]) -> list[Any]:
    """What a task returns for each argument, in order; as many at once as there are cores."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    num_threads = min(len(arguments), num_cores)
    if num_threads < 2:
        return [task(argument) for argument in arguments]
    with ThreadPoolExecutor(num_threads) as pool:
        return list(pool.map(task, arguments))


@functools.cache
def _linear_algebra() -> ThreadpoolController:
    return ThreadpoolController()


def _of_least_norm(
    gram: np.ndarray,
    linear: np.ndarray,
    count: float,
    *,
    mu: float,
    nonnegative: bool,
    target_gap: float,
    **rest: Any,
) -> ClassSolution:
    """The solution of a class; where there are many, as with fewer images than features, that of least norm.

    There may be many where the norm is not at its bound. A penalty that moves no digit of the certificate
    then chooses: the end of the path over it, with few features. (Without w >= 0 any of the solutions.)
    """
    options: Any = {"mu": mu, "nonnegative": nonnegative, "target_gap": target_gap * count, **rest}
    found = solve_class(gram, linear, **options)
    if found.penalty or not nonnegative or not len(found.support.indices):
        return found
    any_of_them, penalty = found, _LEAST_PENALTY * count / mu
    found = solve_class(gram, linear - penalty / 2, **options)
    num_steps = any_of_them.num_steps + found.num_steps
    candidates = [_certified(gram, linear, found.support, num_steps, mu)]
    indices = found.support.indices
    if len(indices):
        try:  # without the penalty, which takes a little from each weight
            values = np.linalg.solve(gram[np.ix_(indices, indices)].astype(np.float64), linear[indices])
        except np.linalg.LinAlgError:
            values = -found.support.values
        if values.min() > 0 and values.sum() <= mu:
            candidates.append(_certified(gram, linear, Support(indices, values), num_steps, mu))
    return min(candidates, key=lambda solution: solution.gap)


def _certified(
    gram: np.ndarray, linear: np.ndarray, support: Support, num_steps: int, mu: float
) -> ClassSolution:
    """Nonnegative weights with their gap."""
    indices, values = support
    gradient = _gradient(gram, linear, indices, values)
    along = float(gradient[indices] @ values)
    gap = along + mu * max(0.0, float(-gradient.min(initial=0.0)))
    penalty = max(0.0, -along / mu) if _is_bounded(values, mu) else 0.0
    return ClassSolution(support, max(gap, 0.0), penalty, num_steps)


def _is_bounded(values: np.ndarray, mu: float) -> bool:
    return bool(np.abs(values).sum() >= mu * (1 - 1e-12))


def solve_class(
    gram: np.ndarray,
    linear: np.ndarray,
    *,
    mu: float,
    nonnegative: bool,
    target_gap: float,
    max_steps: int,
    start: Support | None = None,
) -> ClassSolution:
    """The minimum of w^T G w - 2 b^T w over the L1 ball of radius mu (its part w >= 0).

    Args:
        gram: G, (features, features), symmetric.
        linear: b, (features,) float64.
        target_gap: the duality gap to stop at; the caller must check it, for `max_steps` or rounding may end
            the search before.
        start: a feasible guess.
    """
    indices, values = start if start is not None else (np.zeros(0, int), np.zeros(0))
    hessian = gram[np.ix_(indices, indices)].astype(np.float64)
    num_steps, num_stalls, lowest, is_solved = 0, 0, np.inf, False
    while True:
        gradient = _gradient(gram, linear, indices, values)
        scores = -gradient if nonnegative else np.abs(gradient)
        along = float(gradient[indices] @ values)
        penalty = max(0.0, -along / mu)
        gap = along + mu * max(0.0, float(scores.max()))
        if gap <= target_gap or num_steps >= max_steps or num_stalls > _MAX_STALLS:
            break
        scores[indices] = -np.inf
        entering = _steepest(scores, penalty + _SLACK * target_gap / mu, max(_FIRST, len(indices)))
        if is_solved and not len(entering):  # what is left of the gap is rounding
            break
        objective = along / 2 - float(linear[indices] @ values)
        # The gap bounds how far the objective is above its minimum, but for rounding.
        num_stalls = 0 if objective < lowest - 1e-4 * gap else num_stalls + 1
        lowest = min(lowest, objective)
        working = np.concatenate([indices, entering])
        hessian = _grown(gram, hessian, working, entering)
        found, steps = _over_working_set(
            hessian,
            linear[working],
            np.concatenate([values, np.zeros(len(entering))]),
            gradient[working],
            mu=mu,
            nonnegative=nonnegative,
            target_gap=_SLACK * target_gap,
            max_steps=max_steps - num_steps,
        )
        num_steps, is_solved = num_steps + steps, True
        kept = np.flatnonzero(found)
        indices, values, hessian = working[kept], found[kept], hessian[kept][:, kept]
        norm = np.abs(values).sum()
        if norm > mu:  # by rounding
            values *= mu / norm
    penalty = penalty if _is_bounded(values, mu) else 0.0
    return ClassSolution(Support(indices, values), max(gap, 0.0), penalty, num_steps)


def _gradient(gram: np.ndarray, linear: np.ndarray, indices: np.ndarray, values: np.ndarray) -> np.ndarray:
    """2 (G w - b), from the rows of G that have a weight."""
    total = -linear
    for first in range(0, len(indices), _ROWS):
        some = slice(first, first + _ROWS)
        total += values[some] @ gram[indices[some]]
    total *= 2
    return total


def _steepest(scores: np.ndarray, above: float, number: int) -> np.ndarray:
    """The features with the largest scores, at most `number`."""
    better = np.flatnonzero(scores > above)
    if len(better) <= number:
        return better
    return better[np.argpartition(scores[better], -number)[-number:]]


def _grown(gram: np.ndarray, hessian: np.ndarray, working: np.ndarray, entering: np.ndarray) -> np.ndarray:
    """G over the working set, whose last features enter; over the others it is known."""
    num_old = len(hessian)
    grown = np.empty((len(working), len(working)))
    grown[:num_old, :num_old] = hessian
    grown[num_old:] = gram[entering[:, None], working]
    grown[:num_old, num_old:] = grown[num_old:, :num_old].T
    return grown


def _over_working_set(
    hessian: np.ndarray,
    linear: np.ndarray,
    values: np.ndarray,
    gradient: np.ndarray,
    *,
    mu: float,
    nonnegative: bool,
    target_gap: float,
    max_steps: int,
) -> tuple[np.ndarray, int]:
    """The minimum over the working set, and its number of steps; from feasible values and their gradient."""
    options = {"mu": mu, "nonnegative": nonnegative}
    signs = np.where(values != 0, np.sign(values), -np.sign(gradient))
    if nonnegative:
        signs = np.ones_like(signs)
    found, is_minimum, num_pivots = pivot(
        hessian, linear, signs, slack=target_gap / mu, max_pivots=max_steps, **options
    )
    if found is not None and is_minimum:
        return found, num_pivots
    # Where G is singular or pivoting comes to no end, the slower method goes on from the better point.
    if found is not None and _objective(hessian, linear, found) < _objective(hessian, linear, values):
        values = found
    solution = solve_small(
        hessian,
        linear,
        values,
        target_gap=target_gap,
        max_steps=min(max_steps - num_pivots, _STEPS_A_FEATURE * len(linear)),
        **options,
    )
    return solution.weights, num_pivots + solution.num_steps


def _objective(hessian: np.ndarray, linear: np.ndarray, weights: np.ndarray) -> float:
    return float((hessian @ weights - 2 * linear) @ weights)
