"""Class activation maps: channels of one layer, weighted by their gradients, enlarged to the image.

With A_k the channels of the layer, y the score and g_k = ∂y/∂A_k, the map of

    Grad-CAM      max(0, Σ_k w_k A_k),   w_k = mean over positions of g_k
    Grad-CAM++    max(0, Σ_k w_k A_k),   w_k = Σ over positions of α_k max(0, g_k)
    LayerCAM      max(0, Σ_k max(0, g_k) A_k)
"""

import jax
import jax.numpy as jnp

from vexplain.attribution.cam_layers import activation_and_gradient, activation_of, enlarged
from vexplain.typing import Array, Float, Images, PyTree, ScoreFn, Variables

_Maps = Float[Array, "batch _rows _columns _channels"]


def grad_cam(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    layer: str,
    interpolation: str | None = "bilinear",
    is_rectified: bool = True,
    is_summed: bool = True,
) -> _Maps:
    """Returns Grad-CAM maps of a layer, (batch, height, width, 1).

    With A_k the channels of the layer and y the score,

        w_k = mean over positions of ∂y/∂A_k,        map = max(0, Σ_k w_k A_k)

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        layer: a layer with two spatial axes; `cam_layer` finds the customary one.
        interpolation: "bilinear" or "nearest" to the size of the images; `None` keeps that of the layer.
        is_rectified: negative values become 0, as the paper has it; else the map is signed.
        is_summed: over the channels; else there is a map w_k A_k for each channel.

    Raises:
        ValueError: the layer has no spatial axes, or another interpolation is asked for.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, Equations 1 and 2.

    Example:
        >>> def apply(variables, images):  # doubles the image: logits are means of its two channels
        ...     return jax.nn.relu(images * variables).mean((1, 2))
        >>> score = lambda v, x, targets: apply(v, x)[jnp.arange(len(x)), targets]
        >>> images = jnp.array([[[[0.1, 0.9], [0.4, 0.2]]]])
        >>> print(grad_cam(score, 2.0, images, jnp.array([1]), layer="relu_1")[0, :, :, 0])
        [[0.9 0.2]]
    """
    activations, gradients = activation_and_gradient(score_fn, variables, images, targets, layer=layer)
    maps = gradients.mean((1, 2), keepdims=True) * activations
    maps = maps.sum(-1, keepdims=True) if is_summed else maps
    return enlarged(jax.nn.relu(maps) if is_rectified else maps, images, interpolation=interpolation)


def grad_cam_plus_plus(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    layer: str,
    interpolation: str | None = "bilinear",
    epsilon: float = 0.0,
) -> _Maps:
    """Returns Grad-CAM++ maps of a layer, (batch, height, width, 1).

    With A_k the channels of the layer, g_k = ∂y/∂A_k, and the higher derivatives those of exp(y) in a
    piecewise linear network, which are powers of the first,

        α_k = g_k² / (2 g_k² + g_k³ Σ over positions of A_k)        Equation 19, 0 where g_k = 0
        w_k = Σ over positions of α_k max(0, g_k)                    Equation 7
        map = max(0, Σ_k w_k A_k)

    The positive factor exp(y), one for all w_k of an image, is left out. The layer should be after its ReLU:
    sums of negative activations can make the denominator vanish.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        layer: a layer with two spatial axes; `cam_layer` finds the customary one.
        interpolation: "bilinear" or "nearest" to the size of the images; `None` keeps that of the layer.
        epsilon: added to the denominator. The paper has none; pytorch-grad-cam adds 1e-6, which outweighs the
            squares of gradients below 1e-3 and turns α_k into about 10⁶ g_k² there.

    Raises:
        ValueError: the layer has no spatial axes, or another interpolation is asked for.

    References:
        Chattopadhay et al., Grad-CAM++, WACV 2018.

    Example:
        >>> score = lambda v, images, targets: (jax.nn.relu(images) @ v).mean((1, 2))
        >>> images, weights = jnp.array([[[[0.5, 1.0], [1.5, 1.0]]]]), jnp.array([2.0, -2.0])
        >>> print(grad_cam_plus_plus(score, weights, images, None, layer="relu_1")[0, 0, :, 0])
        [0.25 0.75]
    """
    activations, gradients = activation_and_gradient(score_fn, variables, images, targets, layer=layer)
    total = activations.sum((1, 2), keepdims=True)
    # Equation 19 divided by g²: squares of small gradients would be rounded to 0.
    softening = epsilon / gradients**2 if epsilon else 0.0
    denominator = 2 + total * gradients + softening
    is_usable = (gradients > 0) & (denominator != 0)
    terms = jnp.where(is_usable, gradients / jnp.where(is_usable, denominator, 1), 0)
    maps = (terms.sum((1, 2), keepdims=True) * activations).sum(-1, keepdims=True)
    return enlarged(jax.nn.relu(maps), images, interpolation=interpolation)


def layer_cam(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    layer: str,
    interpolation: str | None = "bilinear",
) -> _Maps:
    """Returns LayerCAM maps of a layer, (batch, height, width, 1).

    With A_k the channels of the layer and y the score,

        map = max(0, Σ_k max(0, ∂y/∂A_k) A_k)

    Every position has its own weight, so that early layers give maps too.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        layer: a layer with two spatial axes.
        interpolation: "bilinear" or "nearest" to the size of the images; `None` keeps that of the layer.

    Raises:
        ValueError: the layer has no spatial axes, or another interpolation is asked for.

    References:
        Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps, 2021, Equations 5 to 7.

    Example:
        >>> score = lambda v, images, targets: (jax.nn.relu(images)[..., 0] * v).sum((1, 2))
        >>> images, weights = jnp.array([[[[0.5], [1.5]]]]), jnp.array([[[2.0, -2.0]]])
        >>> print(layer_cam(score, weights, images, None, layer="relu_1")[0, 0, :, 0])
        [1. 0.]
    """
    activations, gradients = activation_and_gradient(score_fn, variables, images, targets, layer=layer)
    maps = (jax.nn.relu(gradients) * activations).sum(-1, keepdims=True)
    return enlarged(jax.nn.relu(maps), images, interpolation=interpolation)


def upsampled_activation(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    layer: str,
    interpolation: str | None = "bilinear",
) -> _Maps:
    """Returns the sum of the positive activations of a layer, (batch, height, width, 1).

    It knows nothing of the target: what it scores is how far "where the network is active" explains.

    Args:
        score_fn: any function of the network, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        layer: a layer with two spatial axes.
        interpolation: "bilinear" or "nearest" to the size of the images; `None` keeps that of the layer.

    Raises:
        ValueError: the layer has no spatial axes, or another interpolation is asked for.

    Example:
        >>> def apply(variables, images):  # doubles the image: logits are means of its two channels
        ...     return jax.nn.relu(images * variables).mean((1, 2))
        >>> score = lambda v, x, targets: apply(v, x)[jnp.arange(len(x)), targets]
        >>> images = jnp.array([[[[0.1, 0.9], [0.4, 0.2]]]])
        >>> print(upsampled_activation(score, 2.0, images, jnp.array([1]), layer="relu_1")[0, :, :, 0])
        [[2.  1.2]]
    """
    activations = activation_of(score_fn, variables, images, targets, layer=layer)
    maps = jax.nn.relu(activations).sum(-1, keepdims=True)
    return enlarged(maps, images, interpolation=interpolation)
