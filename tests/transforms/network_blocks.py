"""Blocks inside what JAX wraps around functions: jit, checkpoint, vmap, map, scan, cond, own derivatives."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from tests.transforms.network_choices import arranged, has_channels, on_any
from tests.transforms.network_graph import Building, DoesNotFit, Value, operation
from tests.transforms.network_norms import NORMS, normalized

INNER = ["relu", "residual", "norm relu", "linear", "two relus"]


def inner(net: Building, x, w, block: str, spelling: str = "jax.nn.relu"):
    """A block on channels last, which keeps its form; w is (channels, channels)."""
    if block == "linear":
        return x @ w
    if block == "relu":
        return net.relu(x @ w, spelling)
    if block == "residual":
        return x + net.relu(x @ w, spelling)
    if block == "two relus":
        return net.relu(net.relu(x @ w, spelling) @ w - 0.1, spelling)
    one = jnp.ones((), x.dtype)
    return net.relu(normalized(net, x @ w, -1, "torch", one, 0 * one), spelling)


def on_last(**choices):
    return on_any(lambda v: has_channels(v) and v.layout[0] == "n", **choices)


def prepared(net: Building, v: Value, steps: int = 0):
    """The value with channels last, and square weights (of some steps)."""
    x = arranged(v, v.layout.replace("c", "") + "c")
    c = v.size("c")
    shape = (steps, c, c) if steps else (c, c)
    return x, net.weight("kernel", shape, 1 / math.sqrt(c))


SPELLINGS = ["jax.nn.relu", "maximum(x, 0)", "where(x > 0, x, 0)"]


@operation(
    "covered",
    on_last(
        wrapper=[
            "jit",
            "checkpoint",
            "vmap",
            "named_scope",
            "jit(checkpoint)",
            "checkpoint(jit)",
            "jit(jit)",
            "closed_call",
            "policy",
        ],
        block=INNER,
        spelling=SPELLINGS,
    ),
    weight=3,
)
def wrapped(net: Building, v: Value, wrapper, block, spelling):
    x, w = prepared(net, v)

    def fn(x, w):
        return inner(net, x, w, block, spelling)

    def scoped(x, w):
        with jax.named_scope("block"):
            return fn(x, w)

    ways = {
        "jit": jax.jit(fn),
        "jit(jit)": jax.jit(lambda x, w: jax.jit(fn)(x, w) * 1),
        "checkpoint": jax.checkpoint(fn),
        "policy": jax.checkpoint(fn, policy=jax.checkpoint_policies.dots_saveable),
        "jit(checkpoint)": jax.jit(jax.checkpoint(fn)),
        "checkpoint(jit)": jax.checkpoint(jax.jit(fn)),
        "vmap": jax.vmap(fn, (0, None)),
        "named_scope": scoped,
        "closed_call": jax.named_call(fn, name="block"),
    }
    return arranged(x.to(ways[wrapper](x.array, w)), v.layout)


@operation(
    "covered", on_last(block=INNER, steps=[2, 3], how=["carry", "reverse", "rows", "unroll"]), weight=1.5
)
def scanned(net: Building, v: Value, block, steps, how):
    """One block after the other, in a scan over their weights."""
    x, ws = prepared(net, v, steps)

    def step(x, w):
        new = inner(net, x, w, block)
        return new, (new.mean(-1) if how == "rows" else None)

    found, rows = lax.scan(step, x.array, ws, reverse=how == "reverse", unroll=2 if how == "unroll" else 1)
    if how == "rows":
        found = found + 0.5 * rows.sum(0)[..., None]
    return arranged(x.to(found), v.layout)


@operation("covered", on_last(block=INNER, steps=[2, 3]), weight=0.8)
def looped(net: Building, v: Value, block, steps):
    x, ws = prepared(net, v, steps)
    found = lax.fori_loop(0, steps, lambda i, x: inner(net, x, jnp.asarray(ws)[i], block), x.array)
    return arranged(x.to(found), v.layout)


@operation("covered", on_last(block=INNER), weight=0.8)
def mapped(net: Building, v: Value, block):
    """One image after the other."""
    x, w = prepared(net, v)
    return arranged(x.to(lax.map(lambda image: inner(net, image, w, block), x.array)), v.layout)


@operation("covered", on_last(block=INNER, other=INNER, how=["cond", "switch"]), weight=0.8)
def branched(net: Building, v: Value, block, other, how):
    """A branch chosen by a weight."""
    x, w = prepared(net, v)
    chooses = net.weight("chooses", (), 1.0)
    branches = [lambda x: inner(net, x, w, block), lambda x: inner(net, x, w, other)]
    if how == "cond":
        found = lax.cond(chooses > 0, branches[0], branches[1], x.array)
    else:
        found = lax.switch((chooses > 0).astype(jnp.int32), branches, x.array)
    return arranged(x.to(found), v.layout)


@operation("flexible", on_last(block=INNER), weight=0.4)
def branched_by_images(net: Building, v: Value, block):
    """A branch chosen by the images."""
    x, w = prepared(net, v)
    chooses = x.array.mean() > 0.1
    found = lax.cond(chooses, lambda x: inner(net, x, w, block), lambda x: x @ w, x.array)
    return arranged(x.to(found, mixed=True, local=(False, False)), v.layout)


@operation("flexible", on_last(block=INNER, how=["custom_jvp", "custom_vjp"]), weight=0.7)
def own_derivative(net: Building, v: Value, block, how):
    """A block with its author's own derivative, the ordinary one: a rule cannot reach into it."""
    x, w = prepared(net, v)

    def plain(x, w):
        return inner(net, x, w, block, "may")

    if net.mode.startswith(("guided", "deconvnet")) and net.place not in net.plain_at:
        return arranged(x.to(plain(x.array, w)), v.layout)
    if how == "custom_jvp":
        fn = jax.custom_jvp(plain)
        fn.defjvp(lambda primals, tangents: jax.jvp(plain, primals, tangents))
    else:
        fn = jax.custom_vjp(plain)
        fn.defvjp(lambda x, w: jax.vjp(plain, x, w), lambda send, g: send(g))
    return arranged(x.to(fn(x.array, w)), v.layout)


