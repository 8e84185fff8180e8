"""ReLUs and ReLU6s in many spellings, and the references of the rules, whose derivatives are written down."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


@functools.cache
def ruled_relu(mode: str, upper: float | None):
    """The reference of a rule: a ReLU (or, with `upper`, a ReLU6) whose derivative is written down."""

    @jax.custom_vjp
    def relu(x):
        return jnp.clip(x, 0, upper)

    def backward(x, g):
        passes = g > 0
        if mode == "guided":
            passes &= x > 0
            passes &= True if upper is None else x < upper
        return (jnp.where(passes, g, jnp.zeros_like(g)),)

    relu.defvjp(lambda x: (relu(x), x), backward)
    return relu


def guided_between(low: float, high: float, slope: float, fn):
    """The reference for what is linear between two bounds: the gradient there, of what is positive."""
    guided = jax.custom_vjp(lambda x: fn(x))

    def backward(x, g):
        return (jnp.where((x > low) & (x < high) & (g > 0), slope * g, 0).astype(g.dtype),)

    guided.defvjp(lambda x: (fn(x), x), backward)
    return guided


@jax.custom_jvp
def _own_relu(x):
    return jnp.maximum(x, 0)


_own_relu.defjvp(lambda xs, ts: (_own_relu(*xs), ts[0] * (xs[0] > 0)))


@jax.custom_jvp
def _own_where(x):
    return jnp.where(x > 0, x, 0)


_own_where.defjvp(lambda xs, ts: (_own_where(*xs), jnp.where(xs[0] > 0, ts[0], 0)))


@jax.custom_vjp
def _own_vjp_relu(x):
    return jnp.maximum(x, 0)


_own_vjp_relu.defvjp(lambda x: (_own_vjp_relu(x), x), lambda x, g: (g * (x > 0),))

RELUS = {
    "jax.nn.relu": jax.nn.relu,
    "maximum(x, 0)": lambda x: jnp.maximum(x, 0),
    "maximum(0, x)": lambda x: jnp.maximum(0, x),
    "maximum(x, 0.)": lambda x: jnp.maximum(x, 0.0),
    "lax.max(x, 0)": lambda x: lax.max(x, jnp.zeros((), x.dtype)),
    "where(x > 0, x, 0)": lambda x: jnp.where(x > 0, x, 0),
    "where(x >= 0, x, 0)": lambda x: jnp.where(x >= 0, x, 0),
    "where(x <= 0, 0, x)": lambda x: jnp.where(x <= 0, 0, x),
    "where(x < 0, 0, x)": lambda x: jnp.where(x < 0, 0, x),
    "where(0 < x, x, 0)": lambda x: jnp.where(jnp.less(0, x), x, 0),
    "where(x > 0, x, zeros_like)": lambda x: jnp.where(x > 0, x, jnp.zeros_like(x)),
    "select": lambda x: lax.select(x > 0, x, jnp.zeros_like(x)),
    "(x + abs(x)) / 2": lambda x: (x + jnp.abs(x)) / 2,
    "0.5 * (abs(x) + x)": lambda x: 0.5 * (jnp.abs(x) + x),
    "-minimum(-x, 0)": lambda x: -jnp.minimum(-x, 0),
    "maximum(x, zeros_like)": lambda x: jnp.maximum(x, jnp.zeros_like(x)),
    "maximum(x, zeros(C))": lambda x: jnp.maximum(x, jnp.zeros(x.shape[-1], x.dtype)),
    "clip(x, 0, None)": lambda x: jnp.clip(x, 0, None),
    "clip(x, min=0)": lambda x: jnp.clip(x, min=0),
    "clamp(0, x, inf)": lambda x: lax.clamp(jnp.zeros((), x.dtype), x, jnp.full((), jnp.inf, x.dtype)),
    "jit(maximum)": jax.jit(lambda x: jnp.maximum(x, 0)),
    "custom_jvp(maximum)": _own_relu,
    "custom_jvp(where)": _own_where,
    "custom_vjp(maximum)": _own_vjp_relu,
    "x * (x > 0)": lambda x: x * (x > 0),
    "x - minimum(x, 0)": lambda x: x - jnp.minimum(x, 0),
    "stack([x, 0 * x]).max(0)": lambda x: jnp.stack([x, 0 * x]).max(0),
    "x * heaviside(x)": lambda x: x * jnp.heaviside(x, 0),
    "where(x > 0, 1, 0) * x": lambda x: jnp.where(x > 0, 1, 0).astype(x.dtype) * x,
}

# A rule may refuse these, or know them; with on_uncovered="gradient" it may keep their derivative.
MAY_BE_REFUSED = {
    "x * (x > 0)",
    "x - minimum(x, 0)",
    "stack([x, 0 * x]).max(0)",
    "x * heaviside(x)",
    "where(x > 0, 1, 0) * x",
    "clamp(0, x, inf)",
    "custom_vjp(maximum)",
    "may",
}

RELU6S = {
    "jax.nn.relu6": jax.nn.relu6,
    "clip(x, 0, 6)": lambda x: jnp.clip(x, 0, 6),
    "minimum(maximum(x, 0), 6)": lambda x: jnp.minimum(jnp.maximum(x, 0), 6),
    "maximum(minimum(x, 6), 0)": lambda x: jnp.maximum(jnp.minimum(x, 6), 0),
    "minimum(relu(x), 6)": lambda x: jnp.minimum(jax.nn.relu(x), 6),
    "clamp(0, x, 6)": lambda x: lax.clamp(jnp.zeros((), x.dtype), x, jnp.full((), 6, x.dtype)),
}
RELUS["may"] = RELUS["maximum(x, 0)"]
RELU6S["may"] = RELU6S["clip(x, 0, 6)"]
