"""Class activation maps without gradients: channels of one layer, weighted by what covering them does.

With A_k the channels of the layer and y the score, the map of

    Score-CAM      max(0, Σ_k w_k A_k),   w_k = y(x ⊙ H_k) - y(0),   H_k = A_k enlarged, scaled to [0, 1]
    Ablation-CAM   max(0, Σ_k w_k A_k),   w_k = (y - y with A_k set to 0) / |y|
    Eigen-CAM      max(0, A v),           v the first right singular vector of A, (positions, channels)

The first two cost a pass a channel. Channels are taken one after the other in one compiled loop, so that
memory does not depend on their number. A layer without spatial axes, or another interpolation, raises
ValueError.

In all functions:
    layer: by name or from the layer table, with two spatial axes; the customary one if left out, `cam_layer`.
    interpolation: "bilinear" or "nearest" to the size of the images; `None` keeps that of the layer.
    channels_at_once: how many channels of each image go through the network together: more are faster for a
        few images on an accelerator, and take as much more memory.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.cam_layers import activation_of, enlarged, rectified_sum, spatial_layer
from vexplain.attribution.heatmaps import normalize_heatmaps
from vexplain.transforms import Layer, as_layer_output, channels_last, edit
from vexplain.typing import Array, Float, Targets

_Maps = Float[Array, "batch _rows _columns"]


@attribution_method
def score_cam(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
    is_softmaxed: bool = False,
    channels_at_once: int = 1,
) -> _Maps:
    """Returns Score-CAM maps of a layer, (batch, height, width).

    With A_k the channels of the layer and y the score,

        H_k = A_k enlarged to the image, less its minimum, over its range (0 where it is constant)
        w_k = y(x ⊙ H_k) - y(0)                     the increase of confidence over a black image
        map = max(0, Σ_k w_k A_k)                   Equation 4

    The paper's confidence is a score of the class: `score=probability` takes its softmax over classes.

    Args:
        is_softmaxed: weights are the softmax of w_k over channels, as in the paper's Algorithm 1 and in
            pytorch-grad-cam. What is subtracted cancels then, all weights are positive, and of logits almost
            all weight goes to one channel, of probabilities all channels get nearly the same.

    References:
        Wang et al., Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR
        Workshops 2020, Definitions 2 and 3.

    Example:
        >>> apply = lambda w, images: (jax.nn.relu(images) * w).sum((1, 2))
        >>> images, w = jnp.array([[[[0.5, 0.2], [1.0, 0.8]]]]), jnp.array([2.0, -1.0])
        >>> print(score_cam(apply, w, images, targets=0, layer="relu_1")[0, 0])
        [1.4 3.6]
    """
    maps = activation_of(network, images, layer)
    black = network.scores(jnp.zeros_like(images), targets)

    def increase(k):
        masks = enlarged(jnp.take(maps, k[None], axis=-1), images, "bilinear")
        masks = normalize_heatmaps(masks[..., 0])[..., None]
        return network.scores(images * masks, targets) - black

    weights = _over_channels(increase, maps.shape[-1], channels_at_once)
    weights = jax.nn.softmax(weights) if is_softmaxed else weights
    return rectified_sum(weights[:, None, None] * maps, images, interpolation)


@attribution_method
def ablation_cam(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
    channels_at_once: int = 1,
) -> _Maps:
    """Returns Ablation-CAM maps of a layer, (batch, height, width).

    With A_k the channels of the layer and y the score,

        w_k = (y - y with A_k set to 0 everywhere) / |y|,        map = max(0, Σ_k w_k A_k)

    Where y is 0 the weights are not divided. The paper divides by y, which it takes to be positive; of a
    negative score that would turn the map over. Class and register tokens keep what they have.

    References:
        Desai, Ramaswamy, Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free
        Localization, WACV 2020, Equations 3 and 4.

    Example:
        >>> apply = lambda w, images: (jax.nn.relu(images) * w).sum((1, 2)) @ jnp.ones((2, 2))
        >>> images, w = jnp.array([[[[0.5, 0.2], [1.0, 0.8]]]]), jnp.array([2.0, -1.0])
        >>> print(ablation_cam(apply, w, images, targets=0, layer="relu_1")[0, 0])
        [0.65 1.1 ]
    """
    row = spatial_layer(network, images, layer)
    whole = network.scores(images, targets)

    def loss(k):
        def ablated(a):
            kept = channels_last(a, row)
            is_kept = jnp.arange(kept.shape[-1]) != k
            return as_layer_output(kept * is_kept.astype(kept.dtype), row, like=a)

        without = network._replace(apply=edit(network.apply, {row.name: ablated}))
        return whole - without.scores(images, targets)

    weights = _over_channels(loss, row.num_channels, channels_at_once)
    weights = weights / jnp.where(whole == 0, 1, jnp.abs(whole))[:, None]
    maps = activation_of(network, images, row)
    return rectified_sum(weights[:, None, None] * maps, images, interpolation)


@attribution_method
def eigen_cam(
    network: Network,
    images: Array,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
    is_rectified: bool = True,
) -> Float[Array, "batch _rows _columns *_channels"]:
    """Returns Eigen-CAM maps of a layer, (batch, height, width).

    With A the activations of an image as a matrix (positions, channels), and A = U Σ Vᵀ,

        map = max(0, A v),        v the first column of V

    The sign of v is arbitrary in a singular value decomposition. It is the one for which A v sums to 0 or
    more over positions (*ours*): v then points to where the mean activation does, and after a ReLU, where all
    of A is 0 or more, so is all of A v. A is not centered, as in the paper; pytorch-grad-cam subtracts the
    mean over positions and leaves the sign open. The map knows nothing of the target.

    Args:
        is_rectified: negative values become 0; else the map is signed, (batch, height, width, 1).

    References:
        Muhammad, Yeasin, Eigen-CAM: Class Activation Map using Principal Components, IJCNN 2020.

    Example:
        >>> apply = lambda w, images: jax.nn.relu(images).mean((1, 2)) @ w
        >>> images = jnp.array([[[[0.3, 0.4]], [[0.6, 0.8]]]])  # of rank 1, (0.5, 1) times (0.6, 0.8)
        >>> [f"{value:.3f}" for value in eigen_cam(apply, jnp.eye(2), images, layer="relu_1")[0, :, 0]]
        ['0.500', '1.000']
    """
    maps = activation_of(network, images, layer)
    matrices = maps.reshape(len(maps), -1, maps.shape[-1])
    first = jnp.linalg.svd(matrices, full_matrices=False)[2][:, 0]
    projected = jnp.einsum("npk,nk->np", matrices, first)
    projected = projected * jnp.where(projected.sum(1, keepdims=True) < 0, -1, 1)
    return rectified_sum(projected.reshape(*maps.shape[:3], 1), images, interpolation, is_rectified)


def _over_channels(weight: Callable[[Any], Array], count: int, at_once: int) -> Float[Array, "batch _k"]:
    """The weight of each channel, (batch, channels), a few channels at a time."""
    if at_once < 1:
        raise ValueError(f"channels_at_once is {at_once}: expected 1 or more")
    size = min(at_once, count)
    return jax.lax.map(weight, jnp.arange(count), batch_size=None if size == 1 else size).T
