"""ConvNeXt as torchvision and timm have it: a ResNet with the layers of a transformer."""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain.classifiers.layers import IMAGENET_MEAN, IMAGENET_STD, gelu, layer_norm, normalize
from vexplain.typing import Array, Float, Images, Logits

_Map = Float[Array, "batch height width channels"]
_PARTS = ("conv", "norm", "expand", "reduce", "scale")  # of a block
_SmallMap = Float[Array, "batch _height _width _channels"]


class ConvNeXt(nnx.Module):
    """Four stages of residual blocks of depthwise 7×7 convolutions; the default is ConvNeXt-T.

    Stochastic depth, which does nothing at evaluation, is left out.

    Args:
        depths: blocks of each stage.
        widths: channels of each stage.

    References:
        Liu, Mao, Wu, Feichtenhofer, Darrell, Xie, A ConvNet for the 2020s, CVPR 2022.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 3, 9, 3),
        num_classes: int = 1000,
        *,
        widths: Sequence[int] = (96, 192, 384, 768),
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std = tuple(mean), tuple(std)
        self.depths = tuple(depths)
        first = _Reduction(3, widths[0], 4, norm_is_first=False, rngs=rngs)
        later = [_Reduction(a, b, 2, norm_is_first=True, rngs=rngs) for a, b in itertools.pairwise(widths)]
        self.reductions = nnx.List([first, *later])
        self.stages = nnx.List(
            nnx.List(_Block(width, rngs=rngs) for _ in range(depth))
            for depth, width in zip(depths, widths, strict=True)
        )
        self.norm = layer_norm(widths[-1], rngs=rngs)
        self.fc = nnx.Linear(widths[-1], num_classes, rngs=rngs)

    def __call__(self, images: Images) -> Logits:
        x = normalize(images, self.mean, self.std)
        for stage, (reduction, blocks) in enumerate(zip(self.reductions, self.stages, strict=True), start=1):
            with jax.named_scope(f"stage{stage}"):
                with jax.named_scope("reduction"):
                    x = reduction(x)
                for n, block in enumerate(blocks):
                    with jax.named_scope(str(n)):
                        x = block(x)
        with jax.named_scope("head"):
            return self.fc(self.norm(x.mean((1, 2))))

    def torchvision_names(self) -> dict[str, str]:
        return self._names(
            ends={"norm": "classifier.0", "fc": "classifier.2"},
            stem="features.0",
            reduction=lambda stage: f"features.{2 * stage}",
            block=lambda stage, n: f"features.{2 * stage + 1}.{n}",
            parts=("block.0", "block.2", "block.3", "block.5", "layer_scale"),
        )

    def timm_names(self) -> dict[str, str]:
        return self._names(
            ends={"norm": "head.norm", "fc": "head.fc"},
            stem="stem",
            reduction=lambda stage: f"stages.{stage}.downsample",
            block=lambda stage, n: f"stages.{stage}.blocks.{n}",
            parts=("conv_dw", "norm", "mlp.fc1", "mlp.fc2", "gamma"),
        )

    def _names(
        self,
        *,
        ends: dict[str, str],
        stem: str,
        reduction: Callable[[int], str],
        block: Callable[[int, int], str],
        parts: Sequence[str],
    ) -> dict[str, str]:
        """Another framework's names: where it keeps stem, reductions and blocks, and the parts of a block."""
        names = ends | {"reductions.0.conv": f"{stem}.0", "reductions.0.norm": f"{stem}.1"}
        for stage, depth in enumerate(self.depths):
            if stage:
                names[f"reductions.{stage}.norm"] = f"{reduction(stage)}.0"
                names[f"reductions.{stage}.conv"] = f"{reduction(stage)}.1"
            for n in range(depth):
                for own, foreign in zip(_PARTS, parts, strict=True):
                    names[f"stages.{stage}.{n}.{own}"] = f"{block(stage, n)}.{foreign}"
        return names


class _Block(nnx.Module):
    """Depthwise 7×7, normalization, four times as many channels, GELU, back, a scale for each channel."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(width, width, (7, 7), padding=3, feature_group_count=width, rngs=rngs)
        self.norm = layer_norm(width, rngs=rngs)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.reduce = nnx.Linear(4 * width, width, rngs=rngs)
        self.scale = nnx.Param(jnp.full((width,), 1e-6))

    def __call__(self, x: _Map) -> _Map:
        y = self.norm(self.conv(x))
        return x + self.reduce(gelu(self.expand(y))) * self.scale[...]


class _Reduction(nnx.Module):
    """A convolution of windows that do not overlap, and a normalization before or after it."""

    def __init__(self, channels: int, out: int, size: int, *, norm_is_first: bool, rngs: nnx.Rngs):
        self.norm_is_first = norm_is_first
        self.norm = layer_norm(channels if norm_is_first else out, rngs=rngs)
        self.conv = nnx.Conv(channels, out, (size, size), strides=size, padding="VALID", rngs=rngs)

    def __call__(self, x: _Map) -> _SmallMap:
        return self.conv(self.norm(x)) if self.norm_is_first else self.norm(self.conv(x))
