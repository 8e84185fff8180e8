"""How each primitive of JAX moves the axes and the reach of what it is given (see `flow`).

A convolution or pooling takes for each of its positions the hull over its taps, a reduction that over its
axis, a contraction that over what it sums. What moves entries about (slices, rolls, windows, shuffles, and
gathers of constant indices) moves their places and reach alike, and is exact. What is not known here, or
depends on what the program is given, has unknown axes and sees the whole image: a reach is never too small.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from vexplain.transforms.contraction import accumulated, contracted, mixed_along, reduced, squeezed
from vexplain.transforms.flow import Flow, limited, stretched, union, unknown
from vexplain.transforms.joining import (
    after_cond,
    after_while,
    concatenated,
    scan_slice,
    stacked,
    stacked_steps,
)
from vexplain.transforms.moving import (
    broadcast,
    dynamic_slice,
    gathered,
    overwritten,
    reshape,
    reversed_axes,
    sliced,
    split_parts,
    transpose,
    unstacked,
)
from vexplain.transforms.primitives import CUMULATIVE, ELEMENTWISE, REDUCTIONS, WINDOW_REDUCTIONS
from vexplain.transforms.program import SCAN_CARRY, SCAN_SLICE, SCAN_STACK, Equation, Value
from vexplain.transforms.sliding import conv, padded, reduce_window

Known = dict[Value, Flow]


def flows_after(step: Equation, known: Known, image_shape: Sequence[int]) -> list[Flow]:
    """Returns the flow of each output of a step, one of whose inputs depends on the images."""
    flows = [known.get(v) for v in step.inputs]
    lost = [unknown(v.shape, image_shape) for v in step.outputs]
    if 0 in step.out.shape or any(
        f is None and v.depends_on_images for f, v in zip(flows, step.inputs, strict=True)
    ):
        return lost
    if step.kind in _OF_ALL:
        found = _OF_ALL[step.kind](step, flows, image_shape)
    elif step.is_call or step.kind in ELEMENTWISE:
        found = _entry_by_entry(step, flows)
    elif step.kind in _OF_ONE:
        rule = _OF_ONE[step.kind]
        parts = [rule(step, k, flow) for k, flow in enumerate(flows) if flow is not None]
        known_parts = [part for part in parts if part is not None]
        is_lost = len(known_parts) < len(parts)
        found = None if is_lost else [functools.reduce(union, known_parts)] * len(step.outputs)
    else:
        found = None
    if found is None:
        return lost
    found = [new if new is not None and new.shape == v.shape else old
             for new, old, v in zip(found, lost, step.outputs, strict=True)]  # fmt: skip
    return [limited(flow) for flow in found]


def _entry_by_entry(step: Equation, flows: Sequence[Flow | None]) -> list[Flow] | None:
    shape = step.out.shape
    if step.kind == "optimization_barrier":
        return flows  # pyright: ignore[reportReturnType]
    parts = [stretched(f, shape) for f in flows if f is not None]
    return [functools.reduce(union, parts)] if all(f.shape == shape for f in parts) else None


_OF_ONE: dict[str, Callable[[Equation, int, Flow], Flow | None]] = {
    "conv_general_dilated": conv,
    "dot_general": contracted,
    "reshape": reshape,
    "squeeze": squeezed,
    "transpose": transpose,
    "broadcast_in_dim": broadcast,
    "pad": padded,
    "slice": sliced,
    "rev": reversed_axes,
    SCAN_CARRY: lambda step, k, flow: flow,
    SCAN_SLICE: scan_slice,
    "sort": mixed_along(lambda step, flow: [step.params["dimension"]]),
    "top_k": mixed_along(lambda step, flow: [step.params.get("axis", len(flow.axes) - 1) % len(flow.axes)]),
    "fft": mixed_along(
        lambda step, flow: range(len(flow.axes) - len(step.params["fft_lengths"]), len(flow.axes))
    ),
    **dict.fromkeys(WINDOW_REDUCTIONS, reduce_window),
    **dict.fromkeys(REDUCTIONS, reduced),
    **dict.fromkeys(CUMULATIVE, accumulated),
}
_OF_ALL: dict[str, Callable[..., Any]] = {
    "concatenate": concatenated,
    "stack": stacked,
    SCAN_STACK: stacked_steps,
    "split": split_parts,
    "unstack": unstacked,
    "gather": gathered,
    "dynamic_slice": dynamic_slice,
    "cond": after_cond,
    "while": after_while,
    **dict.fromkeys(
        ("dynamic_update_slice", "scatter", "scatter-add", "scatter_add", "scatter_mul", "scatter-mul",
         "scatter_min", "scatter-min", "scatter_max", "scatter-max"),
        overwritten,
    ),
}  # fmt: skip
