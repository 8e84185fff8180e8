"""The sparse regression of all classes at once, as one pure function for the device that holds the sums.

The method is that of `working_set`: few features of each class, solved for by block pivoting, certified by
the gradient of all. Here all classes go through every step together, so that each step is one batched
operation: a matrix product for the gradients, `top_k` for the working sets, a batched Cholesky factorization
for the weights. Nothing but the end of the loop joins the classes, which may therefore be sharded.

Working sets have a fixed size. Equal features make G singular; so each round pulls its solution towards the
last one by a small share of G's diagonal, which is a proximal-point method and has the same minimum.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.relevance.working_set import Support
from vexplain.typing import Array, Float, Int

_MAX_PIVOTS = 40  # exchanges in a round; less than ten are usual
_PATIENCE = 3  # exchanges without progress before only one feature is exchanged
_MAX_STALLS = 3  # rounds without progress: more will not help
_FIRST_WORKING = 64  # features of a working set, doubled for the classes that need more
_MOST_NUMBERS = 2**26  # of one batch of small matrices: half a GiB in float64


class DeviceSolution(NamedTuple):
    """The solution for all classes, in the precision of the sums; the gaps are as accurate as that."""

    weights: Float[Array, "features classes"]  # exact zeros
    gaps: Float[Array, " classes"]  # duality gap / sum l^2
    penalties: Float[Array, " classes"]  # of ||w||_1 <= mu; 0 where it is inactive
    num_rounds: Int[Array, ""]


class _Point(NamedTuple):
    """Weights of all classes, and what follows from them; classes first."""

    weights: Array  # (classes, features)
    gradient: Array  # (classes, features)
    objective: Array  # (classes,)
    gap: Array
    penalty: Array


@functools.partial(jax.jit, static_argnames=("nonnegative", "num_working", "max_rounds"))
def solve_on_device(
    gram: Float[Array, "features _"],
    cross: Float[Array, "_ classes"],
    counts: Float[Array, " _"],
    start: Float[Array, "_ _"] | None = None,
    *,
    mu: Float[Array, ""] | float = 10.0,
    nonnegative: bool = True,
    num_working: int = 256,
    target_gap: Float[Array, ""] | float = 1e-7,
    max_rounds: int = 50,
) -> DeviceSolution:
    """The mu-lasso of every class, see `mu_lasso`, without a step on the host.

    It checks nothing, and computes in the precision of `gram`: in float32 the gaps reach some 1e-6 to 1e-4,
    by how large mu is. `mu_lasso(..., solver="device")` checks its input and certifies the last digits in
    float64. To split the work over devices, shard `cross`, `counts` and `start` over the classes.

    Args:
        gram: G = X X^T, (features, features), symmetric.
        cross: B = X L^T, (features, classes).
        counts: sum of l^2 for each class, (classes,), positive.
        start: feasible weights, if any are known, (features, classes).
        mu: bound on the L1 norm of each class, positive; may be traced.
        nonnegative: demand w >= 0.
        num_working: features of a working set; static. A class whose solution has more than three quarters
            of them is given up, which its gap shows. Memory: classes * num_working^2 numbers, a few times.
        target_gap: the duality gap to stop at, relative to `counts`; the caller must check it.
        max_rounds: of the loop; static.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, equation 1.
        Rockafellar, Monotone operators and the proximal point algorithm, 1976.

    Example:
        >>> cross, counts = jnp.array([[3.0], [1.0], [2.0]]), jnp.array([14.0])
        >>> solve_on_device(jnp.eye(3), cross, counts, mu=3.0).weights[:, 0].tolist()
        [2.0, 0.0, 1.0]
    """
    linear, counts = cross.T.astype(gram.dtype), counts.astype(gram.dtype)
    num_working = min(num_working, len(gram))
    enough = num_working if num_working == len(gram) else 3 * num_working // 4
    mu = jnp.asarray(mu, gram.dtype)
    first = jnp.zeros_like(linear) if start is None else start.T.astype(gram.dtype)
    improve = functools.partial(_improved, gram, mu=mu, nonnegative=nonnegative, num_working=num_working)
    evaluate = functools.partial(_evaluated, gram, linear, mu=mu, nonnegative=nonnegative)
    rounding = 4 * jnp.finfo(gram.dtype).eps * counts

    def is_open(point, stalls):
        fits = jnp.sum(point.weights != 0, axis=1) <= enough
        return (point.gap > target_gap * counts) & (stalls < _MAX_STALLS) & fits

    def unfinished(state):
        point, stalls, rounds = state
        return is_open(point, stalls).any() & (rounds < max_rounds)

    def proceed(state):
        point, stalls, rounds = state
        new = evaluate(jax.vmap(improve)(linear, point.weights, point.gradient, point.penalty))
        is_lower = (new.objective < point.objective - rounding) | (new.gap < point.gap / 2)
        is_taken = is_open(point, stalls) & (is_lower | (new.gap < point.gap))
        point = jax.tree.map(
            lambda a, b: jnp.where(is_taken.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, point
        )
        return point, jnp.where(is_lower, 0, stalls + 1), rounds + 1

    state = (evaluate(first), jnp.zeros(len(counts), jnp.int32), jnp.zeros((), jnp.int32))
    point, _, num_rounds = jax.lax.while_loop(unfinished, proceed, state)
    is_bounded = jnp.abs(point.weights).sum(1) >= mu * (1 - 32 * jnp.finfo(gram.dtype).eps)
    penalties = jnp.where(is_bounded, point.penalty, 0)
    return DeviceSolution(point.weights.T, jnp.maximum(point.gap, 0) / counts, penalties, num_rounds)


def _evaluated(gram: Array, linear: Array, weights: Array, *, mu: Array, nonnegative: bool) -> _Point:
    gradient = 2 * (jnp.matmul(weights, gram, precision=jax.lax.Precision.HIGHEST) - linear)
    scores = -gradient if nonnegative else jnp.abs(gradient)
    along = jnp.sum(gradient * weights, axis=1)
    objective = along / 2 - jnp.sum(linear * weights, axis=1)
    gap = along + mu * jnp.maximum(0, scores.max(1))
    return _Point(weights, gradient, objective, gap, jnp.maximum(0, -along / mu))


def _improved(
    gram: Array,
    linear: Array,
    weights: Array,
    gradient: Array,
    penalty: Array,
    *,
    mu: Array,
    nonnegative: bool,
    num_working: int,
) -> Array:
    """New weights of one class: the minimum over the features that have a weight, and the steepest others."""
    scores = -gradient if nonnegative else jnp.abs(gradient)
    _, working = jax.lax.top_k(jnp.where(weights != 0, jnp.inf, scores), num_working)
    hessian = gram[working[:, None], working]
    old, slopes, enters = weights[working], gradient[working], scores[working] > penalty
    # Features differ by orders of magnitude; their correlations do not.
    diagonal = jnp.diagonal(hessian)
    is_alive = diagonal > 0
    root = jnp.sqrt(jnp.where(is_alive, diagonal, 1))
    scale = jnp.where(is_alive, 1 / root, 0)
    hessian = hessian * scale[:, None] * scale
    signs = jnp.where(old != 0, jnp.sign(old), -jnp.sign(slopes))
    signs = jnp.ones_like(signs) if nonnegative else signs
    is_active = ((old != 0) | enters) & is_alive
    found = _pivoted(hessian, linear[working] * scale, scale, signs, is_active, old * root, mu, nonnegative)
    found = _feasible(found * scale, mu, nonnegative)
    # Where pivoting failed, as far as the objective falls.
    change = found - old
    curvature = jnp.vdot(change * root, jnp.matmul(hessian, change * root, precision="highest"))
    slope = jnp.vdot(slopes, change)
    is_full = -slope >= 2 * curvature * (1 - 1e-3)
    length = jnp.clip(-slope / jnp.where(curvature > 0, 2 * curvature, 1), 0, 1)
    found = jnp.where(is_full, found, old + length * change)
    return jnp.zeros_like(weights).at[working].set(found)


def _feasible(weights: Array, mu: Array, nonnegative: bool) -> Array:
    weights = jnp.maximum(weights, 0) if nonnegative else weights
    norm = jnp.sum(jnp.abs(weights))
    return weights * jnp.where(norm > mu, mu / jnp.where(norm > 0, norm, 1), 1)


def _pivoted(
    hessian: Array,
    linear: Array,
    normal: Array,
    signs: Array,
    is_active: Array,
    center: Array,
    mu: Array,
    nonnegative: bool,
) -> Array:
    """Block pivoting, as in `pivoting`, where the diagonal of G is one or, of a dead feature, zero.

    minimize  w^T H w - 2 b^T w + p ||w - center||^2   subject to  sum |normal w| <= mu
    """
    eps = jnp.finfo(hessian.dtype).eps
    pull, num = 64 * eps, len(linear)
    eye = jnp.eye(num, dtype=hessian.dtype)
    hessian, linear = hessian + pull * eye, linear + pull * center

    def on_face(is_active, signs):
        block = jnp.where(is_active[:, None] & is_active, hessian, eye)
        factor = jnp.linalg.cholesky(block, symmetrize_input=False)
        right = jnp.where(is_active[:, None], jnp.stack([linear, signs * normal], axis=1), 0)
        free, across = jax.scipy.linalg.cho_solve((factor, True), right).T
        steep = jnp.vdot(signs * normal, across)
        excess = jnp.vdot(signs * normal, free) - mu
        shift = jnp.maximum(0, excess / jnp.where(steep > 0, steep, 1))
        return free - shift * across, 2 * shift

    def unfinished(state):
        *_, is_done, pivots = state
        return ~is_done & (pivots < _MAX_PIVOTS)

    def exchange(state):
        is_active, signs, weights, fewest, patience, _, pivots = state
        weights, penalty = on_face(is_active, signs)
        gradient = 2 * (jnp.matmul(hessian, weights, precision="highest") - linear)
        if not nonnegative:
            signs = jnp.where(is_active | (gradient == 0), signs, -jnp.sign(gradient))
        level = penalty * normal
        enters = -signs * gradient > level + 8 * eps * (jnp.abs(linear) + level)
        is_wrong = jnp.where(is_active, signs * weights < 0, enters) & (normal > 0)
        number = is_wrong.sum()
        patience = jnp.where(number < fewest, _PATIENCE, patience - 1)
        last = jnp.where(is_wrong, jnp.arange(num), -1).max()
        chosen = is_wrong & ((patience >= 0) | (jnp.arange(num) == last))
        fewest = jnp.minimum(fewest, number)
        return is_active ^ chosen, signs, weights, fewest, patience, number == 0, pivots + 1

    state = (is_active, signs, jnp.zeros_like(linear), num + 1, _PATIENCE, False, 0)
    state = jax.tree.map(jnp.asarray, state)
    _, signs, weights, *_ = jax.lax.while_loop(unfinished, exchange, state)
    return jnp.where(jnp.isfinite(weights) & (signs * weights > 0), weights, 0)


def find_supports(
    gram: np.ndarray,
    cross: np.ndarray,
    counts: np.ndarray,
    starts: Sequence[Support] | None = None,
    *,
    mu: float,
    nonnegative: bool,
    target_gap: float,
) -> list[Support]:
    """The solution of each class by `solve_on_device`, with working sets as large as its support asks for.

    In float64 where the device has it (CPUs, GPUs), else in float32.
    """
    has_float64 = jax.default_backend() != "tpu"
    num_features, num_classes = cross.shape
    weights = np.zeros((num_features, num_classes))
    for label, start in enumerate(starts or ()):
        weights[start.indices, label] = start.values
    still, num_working = np.arange(num_classes), min(_FIRST_WORKING, num_features)
    with jax.enable_x64(has_float64):
        dtype = np.float64 if has_float64 else np.float32
        on_device = jnp.asarray(gram, dtype)
        options = {"mu": mu, "nonnegative": nonnegative, "num_working": num_working}
        options["target_gap"] = target_gap if has_float64 else 1e-7
        while len(still):
            at_once = min(len(still), max(1, _MOST_NUMBERS // num_working**2))
            gaps = np.zeros(len(still))
            for first in range(0, len(still), at_once):
                some = still[first : first + at_once]
                padded = np.resize(some, at_once)  # the same program for all
                arrays = (cross[:, padded], counts[padded], weights[:, padded])
                found = solve_on_device(on_device, *(jnp.asarray(x, dtype) for x in arrays), **options)
                weights[:, some] = np.asarray(found.weights)[:, : len(some)]
                gaps[first : first + at_once] = np.asarray(found.gaps)[: len(some)]
            num_found = np.count_nonzero(weights[:, still], axis=0)
            needs_more = (gaps > options["target_gap"]) & (num_found > 3 * num_working // 4)
            if num_working == num_features:
                break
            still, num_working = still[needs_more], min(2 * num_working, num_features)
            options["num_working"] = num_working
    return [_support(column, mu) for column in weights.T]


def _support(weights: np.ndarray, mu: float) -> Support:
    indices = np.flatnonzero(weights)
    values = weights[indices].astype(np.float64)
    norm = np.abs(values).sum()
    return Support(indices, values * min(1.0, mu / norm) if norm else values)
