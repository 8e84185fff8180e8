"""The normalizations of random networks, in the spellings of several frameworks."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.transforms.network_choices import arranged, has_channels, on_any, on_map, shaped
from tests.transforms.network_graph import Building, DoesNotFit, Value, operation

EPSILON = 0.05


def _scale_and_shift(net: Building, v: Value, size: int | None = None):
    size = v.size("c") if size is None else size
    return net.weight("scale", (size,), 0.2, 1.0), net.weight("shift", (size,), 0.2)


@operation("covered", on_any(has_channels, spelling=["flax", "torch", "folded", "keras", "div"]), weight=3)
def batch_norm(net: Building, v: Value, spelling):
    """With stored statistics: linear in the images."""
    c = v.size("c")
    scale, shift = (shaped(v, "c", t) for t in _scale_and_shift(net, v))
    mean = shaped(v, "c", net.weight("mean", (c,), 0.3))
    var = shaped(v, "c", abs(net.weight("var", (c,), 0.2, 1.0)))
    x, std = v.array, jnp.sqrt(var + EPSILON)
    ways = {
        "flax": lambda: (x - mean) * (lax.rsqrt(var + EPSILON) * scale) + shift,
        "torch": lambda: (x - mean) / std * scale + shift,
        "folded": lambda: x * (scale / std) + (shift - mean * scale / std),
        "keras": lambda: (
            x * (lax.rsqrt(var + EPSILON) * scale) + (shift - mean * (lax.rsqrt(var + EPSILON) * scale))
        ),
        "div": lambda: (x - mean) / std,
    }
    return v.to(ways[spelling]())


NORMS = [
    "torch",
    "flax",
    "keras",
    "rsqrt",
    "var",
    "equinox",
    "no affine",
    "max guard",
    "haiku",
    "half affine",
]


def normalized(net: Building, x, axes, spelling: str, scale, shift):
    """x less its mean over some axes, over its deviation, scaled and shifted; as frameworks write it."""
    mean = x.mean(axes, keepdims=True)
    if spelling == "flax":  # the fast variance, kept from being negative
        var = jnp.maximum(0.0, lax.square(x).mean(axes, keepdims=True) - lax.square(mean)).astype(x.dtype)
        return (x - mean) * (lax.rsqrt(var + EPSILON) * scale) + shift
    if spelling == "max guard":
        var = ((x - mean) ** 2).mean(axes, keepdims=True)
        return (x - mean) / jnp.sqrt(jnp.maximum(var, EPSILON)) * scale + shift
    if spelling == "equinox":
        var = jnp.maximum(0.0, x.var(axes, keepdims=True)).astype(x.dtype)
        return (x - mean) * lax.rsqrt(var + EPSILON) * scale + shift
    var = x.var(axes, keepdims=True)
    inverse = lax.rsqrt(var + EPSILON)
    ways = {
        "torch": lambda: (x - mean) / jnp.sqrt(var + EPSILON) * scale + shift,
        "keras": lambda: x * (scale * inverse) + (shift - mean * (scale * inverse)),
        "rsqrt": lambda: (x - mean) * inverse * scale + shift,
        "var": lambda: scale * (x - mean) * (var + EPSILON) ** -0.5 + shift,
        "no affine": lambda: jax.nn.standardize(x, axes, epsilon=EPSILON),
        "haiku": lambda: scale * inverse * (x - mean) + shift,
        "half affine": lambda: (x - mean) * inverse * scale,
    }
    return ways[spelling]()


@operation("covered", on_any(has_channels, spelling=NORMS), weight=3)
def layer_norm(net: Building, v: Value, spelling):
    if v.size("c") < 2:
        raise DoesNotFit("one channel")
    scale, shift = (shaped(v, "c", t) for t in _scale_and_shift(net, v))
    return v.to(normalized(net, v.array, v.axis("c"), spelling, scale, shift))


@operation("covered", on_map(spelling=NORMS, over=["hw", "hwc"]), weight=1.5)
def instance_norm(net: Building, v: Value, spelling, over):
    """Over the positions of each image, or over positions and channels."""
    scale, shift = (shaped(v, "c", t) for t in _scale_and_shift(net, v))
    axes = tuple(sorted(v.axis(letter) for letter in over))
    return v.to(normalized(net, v.array, axes, spelling, scale, shift), local=(False, False))


@operation("covered", on_map(spelling=NORMS, groups=[2, 3]), weight=1.5)
def group_norm(net: Building, v: Value, spelling, groups):
    c = v.size("c")
    if c % groups:
        raise DoesNotFit("groups")
    x = arranged(v, "nhwc")
    shape = x.array.shape
    parts = x.array.reshape(*shape[:3], groups, c // groups)
    one = jnp.ones((), x.array.dtype)
    found = normalized(net, parts, (1, 2, 4), spelling, one, 0 * one).reshape(shape)
    scale, shift = _scale_and_shift(net, v)
    return arranged(x.to(found * scale + shift, local=(False, False)), v.layout)


@operation(
    "covered",
    on_any(lambda v: has_channels(v) and v.layout[0] == "n", spelling=["flax", "torch"]),
    weight=0.3,
)
def batch_norm_in_training(net: Building, v: Value, spelling):
    """With the statistics of this batch: its images are mixed."""
    scale, shift = (shaped(v, "c", t) for t in _scale_and_shift(net, v))
    axes = tuple(i for i, letter in enumerate(v.layout) if letter != "c")
    return v.to(normalized(net, v.array, axes, spelling, scale, shift), local=(False, False), mixed=True)


@operation("covered", on_any(has_channels, spelling=["rsqrt", "sqrt", "llama", "scaled"]), weight=1)
def rms_norm(net: Building, v: Value, spelling):
    axis, x = v.axis("c"), v.array
    scale = shaped(v, "c", net.weight("scale", (v.size("c"),), 0.2, 1.0))
    mean = jnp.square(x).mean(axis, keepdims=True)
    ways = {
        "rsqrt": lambda: x * lax.rsqrt(mean + EPSILON) * scale,
        "sqrt": lambda: x / jnp.sqrt(mean + EPSILON) * scale,
        "llama": lambda: scale * (x * lax.rsqrt((x * x).mean(axis, keepdims=True) + EPSILON)),
        "scaled": lambda: x * (lax.rsqrt(mean + EPSILON) * scale),
    }
    return v.to(ways[spelling]())


@operation("flexible", on_any(has_channels, spelling=["norm", "maximum", "add"]), weight=0.6)
def unit_length(net: Building, v: Value, spelling):
    """x divided by its length."""
    axis, x = v.axis("c"), v.array
    length = jnp.sqrt(jnp.square(x).sum(axis, keepdims=True) + 1e-3)
    ways = {
        "norm": lambda: x / length,
        "maximum": lambda: x / jnp.maximum(length, 0.1),
        "add": lambda: x / (length + 0.1),
    }
    return v.to(ways[spelling]())


@operation("covered", on_map(spelling=["window", "slices", "power"], neighbors=[3]), weight=1)
def local_response_norm(net: Building, v: Value, spelling, neighbors):
    axis, x = v.axis("c"), v.array
    if v.size("c") < 2:
        raise DoesNotFit("one channel")
    half = neighbors // 2
    if spelling == "slices":
        widths = [(half, half) if i == axis else (0, 0) for i in range(x.ndim)]
        padded = jnp.pad(x * x, widths)
        total = sum(lax.slice_in_dim(padded, i, i + x.shape[axis], axis=axis) for i in range(neighbors))
    else:
        sizes = tuple(neighbors if i == axis else 1 for i in range(x.ndim))
        zero = np.zeros((), x.dtype)
        total = lax.reduce_window(jnp.square(x), zero, lax.add, sizes, (1,) * x.ndim, "SAME")
    if spelling == "power":
        return v.to(x * (1 + 0.5 * total) ** -0.75)
    return v.to(x / (1 + 0.5 * total) ** 0.75)
