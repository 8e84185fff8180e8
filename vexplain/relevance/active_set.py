"""The sparse regression of one class over few features, solved exactly by an active-set method.

    minimize  w^T G w - 2 b^T w   subject to  ||w||_1 <= mu   (and w >= 0)

The method keeps a *face* of the feasible set: the few features that are not zero, with their signs, and
whether ||w||_1 = mu. It moves to the minimum over the face, drops a feature whose weight reaches zero on the
way, and otherwise lets in the feature that lowers the objective fastest. So zeros are exact.

Copies of a feature make G singular, and rounding makes it slightly indefinite. Along a direction without
curvature there is no minimum; the method then moves until the face ends, since the feasible set is bounded.
"""

from typing import NamedTuple

import numpy as np

SINGULAR = 1e-12  # a squared Cholesky pivot below this share of the diagonal: dependent features
_FLAT = 1e-12  # curvature below this share of the largest one is rounding
_STALL_STEPS = 40  # without progress in so many steps, more will not help


class SmallSolution(NamedTuple):
    """What the active-set method found."""

    weights: np.ndarray  # (features,) float64, exact zeros
    num_steps: int


def solve_small(
    gram: np.ndarray,
    linear: np.ndarray,
    start: np.ndarray,
    *,
    mu: float,
    nonnegative: bool,
    target_gap: float,
    max_steps: int,
) -> SmallSolution:
    """The minimum of w^T G w - 2 b^T w over the L1 ball of radius mu (its part w >= 0).

    Args:
        gram: G, (features, features), symmetric.
        linear: b, (features,) float64.
        start: feasible weights.
        target_gap: the duality gap to stop at; after `max_steps` the caller must check it.
    """
    face = _Face(gram, linear, mu, start)
    stalled, num_steps = 0, 0
    for num_steps in range(max_steps):  # noqa: B007
        gradient = face.gradient()
        scores = -gradient if nonnegative else np.abs(gradient)
        penalty = face.penalty(gradient)
        along = float(gradient[face.indices] @ face.weights())
        if along + mu * max(0.0, float(scores.max())) <= target_gap or stalled > _STALL_STEPS:
            break
        if face.is_minimal:
            if penalty < 0:
                face.norm_is_fixed = False
            else:  # where no feature is left to enter, the move refines the minimum
                face.enter(scores, penalty, gradient)
        decrease = face.move(gradient)
        stalled = 0 if decrease > 1e-5 * target_gap else stalled + 1
    weights = np.zeros_like(linear)
    weights[face.indices] = face.weights()
    return SmallSolution(weights, num_steps)


