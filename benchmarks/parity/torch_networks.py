"""The published networks as torchvision and timm define them, full and narrow, with random weights.

A narrow network is built by the framework's own code; then every layer is replaced by one with an eighth of
the channels. So its names and its `forward` are the framework's.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tests.references.weights import seeded_weights


def _declare_missing_operators() -> None:
    """Torchvision asks for its compiled operators when it is imported, and no classifier uses them.

    Its wheel on PyPI is built for GPUs and does not load beside a PyTorch for CPUs.
    """
    package = importlib.util.find_spec("torchvision")
    assert package is not None
    assert package.origin is not None
    for library in Path(package.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
            return
        except OSError:
            continue
    for name in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        )


_declare_missing_operators()

import timm  # noqa: E402
import torchvision  # noqa: E402

NARROW_CLASSES = 7
NARROW_SIZE = 64
FACTOR = 8
TIMM_NAMES = {"vit_b_16": "vit_base_patch16_224"}  # the others have the same name in both
DIALECTS = {  # which frameworks have which network
    "alexnet": ("torchvision",),
    **dict.fromkeys(
        ("vgg16", "vgg19", "resnet18", "resnet50", "convnext_tiny", "vit_b_16"), ("torchvision", "timm")
    ),
}


class Preprocessing(NamedTuple):
    """What belongs to the default weights: resizing of the shorter side, crop, and normalization."""

    resize: int
    crop: int
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


class OnUnitImages(nn.Module):
    """A network for images in [0, 1]: it normalizes them itself, as the networks here do."""

    def __init__(self, network: nn.Module, preprocessing: Preprocessing):
        super().__init__()
        self.network = network
        self.mean = torch.tensor(preprocessing.mean, dtype=torch.float64)[:, None, None]
        self.std = torch.tensor(preprocessing.std, dtype=torch.float64)[:, None, None]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - self.mean.to(images.dtype)) / self.std.to(images.dtype))


def full_network(name: str, dialect: str) -> nn.Module:
    """Returns a network as published, with seeded weights."""
    if dialect == "timm":
        network = timm.create_model(TIMM_NAMES.get(name, name), pretrained=False)
    else:
        network = torchvision.models.get_model(name, weights=None)
    return _finished(network)


def narrow_network(name: str, dialect: str) -> nn.Module:
    """Returns a network of an eighth of the width, for small images, with seeded weights."""
    makers: dict[tuple[str, str], Callable[[], nn.Module]] = {
        ("convnext_tiny", "torchvision"): _narrow_torchvision_convnext,
        ("convnext_tiny", "timm"): lambda: timm.models.convnext.ConvNeXt(
            num_classes=NARROW_CLASSES, depths=(3, 3, 9, 3), dims=(12, 24, 48, 96)
        ),
        ("vit_b_16", "torchvision"): lambda: torchvision.models.VisionTransformer(
            image_size=NARROW_SIZE, num_classes=NARROW_CLASSES, **_VIT, hidden_dim=48, mlp_dim=192
        ),
        ("vit_b_16", "timm"): lambda: timm.models.vision_transformer.VisionTransformer(
            img_size=NARROW_SIZE,
            num_classes=NARROW_CLASSES,
            patch_size=16,
            depth=3,
            num_heads=4,
            embed_dim=48,
        ),
    }
    if (name, dialect) in makers:
        return _finished(makers[name, dialect]())
    if dialect == "timm":
        network = timm.create_model(name, pretrained=False, num_classes=NARROW_CLASSES)
    else:
        network = torchvision.models.get_model(name, weights=None, num_classes=NARROW_CLASSES)
    _narrow(network)
    return _finished(network)


def narrow_bottlenecks() -> nn.Module:
    """Returns a narrow ResNet of one bottleneck a stage: what is in ResNet-50, and quick to compile."""
    resnet = torchvision.models.resnet
    network = resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], num_classes=NARROW_CLASSES)
    _narrow(network)
    return _finished(network)


_VIT = {"patch_size": 16, "num_layers": 3, "num_heads": 4}


def preprocessing(name: str, dialect: str) -> Preprocessing:
    """Returns what the framework says belongs to its default weights."""
    if dialect == "timm":
        settings = timm.get_pretrained_cfg(TIMM_NAMES.get(name, name))
        crop = settings.input_size[-1]
        resize = int(crop / settings.crop_pct)
        return Preprocessing(resize, crop, settings.interpolation, settings.mean, settings.std)
    settings = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return Preprocessing(
        settings.resize_size[0],
        settings.crop_size[0],
        settings.interpolation.value,
        tuple(settings.mean),
        tuple(settings.std),
    )


def _narrow_torchvision_convnext() -> nn.Module:
    setting = torchvision.models.convnext.CNBlockConfig
    widths = (12, 24, 48, 96, None)
    blocks = [setting(w, widths[n + 1], depth) for n, (w, depth) in enumerate(zip(widths, (3, 3, 9, 3)))]  # noqa: B905
    return torchvision.models.ConvNeXt(blocks, num_classes=NARROW_CLASSES)


def _narrow(network: nn.Module) -> None:
    """Replaces every layer by one with fewer channels; images keep 3, scores their classes."""

    def fewer(channels: int) -> int:
        return channels if channels in (3, NARROW_CLASSES) else channels // FACTOR

    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            new: Any = None
            if isinstance(child, nn.Conv2d):
                options = {k: getattr(child, k) for k in ("kernel_size", "stride", "padding", "dilation")}
                bias = child.bias is not None
                new = nn.Conv2d(fewer(child.in_channels), fewer(child.out_channels), bias=bias, **options)
            elif isinstance(child, nn.BatchNorm2d):
                new = nn.BatchNorm2d(fewer(child.num_features))
            elif isinstance(child, nn.Linear):
                new = nn.Linear(fewer(child.in_features), fewer(child.out_features))
            if new is not None:
                setattr(module, name, new)


def _finished(network: nn.Module) -> nn.Module:
    """With seeded weights, at evaluation, and ReLUs that do not overwrite what hooks want to see."""
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    weights = {name: torch.from_numpy(value) for name, value in seeded_weights(shapes).items()}
    network.load_state_dict(weights, strict=False)
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network.eval()
