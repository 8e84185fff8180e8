"""The layers of any JAX image classifier, found in its traced program: names, shapes, receptive fields.

A layer is a convolution or dense layer (after its bias), an activation function, a normalization, a
pooling, a residual addition, a concatenation, or a value that its author named with
`jax.ad_checkpoint.checkpoint_name`. Flax Linen leaves module paths in the program, and they become the
names; elsewhere a layer is called after its kind and its place in the program: `conv_1`, `relu_1`, ...
"""

import collections
import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
from jax.core import Tracer

from vexplain._text import aligned, html_table
from vexplain.transforms.flow import Flow, of_images
from vexplain.transforms.last_map import last_map
from vexplain.transforms.layer import Layer
from vexplain.transforms.layer_kinds import KINDS, OBSTACLE, Draft, find_layers
from vexplain.transforms.movement import flows_after
from vexplain.transforms.nonlinearities import OTHER
from vexplain.transforms.placement import placement_of
from vexplain.transforms.pooling import pooled_axes
from vexplain.transforms.program import Equation, Flat, Path, Program, Value, equations, trace
from vexplain.transforms.spans import find_spans
from vexplain.transforms.spellings import kind_of_call

_COLUMNS = ("name", "kind", "shape", "receptive field", "sees")


@dataclasses.dataclass(frozen=True)
class LayerTable:
    """The layers of a network in the order of computation. `print` it; index it by name or place.

    Attributes:
        layers: all of them.
        last_map: the name of the layer that the last reduction over rows and columns acts on, where class
            activation maps are read; `None` where no layer has rows and columns.
    """

    layers: tuple[Layer, ...]
    last_map: str | None = None

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
        return aligned(_COLUMNS, self._rows())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(_COLUMNS, self._rows(), caption=f"{len(self)} layers")

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        for layer in self.layers:
            shape = " × ".join(str(n) for a, n in enumerate(layer.shape) if a != layer.batch_axis)
            height, width = layer.receptive_field
            steps = "/".join(dict.fromkeys(f"{f.jump:.3g}" for f in layer.fields))
            sees = "the whole image" if layer.sees_whole_image else f"every {steps} px"
            rows.append((layer.name, layer.kind, shape, f"{height} × {width} px", sees))
        return rows


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
    return traced_layers(apply, (variables, images)).table


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A function as a program, and what was found in it.

    `drafts` are what the layers are made of, in the order of the table.
    """

    program: Program
    flat: Flat
    table: LayerTable
    drafts: tuple[Draft, ...]
    obstacles: tuple[Obstacle, ...]


_KEPT: collections.OrderedDict[Any, Traced] = collections.OrderedDict()
_MOST_KEPT = 32


def traced_layers(fn: Callable[..., Any], args: Sequence[Any], *, as_spans: bool = False) -> Traced:
    """Returns the program of `fn(*args)` and its layers; found once for a function and its shapes.

    With `as_spans` they are those that rules of propagation see (`spans`).
    """
    check_images(args[1])
    program = trace(fn, args)
    name = (id(program.jaxpr), program.image_leaves, as_spans)
    if name not in _KEPT:
        found = layers_of_program(program, args[1], as_spans=as_spans)
        if any(isinstance(const, Tracer) for const in program.jaxpr.consts):
            return found  # of another trace, which must not be kept alive
        _KEPT[name] = found
    _KEPT.move_to_end(name)
    while len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)
    return dataclasses.replace(_KEPT[name], program=program)


def check_images(images: Any) -> None:
    """Raises ValueError for what is no batch of images."""
    leaves = jax.tree.leaves(images)
    if len(leaves) != 1 or leaves[0] is not images:
        raise ValueError(
            f"images is a {type(images).__name__} of {len(leaves)} arrays: expected one, (batch, height, "
            "width, channels); wrap a network of several inputs, lambda v, images: apply(v, (images, other))"
        )
    if len(images.shape) != 4:
        raise ValueError(
            f"images has shape {tuple(images.shape)}: expected (batch, height, width, channels); "
            "for one image pass images[None]"
        )


def layers_of_program(program: Program, images: Any, *, as_spans: bool = False) -> Traced:
    """Returns the layers of a traced program and what rules must not ignore."""
    flat = equations(program, kind_of_call)
    image_shape = tuple(images.shape)
    flows = flows_of(flat, image_shape)
    drafts = find_spans(flat.steps, flows, image_shape[0]) if as_spans else find_layers(flat.steps, flows)
    obstacles = tuple(Obstacle(d.step.kind, d.step.path) for d in drafts if d.kind == OBSTACLE)
    drafts = [draft for draft in drafts if draft.kind != OBSTACLE]
    made = [
        _layer(name, index, draft, flows, image_shape)
        for index, (name, draft) in enumerate(zip(_names(drafts), drafts, strict=True))
    ]
    last = last_map(flat.steps, flows, list(zip(made, drafts, strict=True)))
    return Traced(program, flat, LayerTable(tuple(made), last), tuple(drafts), obstacles)


def flows_of(flat: Flat, image_shape: Sequence[int]) -> dict[Value, Flow]:
    """Returns what the axes of each value stand for that depends on the images."""
    flows = {v: of_images(v.shape) for v in flat.inputs if v.depends_on_images}
    for step in flat.steps:
        if step.outputs and step.out.depends_on_images:
            flows.update(zip(step.outputs, flows_after(step, flows, tuple(image_shape)), strict=True))
    return flows


def _layer(
    name: str, index: int, draft: Draft, flows: dict[Value, Flow], image_shape: Sequence[int]
) -> Layer:
    value, step = draft.leaving, draft.step
    maker = value.producer or step
    path, inside = value.handed_out or (maker.path, step.inside or maker.inside)
    placed = placement_of(flows[value], image_shape)
    if inside:
        placed = dataclasses.replace(placed, unreadable=f"inside {inside}")
    return Layer(
        **vars(placed),
        name=name,
        kind=draft.kind,
        shape=value.shape,
        image_size=(image_shape[1], image_shape[2]),
        strides=tuple(step.params["window_strides"]) if draft.kind == "conv" else (),
        pooled=pooled_axes(step, flows[draft.entering]) if draft.kind == "pool" else (),
        bounds=draft.bounds,
        index=index,
        path=path,
        step_path=step.path,
        inside=inside,
        is_first=draft.is_first,
        is_last=draft.is_last,
    )


# ------------------------------------------------------------------------------------- the names


def _names(drafts: Sequence[Draft]) -> list[str]:
    """Module path where one layer has it, else path, kind and place; or the author's own name."""
    scopes = [_scope_without_root(draft.step, drafts) for draft in drafts]
    crowd = collections.Counter(scopes)
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    names = []
    for draft, scope in zip(drafts, scopes, strict=True):
        kind = draft.kind.removeprefix(OTHER)
        if kind == "named":
            names.append(str(draft.step.params["name"]))
        elif scope and crowd[scope] == 1:
            names.append(scope)
        else:
            seen[scope, kind] += 1
            names.append("/".join(filter(None, [scope, f"{kind}_{seen[scope, kind]}"])))
    return _unique(names)


def _scope_without_root(step: Equation, drafts: Sequence[Draft]) -> str:
    roots = {draft.step.scope[0] for draft in drafts if len(draft.leaving.shape) >= 2 and draft.step.scope}
    return "/".join(step.scope[1:] if len(roots) == 1 else step.scope)


def _unique(names: Iterable[str]) -> list[str]:
    names = list(names)
    total, seen = collections.Counter(names), collections.Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if total[name] == 1 else f"{name}#{seen[name]}")
    return unique
