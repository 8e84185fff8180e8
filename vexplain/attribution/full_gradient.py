"""The full gradient: what the image and every bias of the network add to the score."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.cam_layers import enlarged
from vexplain.transforms import BiasTerm, bias_terms, channels_last
from vexplain.typing import Array, Attributions, Float, Targets


class FullGradient(NamedTuple):
    """The parts of a score: that of the image, (batch, height, width, channels), and those of the biases."""

    image: Attributions
    biases: list[BiasTerm]


def full_gradient(network: Network, images: Any, targets: Any) -> FullGradient:
    """Returns image times gradient, and each bias times its gradient: together, the score.

    They sum to it exactly for each image, if the network is made of linear steps, biases, ReLUs and maximum
    poolings. Other activation functions, and statistics of the image itself in a normalization, keep a part.
    What is subtracted from the image before the first layer counts with the image.
    """
    slope, terms = bias_terms(
        network.apply, network.variables, images, lambda outputs: network.score(outputs, targets).sum()
    )
    is_image = [not t.is_of_layer and t.product.shape == images.shape for t in terms]
    own = sum((t.product for t, own in zip(terms, is_image, strict=True) if own), images * slope)
    return FullGradient(own, [t for t, own in zip(terms, is_image, strict=True) if not own])


@attribution_method
def full_grad(
    network: Network,
    images: Array,
    targets: Targets,
) -> Float[Array, "batch height width"]:
    """Returns FullGrad maps, (batch, height, width): where the image and the biases make the score.

    With b the biases of all layers (of normalizations too), f_b = b ∂y/∂b at each position, and y the score,

        y = Σ x ∂y/∂x + Σ_b f_b                     exactly, in a network of ReLUs
        map = Σ over channels of ψ(x ∂y/∂x) + Σ_b Σ over channels of ψ(f_b)
        ψ(f) = |f| less its minimum, over its range, enlarged to the image

    Biases without positions, of dense layers behind the last map, are left out of the map, as in the paper.

    Raises:
        ValueError: a layer adds its bias where it cannot be reached.

    References:
        Srinivas, Fleuret, Full-Gradient Representation for Neural Network Visualization, NeurIPS 2019,
        Proposition 1 and Equation 7.

    Example:
        >>> apply = lambda bias, images: (images + bias).sum((1, 2)) @ jnp.eye(2)
        >>> images = jnp.array([[[[0.5, 0.0], [1.0, 0.0], [0.5, 0.0]]]])
        >>> print(full_grad(apply, jnp.array([0.25, 0.0]), images, targets=0)[0, 0])
        [0.6 1.  0.6]
    """
    found = full_gradient(network, images, targets)
    maps = [found.image]
    for layer, product, _ in found.biases:
        if layer.batch_axis is not None and layer.num_positions > 1:
            maps.append(channels_last(product, layer))
    return sum(enlarged(_rescaled(jnp.abs(m)), images, "bilinear").sum(-1) for m in maps)  # type: ignore[return-value]


def _rescaled(maps: Any) -> Any:
    low = maps.min((1, 2, 3), keepdims=True)
    span = maps.max((1, 2, 3), keepdims=True) - low
    return jnp.where(span > 0, (maps - low) / jnp.where(span > 0, span, 1), 0)
