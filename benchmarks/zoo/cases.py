"""The networks of the zoo, and what is true of each: the map that its head reduces, said by hand."""

import dataclasses
from collections.abc import Mapping
from typing import Any

BATCH = 5  # a prime, that no other axis has by chance


@dataclasses.dataclass(frozen=True)
class Case:
    """One network.

    Attributes:
        package: on PyPI.
        network: its name there.
        size: of its images, in pixels.
        kind: of the layer for class activation maps: what the last reduction over positions acts on, before a
            pooling over windows.
        cam: (rows, columns, channels) of that layer.
        head: "mean" where the reduction is global average pooling of that layer, "flatten" where a pooling
            over windows or a flattening comes between, "token" where a class token is read: there the last
            reduction is the last attention; "none" where positions are mixed with channels on the way.
        place: of the layers of this kind and size, which it is.
        has_numbers: measured with random weights too; else by shapes alone.
        batches: sizes of batches that it is traced for, the one that its weights are made for among them.
        options: of the constructor.
    """

    package: str
    network: str
    size: int
    kind: str
    cam: tuple[int, int, int]
    head: str = "mean"
    place: int = -1
    has_numbers: bool = False
    batches: tuple[int, ...] = (1, BATCH, 64)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.package}/{self.network}"


def _by_shapes(package, network, size, kind, cam, head="mean", place=-1, **options) -> Case:
    return Case(package, network, size, kind, cam, head, place, options=options)


def _for_one_batch(*arguments, **options) -> Case:
    """Of a network whose weights have the size of a batch."""
    return dataclasses.replace(_by_shapes(*arguments, **options), batches=(BATCH,))


def _small(*arguments, **options) -> Case:
    return dataclasses.replace(_by_shapes(*arguments, **options), has_numbers=True)


_K3IM_VIT: Any = {"image_size": 224, "patch_size": 16, "dim": 192, "depth": 6, "heads": 3, "mlp_dim": 768}
_K3IM_SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "embed_dim": 64,
    "num_heads": 8,
    "window_size": 4,
    "num_mlp": 256,
    "qkv_bias": True,
    "dropout_rate": 0.0,
    "shift_size": 2,
    "is_eager": True,
}

