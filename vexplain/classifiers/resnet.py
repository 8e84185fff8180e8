"""ResNet-18 and ResNet-50 as torchvision and timm have them (stride in the 3×3 convolution: "v1.5")."""

from collections.abc import Sequence

import jax
from flax import nnx

from vexplain.classifiers.layers import IMAGENET_MEAN, IMAGENET_STD, max_pool, normalize
from vexplain.typing import Array, Float, Images, Logits

_Map = Float[Array, "batch height width channels"]
_NextMap = Float[Array, "batch _height _width _channels"]


class ResNet(nnx.Module):
    """A stem, four stages of residual blocks, the mean over positions, and class scores.

    Args:
        depths: blocks of each stage: (2, 2, 2, 2) is ResNet-18, (3, 4, 6, 3) ResNet-50.
        uses_bottlenecks: blocks of 1×1, 3×3, 1×1 instead of two 3×3 convolutions.
        width: channels of the stem.

    References:
        He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 4, 6, 3),
        num_classes: int = 1000,
        *,
        uses_bottlenecks: bool = True,
        width: int = 64,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        rngs: nnx.Rngs,
    ):
        self.depths, self.mean, self.std = tuple(depths), tuple(mean), tuple(std)
        self.conv1 = _conv(3, width, 7, 2, rngs=rngs)
        self.bn1 = _norm(width, rngs=rngs)
        channels = width
        for stage, depth in enumerate(depths):
            narrow, blocks = width * 2**stage, []
            for n in range(depth):
                stride = 2 if stage and not n else 1
                plan = [(narrow, 3, stride), (narrow, 3, 1)]
                if uses_bottlenecks:
                    plan = [(narrow, 1, 1), (narrow, 3, stride), (4 * narrow, 1, 1)]
                blocks.append(_Block(channels, plan, rngs=rngs))
                channels = plan[-1][0]
            setattr(self, f"layer{stage + 1}", nnx.List(blocks))
        self.fc = nnx.Linear(channels, num_classes, rngs=rngs)

    def __call__(self, images: Images) -> Logits:
        x = normalize(images, self.mean, self.std)
        with jax.named_scope("stem"):
            x = jax.nn.relu(self.bn1(self.conv1(x)))
            x = max_pool(x, 3, 2, (1, 1))
        for stage in range(1, len(self.depths) + 1):
            for n, block in enumerate(getattr(self, f"layer{stage}")):
                with jax.named_scope(f"layer{stage}"), jax.named_scope(str(n)):
                    x = block(x)
        with jax.named_scope("head"):
            return self.fc(x.mean((1, 2)))

    def torchvision_names(self) -> dict[str, str]:
        """Torchvision's names of the layers; timm's are the same."""
        names = {name: name for name in ("conv1", "bn1", "fc")}
        for stage, depth in enumerate(self.depths, start=1):
            for n in range(depth):
                here = f"layer{stage}.{n}"
                parts = getattr(self, f"layer{stage}")[n].names
                names |= {f"{here}.{own}": f"{here}.{foreign}" for own, foreign in parts.items()}
        return names


class _Block(nnx.Module):
    """Convolutions (filters, size, stride), each with a normalization, added to what came in."""

    def __init__(self, channels: int, plan: Sequence[tuple[int, int, int]], *, rngs: nnx.Rngs):
        self.num_convolutions, before, stride = len(plan), channels, 1
        for n, (out, size, step) in enumerate(plan, start=1):
            setattr(self, f"conv{n}", _conv(before, out, size, step, rngs=rngs))
            setattr(self, f"bn{n}", _norm(out, rngs=rngs))
            before, stride = out, stride * step
        is_same = channels == before and stride == 1
        self.shortcut = None if is_same else _Shortcut(channels, before, stride, rngs=rngs)

    def __call__(self, x: _Map) -> _NextMap:
        y = x
        for n in range(1, self.num_convolutions + 1):
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
            if n < self.num_convolutions:
                y = jax.nn.relu(y)
        return jax.nn.relu(y + (x if self.shortcut is None else self.shortcut(x)))

    @property
    def names(self) -> dict[str, str]:
        """Torchvision's names of the layers of the block."""
        numbers = range(1, self.num_convolutions + 1)
        names = {f"{kind}{n}": f"{kind}{n}" for n in numbers for kind in ("conv", "bn")}
        if self.shortcut is not None:
            names |= {"shortcut.conv": "downsample.0", "shortcut.norm": "downsample.1"}
        return names


class _Shortcut(nnx.Module):
    """A strided 1×1 convolution where a block changes the shape of its map."""

    def __init__(self, channels: int, out: int, stride: int, *, rngs: nnx.Rngs):
        self.conv = _conv(channels, out, 1, stride, rngs=rngs)
        self.norm = _norm(out, rngs=rngs)

    def __call__(self, x: _Map) -> _NextMap:
        return self.norm(self.conv(x))


def _conv(channels: int, out: int, size: int, stride: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    options = {"strides": stride, "padding": size // 2, "use_bias": False, "rngs": rngs}
    return nnx.Conv(channels, out, (size, size), **options)


def _norm(channels: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, epsilon=1e-5, momentum=0.9, rngs=rngs)
