"""A random network with its weights, its images and everything that it computes."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from tests.transforms.network_graph import KINDS, Building, Network, Op, Value, build, run_all, variables_of
from tests.transforms.plain_evaluation import call, evaluate

TOLERANCE = {"float32": 2e-4, "bfloat16": 0.06, "float16": 0.02}
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
        """The network as its author wrote it: a new function each time, that no cache knows."""
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
        return _arrays(building), [
            relu.array for relu in building.relus if not _is_inside_a_call(relu, network)
        ]

    arrays, kept = call(everything, variables, images)
    if not all(np.isfinite(a.astype(np.float32)).all() for a in arrays.values()):
        raise Degenerate("not finite")
    values = {name: value.to(arrays[name]) for name, value in values.items()}
    places = iter(kept)
    relus = [
        r if _is_inside_a_call(r, network) else dataclasses.replace(r, array=next(places)) for r in relus
    ]
    return Case(network, variables, images, values, arrays, relus)


def _arrays(building: Building) -> dict[str, Any]:
    return {name: value.array for name, value in building.marked.items()}


def _is_inside_a_call(relu, network: Network) -> bool:
    """It was made inside of a call, and its array cannot leave that."""
    return op_of(network, relu.place).kind in CALLS


def op_of(network: Network, name: str) -> Op:
    """The operation of the value `v3`, or of `v3.1` inside it."""
    return network.ops[int(name[1:].split(".")[0]) - 1]


def values_function(case: Case) -> Callable[[Any], dict[str, np.ndarray]]:
    def arrays(variables, images):
        building = Building("plain", case.network.dtype, variables)
        run_all(case.network, building, images)
        return _arrays(building)

    closed, form = jax.make_jaxpr(arrays, return_shape=True)(case.variables, case.images)
    tree = jax.tree.structure(form)
    return lambda images: jax.tree.unflatten(
        tree, evaluate(closed, jax.tree.leaves((case.variables, images)))
    )


def traced_once(case: Case, what: str) -> Iterator[Finding]:
    if len(case.traces) != 1:
        yield Finding("wrong", f"{what} traces the network more than once", str(len(case.traces)))
    case.traces.clear()
