"""Checks the axes and receptive fields that the layer table says of every value of a random network."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.transforms.network_case import TOLERANCE, Case, Finding, op_of, values_function
from tests.transforms.network_graph import Network, Value, build
from vexplain.transforms import layers

NUM_PIXELS = 4


def check_axes(case: Case) -> list[Finding]:
    """The axes of every value, by a copy of the network that names them; fields by changed pixels."""
    network, args = case.network, (case.variables, case.images)
    table = layers(build(network, "named"), *args)
    findings, known = [], {}
    for name, value in case.values.items():
        if name in table:
            known[name] = table[name]
            findings += axes_findings(table[name], value, network, name)
        else:
            findings.append(
                Finding("unknown", "a value is left out of the table", name + " " + op_of(network, name).kind)
            )
    return [*findings, *field_findings(case, known), *_batch_findings(case, known)]


def axes_findings(layer: Any, value: Value, network: Network, name: str) -> Iterator[Finding]:
    """What is wrong or unknown of a layer's axes."""
    where = f"{name} {op_of(network, name).kind} {value.array.shape} {value.layout}"
    said = f"{where}: batch {layer.batch_axis}, space {layer.spatial_axes}, channels {layer.channel_axis}"
    truth = None if value.mixed or "n" not in value.layout else value.axis("n")
    if layer.batch_axis != truth:
        yield Finding("unknown" if layer.batch_axis is None else "wrong", "batch axis", said)
    for letter, axis in zip("hw", layer.spatial_axes, strict=True):
        right = value.layout.index(letter) if letter in value.layout else None
        if axis != right and not (value.moved and axis is None):
            yield Finding("unknown" if axis is None else "wrong", "spatial axis", said)
    for letter, axis, field, size in zip(
        "hw", layer.spatial_axes, layer.fields, layer.image_size, strict=True
    ):
        is_whole = field.jump == 0 and field.pixels(0) == (0, size)
        if axis is not None and is_whole and value.local["hw".index(letter)] is True:
            yield Finding("unknown", "receptive field", said)
    if "c" in value.layout and layer.channel_axis != value.axis("c"):
        yield Finding("unknown" if layer.channel_axis is None else "wrong", "channel axis", said)


def _changed(case: Case, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    before, after = before.astype(np.float32), after.astype(np.float32)
    return ~(np.abs(after - before) <= 0.01 * TOLERANCE[case.network.dtype] * np.abs(before).max())


def field_findings(case: Case, known: dict[str, Any]) -> list[Finding]:
    """No pixel changes what does not see it."""
    _, height, width, channels = case.images.shape
    rng = np.random.default_rng([case.network.seed, 2])
    run, findings = values_function(case), []
    for _ in range(NUM_PIXELS):
        r, c = int(rng.integers(height)), int(rng.integers(width))
        images = case.images.copy()
        images[:, r, c] += rng.normal(size=channels) * 3 + 1
        for name, after in run(images).items():
            if name in known:
                changed = _changed(case, case.arrays[name], after)
                findings += _outside(known[name], changed, (r, c), f"{name} {op_of(case.network, name).kind}")
    return list({f.what + f.detail.split(":")[0]: f for f in findings}.values())


def _outside(layer: Any, changed: np.ndarray, pixel: tuple[int, int], where: str) -> Iterator[Finding]:
    rows, columns = layer.spatial_axes
    kept = [a for a in (rows, columns) if a is not None]
    found = changed.any(tuple(a for a in range(changed.ndim) if a not in kept))
    if rows is not None and columns is not None and rows > columns:
        found = found.T
    found = found.reshape([1 if a is None else changed.shape[a] for a in (rows, columns)])
    for says in (layer.visible, layer.window):
        sees_row = [says(i, 0)[0] <= pixel[0] < says(i, 0)[2] for i in range(found.shape[0])]
        sees_column = [says(0, j)[1] <= pixel[1] < says(0, j)[3] for j in range(found.shape[1])]
        outside = np.argwhere(found & ~np.outer(sees_row, sees_column))
        if len(outside):
            i, j = outside[0]
            said = f"{says.__name__} {says(int(i), int(j))}"
            detail = f"{where}: position {(int(i), int(j))} sees pixel {pixel}; {said}"
            yield Finding("wrong", "a receptive field is too small", detail)


def _batch_findings(case: Case, known: dict[str, Any]) -> Iterator[Finding]:
    """Another first image changes the first one alone along what is called the batch."""
    rng = np.random.default_rng([case.network.seed, 3])
    images = case.images.copy()
    images[0] = rng.normal(size=images.shape[1:])
    for name, after in values_function(case)(images).items():
        changed = _changed(case, case.arrays[name], after)
        value = case.values[name]
        if "n" in value.layout and not value.mixed:
            others = np.delete(changed, 0, value.axis("n"))
            if others.any():
                raise AssertionError(f"the builder is wrong about the batch of {name}")
        axis = known[name].batch_axis if name in known else None
        if axis is not None and np.delete(changed, 0, axis).any():
            yield Finding(
                "wrong", "what is called the batch is none", f"{name} {op_of(case.network, name).kind}"
            )
