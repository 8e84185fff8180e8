"""A traced function as one flat list of steps, as if every call were written out and every `scan` unrolled.

JAX writes any function down as a program of equations (a jaxpr), with smaller programs inside for `jit`,
`remat`, `scan`, custom derivatives and control flow. This file and `interpreter`, which runs such a program,
are the only ones that know that form. What is asked of the network, its layers, axes, receptive fields and
activation functions, is found in the flat list that is made here.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core

from vexplain.transforms.primitives import WINDOW_REDUCTIONS

Path = tuple[int, ...]  # of an equation: its index, and within calls (and scan steps) the indices down
EVERY_STEP = -1  # in a path, in place of the number of a scan's step

# Calls that are looked into and, where nothing is touched, bound again whole.
CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat")
CUSTOM = ("custom_jvp_call", "custom_vjp_call")
IN_COND = "a cond"  # rules reach in here, reads do not
# Steps of the flat list that are no equations: what a scan takes and gives at each of its steps.
SCAN_CARRY, SCAN_SLICE, SCAN_STACK = "scan_carry", "scan_slice", "scan_stack"
_MOST_NUMBERS = 2**16  # that are compared with each other, to find that an array is a constant
# functions of NumPy, which guard divisors too
_LOOKED_INTO = ("clip", "_where", "where", "maximum", "minimum")
_NOT_LOOKED_INTO = ("callback", "ffi_call", "custom_call", "custom_partitioning", "pallas_call", "shard_map")

NamesCall = Callable[[str, core.ClosedJaxpr, Sequence["Value"]], str | None]


@dataclasses.dataclass(frozen=True)
class Program:
    """A function traced for arguments of one shape."""

    jaxpr: core.ClosedJaxpr
    out_tree: Any
    image_leaves: tuple[bool, ...]  # per flat input: does it belong to the images (second argument)?


@dataclasses.dataclass(eq=False)
class Value:
    """What flows between equations.

    `constant` is the array where it is written in the program. `handed_out` is the path of the outermost call
    with a derivative of its own whose result this is: there it can be read and edited, and no rule is lost.
    `left` are the paths of the calls, from the innermost on, whose results it is.
    """

    shape: tuple[int, ...]
    dtype: Any
    constant: Any = None
    producer: "Equation | None" = None
    consumers: "list[Equation]" = dataclasses.field(default_factory=list)
    depends_on_images: bool = False
    is_output: bool = False
    handed_out: tuple[Path, str | None] | None = None
    left: tuple[Path, ...] = ()


@dataclasses.dataclass(eq=False)
class Equation:
    """One step of the flat program.

    `kind` is the primitive's name, or the name of an activation function that is called as one step.
    `inside` names what keeps it from being touched: a custom derivative, `cond` or `while`. `is_call` says
    that it is a call that counts as one step. `opaque` holds a program which cannot be looked into.
    """

    kind: str
    params: Mapping[str, Any]
    inputs: list[Value]
    outputs: list[Value]
    path: Path
    scope: tuple[str, ...]
    inside: str | None
    is_call: bool = False
    opaque: bool = False
    source: Any = None  # the equation of JAX
    order: int = 0  # its place in the list

    @property
    def out(self) -> Value:
        return self.outputs[0]


def trace(fn: Callable[..., Any], args: Sequence[Any]) -> Program:
    """Returns `fn` as a program; the second of `args` is the batch of images.

    JAX keeps what it traced: the same function is not run again for arguments of the same shapes.
    """
    jaxpr, out_shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    flags = [jax.tree.map(lambda _, i=i: i == 1, arg) for i, arg in enumerate(args)]
    return Program(jaxpr, jax.tree.structure(out_shapes), tuple(jax.tree.leaves(flags)))


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
    """A program as one list of steps in order, its inputs, and the paths of its scans."""

    steps: list[Equation]
    inputs: list[Value]
    loops: set[Path]

    def at_every_step(self, path: Path) -> Path:
        """The path with `EVERY_STEP` for the number of a scan's step."""
        return tuple(EVERY_STEP if path[:n] in self.loops else i for n, i in enumerate(path))


