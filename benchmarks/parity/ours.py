"""Maps of this library under the names of what they are compared with, and the error between two maps."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain import attribution
from vexplain.transforms import layers
from vexplain.typing import ApplyFn, Array

PEERS_EPSILON = 1e-6  # in pytorch-grad-cam's Grad-CAM++


def scaled(cam: Callable[..., Array]) -> Callable[..., Array]:
    """Returns a method whose maps are shifted and scaled to [0, 1], as pytorch-grad-cam returns them."""
    return lambda *arguments, **options: attribution.normalize_heatmaps(cam(*arguments, **options))


_PLUS_PLUS = functools.partial(attribution.grad_cam_plus_plus, epsilon=PEERS_EPSILON)
_GUIDED_PLUS_PLUS = functools.partial(attribution.guided_grad_cam_plus_plus, epsilon=PEERS_EPSILON)
OF_LAYERS: dict[str, Callable[..., Array]] = {
    "Captum/grad_cam": attribution.grad_cam,
    "Captum/guided_grad_cam": attribution.guided_grad_cam,
    "pytorch-grad-cam/grad_cam": scaled(attribution.grad_cam),
    "pytorch-grad-cam/grad_cam_plus_plus": scaled(_PLUS_PLUS),
    "pytorch-grad-cam/layer_cam": scaled(attribution.layer_cam),
    "pytorch-grad-cam/hires_cam": scaled(attribution.hires_cam),
    "pytorch-grad-cam/xgrad_cam": scaled(attribution.xgrad_cam),
    "pytorch-grad-cam/ablation_cam": scaled(attribution.ablation_cam),
    "pytorch-grad-cam/guided_grad_cam_plus_plus": _GUIDED_PLUS_PLUS,
}
OF_PIXELS: dict[str, Callable[..., Array]] = {
    "Captum/guided_backprop": attribution.guided_backprop,
    "Captum/deconvnet": attribution.deconvnet,
    "pytorch-grad-cam/guided_backprop": attribution.guided_backprop,
}


def our_maps(apply: ApplyFn, variables: Any, images: Any, targets: Any) -> dict[str, np.ndarray]:
    """Returns the maps of every method that a peer has, by "peer/method", from one compiled program.

    Args:
        apply: the network.
        variables: of it.
        images: (batch, height, width, 3) in [0, 1].
        targets: (batch,), the classes.
    """
    layer = attribution.cam_layer(layers(apply, variables, images))

    @jax.jit
    def maps(variables, images, targets):
        arguments = (apply, variables, images, targets)
        found = {name: method(*arguments) for name, method in OF_PIXELS.items()}
        return found | {name: method(*arguments, layer=layer) for name, method in OF_LAYERS.items()}

    found = maps(variables, jnp.asarray(images), jnp.asarray(targets))
    return {name: np.asarray(value if value.ndim == 4 else value[..., None]) for name, value in found.items()}


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns max |found - expected| / max |expected|, the largest over the batch.

    Args:
        found: (batch, ...).
        expected: (batch, ...).

    Raises:
        ValueError: what is expected of an image is all zero.
    """
    axes = tuple(range(1, found.ndim))
    wrong, largest = np.abs(found - expected).max(axes), np.abs(expected).max(axes)
    if not largest.all():
        raise ValueError("expected is all zero for an image: there is nothing to compare with")
    return float((wrong / largest).max())
