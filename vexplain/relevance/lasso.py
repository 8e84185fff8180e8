"""The mu-lasso: which few features, weighted, indicate each class.

The indicator of each class is regressed on the responses under a bound on the L1 norm of the weights, which
makes most weights exactly zero; a larger mu lets in more features. Only the sums G = X X^T and B = X L^T
enter, so that the cost does not depend on the number of images. The duality gap of the solution bounds how
far it can be from the optimum.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vexplain._checks import check_choice
from vexplain.relevance.device_solver import find_supports
from vexplain.relevance.working_set import Support, in_threads, solve_classes

_TILE = 256  # rows and columns of G that are compared at once
_TARGET_GAP = 1e-10  # aimed at, relative to the sum of l^2; float64 leaves room below


class LassoSolution(NamedTuple):
    """The solution for all classes, in float64 on the host.

    `penalties[j]` is the Lagrange multiplier of ||w_j||_1 <= mu: the lasso ||X^T w - l||^2 + penalty ||w||_1
    has the same solution; 0 where the constraint is inactive.
    """

    weights: Float[np.ndarray, "features classes"]  # exact zeros
    gaps: Float[np.ndarray, " classes"]  # duality gap / sum l^2
    penalties: Float[np.ndarray, " classes"]
    norms: Float[np.ndarray, " classes"]  # ||w_j||_1, at most mu
    num_steps: Int[np.ndarray, " classes"]  # factorizations, and steps of the active-set method


def mu_lasso(
    gram: Float[np.ndarray, "features _"],
    cross: Float[np.ndarray, "_ classes"],
    counts: Float[np.ndarray, " _"],
    *,
    mu: float | int = 10.0,
    nonnegative: bool = True,
    class_names: Sequence[str] | None = None,
    tolerance: float = 1e-6,
    max_steps: int = 20_000,
    solver: Literal["host", "device"] = "host",
    start: Float[np.ndarray, "_ _"] | None = None,
    check: bool = True,
) -> LassoSolution:
    """The weights of the L1-bounded regression of every class, with exact zeros and their gaps.

        w_j = argmin_w ||X^T w - l_j||^2   subject to  ||w||_1 <= mu, w >= 0      (*paper*)
        gap = <grad, w> + mu max(0, max_i -grad_i),   grad = 2 (G w - b)          (*ours*)
        gap = <grad, w> + mu max_i |grad_i|           without w >= 0              (*ours*)

    The paper does not state w >= 0; the authors' released explanations are only safe with it
    (*reconstructed*). Where rounding of G leaves eigenvalues slightly below 0, the gap certifies the optimum
    up to the smallest of them times ||w - w*||^2.

    Args:
        gram: G = X X^T, (features, features), any floating point; its symmetric part counts.
        cross: B = X L^T, (features, classes).
        counts: sum of l^2 for each class, its number of images, (classes,).
        mu: bound on the L1 norm of each class, positive; 10 in the paper for all datasets, while the authors
            released weights for an8Flower made with 5.
        nonnegative: demand w >= 0; otherwise weights are signed. Where there are many solutions, as there may
            be with fewer images than features, the one of least norm is taken, whose features are few.
        class_names: how errors name the classes; their numbers when left out.
        tolerance: largest duality gap, relative to the sum of l^2; a RuntimeError where one stays above.
        max_steps: for each class, factorizations of a part of G; about ten are usual.
        solver: where the weights are found: on the "host", a core for each of several classes, or by JAX on
            the "device", all classes at once (`solve_on_device`; in float32 where the device has no float64,
            TPUs), from which the host goes on. Both are certified on the host, in float64.
        start: a guess of the weights, (features, classes), for instance those of a smaller `mu`; what is
            negative of it or above the bound does no harm.
        check: look at all of G, whether it is finite and symmetric. With a few features a class that takes
            longer than the solution, for which a few rows of G are read; False is for a G that is known to
            be both, for instance at the second of several `mu`.

    Raises:
        ValueError: `mu` is not positive, shapes disagree, a value is not finite, or a class has no image.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, equation 1.
        Jaggi, Revisiting Frank-Wolfe, ICML 2013 (the gap).

    Example:
        >>> solution = mu_lasso(np.eye(3), np.array([[3.0], [1.0], [2.0]]), np.array([14.0]), mu=3.0)
        >>> solution.weights[:, 0].tolist(), solution.penalties.tolist()
        ([2.0, 0.0, 1.0], [2.0])
    """
    check_choice("solver", solver, ("host", "device"))
    mu = float(mu)
    names = tuple(map(str, range(cross.shape[-1])) if class_names is None else class_names)
    _check(gram, cross, counts, mu, names)
    if start is not None and (start.shape != cross.shape or not np.isfinite(start).all()):
        raise ValueError(f"start: expected finite weights of shape {cross.shape}, got {start.shape}")
    options = {"mu": mu, "nonnegative": nonnegative, "target_gap": _TARGET_GAP}
    if check:
        _check_finite(gram=gram)
        gram = _symmetric(gram)
    starts = None if start is None else [_feasible(column, mu, nonnegative) for column in start.T]
    if solver == "device":
        starts = find_supports(gram, cross, counts, starts, **options)
    solutions = solve_classes(gram, cross, counts, max_steps=max_steps, starts=starts, **options)
    gaps = np.array([solution.gap for solution in solutions]) / counts
    for name, gap in zip(names, gaps, strict=True):
        if not gap <= tolerance:
            raise RuntimeError(
                f"class {name!r}: the regression stopped at a duality gap of {gap:.1e} times its "
                f"number of images, above tolerance = {tolerance:.1e}; raise max_steps (it is "
                f"{max_steps}) or choose a smaller mu (it is {mu:g}); what the rounding of G leaves open, by "
                "features that depend on each other or differ by many orders of magnitude, grows with mu"
            )
    weights = np.zeros((len(counts), len(gram)))
    for row, solution in zip(weights, solutions, strict=True):
        row[solution.support.indices] = solution.support.values
    return LassoSolution(
        weights=weights.T,
        gaps=gaps,
        penalties=np.array([solution.penalty for solution in solutions]),
        norms=np.abs(weights).sum(axis=1),
        num_steps=np.array([solution.num_steps for solution in solutions]),
    )


def _feasible(weights: np.ndarray, mu: float, nonnegative: bool) -> Support:
    indices = np.flatnonzero(weights > 0 if nonnegative else weights)
    values = weights[indices].astype(np.float64)
    return Support(indices, values * min(1.0, mu / max(np.abs(values).sum(), mu)))


def _symmetric(gram: np.ndarray) -> np.ndarray:
    """The symmetric part of G: G itself where it is symmetric, which is seen tile by tile, without a copy."""
    firsts = range(0, len(gram), _TILE)

    def agrees(i: int) -> bool:
        rows = slice(i, i + _TILE)
        tiles = (slice(j, j + _TILE) for j in range(0, i + 1, _TILE))
        return all(np.array_equal(gram[rows, tile], gram[tile, rows].T) for tile in tiles)

    if all(in_threads(agrees, firsts)):
        return gram
    return 0.5 * (gram.astype(np.float64) + gram.T)


def _check(
    gram: np.ndarray, cross: np.ndarray, counts: np.ndarray, mu: float, names: tuple[str, ...]
) -> None:
    if len(names) != cross.shape[-1]:
        raise ValueError(f"class_names: expected {cross.shape[-1]} names, got {list(names)}")
    if not (mu > 0 and np.isfinite(mu)):
        raise ValueError(f"mu: the bound on the L1 norm must be positive and finite, got {mu}")
    num_features = len(gram)
    if gram.shape != (num_features, num_features) or cross.shape[0] != num_features:
        raise ValueError(
            "gram, cross: expected (features, features) and (features, classes), got "
            f"{gram.shape} and {cross.shape}"
        )
    if counts.shape != cross.shape[1:]:
        raise ValueError(f"counts: expected shape {cross.shape[1:]}, got {counts.shape}")
    _check_finite(cross=cross, counts=counts)
    empty = [name for name, count in zip(names, counts, strict=True) if not count > 0]
    if empty:
        raise ValueError(
            f"counts: no image of class {', '.join(map(repr, empty))}: give images of it; where predicted "
            "classes count, the network never says it: use more images, or train it longer"
        )


def _check_finite(**arrays: np.ndarray) -> None:
    for name, array in arrays.items():
        # One sum is enough to see a NaN or an infinity, without a second array of this size.
        if not np.isfinite(array.sum(dtype=np.float64)):
            raise ValueError(
                f"{name}: holds NaN or infinity; look for it in the images, the variables and the "
                "activations of the network"
            )
