"""Guided class activation maps: detail from guided backpropagation, the place from Grad-CAM or Grad-CAM++."""

import functools

from vexplain.attribution.backpropagation import guided_backprop
from vexplain.attribution.cam import grad_cam, grad_cam_plus_plus
from vexplain.transforms import GUIDED, Rule, Rules
from vexplain.typing import Attributions, Images, PyTree, ScoreFn, Variables


def guided_grad_cam(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    layer: str,
    interpolation: str = "bilinear",
    rules: Rule | Rules = GUIDED,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Attributions:
    """Returns guided backpropagation times Grad-CAM, pixel by pixel.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        layer: of `grad_cam`.
        interpolation: of the map: "bilinear" is the paper's, "nearest" Captum's default.
        rules: backward rules of `guided_backprop`. `grad_cam` has the gradient.
        on_uncovered: what to do about activation functions that no rule covers, see `with_rules`.
        on_unmatched: what to do about a rule that matches no layer, see `with_rules`.

    Raises:
        ValueError: an activation function is not covered, a rule matches nothing, or the layer has no spatial
            axes.

    References:
        Selvaraju et al., Grad-CAM, ICCV 2017, Section 3.2.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> score = lambda v, images, targets: (jax.nn.relu(images) @ v).mean((1, 2))
        >>> images, weights = jnp.array([[[[0.5, 1.0], [1.5, 1.0]]]]), jnp.array([2.0, -1.0])
        >>> print(guided_grad_cam(score, weights, images, None, layer="relu_1")[0, 0])
        [[0. 0.]
         [1. 0.]]
    """
    options = {"rules": rules, "on_uncovered": on_uncovered, "on_unmatched": on_unmatched}
    cam = functools.partial(grad_cam, layer=layer, interpolation=_checked(interpolation))
    arguments = (score_fn, variables, images, targets)
    return guided_backprop(*arguments, **options) * cam(*arguments)


def guided_grad_cam_plus_plus(
    score_fn: ScoreFn,
    variables: Variables,
    images: Images,
    targets: PyTree,
    *,
    layer: str,
    interpolation: str = "bilinear",
    epsilon: float = 0.0,
    rules: Rule | Rules = GUIDED,
    on_uncovered: str = "raise",
    on_unmatched: str = "raise",
) -> Attributions:
    """Returns guided backpropagation times Grad-CAM++, pixel by pixel.

    Args:
        score_fn: what is explained, `(variables, images, targets) -> (batch,)`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        targets: what `score_fn` takes, with a leading batch axis.
        layer: of `grad_cam_plus_plus`.
        interpolation: of the map, "bilinear" or "nearest".
        epsilon: of `grad_cam_plus_plus`.
        rules: backward rules of `guided_backprop`. `grad_cam_plus_plus` has the gradient.
        on_uncovered: what to do about activation functions that no rule covers, see `with_rules`.
        on_unmatched: what to do about a rule that matches no layer, see `with_rules`.

    Raises:
        ValueError: an activation function is not covered, a rule matches nothing, or the layer has no spatial
            axes.

    References:
        Chattopadhay et al., Grad-CAM++, WACV 2018, Section 3.3.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> score = lambda v, images, targets: (jax.nn.relu(images) @ v).mean((1, 2))
        >>> images, weights = jnp.array([[[[0.5, 1.0], [1.5, 1.0]]]]), jnp.array([2.0, -2.0])
        >>> print(guided_grad_cam_plus_plus(score, weights, images, None, layer="relu_1")[0, 0])
        [[0.25 0.  ]
         [0.75 0.  ]]
    """
    options = {"rules": rules, "on_uncovered": on_uncovered, "on_unmatched": on_unmatched}
    cam = functools.partial(
        grad_cam_plus_plus, layer=layer, interpolation=_checked(interpolation), epsilon=epsilon
    )
    arguments = (score_fn, variables, images, targets)
    return guided_backprop(*arguments, **options) * cam(*arguments)


def _checked(interpolation: str) -> str:
    if interpolation not in ("bilinear", "nearest"):
        raise ValueError(
            f"interpolation is {interpolation!r}: expected 'bilinear' or 'nearest', for the map is multiplied"
            " with an image"
        )
    return interpolation
