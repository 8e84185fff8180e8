"""The small networks of the ICLR 2019 paper: a LeNet for MNIST, and its sibling for an8Flower.

Images are in [0, 1]; the mean that the authors subtract is taken to be mid gray and subtracted inside.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain.classifiers.fast_gradients import convolution, max_pool
from vexplain.typing import Images, Logits

_MEAN = 0.5


class LeNet(nnx.Module):
    """The MNIST network of MatConvNet: conv 5×5, pool, conv 5×5, pool, conv to 1×1, ReLU, class scores.

    The widths 20, 50 and 500 are those of MatConvNet's example, which the paper's MNIST model has.

    Args:
        num_classes: of the scores.
        image_size: height and width in pixels, 28 for MNIST.
        num_channels: of the images.
        rngs: of the weights.
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
        num_classes: of the scores.
        image_size: height and width in pixels, a multiple of 4.
        num_channels: of the images.
        widths: channels of the two convolutions and of the dense layer.
        rngs: of the weights.
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


def _check_shape(images: Images, expected: tuple[int, int, int]) -> None:
    if images.shape[1:] != expected:
        raise ValueError(
            f"images has shape {images.shape}: this network expects (batch, "
            f"{', '.join(map(str, expected))}); resize or convert them"
        )
