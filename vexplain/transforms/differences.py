"""DeepLIFT's rescale rule as a backward rule: differences from a baseline in place of derivatives.

The network runs on a batch in which every image is followed by its baseline. What is sent back through a step
to an image is a multiplier m, so that m Δx shares out the difference Δy of what leaves exactly:

    a function of one number       m = Δy / Δx, its derivative where Δx is 0         Shrikumar et al., 2017
    a maximum                      of an increase Δy / Δx to the winner of the image, of a decrease to that of
                                   the baseline, and 0 to all others                            this library
    a product a b                  the mean of b and its baseline to a, that of a to b          this library
    a quotient a / b               as the product of a and 1 / b                                this library

Linear steps keep their gradient. So Σ m Δx over the pixels is the difference of the scores, of any network.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.transforms.layer import Layer
from vexplain.transforms.layer_kinds import LINEAR_KINDS
from vexplain.transforms.primitives import ELEMENTWISE
from vexplain.transforms.rule import Rule, Step
from vexplain.transforms.spans import STATISTIC
from vexplain.transforms.spellings import RECOGNIZED

_MAXIMA = ("reduce_max", "reduce_min", "reduce_window_max", "reduce_window_min", "max", "min")
_PRODUCTS = ("mul", "dot_general", "conv_general_dilated")


def paired(images: Any, baseline: Any) -> Any:
    """Returns a batch in which every image is followed by its baseline."""
    return jnp.stack([images, baseline], 1).reshape(-1, *images.shape[1:])


def _backward(step: Step, layer: Layer, original: Any, inputs: Sequence[Any], cotangent: Any) -> Any:
    if step.kind == "stop_gradient":
        return [cotangent]
    y = original(*inputs)
    moving = [k for k in step.moving if jnp.issubdtype(inputs[k].dtype, jnp.inexact)]
    is_known = None not in [step.batches[k] for k in (*moving, -1)]
    is_entrywise = all(inputs[k].shape == y.shape for k in moving)
    is_entrywise = is_entrywise and (step.kind in ELEMENTWISE or layer.kind in RECOGNIZED)
    is_chosen = len(moving) < len(step.moving) and layer.kind != STATISTIC
    sent: list[Any] = [None] * len(inputs)
    if not is_known or is_chosen:
        found = None
    elif len(moving) == 1 and is_entrywise:
        found = _of_function(step, original, inputs, moving[0], y, cotangent)
    elif step.kind in _MAXIMA:
        found = _of_maximum(step, original, inputs, moving, y, cotangent)
    elif len(moving) == 2 and step.kind in _PRODUCTS:
        found = _of_product(step, original, inputs, moving, cotangent)
    elif len(moving) == 2 and step.kind == "div":
        found = _of_quotient(step, inputs, cotangent)
    else:
        found = jax.vjp(original, *inputs)[1](cotangent) if layer.kind == "pool" else None
    if found is None:
        raise ValueError(
            f"DIFFERENCES has no multiplier for layer {layer.name!r} ({layer.kind}), a step {step.kind!r} of "
            f"{len(moving)} activations; integrated_gradients explains any network by differences, too"
        )
    for k in moving:
        sent[k] = _of_images(found[k], step.batches[k])
    return sent


def _of_function(step, original, inputs, k, y, cotangent):
    """Δy / Δx, and the derivative between both where they are too close."""
    x = inputs[k]
    dx, dy = _difference(x, step.batches[k]), _difference(y, step.batches[-1])
    mean = x - dx / 2
    of_x = lambda v: original(*inputs[:k], v, *inputs[k + 1 :])  # noqa: E731
    (slope,) = jax.vjp(of_x, mean)[1](jnp.ones_like(y))
    least, size = math.sqrt(jnp.finfo(x.dtype).eps), abs(y - dy / 2)
    is_same = (abs(dy) <= least * size) & (abs(slope * dx) <= least * size)  # in the rounding of y
    is_close = (abs(dx) <= least * abs(mean)) | is_same
    return {k: cotangent * jnp.where(is_close, slope, dy / jnp.where(is_close, 1, dx))}


def _of_maximum(step, original, inputs, moving, y, cotangent):
    """The winner of the image takes an increase, that of the baseline a decrease; of a minimum conversely."""
    batch = step.batches[-1]
    dy = _difference(y, batch)
    shared = _of_images(cotangent * dy, batch)
    is_of_image = dy <= 0 if "min" in step.kind else dy >= 0
    sent = jnp.where(is_of_image, shared, 0) + _swapped(jnp.where(is_of_image, 0, shared), batch)
    found = jax.vjp(original, *inputs)[1](sent)
    shares = {k: found[k] + _swapped(found[k], step.batches[k]) for k in moving}
    dxs = {k: _difference(inputs[k], step.batches[k]) for k in moving}
    return {k: jnp.where(dxs[k] == 0, 0, shares[k] / jnp.where(dxs[k] == 0, 1, dxs[k])) for k in moving}


def _of_product(step, original, inputs, moving, cotangent):
    means = [x - _difference(x, step.batches[k]) / 2 if k in moving else x for k, x in enumerate(inputs)]
    return jax.vjp(original, *means)[1](cotangent)


def _of_quotient(step, inputs, cotangent):
    (a, b), (of_a, of_b) = inputs, step.batches[:2]
    inverse = 1 / b
    means = a - _difference(a, of_a) / 2, inverse - _difference(inverse, of_b) / 2
    to_a, to_inverse = jax.vjp(jnp.multiply, *means)[1](cotangent)
    return to_a, -to_inverse * inverse * _swapped(inverse, of_b)


def _swapped(x: Any, batch: Any) -> Any:
    """With each image and its baseline in the other's place."""
    axis, fold = batch
    pairs = x.reshape(*x.shape[:axis], -1, 2, fold, *x.shape[axis + 1 :])
    return jnp.flip(pairs, axis + 1).reshape(x.shape)


def _difference(x: Any, batch: Any) -> Any:
    """x less its baseline, and the baseline less x in the place of the baseline."""
    return x - _swapped(x, batch)


def _of_images(x: Any, batch: Any) -> Any:
    """x, and 0 in the places of the baselines."""
    axis, fold = batch
    is_image = np.arange(x.shape[axis]) // fold % 2 == 0
    return jnp.where(is_image.reshape([-1 if a == axis else 1 for a in range(x.ndim)]), x, 0)


DIFFERENCES = Rule(
    "DIFFERENCES",
    lambda layer, table: layer.kind not in LINEAR_KINDS or layer.kind == "pool",
    _backward,
    is_propagation=True,
)
