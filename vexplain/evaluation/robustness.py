"""How much the map of an image changes when the image hardly does.

The method is called again at points near each image, with the same target and the same key, so that what it
draws makes no difference. A map may be stable because it does not depend on the image at all: read these
beside the faithfulness.

In all functions:
    method: a function of the signature of all methods (see `vexplain.catalog`).
    radius: how far a value of a pixel may move: noise is uniform in [-radius, radius], and the images stay in
        [0, 1].
    num_samples: how many points near each image, one after the other: memory does not depend on it.
    key: one, or one an image; it draws the points and is given to the method.
Norms are Euclidean over all pixels and channels, of what the method returns. Lower is better in all.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vexplain._checks import check_positive
from vexplain.attribution import Score, logit
from vexplain.attribution.scores import predicted_targets
from vexplain.catalog import MethodFn
from vexplain.evaluation._compiling import compiled_metric
from vexplain.evaluation._regions import Keys, image_keys
from vexplain.transforms import fast_in_loops
from vexplain.typing import ApplyFn, Array, Float, Images, Targets, Variables

LEAST = 1e-6  # what a value of zero counts as where it divides


@compiled_metric
def local_lipschitz_estimate(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    key: Keys,
    score: Score = logit,
    radius: float = 0.1,
    num_samples: int = 10,
) -> Float[Array, " batch"]:
    """Returns the largest ratio of the change of the map to the change of the image.

        L(x) = max_{x'} ‖a(x') - a(x)‖ / ‖x' - x‖

    The paper finds the maximum by optimization, here and in Quantus it is over drawn points: a lower bound.

    References:
        Alvarez-Melis, Jaakkola, On the Robustness of Interpretability Methods, 2018, Equation 2.

    Example:
        >>> from vexplain.attribution import gradient, input_x_gradient
        >>> apply, images = lambda variables, images: images.sum((1, 2)), jnp.full((1, 2, 2, 2), 0.5)
        >>> arguments, key = (apply, None, images, 0), jax.random.key(0)
        >>> for method in (gradient, input_x_gradient):  # 1 where only the channel of the class moves
        ...     print(bool(0 <= local_lipschitz_estimate(method, *arguments, key=key)[0] < 1))
        True
        True
    """

    def ratio(near):
        return norm(near.maps - near.own) / jnp.maximum(norm(near.images - near.given), LEAST)

    setting = (method, apply, variables, images, targets)
    return near_points(setting, key, score, radius, num_samples, ratio, "local_lipschitz_estimate").max(0)


@compiled_metric
def max_sensitivity(
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
    is_relative: bool = True,
) -> Float[Array, " batch"]:
    """Returns the largest change of the map at points near the image.

        SENS_max(x) = max_{x'} ‖a(x') - a(x)‖,        divided by ‖a(x)‖ where it is relative

    The paper's has no denominator, and so depends on the unit of the map; Quantus divides by the norm of the
    map, as here.

    Args:
        is_relative: whether the change is divided by the norm of the map.

    References:
        Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, Definition 3.1.

    Example:
        >>> from vexplain.attribution import gradient
        >>> apply, images = lambda variables, images: (images**2).sum((1, 2)), jnp.full((1, 2, 2, 2), 0.5)
        >>> found = max_sensitivity(gradient, apply, None, images, 0, radius=0.1, key=jax.random.key(0))
        >>> bool(0 < found[0] < 0.2)
        True
    """
    setting = (method, apply, variables, images, targets)
    change = _change(is_relative)
    return near_points(setting, key, score, radius, num_samples, change, "max_sensitivity").max(0)


@compiled_metric
def avg_sensitivity(
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
    is_relative: bool = True,
) -> Float[Array, " batch"]:
    """Returns the mean change of the map at points near the image; see `max_sensitivity`.

        SENS_avg(x) = E_{x'} ‖a(x') - a(x)‖,        divided by ‖a(x)‖ where it is relative

    Args:
        is_relative: whether the change is divided by the norm of the map.

    References:
        Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019, Section 3.

    Example:
        >>> from vexplain.attribution import gradient
        >>> apply, images = lambda variables, images: (images**2).sum((1, 2)), jnp.full((1, 2, 2, 2), 0.5)
        >>> found = avg_sensitivity(gradient, apply, None, images, 0, radius=0.1, key=jax.random.key(0))
        >>> bool(0 < found[0] < 0.2)
        True
    """
    setting = (method, apply, variables, images, targets)
    change = _change(is_relative)
    return near_points(setting, key, score, radius, num_samples, change, "avg_sensitivity").mean(0)


@compiled_metric
def continuity(
    method: MethodFn,
    apply: ApplyFn,
    variables: Variables,
    images: Images,
    targets: Targets = None,
    *,
    key: Keys = None,
    score: Score = logit,
    max_shift: int = 4,
    baseline: float = 0.0,
) -> Float[Array, " batch"]:
    """Returns the largest ratio of the change of the map to that of the image, over translations.

        max_{x'} ‖a(x') - a(x)‖₁ / ‖x' - x‖₂,    x' the image moved right by 1, ..., max_shift pixels

    0 where no translation changes the image. Quantus moves the image over its whole width, both ways, and
    returns the ratio of each step instead of the largest.

    Args:
        key: for methods that draw.
        max_shift: pixels, 1 or more.
        baseline: what moves in from the left.

    References:
        Montavon, Samek, Müller, Methods for interpreting and understanding deep neural networks, 2018,
        Section 7.1.

    Example:
        >>> from vexplain.attribution import gradient
        >>> apply, images = lambda variables, images: images.sum((1, 2)), jnp.full((1, 2, 6, 2), 0.5)
        >>> print(continuity(gradient, apply, None, images, 0))
        [0.]
    """
    images = jnp.asarray(images)
    width = images.shape[2]
    if not 1 <= max_shift < width:
        raise ValueError(f"max_shift is {max_shift}: expected 1 to {width - 1} pixels")
    keys = None if key is None else image_keys("continuity", key, len(images))
    targets = explained_targets(apply, variables, images, targets, score)
    own = method(apply, variables, images, targets, score=score, key=keys)

    def ratio(shift):
        is_new = jnp.arange(width)[:, None] < shift
        moved = jnp.where(is_new, baseline, jnp.roll(images, shift, axis=2)).astype(images.dtype)
        change = jnp.abs(method(apply, variables, moved, targets, score=score, key=keys) - own)
        size = norm(moved - images)
        return jnp.where(size > 0, change.reshape(len(own), -1).sum(1) / jnp.where(size > 0, size, 1), 0)

    return jax.lax.map(fast_in_loops(ratio), jnp.arange(1, max_shift + 1)).max(0)


class Point(NamedTuple):
    """A point near each image: its maps and images, and those of the image itself."""

    own: Array
    given: Array
    maps: Array
    images: Array


def near_points(
    setting: tuple[Any, ...],
    key: Any,
    score: Score,
    radius: float,
    num_samples: int,
    measure: Callable[[Point], Array],
    name: str,
) -> Float[Array, "samples batch"]:
    """Returns what a measure says of each of the points near the images.

    Args:
        setting: method, network, variables, images and targets.
        key: one, or one an image.
        score: what is explained.
        radius: of the uniform noise.
        num_samples: how many points.
        measure: of a `Point`, (batch,).
        name: of the function that asks, for errors.
    """
    method, apply, variables, images, targets = setting
    if radius <= 0:
        raise ValueError(f"radius is {radius}: expected a positive part of the range [0, 1]")
    check_positive(num_samples=num_samples)
    images = jnp.asarray(images)
    keys = image_keys(name, key, len(images))
    targets = explained_targets(apply, variables, images, targets, score)
    own = method(apply, variables, images, targets, score=score, key=keys)

    def noise(key, image, n):
        return jax.random.uniform(jax.random.fold_in(key, n), image.shape, image.dtype, -radius, radius)

    def at(n):
        moved = jnp.clip(images + jax.vmap(lambda k, x: noise(k, x, n))(keys, images), 0, 1)
        maps = method(apply, variables, moved, targets, score=score, key=keys)
        return measure(Point(own, images, maps, moved))

    return jax.lax.map(fast_in_loops(at), jnp.arange(num_samples))


def _change(is_relative: bool) -> Callable[[Point], Array]:
    def change(near):
        size = norm(near.own)
        scale = jnp.where(size > 0, size, 1) if is_relative else 1
        return norm(near.maps - near.own) / scale

    return change


def norm(values: Array) -> Float[Array, " batch"]:
    """Returns the Euclidean norm over all axes but the first."""
    return jnp.sqrt((values.reshape(len(values), -1) ** 2).sum(1))


def explained_targets(
    apply: ApplyFn, variables: Variables, images: Images, targets: Targets, score: Score
) -> Targets:
    """Returns the targets, or what is predicted for the images where they were left out."""
    return predicted_targets(score, apply(variables, images)) if targets is None else targets
