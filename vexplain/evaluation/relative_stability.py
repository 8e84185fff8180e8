"""How much a map changes relative to the change of the image, of the outputs or of a layer.

The points near an image are those of `robustness`, less those whose predicted class is another one: there the
map should change. What divides elementwise counts as 1e-6 where it is zero, so that maps with many zeros, as
most heatmaps are, have very large values: the logarithm is customary, and methods are compared by ranks.

In all functions:
    method: a function of the signature of all methods, which is called for every point.
    radius: how far a value of a pixel may move, as in `robustness`.
    num_samples: how many points near each image.
    key: one, or one an image; it draws the points and is given to the method.
Lower is better in all; NaN where no point has the prediction of the image.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from vexplain.attribution import Score, logit
from vexplain.attribution.scores import predicted_targets
from vexplain.catalog import MethodFn
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation._regions import Keys
from vexplain.evaluation.robustness import LEAST, Point, near_points, norm
from vexplain.transforms import read
from vexplain.typing import ApplyFn, Array, Float, Images, Targets, Variables


@compiled_metric
def relative_input_stability(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    key: Keys,
    score: Score = logit,
    radius: float = 0.02,
    num_samples: int = 10,
) -> Float[Array, " batch"]:
    """Returns the largest relative change of the map to the relative change of the image: RIS.

        RIS(x) = max_{x'} ‖(a - a') / a‖ / max(‖(x - x') / x‖, ε),    over x' with the same prediction

    elementwise, with ε = 1e-6.

    References:
        Agarwal et al., Rethinking Stability for Attribution-based Explanations, 2022, Equation 2.

    Example:
        >>> import jax
        >>> from vexplain.attribution import input_x_gradient
        >>> images = jnp.full((1, 2, 2, 2), 0.5)
        >>> apply = lambda weights, images: images.reshape(1, -1) @ weights
        >>> arguments = (input_x_gradient, apply, jnp.ones((8, 2)), images, 0)
        >>> print(relative_input_stability(*arguments, key=jax.random.key(0)).round(3))
        [1.]
    """

    def measure(near):
        return jnp.maximum(norm(_relative(near.given, near.images)), LEAST)

    setting = (method, apply, variables, images, targets)
    return _stability(setting, key, score, radius, num_samples, measure, "relative_input_stability")


@compiled_metric
def relative_output_stability(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    key: Keys,
    score: Score = logit,
    radius: float = 0.02,
    num_samples: int = 10,
) -> Float[Array, " batch"]:
    """Returns the largest relative change of the map to the change of the outputs: ROS.

        ROS(x) = max_{x'} ‖(a - a') / a‖ / max(‖f(x) - f(x')‖, ε),    over x' with the same prediction

    with f all outputs of the network, its logits.

    References:
        Agarwal et al., Rethinking Stability for Attribution-based Explanations, 2022, Equation 5.

    Example:
        >>> import jax
        >>> from vexplain.attribution import gradient
        >>> apply, images = lambda variables, images: images.sum((1, 2)), jnp.full((1, 2, 2, 2), 0.5)
        >>> print(relative_output_stability(gradient, apply, None, images, 0, key=jax.random.key(0)))
        [0.]
    """
    own = apply(variables, jnp.asarray(images))

    def measure(near):
        return jnp.maximum(norm(own - apply(variables, near.images)), LEAST)

    setting = (method, apply, variables, images, targets)
    return _stability(setting, key, score, radius, num_samples, measure, "relative_output_stability")


@compiled_metric
def relative_representation_stability(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    layer: str,
    key: Keys,
    score: Score = logit,
    radius: float = 0.02,
    num_samples: int = 10,
) -> Float[Array, " batch"]:
    """Returns the largest relative change of the map to the relative change of a layer's activations: RRS.

        RRS(x) = max_{x'} ‖(a - a') / a‖ / max(‖(L(x) - L(x')) / L(x)‖, ε),    x' with the same prediction

    Args:
        layer: the name of the layer L, as `vexplain.layers` has it.

    References:
        Agarwal et al., Rethinking Stability for Attribution-based Explanations, 2022, Equation 3.

    Example:
        >>> import jax
        >>> from vexplain.attribution import gradient
        >>> apply = lambda weights, images: jax.nn.relu(images.mean((1, 2))) @ weights
        >>> arguments = (gradient, apply, jnp.ones((3, 2)), jnp.full((1, 2, 2, 3), 0.5), 0)
        >>> print(relative_representation_stability(*arguments, layer="relu_1", key=jax.random.key(0)))
        [0.]
    """
    activations = read(apply, [layer])
    own = activations(variables, jnp.asarray(images))[1][layer]

    def measure(near):
        return jnp.maximum(norm(_relative(own, activations(variables, near.images)[1][layer])), LEAST)

    setting = (method, apply, variables, images, targets)
    return _stability(setting, key, score, radius, num_samples, measure, "relative_representation_stability")


def _stability(
    setting: tuple[Any, ...],
    key: Any,
    score: Score,
    radius: float,
    num_samples: int,
    measure: Callable[[Point], Array],
    name: str,
) -> Float[Array, " batch"]:
    """Returns the largest relative change of the map over the measure, where the prediction is the same."""
    _, apply, variables, images, _ = setting
    predicted = predicted_targets(score, apply(variables, jnp.asarray(images)))
    if predicted is None:
        raise ValueError("apply returned no class scores: expected a network that predicts a class")

    def ratio(near):
        is_same = predicted == predicted_targets(score, apply(variables, near.images))
        return jnp.where(is_same, norm(_relative(near.own, near.maps)) / measure(near), -jnp.inf)

    largest = near_points(setting, key, score, radius, num_samples, ratio, name).max(0)
    return jnp.where(largest >= 0, largest, jnp.nan)


def _relative(first: Array, second: Array) -> Array:
    return (first - second) / jnp.where(first == 0, LEAST, first)
