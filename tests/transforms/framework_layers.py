"""Layers of Linen, NNX and Equinox as they are, inside random networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

from tests.transforms.network_choices import arranged, has_channels, on_any, on_map
from tests.transforms.network_graph import Building, DoesNotFit, Value, operation

LINEN = {
    "LayerNorm": lambda dtype: nn.LayerNorm(epsilon=0.05, dtype=dtype),
    "LayerNorm, slow": lambda dtype: nn.LayerNorm(epsilon=0.05, use_fast_variance=False, dtype=dtype),
    "RMSNorm": lambda dtype: nn.RMSNorm(epsilon=0.05, dtype=dtype),
    "InstanceNorm": lambda dtype: nn.InstanceNorm(epsilon=0.05, dtype=dtype),
    "GroupNorm": lambda dtype: nn.GroupNorm(num_groups=1, epsilon=0.05, dtype=dtype),
    "BatchNorm": lambda dtype: nn.BatchNorm(use_running_average=True, epsilon=0.05, dtype=dtype),
}


def _affine(net: Building, c: int):
    return net.weight("scale", (c,), 0.2, 1.0), net.weight("shift", (c,), 0.2)


@operation("covered", on_map(layer=list(LINEN)), weight=1.2)
def linen_norm(net: Building, v: Value, layer):
    x, c = arranged(v, "nhwc"), v.size("c")
    if c < 2:
        raise DoesNotFit("one channel")
    scale, shift = _affine(net, c)
    params = {"scale": scale} if layer == "RMSNorm" else {"scale": scale, "bias": shift}
    variables = {"params": params}
    if layer == "BatchNorm":
        mean, var = net.weight("mean", (c,), 0.3), abs(net.weight("var", (c,), 0.2, 1.0))
        variables["batch_stats"] = {"mean": mean, "var": var}
    found = LINEN[layer](x.array.dtype).apply(variables, x.array)
    local = (False, False) if layer in ("InstanceNorm", "GroupNorm") else v.local
    return arranged(x.to(found, local=local), v.layout)


@operation("covered", on_any(has_channels, layer=["LayerNorm", "RMSNorm"]), weight=0.6)
def nnx_norm(net: Building, v: Value, layer):
    x, c = arranged(v, v.layout.replace("c", "") + "c"), v.size("c")
    if c < 2:
        raise DoesNotFit("one channel")
    scale, shift = _affine(net, c)
    module = getattr(nnx, layer)(c, epsilon=0.05, dtype=x.array.dtype, rngs=nnx.Rngs(0))
    module.scale.set_value(jnp.asarray(scale))
    if layer == "LayerNorm":
        module.bias.set_value(jnp.asarray(shift))
    return arranged(x.to(module(x.array)), v.layout)


@operation("covered", on_map(layer=["LayerNorm", "RMSNorm", "GroupNorm"]), weight=0.8)
def equinox_norm(net: Building, v: Value, layer):
    """Of one vector, or of one image channels first, mapped by vmap."""
    c = v.size("c")
    if c < 2:
        raise DoesNotFit("one channel")
    scale, shift = _affine(net, c)
    module = eqx.nn.GroupNorm(1, c, eps=0.05) if layer == "GroupNorm" else getattr(eqx.nn, layer)(c, eps=0.05)
    module = eqx.tree_at(lambda m: m.weight, module, jnp.asarray(scale))
    if layer != "RMSNorm":
        module = eqx.tree_at(lambda m: m.bias, module, jnp.asarray(shift))
    if layer == "GroupNorm":
        x = arranged(v, "nchw")
        found = x.to(jax.vmap(module)(x.array), local=(False, False))
    else:
        x = arranged(v, "nhwc")
        found = x.to(jax.vmap(jax.vmap(jax.vmap(module)))(x.array))
    return arranged(found.to(found.array.astype(v.array.dtype)), v.layout)
