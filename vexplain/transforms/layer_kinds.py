"""Tells what kind of layer a step of a traced program is, and of which steps it consists.

Structure decides, not the library that the network was written in: `max(x, 0)`, `where(x > 0, x, 0)` and
`jax.nn.relu` are all a ReLU; the same maximum inside a normalization layer, which keeps a variance from being
negative, is none. Nor do the axes decide: a layer whose batch axis cannot be followed is a layer.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from vexplain.transforms.contraction import mixes_channels
from vexplain.transforms.divisors import is_statistic
from vexplain.transforms.flow import COLUMN, ROW, Flow
from vexplain.transforms.nonlinearities import ACTIVATION_KINDS, span_of_nonlinearity
from vexplain.transforms.normalization import closes_norm, is_bias, is_broadcast_again, norm_input
from vexplain.transforms.program import Equation, Value
from vexplain.transforms.response_norm import is_inside_response_norm, response_norm_operand

LINEAR_KINDS = ("conv", "dense", "norm", "pool", "add", "concatenate", "named")
KINDS = frozenset(LINEAR_KINDS) | ACTIVATION_KINDS
OBSTACLE = "obstacle"


@dataclasses.dataclass(frozen=True, eq=False)
class Draft:
    """A layer before it has a name: from the values that enter its steps to the value that leaves them.

    `step` is the operation itself, whose parameters a rule may want to know; `entering` the activation before
    the layer; `bounds` those between which the derivative of a clipped activation function is not zero.
    The others are known for rules of propagation only (`spans`): a linear layer that takes pixels, one after
    which no other comes, whether what enters is 0 or more, and where the batch axes of its values are.
    """

    kind: str
    step: Equation
    entering: Value
    steps: tuple[Equation, ...]
    bounds: tuple[float, float] | None = None
    is_first: bool = False
    is_last: bool = False
    is_nonnegative: bool = False
    batches: Mapping[Value, tuple[int, int] | None] = dataclasses.field(default_factory=dict)

    @property
    def leaving(self) -> Value:
        return self.steps[-1].out


def find_layers(steps: Sequence[Equation], flows: dict[Value, Flow]) -> list[Draft]:
    """Returns the layers of a flat program in the order in which their values are made."""
    moving = [step for step in steps if any(v.depends_on_images for v in step.inputs)]
    drafts: list[Draft] = []
    covered: set[Equation] = set()
    used = used_steps(moving)
    moving = [step for step in moving if step in used or not step.outputs]
    for step in moving:
        if step in covered or step.opaque:
            continue
        span = span_of_nonlinearity(step, flows, covered)
        if span is not None:
            covered.update(span.steps)
            bounds = span.spelling.bounds
            drafts.append(Draft(span.spelling.kind, step, span.entering, span.steps, bounds))
    for step in moving:
        draft = None if step in covered else _linear(step, flows)
        if draft is not None:
            drafts.append(draft)
            covered.update(draft.steps if draft.kind == "pool" else ())
    return sorted(drafts, key=lambda draft: (draft.step.order, draft.steps[-1].order))


def used_steps(steps: Sequence[Equation]) -> set[Equation]:
    """Those whose results reach an output."""
    used: set[Equation] = set()
    for step in reversed(steps):
        values = step.outputs
        if any(v.is_output or not used.isdisjoint(v.consumers) for v in values):
            used.add(step)
    return used


def _linear(step: Equation, flows: dict[Value, Flow]) -> Draft | None:
    sources = [v for v in step.inputs if v.depends_on_images]
    if step.opaque:
        return Draft(OBSTACLE, step, sources[0], (step,))
    if not step.outputs:
        return None
    if step.kind == "name":
        return Draft("named", step, sources[0], (step,))
    if step.kind == "conv_general_dilated" and sources == [step.inputs[0]]:
        return Draft("conv", step, sources[0], _with_bias(step))
    if step.kind == "dot_general" and len(sources) == 1 and step.out.shape and _mixes_channels(step, flows):
        return Draft("dense", step, sources[0], _with_bias(step))
    if step.kind.startswith("reduce_window"):
        inner = is_inside_response_norm(step)
        return None if inner else Draft("pool", step, sources[0], _with_division(step))
    if step.kind in ("reduce_sum", "reduce_max") and _is_pool(step, flows):
        return Draft("pool", step, sources[0], _with_division(step))
    if step.kind in ("concatenate", "stack") and len(sources) > 1 and _is_map(step.out):
        return Draft("concatenate", step, sources[0], (step,)) if _joins_channels(step, flows) else None
    if step.kind == "add" and len(set(step.inputs)) == 2 == len(sources) and _is_addition(step):
        return Draft("add", step, sources[0], (step,))
    if (chain := closes_norm(step)) is not None:
        return Draft("norm", step, norm_input(chain), _steps_from(norm_input(chain), step))
    if (operand := response_norm_operand(step)) is not None:
        entering = step.inputs[operand]
        return Draft("norm", step, entering, _steps_from(entering, step))
    return None


def _is_map(value: Value) -> bool:
    return len(value.shape) >= 2 and jnp.issubdtype(value.dtype, jnp.inexact)


def _mixes_channels(step: Equation, flows: dict[Value, Flow]) -> bool:
    """Not a resize, or another linear map along space alone."""
    k = 0 if step.inputs[0].depends_on_images else 1
    contracted = [int(a) for a in step.params["dimension_numbers"][0][k]]
    return mixes_channels(flows[step.inputs[k]], contracted)


def _joins_channels(step: Equation, flows: dict[Value, Flow]) -> bool:
    """Not rows or columns put together again, as a roll or a padding does."""
    axis = flows[step.out].axes[step.params.get("dimension", step.params.get("axis", 0))]
    return axis.holds_channels or not axis.is_known


def _is_addition(step: Equation) -> bool:
    same = step.inputs[0].shape == step.inputs[1].shape
    plain = not any(map(is_statistic, step.inputs)) and not is_inside_response_norm(step)
    return _is_map(step.out) and same and plain


def _is_pool(step: Equation, flows: dict[Value, Flow]) -> bool:
    """A reduction over rows and columns alone, that is not a statistic of a normalization."""
    taken = [flows[step.inputs[0]].axes[a] for a in step.params["axes"]]
    if len(step.out.shape) < 2 or is_broadcast_again(step.out, flows):
        return False
    dimensions = {d for axis in taken for d in axis.places}
    return all(axis.is_of_space for axis in taken) and dimensions == {ROW, COLUMN}


def _with_bias(step: Equation) -> tuple[Equation, ...]:
    """With the single addition of a per-channel constant."""
    user = step.out.consumers[0] if step.out.consumers else None
    return (step, user) if user is not None and is_bias(user) and user.inside == step.inside else (step,)


def _with_division(step: Equation) -> tuple[Equation, ...]:
    """An average pooling is a sum, then a division by a constant."""
    value = step.out
    if step.kind in ("reduce_sum", "reduce_window_sum") and len(value.consumers) == 1 and not value.is_output:
        user = value.consumers[0]
        divides = user.kind == "mul" or (user.kind == "div" and user.inputs[0] is value)
        if divides and sum(v.depends_on_images for v in user.inputs) == 1:
            return (step, user)
    return (step,)


def _steps_from(entering: Value, last: Equation) -> tuple[Equation, ...]:
    """All steps between a value and a step; only the last where something else enters."""
    found, waiting = {last}, [last]
    while waiting:
        for value in waiting.pop().inputs:
            maker = value.producer
            if value is entering or not value.depends_on_images or maker in found:
                continue
            if maker is None or maker.order < _order(entering):
                return (last,)
            found.add(maker)
            waiting.append(maker)
    return tuple(sorted(found, key=lambda step: step.order))


def _order(value: Value) -> int:
    return -1 if value.producer is None else value.producer.order
