"""Block pivoting: the sparse regression over few features, many of them exchanged at once.

    minimize  w^T G w - 2 b^T w   subject to  ||w||_1 <= mu   (and w >= 0)

Guess which weights are zero and the signs of the others, solve for them, and exchange all features that
turn out on the wrong side. A few factorizations lead to the minimum where an active-set method takes a step
for each feature. Where exchanging all makes no progress, one feature is exchanged at a time; where that comes
to no end either, as it may where features depend on each other, the caller must go on by another method.
"""

import numpy as np
from scipy.linalg import get_lapack_funcs

from vexplain.relevance.active_set import SINGULAR

_FACTORIZE, _SOLVE = get_lapack_funcs(("potrf", "potrs"), dtype=np.float64)
_MAX_PIVOTS = 40  # exchanges before it is given up; less than ten are usual
_PATIENCE = 3  # exchanges without progress before only one feature is exchanged


def pivot(
    hessian: np.ndarray,
    linear: np.ndarray,
    signs: np.ndarray,
    *,
    mu: float,
    nonnegative: bool,
    slack: float,
    max_pivots: int,
) -> tuple[np.ndarray | None, bool, int]:
    """The weights (`None` where there are none yet), whether they are the minimum, and the factorizations.

    Features that depend linearly on others are left out. Where one of them would lower the objective, the
    weights are feasible, but not the minimum.

    Args:
        hessian: G, (features, features), symmetric.
        linear: b, (features,).
        signs: of the weights, a guess where they are signed.
        slack: by how much a gradient may be steeper than the penalty.

    References:
        Portugal, Judice, Vicente, A comparison of block pivoting and interior-point algorithms for linear
        least squares problems with nonnegative variables, 1994. Here with the bound on the norm (*ours*).
    """
    is_active = np.full(len(linear), True)
    is_dependent = np.full(len(linear), False)
    fewest, patience = len(linear) + 1, _PATIENCE
    max_pivots = min(max_pivots, _MAX_PIVOTS)
    for step in range(1, max_pivots + 1):
        active = np.flatnonzero(is_active)
        factor, dependent = _factorized(hessian[active][:, active])
        if factor is None:
            is_active[active[dependent]], is_dependent[active[dependent]] = False, True
            continue
        weights, penalty = np.zeros(len(linear)), 0.0
        if len(active):
            weights[active], penalty = _on_face(factor, linear[active], signs[active], mu)
        gradient = 2 * (hessian @ weights - linear)
        if not nonnegative:
            signs = np.where(is_active | (gradient == 0), signs, -np.sign(gradient))
        is_wrong = np.where(is_active, signs * weights < 0, -signs * gradient > penalty + slack)
        wrong = np.flatnonzero(is_wrong & ~is_dependent)
        if not len(wrong):
            return weights, not (is_wrong & is_dependent).any(), step
        patience = _PATIENCE if len(wrong) < fewest else patience - 1
        fewest = min(fewest, len(wrong))
        if patience < 0:
            wrong = wrong[-1:]
        is_active[wrong] = ~is_active[wrong]
    return None, False, max_pivots


def _factorized(block: np.ndarray) -> tuple[np.ndarray | None, int]:
    """The Cholesky factor; where a feature depends on those before it, `None` and the first such feature."""
    smallest = SINGULAR * block.diagonal()
    factor, failed = _FACTORIZE(np.asfortranarray(block), lower=1, clean=0, overwrite_a=1)
    num_pivots = failed - 1 if failed > 0 else len(smallest)
    small = np.flatnonzero(factor.diagonal()[:num_pivots] ** 2 <= smallest[:num_pivots])
    if len(small):
        return None, int(small[0])
    return (None, num_pivots) if failed > 0 else (factor, -1)


def _on_face(
    factor: np.ndarray, linear: np.ndarray, signs: np.ndarray, mu: float
) -> tuple[np.ndarray, float]:
    """The minimum with given zeros and signs, were weights of any sign allowed, and its penalty."""
    right = np.empty((len(linear), 2), order="F")
    right[:, 0], right[:, 1] = linear, signs
    solved, _ = _SOLVE(factor, right, lower=1, overwrite_b=1)
    free, across = solved.T
    shift = max(0.0, float(signs @ free - mu) / float(signs @ across))
    return free - shift * across, 2 * shift
