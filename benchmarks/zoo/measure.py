"""What is measured of one network: its layers, its layer for class activation maps, its guided gradient.

Axes and receptive fields are compared with what the images do: the activations that change with one pixel of
one image, bit for bit, are those that depend on it. (A pixel that is not a number would be lost in XLA's max
pooling on CPUs.) The layer for class activation maps is right where the logits depend on the images through
it alone, and on nothing but its mean over the positions, where the head is global average pooling.
"""

import collections
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.zoo import reference
from benchmarks.zoo.builders import Built, drawn
from benchmarks.zoo.cases import Case
from vexplain.attribution import cam_layer
from vexplain.transforms import (
    GUIDED,
    Layer,
    LayerTable,
    as_layer_output,
    channels_last,
    edit,
    layers,
    read,
    with_rules,
)

TARGET = 3  # the class whose logit is explained
NUM_PROBES = 16  # layers whose axes are compared with what a pixel reaches


def by_shapes(case: Case, built: Built) -> dict[str, Any]:
    """What tracing alone tells, for several sizes of a batch: it must not depend on them."""
    found: dict[str, Any] = {}
    table, images = LayerTable(()), None
    for batch in case.batches:
        images = jax.ShapeDtypeStruct((batch, case.size, case.size, 3), jnp.float32)
        started = time.process_time()
        table = layers(built.apply, built.shapes, images)
        seconds = round(time.process_time() - started, 2)
        before = _before_the_head(table, case, batch)
        unknown = [row.name for row in before if not _is_known(row)]
        here = {"seconds": seconds, "layers": len(table), "before_head": len(before), "unknown": len(unknown)}
        here |= {"unknown_first": unknown[:3]} | _cam(case, table)
        found |= {f"batch_{batch}": here}
    found |= {"kinds": dict(collections.Counter(row.kind for row in table))}
    return found | _relus(built, images, table) | _refusal(built, images)


