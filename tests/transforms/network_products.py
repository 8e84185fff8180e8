"""Products of activations in random networks: gates, attention, softmax. A rule may refuse or keep them."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from tests.transforms.network_axes import from_tokens, to_tokens
from tests.transforms.network_choices import arranged, has_channels, on_any, on_map, on_two, union
from tests.transforms.network_graph import Building, DoesNotFit, Value, operation


@operation("flexible", on_two, weight=1)
def product(net: Building, a: Value, b: Value):
    if a.layout != b.layout or a.array.shape != b.array.shape:
        raise DoesNotFit("forms differ")
    return b.to(a.array * b.array, **union(a, b))


@operation("flexible", on_two, weight=0.5)
def gated(net: Building, a: Value, b: Value):
    if a.layout != b.layout or a.array.shape != b.array.shape:
        raise DoesNotFit("forms differ")
    return b.to(a.array * jax.nn.sigmoid(b.array), **union(a, b))


@operation(
    "flexible",
    on_map(gate=["sigmoid", "hard_sigmoid", "tanh"], spelling=["reduce", "keepdims", "conv"]),
    weight=1.5,
)
def squeeze_excite(net: Building, v: Value, gate, spelling):
    x = arranged(v, "nhwc")
    c, hidden = v.size("c"), 3
    down, up = net.weight("down", (c, hidden)), net.weight("up", (hidden, c))
    keeps = spelling != "reduce"
    pooled = x.array.mean((1, 2), keepdims=keeps)
    if spelling == "conv":
        numbers = ("NHWC", "HWIO", "NHWC")
        pooled = lax.conv_general_dilated(
            pooled, down[None, None], (1, 1), "VALID", dimension_numbers=numbers
        )
    else:
        pooled = pooled @ down
    hidden_layout = "nhwc" if keeps else "nc"
    squeezed = x.to(net.relu(pooled, "jax.nn.relu"), hidden_layout, local=(False, False), moved=True)
    weights = net.mark(squeezed).array @ up
    if gate == "hard_sigmoid":
        weights = net.clipped(weights, jax.nn.hard_sigmoid, -3, 3, 1 / 6, is_gate=True)
    else:
        weights = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}[gate](weights)
    weights = weights if keeps else weights[:, None, None, :]
    return arranged(x.to(x.array * weights, local=(False, False)), v.layout)


@operation("flexible", on_map(), weight=0.5)
def spatial_gate(net: Building, v: Value):
    """One number a position scales its channels."""
    found = jax.nn.sigmoid(v.array.mean(v.axis("c"), keepdims=True))
    return v.to(v.array * found)


@operation(
    "flexible",
    on_any(lambda v: v.layout in ("npc", "nqc"), heads=[1, 2, 3], spelling=["einsum", "matmul", "jax.nn"]),
    weight=2.5,
)
def attention(net: Building, v: Value, heads, spelling):
    return _attention(net, v, heads, spelling)


@operation("flexible", on_map(heads=[1, 2], spelling=["einsum", "matmul", "jax.nn"]), weight=1)
def attention_over_positions(net: Building, v: Value, heads, spelling):
    tokens = to_tokens(arranged(v, "nhwc"))
    found = from_tokens(_attention(net, tokens, heads, spelling), v.size("h"), v.size("w"))
    return arranged(found, v.layout)


def _attention(net: Building, v: Value, heads: int, spelling: str) -> Value:
    n, positions, c = v.array.shape
    d = 2
    q, k, u = (
        (v.array @ net.weight(name, (c, heads * d), 1 / math.sqrt(c))).reshape(n, positions, heads, d)
        for name in ("query", "key", "value")
    )
    if spelling == "jax.nn":
        found = jax.nn.dot_product_attention(q, k, u)
    elif spelling == "einsum":
        scores = jnp.einsum("nphd,nqhd->nhpq", q, k) / math.sqrt(d)
        found = jnp.einsum("nhpq,nqhd->nphd", jax.nn.softmax(scores), u)
    else:
        q, k, u = (t.transpose(0, 2, 1, 3) for t in (q, k, u))
        scores = q @ jnp.swapaxes(k, -1, -2) * d**-0.5
        scores = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
        found = (scores / scores.sum(-1, keepdims=True) @ u).transpose(0, 2, 1, 3)
    out: Any = found.reshape(n, positions, heads * d) @ net.weight(
        "out", (heads * d, c), 1 / math.sqrt(heads * d)
    )
    return v.to(v.array + out, local=(False, False))


@operation(
    "flexible", on_any(has_channels, function=["softmax", "log_softmax", "by hand", "logsumexp"]), weight=0.7
)
def softmax(net: Building, v: Value, function):
    axis = v.axis("c")
    if function == "by hand":
        found = jnp.exp(v.array - lax.stop_gradient(v.array.max(axis, keepdims=True)))
        return v.to(found / found.sum(axis, keepdims=True))
    if function == "logsumexp":
        return v.to(jax.nn.logsumexp(v.array, axis, keepdims=True))
    return v.to({"softmax": jax.nn.softmax, "log_softmax": jax.nn.log_softmax}[function](v.array, axis))
