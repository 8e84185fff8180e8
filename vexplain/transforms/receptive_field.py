"""Which pixels of the image an activation depends on, by exact bookkeeping over the traced program.

Along each image axis, position i of an activation sees the pixels

    start + jump * i,  ...,  start + jump * i + size - 1

of those in [low, high) (`start` is negative under padding). A convolution or pooling window of K
taps with dilation d, stride s and leading padding p turns (start, jump, size) into

    start - jump * p,   jump * s,   size + |jump| * (K - 1) * d

A reduction over an axis, a dense layer or a reshape that mixes it unites all positions: jump 0. What this
file does not know is taken to see the whole image, so that a field is never too small.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from vexplain.transforms.interpreter import Equation, Value


@dataclasses.dataclass(frozen=True)
class Field:
    """The receptive field along one image axis.

    Attributes:
        start, jump, size: position i sees `size` pixels from `start + jump * i` on.
        low, high: no position sees pixels before `low`, or from `high` on: the border of the image, or of
            what was cropped from it before padding.
        axis: which axis of the activation this is; `None` where it is gone.
    """

    start: int
    jump: int
    size: int
    low: int
    high: int
    axis: int | None

    def bounded(self, num_positions: int) -> "Field":
        """With the bounds that this many positions reach: what is padded from here on sees nothing."""
        reach = self.jump * (num_positions - 1)
        first = self.start + min(0, reach)
        last = self.start + self.size + max(0, reach)
        return dataclasses.replace(self, low=max(self.low, first), high=min(self.high, last))

    def united(self, num_positions: int) -> "Field":
        """The union over all positions."""
        f = self.bounded(num_positions)
        return Field(f.low, 0, f.high - f.low, f.low, f.high, None)

    def pixels(self, position: int) -> tuple[int, int]:
        """First and last-but-one pixel that a position sees."""
        start = self.start + self.jump * position
        return max(start, self.low), min(start + self.size, self.high)


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Where an activation keeps its batch, and its receptive field along both image axes."""

    batch_axis: int | None
    fields: tuple[Field, Field]

    def mapped(self, axis_map: dict[int, int], shape: Sequence[int]) -> "Geometry":
        """After axes moved as in `axis_map`; an image axis that is not in it is united."""
        fields = []
        for f in self.fields:
            gone = f.axis is not None and f.axis not in axis_map
            f = f.united(shape[f.axis]) if gone and f.axis is not None else f
            axis = None if f.axis is None else int(axis_map[f.axis])
            fields.append(dataclasses.replace(f, axis=axis))
        batch = None if self.batch_axis is None else axis_map.get(self.batch_axis)
        return Geometry(None if batch is None else int(batch), (fields[0], fields[1]))


def image_geometry(shape: Sequence[int]) -> Geometry:
    """The geometry of images (batch, height, width, channels) themselves."""
    check_images(shape)
    fields = [Field(0, 1, 1, 0, shape[axis], axis) for axis in (1, 2)]
    return Geometry(0, (fields[0], fields[1]))


def check_images(shape: Sequence[int]) -> None:
    if len(shape) != 4:
        raise ValueError(
            f"images has shape {tuple(shape)}: expected (batch, height, width, channels); "
            "for one image pass images[None]"
        )


def unknown_geometry(image_shape: Sequence[int]) -> Geometry:
    """Of what nothing is known: it may see every pixel of every image."""
    return _whole([], (), image_shape)


def propagate(step: Equation, known: dict[Value, Geometry], image_shape: Sequence[int]) -> Geometry:
    """Returns the geometry of the first output of a step that depends on the images."""
    sources = [(v, known[v]) for v in step.inputs if v in known]
    shape = step.outputs[0].shape
    rule = _RULES.get(step.kind)
    if rule is not None:
        found = [rule(step, v, g) for v, g in sources]
    elif all(_broadcasts(v.shape, shape) for v in step.inputs if v.depends_on_images):
        found = [_stretched(v, g, shape) for v, g in sources]
    else:
        found = [None]
    parts = [g for g in found if g is not None]
    if not parts or len(parts) < sum(v.depends_on_images for v in step.inputs):
        return _whole(sources, shape, image_shape)
    return functools.reduce(lambda a, b: _union(a, b, shape), parts)


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    return len(shape) == len(to) and all(a in (1, b) for a, b in zip(shape, to, strict=True))


