"""Evaluates a traced function equation by equation, and lets named equations be watched or replaced.

JAX writes any function down as a program of equations (a jaxpr), with smaller programs inside for
`jit`, `remat`, `scan`, custom derivatives and control flow. This file is the only one that knows that
form. It offers two views of a program:

* `equations(program)`: one flat list, as if every call were written out and every `scan` unrolled. The
  layer table, the receptive fields and the rules are found in this list.
* `evaluate(program, args, edits, ...)`: runs it with some equations replaced. A call that holds nothing
  to be touched is bound again *whole*, so that its own derivative (`custom_jvp`, `custom_vjp`),
  its rematerialization and its compilation survive.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.core import Tracer
from jax.extend import core

Path = tuple[int, ...]  # of an equation: its index, and within calls (and scan steps) the indices down
Replacement = Callable[[Callable[..., Any], Sequence[Any]], Any]  # (original, inputs) -> outputs

# Calls that are looked into and, where nothing is touched, bound again whole.
_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "remat")
_CUSTOM = ("custom_jvp_call", "custom_vjp_call")
IN_COND = "a cond"  # rules reach in here, reads do not


@dataclasses.dataclass(frozen=True)
class Program:
    """A function traced for arguments of one shape."""

    jaxpr: core.ClosedJaxpr
    out_tree: Any
    image_leaves: tuple[bool, ...]  # per flat input: does it belong to the images (second argument)?


@dataclasses.dataclass(eq=False)
class Value:
    """What flows between equations. `scalar` is the number where the value is a known constant."""

    shape: tuple[int, ...]
    dtype: Any
    scalar: Any = None
    producer: "Equation | None" = None
    consumers: "list[Equation]" = dataclasses.field(default_factory=list)
    depends_on_images: bool = False
    is_output: bool = False


@dataclasses.dataclass(eq=False)
class Equation:
    """One step of the flat program.

    `kind` is the primitive's name, or the name of a function that counts as one step (`relu`, `gelu`).
    `inside` names what keeps it from being touched: a custom derivative, `cond` or `while`.
    `constants` are the numbers written into such a function. `opaque` is a call that holds a program
    which cannot be looked into.
    """

    kind: str
    params: Mapping[str, Any]
    inputs: list[Value]
    outputs: list[Value]
    path: Path
    scope: tuple[str, ...]
    inside: str | None
    constants: tuple[Any, ...] = ()
    opaque: bool = False


def trace(fn: Callable[..., Any], args: Sequence[Any]) -> Program:
    """Returns `fn` as a program; the second of `args` is the batch of images."""
    jaxpr, out_shapes = jax.make_jaxpr(fn, return_shape=True)(*args)
    flags = [jax.tree.map(lambda _, i=i: i == 1, arg) for i, arg in enumerate(args)]
    return Program(jaxpr, jax.tree.structure(out_shapes), tuple(jax.tree.leaves(flags)))


def equations(program: Program, single_steps: frozenset[str]) -> tuple[list[Equation], list[Value]]:
    """Returns the flat list of equations in program order, and the input values.

    Jitted functions whose names are among `single_steps` (`gelu`, ...) are kept as one equation.
    """
    inputs = [_value(var.aval) for var in program.jaxpr.jaxpr.invars]
    for value, is_image in zip(inputs, program.image_leaves, strict=True):
        value.depends_on_images = is_image
    flat: list[Equation] = []
    outputs = _flatten(program.jaxpr, inputs, _Place((), (), None), single_steps, flat)
    for value in outputs:
        value.is_output = True
    return flat, inputs


def evaluate(
    program: Program,
    args: Sequence[Any],
    replacements: Mapping[Path, Replacement],
    *,
    keeps_calls: bool = False,
) -> Any:
    """Runs a program with the equations at some paths replaced, by functions of the original and its inputs.

    With `keeps_calls` a touched `remat` or `scan` stays one. Only replacements that let no value out (rules,
    not what reads them) allow it.
    """
    values = _run(program.jaxpr, jax.tree.leaves(args), (), replacements, keeps_calls)
    return jax.tree.unflatten(program.out_tree, values)


def constant_of(value: Value) -> Any:
    """The number that a constant, or a constant broadcast to an array, holds; else `None`."""
    while value.scalar is None and value.producer is not None:
        maker = value.producer
        if maker.kind not in ("broadcast_in_dim", "convert_element_type", "reshape"):
            return maker.constants[0] if maker.kind == "full" else None
        value = maker.inputs[0]
    return value.scalar


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


def _flatten(jaxpr, inputs, place, single_steps, flat) -> list[Value]:
    env = dict(zip(jaxpr.jaxpr.invars, inputs, strict=True))
    for var, const in zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True):
        env[var] = _value(var.aval, const)

    def read(atom):
        return _value(atom.aval, atom.val) if isinstance(atom, core.Literal) else env[atom]

    for i, eqn in enumerate(jaxpr.jaxpr.eqns):
        ins = [read(atom) for atom in eqn.invars]
        outs = _step(eqn, ins, place.at(i), single_steps, flat)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def _step(eqn, ins, place, single_steps, flat) -> list[Value]:
    essence, inner = _essence(eqn, single_steps), _inner(eqn)
    if essence is not None:
        kind, params, constants = essence
        return _emit(flat, kind, params, ins, eqn, place, constants=constants)
    if not inner:
        opaque = any(True for _ in core.jaxprs_in_params(eqn.params))
        return _emit(flat, eqn.primitive.name, eqn.params, ins, eqn, place, opaque=opaque)
    name = eqn.primitive.name
    if name == "scan":
        return _flatten_scan(eqn, ins, place.within(eqn), single_steps, flat)
    if name == "cond":
        return _flatten_cond(eqn, ins, place.within(eqn, IN_COND), single_steps, flat)
    if name == "while":
        return _flatten_while(eqn, ins, place.within(eqn, "a while loop"), single_steps, flat)
    inside = f"a {name.removesuffix('_call')} function" if name in _CUSTOM else None
    return _flatten(inner[0], ins, place.within(eqn, inside), single_steps, flat)


def _flatten_scan(eqn, ins, place, single_steps, flat) -> list[Value]:
    body, steps = eqn.params["jaxpr"], []
    consts, carry, rows = _scan_inputs(eqn, ins)
    num_carry = len(carry)
    for t in range(eqn.params["length"]):
        slices = [Value(row.shape[1:], row.dtype, depends_on_images=row.depends_on_images) for row in rows]
        outs = _flatten(body, [*consts, *carry, *slices], place.at(t), single_steps, flat)
        carry = outs[:num_carry]
        steps.append(outs[num_carry:])
    ys = [_value(var.aval) for var in eqn.outvars[num_carry:]]
    for column, y in enumerate(ys):
        y.depends_on_images = any(step[column].depends_on_images for step in steps)
    return [*carry, *ys]


def _flatten_cond(eqn, ins, place, single_steps, flat) -> list[Value]:
    branches = [
        _flatten(branch, ins[1:], place.at(b), single_steps, flat)
        for b, branch in enumerate(eqn.params["branches"])
    ]
    place = dataclasses.replace(place, inside=None)
    return _emit(flat, "cond", {}, [*ins, *(v for outs in branches for v in outs)], eqn, place)


def _flatten_while(eqn, ins, place, single_steps, flat) -> list[Value]:
    body = eqn.params["body_jaxpr"]
    own = ins[len(ins) - len(body.in_avals) :]  # those before are constants of the condition
    outs = _flatten(body, own, place, single_steps, flat)
    place = dataclasses.replace(place, inside=None)
    return _emit(flat, "while", {}, [*ins, *outs], eqn, place)


def _emit(flat, kind, params, ins, eqn, place, constants=(), opaque=False) -> list[Value]:
    outs = [_value(var.aval) for var in eqn.outvars]
    scope = (*place.scope, *_scope(eqn))
    step = Equation(kind, params, ins, outs, place.path, scope, place.inside, constants, opaque)
    flat.append(step)
    for value in ins:
        value.consumers.append(step)
    for value in outs:
        value.producer = step
        value.depends_on_images = any(v.depends_on_images for v in ins)
    return outs


def _essence(eqn, single_steps) -> tuple[str, Mapping[str, Any], tuple[Any, ...]] | None:
    """Kind, parameters and constants of a call that stands for a single step."""
    is_call = False
    while True:
        name = eqn.primitive.name
        if name in ("jit", "pjit") and eqn.params["name"] in single_steps:
            return eqn.params["name"], eqn.params, ()
        inner = _inner(eqn)
        if not inner:
            literals = (atom.val for atom in eqn.invars if isinstance(atom, core.Literal))
            return (name, eqn.params, tuple(literals)) if is_call else None
        if name not in (*_CALLS, *_CUSTOM) or not _is_one_step(eqn, inner[0]):
            return None
        eqn, is_call = inner[0].jaxpr.eqns[0], True


def _is_one_step(eqn, inner) -> bool:
    """A call of one equation, which takes all of its inputs in order and returns what it makes."""
    if len(inner.jaxpr.eqns) != 1 or len(eqn.outvars) != 1:
        return False
    step = inner.jaxpr.eqns[0]
    variables = [atom for atom in step.invars if not isinstance(atom, core.Literal)]
    return variables == list(inner.jaxpr.invars) and inner.jaxpr.outvars == step.outvars


def _inner(eqn) -> list[core.ClosedJaxpr]:
    """The programs inside an equation that this file knows how to look into."""
    name, params = eqn.primitive.name, eqn.params
    if name in (*_CALLS, *_CUSTOM, "scan"):
        inner = params.get("jaxpr", params.get("call_jaxpr"))
        return [inner if isinstance(inner, core.ClosedJaxpr) else core.ClosedJaxpr(inner, ())]
    return {"cond": lambda: list(params["branches"]), "while": lambda: [params["body_jaxpr"]]}.get(
        name, list
    )()


def _scan_inputs(eqn, ins: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Constants, carry and rows of a scan, told by shape: its body sees a row without the leading axis."""
    body = eqn.params["jaxpr"]
    num_rows = sum(v.aval.shape != a.shape for v, a in zip(eqn.invars, body.in_avals, strict=True))
    num_carry = sum(v.aval.shape == a.shape for v, a in zip(eqn.outvars, body.out_avals, strict=True))
    first, end = len(ins) - num_rows - num_carry, len(ins) - num_rows
    return list(ins[:first]), list(ins[first:end]), list(ins[end:])


