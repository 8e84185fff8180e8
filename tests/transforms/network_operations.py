"""The linear operations of random networks: convolutions, dense layers, poolings, and all ways to move axes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.transforms.random_networks import Building, DoesNotFit, Value, operation


def pick(rng: np.random.Generator, choices: Any) -> Any:
    """One of the choices, as it was given (not as a NumPy scalar)."""
    return choices[int(rng.integers(len(choices)))]


def recent(rng: np.random.Generator, values: list[Value], fits=lambda v: True) -> int:
    """The place of a value: mostly the last one, else any that fits."""
    if rng.random() < 0.85:
        if not fits(values[-1]):
            raise DoesNotFit("not the last value")
        return len(values) - 1
    places = [i for i, v in enumerate(values) if fits(v)]
    if not places:
        raise DoesNotFit("no value fits")
    return int(rng.choice(places[-6:]))


def on_map(**choices: Any):
    """A draw: a map of the image, and options drawn from lists."""

    def draw(rng, values):
        place = recent(rng, values, lambda v: v.is_map)
        return (place,), {name: pick(rng, options) for name, options in choices.items()}

    return draw


def on_any(fits=lambda v: True, **choices: Any):
    """A draw: any value that fits, and options drawn from lists."""

    def draw(rng, values):
        place = recent(rng, values, fits)
        return (place,), {name: pick(rng, options) for name, options in choices.items()}

    return draw


def on_two(rng, values):
    """Two values of one form, the later one mostly the last."""
    second = recent(rng, values)
    like = values[second]
    same = [
        i
        for i, v in enumerate(values)
        if i != second and (v.layout, v.array.shape, v.mixed) == (like.layout, like.array.shape, like.mixed)
    ]
    if not same:
        raise DoesNotFit("no two values of one form")
    return (int(rng.choice(same)), second), {}


def has_channels(v: Value) -> bool:
    return "c" in v.layout and len(v.layout) > 1


def shaped(v: Value, letter: str, vector: Any) -> Any:
    """A vector along one axis of a value, for broadcasting."""
    shape = [1] * len(v.layout)
    shape[v.axis(letter)] = -1
    return vector.reshape(shape)


def union(a: Value, b: Value) -> dict[str, Any]:
    local = tuple(None if None in pair else all(pair) for pair in zip(a.local, b.local, strict=True))
    return {"local": local, "mixed": a.mixed or b.mixed, "moved": a.moved or b.moved}


def arranged(v: Value, layout: str) -> Value:
    return v.to(jnp.transpose(v.array, [v.layout.index(letter) for letter in layout]), layout)


# ------------------------------------------------------------------------- convolutions and dense layers


@operation(
    "covered",
    on_map(
        features=[2, 3, 4, 5, 6, 8],
        kernel=[(1, 1), (3, 3), (2, 3), (3, 1), (1, 2), (5, 3)],
        strides=[(1, 1), (1, 1), (1, 1), (2, 2), (1, 2), (2, 1), (3, 2)],
        dilation=[(1, 1), (1, 1), (1, 1), (2, 1), (2, 2)],
        groups=[1, 1, 1, 2, "all"],
        padding=["SAME", "SAME", "VALID", "SAME_LOWER", ((1, 0), (0, 2)), ((2, 2), (1, 1))],
        bias=[True, False],
        transposes=[False, False, False, True],
    ),
    weight=7,
)
def conv(net: Building, v: Value, features, kernel, strides, dilation, groups, padding, bias, transposes):
    if not v.is_map:
        raise DoesNotFit("no map")
    channels = v.size("c")
    groups = channels if groups == "all" else groups
    features = math.ceil(features / groups) * groups
    if channels % groups:
        raise DoesNotFit("groups")
    w = net.weight("kernel", (*kernel, channels // groups, features))
    out = ("nchw" if v.layout == "nhwc" else "nhwc") if transposes else v.layout
    found = net.conv(
        v.array, w, strides, padding, dilation, (v.layout.upper(), "HWIO", out.upper()), groups
    )
    new = v.to(found, out)
    return new.to(found + shaped(new, "c", net.weight("bias", (features,), 0.2))) if bias else new


@operation(
    "covered",
    on_map(features=[2, 3, 4], kernel=[(2, 2), (3, 3), (3, 2)], strides=[(2, 2), (2, 1)], spelling=["lax", "dilated"]),
    weight=0.8,
)
def conv_transposed(net: Building, v: Value, features, kernel, strides, spelling):
    if not v.is_map:
        raise DoesNotFit("no map")
    w = net.weight("kernel", (*kernel, v.size("c"), features))
    numbers = (v.layout.upper(), "HWIO", v.layout.upper())
    if spelling == "lax":
        return v.to(lax.conv_transpose(v.array, w, strides, "SAME", dimension_numbers=numbers), local=(None, None))
    found = lax.conv_general_dilated(
        v.array, w, (1, 1), ((1, 1), (1, 1)), lhs_dilation=strides, dimension_numbers=numbers
    )
    return v.to(found, local=(None, None))


@operation(
    "covered",
    on_any(
        has_channels,
        features=[2, 3, 4, 5, 6],
        spelling=["@", "einsum", "dot_general", "swapped", "tensordot"],
        bias=[True, False],
    ),
    weight=3,
)
def dense(net: Building, v: Value, features, spelling, bias):
    w = net.weight("kernel", (v.size("c"), features), 1 / math.sqrt(v.size("c")))
    return _dense(net, v, w, features, spelling, bias)


def _dense(net: Building, v: Value, w, features, spelling, bias):
    axis, layout = v.axis("c"), v.layout
    if spelling == "@":
        if axis != len(layout) - 1:
            raise DoesNotFit("channels are not last")
        found, new = v.array @ w, layout
    elif spelling == "einsum":
        found, new = jnp.einsum(f"{layout},cz->{layout.replace('c', 'z')}", v.array, w), layout
    elif spelling == "swapped":  # channels to the second place, by the einsum itself
        new = layout[0] + "c" + layout[1:].replace("c", "")
        found = jnp.einsum(f"{layout},cz->{new.replace('c', 'z')}", v.array, w)
    elif spelling == "dot_general":  # the weights first: channels first
        found, new = lax.dot_general(w, v.array, (((0,), (axis,)), ((), ()))), "c" + layout.replace("c", "")
    else:
        found, new = jnp.tensordot(v.array, w, axes=(axis, 0)), layout.replace("c", "") + "c"
    out = v.to(found, new)
    return out.to(found + shaped(out, "c", net.weight("bias", (features,), 0.2))) if bias else out


@operation("covered", on_any(has_channels, by=["c", "c", "1"]), weight=0.7)
def bias(net: Building, v: Value, by):
    if by == "1":
        return v.to(v.array + 0.1)
    return v.to(v.array + shaped(v, "c", net.weight("bias", (v.size("c"),), 0.3)))


@operation("covered", on_any(has_channels, spelling=["mul", "div", "neg", "scale", "1-x", "sub"]), weight=1)
def affine(net: Building, v: Value, spelling):
    x, w = v.array, shaped(v, "c", net.weight("scale", (v.size("c"),), 0.3, 1.0))
    ways = {"mul": lambda: x * 0.7, "div": lambda: x / 1.3, "neg": lambda: -x, "scale": lambda: x * w}
    return v.to((ways | {"1-x": lambda: 1 - x, "sub": lambda: w - x})[spelling]())


@operation("covered", on_two, weight=3)
def add(net: Building, a: Value, b: Value):
    if a.layout != b.layout or a.array.shape != b.array.shape:
        raise DoesNotFit("forms differ")
    return b.to(a.array + b.array, **union(a, b))


@operation("covered", on_two, weight=0.7)
def subtract(net: Building, a: Value, b: Value):
    if a.layout != b.layout or a.array.shape != b.array.shape:
        raise DoesNotFit("forms differ")
    return b.to(a.array - 0.5 * b.array, **union(a, b))


@operation("covered", on_two, weight=2)
def concatenate(net: Building, a: Value, b: Value):
    if a.layout != b.layout:
        raise DoesNotFit("layouts differ")
    return b.to(jnp.concatenate([a.array, b.array], b.axis("c")), **union(a, b))


# --------------------------------------------------------------------------------------- channel axes


@operation(
    "covered",
    on_any(has_channels, spelling=["split", "slices", "array_split"], then=["swap", "add", "stack", "relu", "first"]),
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


# --------------------------------------------------------------------------------------- along space


@operation("covered", on_map(letter=["h", "w"], shift=[1, 2, -1, 3]), weight=0.7)
def roll(net: Building, v: Value, letter, shift):
    return v.to(jnp.roll(v.array, shift, v.axis(letter)), local=(None, None))


@operation("covered", on_map(letters=["h", "w", "hw"]), weight=0.7)
def flip(net: Building, v: Value, letters):
    return v.to(jnp.flip(v.array, tuple(v.axis(letter) for letter in letters)))


@operation("covered", on_map(rows=[(0, 1, 1), (1, 0, 1), (0, 0, 2), (1, 1, 1)], columns=[(0, 2, 1), (1, 0, 2), (0, 0, 1)]), weight=1)
def crop(net: Building, v: Value, rows, columns):
    index = [slice(None)] * 4
    for letter, (first, last, step) in (("h", rows), ("w", columns)):
        index[v.axis(letter)] = slice(first, v.size(letter) - last, step)
    return v.to(v.array[tuple(index)])


@operation(
    "covered",
    on_map(rows=[(0, 1), (1, 1), (2, 0)], columns=[(0, 2), (1, 1)], mode=["constant", "constant", "reflect", "edge", "wrap"]),
    weight=1,
)
def pad(net: Building, v: Value, rows, columns, mode):
    widths = [(0, 0)] * 4
    widths[v.axis("h")], widths[v.axis("w")] = rows, columns
    local = v.local if mode == "constant" else (None, None)
    return v.to(jnp.pad(v.array, widths, mode=mode), local=local)


@operation("covered", on_map(factor=[2]), weight=0.7)
def pixel_shuffle(net: Building, v: Value, factor):
    x = arranged(v, "nhwc")
    n, h, w, c = x.array.shape
    y = x.array.reshape(n, h, w, factor, factor, c // factor**2).transpose(0, 1, 3, 2, 4, 5)
    found = y.reshape(n, h * factor, w * factor, c // factor**2)
    return arranged(v.to(found, "nhwc", local=(None, None)), v.layout)


@operation("covered", on_map(factor=[2, 3]), weight=0.7)
def space_to_depth(net: Building, v: Value, factor):
    x = arranged(v, "nhwc")
    n, h, w, c = x.array.shape
    y = x.array.reshape(n, h // factor, factor, w // factor, factor, c).transpose(0, 1, 3, 2, 4, 5)
    found = y.reshape(n, h // factor, w // factor, factor**2 * c)
    return arranged(v.to(found, "nhwc"), v.layout)


@operation(
    "covered",
    on_map(method=["nearest", "bilinear", "cubic"], factor=[(2, 2), (0.5, 0.5), (1.5, 2), (2, 1), (0.7, 1.3)]),
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


# -------------------------------------------------------------------------------------------- pooling


POOLING = dict(
    window=[(2, 2), (3, 2), (2, 3)], strides=[(2, 2), (1, 1), (2, 1)], padding=["VALID", "SAME"]
)


def windowed(v: Value, window, strides):
    """Window and strides as `reduce_window` takes them, for the axes of a value."""
    sizes, steps = [1] * 4, [1] * 4
    for letter, size, step in zip("hw", window, strides, strict=True):
        sizes[v.axis(letter)], steps[v.axis(letter)] = size, step
    return tuple(sizes), tuple(steps)


@operation("covered", on_map(**POOLING), weight=1)
def max_pool(net: Building, v: Value, window, strides, padding):
    return v.to(lax.reduce_window(v.array, -jnp.inf, lax.max, *windowed(v, window, strides), padding))


@operation("covered", on_map(**POOLING, divides=["number", "count"]), weight=1)
def avg_pool(net: Building, v: Value, window, strides, padding, divides):
    over = windowed(v, window, strides)
    found = lax.reduce_window(v.array, np.zeros((), v.array.dtype), lax.add, *over, padding)
    if divides == "number":
        return v.to(found / math.prod(window))
    ones = jnp.ones([n if letter in "hw" else 1 for letter, n in zip(v.layout, v.array.shape, strict=True)], v.array.dtype)
    return v.to(found / lax.reduce_window(ones, np.zeros((), v.array.dtype), lax.add, *over, padding))


@operation("covered", on_map(spelling=["reshape", "slices", "adaptive"]), weight=1.5)
def mean_of_blocks(net: Building, v: Value, spelling):
    """Average pooling by two, without `reduce_window`."""
    x = v.array
    for letter in "hw":
        axis, size = v.axis(letter), v.size(letter) // 2 * 2
        x = lax.slice_in_dim(x, 0, size, axis=axis)
        if spelling == "reshape":
            x = x.reshape(*x.shape[:axis], size // 2, 2, *x.shape[axis + 1 :]).mean(axis + 1)
        elif spelling == "slices":
            x = 0.5 * (lax.slice_in_dim(x, 0, size, 2, axis) + lax.slice_in_dim(x, 1, size, 2, axis))
        else:
            parts = [lax.slice_in_dim(x, i, i + 2, axis=axis).mean(axis) for i in range(0, size, 2)]
            x = jnp.stack(parts, axis)
    return v.to(x, local=v.local if spelling == "slices" else (None, None))


@operation("flexible", on_map(spelling=["reshape", "slices", "stack"]), weight=1.5)
def max_of_blocks(net: Building, v: Value, spelling):
    """Max pooling by two, without `reduce_window`."""
    x = v.array
    for letter in "hw":
        axis, size = v.axis(letter), v.size(letter) // 2 * 2
        x = lax.slice_in_dim(x, 0, size, axis=axis)
        if spelling == "reshape":
            x = x.reshape(*x.shape[:axis], size // 2, 2, *x.shape[axis + 1 :]).max(axis + 1)
            continue
        a, b = lax.slice_in_dim(x, 0, size, 2, axis), lax.slice_in_dim(x, 1, size, 2, axis)
        x = jnp.maximum(a, b) if spelling == "slices" else jnp.stack([a, b]).max(0)
    return v.to(x, local=v.local if spelling == "slices" else (None, None))


# ----------------------------------------------------------------------- positions as tokens, and windows


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
    return v.to(v.array.reshape(*shape[:axis], height, width, *shape[axis + 1 :]), v.layout.replace("p", "hw"))


@operation("covered", on_map(swaps=[True, False], then=["dense", "relu", "both"], features=[2, 3, 5]), weight=1.5)
def token_detour(net: Building, v: Value, swaps, then, features):
    """Rows and columns merged, tokens treated, and apart again."""
    tokens = to_tokens(v)
    if swaps:
        tokens = arranged(tokens, "ncp" if tokens.layout == "npc" else "npc")
    if then != "relu":
        w = net.weight("kernel", (v.size("c"), features), 1 / math.sqrt(v.size("c")))
        tokens = net.mark(_dense(net, tokens, w, features, "einsum", False))
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
    found = net.mark(_dense(net, with_class, w, features, "@", False))
    back = found.to(found.array[:, 1:], "npc")
    return from_tokens(back, v.size("h"), v.size("w"))


@operation("covered", on_map(window=[(2, 2), (3, 2), (2, 4)], then=["dense", "relu"], keeps=[True, False]), weight=1)
def windows(net: Building, v: Value, window, then, keeps):
    """Windows merged into the batch (Swin), and back."""
    x = arranged(v, "nhwc")
    (n, h, w, c), (a, b) = x.array.shape, window
    if h % a or w % b:
        raise DoesNotFit("windows")
    parts = x.array.reshape(n, h // a, a, w // b, b, c).transpose(0, 1, 3, 2, 4, 5)
    if keeps:
        inside = x.to(parts.reshape(-1, a, b, c), "muzc", local=(None, None))
    else:
        inside = x.to(parts.reshape(-1, a * b, c), "mpc", local=(None, None))
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
    inside = net.mark(x.to(net.relu(flat, "jax.nn.relu"), "bc", local=(None, None)))
    return arranged(x.to(inside.array.reshape(x.array.shape)), v.layout)


@operation("covered", on_any(lambda v: has_channels(v) and not v.mixed), weight=0.3)
def less_the_batch_mean(net: Building, v: Value):
    return v.to(v.array - v.array.mean(v.axis("n"), keepdims=True), mixed=True)


@operation("covered", on_map(), weight=0.5)
def less_the_mean(net: Building, v: Value):
    axes = (v.axis("h"), v.axis("w"))
    return v.to(v.array - v.array.mean(axes, keepdims=True), local=(False, False))


@operation("flexible", on_map(keepdims=[False]), weight=0.2)
def global_max_pool(net: Building, v: Value, keepdims):
    axes = (v.axis("h"), v.axis("w"))
    return v.to(v.array.max(axes), v.layout.replace("h", "").replace("w", ""), local=(False, False))


@operation("covered", on_map(spelling=["mean", "sum", "einsum", "window"]), weight=0.2)
def global_mean_pool(net: Building, v: Value, spelling):
    axes, area = (v.axis("h"), v.axis("w")), v.size("h") * v.size("w")
    layout = v.layout.replace("h", "").replace("w", "")
    if spelling == "window":
        sizes = [n if letter in "hw" else 1 for letter, n in zip(v.layout, v.array.shape, strict=True)]
        zero = np.zeros((), v.array.dtype)
        found = lax.reduce_window(v.array, zero, lax.add, sizes, sizes, "VALID").squeeze(axes) / area
    else:
        ways = {
            "mean": lambda: v.array.mean(axes),
            "sum": lambda: v.array.sum(axes) / area,
            "einsum": lambda: jnp.einsum(f"{v.layout}->{layout}", v.array) / area,
        }
        found = ways[spelling]()
    return v.to(found, layout, local=(False, False))


# ---------------------------------------------------------------------------------------------- heads


@operation("head", on_any(lambda v: "n" in v.layout and has_channels(v), how=["mean", "mean", "sum", "flat"]))
def head(net: Building, v: Value, how):
    """Logits: pooled over what is no image and no channel, then dense."""
    order = "n" + v.layout.replace("n", "").replace("c", "") + "c"
    x = arranged(v, order).array
    middle = tuple(range(1, x.ndim - 1))
    if how == "flat":
        x = x.reshape(x.shape[0], -1)
    elif middle:
        num_positions = math.prod(x.shape[1:-1])
        x = x.mean(middle) if how == "mean" else x.sum(middle) / num_positions
    logits = x @ net.weight("kernel", (x.shape[-1], 5), 1 / math.sqrt(x.shape[-1]))
    return v.to(logits + net.weight("bias", (5,), 0.1), "nc", local=(False, False))
