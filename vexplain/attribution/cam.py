"""Maps made of the activations of one layer, enlarged to the size of the image."""

import jax
import jax.numpy as jnp

from vexplain.transforms import Layer, LayerTable, channels_last, edit, layers, read
from vexplain.typing import Array, Float, Images, PyTree, ScoreFn, Variables

_ENTRY = ("dense", "conv", "norm", "add")  # an activation function follows one of these


def grad_cam(
    score_fn: ScoreFn, variables: Variables, images: Images, targets: PyTree, *, layer: str
) -> Float[Array, "batch height width 1"]:
    """Returns Grad-CAM maps of a layer.

    With A_k the channels of the layer and y the score,

        w_k = mean over positions of ∂y/∂A_k,        map = max(0, Σ_k w_k A_k)

    enlarged bilinearly to the size of the images.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        layer: a layer with two spatial axes; `cam_layer` finds the customary one.

    Raises:
        ValueError: the layer has no spatial axes.

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
    row = _spatial_layer(score_fn, variables, images, targets, layer)

    def perturbed(delta):
        moved = read(edit(score_fn, {layer: lambda a: a + delta}), [layer])
        score, found = moved(variables, images, targets)
        return score.sum(), found[layer]

    gradients, activations = jax.grad(perturbed, has_aux=True)(jnp.zeros(row.shape, images.dtype))
    gradients, activations = channels_last(gradients, row), channels_last(activations, row)
    weights = gradients.mean((1, 2), keepdims=True)
    return _enlarged(jax.nn.relu((weights * activations).sum(-1, keepdims=True)), images)


def upsampled_activation(
    score_fn: ScoreFn, variables: Variables, images: Images, targets: PyTree, *, layer: str
) -> Float[Array, "batch height width 1"]:
    """Returns the sum of the positive activations of a layer, enlarged bilinearly to the images' size.

    It knows nothing of the target: what it scores is how far "where the network is active" explains.

    Args:
        score_fn: any function of the network, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        layer: a layer with two spatial axes.

    Raises:
        ValueError: the layer has no spatial axes.

    Example:
        >>> def apply(variables, images):  # doubles the image: logits are means of its two channels
        ...     return jax.nn.relu(images * variables).mean((1, 2))
        >>> score = lambda v, x, targets: apply(v, x)[jnp.arange(len(x)), targets]
        >>> images = jnp.array([[[[0.1, 0.9], [0.4, 0.2]]]])
        >>> print(upsampled_activation(score, 2.0, images, jnp.array([1]), layer="relu_1")[0, :, :, 0])
        [[2.  1.2]]
    """
    row = _spatial_layer(score_fn, variables, images, targets, layer)
    found = read(score_fn, [layer])(variables, images, targets)[1][layer]
    return _enlarged(jax.nn.relu(channels_last(found, row)).sum(-1, keepdims=True), images)


def cam_layer(table: LayerTable) -> str:
    """Returns the customary layer for class activation maps: the last convolution, after its ReLU.

    Raises:
        ValueError: no layer of the network has two spatial axes.

    Example:
        >>> def apply(variables, images):
        ...     x = jax.lax.conv_general_dilated(
        ...         images, variables, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ...     )
        ...     return jax.nn.relu(x).mean((1, 2))
        >>> cam_layer(layers(apply, jnp.ones((3, 3, 1, 2)), jnp.ones((1, 5, 5, 1))))
        'relu_1'
    """
    spatial = [row for row in table if None not in row.spatial_axes and row.batch_axis is not None]
    convolutions = [n for n, layer in enumerate(spatial) if layer.kind == "conv"]
    if not convolutions:
        raise ValueError("no convolution of this network has spatial axes: name a layer for the map")
    last = convolutions[-1]
    for follower in spatial[last + 1 :]:
        if follower.kind not in (*_ENTRY, "named"):
            return follower.name if follower.kind != "pool" else spatial[last].name
    return spatial[last].name


def _spatial_layer(score_fn, variables, images, targets, name: str) -> Layer:
    table = layers(lambda v, x: score_fn(v, x, targets), variables, images)
    row = table[name]
    if row.batch_axis is None:
        raise ValueError(
            f"layer {name!r} of shape {row.shape} mixes the images of a batch, or its batch cannot be "
            "followed: choose an earlier layer"
        )
    if None in row.spatial_axes:
        raise ValueError(
            f"layer {name!r} of shape {row.shape} has no spatial axes: a map needs a layer with height and "
            "width, such as the last convolution (see cam_layer)"
        )
    return row


def _enlarged(maps: Float[Array, "batch h w 1"], images: Images) -> Float[Array, "batch height width 1"]:
    return jax.image.resize(maps, (*images.shape[:3], 1), "bilinear")
