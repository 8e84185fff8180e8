"""Networks as lists of operations, each with what its builder knows of it.

`build` makes a function `apply(variables, images)` of a network, in one of several modes: as a user would
write it ("plain"); with a `custom_vjp` where a rule has its own derivative ("guided", "deconvnet",
"resampled", "pooled": the references of the rules); with something linear for what a rule must refuse
("linear"); or with the name `v3` on value 3 and `v3.1` on a value inside operation 3 ("named"), so that a
checker can ask the layer table about every value. A value carries its layout as a word, one letter an axis:

    n  images                      h, w  rows and columns              c  channels
    p  rows and columns, merged    q  the same with a class token      k, d  heads, and channels of a head
    m  images and windows, merged  u, z  rows and columns of a window  b  images and positions, merged
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from tests.transforms.relu_spellings import MAY_BE_REFUSED, RELU6S, RELUS, guided_between, ruled_relu


class DoesNotFit(Exception):
    """An operation cannot take these values."""


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation: `kind` names it in `KINDS`; `inputs` are values, where 0 are the images."""

    kind: str
    inputs: tuple[int, ...]
    options: tuple[tuple[str, Any], ...]
    seed: int

    def __str__(self) -> str:
        options = [f"{name}={value!r}" for name, value in self.options]
        return f"{self.kind}({', '.join([f'v{i}' for i in self.inputs] + options)})"


@dataclasses.dataclass(frozen=True)
class Network:
    """Operations on images; the last value is the output."""

    image_shape: tuple[int, int, int, int]
    dtype: str
    ops: tuple[Op, ...]
    seed: int

    def __str__(self) -> str:
        lines = [f"v0 = images  # {self.image_shape} {self.dtype}"]
        try:
            values = forms(self)
        except DoesNotFit:
            values = []
        for i, op in enumerate(self.ops, 1):
            note = f"  # {values[i].array.shape} {values[i].layout}" if values else ""
            lines.append(f"v{i} = {op}{note}")
        return "\n".join(lines)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(op.kind for op in self.ops)


