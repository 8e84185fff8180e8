"""Class activation maps: channels of one layer, weighted by their gradients, enlarged to the image.

With A_k the channels of the layer, y the score and g_k = ∂y/∂A_k, the map of

    Grad-CAM      max(0, Σ_k w_k A_k),   w_k = mean over positions of g_k
    Grad-CAM++    max(0, Σ_k w_k A_k),   w_k = Σ over positions of α_k max(0, g_k)
    LayerCAM      max(0, Σ_k max(0, g_k) A_k)
    HiResCAM      max(0, Σ_k g_k A_k)
    XGrad-CAM     max(0, Σ_k w_k A_k),   w_k = Σ over positions of g_k A_k / Σ over positions of A_k

A guided map is guided backpropagation times the map, pixel by pixel. A layer without spatial axes, or another
interpolation, raises ValueError.

In all functions:
    layer: by name or from the layer table, with two spatial axes; the customary one if left out, `cam_layer`.
    interpolation: "bilinear" (of the papers) or "nearest" (Captum's default for guided maps) to the size of
        the images; `None` keeps that of the layer, where the map is not multiplied with an image.
    epsilon: added to the denominator of Grad-CAM++. The paper has none; pytorch-grad-cam adds 1e-6, which
        outweighs the squares of gradients below 1e-3 and turns α_k into about 10⁶ g_k² there.
    rules: backward rules of `guided_backprop`; the map itself has the gradient.
    on_uncovered: what to do about activation functions that no rule covers, see `with_rules`.
    on_unmatched: what to do about a rule that matches no layer, see `with_rules`.
"""

import jax
import jax.numpy as jnp

from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.cam_layers import (
    LayerGradient,
    activation_and_gradient,
    activation_of,
    enlarged,
    rectified_sum,
)
from vexplain.transforms import GUIDED, Layer, Rule, Rules
from vexplain.typing import Array, Attributions, Float, Targets

_Maps = Float[Array, "batch _rows _columns"]
_SignedMaps = Float[Array, "batch _rows _columns _channels"]


@attribution_method
def grad_cam(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
    is_rectified: bool = True,
    is_summed: bool = True,
) -> _Maps | _SignedMaps:
    """Returns Grad-CAM maps of a layer, (batch, height, width).

    With A_k the channels of the layer and y the score,

        w_k = mean over positions of ∂y/∂A_k,        map = max(0, Σ_k w_k A_k)

    Args:
        is_rectified: negative values become 0, as the paper has it; else the map is signed, (batch, height,
            width, 1).
        is_summed: over the channels; else there is a map w_k A_k for each, (batch, height, width, channels).

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, Equations 1 and 2.

    Example:
        >>> def apply(variables, images):  # doubles the image: logits are means of its two channels
        ...     return jax.nn.relu(images * variables).mean((1, 2))
        >>> images = jnp.array([[[[0.1, 0.9], [0.4, 0.2]]]])
        >>> print(grad_cam(apply, jnp.array(2.0), images, targets=1, layer="relu_1")[0])
        [[0.9 0.2]]
    """
    maps = _mean_weighted(activation_and_gradient(network, images, targets, layer))
    if is_summed:
        return rectified_sum(maps, images, interpolation, is_rectified)
    return enlarged(jax.nn.relu(maps) if is_rectified else maps, images, interpolation)


@attribution_method
def grad_cam_plus_plus(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
    epsilon: float = 0.0,
) -> _Maps:
    """Returns Grad-CAM++ maps of a layer, (batch, height, width).

    With A_k the channels of the layer, g_k = ∂y/∂A_k, and the higher derivatives those of exp(y) in a
    piecewise linear network, which are powers of the first,

        α_k = g_k² / (2 g_k² + g_k³ Σ over positions of A_k)        Equation 19, 0 where g_k = 0
        w_k = Σ over positions of α_k max(0, g_k)                    Equation 7
        map = max(0, Σ_k w_k A_k)

    The positive factor exp(y), one for all w_k of an image, is left out. The layer should be after its ReLU:
    sums of negative activations can make the denominator vanish.

    References:
        Chattopadhay et al., Grad-CAM++, WACV 2018.

    Example:
        >>> apply = lambda w, images: (jax.nn.relu(images) @ w).mean((1, 2))
        >>> images, w = jnp.array([[[[0.2, 0.4], [0.6, 0.4]]]]), jnp.array([[2.0, 0.0], [-2.0, 0.0]])
        >>> maps = grad_cam_plus_plus(apply, w, images, targets=0, layer="relu_1")
        >>> [f"{value:.3f}" for value in maps[0, 0]]
        ['0.143', '0.429']
    """
    maps = _plus_plus_weighted(activation_and_gradient(network, images, targets, layer), epsilon)
    return rectified_sum(maps, images, interpolation)


