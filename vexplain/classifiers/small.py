"""The small networks, which train in minutes on a CPU: those of the ICLR 2019 paper, and one without pooling.

Images are in [0, 1], `image_size` pixels high and wide, of `num_channels` channels; the mean that the authors
subtract is taken to be mid gray and subtracted inside.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain.classifiers._functionalize import functionalize
from vexplain.classifiers.fast_gradients import convolution, max_pool
from vexplain.typing import ApplyFn, Images, Logits, Variables

_MEAN = 0.5


class LeNet(nnx.Module):
    """The MNIST network of MatConvNet: conv 5×5, pool, conv 5×5, pool, conv to 1×1, ReLU, class scores.

    The widths 20, 50 and 500 are those of MatConvNet's example, which the paper's MNIST model has.
    """

    def __init__(self, num_classes: int = 10, *, image_size: int = 28, num_channels: int = 1, rngs: nnx.Rngs):
        size = ((image_size - 4) // 2 - 4) // 2
        if size < 1:
            raise ValueError(f"image_size is {image_size}: this network needs at least 16 pixels")
        self.input_shape = (image_size, image_size, num_channels)
        options = {"padding": "VALID", "conv_general_dilated": convolution, "rngs": rngs}
        self.conv1 = nnx.Conv(num_channels, 20, (5, 5), **options)
        self.conv2 = nnx.Conv(20, 50, (5, 5), **options)
        self.conv3 = nnx.Conv(50, 500, (size, size), **options)
        self.scores = nnx.Linear(500, num_classes, rngs=rngs)

    def __call__(self, images: Images) -> Logits:
        _check_shape(images, self.input_shape)
        x = max_pool(self.conv1(jnp.asarray(images) - _MEAN))
        x = max_pool(self.conv2(x))
        x = jax.nn.relu(self.conv3(x))
        return self.scores(x.reshape(len(x), -1))


class FlowerNet(nnx.Module):
    """The network for an8Flower: eight layers before the class scores (*reconstructed*).

    conv 5×5, ReLU, max pool 2, conv 5×5, ReLU, max pool 2, dense, ReLU | class scores. The paper calls its
    network similar to the one for MNIST and uses the outputs of eight layers as features.

    Args:
        image_size: a multiple of 4.
        widths: channels of the two convolutions and of the dense layer.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        image_size: int = 112,
        num_channels: int = 3,
        widths: tuple[int, int, int] = (20, 50, 500),
        rngs: nnx.Rngs,
    ):
        if image_size < 4 or image_size % 4:
            raise ValueError(f"image_size is {image_size}: expected a multiple of 4")
        self.input_shape = (image_size, image_size, num_channels)
        first, second, hidden = widths
        options = {"conv_general_dilated": convolution, "rngs": rngs}
        self.conv1 = nnx.Conv(num_channels, first, (5, 5), **options)
        self.conv2 = nnx.Conv(first, second, (5, 5), **options)
        self.dense = nnx.Linear((image_size // 4) ** 2 * second, hidden, rngs=rngs)
        self.scores = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, images: Images) -> Logits:
        _check_shape(images, self.input_shape)
        x = max_pool(jax.nn.relu(self.conv1(jnp.asarray(images) - _MEAN)))
        x = max_pool(jax.nn.relu(self.conv2(x)))
        x = jax.nn.relu(self.dense(x.reshape(len(x), -1)))
        return self.scores(x)


class AllConvNet(nnx.Module):
    """A small all-convolutional network: every spatial reduction is a strided convolution.

    conv 5×5 stride 2, conv 3×3, conv 3×3 stride 2, conv 3×3, conv 3×3 stride 2, each with ReLU | class scores
    of every position | mean. All three strides leave a grid in gradients. Images may have any size.

    Args:
        width: channels of the first two convolutions; doubled at the second and at the third stride.

    References:
        Springenberg et al., Striving for Simplicity: The All Convolutional Net, 2015 (the idea; it has nine
        layers and no stride in the first).

    Example:
        >>> network = AllConvNet(6, width=4, rngs=nnx.Rngs(0))
        >>> network(jnp.zeros((2, 24, 24, 3))).shape
        (2, 6)
    """

    def __init__(self, num_classes: int, *, num_channels: int = 3, width: int = 32, rngs: nnx.Rngs):
        dense = {"conv_general_dilated": convolution, "rngs": rngs}
        strided = {"strides": 2, "rngs": rngs}
        self.conv1 = nnx.Conv(num_channels, width, (5, 5), **strided)
        self.conv2 = nnx.Conv(width, width, (3, 3), **dense)
        self.conv3 = nnx.Conv(width, 2 * width, (3, 3), **strided)
        self.conv4 = nnx.Conv(2 * width, 2 * width, (3, 3), **dense)
        self.conv5 = nnx.Conv(2 * width, 4 * width, (3, 3), **strided)
        self.scores = nnx.Conv(4 * width, num_classes, (1, 1), rngs=rngs)

    def __call__(self, images: Images) -> Logits:
        x = jnp.asarray(images) - _MEAN
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            x = jax.nn.relu(conv(x))
        return self.scores(x).mean((1, 2))


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
        >>> apply(variables, jnp.zeros((2, 16, 16, 3))).shape
        (2, 6)
    """
    if name not in _SMALL:
        raise ValueError(f"name is {name!r}: expected one of {', '.join(SMALL_NAMES)}")
    width = _WIDTHS[name] if width is None else width
    if width < 1:
        raise ValueError(f"width is {width}: expected a number of channels, 1 or more")
    return functionalize(_SMALL[name](num_classes, image_size, width, nnx.Rngs(seed)))


def _check_shape(images: Images, expected: tuple[int, int, int]) -> None:
    if images.shape[1:] != expected:
        raise ValueError(
            f"images has shape {images.shape}: this network expects (batch, "
            f"{', '.join(map(str, expected))}); resize or convert them"
        )
