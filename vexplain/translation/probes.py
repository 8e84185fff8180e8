"""What a code tells by linear functions: probes of what varies in rendered images."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain.typing import Array, Float

_RIDGE = 1e-3  # of the variance of a code's numbers


def linear_probe(
    codes: Float[Array | np.ndarray, "examples numbers"],
    targets: Float[Array | np.ndarray, "examples values"],
    *,
    num_folds: int = 5,
) -> Float[Array, ""]:
    """Returns the share of the variance of targets that a linear function of codes predicts (R²).

    Each fold, every `num_folds`-th example, is predicted by ridge regression on the others; the penalty is
    1e-3 of the variance of a standardized number for each example. 1 is perfect; what is not told is at 0 or,
    with few examples, below.

    Args:
        codes: one row an example.
        targets: a factor in columns: an angle as sine and cosine, a choice as one-hot; their squared errors
            and variances are summed. Targets that do not vary give NaN.
        num_folds: 2 or more, and no more than examples.

    Raises:
        ValueError: another number of rows, or of folds.

    References:
        Alain, Bengio, Understanding intermediate layers using linear classifier probes, 2016.

    Example:
        >>> codes = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
        >>> print(linear_probe(codes, codes @ np.ones((3, 1), np.float32)).round(3))
        1.0
    """
    count = len(codes)
    if len(targets) != count:
        raise ValueError(f"targets has {len(targets)} rows: expected {count}, one for each code")
    check_positive(num_folds=num_folds)
    if not 2 <= num_folds <= count:
        raise ValueError(f"num_folds is {num_folds}: expected 2 to {count}, the number of examples")
    return _probe(jnp.asarray(codes, jnp.float32), jnp.asarray(targets, jnp.float32), num_folds)


@functools.partial(jax.jit, static_argnums=2)
def _probe(codes: Array, targets: Array, num_folds: int) -> Array:
    fold_of = jnp.arange(len(codes)) % num_folds

    def squared_errors(fold: Array) -> Array:
        held = (fold_of == fold)[:, None]
        weights = 1 - held.astype(jnp.float32)
        total = weights.sum()
        mean, mean_target = ((weights * x).sum(0) / total for x in (codes, targets))
        deviation = jnp.sqrt((weights * (codes - mean) ** 2).sum(0) / total)
        x = (codes - mean) / jnp.where(deviation > 0, deviation, 1)
        y = targets - mean_target
        with jax.default_matmul_precision("highest"):
            gram = (weights * x).T @ x + _RIDGE * total * jnp.eye(codes.shape[1])
            slopes = jnp.linalg.solve(gram, (weights * x).T @ y)
            return (held * (y - x @ slopes) ** 2).sum()

    errors = jax.lax.map(squared_errors, jnp.arange(num_folds)).sum()
    return 1 - errors / ((targets - targets.mean(0)) ** 2).sum()