CASES = (
    _small("keras", "ResNet50", 96, "relu", (3, 3, 2048)),
    _small("keras", "MobileNetV2", 64, "relu6", (2, 2, 1280)),
    _small("keras", "MobileNetV3Small", 64, "hard_silu", (2, 2, 576)),
    _by_shapes("keras", "EfficientNetB0", 224, "silu", (7, 7, 1280)),
    _small("keras", "Xception", 96, "relu", (3, 3, 2048)),
    _by_shapes("keras", "VGG16", 224, "relu", (14, 14, 512), "flatten"),
    _by_shapes("keras", "DenseNet121", 224, "relu", (7, 7, 1024)),
    _by_shapes("keras", "ConvNeXtTiny", 224, "add", (7, 7, 768)),
    _by_shapes("keras", "InceptionV3", 299, "concatenate", (8, 8, 2048)),
    _by_shapes("keras", "NASNetMobile", 224, "relu", (7, 7, 1056)),
    _small("dm-haiku", "ResNet18", 96, "relu", (3, 3, 512)),
    _small("dm-haiku", "MobileNetV1", 96, "relu", (3, 3, 1024)),
    _by_shapes("dm-haiku", "ResNet50", 224, "relu", (7, 7, 2048)),
    _small("jax-resnet", "ResNet18", 96, "relu", (3, 3, 512)),
    _small("jax-resnet", "ResNeSt50", 96, "relu", (3, 3, 2048)),
    _by_shapes("jax-resnet", "ResNetD50", 224, "relu", (7, 7, 2048)),
    _by_shapes("jax-resnet", "ResNeXt50", 224, "relu", (7, 7, 2048)),
    _by_shapes("jax-resnet", "ResNet152", 224, "relu", (7, 7, 2048)),
    _small("flaxmodels", "ResNet18", 96, "relu", (3, 3, 512)),
    _by_shapes("flaxmodels", "ResNet50", 224, "relu", (7, 7, 2048)),
    _by_shapes("flaxmodels", "VGG16", 224, "relu", (14, 14, 512), "flatten"),
    _small("lpips-nnx", "VGG16Features", 96, "relu", (6, 6, 512)),
    _small("flaim", "vgg11", 96, "relu", (6, 6, 512), "flatten"),
    _small("flaim", "regnetx_200mf", 96, "relu", (3, 3, 368)),
    _small("flaim", "regnety_200mf", 96, "relu", (3, 3, 368)),
    _small("flaim", "resnest14_2s1x64d", 96, "relu", (3, 3, 2048)),
    _small("flaim", "convnext_xxxnano", 96, "add", (3, 3, 320)),
    _small("flaim", "van_b0", 96, "norm", (3, 3, 256)),
    _by_shapes("flaim", "convmixer32_768d_patch7_kernel7", 224, "norm", (32, 32, 768)),
    _by_shapes("flaim", "efficientnetv2_small", 224, "silu", (7, 7, 1280)),
    _by_shapes("flaim", "hornet_tiny", 224, "add", (7, 7, 512)),
    _by_shapes("flaim", "swin_tiny_window7_224", 224, "norm", (7, 7, 768)),
    _by_shapes("flaim", "maxvit_tiny_224", 224, "add", (7, 7, 512)),
    _by_shapes("flaim", "gcvit_xxtiny_224", 224, "norm", (7, 7, 512)),
    _by_shapes("flaim", "nest_tiny_224", 224, "norm", (14, 14, 384)),
    _by_shapes("flaim", "pvtv2_b0", 224, "norm", (7, 7, 256)),
    _by_shapes("flaim", "vit_base_patch16_224", 224, "norm", (14, 14, 768), "token", -3),
    _by_shapes("flaim", "cait_xxsmall24_224", 224, "norm", (14, 14, 192), "token", -2),
    _by_shapes("jax-models", "convmixer-512-12", 224, "norm", (32, 32, 512)),
    _by_shapes("jax-models", "poolformer-s12", 224, "add", (7, 7, 512)),
    _by_shapes("jax-models", "convnext-tiny", 224, "add", (7, 7, 768)),
    _by_shapes("jax-models", "van-tiny", 224, "norm", (7, 7, 256)),
    _by_shapes("jax-models", "swin-tiny-224", 224, "norm", (7, 7, 768)),
    _by_shapes("jax-models", "pvit-b0", 224, "norm", (7, 7, 256)),
    _for_one_batch("jax-models", "mpvit-tiny", 224, "conv", (4, 4, 216), "none"),
    _for_one_batch("jax-models", "patchconvnet-s60", 224, "norm", (14, 14, 384), "token", -2),
    _by_shapes("jax-models", "mlpmixer-s16", 224, "add", (14, 14, 512)),
    _small("equimo", "mobilenetv3_small", 64, "norm", (2, 2, 1280)),
    _by_shapes("equimo", "convnext_t", 224, "add", (7, 7, 768)),
    _by_shapes("equimo", "iformer_t", 224, "add", (7, 7, 256)),
    _by_shapes("equimo", "attnet_xxs", 224, "add", (7, 7, 240)),
    _by_shapes("equimo", "reduceformer_backbone_b1", 224, "add", (7, 7, 256)),
    _by_shapes("equimo", "vit_tiny_patch16_224", 224, "norm", (14, 14, 192)),
    _small("eqxvision", "googlenet", 96, "concatenate", (3, 3, 1024)),
    _small("eqxvision", "shufflenet_v2_x0_5", 96, "relu", (3, 3, 1024)),
    _small("eqxvision", "squeezenet1_1", 96, "relu", (5, 5, 10)),
    _small("eqxvision", "mobilenet_v2", 64, "relu", (2, 2, 1280)),
    _by_shapes("eqxvision", "alexnet", 224, "relu", (13, 13, 256), "flatten"),
    _by_shapes("eqxvision", "densenet121", 224, "relu", (7, 7, 1024)),
    _by_shapes("eqxvision", "mobilenet_v3_small", 224, "hard_silu", (7, 7, 576)),
    _by_shapes("eqxvision", "efficientnet_b0", 224, "silu", (7, 7, 1280)),
    _by_shapes("eqxvision", "regnet_x_400mf", 224, "relu", (7, 7, 400), is_eager=True),
    _by_shapes("eqxvision", "convnext_tiny", 224, "add", (7, 7, 768)),
    _by_shapes("eqxvision", "swin_t", 224, "norm", (7, 7, 768)),
    _by_shapes("eqxvision", "vit_tiny", 224, "norm", (14, 14, 192), "token", -3),
    _by_shapes("jax-image-models", "VisionTransformer", 224, "norm", (14, 14, 768), "token", -3),
    _small("k3im", "swint.SwinTModel", 32, "dense", (8, 8, 128), **_K3IM_SWIN),
    _by_shapes("k3im", "vit.ViT", 224, "norm", (14, 14, 192), **_K3IM_VIT),
    _by_shapes("k3im", "cait.CaiTModel", 224, "norm", (14, 14, 192), "token", -1, cls_depth=2, **_K3IM_VIT),
    _by_shapes("k3im", "convmixer.ConvMixer", 96, "norm", (48, 48, 256), image_size=96),
    _by_shapes("k3im", "focalnet.focalnet_tiny_srf", 224, "norm", (7, 7, 768)),
    _by_shapes("keras-vision", "MobileViT_v1.build_MobileViT_v1", 256, "silu", (8, 8, 320), model_type="XXS"),
    _by_shapes("keras-vision", "fastvit.fastvit_t8", 256, "gelu", (8, 8, 768)),
)  # fmt: skip
