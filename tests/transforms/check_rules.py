"""Checks the rules on a random network: the gradient of the same network written with them, or a refusal."""

import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.transforms.network_case import TOLERANCE, Case, Finding, traced_once
from tests.transforms.network_graph import KINDS, Network, build
from tests.transforms.plain_evaluation import call
from vexplain.transforms import DECONVNET, GUIDED, RESAMPLED_POOL, RESAMPLED_STRIDE, layers, with_rules

LOOSE = 0.1
SMALLEST = {"float32": 0.005, "bfloat16": 0.1, "float16": 0.02}  # smaller gradients are compared with these
# Before a ReLU they are that ReLU: what is positive of them is x, or a multiple of it.
_LEAKY = ("leaky_relu", "where(x > 0, x, 0.1 x)", "maximum(x, 0.1 x)", "prelu", "where(x > 0, 2 x, x)")
_LEAKY += ("elu", "elu by where", "celu", "selu")
_BOUNDS = ("minimum(x, 1)", "maximum(x, 0.3)")  # next to a ReLU or a clipped one, both are one clipped ReLU
_CLIPPED = ("relu", "relu6", "clipped")


def check_rules(case: Case) -> list[Finding]:
    findings = check_rule(case, GUIDED, "guided")
    if case.network.seed % 3 == 0 and not _has_bound_relus(case):
        findings += check_rule(case, DECONVNET, "deconvnet")
    if case.network.seed % 4 == 1:
        findings += check_rule(case, RESAMPLED_STRIDE, "resampled")
    if case.network.seed % 8 == 2:
        findings += check_rule(case, GUIDED | RESAMPLED_STRIDE, "guided and resampled")
    if case.network.seed % 4 == 3:
        findings += check_pooled(case)
    return findings


def check_pooled(case: Case) -> list[Finding]:
    """As `check_rule`, where all poolings could be followed and no other operation has windows."""
    kinds = [op.kind for op in case.network.ops]
    if not {"own_window", "of_itself"}.isdisjoint(kinds):
        return []
    count = sum(bool(layer.pooled) for layer in layers(case.apply, case.variables, case.images))
    if count < sum(kind in ("max_pool", "avg_pool") for kind in kinds):
        return [Finding("unknown", "a pooling is left alone", f"{count} are not")]
    if case.network.seed % 8 == 3:
        return check_rule(case, RESAMPLED_POOL, "pooled")
    return check_rule(case, GUIDED | RESAMPLED_POOL, "guided and pooled")


def check_rule(case: Case, rule: Any, mode: str) -> list[Finding]:
    """The gradient is that of the network with custom derivatives, or the network is refused for a reason."""
    findings: list[Finding] = []
    case.traces.clear()
    found = _attempted(case, with_rules(case.apply, rule, on_unmatched="ignore"))
    findings += traced_once(case, "with_rules")
    is_refused = isinstance(found, str)
    covers = mode not in ("resampled", "pooled")
    uncovered = _uncovered(case.network) if covers else []
    if is_refused and (case.roles <= {"covered", "head"} or not covers):
        findings += _refusals(mode, found)
    if is_refused and uncovered and "flexible" not in case.roles:
        control = build(case.network, "linear")
        again = _attempted(case, with_rules(control, rule, on_unmatched="ignore"))
        if isinstance(again, str):
            findings += _refusals(mode, again)
    if not is_refused and uncovered:
        findings.append(Finding("wrong", f"{mode} passes over {_named(uncovered)}", "; ".join(uncovered)))
    may_be_plain = [relu.place for relu in case.relus if relu.is_gate] + _in_a_residual(case)
    if not is_refused and not _is_close_to_one(case, found, mode, may_be_plain):
        findings.append(Finding("wrong", f"{mode} gradient", _difference(found, _reference(case, mode))))
    if not covers or (not is_refused and case.network.seed % 4):
        return findings  # it would be the same program
    options = {"on_uncovered": "gradient", "on_unmatched": "ignore"}
    kept = _attempted(case, with_rules(case.apply, rule, **options))
    if isinstance(kept, str):
        if "flexible" not in case.roles and not uncovered:
            findings += _refusals(f"{mode}, gradients kept", kept)
    elif not _is_close_to_one(case, kept, mode, [r.place for r in case.relus if r.may_be_refused]):
        detail = _difference(kept, _reference(case, mode))
        findings.append(Finding("wrong", f"{mode} gradient where others are kept", detail))
    return findings


