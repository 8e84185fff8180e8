"""Retrieval: is the true image found by its translation, among objects that differ in one respect only?

Each output has a gallery of its own, made by the caller: the true image and, say, nineteen objects of its
shape and pose. In a gallery of test images, pose gives the object away in spite of a wrong appearance.
"""

import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Images, Int


def retrieval_ranks(
    outputs: Images,
    galleries: Float[Array | np.ndarray, "batch candidates height width channels"],
    *,
    truth_index: int = 0,
) -> Int[Array, " batch"]:
    """Returns the rank of the true image among the candidates by distance in pixels (L2); 1 is the best.

    What is as close as the truth counts as closer. An output that holds NaN has the last rank.

    Args:
        outputs: (batch, height, width, channels) in [0, 1].
        galleries: the candidates of each output, its true image among them.
        truth_index: where in every gallery the true image is.

    Example:
        >>> galleries = jnp.linspace(0, 1, 5)[None, :, None, None, None]
        >>> print(retrieval_ranks(jnp.full((1, 1, 1, 1), 0.3), galleries))
        [3]
    """
    distances = jnp.square(jnp.asarray(galleries) - jnp.asarray(outputs)[:, None]).sum((2, 3, 4))
    true = distances[:, truth_index, None]
    is_farther = distances > true
    return galleries.shape[1] - is_farther.sum(1)


def recall_at(ranks: Int[Array, " batch"], *, k: int = 1) -> Float[Array, " batch"]:
    """Returns 1 where the true image is among the first k, else 0; its mean is R@k.

    Args:
        ranks: from `retrieval_ranks`.
        k: number of candidates that count as retrieved.
    """
    return (ranks <= k).astype(jnp.float32)


def reciprocal_rank(ranks: Int[Array, " batch"]) -> Float[Array, " batch"]:
    """Returns 1 / rank, of the ranks of `retrieval_ranks`; its mean is the mean reciprocal rank (MRR)."""
    return 1 / ranks
