"""Checks what the library says of a random network against what its builder knows.

Every check returns findings: `wrong`, something was said or computed that is not so; `refused`, a rule raised where it
had no reason to; `unknown`, an axis or a receptive field was not followed. A network with no finding is understood.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.transforms.plain_evaluation import call, evaluate
from tests.transforms.random_networks import KINDS, Building, Network, Value, build, run_all, variables_of
from vexplain.transforms import DECONVNET, GUIDED, RESAMPLED_STRIDE, edit, layers, read, with_rules

TOLERANCE = {"float32": 2e-4, "bfloat16": 0.06, "float16": 0.02}
SMALLEST = {"float32": 0.005, "bfloat16": 0.1, "float16": 0.02}  # gradients below these are compared with them
NUM_PIXELS = 4
LOOPS = {"scanned", "looped", "mapped", "branched", "branched_by_images", "running_maximum", "wrapped_norm"}
LOOPS |= {"recurrent_rows", "shared_function"}  # their ReLUs are traced once and run several times
CALLS = LOOPS | {"wrapped", "own_derivative", "vmapped_images", "vmapped_channels"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: `wrong`, `refused` or `unknown`.
        what: in a few words, the same for all networks.
        detail: of this network.
    """

    kind: str
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}: {self.detail}"


class Degenerate(Exception):
    """A network whose numbers are not finite: nothing can be compared."""


