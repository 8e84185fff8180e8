"""The activation functions of random networks: ReLUs, and what a rule for them must refuse."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from tests.transforms.network_choices import has_channels, on_any, on_map, on_two, shaped, union
from tests.transforms.network_graph import Building, DoesNotFit, Value, operation
from tests.transforms.relu_spellings import MAY_BE_REFUSED, RELU6S, RELUS

_SPELLINGS = [s for s in RELUS if s not in MAY_BE_REFUSED]


@operation("covered", on_any(spelling=["jax.nn.relu"] * 4 + _SPELLINGS), weight=9)
def relu(net: Building, v: Value, spelling):
    if spelling == "maximum(x, zeros(C))" and v.layout[-1] != "c":
        raise DoesNotFit("channels are not last")
    return v.to(net.relu(v.array, spelling))


@operation("covered", on_any(spelling=[s for s in RELU6S if s != "may"]), weight=0.8)
def relu6(net: Building, v: Value, spelling):
    return v.to(net.relu(4 * v.array, spelling, upper=6.0))


@operation("flexible", on_any(spelling=sorted(MAY_BE_REFUSED - {"may"})), weight=2)
def relu_in_disguise(net: Building, v: Value, spelling):
    return v.to(net.relu(v.array, spelling))


CLIPPED = {
    "clip(x, -1, 1)": (lambda x: jnp.clip(x, -1, 1), -1, 1, 1),
    "maximum(minimum(x, 1), -1)": (lambda x: jnp.maximum(jnp.minimum(x, 1), -1), -1, 1, 1),
    "hard_tanh": (jax.nn.hard_tanh, -1, 1, 1),
    "hard_sigmoid": (jax.nn.hard_sigmoid, -3, 3, 1 / 6),
    "clip(x / 5 + 0.5, 0, 1)": (lambda x: jnp.clip(x / 5 + 0.5, 0, 1), -2.5, 2.5, 1 / 5),
}


@operation("flexible", on_any(function=list(CLIPPED)), weight=1)
def clipped(net: Building, v: Value, function):
    """What is cut on both sides: guided as what it is, or refused."""
    return v.to(net.clipped(v.array, *CLIPPED[function]))


# ------------------------------------------------------------------------------- what must be refused


def _prelu(x):
    return jnp.maximum(x, 0) + 0.25 * jnp.minimum(x, 0)


@jax.custom_vjp
def _behind_a_callback(x):
    return jax.pure_callback(lambda x: x.clip(0), jax.ShapeDtypeStruct(x.shape, x.dtype), x)


_behind_a_callback.defvjp(lambda x: (_behind_a_callback(x), x), lambda x, g: (g * (x > 0),))


@jax.custom_jvp
def _own_swish(x):
    return x * jax.nn.sigmoid(x)


_own_swish.defjvp(lambda xs, ts: (_own_swish(*xs), ts[0] * jax.nn.sigmoid(xs[0])))


@jax.custom_vjp
def _straight_through(x):
    return jnp.round(2 * x) / 2


_straight_through.defvjp(lambda x: (_straight_through(x), None), lambda _, g: (g,))

_SQRT2 = math.sqrt(2)
ELEMENTWISE = {
    "gelu": jax.nn.gelu,
    "gelu exact": functools.partial(jax.nn.gelu, approximate=False),
    "gelu by tanh": lambda x: 0.5 * x * (1 + jnp.tanh(0.7978845608 * (x + 0.044715 * x**3))),
    "gelu by erf": lambda x: 0.5 * x * (1 + lax.erf(x / _SQRT2)),
    "x * sigmoid(1.702 x)": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "silu": jax.nn.silu,
    "x * sigmoid(x)": lambda x: x * jax.nn.sigmoid(x),
    "x / (1 + exp(-x))": lambda x: x / (1 + jnp.exp(-x)),
    "custom_jvp(swish)": _own_swish,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "1 / (1 + exp(-x))": lambda x: 1 / (1 + jnp.exp(-x)),
    "elu": jax.nn.elu,
    "elu by where": lambda x: jnp.where(x > 0, x, jnp.expm1(x)),
    "selu": jax.nn.selu,
    "celu": jax.nn.celu,
    "softplus": jax.nn.softplus,
    "log1p(exp(x))": lambda x: jnp.log1p(jnp.exp(x)),
    "leaky_relu": jax.nn.leaky_relu,
    "maximum(x, 0.1 x)": lambda x: jnp.maximum(x, 0.1 * x),
    "where(x > 0, x, 0.1 x)": lambda x: jnp.where(x > 0, x, 0.1 * x),
    "hard_swish": jax.nn.hard_swish,
    "mish": jax.nn.mish,
    "x * tanh(softplus(x))": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "abs": jnp.abs,
    "sin": jnp.sin,
    "sin(x)^2 + x": lambda x: x + jnp.sin(x) ** 2,
    "x * x": lambda x: x * x,
    "square": jnp.square,
    "x ** 3": lambda x: x**3,
    "abs(x) ** 1.5": lambda x: jnp.abs(x) ** 1.5,
    "exp(-x * x)": lambda x: jnp.exp(-x * x),
    "sinh": lambda x: jnp.sinh(x / 4),
    "tan": lambda x: jnp.tan(x / 8),
    "asinh": jnp.arcsinh,
    "atan": jnp.arctan,
    "cos": jnp.cos,
    "erf": lax.erf,
    "erf_inv": lambda x: lax.erf_inv(jnp.tanh(x) / 2),
    "lgamma": lambda x: lax.lgamma(jnp.square(x) + 1),
    "bessel_i0e": lambda x: lax.bessel_i0e(x),
    "atan2": lambda x: jnp.arctan2(x, 1.0),
    "log1p": lambda x: jnp.log1p(jnp.square(x)),
    "cbrt": lambda x: jnp.cbrt(x),
    "sqrt(x * x + 1)": lambda x: jnp.sqrt(x * x + 1),
    "1 / (1 + x * x)": lambda x: 1 / (1 + x * x),
    "1 / (x + 9)": lambda x: 1 / (x + 9),
    "x / (x + 9)": lambda x: x / (x + 9),
    "x / (1 + abs(x))": lambda x: x / (1 + jnp.abs(x)),
    "soft_sign": jax.nn.soft_sign,
    "minimum(x, 1)": lambda x: jnp.minimum(x, 1),
    "maximum(x, 0.3)": lambda x: jnp.maximum(x, 0.3),
    "where(x > 0.3, x, 0)": lambda x: jnp.where(x > 0.3, x, 0),
    "where(abs(x) > 0.3, x, 0)": lambda x: jnp.where(jnp.abs(x) > 0.3, x, 0),
    "sign(x) * sqrt(abs(x) + 1)": lambda x: jnp.sign(x) * jnp.sqrt(jnp.abs(x) + 1),
    "x + sign(x)": lambda x: x + jnp.sign(x),
    "x + floor(x)": lambda x: x + jnp.floor(x),
    "straight through": _straight_through,
    "prelu": _prelu,
    "where(x > 0, 2 x, x)": lambda x: jnp.where(x > 0, 2 * x, x),
    "behind a callback": _behind_a_callback,
    "remainder": lambda x: jnp.remainder(x, 2.0),
    "logaddexp(x, 1)": lambda x: jnp.logaddexp(x, 1.0),
    "2 ** x": lambda x: jnp.exp2(x / 4),
    "hypot": lambda x: jnp.sqrt(x * x + jnp.square(x - 1)),
    "x * (x > 0.5)": lambda x: x * (x > 0.5),
    "x * abs(x)": lambda x: x * jnp.abs(x),
    "where(x > 0, 1, 0)": lambda x: jnp.where(x > 0, 1.0, 0.0).astype(x.dtype) + 0.1 * x,
    "x + heaviside(x)": lambda x: x + jnp.heaviside(x, 0.5),
    "relu(x) * sign": lambda x: jnp.where(x > 0, x, -x),
    "where(x > 0, x + 1, 0)": lambda x: jnp.where(x > 0, x + 1, 0),
    "where(x < 0, x, 0)": lambda x: jnp.where(x < 0, x, 0),
    "minimum(x, 0)": lambda x: jnp.minimum(x, 0),
    "nan_to_num of log": lambda x: jnp.log(jnp.abs(x) + 0.5),
    "polynomial": lambda x: x + 0.2 * x * x - 0.1 * x**3,
}

# A ReLU that is part of another activation function: a rule may see it or take the whole.
_COMPOSED = {
    "squared relu": lambda net, x: jnp.square(net.relu(x, "may")),
    "hard swish by hand": lambda net, x: x * net.relu(x + 3, "may", upper=6.0) / 6,
    "softplus by hand": lambda net, x: net.relu(x, "may") + jnp.log1p(jnp.exp(-jnp.abs(x))),
    "elu by relu": lambda net, x: net.relu(x, "may") - net.relu(1 - jnp.exp(x), "may"),
    "relu ** 1.5": lambda net, x: (net.relu(x, "may") + 0.01) ** 1.5,
    "sqrt of relu": lambda net, x: jnp.sqrt(net.relu(x, "may") + 0.1),
    "log of relu": lambda net, x: jnp.log(net.relu(x, "may") + 1),
    "1 / (1 + relu)": lambda net, x: 1 / (1 + net.relu(x, "may")),
    "maximum(x, 0) - 0.1 maximum(-x, 0)": lambda net, x: net.relu(x, "may") - 0.1 * net.relu(-x, "may"),
}


@operation("uncovered", on_any(function=list(ELEMENTWISE)), weight=8)
def elementwise(net: Building, v: Value, function):
    moved = v.moved or function == "behind a callback"
    return v.to(net.nonlinear(ELEMENTWISE[function], v.array), moved=moved)


# The last of them is made of ReLUs alone: a rule that treats both is right.
@operation("uncovered", on_any(function=list(_COMPOSED)[:-1]), weight=1.5)
def composed(net: Building, v: Value, function):
    return v.to(net.nonlinear(lambda x: _COMPOSED[function](net, x), v.array))


@operation("flexible", on_any(function=list(_COMPOSED)[-1:]), weight=0.2)
def two_relus(net: Building, v: Value, function):
    return v.to(_COMPOSED[function](net, v.array))


@operation(
    "uncovered",
    on_any(
        lambda v: has_channels(v) and v.size("c") >= 2,
        function=["max", "min", "sort", "cummax", "top_k", "prod", "argmax", "median", "logcumsumexp"],
    ),
    weight=2,
)
def over_channels(net: Building, v: Value, function):
    """What picks from, or multiplies, the channels of a position."""
    axis = v.axis("c")

    def fn(x):
        if function in ("sort", "cummax", "logcumsumexp"):
            ways = {"sort": jnp.sort, "cummax": lax.cummax, "logcumsumexp": lax.cumlogsumexp}
            return ways[function](x, axis=axis)
        last = jnp.moveaxis(x, axis, -1)
        if function == "top_k":
            return jnp.moveaxis(lax.top_k(last, 2)[0], -1, axis)
        if function == "argmax":
            chosen = jax.nn.one_hot(last.argmax(-1), last.shape[-1], dtype=x.dtype)
            return jnp.moveaxis(chosen * last, -1, axis)
        ways = {"max": jnp.max, "min": jnp.min, "prod": jnp.prod, "median": jnp.median}
        return ways[function](x, axis, keepdims=True)

    def linear(x):
        if function in ("sort", "cummax", "logcumsumexp", "argmax"):
            return x
        if function == "top_k":
            return lax.slice_in_dim(x, 0, 2, axis=axis)
        return x.mean(axis, keepdims=True)

    return v.to(net.nonlinear(fn, v.array, linear))


@operation("uncovered", on_any(lambda v: has_channels(v) and v.size("c") % 2 == 0), weight=0.6)
def maxout(net: Building, v: Value):
    """The larger one of two channels."""
    axis, shape = v.axis("c"), v.array.shape
    pairs = v.array.reshape(*shape[:axis], shape[axis] // 2, 2, *shape[axis + 1 :])
    return v.to(net.nonlinear(lambda x: x.max(axis + 1), pairs, lambda x: x.mean(axis + 1)))


@operation("uncovered", on_two, weight=1)
def larger(net: Building, a: Value, b: Value):
    """The larger one of two activations."""
    if a.layout != b.layout or a.array.shape != b.array.shape:
        raise DoesNotFit("forms differ")
    found = jnp.maximum(a.array, b.array) if net.mode != "linear" else a.array + b.array
    return b.to(found, **union(a, b))


@operation("uncovered", on_two, weight=0.6)
def chosen(net: Building, a: Value, b: Value):
    """One of two activations, by the sign of one."""
    if a.layout != b.layout or a.array.shape != b.array.shape:
        raise DoesNotFit("forms differ")
    found = jnp.where(a.array > 0.1, b.array, 0.5 * a.array) if net.mode != "linear" else a.array + b.array
    return b.to(found, **union(a, b))


@operation(
    "uncovered",
    on_map(
        function=[
            "energy",
            "variance",
            "norm",
            "prototype",
            "square",
            "deviation",
            "mean square",
            "max of squares",
        ]
    ),
    weight=3,
)
def relu_of_energy(net: Building, v: Value, function):
    """A ReLU after a square, a norm or a variance, which is no guard of a normalization."""
    x = v.array
    axes, c = (v.axis("h"), v.axis("w")), v.axis("c")
    prototype = shaped(v, "c", net.weight("prototype", (v.size("c"),), 0.5))

    def square(x):
        return net.nonlinear(lambda x: x * x, x)

    def root(x):
        return net.nonlinear(lambda x: jnp.sqrt(x + 1e-3), x)

    ways = {
        "energy": lambda: square(x).mean(axes, keepdims=True) - 0.05,
        "variance": lambda: square(x - x.mean(axes, keepdims=True)).mean(axes, keepdims=True) - 0.05,
        "norm": lambda: root(square(x).sum(c, keepdims=True)) - 0.3,
        "prototype": lambda: 1 - square(x - prototype).sum(c, keepdims=True),
        "square": lambda: x - square(x - prototype),
        "deviation": lambda: root(square(x - x.mean(axes, keepdims=True)).mean(axes, keepdims=True)) - 0.1,
        "mean square": lambda: square(x).mean(axes, keepdims=True) - square(x.mean(axes, keepdims=True)),
        "max of squares": lambda: square(x).mean(c, keepdims=True),
    }
    whole = function in ("energy", "variance", "deviation", "mean square")
    found = net.relu(ways[function](), "maximum(x, 0)")
    found = jnp.broadcast_to(found, x.shape) if whole else found
    return v.to(found, local=(False, False), moved=True) if whole else v.to(found)
