"""What a training keeps of its losses: running averages, and the first step where one was not finite.

From that step on the variables stay as they were before it; the state remembers the step, and the report
function of `fold`, which looks at the state about once a second, raises. So no step waits for the host.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Bool

from vexplain.typing import Array, Float, Int

Tree = TypeVar("Tree")
_DECAY = 0.98  # of the running averages


class Divergence(NamedTuple):
    """The first step with a loss that was not finite."""

    step: Int[Array, ""]  # -1 for none
    losses: dict[str, Bool[Array, ""]]  # which of them were not


class TrainingDiverged(RuntimeError):
    """A loss of a step was NaN or infinite."""


def no_divergence(names: Iterable[str]) -> Divergence:
    """Returns what a training begins with, for the losses of these names."""
    return Divergence(jnp.full((), -1, jnp.int32), {name: jnp.zeros((), bool) for name in names})


def guarded(
    divergence: Divergence, losses: Mapping[str, Array], *, step: Int[Array, ""]
) -> tuple[Callable[[Tree, Tree], Tree], Divergence]:
    """Returns `keep`, and the divergence including this step.

    `keep(new, old)` is the new tree, or the old one if a loss of this or of an earlier step is not finite.

    Args:
        divergence: of the steps before.
        losses: of this step, by name.
        step: its number.

    Example:
        >>> losses = {"cycle": jnp.array(jnp.nan), "kl": jnp.array(0.5)}
        >>> keep, divergence = guarded(no_divergence(losses), losses, step=jnp.array(7))
        >>> print(keep(2.0, 1.0), divergence.step, divergence.losses["cycle"])
        1.0 7 True
    """
    is_bad = {name: ~jnp.isfinite(loss) for name, loss in losses.items()}
    is_bad_now, is_intact = jnp.stack(list(is_bad.values())).any(), divergence.step < 0
    is_good, is_first = ~is_bad_now & is_intact, is_bad_now & is_intact

    def keep(new: Tree, old: Tree) -> Tree:
        return jax.tree.map(lambda new, old: jnp.where(is_good, new, old), new, old)

    return keep, Divergence(
        jnp.where(is_first, step, divergence.step),
        {name: jnp.where(is_first, is_bad[name], before) for name, before in divergence.losses.items()},
    )


def raise_if_diverged(divergence: Divergence) -> None:
    """Raises TrainingDiverged with the step and its losses, if there was one that was not finite."""
    if int(divergence.step) >= 0:
        names = ", ".join(name for name, is_bad in divergence.losses.items() if bool(is_bad))
        raise TrainingDiverged(
            f"not finite at step {int(divergence.step)}: {names}; the variables from before that step are in "
            "the last checkpoint. Lower the learning rate or the weight of that loss, or look for NaN in the "
            "images"
        )


def running_mean(
    losses: Mapping[str, Array], averages: Mapping[str, Float[Array, ""]], *, step: Int[Array, ""]
) -> dict[str, Float[Array, ""]]:
    """Returns exponential moving averages of losses; the mean, while there are few steps.

    d · average + (1 - d) · loss with d = min(0.98, step / (step + 1)).

    Args:
        losses: of this step, by name.
        averages: of the steps before.
        step: their number.
    """
    decay = jnp.minimum(_DECAY, step / (step + 1))
    return {name: decay * average + (1 - decay) * losses[name] for name, average in averages.items()}
