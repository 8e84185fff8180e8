"""The layers of random networks: convolutions, dense layers, additions, poolings, heads."""

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
    on_two,
    shaped,
    union,
)
from tests.transforms.network_graph import Building, DoesNotFit, Value, operation


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
    found = net.conv(v.array, w, strides, padding, dilation, (v.layout.upper(), "HWIO", out.upper()), groups)
    new = v.to(found, out)
    return new.to(found + shaped(new, "c", net.weight("bias", (features,), 0.2))) if bias else new


@operation(
    "covered",
    on_map(
        features=[2, 3, 4],
        kernel=[(2, 2), (3, 3), (3, 2)],
        strides=[(2, 2), (2, 1)],
        spelling=["lax", "dilated"],
    ),
    weight=0.8,
)
def conv_transposed(net: Building, v: Value, features, kernel, strides, spelling):
    if not v.is_map:
        raise DoesNotFit("no map")
    w = net.weight("kernel", (*kernel, v.size("c"), features))
    numbers = (v.layout.upper(), "HWIO", v.layout.upper())
    if spelling == "lax":
        return v.to(
            lax.conv_transpose(v.array, w, strides, "SAME", dimension_numbers=numbers), local=(None, None)
        )
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
    return dense_layer(net, v, w, features, spelling, bias)


def dense_layer(net: Building, v: Value, w, features, spelling, bias):
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


POOLING = {
    "window": [(2, 2), (3, 2), (2, 3)],
    "strides": [(2, 2), (1, 1), (2, 1)],
    "padding": ["VALID", "SAME"],
}


def windowed(v: Value, window, strides):
    """Window and strides as `reduce_window` takes them, for the axes of a value."""
    sizes, steps = [1] * 4, [1] * 4
    for letter, size, step in zip("hw", window, strides, strict=True):
        sizes[v.axis(letter)], steps[v.axis(letter)] = size, step
    return tuple(sizes), tuple(steps)


def shares_by_loops(size, num_positions, window, stride, lead, dilation=1):
    """What RESAMPLED_POOL gives pixel i of the signal of position o, one by one; (pixels, positions)."""
    taps = [[o * stride - lead + k * dilation for k in range(window)] for o in range(num_positions)]
    seen = [[i for i in places if 0 <= i < size] for places in taps]
    first, last = min(min(s) for s in seen if s), max(max(s) for s in seen if s)
    weights = np.zeros((size, num_positions))
    for i in range(first, last + 1):
        at = (i + lead - (window - 1) * dilation / 2) / stride  # in positions
        at = min(max(at, 0), num_positions - 1)
        for o in range(num_positions):
            weights[i, o] = max(0, 1 - abs(at - o))
    return weights / weights.sum(0)


def pooled(net: Building, v: Value, fn, window, strides, padding, fraction=None):
    """A pooling; in the mode "pooled" with the derivative of RESAMPLED_POOL.

    `fraction` of ones is what a position of an average sends back in all; that of a maximum is 1.
    """
    out = jax.eval_shape(fn, v.array).shape
    axes = [v.axis(letter) for letter in "hw"]
    if "pooled" not in net.mode or all(out[a] == 1 for a in axes):
        return v.to(fn(v.array))
    sizes = [v.array.shape[a] for a in axes]
    pads = lax.padtype_to_pads(sizes, window, strides, padding)
    weights = [
        jnp.asarray(shares_by_loops(n, out[a], k, s, lead), jnp.float32)
        for n, a, k, s, (lead, _) in zip(sizes, axes, window, strides, pads, strict=True)
    ]

    def backward(_, g):
        sent = jnp.moveaxis(g.astype(jnp.float32), axes, (0, 1))
        if fraction is not None:
            ones = jnp.ones(v.array.shape, v.array.dtype)
            sent *= jnp.moveaxis(fraction(ones).astype(jnp.float32), axes, (0, 1))
        sent = jnp.einsum("op...,io,jp->ij...", sent, *weights, precision="highest")
        return (jnp.moveaxis(sent, (0, 1), axes).astype(v.array.dtype),)

    ruled = jax.custom_vjp(fn)
    ruled.defvjp(lambda x: (fn(x), None), backward)
    return v.to(ruled(v.array))


@operation("covered", on_map(**POOLING), weight=1)
def max_pool(net: Building, v: Value, window, strides, padding):
    if v.moved:
        raise DoesNotFit("what was rows may be features now, whose maximum is no pooling")
    over = windowed(v, window, strides)
    fn = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *over, padding)  # noqa: E731
    return pooled(net, v, fn, window, strides, padding)


@operation("covered", on_map(**POOLING, divides=["number", "count"]), weight=1)
def avg_pool(net: Building, v: Value, window, strides, padding, divides):
    over = windowed(v, window, strides)

    def summed(x):
        return lax.reduce_window(x, np.zeros((), x.dtype), lax.add, *over, padding)

    def fn(x):
        if divides == "number":
            return summed(x) / math.prod(window)
        shape = [n if letter in "hw" else 1 for letter, n in zip(v.layout, x.shape, strict=True)]
        return summed(x) / summed(jnp.ones(shape, x.dtype))

    return pooled(net, v, fn, window, strides, padding, fn)


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