@dataclasses.dataclass
class Case:
    """A network with its weights and images, and what it computes."""

    network: Network
    variables: Any
    images: np.ndarray
    values: dict[str, Value]
    arrays: dict[str, np.ndarray]
    relus: list[Any]
    traces: list[int] = dataclasses.field(default_factory=list)
    references: dict[Any, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def apply(self) -> Callable[..., Any]:
        """The network as its author wrote it: a new function each time, so that nothing is taken from a cache."""
        plain = build(self.network)

        def apply(variables, images):
            self.traces.append(1)
            return plain(variables, images)

        return apply

    @property
    def last(self) -> str:
        return f"v{len(self.network.ops)}"

    @property
    def roles(self) -> set[str]:
        return {KINDS[kind].role for kind in self.network.kinds}


def check(network: Network, *, compiled: bool = False) -> list[Finding]:
    """Returns all findings of one network; `compiled` also compares compiled programs."""
    case = make_case(network)
    checks = [_identity, _axes_and_fields, _relu_layers, _rules]
    findings = []
    for one in checks:
        try:
            findings += one(case, compiled) if one is _identity else one(case)
        except Degenerate:
            raise
        except Exception as error:
            findings.append(Finding("wrong", f"{one.__name__[1:]} raised {type(error).__name__}", str(error)[:600]))
    return findings


def make_case(network: Network) -> Case:
    variables = variables_of(network)
    rng = np.random.default_rng([network.seed, 1])
    images = rng.normal(size=network.image_shape).astype(np.float32)
    relus: list[Any] = []
    values: dict[str, Value] = {}

    def everything(variables, images):
        building = Building("plain", network.dtype, variables)
        run_all(network, building, images)
        relus.extend(building.relus)
        values.update(building.marked)
        return _arrays(building), [relu.array for relu in building.relus if not _is_inside_a_call(relu, network)]

    arrays, kept = call(everything, variables, images)
    if not all(np.isfinite(a.astype(np.float32)).all() for a in arrays.values()):
        raise Degenerate("not finite")
    values = {name: value.to(arrays[name]) for name, value in values.items()}
    places = iter(kept)
    relus = [r if _is_inside_a_call(r, network) else dataclasses.replace(r, array=next(places)) for r in relus]
    return Case(network, variables, images, values, arrays, relus)


def _arrays(building: Building) -> dict[str, Any]:
    return {name: value.array for name, value in building.marked.items()}


def _is_inside_a_call(relu, network: Network) -> bool:
    """It was made inside of a call, and its array cannot leave that."""
    return _op(network, relu.place).kind in CALLS


# ------------------------------------------------------------------------------- reading and editing


def _identity(case: Case, compiled: bool) -> list[Finding]:
    """Reading and editing by the identity leave every bit as it is."""
    network, args = case.network, (case.variables, case.images)
    case.traces.clear()
    table = layers(case.apply, *args)
    findings = list(_traced_once(case, "layers"))
    names = [layer.name for layer in table if layer.inside is None]
    expected = case.arrays[case.last].astype(np.float32)
    reading = read(case.apply, names)
    editing = edit(case.apply, {name: lambda a: a for name in names})
    out, found = call(reading, *args)
    findings += _traced_once(case, "read")
    edited = call(editing, *args)
    findings += _traced_once(case, "edit")
    for name in names:
        if found[name].shape != table[name].shape:
            findings.append(Finding("wrong", "shape of a layer", f"{name}: {found[name].shape}, {table[name].shape}"))
    same = [np.array_equal(out, expected), np.array_equal(edited, expected)]
    if compiled or not all(same):
        plain = jax.jit(build(network))(*args)
        same = [np.array_equal(jax.jit(fn)(*args), plain) for fn in (lambda *a: reading(*a)[0], editing)]
    for what, is_same in zip(("read", "edit"), same, strict=True):
        if not is_same:
            findings.append(Finding("wrong", f"{what} changes bits of the outputs", ""))
    return findings


def _traced_once(case: Case, what: str) -> Iterator[Finding]:
    if len(case.traces) != 1:
        yield Finding("wrong", f"{what} traces the network more than once", str(len(case.traces)))
    case.traces.clear()


# ------------------------------------------------------------------------- axes and receptive fields


def _axes_and_fields(case: Case) -> list[Finding]:
    """The axes of every value, by a copy of the network that names them; fields by changed pixels."""
    network, args = case.network, (case.variables, case.images)
    table = layers(build(network, "named"), *args)
    findings, known = [], {}
    for name, value in case.values.items():
        if name in table:
            known[name] = table[name]
            findings += axes_findings(table[name], value, network, name)
        else:
            findings.append(Finding("unknown", "a value is left out of the table", name + " " + _op(network, name).kind))
    return [*findings, *_field_findings(case, known), *_batch_findings(case, known)]


def _op(network: Network, name: str) -> Any:
    """The operation of the value `v3`, or of `v3.1` inside it."""
    return network.ops[int(name[1:].split(".")[0]) - 1]


def axes_findings(layer: Any, value: Value, network: Network, name: str) -> Iterator[Finding]:
    """What is wrong or unknown of a layer's axes."""
    where = f"{name} {_op(network, name).kind} {value.array.shape} {value.layout}"
    said = f"{where}: batch {layer.batch_axis}, space {layer.spatial_axes}, channels {layer.channel_axis}"
    truth = None if value.mixed or "n" not in value.layout else value.axis("n")
    if layer.batch_axis != truth:
        yield Finding("unknown" if layer.batch_axis is None else "wrong", "batch axis", said)
    for letter, axis in zip("hw", layer.spatial_axes, strict=True):
        right = value.layout.index(letter) if letter in value.layout else None
        if axis != right and not (value.moved and axis is None):
            yield Finding("unknown" if axis is None else "wrong", "spatial axis", said)
    for letter, axis, field, size in zip("hw", layer.spatial_axes, layer.fields, layer.image_size, strict=True):
        is_whole = field.jump == 0 and field.pixels(0) == (0, size)
        if axis is not None and is_whole and value.local["hw".index(letter)] is True:
            yield Finding("unknown", "receptive field", said)
    if "c" in value.layout and layer.channel_axis != value.axis("c"):
        yield Finding("unknown" if layer.channel_axis is None else "wrong", "channel axis", said)


def _values_function(case: Case) -> Callable[[Any], dict[str, np.ndarray]]:
    def arrays(variables, images):
        building = Building("plain", case.network.dtype, variables)
        run_all(case.network, building, images)
        return _arrays(building)

    closed, form = jax.make_jaxpr(arrays, return_shape=True)(case.variables, case.images)
    tree = jax.tree.structure(form)
    return lambda images: jax.tree.unflatten(tree, evaluate(closed, jax.tree.leaves((case.variables, images))))


def _changed(case: Case, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    before, after = before.astype(np.float32), after.astype(np.float32)
    return ~(np.abs(after - before) <= 0.01 * TOLERANCE[case.network.dtype] * np.abs(before).max())


def _field_findings(case: Case, known: dict[str, Any]) -> list[Finding]:
    """No pixel changes what does not see it."""
    _, height, width, channels = case.images.shape
    rng = np.random.default_rng([case.network.seed, 2])
    run, findings = _values_function(case), []
    for _ in range(NUM_PIXELS):
        r, c = int(rng.integers(height)), int(rng.integers(width))
        images = case.images.copy()
        images[:, r, c] += rng.normal(size=channels) * 3 + 1
        for name, after in run(images).items():
            if name in known:
                changed = _changed(case, case.arrays[name], after)
                findings += _outside(known[name], changed, (r, c), f"{name} {_op(case.network, name).kind}")
    return list({f.what + f.detail.split(":")[0]: f for f in findings}.values())


def _outside(layer: Any, changed: np.ndarray, pixel: tuple[int, int], where: str) -> Iterator[Finding]:
    rows, columns = layer.spatial_axes
    kept = [a for a in (rows, columns) if a is not None]
    found = changed.any(tuple(a for a in range(changed.ndim) if a not in kept))
    if rows is not None and columns is not None and rows > columns:
        found = found.T
    found = found.reshape([1 if a is None else changed.shape[a] for a in (rows, columns)])
    for says in (layer.visible, layer.window):
        sees_row = [says(i, 0)[0] <= pixel[0] < says(i, 0)[2] for i in range(found.shape[0])]
        sees_column = [says(0, j)[1] <= pixel[1] < says(0, j)[3] for j in range(found.shape[1])]
        outside = np.argwhere(found & ~np.outer(sees_row, sees_column))
        if len(outside):
            i, j = outside[0]
            detail = f"{where}: position {(int(i), int(j))} sees pixel {pixel}; {says.__name__} {says(int(i), int(j))}"
            yield Finding("wrong", "a receptive field is too small", detail)


def _batch_findings(case: Case, known: dict[str, Any]) -> Iterator[Finding]:
    """Another first image changes the first one alone along what is called the batch."""
    rng = np.random.default_rng([case.network.seed, 3])
    images = case.images.copy()
    images[0] = rng.normal(size=images.shape[1:])
    for name, after in _values_function(case)(images).items():
        changed = _changed(case, case.arrays[name], after)
        value = case.values[name]
        if "n" in value.layout and not value.mixed:
            others = np.delete(changed, 0, value.axis("n"))
            if others.any():
                raise AssertionError(f"the builder is wrong about the batch of {name}")
        axis = known[name].batch_axis if name in known else None
        if axis is not None and np.delete(changed, 0, axis).any():
            yield Finding("wrong", "what is called the batch is none", f"{name} {_op(case.network, name).kind}")


def _relu_layers(case: Case) -> list[Finding]:
    """The ReLUs of the network as its author wrote it are listed, in order, with their axes."""
    network = case.network
    if LOOPS & set(network.kinds) or any(r.may_be_refused for r in case.relus):
        return []
    table = layers(build(network), case.variables, case.images)
    found = [layer for layer in table if layer.kind in ("relu", "relu6")]
    if len(found) != len(case.relus):
        names = ", ".join(f"{r.place} {_op(network, r.place).kind}" for r in case.relus)
        detail = f"{[layer.name for layer in found]} of the ReLUs at {names}"
        return [Finding("unknown", "ReLUs are missing in the table, or too many", detail)]
    findings = []
    reachable = [layer.name for layer in found if layer.inside is None]
    arrays = call(read(build(network), reachable), case.variables, case.images)[1]
    for layer, relu in zip(found, case.relus, strict=True):
        kind, value = _op(network, relu.place).kind, case.values[relu.place]
        if kind in ("relu", "relu6"):
            findings += axes_findings(layer, value, network, relu.place)
        is_whole = layer.kind == "relu6" or not relu.is_relu6
        if layer.name in arrays and isinstance(relu.array, np.ndarray) and is_whole:
            a, b = arrays[layer.name], relu.array
            if a.shape != b.shape or not np.array_equal(a, b):
                findings.append(Finding("wrong", "the value of a ReLU", f"{layer.name} at {relu.place} {kind}"))
    return findings


# ---------------------------------------------------------------------------------------- the rules


def _rules(case: Case) -> list[Finding]:
    findings = _rule(case, GUIDED, "guided")
    if case.network.seed % 3 == 0 and not any(r.is_relu6 for r in case.relus):
        findings += _rule(case, DECONVNET, "deconvnet")
    if case.network.seed % 4 == 1:
        findings += _rule(case, RESAMPLED_STRIDE, "resampled")
    return findings


def _rule(case: Case, rule: Any, mode: str) -> list[Finding]:
    """The gradient is that of the network with custom derivatives, or the network is refused for a reason."""
    findings: list[Finding] = []
    case.traces.clear()
    found = _attempted(case, with_rules(case.apply, rule, on_unmatched="ignore"))
    findings += _traced_once(case, "with_rules")
    is_refused = isinstance(found, str)
    covers = mode != "resampled"
    uncovered = [str(op) for op in case.network.ops if KINDS[op.kind].role == "uncovered" and covers]
    if is_refused and (case.roles <= {"covered", "head"} or not covers):
        findings += _refusals(mode, found)
    if is_refused and uncovered and "flexible" not in case.roles:
        control = build(case.network, "linear")
        again = _attempted(case, with_rules(control, rule, on_unmatched="ignore"))
        if isinstance(again, str):
            findings += _refusals(mode, again)
    if not is_refused and uncovered:
        findings.append(Finding("wrong", f"{mode} passes over {_named(uncovered)}", "; ".join(uncovered)))
    if not is_refused and not _is_close(case, found, _reference(case, mode)):
        findings.append(Finding("wrong", f"{mode} gradient", _difference(found, _reference(case, mode))))
    if not covers or not is_refused and case.network.seed % 4:
        return findings  # it would be the same program
    options = {"on_uncovered": "gradient", "on_unmatched": "ignore"}
    kept = _attempted(case, with_rules(case.apply, rule, **options))
    if isinstance(kept, str):
        if "flexible" not in case.roles and not uncovered:
            findings += _refusals(f"{mode}, gradients kept", kept)
    elif not any(_is_close(case, kept, reference) for reference in _references(case, mode)):
        detail = _difference(kept, _reference(case, mode))
        findings.append(Finding("wrong", f"{mode} gradient where others are kept", detail))
    return findings


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


def _references(case: Case, mode: str) -> Iterator[np.ndarray]:
    """With all ReLUs ruled, then with each choice of those in disguise that keep their derivative."""
    places = sorted({relu.place for relu in case.relus if relu.may_be_refused})
    for n in range(len(places) + 1):
        for chosen in itertools.combinations(places[:4], n):
            yield _reference(case, mode, frozenset(chosen))


def _is_close(case: Case, found: np.ndarray, expected: np.ndarray) -> bool:
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=SMALLEST[case.network.dtype])
    near = np.isclose(found, expected, rtol=0, atol=TOLERANCE[case.network.dtype] * scale, equal_nan=True)
    return bool(near.all())


def _difference(found: np.ndarray, expected: np.ndarray) -> str:
    return f"differs by {np.abs(found - expected).max():.3g} of {np.abs(expected).max():.3g}"