def _scope(eqn) -> Iterator[str]:
    """The module path that Flax Linen (or `jax.named_scope`) left at an equation.

    `vmap(...)` and the like are no part of it, nor is the `bi,io->bo` that `jnp.einsum` leaves.
    """
    parts = str(eqn.source_info.name_stack).split("/")
    return (part for part in parts if part and not any(mark in part for mark in ("(", ",", "->")))


def _value(aval, constant=None) -> Value:
    concrete = constant is not None and not isinstance(constant, Tracer)
    scalar = constant if concrete and getattr(constant, "ndim", 0) == 0 else None
    return Value(tuple(getattr(aval, "shape", ())), getattr(aval, "dtype", None), scalar)


# ----------------------------------------------------------------------------------- evaluation


def _run(jaxpr, args, path, replacements, keeps_calls) -> list[Any]:
    env: dict[Any, Any] = {}
    env.update(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    env.update(zip(jaxpr.jaxpr.invars, args, strict=True))

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for i, eqn in enumerate(jaxpr.jaxpr.eqns):
        ins, here = [read(atom) for atom in eqn.invars], (*path, i)
        if here in replacements:
            outs = [replacements[here](lambda *xs, eqn=eqn: _bind(eqn, xs)[0], ins)]
        elif any(target[: len(here)] == here for target in replacements):
            outs = _descend(eqn, ins, here, replacements, keeps_calls)
        else:
            outs = _bind(eqn, ins)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars]


