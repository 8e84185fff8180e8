"""The small networks by name, for experiments and examples: they train in minutes on a CPU."""

from collections.abc import Callable

from flax import nnx

from vexplain.classifiers._functionalize import functionalize
from vexplain.classifiers.all_conv import AllConvNet
from vexplain.classifiers.lenet import FlowerNet
from vexplain.typing import ApplyFn, Variables

_SMALL: dict[str, Callable[..., nnx.Module]] = {
    "flower_net": lambda num_classes, size, width, rngs: FlowerNet(
        num_classes, image_size=size, widths=(width, width * 5 // 2, width * 25), rngs=rngs
    ),
    "all_conv_net": lambda num_classes, size, width, rngs: AllConvNet(num_classes, width=width, rngs=rngs),
}
SMALL_NAMES = tuple(_SMALL)
_WIDTHS = {"flower_net": 20, "all_conv_net": 32}


def build_small(
    name: str, num_classes: int, *, image_size: int, width: int | None = None, seed: int = 0
) -> tuple[ApplyFn, Variables]:
    """Returns a small network with random weights: `apply(variables, images) -> logits`, and its variables.

    Args:
        name: one of `SMALL_NAMES`: "flower_net" has pooling and a dense layer, "all_conv_net" strides and a
            mean over positions.
        num_classes: of the scores.
        image_size: height and width of the images in pixels.
        width: channels of the first convolution, to which all others are proportional; 20 and 32 if left out.
        seed: of the weights.

    Raises:
        ValueError: there is no such network, or `width` is below 1.

    Example:
        >>> apply, variables = build_small("flower_net", 6, image_size=16, width=4)
        >>> import jax.numpy as jnp
        >>> apply(variables, jnp.zeros((2, 16, 16, 3))).shape
        (2, 6)
    """
    if name not in _SMALL:
        raise ValueError(f"name is {name!r}: expected one of {', '.join(SMALL_NAMES)}")
    width = _WIDTHS[name] if width is None else width
    if width < 1:
        raise ValueError(f"width is {width}: expected a number of channels, 1 or more")
    return functionalize(_SMALL[name](num_classes, image_size, width, nnx.Rngs(seed)))
