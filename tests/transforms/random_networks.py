"""Random networks of known truth: `draw` makes one from an integer, `shrunk` a smaller one that still fails.

What a network computes, what a guided ReLU sends back and which axis is which is known to the operations
that it is made of, in `network_layers`, `network_axes`, `network_norms`, `network_activations`,
`network_products`, `network_blocks`, `network_structures` and `framework_layers`.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from tests.transforms import (  # noqa: F401  (they register their operations)
    framework_layers,
    network_activations,
    network_axes,
    network_blocks,
    network_layers,
    network_norms,
    network_products,
    network_structures,
)
from tests.transforms.network_graph import KINDS, Building, DoesNotFit, Network, Op, Value, forms, run_one

MAX_ELEMENTS = 1600  # of a value, without the batch
BATCHES, HEIGHTS, WIDTHS, CHANNELS = (1, *(2, 3) * 8), (6, 7, 8, 9, 10), (8, 9, 10, 11, 12), (2, 3, 4, 5)


def draw(seed: int) -> Network:
    """Returns the network of a seed: 5 to 30 operations, the last one a head."""
    rng = np.random.default_rng(seed)
    while True:
        network = _drawn(seed, rng)
        if 5 <= len(network.ops) <= 30:
            return network


def _drawn(seed: int, rng: np.random.Generator) -> Network:
    sizes = [int(rng.choice(choices)) for choices in (BATCHES, HEIGHTS, WIDTHS, CHANNELS)]
    if rng.random() < 0.2:  # nothing may depend on sizes that tell the axes apart
        sizes[2] = sizes[1]
    if rng.random() < 0.1:
        sizes[3] = sizes[0]
    dtype = str(rng.choice(["float32", "bfloat16", "float16"], p=[0.9, 0.05, 0.05]))
    network = Network((sizes[0], sizes[1], sizes[2], sizes[3]), dtype, (), seed)
    style = str(rng.choice(["covered", "one uncovered", "flexible", "any"], p=[0.45, 0.25, 0.2, 0.1]))
    length = int(rng.integers(5, 40))
    place = int(rng.integers(0, length)) if style == "one uncovered" else -1
    values = forms(network)
    for i in range(length):
        roles = {"flexible": ("covered", "flexible"), "any": ("covered", "flexible", "uncovered")}
        allowed = ("uncovered",) if i == place else roles.get(style, ("covered",))
        network, values = _grown(network, values, rng, allowed)
    network = pruned(_grown(network, values, rng, ("head",))[0])
    is_lost = style == "one uncovered" and not any(KINDS[kind].role == "uncovered" for kind in network.kinds)
    return dataclasses.replace(network, ops=()) if is_lost else network


def _grown(network: Network, values: list[Value], rng, roles: tuple[str, ...]) -> tuple[Network, list[Value]]:
    names = [name for name, kind in KINDS.items() if kind.role in roles]
    weights = np.array([KINDS[name].weight for name in names])
    for _ in range(60):
        name = str(rng.choice(names, p=weights / weights.sum()))
        try:
            inputs, options = KINDS[name].draw(rng, values)
            op = Op(name, inputs, tuple(options.items()), int(rng.integers(2**31)))
            value = _form(op, len(values), network, values)
        except DoesNotFit:
            continue
        if int(np.prod(value.array.shape)) <= MAX_ELEMENTS * network.image_shape[0]:
            return dataclasses.replace(network, ops=(*network.ops, op)), [*values, value]
    return network, values


def _form(op: Op, index: int, network: Network, values: list[Value]) -> Value:
    found: list[Value] = []
    building = Building("plain", network.dtype)

    def run(*arrays):
        given = [v.to(a) for v, a in zip(values, arrays, strict=True)]
        found.append(run_one(op, index, building, given))
        return found[0].array

    try:
        array = jax.eval_shape(run, *(v.array for v in values))
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise DoesNotFit(str(error)) from error
    sizes = dict(zip(found[0].layout, array.shape, strict=True))
    if 0 in array.shape or min(sizes.get("h", 2), sizes.get("w", 2)) < 2:
        raise DoesNotFit("too small")
    return found[0].to(array)


def pruned(network: Network) -> Network:
    """Without what does not reach the output."""
    needed, waiting = set(), [len(network.ops)]
    while waiting:
        i = waiting.pop()
        if i and i not in needed:
            needed.add(i)
            waiting.extend(network.ops[i - 1].inputs)
    return without(network, [i for i in range(1, len(network.ops) + 1) if i not in needed])


def without(network: Network, dropped: list[int]) -> Network:
    """Without some operations: what used them takes their first input."""
    place = {0: 0}
    ops: list[Op] = []
    for i, op in enumerate(network.ops, 1):
        if i in dropped:
            place[i] = place[op.inputs[0]]
        else:
            ops.append(dataclasses.replace(op, inputs=tuple(place[j] for j in op.inputs)))
            place[i] = len(ops)
    return dataclasses.replace(network, ops=tuple(ops))


def shrunk(network: Network, fails: Callable[[Network], bool], most_tries: int = 150) -> Network:
    """Returns a smaller network that still fails: operations are dropped while that lasts."""
    tries = 0
    for size in (8, 4, 2, 1, 1):
        last = len(network.ops)
        while last > 0 and tries < most_tries:
            candidate = pruned(without(network, list(range(max(1, last - size + 1), last + 1))))
            last -= size
            if 0 < len(candidate.ops) < len(network.ops) and _is_valid(candidate):
                tries += 1
                if fails(candidate):
                    network, last = candidate, min(last, len(candidate.ops))
    return network


def _is_valid(network: Network) -> bool:
    try:
        forms(network)
    except DoesNotFit:
        return False
    return True