class _Face:
    """The features that may move (indices, signs, magnitudes >= 0) and the rows of G they need."""

    def __init__(self, gram: np.ndarray, linear: np.ndarray, mu: float, start: np.ndarray):
        self.gram, self.linear, self.mu = gram, linear, mu
        self.indices = np.flatnonzero(start)
        self.signs = np.sign(start[self.indices])
        self.magnitudes = np.abs(start[self.indices])
        self.rows = gram[self.indices]
        self.norm_is_fixed = bool(self.magnitudes.sum() >= mu * (1 - 1e-12))  # the face lies in ||w||_1 = mu
        self.is_minimal = not len(self.indices)  # the weights are at the minimum over the face
        self.banned: set[int] = set()  # left at once after entering: not again before progress

    def weights(self) -> np.ndarray:
        return self.signs * self.magnitudes

    def gradient(self) -> np.ndarray:
        return 2 * (self.weights() @ self.rows - self.linear)

    def penalty(self, gradient: np.ndarray) -> float:
        if not self.norm_is_fixed:
            return 0.0
        return -float(gradient[self.indices] @ self.weights()) / self.mu

    def enter(self, scores: np.ndarray, penalty: float, gradient: np.ndarray) -> None:
        """Lets in the feature that lowers the objective fastest, if any lowers it."""
        outside = scores.copy()
        outside[self.indices] = -np.inf
        outside[list(self.banned)] = -np.inf
        best = int(np.argmax(outside))
        if outside[best] <= penalty:
            return
        self.indices = np.append(self.indices, best)
        self.signs = np.append(self.signs, -np.sign(gradient[best]))
        self.magnitudes = np.append(self.magnitudes, 0.0)
        self.rows = np.vstack([self.rows, self.gram[best]])

    def move(self, gradient: np.ndarray) -> float:
        """Moves to the minimum over the face, or as far as the face reaches; the decrease."""
        # Where the norm is fixed a constant changes nothing, but would drown the rest in rounding.
        slopes = self.signs * gradient[self.indices] + self.penalty(gradient)
        hessian = np.outer(self.signs, self.signs) * self.rows[:, self.indices]
        direction, reach = _direction(hessian, slopes, norm_is_fixed=self.norm_is_fixed)
        slope = float(slopes @ direction)
        curvature = float(direction @ hessian @ direction)
        if slope >= 0:  # only rounding is left to move along
            self.is_minimal = True
            return 0.0
        length = min(reach, -slope / (2 * curvature) if curvature > 0 else np.inf)
        zero_at = np.full(len(direction), np.inf)
        shrinks = direction < 0
        zero_at[shrinks] = self.magnitudes[shrinks] / -direction[shrinks]
        growth = 0.0 if self.norm_is_fixed else float(direction.sum())
        bound_at = max(0.0, self.mu - self.magnitudes.sum()) / growth if growth > 0 else np.inf
        length = min(length, float(zero_at.min()), bound_at)
        decrease = -(slope * length + curvature * length**2)
        self.magnitudes = np.maximum(self.magnitudes + length * direction, 0.0)
        if self.norm_is_fixed:  # rounding must not add up
            self.magnitudes *= self.mu / self.magnitudes.sum()
        self._end_of_move(length, zero_at, bound_at, decrease)
        return decrease

    def _end_of_move(self, length: float, zero_at: np.ndarray, bound_at: float, decrease: float) -> None:
        if length > 0 and decrease > 0:
            self.banned.clear()
        self.is_minimal = False
        if length == zero_at.min():
            gone = int(np.argmin(zero_at))
            self.banned.add(int(self.indices[gone]))
            for name in ("indices", "signs", "magnitudes"):
                setattr(self, name, np.delete(getattr(self, name), gone))
            self.rows = np.delete(self.rows, gone, axis=0)
        elif length == bound_at:
            self.norm_is_fixed = True
        else:
            self.is_minimal = True


def _direction(hessian: np.ndarray, slopes: np.ndarray, *, norm_is_fixed: bool) -> tuple[np.ndarray, float]:
    """A direction of descent within the face, and how many times its length to go at most.

    The direction ends in the minimum over the face, or, where the face has none, has no end.
    """
    scale = np.sqrt(np.maximum(np.diag(hessian), 0.0))
    scale[scale == 0] = 1.0  # features differ by orders of magnitude; their correlations do not
    hessian, slopes, normal = hessian / np.outer(scale, scale), slopes / scale, 1 / scale
    try:
        is_definite = np.linalg.cholesky(hessian).diagonal().min(initial=1.0) ** 2 > SINGULAR
    except np.linalg.LinAlgError:
        is_definite = False
    if not is_definite:
        direction, reach = _singular_direction(hessian, slopes, normal, norm_is_fixed)
        return direction / scale, reach
    newton, across = np.linalg.solve(hessian, np.stack([-slopes / 2, normal], axis=1)).T
    if norm_is_fixed:
        newton = newton - across * (normal @ newton) / (normal @ across)
    return newton / scale, 1.0


def _singular_direction(
    hessian: np.ndarray, slopes: np.ndarray, normal: np.ndarray, norm_is_fixed: bool
) -> tuple[np.ndarray, float]:
    """Descent along the directions without curvature if there is any, else to the minimum."""
    basis = np.eye(len(slopes))
    if norm_is_fixed:
        basis = np.linalg.qr(normal[:, None], mode="complete").Q[:, 1:]
    curvatures, axes = np.linalg.eigh(basis.T @ hessian @ basis)
    axes = basis @ axes
    along = axes.T @ slopes
    is_flat = curvatures <= _FLAT * np.max(np.abs(curvatures), initial=0.0)
    falls = is_flat & (np.abs(along) > 1e-10 * np.linalg.norm(slopes))
    if falls.any():
        return -axes[:, falls] @ along[falls], np.inf
    return -axes[:, ~is_flat] @ (along[~is_flat] / (2 * curvatures[~is_flat])), 1.0