@attribution_method
def layer_cam(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
) -> _Maps:
    """Returns LayerCAM maps of a layer, (batch, height, width).

    With A_k the channels of the layer and y the score, map = max(0, Σ_k max(0, ∂y/∂A_k) A_k). Every position
    has its own weight, so that early layers give maps too.

    References:
        Jiang et al., LayerCAM: Exploring Hierarchical Class Activation Maps, 2021, Equations 5 to 7.

    Example:
        >>> apply = lambda w, images: (jax.nn.relu(images) * w).sum((1, 2))
        >>> images, w = jnp.array([[[[0.5, 0.0], [1.0, 0.0]]]]), jnp.array([[[2.0, 1.0], [-2.0, 1.0]]])
        >>> print(layer_cam(apply, w, images, targets=0, layer="relu_1")[0, 0])
        [1. 0.]
    """
    found = activation_and_gradient(network, images, targets, layer)
    return rectified_sum(jax.nn.relu(found.gradients) * found.activations, images, interpolation)


@attribution_method
def hires_cam(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
    is_rectified: bool = True,
) -> _Maps | _SignedMaps:
    """Returns HiResCAM maps of a layer, (batch, height, width).

    With A_k the channels of the layer and y the score, map = max(0, Σ_k ∂y/∂A_k ⊙ A_k): gradients are not
    averaged over positions. Where all that follows the layer is linear, the signed map, before it is
    enlarged, sums to the score less its bias, so that it shows what the score was made of. With a global
    average before a linear classifier it is Grad-CAM.

    Args:
        is_rectified: negative values become 0; else the map is signed, (batch, height, width, 1).

    References:
        Draelos, Carin, Use HiResCAM instead of Grad-CAM for Faithful Explanations of Convolutional Neural
        Networks, 2020, Section 3.3.

    Example:
        >>> apply = lambda w, images: (jax.nn.relu(images) * w).sum((1, 2))
        >>> images, w = jnp.array([[[[0.5, 0.0], [1.0, 0.0]]]]), jnp.array([[[2.0, 1.0], [-2.0, 1.0]]])
        >>> print(hires_cam(apply, w, images, targets=0, layer="relu_1", is_rectified=False)[0, 0, :, 0])
        [ 1. -2.]
    """
    found = activation_and_gradient(network, images, targets, layer)
    return rectified_sum(found.gradients * found.activations, images, interpolation, is_rectified)


@attribution_method
def xgrad_cam(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
    is_rectified: bool = True,
) -> _Maps | _SignedMaps:
    """Returns XGrad-CAM maps of a layer, (batch, height, width).

    With A_k the channels of the layer and y the score,

        w_k = Σ over positions of A_k ∂y/∂A_k / Σ over positions of A_k,        map = max(0, Σ_k w_k A_k)

    The mean of a gradient is weighted by where the channel is active. A channel whose sum is 0 gets nothing.

    Args:
        is_rectified: negative values become 0; else the map is signed, (batch, height, width, 1).

    References:
        Fu et al., Axiom-based Grad-CAM, BMVC 2020, Equation 8.

    Example:
        >>> apply = lambda w, images: (jax.nn.relu(images) * w).sum((1, 2))
        >>> images, w = jnp.array([[[[0.25, 0.0], [0.75, 0.0]]]]), jnp.array([[[4.0, 1.0], [0.0, 1.0]]])
        >>> print(xgrad_cam(apply, w, images, targets=0, layer="relu_1")[0, 0])
        [0.25 0.75]
    """
    found = activation_and_gradient(network, images, targets, layer)
    total = found.activations.sum((1, 2), keepdims=True)
    weighted = (found.activations * found.gradients).sum((1, 2), keepdims=True)
    weights = jnp.where(total == 0, 0, weighted / jnp.where(total == 0, 1, total))
    return rectified_sum(weights * found.activations, images, interpolation, is_rectified)


