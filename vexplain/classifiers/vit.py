"""The Vision Transformer as torchvision and timm have it: patches, a class token, and attention."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from vexplain.classifiers.layers import IMAGENET_MEAN, IMAGENET_STD, gelu, layer_norm, normalize
from vexplain.typing import Array, Float, Images, Logits

_Tokens = Float[Array, "batch tokens width"]


class VisionTransformer(nnx.Module):
    """Patches with positions, blocks of attention, scores of the class token; the default is ViT-B/16.

    Args:
        image_size: height and width of the images, a multiple of `patch_size`.
        patch_size: height and width of a patch.
        depth: blocks.
        width: channels of a token.
        num_heads: of the attention.

    References:
        Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        *,
        image_size: int = 224,
        patch_size: int = 16,
        depth: int = 12,
        width: int = 768,
        num_heads: int = 12,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        rngs: nnx.Rngs,
    ):
        if image_size % patch_size:
            raise ValueError(f"image_size is {image_size}: expected a multiple of the patches' {patch_size}")
        if width % num_heads:
            raise ValueError(f"width is {width}: expected a multiple of num_heads, {num_heads}")
        self.image_size, self.mean, self.std = image_size, tuple(mean), tuple(std)
        num_tokens = (image_size // patch_size) ** 2 + 1
        patch = (patch_size, patch_size)
        self.patches = nnx.Conv(3, width, patch, strides=patch_size, padding="VALID", rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros((1, 1, width)))
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (1, num_tokens, width)))
        self.blocks = nnx.List(_Block(width, num_heads, rngs=rngs) for _ in range(depth))
        self.norm = layer_norm(width, rngs=rngs)
        self.fc = nnx.Linear(width, num_classes, rngs=rngs)

    def __call__(self, images: Images) -> Logits:
        if images.shape[1:3] != (self.image_size, self.image_size):
            raise ValueError(
                f"images has shape {images.shape}: this network expects (batch, {self.image_size}, "
                f"{self.image_size}, 3); resize them, or build it with another image_size"
            )
        x = self.patches(normalize(images, self.mean, self.std))
        x = x.reshape(len(x), -1, x.shape[-1])
        first = jnp.broadcast_to(self.class_token[...], (len(x), 1, x.shape[-1]))
        x = jnp.concatenate([first, x], axis=1) + self.positions[...]
        for n, block in enumerate(self.blocks):
            with jax.named_scope("block"), jax.named_scope(str(n)):
                x = block(x)
        with jax.named_scope("head"):
            return self.fc(self.norm(x)[:, 0])

    def torchvision_names(self) -> dict[str, str]:
        qkv = {"qkv.kernel": "self_attention.in_proj_weight", "qkv.bias": "self_attention.in_proj_bias"}
        return self._names(0, "encoder.layers.encoder_layer_", qkv)

    def timm_names(self) -> dict[str, str]:
        return self._names(1, "blocks.", {"qkv": "attn.qkv"})

    def _names(self, library: int, prefix: str, qkv: dict[str, str]) -> dict[str, str]:
        parts = {own: names[library] for own, names in _BLOCK_NAMES.items()} | qkv
        return {own: names[library] for own, names in _NAMES.items()} | {
            f"blocks.{n}.{own}": f"{prefix}{n}.{foreign}"
            for n in range(len(self.blocks))
            for own, foreign in parts.items()
        }


_NAMES = {  # of torchvision, and of timm
    "patches": ("conv_proj", "patch_embed.proj"),
    "class_token": ("class_token", "cls_token"),
    "positions": ("encoder.pos_embedding", "pos_embed"),
    "norm": ("encoder.ln", "norm"),
    "fc": ("heads.head", "head"),
}
_BLOCK_NAMES = {
    "norm1": ("ln_1", "norm1"),
    "out": ("self_attention.out_proj", "attn.proj"),
    "norm2": ("ln_2", "norm2"),
    "expand": ("mlp.0", "mlp.fc1"),
    "reduce": ("mlp.3", "mlp.fc2"),
}


class _Block(nnx.Module):
    """Attention and two dense layers, each after a normalization and added to what came in."""

    def __init__(self, width: int, num_heads: int, *, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.norm1 = layer_norm(width, rngs=rngs)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.norm2 = layer_norm(width, rngs=rngs)
        self.expand = nnx.Linear(width, 4 * width, rngs=rngs)
        self.reduce = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: _Tokens) -> _Tokens:
        x = x + self.out(self._attention(self.qkv(self.norm1(x))))
        return x + self.reduce(gelu(self.expand(self.norm2(x))))

    def _attention(self, qkv: Float[Array, "batch tokens _triple"]) -> _Tokens:
        """softmax(q kᵀ / √d) v for each head."""
        batch, tokens, triple = qkv.shape
        heads = qkv.reshape(batch, tokens, 3, self.num_heads, triple // 3 // self.num_heads)
        query, key, value = (heads[:, :, i] for i in range(3))
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / jnp.sqrt(query.shape[-1]).astype(qkv.dtype)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores, axis=-1), value)
        return mixed.reshape(batch, tokens, triple // 3)