def _stretched(value: Value, geometry: Geometry, shape: Sequence[int]) -> Geometry:
    """An axis of one position that is repeated along a longer one: the same field everywhere."""
    fields = []
    for f in geometry.fields:
        if f.axis is not None and value.shape[f.axis] == 1 != shape[f.axis]:
            f = dataclasses.replace(f.united(1), axis=f.axis)
        fields.append(f)
    return Geometry(geometry.batch_axis, (fields[0], fields[1]))


def _whole(sources, shape: Sequence[int], image_shape: Sequence[int]) -> Geometry:
    fields = tuple(Field(0, 0, size, 0, size, None) for size in image_shape[1:3])
    keeps = any(g.batch_axis == 0 and v.shape[0] == image_shape[0] for v, g in sources)
    batch = 0 if keeps and len(shape) > 0 and shape[0] == image_shape[0] else None
    return Geometry(batch, (fields[0], fields[1]))


def _union(a: Geometry, b: Geometry, shape: Sequence[int]) -> Geometry:
    fields = []
    for f, g in zip(a.fields, b.fields, strict=True):
        axes = {h.axis for h in (f, g) if h.axis is not None}
        axis = axes.pop() if len(axes) == 1 else None
        if f.jump != g.jump or f.axis != g.axis:
            f, g = (h if h.axis is None else h.united(shape[h.axis]) for h in (f, g))
        start = min(f.start, g.start)
        size = max(f.start + f.size, g.start + g.size) - start
        low, high = min(f.low, g.low), max(f.high, g.high)
        fields.append(Field(start, f.jump, size, low, high, axis))
    batch = a.batch_axis if a.batch_axis == b.batch_axis else None
    return Geometry(batch, (fields[0], fields[1]))


# --------------------------------------------------------------------------- one rule a primitive


def _window(field: Field, positions: int, taps: int, stride: int, dilation: int, lead: int) -> Field:
    f = field.bounded(positions)
    reach = f.jump * int(dilation) * (int(taps) - 1)
    start = f.start - f.jump * int(lead) + min(0, reach)
    return dataclasses.replace(f, start=start, jump=f.jump * int(stride), size=f.size + abs(reach))


def _conv(step: Equation, value: Value, geometry: Geometry) -> Geometry | None:
    p: Any = step.params
    numbers = p["dimension_numbers"]
    lhs, out = numbers.lhs_spec, numbers.out_spec
    if value is not step.inputs[0] or p["batch_group_count"] != 1 or set(p["lhs_dilation"]) != {1}:
        return None
    fields = []
    for f in geometry.fields:
        if f.axis is not None and f.axis in lhs[2:]:
            k = lhs[2:].index(f.axis)
            taps = step.inputs[1].shape[numbers.rhs_spec[2 + k]]
            strides, dilations = p["window_strides"], p["rhs_dilation"]
            positions = value.shape[f.axis]
            f = _window(f, positions, taps, strides[k], dilations[k], p["padding"][k][0])
            f = dataclasses.replace(f, axis=out[2 + k])
        elif f.axis is not None:
            f = f.united(value.shape[f.axis])
        fields.append(f)
    batch = out[0] if geometry.batch_axis == lhs[0] else None
    return Geometry(batch, (fields[0], fields[1]))


def _reduce_window(step: Equation, value: Value, geometry: Geometry) -> Geometry | None:
    p: Any = step.params
    if any(d != 1 for d in p.get("base_dilation", (1,))):
        return None
    dilations = p.get("window_dilation") or (1,) * len(value.shape)
    fields = []
    for f in geometry.fields:
        if (a := f.axis) is not None:
            windows, strides = p["window_dimensions"], p["window_strides"]
            lead = p["padding"][a][0]
            f = _window(f, value.shape[a], windows[a], strides[a], dilations[a], lead)
        fields.append(f)
    return Geometry(geometry.batch_axis, (fields[0], fields[1]))


def _without_axes(step: Equation, value: Value, geometry: Geometry) -> Geometry:
    gone = step.params["dimensions" if step.kind == "squeeze" else "axes"]
    left = [a for a in range(len(value.shape)) if a not in gone]
    return geometry.mapped({a: i for i, a in enumerate(left)}, value.shape)


def _transpose(step: Equation, value: Value, geometry: Geometry) -> Geometry:
    order = step.params["permutation"]
    return geometry.mapped({a: i for i, a in enumerate(order)}, value.shape)


