"""What an attribution explains: a scalar per image."""

import jax.numpy as jnp

from vexplain.typing import ApplyFn, ScoreFn


def class_score(apply: ApplyFn) -> ScoreFn:
    """Returns the score function `(variables, images, targets) -> logit of the target class`.

    Args:
        apply: `apply(variables, images) -> logits`.

    Returns:
        A score function whose `targets` are classes, (batch,) integers.

    Example:
        >>> score = class_score(lambda variables, images: images.mean((1, 2)) @ variables)
        >>> print(score(jnp.eye(3), jnp.ones((2, 4, 4, 3)), jnp.array([0, 2])))
        [1. 1.]
    """

    def score(variables, images, targets):
        return jnp.take_along_axis(apply(variables, images), targets[:, None], axis=1)[:, 0]

    return score