def _uncovered(network: Network) -> list[str]:
    """The operations of which no rule knows; what makes one ReLU with its neighbor is none of them."""
    numbered = enumerate(network.ops, 1)
    return [
        str(op)
        for number, op in numbered
        if KINDS[op.kind].role == "uncovered" and not _is_one_with_its_neighbor(network, number)
    ]


def _is_one_with_its_neighbor(network: Network, number: int) -> bool:
    op = network.ops[number - 1]
    function = dict(op.options).get("function")
    before = [network.ops[n - 1] for n in op.inputs if n]
    after = {user.kind for user in network.ops if number in user.inputs}
    if function in _LEAKY:
        return after == {"relu"}
    if function in _BOUNDS:
        return any(other.kind in _CLIPPED for other in before) or (bool(after) and after <= {*_CLIPPED})
    if op.kind == "larger":  # of a value and itself
        return any(o.inputs[0] in op.inputs and dict(o.options).get("how") == "identity" for o in before)
    return False


def _has_bound_relus(case: Case) -> bool:
    """Whether the network has clipped ReLUs, of which deconvolution does not say what they send back."""
    functions = {dict(op.options).get("function") for op in case.network.ops}
    return any(r.is_relu6 for r in case.relus) or not functions.isdisjoint(_BOUNDS)


def _in_a_residual(case: Case) -> list[str]:
    """ReLUs of which, with what went around them, another is taken: both can be one ReLU of two slopes."""
    ops = case.network.ops
    found = []
    for number, op in enumerate(ops, 1):
        around = [u for u, user in enumerate(ops, 1) if {number, *op.inputs} <= set(user.inputs)]
        ends = [user for user in ops if set(around) & set(user.inputs)]
        if op.kind in _CLIPPED and any(user.kind in _CLIPPED for user in ends):
            found.append(f"v{number}")
    return found


def _named(uncovered: list[str]) -> str:
    return re.sub(r"\bv[0-9]+, ", "", uncovered[0])


def _refusals(mode: str, message: str) -> list[Finding]:
    """One finding for each kind that an error names, or for its text without the names of layers."""
    kinds = sorted(set(re.findall(r"\(([a-z_0-9: ]+)\)", message)))
    reasons = kinds or [re.sub(r"'[^']*'|[0-9]+", "…", message)[:80]]
    return [Finding("refused", f"{mode}: {reason}", message[:400]) for reason in reasons]


def _attempted(case: Case, fn: Callable[..., Any]) -> np.ndarray | str:
    try:
        return _gradient(case, fn)
    except ValueError as error:
        return str(error)


def _gradient(case: Case, fn: Callable[..., Any]) -> np.ndarray:
    shape = (case.images.shape[0], 5)
    cotangent = np.random.default_rng([case.network.seed, 4]).normal(0.4, 1, shape).astype(np.float32)

    def pulled_back(images):
        return jax.vjp(lambda x: fn(case.variables, x), images)[1](jnp.asarray(cotangent))[0]

    return call(pulled_back, case.images)


def _reference(case: Case, mode: str, plain_at: frozenset[str] = frozenset()) -> np.ndarray:
    if (mode, plain_at) not in case.references:
        found = _gradient(case, build(case.network, mode, plain_at=plain_at))
        case.references[mode, plain_at] = found
    return case.references[mode, plain_at]


def _is_close_to_one(case: Case, found: np.ndarray, mode: str, may_be_plain: list[str]) -> bool:
    """To the reference with all ReLUs ruled, or with a choice of these that keep their derivative."""
    places = sorted(set(may_be_plain))[:4]
    choices = (c for n in range(len(places) + 1) for c in itertools.combinations(places, n))
    return any(_is_close(case, found, _reference(case, mode, frozenset(chosen))) for chosen in choices)


def _is_close(case: Case, found: np.ndarray, expected: np.ndarray) -> bool:
    """Number by number; in low precision, where a sign may turn with the order of a sum, in the mean."""
    is_finite, dtype = np.isfinite(expected), case.network.dtype
    if not np.array_equal(np.isfinite(found), is_finite):
        return False
    expected, difference = expected[is_finite], np.abs(found - expected)[is_finite]
    if dtype == "float32":
        return bool((difference <= TOLERANCE[dtype] * np.abs(expected).max(initial=SMALLEST[dtype])).all())
    return bool(np.linalg.norm(difference) <= LOOSE * max(np.linalg.norm(expected), SMALLEST[dtype]))


def _difference(found: np.ndarray, expected: np.ndarray) -> str:
    return f"differs by {np.abs(found - expected).max():.3g} of {np.abs(expected).max():.3g}"
