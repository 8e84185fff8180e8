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
_LEAKY = ("leaky_relu", "where(x > 0, x, 0.1 x)")


def check_rules(case: Case) -> list[Finding]:
    findings = check_rule(case, GUIDED, "guided")
    if case.network.seed % 3 == 0 and not any(r.is_relu6 for r in case.relus):
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
    gates = [relu.place for relu in case.relus if relu.is_gate]
    if not is_refused and not _is_close_to_one(case, found, mode, gates):
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
    """The operations of which no rule knows; a leaky ReLU before a ReLU is that ReLU."""
    found = []
    for number, op in enumerate(network.ops, 1):
        users = [user for user in network.ops if number in user.inputs]
        is_leaky = dict(op.options).get("function") in _LEAKY
        is_relu = is_leaky and users and all(user.kind == "relu" for user in users)
        if KINDS[op.kind].role == "uncovered" and not is_relu:
            found.append(str(op))
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
