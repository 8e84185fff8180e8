"""Checks what the library says of a random network against what its builder knows.

Every check returns findings: `wrong`, something was said or computed that is not so; `refused`, a rule raised
where it had no reason to; `unknown`, an axis or a receptive field was not followed. A network with no finding
is understood.
"""

import dataclasses

import jax
import numpy as np

from tests.transforms.check_axes import axes_findings, check_axes
from tests.transforms.check_rules import check_rules
from tests.transforms.network_case import LOOPS, Case, Finding, make_case, op_of, traced_once
from tests.transforms.network_graph import Network, build
from tests.transforms.plain_evaluation import call
from vexplain.transforms import edit, layers, read


def check(network: Network, *, compiled: bool = False) -> list[Finding]:
    """Returns all findings of one network; `compiled` also compares compiled programs.

    A difference in low precision, where a maximum may turn with the order of a sum, counts where it is there
    in float32 too.
    """
    findings = _findings(network, compiled)
    is_low = network.dtype != "float32" and any(f.detail.startswith("differs by") for f in findings)
    if not is_low:
        return findings
    again = {f.what for f in _findings(dataclasses.replace(network, dtype="float32"), compiled)}
    return [f for f in findings if not f.detail.startswith("differs by") or f.what in again]


def _findings(network: Network, compiled: bool) -> list[Finding]:
    case = make_case(network)
    checks = {
        "reading and editing": lambda: _identity(case, compiled),
        "editing": lambda: _edited_values(case),
        "axes": lambda: check_axes(case),
        "the table of ReLUs": lambda: _relu_layers(case),
        "rules": lambda: check_rules(case),
    }
    findings = []
    for name, run in checks.items():
        try:
            findings += run()
        except Exception as error:
            findings.append(Finding("wrong", f"{name} raised {type(error).__name__}", str(error)[:600]))
    return findings


def _identity(case: Case, compiled: bool) -> list[Finding]:
    """Reading and editing by the identity leave every bit as it is."""
    network, args = case.network, (case.variables, case.images)
    case.traces.clear()
    table = layers(case.apply, *args)
    findings = list(traced_once(case, "layers"))
    names = [layer.name for layer in table if layer.inside is None]
    expected = case.arrays[case.last].astype(np.float32)
    reading = read(case.apply, names)
    editing = edit(case.apply, {name: lambda a: a for name in names})
    out, found = call(reading, *args)
    findings += traced_once(case, "read")
    edited = call(editing, *args)
    findings += traced_once(case, "edit")
    for name in names:
        if found[name].shape != table[name].shape:
            findings.append(
                Finding("wrong", "shape of a layer", f"{name}: {found[name].shape}, {table[name].shape}")
            )
    same = [np.array_equal(out, expected), np.array_equal(edited, expected)]
    if compiled or not all(same):
        plain = jax.jit(build(network))(*args)
        same = [np.array_equal(jax.jit(fn)(*args), plain) for fn in (lambda *a: reading(*a)[0], editing)]
    for what, is_same in zip(("read", "edit"), same, strict=True):
        if not is_same:
            findings.append(Finding("wrong", f"{what} changes bits of the outputs", ""))
    return findings


def _edited_values(case: Case) -> list[Finding]:
    """Every value is read as it was computed, and one is edited as if its author had written that."""
    args, findings = (case.variables, case.images), []
    named = build(case.network, "named")
    names = [layer.name for layer in layers(named, *args) if layer.name in case.arrays]
    found = call(read(named, names), *args)[1]
    for name in names:
        if not np.array_equal(found[name], case.arrays[name]):
            kind = op_of(case.network, name).kind
            findings.append(Finding("wrong", f"what is read after {kind}", name))
            break
    if names:
        name = names[case.network.seed % len(names)]
        edited = call(edit(named, {name: lambda a: 2 * a}), *args)
        if not np.array_equal(edited, call(build(case.network, doubled=name), *args), equal_nan=True):
            findings.append(Finding("wrong", f"an edit after {op_of(case.network, name).kind}", name))
    return findings


def _relu_layers(case: Case) -> list[Finding]:
    """The ReLUs of the network as its author wrote it are listed, in order, with their axes."""
    network = case.network
    if LOOPS & set(network.kinds) or any(r.may_be_refused for r in case.relus):
        return []
    table = layers(build(network), case.variables, case.images)
    found = [layer for layer in table if layer.kind in ("relu", "relu6")]
    if len(found) != len(case.relus):
        names = ", ".join(f"{r.place} {op_of(network, r.place).kind}" for r in case.relus)
        detail = f"{[layer.name for layer in found]} of the ReLUs at {names}"
        return [Finding("unknown", "ReLUs are missing in the table, or too many", detail)]
    findings = []
    reachable = [layer.name for layer in found if layer.inside is None]
    arrays = call(read(build(network), reachable), case.variables, case.images)[1]
    for layer, relu in zip(found, case.relus, strict=True):
        kind, value = op_of(network, relu.place).kind, case.values[relu.place]
        if kind in ("relu", "relu6"):
            found = axes_findings(layer, value, network, relu.place)
            findings += [
                f for f in found if f.kind == "wrong"
            ]  # the unknown ones are those of the named values
        is_whole = layer.kind == "relu6" or not relu.is_relu6
        if layer.name in arrays and isinstance(relu.array, np.ndarray) and is_whole:
            a, b = arrays[layer.name], relu.array
            if a.shape != b.shape or not np.array_equal(a, b):
                findings.append(
                    Finding("wrong", "the value of a ReLU", f"{layer.name} at {relu.place} {kind}")
                )
    return findings