def _broadcast_in_dim(step: Equation, value: Value, geometry: Geometry) -> Geometry:
    places, shape = step.params["broadcast_dimensions"], step.params["shape"]
    kept = {a: b for a, b in enumerate(places) if value.shape[a] == shape[b]}
    return geometry.mapped(kept, value.shape)


def _reshape(step: Equation, value: Value, geometry: Geometry) -> Geometry:
    return geometry.mapped(_kept_axes(value.shape, step.outputs[0].shape), value.shape)


def _kept_axes(old: Sequence[int], new: Sequence[int]) -> dict[int, int]:
    """Axes that a reshape leaves as they are: equal size, and as many elements before them."""

    def before(shape):
        return {(math.prod(shape[:a]), n): a for a, n in enumerate(shape) if n > 1}

    target = before(new)
    kept = {a: target[place] for place, a in before(old).items() if place in target}
    return {0: 0, **kept} if old[:1] == new[:1] else kept  # a batch of one image


def _dot_general(step: Equation, value: Value, geometry: Geometry) -> Geometry | None:
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = step.params["dimension_numbers"]
    if step.inputs[0] is step.inputs[1]:
        return None
    is_lhs = value is step.inputs[0]
    contract, batch = (lhs_contract, lhs_batch) if is_lhs else (rhs_contract, rhs_batch)
    free = [a for a in range(len(value.shape)) if a not in (*contract, *batch)]
    lhs_free = len(step.inputs[0].shape) - len(lhs_contract) - len(lhs_batch)
    first = len(batch) if is_lhs else len(batch) + lhs_free
    axis_map = {a: i for i, a in enumerate(batch)} | {a: first + i for i, a in enumerate(free)}
    return geometry.mapped(axis_map, value.shape)


def _pad(step: Equation, value: Value, geometry: Geometry) -> Geometry | None:
    fields = []
    for f in geometry.fields:
        if f.axis is not None:
            lead, _, interior = step.params["padding_config"][f.axis]
            if interior:
                return None
            f = f.bounded(value.shape[f.axis])
            f = dataclasses.replace(f, start=f.start - f.jump * int(lead))
        fields.append(f)
    return Geometry(geometry.batch_axis, (fields[0], fields[1]))


def _slice(step: Equation, value: Value, geometry: Geometry) -> Geometry:
    first, strides = step.params["start_indices"], step.params["strides"]
    fields = []
    for f in geometry.fields:
        if (a := f.axis) is not None:
            stride = strides[a] if strides else 1
            start = f.start + f.jump * int(first[a])
            f = dataclasses.replace(f, start=start, jump=f.jump * int(stride))
        fields.append(f)
    return Geometry(geometry.batch_axis, (fields[0], fields[1]))


def _rev(step: Equation, value: Value, geometry: Geometry) -> Geometry:
    fields = []
    for f in geometry.fields:
        if f.axis in step.params["dimensions"] and f.axis is not None:
            last = f.start + f.jump * (value.shape[f.axis] - 1)
            f = dataclasses.replace(f, start=last, jump=-f.jump)
        fields.append(f)
    return Geometry(geometry.batch_axis, (fields[0], fields[1]))


def _concatenate(step: Equation, value: Value, geometry: Geometry) -> Geometry | None:
    along = step.params["dimension"]
    mixed = along == geometry.batch_axis or any(f.axis == along for f in geometry.fields)
    return None if mixed else geometry


def _along_axis(step: Equation, value: Value, geometry: Geometry) -> Geometry:
    axis = step.params.get("axis", step.params.get("dimension"))
    kept = {a: a for a in range(len(value.shape)) if a != axis}
    return geometry.mapped(kept, value.shape)


_RULES: dict[str, Any] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot_general,
    "reshape": _reshape,
    "squeeze": _without_axes,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast_in_dim,
    "pad": _pad,
    "slice": _slice,
    "rev": _rev,
    "concatenate": _concatenate,
    **dict.fromkeys(
        ("reduce_window_max", "reduce_window_min", "reduce_window_sum", "reduce_window"),
        _reduce_window,
    ),
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin"), _without_axes
    ),
    **dict.fromkeys(("cumsum", "cummax", "cumprod", "cummin", "sort", "cumlogsumexp"), _along_axis),
    # a gather, scatter or dynamic slice may fetch from anywhere
    **dict.fromkeys(("gather", "scatter", "dynamic_slice", "cond", "while", "fft"), lambda *_: None),
}