def equations(program: Program, names_call: NamesCall) -> Flat:
    """Returns the flat list of equations in program order.

    Args:
        program: of `trace`.
        names_call: `(name, program of a call, its inputs) -> kind`, for calls that count as one step;
            `None` for those that are looked into.
    """
    inputs = [_value(var.aval) for var in program.jaxpr.jaxpr.invars]
    for value, is_image in zip(inputs, program.image_leaves, strict=True):
        value.depends_on_images = is_image
    flattening = _Flattening(names_call)
    for value in flattening.program(program.jaxpr, inputs, _Place((), (), None)):
        value.is_output = True
    return Flat(flattening.flat, inputs, flattening.loops)


def constant_of(value: Value) -> Any:
    """The number that a constant, or a constant broadcast to an array, holds; else `None`."""
    while value.constant is None and value.producer is not None:
        maker = value.producer
        if maker.kind not in ("broadcast_in_dim", "convert_element_type", "reshape", "squeeze"):
            return None
        value = maker.inputs[0]
    if value.constant is None or not 0 < np.size(value.constant) <= _MOST_NUMBERS:
        return None
    array = np.asarray(value.constant)
    first = array.flat[0]
    return first if array.ndim == 0 or bool((array == first).all()) else None


def is_literal(value: Value) -> bool:
    """A number that is written in the program itself."""
    return value.constant is not None and np.ndim(value.constant) == 0


def array_of(value: Value) -> np.ndarray | None:
    """The array that a value always is, computed now; `None` where the program is given it."""
    with jax.ensure_compile_time_eval():
        return _computed(value, {})


def _computed(value: Value, known: dict[Value, Any]) -> Any:
    if value in known:
        return known[value]
    maker = value.producer
    if value.constant is not None:
        found = np.asarray(value.constant)
    elif maker is None or maker.source is None or maker.inside or value.depends_on_images:
        found = None
    else:
        inputs = [_computed(v, known) for v in maker.inputs]
        is_known = all(x is not None for x in inputs)
        outs = (
            [np.asarray(x) for x in bind(maker.source, inputs)] if is_known else [None] * len(maker.outputs)
        )
        known.update(zip(maker.outputs, outs, strict=True))
        found = known[value]
    known[value] = found
    return found


def bind(eqn: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    """The equation itself, with its own derivative, under its own settings (precision, x64)."""
    with eqn.ctx.manager, named(eqn):
        outs = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
    return outs if eqn.primitive.multiple_results else [outs]


def named(eqn: Any) -> Any:
    """The context in which what is traced has the equation's module path."""
    scope = "/".join(_scope(eqn))
    return jax.named_scope(scope) if scope else contextlib.nullcontext()


def inner_programs(eqn: Any) -> list[core.ClosedJaxpr]:
    """The programs inside an equation that are looked into."""
    name, params = eqn.primitive.name, eqn.params
    if name in (*CALLS, *CUSTOM, "scan"):
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        return [inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())]
    return {"cond": lambda: list(params["branches"]), "while": lambda: [params["body_jaxpr"]]}.get(
        name, list
    )()


