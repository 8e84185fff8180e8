"""The layers of any JAX image classifier, found in its traced program: names, shapes, receptive fields.

A layer is a convolution or dense layer (after its bias), an activation function, a normalization, a
pooling, a residual addition, a concatenation, or a value that its author named with
`jax.ad_checkpoint.checkpoint_name`. Flax Linen leaves module paths in the program, and they become the
names; elsewhere a layer is called after its kind and its place in the program: `conv_1`, `relu_1`, ...
"""

import collections
import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from vexplain._text import aligned
from vexplain.transforms.interpreter import Equation, Path, Program, Value, equations, trace
from vexplain.transforms.layer_kinds import KINDS, classify
from vexplain.transforms.nonlinearities import SINGLE_STEPS
from vexplain.transforms.receptive_field import (
    Field,
    Geometry,
    check_images,
    image_geometry,
    propagate,
    unknown_geometry,
)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of a traced network.

    Attributes:
        name: unique in the network.
        kind: `conv`, `dense`, `relu`, another activation function's name, `norm`, `pool`, `add`,
            `concatenate` or `named`.
        shape: of its activation, with the batch.
        batch_axis: which axis of `shape` is the batch; `None` where images are mixed (a normalization
            over the batch, a reshape that merges it), mapped over one by one, or have one number each.
        spatial_axes: which axes are height and width; `None` where the axis is gone.
        channel_axis: which axis holds the channels.
        fields: the receptive field along height and width, before clipping to the image.
        image_size: (height, width) of the network's input, in pixels.
        strides: of the convolution itself; `()` for other kinds.
        path: where its value is made in the program; `step_path`: where its operation is.
        operand: which input of the step is the activation (for activation functions).
        inside: why it cannot be touched (`"a custom_vjp function"`, ...), or `None`.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    batch_axis: int | None
    spatial_axes: tuple[int | None, int | None]
    channel_axis: int
    fields: tuple[Field, Field]
    image_size: tuple[int, int]
    strides: tuple[int, ...]
    path: Path
    step_path: Path
    operand: int
    inside: str | None

    @property
    def num_channels(self) -> int:
        return self.shape[self.channel_axis] if self.shape else 1

    @property
    def num_positions(self) -> int:
        """Along height and width together; 0 where one of these axes is gone."""
        return math.prod(0 if axis is None else self.shape[axis] for axis in self.spatial_axes)

    @property
    def receptive_field(self) -> tuple[int, int]:
        """(height, width) in pixels of the input that one position sees, at most the image."""
        height, width = (min(f.size, n) for f, n in zip(self.fields, self.image_size, strict=True))
        return height, width

    @property
    def sees_whole_image(self) -> bool:
        """True where every position sees the whole image."""
        return all(
            f.jump == 0 and f.pixels(0) == (0, n) for f, n in zip(self.fields, self.image_size, strict=True)
        )

    def window(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the receptive field of a position, in pixels.

        A window is never less than what is seen. All windows of a layer have one size; those near the
        border reach over it. `bottom` and `right` are exclusive. `visible` clips.
        """
        f, g = self.fields
        top, left = f.start + f.jump * row, g.start + g.jump * column
        return top, left, top + f.size, left + g.size

    def visible(self, row: int, column: int) -> tuple[int, int, int, int]:
        """(top, left, bottom, right) of the pixels that a position does depend on."""
        (top, bottom), (left, right) = self.fields[0].pixels(row), self.fields[1].pixels(column)
        return top, left, bottom, right


@dataclasses.dataclass(frozen=True)
class LayerTable:
    """The layers of a network in the order of computation. `print` it; index it by name or place."""

    layers: tuple[Layer, ...]

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __getitem__(self, name: str | int) -> Layer:
        if isinstance(name, int):
            return self.layers[name]
        for layer in self.layers:
            if layer.name == name:
                return layer
        near = difflib.get_close_matches(name, self.names, n=3, cutoff=0.4) or self.names[:8]
        raise KeyError(f"no layer {name!r} in this network; nearest names: {', '.join(near)}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(layer.name for layer in self.layers)

    def select(self, *kinds: str) -> "LayerTable":
        """The layers of some kinds, for instance `table.select("conv", "relu")`; maybe none.

        Raises:
            ValueError: there is no such kind of layer.
        """
        here = sorted({layer.kind for layer in self.layers})
        for kind in kinds:
            if kind not in KINDS and kind not in here:
                raise ValueError(f"no kind of layer is called {kind!r}; this table has: {', '.join(here)}")
        return LayerTable(tuple(layer for layer in self.layers if layer.kind in kinds))

    def __str__(self) -> str:
        rows = []
        for layer in self.layers:
            shape = " × ".join(str(n) for a, n in enumerate(layer.shape) if a != layer.batch_axis)
            height, width = layer.receptive_field
            steps = "/".join(dict.fromkeys(str(abs(f.jump)) for f in layer.fields))
            sees = "the whole image" if layer.sees_whole_image else f"every {steps} px"
            rows.append((layer.name, layer.kind, shape, f"{height} × {width} px", sees))
        return aligned(("name", "kind", "shape", "receptive field", "sees"), rows)

    __repr__ = __str__


@dataclasses.dataclass(frozen=True)
class Obstacle:
    """A step on the way from the images that no layer describes, but that a rule may not ignore."""

    what: str
    path: Path


def layers(apply: Callable[..., Any], variables: Any, images: Any) -> LayerTable:
    """Returns the table of all layers of `apply(variables, images)`.

    Receptive fields are never less than what is seen: what cannot be followed sees the whole image.

    Args:
        apply: any traceable function of the variables and a batch of images; Flax NNX, Linen, Equinox
            or plain.
        variables: its variables; arrays or `jax.ShapeDtypeStruct`s.
        images: (batch, height, width, channels), array or `jax.ShapeDtypeStruct`. Only the shape counts.

    Raises:
        ValueError: `images` does not have four axes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def apply(variables, images):
        ...     return jax.nn.relu(images.mean((1, 2)) @ variables["w"])
        >>> images = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
        >>> print(layers(apply, {"w": jnp.ones((3, 5))}, images))
        name     kind   shape  receptive field  sees
        --------------------------------------------
        pool_1   pool   3      8 × 8 px         the whole image
        dense_1  dense  5      8 × 8 px         the whole image
        relu_1   relu   5      8 × 8 px         the whole image
    """
    return traced_layers(apply, (variables, images))[1]


def traced_layers(
    fn: Callable[..., Any], args: Sequence[Any]
) -> tuple[Program, LayerTable, list[Obstacle], dict[Path, Equation]]:
    """Returns the program of `fn(*args)`, then what `layers_of_program` finds in it."""
    check_images(args[1].shape)
    program = trace(fn, args)
    return program, *layers_of_program(program, args[1])


def layers_of_program(
    program: Program, images: Any
) -> tuple[LayerTable, list[Obstacle], dict[Path, Equation]]:
    """Returns the layers of a traced program, what rules must not ignore, and its steps by path."""
    steps, inputs = equations(program, SINGLE_STEPS)
    steps = [step for step in steps if step.outputs]  # a `jax.debug.print` has none
    image_shape = images.shape
    geometry = {v: image_geometry(v.shape) for v in inputs if v.depends_on_images}
    for step in steps:
        if step.outputs[0].depends_on_images:
            found = propagate(step, geometry, image_shape)
            geometry.update((out, found) for out in step.outputs)
    for value in (v for step in steps for v in step.inputs if v.depends_on_images):
        geometry.setdefault(value, unknown_geometry(image_shape))  # slices that a scan takes
    drafts, obstacles = [], []
    for step in steps:
        if not any(v.depends_on_images for v in step.inputs):
            continue
        kind, value, operand = classify(step, geometry)
        if kind == "obstacle":
            obstacles.append(Obstacle(step.kind, step.path))
        elif kind is not None:
            drafts.append((kind, step, value, operand))
    names = _names(drafts)
    made = [
        _layer(name, kind, step, value, operand, geometry, image_shape)
        for name, (kind, step, value, operand) in zip(names, drafts, strict=True)
    ]
    return LayerTable(tuple(made)), obstacles, {step.path: step for step in steps}


def _layer(name, kind, step, value, operand, geometry: dict[Value, Geometry], image_shape) -> Layer:
    here = geometry[value]
    spatial = (here.fields[0].axis, here.fields[1].axis)
    free = [a for a in range(len(value.shape)) if a not in (here.batch_axis, *spatial)]
    if kind == "conv":
        channel = step.params["dimension_numbers"].out_spec[1]
    else:
        channel = free[-1] if free else len(value.shape) - 1
    strides = tuple(step.params["window_strides"]) if kind == "conv" else ()
    maker = value.producer
    return Layer(
        name=name,
        kind=kind,
        shape=value.shape,
        batch_axis=here.batch_axis if len(value.shape) >= 2 else None,
        spatial_axes=spatial,
        channel_axis=channel,
        fields=here.fields,
        image_size=(image_shape[1], image_shape[2]),
        strides=strides,
        path=maker.path if maker else step.path,
        step_path=step.path,
        operand=operand,
        inside=step.inside or (maker.inside if maker else None),
    )


# ------------------------------------------------------------------------------------- the names


def _names(drafts: Sequence[tuple[str, Equation, Value, int]]) -> list[str]:
    """Module path where one layer has it, else path, kind and place; or the author's own name."""
    scopes = [_scope_without_root(step, drafts) for _, step, _, _ in drafts]
    crowd = collections.Counter(scopes)
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    names = []
    for (kind, step, _, _), scope in zip(drafts, scopes, strict=True):
        if kind == "named":
            names.append(str(step.params["name"]))
        elif scope and crowd[scope] == 1:
            names.append(scope)
        else:
            seen[scope, kind] += 1
            names.append("/".join(filter(None, [scope, f"{kind}_{seen[scope, kind]}"])))
    return _unique(names)


def _scope_without_root(step: Equation, drafts) -> str:
    roots = {s.scope[:1] for _, s, value, _ in drafts if len(value.shape) >= 2}
    return "/".join(step.scope[1:] if len(roots) == 1 else step.scope)


def _unique(names: Iterable[str]) -> list[str]:
    names = list(names)
    total, seen = collections.Counter(names), collections.Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if total[name] == 1 else f"{name}#{seen[name]}")
    return unique
