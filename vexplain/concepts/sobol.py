"""Sobol indices: how much of the variance of a function each of its variables takes part in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import qmc

from vexplain._checks import check_positive
from vexplain.typing import Array, Float


def total_sobol_indices(
    function: Callable[[Array], Any],
    num_variables: int,
    *,
    num_designs: int = 32,
    seed: int = 0,
    designs_at_once: int = 1,
) -> Float[Array, "*outputs variables"]:
    """Returns the total Sobol index of each variable of a function on the unit cube.

        S_i = E[ Var(f | all variables but x_i) ] / Var(f)

    is the share of the variance that x_i takes part in, alone and with others: 0 for a variable that f does
    not depend on; the indices sum to 1 for a sum of functions of one variable, else to more. With A and B
    two halves of a scrambled Sobol sequence, and A_i the points A with variable i of B, it is estimated by
    (Jansen)

        S_i = mean over points of (f(A) - f(A_i))² / (2 Var(f)),    Var(f) over A and B

    Where f is constant, all are 0.

    Args:
        function: (variables,) in [0, 1] -> an array, any shape; indices are those of each of its entries.
        num_variables: of the function.
        num_designs: points of A, a power of 2. It is called (variables + 2) times as often.
        seed: of the scrambling.
        designs_at_once: how many points are evaluated together.

    Raises:
        ValueError: `num_designs` is no power of 2.

    References:
        Jansen, Analysis of Variance Designs for Model Output, Computer Physics Communications 1999,
        Equation 19; Saltelli et al., Variance Based Sensitivity Analysis of Model Output, 2010, Table 2 (f).

    Example:
        >>> found = total_sobol_indices(lambda x: 3 * x[0] + x[1], 3, num_designs=256)
        >>> print(np.asarray(found).round(2))
        [0.9 0.1 0. ]
    """
    check_positive(num_variables=num_variables, num_designs=num_designs, designs_at_once=designs_at_once)
    if num_designs & (num_designs - 1):
        raise ValueError(
            f"num_designs is {num_designs}: expected a power of 2, for which points are balanced"
        )
    sequence = qmc.Sobol(2 * num_variables, scramble=True, rng=np.random.default_rng(seed))
    first, second = np.split(sequence.random(num_designs), 2, axis=1)
    mixed = np.repeat(first[None], num_variables, 0)
    places = np.arange(num_variables)
    mixed[places, :, places] = second.T
    designs = jnp.asarray(np.concatenate([first[None], second[None], mixed]).reshape(-1, num_variables))
    designs = designs.astype(jnp.result_type(float))
    size = None if designs_at_once == 1 else min(designs_at_once, len(designs))
    values = jax.lax.map(function, designs, batch_size=size)
    values = values.reshape(num_variables + 2, num_designs, *values.shape[1:])
    variance = values[:2].var((0, 1))
    effects = ((values[2:] - values[0]) ** 2).mean(1) / 2
    return jnp.moveaxis(jnp.where(variance > 0, effects / jnp.where(variance > 0, variance, 1), 0), 0, -1)
