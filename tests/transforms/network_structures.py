"""What networks have beyond single layers: whole blocks, heads, recurrences, and unusual linear steps."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.transforms.network_axes import from_tokens, to_tokens
from tests.transforms.network_choices import arranged, has_channels, on_any, on_map, on_two, shaped, union
from tests.transforms.network_graph import Building, DoesNotFit, Value, operation
from tests.transforms.network_norms import NORMS, normalized

NHWC = ("NHWC", "HWIO", "NHWC")


def _kernel(net: Building, name: str, *shape: int):
    return net.weight(name, shape, 1 / math.sqrt(math.prod(shape[:-1])))


# ----------------------------------------------------------------------------------------- whole blocks


@operation("covered", on_map(norm=NORMS, strides=[(1, 1), (2, 1)], groups=[1, 1, "all"]), weight=2)
def bottleneck(net: Building, v: Value, norm, strides, groups):
    """A residual block, with a strided shortcut where it strides."""
    x = arranged(v, "nhwc")
    c, one = v.size("c"), jnp.ones((), v.array.dtype)
    groups = c if groups == "all" else groups
    kernel = _kernel(net, "kernel", 3, 3, c // groups, c)
    y = net.conv(x.array, kernel, strides, "SAME", (1, 1), NHWC, groups)
    y = net.mark(
        x.to(net.relu(normalized(net, y, (1, 2), norm, one, 0 * one), "jax.nn.relu"), local=(False, False))
    )
    y = y.array @ _kernel(net, "out", c, c)
    shortcut = x.array
    if max(strides) > 1:
        shortcut = net.conv(x.array, _kernel(net, "shortcut", 1, 1, c, c), strides, "SAME", (1, 1), NHWC, 1)
    out = net.relu(y + shortcut, "maximum(x, 0)")
    return arranged(x.to(out, local=(False, False)), v.layout)


@operation("covered", on_map(norm=NORMS, scale=[True, False]), weight=1)
def convnext_block(net: Building, v: Value, norm, scale):
    """Depthwise convolution, layer norm, two dense layers with a ReLU, layer scale, residual."""
    x = arranged(v, "nhwc")
    c, one = v.size("c"), jnp.ones((), v.array.dtype)
    if c < 2:
        raise DoesNotFit("one channel")
    y = net.conv(x.array, _kernel(net, "kernel", 3, 3, 1, c), (1, 1), "SAME", (1, 1), NHWC, c)
    y = normalized(net, y, -1, norm, one, 0 * one) @ _kernel(net, "up", c, 4)
    y = net.mark(x.to(net.relu(y, "jax.nn.relu"))).array @ _kernel(net, "down", 4, c)
    y = y * net.weight("scale", (c,), 0.1, 0.5) if scale else y
    return arranged(x.to(x.array + y), v.layout)


@operation("covered", on_map(hidden=[3, 5]), weight=0.8)
def mixer_block(net: Building, v: Value, hidden):
    """The two layers of an MLP-Mixer along the positions."""
    tokens = to_tokens(arranged(v, "nhwc"))
    p = tokens.size("p")
    y = jnp.swapaxes(tokens.array, 1, 2) @ _kernel(net, "up", p, hidden)
    y = net.relu(y, "jax.nn.relu") @ _kernel(net, "down", hidden, p)
    mixed = tokens.to(tokens.array + jnp.swapaxes(y, 1, 2), local=(False, False), moved=True)
    return arranged(from_tokens(net.mark(mixed), v.size("h"), v.size("w")), v.layout)


@operation("covered", on_map(features=[2, 3], layers=[2, 3]), weight=0.8)
def dense_block(net: Building, v: Value, features, layers):
    """Each convolution sees all before it (DenseNet)."""
    x = arranged(v, "nhwc")
    for i in range(layers):
        kernel = _kernel(net, f"kernel {i}", 3, 1, x.size("c"), features)
        y = net.conv(net.relu(x.array, "jax.nn.relu"), kernel, (1, 1), "SAME", (1, 1), NHWC, 1)
        x = net.mark(x.to(jnp.concatenate([x.array, y], -1)))
    return arranged(x, v.layout)


@operation("covered", on_map(spelling=["add", "concatenate", "stack"]), weight=0.8)
def branches(net: Building, v: Value, spelling):
    """Two convolutions of one map, joined (Inception, FPN)."""
    x = arranged(v, "nhwc")
    c = v.size("c")
    a = net.conv(x.array, _kernel(net, "a", 1, 1, c, 3), (1, 1), "SAME", (1, 1), NHWC, 1)
    b = net.conv(x.array, _kernel(net, "b", 3, 3, c, 3), (1, 1), "SAME", (1, 1), NHWC, 1)
    a, b = net.relu(a, "jax.nn.relu"), net.relu(b, "where(x > 0, x, 0)")
    if spelling == "stack":
        found = jnp.stack([a, b]).sum(0)
    else:
        found = a + b if spelling == "add" else jnp.concatenate([a, b], -1)
    return arranged(x.to(found), v.layout)


@operation("covered", on_any(lambda v: v.layout == "npc", heads=[2, 3], swaps=[True, False]), weight=3)
def split_heads(net: Building, v: Value, heads, swaps):
    """Channels as heads, a ReLU there, and together again."""
    n, p, c = v.array.shape
    if c % heads:
        raise DoesNotFit("heads")
    x = v.to(v.array.reshape(n, p, heads, c // heads), "npkd")
    x = arranged(x, "nkpd") if swaps else x
    x = net.mark(x.to(net.relu(x.array, "jax.nn.relu")))
    return v.to(arranged(x, "npkd").array.reshape(n, p, c))


@operation("covered", on_any(lambda v: v.layout in ("npc", "ncp"), features=[2, 3], kernel=[2, 3]), weight=3)
def conv_1d(net: Building, v: Value, features, kernel):
    """A convolution along tokens."""
    w = _kernel(net, "kernel", kernel, v.size("c"), features)
    spec = v.layout.upper().replace("P", "W")
    found = lax.conv_general_dilated(v.array, w, (1,), "SAME", dimension_numbers=(spec, "WIO", spec))
    return v.to(found, local=(None, None))


@operation("covered", on_map(kernel=[(2, 2), (3, 2)], features=[3, 4]), weight=0.6)
def patches(net: Building, v: Value, kernel, features):
    """Patches of the map as channels, then a dense layer: a convolution by hand."""
    x = arranged(v, "nhwc")
    found = lax.conv_general_dilated_patches(x.array, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
    w = _kernel(net, "kernel", found.shape[-1], features)
    return arranged(x.to(found @ w), v.layout)


@operation("covered", on_map(size=[2, 3]), weight=0.8)
def patch_embedding(net: Building, v: Value, size):
    """A map cut into patches by reshapes, each patch a token (ViT), on a grid that stays a map."""
    x = arranged(v, "nhwc")
    n, h, w, c = x.array.shape
    if h % size or w % size:
        raise DoesNotFit("patches")
    y = x.array.reshape(n, h // size, size, w // size, size, c)
    y = jnp.einsum("nhuwvc,uvcz->nhwz", y, _kernel(net, "kernel", size, size, c, 4))
    return arranged(x.to(y), v.layout)


@operation("covered", on_map(), weight=0.5)
def vmapped_conv(net: Building, v: Value):
    """A convolution of one image, mapped over the batch by vmap, channels first (Equinox)."""
    x = arranged(v, "nchw")
    w = _kernel(net, "kernel", 3, 3, v.size("c"), 3)

    def single(image):
        return lax.conv_general_dilated(
            image[None], w, (1, 1), "SAME", dimension_numbers=("NCHW", "HWIO", "NCHW")
        )[0]

    return arranged(x.to(jax.vmap(single)(x.array)), v.layout)


@operation("covered", on_any(has_channels), weight=0.5)
def vmapped_channels(net: Building, v: Value):
    """A function of one channel, mapped over channels."""
    axis = v.axis("c")
    scale = net.weight("scale", (v.size("c"),), 0.3, 1.0)
    found = jax.vmap(lambda x, s: net.relu(x * s - 0.1, "jax.nn.relu"), (axis, 0), axis)(v.array, scale)
    return v.to(found)


# -------------------------------------------------------------------------------------- recurrences


@operation("covered", on_map(how=["rows", "reverse"]), weight=0.6)
def recurrent_rows(net: Building, v: Value, how):
    """A recurrence with ReLUs down the rows."""
    x = arranged(v, "hnwc")
    c = v.size("c")
    w = _kernel(net, "kernel", c, c)

    def step(state, row):
        new = net.relu(0.5 * state @ w + row, "maximum(x, 0)")
        return new, new

    start = jnp.zeros(x.array.shape[1:], x.array.dtype)
    rows = lax.scan(step, start, x.array, reverse=how == "reverse")[1]
    return arranged(x.to(rows, local=(None, v.local[1])), v.layout)


@operation("covered", on_map(spelling=["cumsum", "matmul"], letter=["h", "w"]), weight=0.4)
def running_sum(net: Building, v: Value, spelling, letter):
    axis = v.axis(letter)
    if spelling == "cumsum":
        found = jnp.cumsum(v.array, axis) / v.size(letter)
    else:
        lower = jnp.tril(jnp.ones((v.size(letter), v.size(letter)), v.array.dtype)) / v.size(letter)
        found = jnp.moveaxis(jnp.tensordot(v.array, lower, axes=(axis, 1)), -1, axis)
    return v.to(found, local=(None, None), moved=v.moved or spelling == "matmul")


# ----------------------------------------------------------------------- linear steps that are seldom seen


@operation(
    "covered",
    on_any(
        has_channels,
        how=[
            "cast",
            "barrier",
            "identity",
            "mask",
            "where mask",
            "reduce_precision",
            "relu of a weight",
            "swish of a weight",
        ],
    ),
    weight=1.2,
)
def linear_step(net: Building, v: Value, how):
    x, mask = v.array, np.random.default_rng(net.seed).random(v.size("c")) < 0.7
    w = shaped(v, "c", net.weight("scale", (v.size("c"),), 0.5, 1.0))
    ways = {
        "cast": lambda: x.astype(jnp.bfloat16).astype(x.dtype),
        "barrier": lambda: lax.optimization_barrier(x),
        "identity": lambda: jax.nn.identity(x),
        "mask": lambda: x * shaped(v, "c", jnp.asarray(mask, x.dtype)),
        "where mask": lambda: jnp.where(shaped(v, "c", jnp.asarray(mask)), x, 0),
        "reduce_precision": lambda: lax.reduce_precision(x, 8, 7),
        "relu of a weight": lambda: x * jax.nn.relu(w),
        "swish of a weight": lambda: x * jax.nn.silu(w) + jnp.tanh(w),
    }
    return v.to(ways[how]())


@operation(
    "flexible",
    on_map(
        how=[
            "at set",
            "at add",
            "dynamic_slice",
            "update",
            "fft",
            "roll by a weight",
            "stop_gradient",
            "gather rows",
        ]
    ),
    weight=1.5,
)
def unusual_step(net: Building, v: Value, how):
    """Linear, but seldom in networks."""
    x = arranged(v, "nhwc")
    y, h = x.array, v.size("h")
    start = net.weight("start", (), 0.0, 1.0).astype(jnp.int32)
    ways = {
        "at set": lambda: y.at[:, 0].set(0.5),
        "at add": lambda: y.at[:, 1:].add(y[:, :-1]),
        "dynamic_slice": lambda: lax.dynamic_slice_in_dim(y, start, h - 1, 1),
        "update": lambda: lax.dynamic_update_slice_in_dim(y, 2 * y[:, :2], start, 1),
        "fft": lambda: jnp.fft.irfft(jnp.fft.rfft(y.astype(jnp.float32), axis=1), n=h, axis=1).astype(
            y.dtype
        ),
        "roll by a weight": lambda: jnp.roll(y, start, 1),
        "stop_gradient": lambda: y + lax.stop_gradient(0.5 * y),
        "gather rows": lambda: y[:, np.array([1, 0, *range(2, h)])],
    }
    moved = v.moved or how in ("fft", "roll by a weight", "dynamic_slice", "update")
    return arranged(x.to(ways[how](), local=(None, None), moved=moved, turned=True), v.layout)


@operation("covered", on_any(has_channels, steps=[2]), weight=0.5)
def shared_function(net: Building, v: Value, steps):
    """One jitted function, called at several places."""
    w = net.weight("scale", (), 0.1, 0.8)
    fn = jax.jit(lambda x, w: net.relu(x * w + 0.1, "jax.nn.relu"))
    x = v.array
    for i in range(steps):
        x = fn(x, w) - 0.3 * i
    return v.to(x)


# ------------------------------------------------------------------------------------- what must be refused


@operation(
    "uncovered",
    on_any(lambda v: has_channels(v) and v.size("c") > 1, how=["then added", "then read"]),
    weight=0.8,
)
def guard_used_twice(net: Building, v: Value, how):
    """The ReLU that keeps a variance from being negative, used for something else too: no mere guard."""
    axis, x = v.axis("c"), v.array
    square = net.nonlinear(lambda x: x * x, x)
    energy = net.relu(square.mean(axis, keepdims=True) - 0.2, "maximum(x, 0)")
    inverse = net.nonlinear(lambda e: lax.rsqrt(e + 0.5), energy)
    found = x * inverse if net.mode != "linear" else x + inverse
    return v.to(found + energy if how == "then added" else jnp.concatenate([found, energy], axis))


@operation("uncovered", on_two, weight=0.6)
def masked_by_another(net: Building, a: Value, b: Value):
    """One activation where another one is positive."""
    if a.layout != b.layout or a.array.shape != b.array.shape:
        raise DoesNotFit("forms differ")
    found = b.array * (a.array > 0.1) if net.mode != "linear" else a.array + b.array
    return b.to(found, **union(a, b))


@operation("uncovered", on_map(how=["logaddexp", "squares"]), weight=0.6)
def own_window(net: Building, v: Value, how):
    """A pooling whose operator nobody knows."""
    sizes = tuple(2 if letter in "hw" else 1 for letter in v.layout)

    def fn(x):
        if how == "squares":
            zero = np.zeros((), x.dtype)
            return jnp.sqrt(lax.reduce_window(x * x, zero, lax.add, sizes, sizes, "VALID") + 0.1)
        return -(lax.reduce_window(-x, np.array(np.inf, x.dtype), lax.min, sizes, sizes, "VALID") ** 3)

    def linear(x):
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, sizes, sizes, "VALID") / 4

    return v.to(net.nonlinear(fn, v.array, linear))


@operation(
    "flexible", on_map(how=["gram", "min-max", "by the sum", "cosine", "min pool", "second order"]), weight=1
)
def of_itself(net: Building, v: Value, how):
    """Products with, and divisions by, what the images make."""
    x = arranged(v, "nhwc")
    y, axes = x.array, (1, 2)
    if how == "gram":
        found = jnp.einsum("nhwc,nhwd->ncd", y, y) / math.prod(y.shape[1:3])
        return v.to(jnp.einsum("nhwc,ncd->nhwd", y, found), "nhwc", local=(False, False))
    if how == "min pool":
        inf = np.array(np.inf, y.dtype)
        found = lax.reduce_window(y, inf, lax.min, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
        return arranged(x.to(found), v.layout)
    low, high = y.min(axes, keepdims=True), y.max(axes, keepdims=True)
    ways = {
        "min-max": lambda: (y - low) / (high - low + 0.1),
        "by the sum": lambda: y / (jnp.abs(y).sum(axes, keepdims=True) + 0.1),
        "cosine": lambda: (
            y
            @ net.weight("other", (v.size("c"), v.size("c")), 0.5)
            / (jnp.linalg.norm(y, axis=-1, keepdims=True) + 0.3)
        ),
        "second order": lambda: y * y.mean(axes, keepdims=True),
    }
    return arranged(x.to(ways[how](), local=(False, False)), v.layout)