@operation("covered", on_last(block=INNER), weight=0.5)
def vmapped_images(net: Building, v: Value, block):
    """One image at a time, channels first, as Equinox has it."""
    x, w = prepared(net, v)

    def single(image):
        first = jnp.moveaxis(image, -1, 0)
        first = jnp.einsum("c...,cd->d...", first, w)
        first = net.relu(first, "jax.nn.relu") if block != "linear" else first
        return jnp.moveaxis(first, 0, -1)

    return arranged(x.to(jax.vmap(single)(x.array)), v.layout)


@operation("uncovered", on_last(steps=[2, 3]), weight=0.7)
def running_maximum(net: Building, v: Value, steps):
    """A scan whose first maximum looks like a ReLU, because its first state is zero."""
    x = v.array
    ws = net.weight("scales", (steps,), 1.0)
    if net.mode == "linear":
        return v.to(x * ws.sum())
    return v.to(lax.scan(lambda c, w: (jnp.maximum(x * w, c), None), jnp.zeros_like(x), ws)[0])


@operation("covered", on_last(spelling=NORMS, wrapper=["jit", "checkpoint", "scan"]), weight=0.8)
def wrapped_norm(net: Building, v: Value, spelling, wrapper):
    x, _ = prepared(net, v)
    if v.size("c") < 2:
        raise DoesNotFit("one channel")
    scale = net.weight("scale", (v.size("c"),), 0.2, 1.0)

    def fn(x, scale):
        return normalized(net, x, -1, spelling, scale, 0 * scale)

    if wrapper == "scan":
        found = lax.scan(lambda x, s: (fn(x, s) + x, None), x.array, jnp.stack([scale, 2 * scale]))[0]
    else:
        found = {"jit": jax.jit, "checkpoint": jax.checkpoint}[wrapper](fn)(x.array, scale)
    return arranged(x.to(found), v.layout)
