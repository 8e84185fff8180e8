"""What moves the axes of random networks: splits, layouts, positions as tokens, windows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.transforms.network_choices import (
    arranged,
    has_channels,
    on_any,
    on_map,
)
from tests.transforms.network_graph import Building, DoesNotFit, Value, operation
from tests.transforms.network_layers import dense_layer


@operation(
    "covered",
    on_any(
        has_channels,
        spelling=["split", "slices", "array_split"],
        then=["swap", "add", "stack", "relu", "first"],
    ),
    weight=2,
)
def split(net: Building, v: Value, spelling, then):
    axis, size = v.axis("c"), v.size("c")
    if size < 2 or (size % 2 and then in ("add", "stack")):
        raise DoesNotFit("odd")
    half = (size + 1) // 2
    if spelling == "slices":
        a, b = lax.slice_in_dim(v.array, 0, half, axis=axis), lax.slice_in_dim(v.array, half, size, axis=axis)
    elif spelling == "split":
        a, b = jnp.split(v.array, [half], axis)
    else:
        a, b = jnp.array_split(v.array, 2, axis)
    if then == "first":
        return v.to(a)
    if then == "relu":
        a = net.mark(v.to(net.relu(a, "jax.nn.relu"))).array
    if then == "add":
        return v.to(a + 2 * b)
    if then == "stack":
        return v.to(jnp.stack([a, b], axis).sum(axis))
    return v.to(jnp.concatenate([b, a], axis))


@operation("covered", on_any(has_channels, groups=[2, 3]), weight=1)
def channel_shuffle(net: Building, v: Value, groups):
    shape, axis = v.array.shape, v.axis("c")
    x = v.array.reshape(*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :])
    return v.to(jnp.swapaxes(x, axis, axis + 1).reshape(shape))


@operation("covered", on_any(has_channels, spelling=["take", "reverse", "index"]), weight=0.8)
def permute_channels(net: Building, v: Value, spelling):
    axis, order = v.axis("c"), np.random.default_rng(net.seed).permutation(v.size("c"))
    if spelling == "take":
        return v.to(jnp.take(v.array, jnp.asarray(order), axis=axis))
    if spelling == "reverse":
        return v.to(jnp.flip(v.array, axis))
    return v.to(v.array[(slice(None),) * axis + (order,)])


@operation(
    "covered",
    on_map(layout=["nhwc", "nchw", "nchw", "cnhw", "hwnc", "nwhc", "nhcw"]),
    weight=2,
)
def transpose(net: Building, v: Value, layout):
    if sorted(layout) != sorted(v.layout) or layout == v.layout:
        raise DoesNotFit("layout")
    return arranged(v, layout)


@operation("covered", on_map(letter=["h", "w"], shift=[1, 2, -1, 3]), weight=0.7)
def roll(net: Building, v: Value, letter, shift):
    return v.to(jnp.roll(v.array, shift, v.axis(letter)), local=(None, None), turned=True)


@operation("covered", on_map(letters=["h", "w", "hw"]), weight=0.7)
def flip(net: Building, v: Value, letters):
    return v.to(jnp.flip(v.array, tuple(v.axis(letter) for letter in letters)), turned=True)


@operation(
    "covered",
    on_map(rows=[(0, 1, 1), (1, 0, 1), (0, 0, 2), (1, 1, 1)], columns=[(0, 2, 1), (1, 0, 2), (0, 0, 1)]),
    weight=1,
)
def crop(net: Building, v: Value, rows, columns):
    index = [slice(None)] * 4
    for letter, (first, last, step) in (("h", rows), ("w", columns)):
        index[v.axis(letter)] = slice(first, v.size(letter) - last, step)
    return v.to(v.array[tuple(index)])


@operation(
    "covered",
    on_map(
        rows=[(0, 1), (1, 1), (2, 0)],
        columns=[(0, 2), (1, 1)],
        mode=["constant", "constant", "reflect", "edge", "wrap"],
    ),
    weight=1,
)
def pad(net: Building, v: Value, rows, columns, mode):
    widths = [(0, 0)] * 4
    widths[v.axis("h")], widths[v.axis("w")] = rows, columns
    local = v.local if mode == "constant" else (None, None)
    return v.to(jnp.pad(v.array, widths, mode=mode), local=local, turned=v.turned or mode != "constant")


@operation("covered", on_map(factor=[2]), weight=0.7)
def pixel_shuffle(net: Building, v: Value, factor):
    x = arranged(v, "nhwc")
    n, h, w, c = x.array.shape
    y = x.array.reshape(n, h, w, factor, factor, c // factor**2).transpose(0, 1, 3, 2, 4, 5)
    found = y.reshape(n, h * factor, w * factor, c // factor**2)
    moved = v.moved or found.shape[-1] == 1  # the old channels may be said to be what they were
    return arranged(v.to(found, "nhwc", local=(None, None), moved=moved), v.layout)


@operation("covered", on_map(factor=[2, 3]), weight=0.7)
def space_to_depth(net: Building, v: Value, factor):
    x = arranged(v, "nhwc")
    n, h, w, c = x.array.shape
    y = x.array.reshape(n, h // factor, factor, w // factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
    found = y.reshape(n, h // factor, w // factor, factor**2 * c)
    return arranged(v.to(found, "nhwc"), v.layout)


@operation(
    "covered",
    on_map(
        method=["nearest", "bilinear", "cubic"], factor=[(2, 2), (0.5, 0.5), (1.5, 2), (2, 1), (0.7, 1.3)]
    ),
    weight=0.8,
)
def resize(net: Building, v: Value, method, factor):
    shape = list(v.array.shape)
    for letter, by in zip("hw", factor, strict=True):
        shape[v.axis(letter)] = max(2, int(v.size(letter) * by))
    return v.to(jax.image.resize(v.array, shape, method), local=(None, None))


@operation("covered", on_map(letters=["h", "w", "hw"], spelling=["repeat", "broadcast", "stack"]), weight=0.8)
def upsample(net: Building, v: Value, letters, spelling):
    x = v.array
    for letter in letters:
        axis = v.axis(letter)
        shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
        if spelling == "repeat":
            x = jnp.repeat(x, 2, axis)
        elif spelling == "stack":
            x = jnp.stack([x, x], axis + 1).reshape(shape)
        else:
            wide = (*x.shape[: axis + 1], 2, *x.shape[axis + 1 :])
            x = jnp.broadcast_to(jnp.expand_dims(x, axis + 1), wide).reshape(shape)
    return v.to(x, local=(None, None))


@operation("covered", on_map(letter=["h", "w"], features=[4, 5, 7]), weight=0.4)
def dense_along_space(net: Building, v: Value, letter, features):
    """A token-mixing dense layer: no layer of features, and positions that are no image rows any more."""
    w = net.weight("kernel", (v.size(letter), features), 1 / math.sqrt(v.size(letter)))
    found = jnp.einsum(f"{v.layout},{letter}z->{v.layout.replace(letter, 'z')}", v.array, w)
    local = list(v.local)
    local["hw".index(letter)] = False
    return v.to(found, local=tuple(local), moved=True)


def to_tokens(v: Value) -> Value:
    """Rows and columns merged, where they are side by side."""
    axis = v.axis("h")
    if v.layout[axis : axis + 2] != "hw":
        raise DoesNotFit("rows and columns are apart")
    shape = v.array.shape
    found = v.array.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
    return v.to(found, v.layout.replace("hw", "p"), grid=shape[axis : axis + 2])


def from_tokens(v: Value, height: int, width: int) -> Value:
    axis, shape = v.axis("p"), v.array.shape
    return v.to(
        v.array.reshape(*shape[:axis], height, width, *shape[axis + 1 :]), v.layout.replace("p", "hw")
    )


@operation(
    "covered", on_map(swaps=[True, False], then=["dense", "relu", "both"], features=[2, 3, 5]), weight=1.5
)
def token_detour(net: Building, v: Value, swaps, then, features):
    """Rows and columns merged, tokens treated, and apart again."""
    tokens = to_tokens(v)
    if swaps:
        tokens = arranged(tokens, "ncp" if tokens.layout == "npc" else "npc")
    if then != "relu":
        w = net.weight("kernel", (v.size("c"), features), 1 / math.sqrt(v.size("c")))
        tokens = net.mark(dense_layer(net, tokens, w, features, "einsum", False))
    if then != "dense":
        tokens = net.mark(tokens.to(net.relu(tokens.array, "jax.nn.relu")))
    if swaps:
        tokens = arranged(tokens, "ncp" if tokens.layout == "npc" else "npc")
    return from_tokens(tokens, v.size("h"), v.size("w"))


@operation("covered", on_map(), weight=1.5)
def tokens(net: Building, v: Value):
    return to_tokens(v)


@operation("covered", on_any(lambda v: "p" in v.layout), weight=2)
def map_of_tokens(net: Building, v: Value):
    return from_tokens(v, *v.grid)


@operation("covered", on_any(lambda v: v.layout == "npc"), weight=1.5)
def class_token(net: Building, v: Value):
    if v.layout != "npc":
        raise DoesNotFit("no tokens")
    token = net.weight("token", (1, 1, v.size("c")), 0.5)
    token = jnp.broadcast_to(token, (v.array.shape[0], 1, v.size("c")))
    return v.to(jnp.concatenate([token, v.array], 1), "nqc", local=(None, None))


@operation("covered", on_any(lambda v: v.layout == "nqc"), weight=1.5)
def without_class_token(net: Building, v: Value):
    return v.to(v.array[:, 1:], "npc")


@operation("covered", on_map(features=[3, 4]), weight=0.7)
def class_token_detour(net: Building, v: Value, features):
    """Tokens with a class token before them, a dense layer, and the map again."""
    tokens = to_tokens(arranged(v, "nhwc"))
    with_class = class_token(net, tokens)
    w = net.weight("kernel", (v.size("c"), features), 1 / math.sqrt(v.size("c")))
    found = net.mark(dense_layer(net, with_class, w, features, "@", False))
    back = found.to(found.array[:, 1:], "npc")
    return from_tokens(back, v.size("h"), v.size("w"))


@operation(
    "covered", on_map(window=[(2, 2), (3, 2), (2, 4)], then=["dense", "relu"], keeps=[True, False]), weight=1
)
def windows(net: Building, v: Value, window, then, keeps):
    """Windows merged into the batch (Swin), and back."""
    x = arranged(v, "nhwc")
    (n, h, w, c), (a, b) = x.array.shape, window
    if h % a or w % b or a == h or b == w:
        raise DoesNotFit("windows")
    parts = x.array.reshape(n, h // a, a, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
    if keeps:
        inside = x.to(parts.reshape(-1, a, b, c), "muzc", local=(None, None), grid=(h, w), window=window)
    else:
        inside = x.to(parts.reshape(-1, a * b, c), "mpc", local=(None, None), grid=(h, w), window=window)
    if then == "dense":
        inside = inside.to(inside.array @ net.weight("kernel", (c, c), 1 / math.sqrt(c)))
    inside = net.mark(inside.to(net.relu(inside.array, "jax.nn.relu")))
    parts = inside.array.reshape(n, h // a, w // b, a, b, c).transpose(0, 1, 3, 2, 4, 5)
    return arranged(x.to(parts.reshape(n, h, w, c), local=(None, None)), v.layout)


@operation("covered", on_map(), weight=0.7)
def merged_batch(net: Building, v: Value):
    """The MLP of each pixel, over all pixels of all images, and back."""
    x = arranged(v, "nhwc")
    c = v.size("c")
    flat = x.array.reshape(-1, c) @ net.weight("kernel", (c, c), 1 / math.sqrt(c))
    inside = net.mark(x.to(net.relu(flat, "jax.nn.relu"), "bc", local=(None, None), grid=x.array.shape[1:3]))
    return arranged(x.to(inside.array.reshape(x.array.shape)), v.layout)
