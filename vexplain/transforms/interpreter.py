"""Runs a traced program equation by equation, with some of its values replaced, and some handed out.

What holds nothing to be touched is bound again *whole*, so that its own derivative (`custom_jvp`,
`custom_vjp`), its rematerialization and its compilation survive. A loop stays a loop: a value of one of its
steps leaves it as a row of a stacked output, and a change at one step is a condition on the step's number, so
that tracing and compiling do not grow with the number of steps.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.extend import core

from vexplain.transforms.program import (
    EVERY_STEP,
    Path,
    Program,
    bind,
    inner_programs,
    named,
    scan_inputs,
)

Operand = tuple[Path, int]  # of an equation: its path, and which of its inputs


@dataclasses.dataclass(frozen=True)
class Change:
    """What takes the place of an equation's value.

    Attributes:
        replaced: `(original, inputs, held) -> value`; `original(*inputs)` is the equation itself.
        holds: operands of other equations, before this one; their values are `held`, in this order.
    """

    replaced: Callable[[Callable[..., Any], Sequence[Any], Sequence[Any]], Any]
    holds: tuple[Operand, ...] = ()


def evaluate(
    program: Program, args: Sequence[Any], changes: Mapping[Path, Change], taps: Iterable[Path] = ()
) -> tuple[Any, dict[Path, Any]]:
    """Returns the outputs of a program with some values changed, and the values made at some paths.

    Args:
        program: of `trace`.
        args: what it was traced for.
        changes: by path of the equation, whose first output is replaced. A path in a scan names one step by
            its number, or all of them by `EVERY_STEP`.
        taps: paths of equations whose first output, after its change, is handed out.
    """
    job = _Job(dict(changes), frozenset(taps))
    values, found = _run(program.jaxpr, jax.tree.leaves(args), (), job, {})
    return jax.tree.unflatten(program.out_tree, values), found


class _Job:
    """What is to be done at which path."""

    def __init__(self, changes: dict[Path, Change], taps: frozenset[Path]):
        self.changes, self.taps = changes, taps
        held = [operand for change in changes.values() for operand in change.holds]
        self.held: dict[Path, set[int]] = {}
        for path, index in held:
            self.held.setdefault(path, set()).add(index)
        targets = {*changes, *taps, *self.held}
        self.prefixes = {path[:n] for path in targets for n in range(1, len(path) + 1)}


Held = dict[Operand, Any]
Run = tuple[list[Any], dict[Path, Any]]


def _run(jaxpr: core.ClosedJaxpr, args: Sequence[Any], path: Path, job: _Job, held: Held) -> Run:
    env: dict[Any, Any] = {}
    env.update(zip(jaxpr.jaxpr.constvars, jaxpr.consts, strict=True))
    env.update(zip(jaxpr.jaxpr.invars, args, strict=True))
    found: dict[Path, Any] = {}

    def read(atom):
        return atom.val if isinstance(atom, core.Literal) else env[atom]

    for i, eqn in enumerate(jaxpr.jaxpr.eqns):
        ins, here = [read(atom) for atom in eqn.invars], (*path, i)
        for index in job.held.get(here, ()):
            held[here, index] = ins[index]
        if here not in job.prefixes:
            outs = bind(eqn, ins)
        elif here in job.changes or here in job.taps or here in job.held:
            outs = _touched(eqn, ins, here, job, held)
            if here in job.taps:
                found[here] = outs[0]
        else:
            outs, inner_found = _descend(eqn, ins, here, job, held)
            found.update(inner_found)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(atom) for atom in jaxpr.jaxpr.outvars], found


def _touched(eqn, ins, here, job, held) -> Sequence[Any]:
    change = job.changes.get(here)
    if change is None:
        return bind(eqn, ins)
    missing = [path for path, index in change.holds if (path, index) not in held]
    if missing:
        raise ValueError(
            f"a layer of this network begins inside of a rematerialized function and ends outside of it, "
            f"at step {here}: no rule can be put there; write the layer in one function"
        )
    others = bind(eqn, ins)[1:] if len(eqn.outvars) > 1 else []
    values = [held[operand] for operand in change.holds]
    return [change.replaced(lambda *xs: bind(eqn, xs)[0], ins, values), *others]


def _descend(eqn, ins, path, job, held) -> tuple[Sequence[Any], dict[Path, Any]]:
    def run(inner, path, held):
        def body(*xs):
            with named(eqn):
                return _run(inner, xs, path, job, held)

        return body

    name, inner = eqn.primitive.name, inner_programs(eqn)
    if name == "scan":
        return _descend_scan(eqn, ins, path, job, held)
    if name == "cond":
        branches = [run(branch, (*path, b), dict(held)) for b, branch in enumerate(inner)]
        return jax.lax.switch(ins[0], [lambda *xs, f=f: f(*xs)[0] for f in branches], *ins[1:]), {}
    if name in ("remat2", "checkpoint", "remat"):
        params = {k: eqn.params[k] for k in ("policy", "prevent_cse")}
        return jax.checkpoint(run(inner[0], path, dict(held)), **params)(*ins)
    return run(inner[0], path, held)(*ins)


def _descend_scan(eqn, ins, path, job, held) -> tuple[Sequence[Any], dict[Path, Any]]:
    length, body, is_reverse = eqn.params["length"], eqn.params["jaxpr"], eqn.params["reverse"]
    consts, carry, rows = scan_inputs(eqn, ins)
    num_carry, depth = len(carry), len(path)
    taps = [target for target in job.taps if target[:depth] == path]

    def step(carry, row):
        number, *row = row
        here = _Job(_at_every_step(job.changes, path, number), frozenset(_everywhere(t, depth) for t in taps))
        outs, found = _run(body, [*consts, *carry, *row], (*path, EVERY_STEP), here, dict(held))
        return outs[:num_carry], (outs[num_carry:], found)

    numbers = jax.numpy.arange(length)[:: -1 if is_reverse else 1]
    options = {"reverse": is_reverse, "unroll": eqn.params["unroll"], "length": length}
    carry, (ys, stacked) = jax.lax.scan(step, list(carry), [numbers, *rows], **options)
    found = {}
    for target in taps:
        number = target[depth]
        rows_found = stacked[_everywhere(target, depth)]
        is_one = number != EVERY_STEP
        found[target] = rows_found[length - 1 - number if is_reverse else number] if is_one else rows_found
    return [*carry, *ys], found


def _everywhere(target: Path, depth: int) -> Path:
    return (*target[:depth], EVERY_STEP, *target[depth + 1 :])


def _at_every_step(changes: Mapping[Path, Change], path: Path, number: Any) -> dict[Path, Change]:
    """The changes within a scan, at the paths of its body; those of one step wait for its number."""
    depth = len(path)
    within: dict[Path, Change] = {}
    for target, change in changes.items():
        if target[:depth] != path or len(target) <= depth:
            continue
        if target[depth] != EVERY_STEP:
            before = within.get(_everywhere(target, depth))
            change = _at_one_step(change, target[depth], number, before)
        within[_everywhere(target, depth)] = change
    return within


def _at_one_step(change: Change, wanted: int, number: Any, before: Change | None) -> Change:
    if change.holds:
        raise NotImplementedError("a change that holds other operands is one of every step")

    def replaced(original, inputs, held):
        value = original(*inputs) if before is None else before.replaced(original, inputs, held)
        changed = lambda v: change.replaced(lambda *_: v, inputs, ())  # noqa: E731
        return jax.lax.cond(number == wanted, changed, lambda v: v, value)

    return Change(replaced)