@dataclasses.dataclass(frozen=True)
class Value:
    """An array and what its builder knows of it.

    Attributes:
        layout: a letter an axis.
        local: along height and width, whether a position sees less than the whole image; `None`: either may
            be said.
        mixed: the images of the batch are mixed: it has no batch axis any more.
        moved: its positions are no longer those of the image (a dense map along space): they may be said or
            not.
        turned: its rows or columns are in another order than those of the image, which may be said or not.
        grid: rows and columns that were merged into tokens.
        window: rows and columns of a window.
    """

    array: Any
    layout: str
    local: tuple[bool | None, bool | None] = (True, True)
    mixed: bool = False
    moved: bool = False
    turned: bool = False
    grid: tuple[int, int] = (0, 0)
    window: tuple[int, int] = (0, 0)

    def axis(self, letter: str) -> int:
        if letter not in self.layout:
            raise DoesNotFit(f"{self.layout} has no {letter}")
        return self.layout.index(letter)

    def size(self, letter: str) -> int:
        return self.array.shape[self.axis(letter)]

    def to(self, array: Any, layout: str | None = None, **changes: Any) -> "Value":
        return dataclasses.replace(self, array=array, layout=layout or self.layout, **changes)

    def images_rows_columns_channels(self) -> np.ndarray:
        """The array as (images, rows, columns, channels), or (images, channels) without positions."""
        x, layout, (h, w) = np.asarray(self.array), self.layout, self.grid
        if "m" in layout:  # (m, u, z, c) or (m, p, c)
            a, b = self.window
            parts = x.reshape(-1, h // a, w // b, a, b, x.shape[-1])
            return parts.transpose(0, 1, 3, 2, 4, 5).reshape(-1, h, w, x.shape[-1])
        if "b" in layout:
            return x.reshape(-1, h, w, x.shape[-1])
        if "q" in layout:
            x, layout = np.delete(x, 0, layout.index("q")), layout.replace("q", "p")
        if "p" in layout:
            axis = layout.index("p")
            x, layout = x.reshape(*x.shape[:axis], h, w, *x.shape[axis + 1 :]), layout.replace("p", "hw")
        positions = [letter for letter in "hw" if letter in layout]
        channels = [letter for letter in layout if letter not in "nhw"]
        x = x.transpose([layout.index(letter) for letter in ("n", *positions, *channels)])
        sizes = x.shape[1 : 1 + len(positions)]
        return x.reshape(len(x), *(sizes if math.prod(sizes) > 1 else ()), -1)

    @property
    def is_map(self) -> bool:
        return sorted(self.layout) == sorted("nhwc")


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of operation.

    Attributes:
        run: `run(building, value, ..., **options) -> Value`.
        draw: `draw(rng, values) -> (inputs, options)`; it raises DoesNotFit.
        role: `covered`: a rule for ReLUs accepts it (linear, a norm, max pooling, a ReLU); `uncovered`: such
            a rule must refuse it; `flexible`: refusing it is right, and so is keeping its gradient.
        weight: how often it is drawn.
    """

    run: Callable[..., Value]
    draw: Callable[..., tuple[tuple[int, ...], dict[str, Any]]]
    role: str
    weight: float


KINDS: dict[str, Kind] = {}


def operation(role: str, draw: Callable[..., Any], weight: float = 1.0) -> Callable[[Any], Any]:
    """Registers `run` under its own name."""

    def register(run):
        KINDS[run.__name__] = Kind(run, draw, role, weight)
        return run

    return register


@dataclasses.dataclass(frozen=True)
class Activation:
    """A ReLU of a network: at which operation it is, what left it, and what a rule may do with it instead."""

    place: str
    array: Any
    is_relu6: bool
    may_be_refused: bool
    is_gate: bool = False  # known as one, it keeps its derivative


class Building:
    """What an operation sees while a network is built: the mode, its weights, ReLUs as the mode has them."""

    def __init__(
        self,
        mode: str,
        dtype: Any,
        variables: Any = None,
        *,
        plain_at: frozenset[str] = frozenset(),
        doubled: str = "",
    ):
        self.mode, self.dtype = mode, dtype
        self.plain_at = plain_at  # operations whose ReLUs in disguise keep their derivative in every mode
        self.doubled = doubled  # a value that is put in twice as large
        self.is_drawing = variables is None
        self.variables = {} if variables is None else variables
        self.place, self.seed = "", 0
        self.relus: list[Activation] = []
        self.marked: dict[str, Value] = {}

    def at(self, index: int, op: Op) -> None:
        self.place, self.seed = f"v{index}", op.seed
        if self.is_drawing:
            self.variables[self.place] = {}

    def mark(self, value: Value) -> Value:
        """Tells the checker of a value inside an operation (but not inside of a call)."""
        number = sum(name.startswith(f"{self.place}.") for name in self.marked) + 1
        return self.keep(value, f"{self.place}.{number}")

    def keep(self, value: Value, name: str) -> Value:
        if self.mode == "named":
            value = value.to(checkpoint_name(value.array, name))
        self.marked[name] = value
        return value.to(2 * value.array) if name == self.doubled else value

    def weight(self, name: str, shape: tuple[int, ...], scale: float | None = None, mean: float = 0.0) -> Any:
        """A weight of the operation: normal, of deviation sqrt(2 / inputs) where no `scale` is given."""
        if self.is_drawing:
            rng = np.random.default_rng([self.seed, len(self.variables[self.place])])
            fan_in = max(1, int(np.prod(shape[:-1])))
            scale = float(np.sqrt(2 / fan_in)) if scale is None else scale
            drawn = mean + scale * rng.normal(size=shape)
            self.variables[self.place][name] = np.asarray(drawn).astype(self.dtype)
        return self.variables[self.place][name]

    def relu(self, x: Any, spelling: str, upper: float | None = None) -> Any:
        """A ReLU or ReLU6, in one of the spellings of `relu_spellings`."""
        may = spelling in MAY_BE_REFUSED
        ruled = next((rule for rule in ("guided", "deconvnet") if rule in self.mode), "")
        if ruled and self.place not in self.plain_at:
            found = ruled_relu(ruled, upper)(x)
        else:
            found = (RELUS if upper is None else RELU6S)[spelling](x)
        self.relus.append(Activation(self.place, found, upper is not None, may))
        return found

    def clipped(
        self, x: Any, fn: Callable[[Any], Any], low: float, high: float, slope: float, is_gate: bool = False
    ) -> Any:
        """A function that is linear between two bounds and constant beyond them."""
        place = f"{self.place}.gate" if is_gate else self.place
        is_ruled = "guided" in self.mode and place not in self.plain_at
        found = guided_between(low, high, slope, fn)(x) if is_ruled else fn(x)
        self.relus.append(Activation(place, found, True, True, is_gate))
        return found

    def conv(self, x, kernel, strides, padding, dilation, numbers, groups) -> Any:
        """A convolution; in the mode "resampled" with the derivative of Oramas et al. (2019), Section 3.3."""

        def run(strides, padding):
            return lambda x, w: jax.lax.conv_general_dilated(
                x, w, strides, padding, (1, 1), dilation, numbers, feature_group_count=groups
            )

        if "resampled" not in self.mode or max(strides) == 1:
            return run(strides, padding)(x, kernel)
        pads = padding
        if isinstance(padding, str):
            sizes = [(x.shape[numbers[0].index(a)], kernel.shape[i]) for i, a in enumerate("HW")]
            taps = [(k - 1) * d + 1 for (_, k), d in zip(sizes, dilation, strict=True)]
            pads = jax.lax.padtype_to_pads([n for n, _ in sizes], taps, strides, padding)

        @jax.custom_vjp
        def conv(x, w):
            return run(strides, padding)(x, w)

        def backward(kept, g):
            x, w = kept
            out, send = jax.vjp(run((1, 1), pads), x, w)
            return send(jax.image.resize(g, out.shape, "nearest").astype(out.dtype))[0], jnp.zeros_like(w)

        conv.defvjp(lambda x, w: (conv(x, w), (x, w)), backward)
        return conv(x, kernel)

    def nonlinear(
        self, fn: Callable[[Any], Any], x: Any, stand_in: Callable[[Any], Any] = lambda x: x
    ) -> Any:
        """What no rule for ReLUs covers; in the mode "linear", something linear of the same form."""
        return stand_in(x) if self.mode == "linear" else fn(x)


def run_all(network: Network, building: Building, images: Any) -> list[Value]:
    """All values of a network."""
    values = [Value(images.astype(network.dtype), "nhwc")]
    for i, op in enumerate(network.ops, 1):
        values.append(run_one(op, i, building, values))
    return values


def run_one(op: Op, index: int, building: Building, values: list[Value]) -> Value:
    building.at(index, op)
    found = KINDS[op.kind].run(building, *(values[i] for i in op.inputs), **dict(op.options))
    return building.keep(found, f"v{index}")


def forms(network: Network, building: Building | None = None) -> list[Value]:
    """The values without numbers, as `jax.ShapeDtypeStruct`s; raises DoesNotFit."""
    building = building or Building("plain", network.dtype)
    found: list[Value] = []

    def run(images):
        building.marked.clear()
        values = run_all(network, building, images)
        found.extend(values)
        return [value.array for value in values]

    try:
        arrays = jax.eval_shape(run, jax.ShapeDtypeStruct(network.image_shape, jnp.float32))
    except (TypeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise DoesNotFit(str(error)) from error
    return [value.to(array) for value, array in zip(found, arrays, strict=True)]


def variables_of(network: Network) -> Any:
    building = Building("plain", network.dtype)
    forms(network, building)
    return building.variables


def build(network: Network, mode: str = "plain", **options: Any) -> Callable[[Any, Any], Any]:
    """Returns `apply(variables, images)`: the outputs, in float32."""

    def apply(variables, images):
        building = Building(mode, network.dtype, variables, **options)
        return run_all(network, building, images)[-1].array.astype(jnp.float32)

    return apply
