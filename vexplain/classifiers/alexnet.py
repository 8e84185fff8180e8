"""AlexNet as torchvision has it, and VGG-F, the AlexNet-like network of the paper's ImageNet experiments.

Both begin with an 11×11 convolution of stride 4, which leaves a grid in gradients; `RESAMPLED_STRIDE` avoids
it. Dropout, which does nothing at evaluation, is left out. `widths` are the channels of the convolutions,
`hidden` the units of the two dense layers.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain.classifiers.layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    adaptive_average_pool,
    local_response_norm,
    max_pool,
    normalize,
)
from vexplain.typing import Array, Float, Images, Logits

_Map = Float[Array, "batch height width channels"]


class _FiveConvolutions(nnx.Module):
    """The layers that both networks have."""

    def __init__(self, widths: Sequence[int], hidden: int, num_classes: int, padding: Any, rngs: nnx.Rngs):
        a, b, c, d, e = widths
        self.conv1 = nnx.Conv(3, a, (11, 11), strides=4, padding=padding, rngs=rngs)
        self.conv2 = nnx.Conv(a, b, (5, 5), padding=2, rngs=rngs)
        self.conv3 = nnx.Conv(b, c, (3, 3), padding=1, rngs=rngs)
        self.conv4 = nnx.Conv(c, d, (3, 3), padding=1, rngs=rngs)
        self.conv5 = nnx.Conv(d, e, (3, 3), padding=1, rngs=rngs)
        self.fc6 = nnx.Linear(36 * e, hidden, rngs=rngs)
        self.fc7 = nnx.Linear(hidden, hidden, rngs=rngs)
        self.fc8 = nnx.Linear(hidden, num_classes, rngs=rngs)

    def _scores_of(self, x: _Map, padding: tuple[int, int] = (0, 0)) -> Logits:
        """The scores from the map before the third convolution; the last pooling is padded."""
        x = jax.nn.relu(self.conv3(x))
        x = jax.nn.relu(self.conv4(x))
        x = max_pool(jax.nn.relu(self.conv5(x)), 3, 2, padding)
        x = adaptive_average_pool(x, 6).reshape(len(x), -1)
        x = jax.nn.relu(self.fc6(x))
        x = jax.nn.relu(self.fc7(x))
        return self.fc8(x)


class AlexNet(_FiveConvolutions):
    """AlexNet in torchvision's form (the one-tower variant of 2014): 61 million parameters.

    References:
        Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        widths: Sequence[int] = (64, 192, 384, 256, 256),
        hidden: int = 4096,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std = tuple(mean), tuple(std)
        super().__init__(widths, hidden, num_classes, 2, rngs)

    def __call__(self, images: Images) -> Logits:
        x = normalize(images, self.mean, self.std)
        x = max_pool(jax.nn.relu(self.conv1(x)), 3, 2)
        x = max_pool(jax.nn.relu(self.conv2(x)), 3, 2)
        return self._scores_of(x)

    def torchvision_names(self) -> dict[str, str]:
        convolutions = {f"conv{n}": f"features.{place}" for n, place in enumerate((0, 3, 6, 8, 10), start=1)}
        return convolutions | {f"fc{n}": f"classifier.{place}" for n, place in ((6, 1), (7, 4), (8, 6))}

    @property
    def flattened(self) -> dict[str, tuple[int, int, int]]:
        """Dense layers on a map, and its (channels, height, width)."""
        return {"fc6": (self.fc6.in_features // 36, 6, 6)}


class VGGF(_FiveConvolutions):
    """VGG-F, "fast", in MatConvNet's form: five convolutions, two normalizations, three dense layers.

    Its images are 224 × 224: 54, 27, 13, and 6 positions a side after the first convolution and the poolings.

    Args:
        normalization: (size, κ, α, β) of the local response normalizations; the default is that of the
            released weights.

    References:
        Chatfield, Simonyan, Vedaldi, Zisserman, Return of the Devil in the Details, BMVC 2014, CNN-F.
    """

    size = 224

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        widths: Sequence[int] = (64, 256, 256, 256, 256),
        hidden: int = 4096,
        normalization: tuple[int, float, float, float] = (5, 2.0, 1e-4, 0.75),
        rngs: nnx.Rngs,
    ):
        self.normalization = normalization
        mean_image = jnp.broadcast_to(jnp.asarray(IMAGENET_MEAN), (self.size, self.size, 3))
        self.mean = nnx.Variable(mean_image)  # in [0, 1]; no parameter, it comes with the weights
        super().__init__(widths, hidden, num_classes, "VALID", rngs)

    def __call__(self, images: Images) -> Logits:
        if images.shape[1:] != self.mean.shape:
            raise ValueError(
                f"images has shape {images.shape}: this network expects (batch, {self.size}, {self.size}, "
                "3); resize them"
            )
        size, kappa, alpha, beta = self.normalization
        options = {"size": size, "kappa": kappa, "alpha": alpha, "beta": beta}
        x = 255 * (jnp.asarray(images) - self.mean[...])
        x = local_response_norm(jax.nn.relu(self.conv1(x)), **options)
        x = max_pool(x, 3, 2, (0, 1))
        x = local_response_norm(jax.nn.relu(self.conv2(x)), **options)
        x = max_pool(x, 3, 2, (0, 1))
        return self._scores_of(x, (0, 1))

    def matconvnet_names(self) -> dict[str, str]:
        return {name: name for name in (*(f"conv{n}" for n in range(1, 6)), "fc6", "fc7", "fc8")}