def by_numbers(case: Case, built: Built) -> dict[str, Any]:
    """What two images tell, in float64: axes, receptive fields, the layer for maps, guided gradients."""
    variables = drawn(built.shapes)
    images = jax.random.uniform(jax.random.key(1), (2, case.size, case.size, 3))
    table = layers(built.apply, variables, images)
    try:
        name = cam_layer(table)
    except ValueError:
        name = None
    probes = [row for row in table if _is_known(row)]
    step = max(1, len(probes) // NUM_PROBES)
    probes = probes[::-1][::step][::-1]

    forward = jax.jit(read(built.apply, [row.name for row in probes]))
    logits, clean = forward(variables, images)
    result: dict[str, Any] = {"dtype": str(logits.dtype), "finite": bool(np.isfinite(logits).all())}
    if name:
        result |= _way_through(built, table[name], variables, images, logits)
    row, column = case.size // 3, case.size // 2 + 1
    changed = forward(variables, images.at[1, row, column].set(jnp.array([100.0, 50.0, 150.0])))[1]
    differs = {name: np.asarray(clean[name] != changed[name]) for name in clean}
    result |= _fields(probes, differs, row, column)
    return result | _guided(built, variables, images)


def _way_through(built: Built, layer: Layer, variables: Any, images: Any, logits: Any) -> dict[str, Any]:
    """Whether the logits know the images through a layer alone, and how much they ask beyond its mean."""

    def change(activation, is_empty):
        maps = channels_last(activation, layer)
        mean = jnp.broadcast_to(maps.mean((1, 2), keepdims=True), maps.shape)
        return as_layer_output(jnp.where(is_empty, 0, mean), layer, like=activation)

    @jax.jit
    def changed(variables, images, is_empty):
        return edit(built.apply, {layer.name: lambda a: change(a, is_empty)})(variables, images)

    pooled, emptied = (np.asarray(changed(variables, images, e)) for e in (False, True))
    scale = np.abs(logits - emptied).max()
    return {
        "way_is_whole": bool(np.abs(emptied[0] - emptied[1]).max() < 1e-6 * scale),
        "beyond_mean": float(np.abs(pooled - logits).max() / scale),
    }


def _before_the_head(table: LayerTable, case: Case, batch: int) -> list[Layer]:
    """The layers up to the last one of the size that the head takes, less those that have one position."""
    rows, columns, channels = case.cam
    maps = sorted(n for n in (batch, rows, columns, channels) if n > 1)
    tokens = [sorted(n for n in (batch, rows * columns + extra, channels) if n > 1) for extra in range(6)]
    sizes = [sorted(n for n in row.shape if n > 1) for row in table]
    ends = [n for n, size in enumerate(sizes) if size == maps or size in tokens]
    before = list(table)[: ends[-1] + 1] if ends else list(table)[:-1]
    return [row for row in before if sum(n > 1 for n in row.shape) > 1 + (batch > 1)]


def _is_known(row: Layer) -> bool:
    """Are its images, rows, columns and channels known?"""
    return row.is_readable and row.num_positions > 1


def _cam(case: Case, table: LayerTable) -> dict[str, Any]:
    """`cam_layer`, and whether it is the layer that is true of the network."""
    try:
        row = table[cam_layer(table)]
    except ValueError as error:
        return {"cam": None, "cam_error": str(error)[:300], "cam_right": case.head == "none"}
    shape = _map_shape(row)
    candidates = [row.name for row in table if row.kind == case.kind and _map_shape(row) == case.cam]
    is_right = len(candidates) >= -case.place and candidates[case.place] == row.name
    is_right = is_right and case.head != "none"
    return {"cam": row.name, "cam_kind": row.kind, "cam_shape": shape, "cam_right": is_right}


def _map_shape(row: Layer) -> tuple[int, ...]:
    return (*(n or 1 for n in row.grid), row.num_channels)


def _relus(built: Built, images: Any, table: LayerTable) -> dict[str, Any]:
    with reference.guided_by_hand() as calls:
        jax.eval_shape(lambda *arguments: built.apply(*arguments), built.shapes, images)
        called = dict(collections.Counter(calls))
    return {"relus_called": called, "relus_found": sum(row.kind in ("relu", "relu6") for row in table)}


def _refusal(built: Built, images: Any) -> dict[str, Any]:
    try:
        ruled = with_rules(built.apply, GUIDED, on_unmatched="ignore")
        jax.eval_shape(ruled, built.shapes, images)
    except ValueError as error:
        return {"refused": str(error)}
    return {"refused": None}


def _fields(probes: list[Layer], differs: dict[str, Any], row: int, column: int) -> dict[str, Any]:
    """Where the change of a pixel arrived, beside where the layer table says."""
    mixed, missed, exact, wide = [], [], [], []
    for layer in probes:
        reached: np.ndarray = np.any(channels_last(differs[layer.name], layer), axis=-1)
        claimed = np.zeros(reached.shape[1:], bool)
        for r, c in np.ndindex(*claimed.shape):
            top, left, bottom, right = layer.visible(r, c)
            claimed[r, c] = top <= row < bottom and left <= column < right
        if reached[0].any():
            mixed.append(layer.name)
        elif (reached[1] & ~claimed).any():
            missed.append(layer.name)
        elif (reached[1] == claimed).all():
            exact.append(layer.name)
        else:
            wide.append(layer.name)
    return {
        "probes": len(probes),
        "mixes_images": mixed,
        "field_missed": missed,
        "field_exact": len(exact),
        "field_wide": wide[:5],
    }


def _guided(built: Built, variables: Any, images: jax.Array) -> dict[str, Any]:
    """The relative error of GUIDED against the same network with guided ReLUs put in by hand."""
    ruled = with_rules(built.apply, GUIDED, on_uncovered="gradient", on_unmatched="ignore")
    ours = _gradient(ruled)(variables, images)
    plain = _gradient(lambda v, x: built.apply(v, x))(variables, images)
    with reference.guided_by_hand() as calls:
        expected = _gradient(lambda v, x: built.apply(v, x))(variables, images)
        num_calls = len(calls)
    scale = np.abs(expected).max()
    return {
        "guided_error": float(np.abs(ours - expected).max() / scale),
        "guided_vs_plain": float(np.abs(plain - expected).max() / scale),
        "guided_calls": num_calls,
    }


def _gradient(apply: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(jax.grad(lambda v, x: apply(v, x)[:, TARGET].sum(), argnums=1))
