"""Which features say again what an earlier one says: a convolution, its ReLU and its pooled map.

A copy is the channel of the same number in a later layer of as many channels, whose responses over the
dataset are nearly proportional. Only G is needed for that, so that it holds for any architecture.
"""

import numpy as np
from jaxtyping import Float, Int

from vexplain.relevance.layout import FeatureLayout

_COPY = 0.99  # cosine of two features over the images: 98 % of one's squares are explained by the other


def copied_features(
    gram: Float[np.ndarray, "features _"], layout: FeatureLayout
) -> Int[np.ndarray, " features"]:
    """The number of the feature of which each is a copy, that of the same channel in an earlier layer; or -1.

        <x_i, x_j> >= .99 ||x_i|| ||x_j||      over all images                           (*ours*)

    Args:
        gram: G = X X^T, (features, features).
        layout: of the features.

    Example:
        >>> responses = np.array([[1.0, 0.0, 2.0, 0.1], [0.0, 1.0, 0.0, 0.1]])
        >>> copied_features(responses.T @ responses, (("relu_1", 2), ("pool_1", 2))).tolist()
        [-1, -1, 0, -1]
    """
    sizes = [size for _, size in layout]
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
    norms = np.sqrt(np.maximum(np.diagonal(gram), 0))
    copied = np.full(len(gram), -1)
    for later, size in enumerate(sizes):
        second = offsets[later] + np.arange(size)
        for earlier in range(later):
            if sizes[earlier] == size:
                first = offsets[earlier] + np.arange(size)
                products = norms[first] * norms[second]
                is_close = (products > 0) & (gram[first, second] >= _COPY * products)
                is_first = is_close & (copied[first] < 0) & (copied[second] < 0)
                copied[second] = np.where(is_first, first, copied[second])
    return copied
