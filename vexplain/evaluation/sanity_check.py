"""Whether a map changes when the network does.

A method that returns the same picture for a trained network and for one with shuffled weights shows the image
and not the network. The same two measures serve for other checks: maps of another class of the same network
(class sensitivity), or of a network that learned random labels.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax

from vexplain.evaluation._map_similarity import heatmap_ssim
from vexplain.evaluation._rank_correlation import rank_correlation
from vexplain.evaluation.randomization import randomization_stages
from vexplain.typing import Array, Float, Heatmaps, Key, Variables


class Similarity(NamedTuple):
    """How alike two heatmaps of each image are; both are 1 for equal maps that are not constant."""

    rank_correlation: Float[Array, " batch"]  # Spearman over all pixels, in [-1, 1]
    ssim: Float[Array, " batch"]  # in [-1, 1]


@jax.jit
def map_similarity(first: Heatmaps, second: Heatmaps) -> Similarity:
    """Returns the rank correlation and the structural similarity of two heatmaps, for each image.

    Args:
        first: (batch, height, width) in [0, 1].
        second: the same.

    Example:
        >>> import jax.numpy as jnp
        >>> heatmaps = jnp.linspace(0, 1, 42).reshape(1, 6, 7)
        >>> print(*map_similarity(heatmaps, heatmaps))
        [1.] [1.]
    """
    return Similarity(rank_correlation(first, second), heatmap_ssim(first, second))


def randomization_check(
    heatmap_fn: Callable[[Variables], Heatmaps],
    key: Key,
    variables: Variables,
    *,
    groups: Sequence[str],
    mode: Literal["cascading", "independent"] = "cascading",
    draw: Literal["permutation", "normal"] = "permutation",
) -> dict[str, Similarity]:
    """Returns how alike the maps of the network are to those with shuffled weights, after each stage.

    Args:
        heatmap_fn: variables -> (batch, height, width) heatmaps in [0, 1], of the same images and targets
            each time; it is compiled once.
        key: of the shuffling.
        variables: of the trained network.
        groups: what is shuffled, in the order of the stages, from `parameter_groups_from_output`.
        mode: "cascading" or "independent", as in `randomization_stages`.
        draw: "permutation" or "normal", as in `randomized_variables`.

    Returns:
        By the name of the group that the stage shuffled. A method that explains the network falls toward 0 in
        the cascade; what it still has at its end it owes to the image.

    Raises:
        KeyError: a group that the variables do not have.
        ValueError: another mode or draw.

    References:
        Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018, Section 4.

    Example:
        >>> import jax.numpy as jnp
        >>> images = jnp.linspace(0, 1, 60).reshape(1, 10, 6)
        >>> found = randomization_check(
        ...     lambda variables: images, jax.random.key(0), {"dense": jnp.arange(3.0)}, groups=["dense"]
        ... )
        >>> print(found["dense"].rank_correlation)
        [1.]
    """
    compiled = jax.jit(heatmap_fn)
    heatmaps = compiled(variables)
    stages = randomization_stages(key, variables, groups=groups, mode=mode, draw=draw)
    return {name: map_similarity(heatmaps, compiled(changed)) for name, changed in stages}
