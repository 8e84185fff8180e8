"""Recognizes activation functions by their values, however they are spelled.

`jax.nn.relu`, `where(x <= 0, 0, x)`, `(x + |x|) / 2` and `-min(-x, 0)` are one function. A span of steps
that work entry by entry on one value is evaluated on numbers, and compared with the functions that have a
name. The name that the author of a network gave to a function decides nothing.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.extend import core

from vexplain.transforms.primitives import ELEMENTWISE
from vexplain.transforms.program import CALLS, CUSTOM, Equation, Value, constant_of, inner_programs

_POINTS = np.concatenate([np.linspace(-7.3, 8.1, 78), [-0.31, -0.04, -0.0007, 0.0006, 0.03, 0.29]])
_LONGEST = 24  # steps of a span
_DEEPEST = 8  # steps back from a non-linear one, to where its span may begin

_SIGMOID = scipy.special.expit
_SELU = (1.0507009873554805, 1.6732632423543772)
_NAMED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "hard_sigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hard_silu": lambda x: x * np.clip(x + 3, 0, 6) / 6,
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "gelu_sigmoid": lambda x: x * _SIGMOID(1.702 * x),
    "silu": lambda x: x * _SIGMOID(x),
    "logistic": _SIGMOID,
    "tanh": np.tanh,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "selu": lambda x: _SELU[0] * np.where(x > 0, x, _SELU[1] * np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.logaddexp(x, 0),
    "log_sigmoid": lambda x: -np.logaddexp(-x, 0),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "soft_sign": lambda x: x / (1 + np.abs(x)),
    "squareplus": lambda x: 0.5 * (x + np.sqrt(x * x + 4)),
    "abs": np.abs,
}
_VALUES = np.stack([fn(_POINTS) for fn in _NAMED.values()])
_BOUNDS = {"relu": (0.0, np.inf), "relu6": (0.0, 6.0), "hard_tanh": (-1.0, 1.0), "hard_sigmoid": (-3.0, 3.0)}
_ONE_KIND = {"gelu_tanh": "gelu", "gelu_sigmoid": "gelu"}
# Functions with parameters of their own, which keep the name of `jax.nn`: no rule stands for them.
_BY_NAME = frozenset(
    {"elu", "celu", "selu", "leaky_relu", "sparse_plus", "sparse_sigmoid", "squareplus", "mish"}
)
RECOGNIZED = frozenset(_ONE_KIND.get(name, name) for name in _NAMED) | _BY_NAME | {"clamp"}


@dataclasses.dataclass(frozen=True)
class Spelling:
    """An activation function: its kind, and between which inputs its derivative is a constant, else zero."""

    kind: str
    bounds: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
    """The steps from the value that enters a layer to the value that leaves it."""

    spelling: Spelling
    entering: Value
    steps: tuple[Equation, ...]

    @property
    def leaving(self) -> Value:
        return self.steps[-1].out


def kind_of_call(name: str, program: core.ClosedJaxpr, inputs: Sequence[Value]) -> str | None:
    """The kind of a call that works entry by entry on one value: a named activation function, or `None`."""
    moving = [i for i, v in enumerate(inputs) if v.depends_on_images]
    if len(moving) != 1 or len(program.jaxpr.outvars) != 1 or not _is_entrywise(program):
        return None
    value = inputs[moving[0]]
    if tuple(program.out_avals[0].shape) != value.shape:
        return None
    numbers: list[Any] = [_POINTS if i == moving[0] else constant_of(v) for i, v in enumerate(inputs)]
    if all(x is not None for x in numbers):
        found = _evaluated(program, numbers)
        spelling = None if found is None else spelling_of(found[0])
        if spelling is not None:
            return spelling.kind
    return name if name in _BY_NAME else None


def span_of_call(step: Equation) -> Span:
    """Of a step that `kind_of_call` named."""
    entering = next(v for v in step.inputs if v.depends_on_images)
    numbers = [_POINTS if v is entering else constant_of(v) for v in step.inputs]
    (program,) = inner_programs(step.source)
    found = _evaluated(program, numbers) if all(x is not None for x in numbers) else None
    spelling = None if found is None else spelling_of(found[0])
    return Span(spelling or Spelling(step.kind), entering, (step,))


def spelling_of(values: np.ndarray) -> Spelling | None:
    """The activation function that has these values at the points that are tried; or `None`."""
    if np.shape(values) != _POINTS.shape or not np.isfinite(values).all():
        return None
    same = np.abs(_VALUES - values).max(1) < 2e-5
    if same.any():
        name = list(_NAMED)[int(np.argmax(same))]
        kind = _ONE_KIND.get(name, name)
        return Spelling(kind, _BOUNDS.get(kind))
    low, high = float(values.min()), float(values.max())
    is_inside = _POINTS.min() < low < high < _POINTS.max()
    if is_inside and np.allclose(values, np.clip(_POINTS, low, high)):
        return Spelling("clamp", (low, high))
    below, above = values[_POINTS < 0] / _POINTS[_POINTS < 0], values[_POINTS > 0] / _POINTS[_POINTS > 0]
    is_leaky = np.allclose(above, 1, rtol=1e-5) and np.ptp(below) < 1e-5 and abs(below[0] - 1) > 1e-3
    return Spelling("leaky_relu") if is_leaky else None


def span_of(step: Equation, taken: Set[Equation] = frozenset()) -> Span | None:
    """The named activation function that a non-linear step is a part of, or `None`.

    It begins at one value that depends on the images, and nothing but its end is used elsewhere. The longest
    is taken, a ReLU6 rather than the ReLU in it; of one kind the shortest, so that two ReLUs are two. Steps
    that are `taken` belong to another function.
    """
    shortest: dict[str, Span] = {}
    for entering in _before(step):
        values, steps = _after(entering)
        for last in steps:
            if last.is_call and last.kind in _BOUNDS:
                continue  # a ReLU that is called is a layer of its own, whatever came before it
            spelling = spelling_of(values[last.out])
            if spelling is None or last.out.dtype != entering.dtype:
                continue
            inner = _between(entering, last, steps)
            best = shortest.get(spelling.kind)
            is_free = step in inner and taken.isdisjoint(inner)
            if is_free and _is_closed(inner) and (best is None or len(inner) < len(best.steps)):
                shortest[spelling.kind] = Span(spelling, entering, inner)
    return max(shortest.values(), key=lambda span: len(span.steps), default=None)


def _before(step: Equation) -> Iterator[Value]:
    """Where a span with this step may begin: the nearest values first."""
    reached = [v for v in step.inputs if v.depends_on_images and jnp.issubdtype(v.dtype, jnp.inexact)]
    reached += [v for made in step.inputs if made.producer and not jnp.issubdtype(made.dtype, jnp.inexact)
                for v in made.producer.inputs if v.depends_on_images]  # fmt: skip
    seen: set[Value] = set()
    for _ in range(_DEEPEST):
        further = []
        for value in reached:
            if value in seen:
                continue
            seen.add(value)
            yield value
            maker = value.producer
            if maker is not None and maker.kind in _IMPLEMENTED and not maker.is_call:
                further += [v for v in maker.inputs if v.depends_on_images]
        reached = further


def _after(entering: Value) -> tuple[dict[Value, np.ndarray], list[Equation]]:
    """What is computed from one value and from numbers alone, and its values at the points."""
    values: dict[Value, np.ndarray] = {entering: _POINTS}
    steps: list[Equation] = []
    waiting = [entering]
    while waiting and len(steps) < _LONGEST:
        for user in waiting.pop(0).consumers:
            if len(user.outputs) != 1 or user.out in values or user.out.shape != entering.shape:
                continue
            inputs = [values.get(v, constant_of(v)) for v in user.inputs]
            if any(x is None for x in inputs):
                continue
            found = _step_values(user, inputs)
            if found is not None:
                values[user.out] = found
                steps.append(user)
                waiting.append(user.out)
    return values, steps


def _between(entering: Value, last: Equation, steps: Sequence[Equation]) -> tuple[Equation, ...]:
    needed, order = {last}, [last]
    for step in order:
        for value in step.inputs:
            maker = value.producer
            if value is not entering and maker is not None and maker in steps and maker not in needed:
                needed.add(maker)
                order.append(maker)
    return tuple(sorted(order, key=lambda step: step.order))


def _is_closed(steps: Sequence[Equation]) -> bool:
    """Nothing with a derivative but the last value is used elsewhere, and no custom derivative is cut."""
    inner = [s.out for s in steps[:-1] if jnp.issubdtype(s.out.dtype, jnp.inexact)]
    uses_inside = all(user in steps for value in inner for user in value.consumers)
    return uses_inside and not any(value.is_output for value in inner) and len({s.inside for s in steps}) == 1


# --------------------------------------------------------------------------- programs on numbers


def _is_entrywise(program: core.ClosedJaxpr) -> bool:
    for eqn in program.jaxpr.eqns:
        name = eqn.primitive.name
        if name in (*CALLS, *CUSTOM):
            if not _is_entrywise(inner_programs(eqn)[0]):
                return False
        elif name == "broadcast_in_dim":
            if np.prod(eqn.invars[0].aval.shape, initial=1) != 1:
                return False
        elif name not in ELEMENTWISE:
            return False
    return True


def _step_values(step: Equation, inputs: Sequence[Any]) -> np.ndarray | None:
    if step.is_call:
        found = _evaluated(inner_programs(step.source)[0], inputs)
        return None if found is None else found[0]
    return _applied(step.kind, step.params, inputs)


def _evaluated(program: core.ClosedJaxpr, inputs: Sequence[Any]) -> list[np.ndarray] | None:
    """The values of a program that works entry by entry, for numbers; `None` if a step has no values here."""
    env: dict[Any, Any] = dict(zip(program.jaxpr.invars, inputs, strict=True))
    env.update(zip(program.jaxpr.constvars, program.consts, strict=True))
    for eqn in program.jaxpr.eqns:
        ins = [atom.val if isinstance(atom, core.Literal) else env[atom] for atom in eqn.invars]
        if eqn.primitive.name in (*CALLS, *CUSTOM):
            outs = _evaluated(inner_programs(eqn)[0], ins)
        else:
            found = _applied(eqn.primitive.name, eqn.params, ins)
            outs = None if found is None else [found]
        if outs is None:
            return None
        env.update(zip(eqn.outvars, outs, strict=True))
    return [atom.val if isinstance(atom, core.Literal) else env[atom] for atom in program.jaxpr.outvars]


def _applied(name: str, params: Any, inputs: Sequence[Any]) -> np.ndarray | None:
    fn = _IMPLEMENTED.get(name)
    if fn is None:
        return None
    wide = [np.asarray(x) for x in inputs]
    wide = [
        x.astype(float) if np.issubdtype(x.dtype, np.floating) or x.dtype.kind == "V" else x for x in wide
    ]
    with np.errstate(all="ignore"):
        return np.asarray(fn(params, *wide))


def _converted(params: Any, x: np.ndarray) -> np.ndarray:
    new = params["new_dtype"]
    if jnp.issubdtype(new, jnp.bool_):
        return x != 0
    return x.astype(float) if jnp.issubdtype(new, jnp.inexact) else x.astype(int)


_IMPLEMENTED: dict[str, Callable[..., Any]] = {
    "convert_element_type": _converted,
    "integer_pow": lambda p, x: x ** float(p["y"]),
    "select_n": lambda p, which, *cases: np.select([which == i for i in range(len(cases))], cases),
    "clamp": lambda p, low, x, high: np.clip(x, low, high),
    "logistic": lambda p, x: _SIGMOID(x),
    "rsqrt": lambda p, x: 1 / np.sqrt(x),
    "square": lambda p, x: x * x,
    "erf": lambda p, x: scipy.special.erf(x),
    "erfc": lambda p, x: scipy.special.erfc(x),
    "is_finite": lambda p, x: np.isfinite(x),
    **{
        name: (lambda p, *xs, fn=fn: fn(*xs))
        for name, fn in {
            "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
            "max": np.maximum, "min": np.minimum, "pow": np.power, "neg": np.negative, "abs": np.abs,
            "sign": np.sign, "floor": np.floor, "ceil": np.ceil, "sqrt": np.sqrt, "cbrt": np.cbrt,
            "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log1p": np.log1p,
            "tanh": np.tanh, "sin": np.sin, "cos": np.cos, "atan": np.arctan, "sinh": np.sinh,
            "cosh": np.cosh, "asinh": np.arcsinh, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
            "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "and": np.logical_and,
            "or": np.logical_or, "not": np.logical_not, "xor": np.logical_xor,
        }.items()
    },
    **dict.fromkeys(
        ("stop_gradient", "copy", "copy_p", "reduce_precision", "broadcast_in_dim", "reshape"),
        lambda p, x: x,
    ),
}  # fmt: skip
