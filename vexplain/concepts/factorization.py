"""Non-negative factors of a matrix, and non-negative least squares, for many problems in one program.

Both go over the coordinates one after the other and set each to its best value of 0 or more while the others
are held: for factors that is hierarchical alternating least squares (HALS). No step makes the error larger.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain.typing import AnyArray, Array, Float, Int

_STEPS_BETWEEN = 10  # two looks at the error
_MOST_SWEEPS = 2000  # over the coordinates of a least-squares problem


class Factorization(NamedTuple):
    """A ≈ U V with U and V of 0 or more; leading axes are those of the matrices.

    The directions, rows of V, have length one and are ordered by the norm of their coefficients, the columns
    of U. A matrix of lower rank than there are factors may leave some of them zero.
    """

    coefficients: Float[Array, "*batch rows factors"]
    directions: Float[Array, "*batch factors columns"]
    relative_error: Float[Array, "*batch"]  # ‖A - U V‖ / ‖A‖, Frobenius norms
    num_iterations: Int[Array, "*batch"]


def nonnegative_factors(
    matrices: AnyArray,
    num_factors: int,
    *,
    num_restarts: int = 4,
    max_iterations: int = 1000,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> Factorization:
    """Returns the non-negative matrix factorization of a matrix, or of many of one size.

        minimize ‖A - U V‖² over U, V of 0 or more

    by HALS, from several random starts at once, of which the best is taken: the problem has local minima.

    Args:
        matrices: A, (..., rows, columns), finite, 0 or more.
        num_factors: of each, at most as many as there are rows and columns.
        num_restarts: random starts.
        max_iterations: sweeps over U and V, in tens.
        tolerance: a start is left when ten sweeps lower its error by less than this share of it.
        seed: of the starts.

    Raises:
        ValueError: A has two axes or more, or negative or infinite values, or too many factors are asked for.

    References:
        Cichocki, Zdunek, Amari, Hierarchical ALS Algorithms for Nonnegative Matrix and 3D Tensor
        Factorization, ICA 2007.

    Example:
        >>> found = nonnegative_factors(np.array([[4.0, 3.0, 0.0], [0.0, 0.0, 5.0], [8.0, 6.0, 0.0]]), 2)
        >>> print(np.asarray(found.directions).round(3))
        [[0.8 0.6 0. ]
         [0.  0.  1. ]]
        >>> print(np.asarray(found.coefficients).round(2))
        [[ 5.  0.]
         [ 0.  5.]
         [10.  0.]]
    """
    check_positive(num_factors=num_factors, num_restarts=num_restarts, max_iterations=max_iterations)
    shape = np.shape(matrices)
    if len(shape) < 2 or num_factors > min(shape[-2:]):
        raise ValueError(
            f"num_factors is {num_factors} and matrices has shape {shape}: expected (..., rows, columns) "
            "with at least as many rows and columns as factors"
        )
    low, is_finite = float(np.min(matrices)), bool(jnp.isfinite(matrices).all())
    if low < 0 or not is_finite:
        raise ValueError(f"matrices go down to {low:g}: expected finite values of 0 or more")
    return _factorize(
        jnp.asarray(matrices),
        jax.random.key(seed),
        tolerance,
        num_factors=num_factors,
        num_restarts=num_restarts,
        max_iterations=max_iterations,
    )


@functools.partial(jax.jit, static_argnames=("num_factors", "num_restarts", "max_iterations"))
def _factorize(matrices, key, tolerance, *, num_factors, num_restarts, max_iterations):
    matrices = matrices.astype(jnp.promote_types(matrices.dtype, jnp.float32))
    batch, (rows, columns) = matrices.shape[:-2], matrices.shape[-2:]
    flat = matrices.reshape(-1, rows, columns)

    def of_start(matrix, key):
        return _from_start(matrix, key, num_factors, max_iterations, tolerance)

    keys = jax.random.split(key, num_restarts)
    starts = jax.vmap(jax.vmap(of_start, (None, 0)), (0, None))(flat, keys)
    best = jnp.argmin(starts.relative_error, 1)
    found = jax.tree.map(lambda leaf: jax.vmap(lambda of, n: of[n])(leaf, best), starts)
    return jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), found)


def _from_start(matrix: Array, key: Array, num_factors: int, max_iterations: int, tolerance: Array):
    size = jnp.linalg.norm(matrix)
    scaled = matrix / jnp.where(size > 0, size, 1)
    for_rows, for_columns = jax.random.split(key)
    level = (scaled.mean() / num_factors) ** 0.5  # so that the start has the mean of the matrix
    left = level * jnp.abs(jax.random.normal(for_rows, (matrix.shape[0], num_factors), matrix.dtype))
    right = level * jnp.abs(jax.random.normal(for_columns, (matrix.shape[1], num_factors), matrix.dtype))

    def alternate(_, factors):
        left, right = factors
        left = _sweep(left, right.T @ right, scaled @ right)
        return left, _sweep(right, left.T @ left, scaled.T @ left)

    def error(left, right):
        return jnp.linalg.norm(scaled - left @ right.T)

    def is_open(state):
        _, before, now, count = state
        return (count < max_iterations) & (before - now > tolerance * before)

    def go_on(state):
        factors, _, now, count = state
        factors = jax.lax.fori_loop(0, _STEPS_BETWEEN, alternate, factors)
        return factors, now, error(*factors), count + _STEPS_BETWEEN

    worst = jnp.asarray(jnp.finfo(matrix.dtype).max)
    state = (left, right), worst, error(left, right), 0
    (left, right), _, now, count = jax.lax.while_loop(is_open, go_on, state)
    lengths = jnp.linalg.norm(right, axis=0)
    left, right = left * lengths * size, right / jnp.where(lengths > 0, lengths, 1)
    order = jnp.argsort(-jnp.linalg.norm(left, axis=0))
    return Factorization(left[:, order], right[:, order].T, now, jnp.asarray(count))


def nonnegative_least_squares(rows: AnyArray, directions: AnyArray) -> Float[Array, "*batch factors"]:
    """Returns the coefficients u of 0 or more with which directions V come closest to each row a.

        minimize ‖a - u V‖² over u of 0 or more

    Coordinates are swept until none moves. Those that are left positive then solve their linear system, so
    that the result is exact, and its derivative is that of the solution: along the positive coordinates that
    of least squares, 0 along the others (implicit differentiation).

    Args:
        rows: (..., columns).
        directions: V, (factors, columns), linearly independent; of others the result is one of several.

    Raises:
        ValueError: the shapes do not fit.

    References:
        Lawson, Hanson, Solving Least Squares Problems, 1974, Chapter 23 (the problem).

    Example:
        >>> directions = np.array([[1.0, 0.0], [0.6, 0.8]])
        >>> found = nonnegative_least_squares(np.array([[1.6, 0.8], [1.0, -1.0]]), directions)
        >>> print(np.asarray(found).round(4))
        [[1. 1.]
         [1. 0.]]
    """
    if np.ndim(directions) != 2 or np.ndim(rows) < 1 or np.shape(rows)[-1] != np.shape(directions)[1]:
        raise ValueError(
            f"rows has shape {np.shape(rows)} and directions {np.shape(directions)}: expected (..., columns) "
            "and (factors, columns)"
        )
    return _least_squares(jnp.asarray(rows), jnp.asarray(directions))


@jax.jit
def _least_squares(rows: Array, directions: Array) -> Array:
    rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
    directions = directions.astype(rows.dtype)
    lengths = jnp.linalg.norm(directions, axis=1)
    lengths = jnp.where(lengths > 0, lengths, 1)
    units = directions / lengths[:, None]
    gram, target = units @ units.T, (rows @ units.T).reshape(-1, len(units))
    swept = jax.lax.stop_gradient(_swept(*jax.lax.stop_gradient((gram, target))))
    epsilon = jnp.finfo(rows.dtype).eps

    def solved(target, swept):
        is_on = (swept > 100 * epsilon * swept.max()).astype(rows.dtype)  # less than that is rounding
        system = is_on[:, None] * gram * is_on + jnp.diag(1 - is_on + 10 * epsilon)
        return is_on * jnp.linalg.solve(system, is_on * target)

    exact = jax.vmap(solved)(target, swept)
    # Where directions are nearly dependent the system may leave what is allowed: then the swept value stays.
    is_allowed = (exact >= 0).all(1, keepdims=True) & jnp.isfinite(exact).all(1, keepdims=True)
    found = jnp.where(is_allowed, exact, exact + jax.lax.stop_gradient(swept - exact))
    return (found / lengths).reshape(*rows.shape[:-1], len(units))


def _swept(gram: Array, target: Array) -> Array:
    scale = jnp.maximum(jnp.abs(target).max(1), jnp.finfo(target.dtype).tiny)

    def is_open(state):
        _, moved, count = state
        return (count < _MOST_SWEEPS) & (moved > jnp.finfo(target.dtype).eps)

    def go_on(state):
        x, _, count = state
        new = _sweep(x, gram, target)
        return new, (jnp.abs(new - x).max(1) / scale).max(), count + 1

    start = jnp.zeros_like(target), jnp.full((), jnp.inf, target.dtype), 0
    return jax.lax.while_loop(is_open, go_on, start)[0]


def _sweep(x: Array, gram: Array, target: Array) -> Array:
    """Each coordinate of x, (problems, factors), at the least of x G xᵀ / 2 - x · target from 0 on."""

    def one(k, x):
        curvature = gram[k, k]
        best = x[:, k] + (target[:, k] - x @ gram[:, k]) / jnp.where(curvature > 0, curvature, 1)
        return x.at[:, k].set(jnp.where(curvature > 0, jnp.maximum(best, 0), 0))

    return jax.lax.fori_loop(0, x.shape[1], one, x)
