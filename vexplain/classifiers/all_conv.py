"""A network of convolutions alone: strides in place of pooling, an average over positions at the end."""

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain.classifiers.fast_gradients import convolution
from vexplain.typing import Images, Logits

_MEAN = 0.5  # of an image in [0, 1], roughly


class AllConvNet(nnx.Module):
    """A small all-convolutional network: every spatial reduction is a strided convolution.

    conv 5×5 stride 2, conv 3×3, conv 3×3 stride 2, conv 3×3, conv 3×3 stride 2, each with ReLU | class scores
    of every position | mean. All three strides leave a grid in gradients.

    Args:
        num_classes: of the scores.
        num_channels: of the images, which may have any size.
        width: channels of the first two convolutions; doubled at the second and at the third stride.
        rngs: of the weights.

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
