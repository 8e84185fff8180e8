"""Evaluates traced programs equation by equation, in NumPy where that is quick, and compiles nothing.

XLA compiles a network of a fuzz run for as long as it takes to check it in all other ways. Two programs that
compute the same steps give the same bits here; calls and loops are looked into, so that a program that was
taken apart is compared with one that was not.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat", "named_call")
_CALLS += ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin")


def evaluate(closed: Any, args: Sequence[Any]) -> list[Any]:
    """The outputs of a `ClosedJaxpr`, as NumPy arrays."""
    return _run(closed.jaxpr, closed.consts, [_plain(a) for a in args])


def call(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, traced and evaluated here."""
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    leaves = evaluate(closed, jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shape), leaves)


def _plain(x: Any) -> Any:
    if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):
        return x  # a random key
    return np.asarray(x) if isinstance(x, jax.Array | np.ndarray | np.generic | float | int | bool) else x


def _run(jaxpr, consts, args) -> list[Any]:
    env: dict[Any, Any] = {}
    env.update(zip(jaxpr.constvars, map(_plain, consts), strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))

    def read(atom):
        return np.asarray(atom.val, atom.aval.dtype) if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
        outs = _step(eqn, [read(atom) for atom in eqn.invars])
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(eqn, ins) -> Sequence[Any]:
    name, params = eqn.primitive.name, eqn.params
    if name in _CALLS:
        inner = params.get("jaxpr", params.get("call_jaxpr", params.get("fun_jaxpr")))
        return _run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), ins)
    if name == "scan":
        return _scan(eqn, ins)
    if name == "cond":
        branch = params["branches"][int(np.clip(ins[0], 0, len(params["branches"]) - 1))]
        return _run(branch.jaxpr, branch.consts, ins[1:])
    known = _KNOWN.get(name)
    if known is not None:
        try:
            with np.errstate(all="ignore"):
                found = known(params, *ins)
            found = found if eqn.primitive.multiple_results else [found]
            shapes = [var.aval for var in eqn.outvars]
            return [np.asarray(y, v.dtype).reshape(v.shape) for y, v in zip(found, shapes, strict=True)]
        except (TypeError, NotImplementedError):
            pass
    outs = eqn.primitive.bind(*ins, **eqn.primitive.get_bind_params(params))
    return [_plain(o) for o in (outs if eqn.primitive.multiple_results else [outs])]


def _scan(eqn, ins) -> list[Any]:
    # JAX 0.11 no longer says how many inputs are constants: what has an axis more outside is stacked.
    params, body = eqn.params, eqn.params["jaxpr"]
    length = params["length"]
    num_rows = sum(v.aval.ndim > a.ndim for v, a in zip(eqn.invars, body.in_avals, strict=True))
    num_carry = sum(v.aval.ndim == a.ndim for v, a in zip(eqn.outvars, body.out_avals, strict=True))
    num_consts = len(ins) - num_carry - num_rows
    consts, carry, rows = (
        ins[:num_consts],
        ins[num_consts : num_consts + num_carry],
        ins[num_consts + num_carry :],
    )
    order = range(length)[::-1] if params["reverse"] else range(length)
    stacked: list[Any] = [None] * length
    for t in order:
        outs = _run(body.jaxpr, body.consts, [*consts, *carry, *(row[t] for row in rows)])
        carry, stacked[t] = outs[:num_carry], outs[num_carry:]
    return [*carry, *(np.stack(column) for column in zip(*stacked, strict=True))]


# ---------------------------------------------------------------------------------- primitives in NumPy


def _quick(fn):
    return lambda params, *xs: fn(*xs)


def _select_n(params, which, *cases):
    if len(cases) != 2 or which.dtype != bool:
        raise NotImplementedError
    return np.where(which, cases[1], cases[0])


def _broadcast_in_dim(params, x, *_):
    shape = [1] * len(params["shape"])
    for axis, place in enumerate(params["broadcast_dimensions"]):
        shape[place] = x.shape[axis]
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _slice(params, x):
    strides = params["strides"] or (1,) * x.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(a, b, s) for a, b, s in bounds)]


