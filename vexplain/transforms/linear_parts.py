"""A convolution or dense layer taken apart, for rules that change its weights.

A linear layer is more than its step: the bias that is added and the scales and shifts of a normalization with
constant statistics belong to it, and in front of the first one so do the mean and scale by which pixels are
normalized. With P the steps before, W the weights and L the linear step together with the transpositions and
reshapes after it,

    x → u = P(x) → z = gain · L(u, W) + bias

so that the normalization is folded into the weights, gain · W, whatever the order of the axes is.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from vexplain.transforms.divisors import AFFINE
from vexplain.transforms.layer_kinds import Draft
from vexplain.transforms.program import Equation, Value, bind

SHIFTS = ("add", "sub")


@dataclasses.dataclass(frozen=True)
class LinearParts:
    """The parts of one linear layer.

    Attributes:
        entering: u, what the linear step itself is applied to.
        weights: W.
        gain: what its result is multiplied with, of the shape of z; 1.0 where nothing is.
        bias: what is added to that; 0.0 where nothing is.
        is_nonnegative: u is known to be 0 or more, whatever the images are.
        linear: `(u, W) -> L(u, W)`.
        enter: `(x) -> P(x)`.
        place: `(x) -> P(x)` without its scales and shifts: where each number of x goes.
    """

    entering: Any
    weights: Any
    gain: Any
    bias: Any
    is_nonnegative: bool
    linear: Callable[[Any, Any], Any]
    enter: Callable[[Any], Any]
    place: Callable[[Any], Any]

    def transposed(self, weights: Any, signal: Any) -> Any:
        """Lᵀ with these weights, from z to u."""
        (sent,) = jax.linear_transpose(lambda u: self.linear(u, weights), self.entering)(signal)
        return sent

    @property
    def has_gain(self) -> bool:
        return not isinstance(self.gain, float)


def parts_of(draft: Draft, inputs: Sequence[Value], xs: Sequence[Any]) -> LinearParts:
    """Returns the parts of a linear layer for the values of its inputs."""
    step = draft.step
    before = [s for s in draft.steps if s.order < step.order]
    after = [s for s in draft.steps if s.order > step.order]
    given = dict(zip(inputs, xs, strict=True))
    k = 0 if step.inputs[0].depends_on_images else 1
    u_value = step.inputs[k]

    def enter(x):
        return run(before, given | {draft.entering: x})[u_value]

    def place(x):
        moved = lambda v: _moved(before, given, draft.entering, v)  # noqa: E731
        return moved(x) - moved(jnp.zeros_like(x))

    def linear(u, weights):
        (out,) = bind(step.source, [u, weights][:: 1 if k == 0 else -1])
        return _moved(after, given, step.out, out)

    def leave(fill):
        return run(after, given | {step.out: jnp.full(step.out.shape, fill, step.out.dtype)})[draft.leaving]

    changed = {s.kind for s in after if s.kind in (*AFFINE, "neg")}
    bias = leave(0) if changed else 0.0
    return LinearParts(
        entering=enter(given[draft.entering]),
        weights=given.get(step.inputs[1 - k], step.inputs[1 - k].constant),
        gain=leave(1) - bias if changed - {"add"} else 1.0,
        bias=bias,
        is_nonnegative=draft.is_nonnegative,
        linear=linear,
        enter=enter,
        place=place,
    )


def run(steps: Sequence[Equation], known: Mapping[Value, Any]) -> dict[Value, Any]:
    """Returns the values that some steps make, and those that they were given."""
    found = dict(known)
    for step in steps:
        outs = bind(step.source, [found.get(v, v.constant) for v in step.inputs])
        found.update(zip(step.outputs, outs, strict=True))
    return found


def _moved(steps: Sequence[Equation], given: Mapping[Value, Any], start: Value, x: Any) -> Any:
    """What the steps do to x but for their scales and shifts."""
    known = {**given, start: x}
    for step in steps:
        (moving,) = (v for v in step.inputs if v.depends_on_images)
        if step.kind in (*AFFINE, "neg"):
            known[step.out] = jnp.broadcast_to(known[moving], step.out.shape)
        else:
            known.update(run([step], known))
        x = known[step.out]
    return x
