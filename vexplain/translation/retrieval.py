"""Retrieval: is the true image found by its translation, among objects that differ in one respect only?

Each output has a gallery of its own, made by the caller: the true image and, say, nineteen objects of its
shape and pose. In a gallery of test images, pose gives the object away in spite of a wrong appearance.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float, Images, Int, Masks


@functools.partial(jax.jit, static_argnames="truth_index")
def retrieval_ranks(
    outputs: Float[Array | np.ndarray, " batch *shape"],
    galleries: Float[Array | np.ndarray, "batch candidates *shape"],
    *,
    truth_index: int = 0,
) -> Int[Array, " batch"]:
    """Returns the rank of the true image among the candidates by distance (L2) of pixels or codes.

    1 is the best. By codes of unit length it is the rank by their products.

    What is as close as the truth counts as closer. An output that holds NaN has the last rank.

    Args:
        outputs: (batch, ...), images or codes.
        galleries: the candidates of each output, its true image among them, or their codes.
        truth_index: where in every gallery the true image is.

    Example:
        >>> galleries = jnp.linspace(0, 1, 5)[None, :, None, None, None]
        >>> print(retrieval_ranks(jnp.full((1, 1, 1, 1), 0.3), galleries))
        [3]
    """
    differences = jnp.asarray(galleries) - jnp.asarray(outputs)[:, None]
    distances = jnp.square(differences).sum(tuple(range(2, differences.ndim)))
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
    """Returns 1 / rank, of the ranks of `retrieval_ranks`.

    Its mean is the mean reciprocal rank (MRR) and, with one true image a gallery, mean average precision.
    """
    return 1 / ranks


@functools.partial(jax.jit, static_argnames="num_bins")
def color_histogram(images: Images, masks: Masks, *, num_bins: int = 4) -> Float[Array, "batch bins"]:
    """Returns the share of each color in a region: what retrieval by color alone knows.

    Colors are sorted into `num_bins`³ cubes of RGB; an empty region has a histogram of zeros.

    Args:
        images: (batch, height, width, 3) in [0, 1].
        masks: (batch, height, width) in [0, 1], of which each pixel counts as much.
        num_bins: a channel.

    Example:
        >>> images = jnp.zeros((1, 2, 2, 3)).at[0, 0].set(1.0)
        >>> print(color_histogram(images, jnp.ones((1, 2, 2)), num_bins=2))
        [[0.5 0.  0.  0.  0.  0.  0.  0.5]]
    """
    bins = jnp.clip(jnp.floor(jnp.asarray(images) * num_bins), 0, num_bins - 1).astype(jnp.int32)
    cubes = (bins[..., 0] * num_bins + bins[..., 1]) * num_bins + bins[..., 2]
    counts = (jax.nn.one_hot(cubes, num_bins**3) * jnp.asarray(masks)[..., None]).sum((1, 2))
    return counts / jnp.maximum(counts.sum(-1, keepdims=True), 1e-6)