def _pad(params, x, value):
    if any(lead < 0 or trail < 0 for lead, trail, _ in params["padding_config"]):
        raise NotImplementedError
    shape, index = [], []
    for n, (lead, trail, interior) in zip(x.shape, params["padding_config"], strict=True):
        inner = n + interior * max(0, n - 1)
        shape.append(lead + inner + trail)
        index.append(slice(lead, lead + inner, interior + 1))
    found = np.full(shape, value, x.dtype)
    found[tuple(index)] = x
    return found


def _dot_general(params, x, y):
    (xc, yc), (xb, yb) = params["dimension_numbers"]
    x, y = x.astype(np.float32), y.astype(np.float32)
    xf = [a for a in range(x.ndim) if a not in (*xc, *xb)]
    yf = [a for a in range(y.ndim) if a not in (*yc, *yb)]
    batch = [x.shape[a] for a in xb]
    rows, columns = [x.shape[a] for a in xf], [y.shape[a] for a in yf]
    left = x.transpose(*xb, *xf, *xc).reshape(*batch, math.prod(rows), -1)
    right = y.transpose(*yb, *yc, *yf).reshape(*batch, -1, math.prod(columns))
    return (left @ right).reshape(*batch, *rows, *columns)


def _conv(params, x, w):
    """By a product for each tap of the kernel."""
    p = params
    if p["batch_group_count"] != 1 or x.ndim != 4:
        raise NotImplementedError
    x, w = x.astype(np.float32), w.astype(np.float32)
    numbers, groups = p["dimension_numbers"], p["feature_group_count"]
    x, w = x.transpose(numbers.lhs_spec), w.transpose(numbers.rhs_spec)  # NCHW, OIHW
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(p["padding"], p["lhs_dilation"], strict=True)]
    crops = [(min(lo, 0), min(hi, 0)) for lo, hi, _ in config]
    config = [(max(lo, 0), max(hi, 0), d) for lo, hi, d in config]
    x = _pad({"padding_config": [(0, 0, 0), (0, 0, 0), *config]}, x, 0)
    (top, bottom), (left, right) = crops
    x = x[:, :, -top : x.shape[2] + bottom, -left : x.shape[3] + right]
    strides, dilations = p["window_strides"], p["rhs_dilation"]
    taps = w.shape[2:]
    sizes = [
        (n - (k - 1) * d - 1) // s + 1
        for n, k, d, s in zip(x.shape[2:], taps, dilations, strides, strict=True)
    ]
    n, features = x.shape[0], w.shape[0]
    x = x.reshape(n, groups, -1, *x.shape[2:])
    w = w.reshape(groups, features // groups, -1, *taps)
    found = np.zeros((groups, n, *sizes, features // groups), np.float32)
    for i in range(taps[0]):
        for j in range(taps[1]):
            a, b = i * dilations[0], j * dilations[1]
            part = x[
                ...,
                a : a + (sizes[0] - 1) * strides[0] + 1 : strides[0],
                b : b + (sizes[1] - 1) * strides[1] + 1 : strides[1],
            ]
            part = part.transpose(1, 0, 3, 4, 2).reshape(groups, n * sizes[0] * sizes[1], -1)
            found += (part @ w[..., i, j].transpose(0, 2, 1)).reshape(found.shape)
    found = found.transpose(1, 0, 4, 2, 3).reshape(n, features, *sizes)
    return found.transpose(np.argsort(numbers.out_spec))


def _gather(params, x, starts):
    """Slice by slice; a batched gather and indices beyond the array are left to XLA."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    limits = [x.shape[a] - sizes[a] for a in numbers.start_index_map]
    flat = starts.reshape(-1, starts.shape[-1]).astype(np.int64)
    if numbers.operand_batching_dims or (flat < 0).any() or (flat > np.array(limits)).any():
        raise NotImplementedError
    parts = []
    for start in flat:
        first = dict(zip(numbers.start_index_map, start, strict=True))
        part = x[tuple(slice(first.get(a, 0), first.get(a, 0) + n) for a, n in enumerate(sizes))]
        parts.append(part.squeeze(numbers.collapsed_slice_dims))
    found = np.stack(parts).reshape(*starts.shape[:-1], *parts[0].shape)
    num_batch, offsets = starts.ndim - 1, iter(range(starts.ndim - 1, found.ndim))
    batch = iter(range(num_batch))
    return found.transpose([next(offsets if a in numbers.offset_dims else batch) for a in range(found.ndim)])


def _reduce(fn):
    return lambda params, x: fn(x, tuple(params["axes"]))


def _reduce_window(fn, start):
    def reduce_window(params, x):
        p = params
        if {*p["base_dilation"], *p["window_dilation"]} != {1}:
            raise NotImplementedError
        x = _pad({"padding_config": [(*pair, 0) for pair in p["padding"]]}, x, start)
        windows = np.lib.stride_tricks.sliding_window_view(x, p["window_dimensions"])
        windows = windows[tuple(slice(None, None, s) for s in p["window_strides"])]
        return fn(windows, tuple(range(x.ndim, 2 * x.ndim)))

    return reduce_window


def _integer_pow(params, x):
    y = params["y"]
    found = np.ones_like(x)
    for _ in range(abs(y)):
        found = found * x
    return found if y >= 0 else 1 / found


def _iota(params):
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = -1
    steps = np.arange(params["shape"][params["dimension"]], dtype=params["dtype"])
    return np.broadcast_to(steps.reshape(shape), params["shape"])


_ELEMENTWISE: dict[str, Any] = {
    **{name: getattr(np, name) for name in ("add", "exp", "log", "tanh", "sin", "cos", "sqrt", "square")},
    **{name: getattr(np, name) for name in ("abs", "sign", "floor", "log1p", "expm1")},
    **{"add_any": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative},
    **{"max": np.maximum, "min": np.minimum, "gt": np.greater, "ge": np.greater_equal, "lt": np.less},
    **{"le": np.less_equal, "eq": np.equal, "ne": np.not_equal},
    **{"and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert},
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    **dict.fromkeys(("stop_gradient", "copy", "copy_p", "name"), lambda x: x),
}


_ERF = np.vectorize(math.erf, otypes=[np.float32])


def _power(params, x, y):
    if not np.issubdtype(y.dtype, np.floating):
        raise NotImplementedError
    return x**y


def _divide(params, x, y):
    if not np.issubdtype(x.dtype, np.inexact) and x.dtype.kind != "V":
        raise NotImplementedError
    return x / y


_KNOWN: dict[str, Any] = {
    **{name: _quick(fn) for name, fn in _ELEMENTWISE.items()},
    "div": _divide,
    "select_n": _select_n,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": lambda params, x, *_: x.reshape(params["new_sizes"]),
    "squeeze": lambda params, x: x.squeeze(tuple(params["dimensions"])),
    "expand_dims": lambda params, x: np.expand_dims(x, tuple(params["dimensions"])),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "slice": _slice,
    "pad": _pad,
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "convert_element_type": lambda params, x: x.astype(params["new_dtype"]),
    "reduce_sum": _reduce(np.sum),
    "reduce_max": _reduce(np.max),
    "reduce_min": _reduce(np.min),
    "dot_general": _dot_general,
    "conv_general_dilated": _conv,
    "reduce_window_sum": _reduce_window(np.sum, 0),
    "reduce_window_max": _reduce_window(np.max, -np.inf),
    "integer_pow": _integer_pow,
    "pow": _power,
    "gather": _gather,
    "stack": lambda params, *xs: np.stack(xs, params["axis"]),
    "split": lambda params, x: np.split(x, np.cumsum(params["sizes"])[:-1], params["axis"]),
    "cumsum": lambda params, x: (
        np.flip(np.flip(x, params["axis"]).cumsum(params["axis"]), params["axis"])
        if params["reverse"]
        else x.cumsum(params["axis"])
    ),
    "erf": lambda params, x: _ERF(x),
    "erfc": lambda params, x: 1 - _ERF(x),
    "is_finite": lambda params, x: np.isfinite(x),
    "iota": _iota,
    "clamp": lambda params, low, x, high: np.minimum(np.maximum(x, low), high),
}