def scan_inputs(eqn: Any, inputs: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Constants, carry and rows of a scan, told by shape: its body sees a row without the leading axis."""
    body = eqn.params["jaxpr"]
    num_rows = sum(v.aval.shape != a.shape for v, a in zip(eqn.invars, body.in_avals, strict=True))
    num_carry = sum(v.aval.shape == a.shape for v, a in zip(eqn.outvars, body.out_avals, strict=True))
    first, end = len(inputs) - num_rows - num_carry, len(inputs) - num_rows
    return list(inputs[:first]), list(inputs[first:end]), list(inputs[end:])


# ------------------------------------------------------------------------------------ flat view


@dataclasses.dataclass(frozen=True)
class _Place:
    path: Path
    scope: tuple[str, ...]
    inside: str | None

    def at(self, *indices: int) -> "_Place":
        return dataclasses.replace(self, path=(*self.path, *indices))

    def within(self, eqn: Any, inside: str | None = None) -> "_Place":
        scope = (*self.scope, *_scope(eqn))
        keeps = inside is None or (inside == IN_COND and self.inside is not None)
        return dataclasses.replace(self, scope=scope, inside=self.inside if keeps else inside)


class _Flattening:
    """The list that is being made."""

    def __init__(self, names_call: NamesCall):
        self.names_call = names_call
        self.flat: list[Equation] = []
        self.loops: set[Path] = set()

    def program(self, jaxpr, inputs, place) -> list[Value]:
        env = dict(zip(jaxpr.jaxpr.invars, inputs, strict=True))
        for var, const in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
            env[var] = _value(var.aval, const)

        def read(atom):
            return _value(atom.aval, atom.val) if isinstance(atom, core.Literal) else env[atom]

        for i, eqn in enumerate(jaxpr.jaxpr.eqns):
            outs = self.step(eqn, [read(atom) for atom in eqn.invars], place.at(i))
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(atom) for atom in jaxpr.jaxpr.outvars]

    def step(self, eqn, ins, place) -> list[Value]:
        name, inner = eqn.primitive.name, inner_programs(eqn)
        if not inner:
            opaque = any(True for _ in core.jaxprs_in_params(eqn.params))
            opaque = opaque or any(word in name for word in _NOT_LOOKED_INTO)
            return self.emit(name, eqn.params, ins, eqn, place, opaque=opaque)
        if name == "scan":
            return self.scan(eqn, ins, place.within(eqn))
        if name == "cond":
            return self.cond(eqn, ins, place.within(eqn, IN_COND))
        if name == "while":
            return self.loop(eqn, ins, place.within(eqn, "a while loop"))
        title = str(eqn.params.get("name", ""))
        is_named = name in CUSTOM or (name in ("jit", "pjit") and title not in _LOOKED_INTO)
        kind = self.names_call(title, inner[0], ins) if is_named else None
        if kind is not None:
            return self.emit(kind, eqn.params, ins, eqn, place, is_call=True)
        window = _only_window(inner[0]) if name in CUSTOM else None
        if window is not None:  # a pooling with a derivative of its own
            return self.emit(window.primitive.name, window.params, ins, eqn, place)
        inside = f"a {name.removesuffix('_call')} function" if name in CUSTOM else None
        outs = self.program(inner[0], ins, place.within(eqn, inside))
        for out in outs if name in (*CUSTOM, "jit", "pjit") else ():
            out.left = (*out.left, place.path)
        if name in CUSTOM and len(outs) == 1:
            outs[0].handed_out = (place.path, place.inside)
        return outs

    def scan(self, eqn, ins, place) -> list[Value]:
        self.loops.add(place.path)
        body, length = eqn.params["jaxpr"], eqn.params["length"]
        consts, carry, rows = scan_inputs(eqn, ins)
        num_carry = len(carry)
        # What is carried changes from step to step: no constant of the first is one of all.
        carry = [self.of_scan(SCAN_CARRY, [v], v.shape, v.dtype) for v in carry]
        order = range(length)[:: -1 if eqn.params["reverse"] else 1]
        columns: list[list[Value]] = [[] for _ in eqn.outvars[num_carry:]]
        for number, t in enumerate(order):
            slices = [self.of_scan(SCAN_SLICE, [row], row.shape[1:], row.dtype, index=t) for row in rows]
            outs = self.program(body, [*consts, *carry, *slices], place.at(number))
            carry = outs[:num_carry]
            for column, value in zip(columns, outs[num_carry:], strict=True):
                column.append(value)
        return [
            *carry,
            *(
                self.stacked(c[:: -1 if eqn.params["reverse"] else 1], rows, var)
                for c, var in zip(columns, eqn.outvars[num_carry:], strict=True)
            ),
        ]

    def stacked(self, column, rows, var) -> Value:
        """What the steps gave, one after the other; after them what each of the steps took a row of."""
        shape, dtype = tuple(var.aval.shape), var.aval.dtype
        return self.of_scan(SCAN_STACK, [*column, *rows], shape, dtype, num_steps=len(column))

    def of_scan(self, kind, ins, shape, dtype, **params) -> Value:
        out = Value(tuple(shape), dtype)
        return self.add(Equation(kind, params, list(ins), [out], (), (), None))[0]

    def cond(self, eqn, ins, place) -> list[Value]:
        branches = [self.program(b, ins[1:], place.at(i)) for i, b in enumerate(eqn.params["branches"])]
        place = dataclasses.replace(place, inside=None)
        parts = [ins[0], *(v for outs in branches for v in outs)]
        return self.emit("cond", {"num_branches": len(branches)}, parts, eqn, place, source=None)

    def loop(self, eqn, ins, place) -> list[Value]:
        body = eqn.params["body_jaxpr"]
        own = ins[len(ins) - len(body.in_avals) :]  # those before are constants of the condition
        carry = own[len(own) - len(eqn.outvars) :]
        carried = [self.of_scan(SCAN_CARRY, [v], v.shape, v.dtype) for v in carry]
        outs = self.program(body, [*own[: len(own) - len(carry)], *carried], place)
        place = dataclasses.replace(place, inside=None)
        first = ins[: len(ins) - len(carry)]
        params = {"num_carry": len(carry)}
        return self.emit("while", params, [*first, *carry, *outs], eqn, place, source=None)

    def emit(self, kind, params, ins, eqn, place, **flags) -> list[Value]:
        outs = [_value(var.aval) for var in eqn.outvars]
        scope = (*place.scope, *_scope(eqn))
        flags = {"source": eqn, **flags}
        return self.add(Equation(kind, params, ins, outs, place.path, scope, place.inside, **flags))

    def add(self, step: Equation) -> list[Value]:
        step.order = len(self.flat)
        self.flat.append(step)
        for value in step.inputs:
            value.consumers.append(step)
        for value in step.outputs:
            value.producer = step
            value.depends_on_images = any(v.depends_on_images for v in step.inputs)
        return step.outputs


def _scope(eqn) -> Iterator[str]:
    """The module path that Flax Linen (or `jax.named_scope`) left at an equation.

    `vmap(...)` and the like are no part of it, nor is the `bi,io->bo` that `jnp.einsum` leaves.
    """
    parts = str(eqn.source_info.name_stack).split("/")
    return (part for part in parts if part and not any(mark in part for mark in ("(", ",", "->")))


def _only_window(program: core.ClosedJaxpr) -> Any:
    """The reduction over windows that is all that a program does to its one input; else `None`."""
    jaxpr = program.jaxpr
    if len(jaxpr.eqns) != 1 or jaxpr.constvars or not len(jaxpr.invars) == 1 == len(jaxpr.outvars):
        return None
    (eqn,) = jaxpr.eqns
    if list(eqn.invars) != list(jaxpr.invars) or list(eqn.outvars) != list(jaxpr.outvars):
        return None
    if eqn.primitive.name in CALLS:
        return _only_window(inner_programs(eqn)[0])
    return eqn if eqn.primitive.name in WINDOW_REDUCTIONS else None


def _value(aval, constant=None) -> Value:
    concrete = constant is not None and not isinstance(constant, Tracer)
    shape, dtype = tuple(getattr(aval, "shape", ())), getattr(aval, "dtype", None)
    return Value(shape, dtype, constant if concrete else None)