def _bind(eqn, ins) -> Sequence[Any]:
    """The equation itself, with its own derivative, under its own settings (precision, x64)."""
    with eqn.ctx.manager, _named(eqn):
        outs = eqn.primitive.bind(*ins, **eqn.primitive.get_bind_params(eqn.params))
    return outs if eqn.primitive.multiple_results else [outs]


def _named(eqn):
    scope = "/".join(_scope(eqn))
    return jax.named_scope(scope) if scope else contextlib.nullcontext()


def _descend(eqn, ins, path, replacements, keeps_calls) -> Sequence[Any]:
    def run(inner, path):
        def body(*xs):
            with _named(eqn):
                return _run(inner, xs, path, replacements, keeps_calls)

        return body

    name, inner = eqn.primitive.name, _inner(eqn)
    if name == "scan":
        return _descend_scan(eqn, ins, path, replacements, keeps_calls)
    if name == "cond":
        branches = [run(branch, (*path, b)) for b, branch in enumerate(inner)]
        return jax.lax.switch(ins[0], branches, *ins[1:])
    body = run(inner[0], path)
    if name in ("remat2", "checkpoint", "remat") and keeps_calls:
        params = {k: eqn.params[k] for k in ("policy", "prevent_cse")}
        return jax.checkpoint(body, **params)(*ins)
    return body(*ins)


def _descend_scan(eqn, ins, path, replacements, keeps_calls) -> Sequence[Any]:
    length, body = eqn.params["length"], eqn.params["jaxpr"]
    consts, carry, rows = _scan_inputs(eqn, ins)
    num_carry = len(carry)
    if keeps_calls:  # the flat view lists every step, and a rule is the same at each of them
        replacements = _at_first_step(replacements, path)

        def step(carry, row):
            outs = _run(body, [*consts, *carry, *row], (*path, 0), replacements, keeps_calls)
            return outs[:num_carry], outs[num_carry:]

        options = {k: eqn.params[k] for k in ("reverse", "unroll", "length")}
        carry, ys = jax.lax.scan(step, list(carry), list(rows), **options)
        return [*carry, *ys]
    order = reversed(range(length)) if eqn.params["reverse"] else range(length)
    stacked: list[Any] = [None] * length
    for step_number, t in enumerate(order):
        slices = [row[t] for row in rows]
        args = [*consts, *carry, *slices]
        outs = _run(body, args, (*path, step_number), replacements, keeps_calls)
        carry, stacked[t] = outs[:num_carry], outs[num_carry:]
    ys = [jax.numpy.stack(column) for column in zip(*stacked, strict=True)]
    return [*carry, *ys]


def _at_first_step(replacements, path) -> dict[Path, Replacement]:
    """Those within a scan, whichever steps they were found at: the first may still carry constants."""
    n = len(path)
    return {
        (*path, 0, *target[n + 1 :]): replacement
        for target, replacement in replacements.items()
        if target[:n] == path
    }
