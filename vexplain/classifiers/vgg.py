"""VGG-16 and VGG-19: stacks of 3×3 convolutions, as torchvision, timm and MatConvNet have them."""

from collections.abc import Sequence

import jax
from flax import nnx

from vexplain.classifiers.layers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    adaptive_average_pool,
    max_pool,
    normalize,
)
from vexplain.typing import Images, Logits


class VGG(nnx.Module):
    """Five stages of 3×3 convolutions, each ended by a max pooling, and three dense layers.

    Dropout, which does nothing at evaluation, is left out.

    Args:
        depths: convolutions of each stage: (2, 2, 3, 3, 3) is VGG-16, (2, 2, 4, 4, 4) VGG-19.
        widths: channels of each stage.
        hidden: units of the two dense layers.

    References:
        Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015.
    """

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 3, 3, 3),
        num_classes: int = 1000,
        *,
        widths: Sequence[int] = (64, 128, 256, 512, 512),
        hidden: int = 4096,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        rngs: nnx.Rngs,
    ):
        self.depths, self.mean, self.std = tuple(depths), tuple(mean), tuple(std)
        channels = 3
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            for n in range(1, depth + 1):
                setattr(self, f"conv{stage}_{n}", nnx.Conv(channels, width, (3, 3), padding=1, rngs=rngs))
                channels = width
        self.fc6 = nnx.Linear(49 * channels, hidden, rngs=rngs)
        self.fc7 = nnx.Linear(hidden, hidden, rngs=rngs)
        self.fc8 = nnx.Linear(hidden, num_classes, rngs=rngs)

    def __call__(self, images: Images) -> Logits:
        x = normalize(images, self.mean, self.std)
        for stage, depth in enumerate(self.depths, start=1):
            for n in range(1, depth + 1):
                x = jax.nn.relu(getattr(self, f"conv{stage}_{n}")(x))
            x = max_pool(x, 2, 2)
        x = adaptive_average_pool(x, 7).reshape(len(x), -1)
        x = jax.nn.relu(self.fc6(x))
        x = jax.nn.relu(self.fc7(x))
        return self.fc8(x)

    def torchvision_names(self) -> dict[str, str]:
        return self._places() | {f"fc{n}": f"classifier.{place}" for n, place in ((6, 0), (7, 3), (8, 6))}

    def timm_names(self) -> dict[str, str]:
        return self._places() | {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"}

    def matconvnet_names(self) -> dict[str, str]:
        return {name: name for name in self.torchvision_names()}

    @property
    def flattened(self) -> dict[str, tuple[int, int, int]]:
        """Dense layers on a map, and its (channels, height, width)."""
        return {"fc6": (self.fc6.in_features // 49, 7, 7)}

    def _places(self) -> dict[str, str]:
        """A convolution and its ReLU take two places in the list of features, a pooling one."""
        places, place = {}, 0
        for stage, depth in enumerate(self.depths, start=1):
            for n in range(1, depth + 1):
                places[f"conv{stage}_{n}"] = f"features.{place}"
                place += 2
            place += 1
        return places