@attribution_method
def upsampled_activation(
    network: Network,
    images: Array,
    *,
    layer: str | Layer | None = None,
    interpolation: str | None = "bilinear",
) -> _Maps:
    """Returns the sum of the positive activations of a layer, (batch, height, width).

    It knows nothing of the target: what it scores is how far "where the network is active" explains.

    Example:
        >>> apply = lambda w, images: jax.nn.relu(images * w).mean((1, 2))
        >>> images = jnp.array([[[[0.1, 0.9], [0.4, 0.2]]]])
        >>> print(upsampled_activation(apply, jnp.array(2.0), images, layer="relu_1")[0])
        [[2.  1.2]]
    """
    return rectified_sum(jax.nn.relu(activation_of(network, images, layer)), images, interpolation)


@attribution_method
def guided_grad_cam(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str = "bilinear",
    rules: Rule | Rules = GUIDED,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Attributions:
    """Returns guided backpropagation times Grad-CAM, pixel by pixel.

    Raises:
        ValueError: an activation function is not covered, or a rule matches nothing.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, Section 3.2.

    Example:
        >>> apply = lambda w, images: (jax.nn.relu(images) @ w).mean((1, 2))
        >>> images, w = jnp.array([[[[0.2, 0.4], [0.6, 0.4]]]]), jnp.array([[2.0, 0.0], [-1.0, 0.0]])
        >>> maps = guided_grad_cam(apply, w, images, targets=0, layer="relu_1")
        >>> [f"{value:.2f}" for value in maps[0, 0, :, 0]]
        ['0.00', '0.40']
    """
    maps = _mean_weighted(activation_and_gradient(network, images, targets, layer)).sum(-1, keepdims=True)
    enlarged_maps = rectified_sum(maps, images, _for_product(interpolation))
    ruled = network.with_rules(rules, on_uncovered=on_uncovered, on_unmatched=on_unmatched)
    return ruled.gradient(images, targets) * enlarged_maps[..., None]


@attribution_method
def guided_grad_cam_plus_plus(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    layer: str | Layer | None = None,
    interpolation: str = "bilinear",
    epsilon: float = 0.0,
    rules: Rule | Rules = GUIDED,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Attributions:
    """Returns guided backpropagation times Grad-CAM++, pixel by pixel.

    References:
        Chattopadhay et al., Grad-CAM++, WACV 2018, Section 3.3.
    """
    maps = _plus_plus_weighted(activation_and_gradient(network, images, targets, layer), epsilon)
    enlarged_maps = rectified_sum(maps, images, _for_product(interpolation))
    ruled = network.with_rules(rules, on_uncovered=on_uncovered, on_unmatched=on_unmatched)
    return ruled.gradient(images, targets) * enlarged_maps[..., None]


def _mean_weighted(found: LayerGradient) -> _SignedMaps:
    return found.gradients.mean((1, 2), keepdims=True) * found.activations


def _plus_plus_weighted(found: LayerGradient, epsilon: float) -> _SignedMaps:
    total, gradients = found.activations.sum((1, 2), keepdims=True), found.gradients
    # Equation 19 divided by g²: squares of small gradients would be rounded to 0.
    softening = epsilon / gradients**2 if epsilon else 0.0
    denominator = 2 + total * gradients + softening
    is_usable = (gradients > 0) & (denominator != 0)
    terms = jnp.where(is_usable, gradients / jnp.where(is_usable, denominator, 1), 0)
    return terms.sum((1, 2), keepdims=True) * found.activations


def _for_product(interpolation: str) -> str:
    if interpolation not in ("bilinear", "nearest"):
        raise ValueError(
            f"interpolation is {interpolation!r}: expected 'bilinear' or 'nearest', for the map is multiplied"
            " with an image"
        )
    return interpolation
