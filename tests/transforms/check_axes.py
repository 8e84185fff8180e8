"""Checks where the layer table says batch, positions and channels of every value are, and what they see."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.transforms.network_case import TOLERANCE, Case, Finding, op_of, values_function
from tests.transforms.network_graph import Network, Value, build
from tests.transforms.plain_evaluation import call
from vexplain.transforms import channels_last, layers

NUM_PIXELS = 4
_ENTRIES: dict[Any, np.ndarray] = {}  # where `channels_last` puts the entries of layers of one form


def check_axes(case: Case) -> list[Finding]:
    """By a copy of the network that names its values."""
    network, args = case.network, (case.variables, case.images)
    table = layers(build(network, "named"), *args)
    findings, known = [], {}
    for name, value in case.values.items():
        if name in table:
            known[name] = table[name]
            findings += axes_findings(table[name], value, network, name)
        else:
            what = f"left out of the table: {op_of(network, name).kind}"
            findings.append(Finding("unknown", what, name))
    return [*_first_of_each(findings), *field_findings(case, known), *_batch_findings(case, known)]


def arranged_last(array: np.ndarray, layer: Any) -> np.ndarray:
    """`channels_last` of an array."""
    key = (layer.shape, layer.batch_axis, layer.batch_fold, layer.channel_axes, layer.order, layer.grid)
    if key not in _ENTRIES:
        entries = np.arange(array.size, dtype=np.int32).reshape(array.shape)
        _ENTRIES[key] = call(lambda a: channels_last(a, layer), entries)
    return array.reshape(-1)[_ENTRIES[key]]


def _first_of_each(findings: list[Finding]) -> list[Finding]:
    """The first value of which something is wrong, and the first unknown: what comes after inherits it."""
    return list({f.kind: f for f in reversed(findings)}.values())


def axes_findings(layer: Any, value: Value, network: Network, name: str) -> Iterator[Finding]:
    """What is wrong or unknown of a layer's axes: its numbers in the order of the builder's."""
    kind = op_of(network, name).kind
    where = f"{name} {kind} {value.array.shape} {value.layout}"
    said = f"{where}: batch {layer.batch_axis}, space {layer.spatial_axes}, channels {layer.channel_axes}"
    if value.mixed or layer.batch_axis is None:
        if not value.mixed and not value.moved:
            yield Finding("unknown", f"axes after {kind}", said)
        elif value.mixed and layer.batch_axis is not None and network.image_shape[0] > 1:
            yield Finding("wrong", f"a batch axis where images are mixed, after {kind}", said)
        return
    found, expected = arranged_last(value.array, layer), value.images_rows_columns_channels()
    if found.size == expected.size and layer.num_positions == np.prod(expected.shape[1:-1], initial=1):
        found = found.reshape(
            len(found), *expected.shape[1:-1], -1
        )  # tokens are rows and columns in one axis
    if value.moved:  # rows, or what is made of them, may be said to be channels
        has_size = found.size == expected.size or "q" in value.layout  # with its class token
        is_right = len(found) == len(expected) and has_size and found.shape[-1] % expected.shape[-1] == 0
    elif found.shape != expected.shape:
        is_right = False
    elif value.turned:
        is_right = np.array_equal(_sorted(found), _sorted(expected))
    else:
        is_right = np.array_equal(found, expected)
    if not is_right:
        yield Finding("wrong", f"axes after {kind}", f"{said}: {found.shape} for {expected.shape}")


def _sorted(array: np.ndarray) -> np.ndarray:
    """The positions of each channel in the order of their numbers."""
    return np.sort(array.reshape(len(array), -1, array.shape[-1]), axis=1)


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
                where = f"{name} {op_of(case.network, name).kind}"
                findings += _outside(known[name], changed, (r, c), where)
                findings += _too_large(known[name], case.values[name], changed, where)
    return _first_of_each(findings)


def _too_large(layer: Any, value: Value, changed: np.ndarray, where: str) -> Iterator[Finding]:
    """Every position is said to see all rows (or columns), and a pixel changed some rows only."""
    if layer.batch_axis is None or value.moved or value.turned or value.mixed:
        return
    for letter, is_local, field, size in zip("hw", value.local, layer.fields, layer.image_size, strict=True):
        if is_local is True and letter in value.layout and set(field.seen) == {(0, size)}:
            others = tuple(a for a in range(changed.ndim) if a != value.axis(letter))
            found = changed.any(others)
            if found.any() and not found.all():
                what = f"receptive field after {where.split()[1]}"
                yield Finding(
                    "unknown", what, f"{where}: {np.flatnonzero(found)} of {len(found)} along {letter}"
                )


def _outside(layer: Any, changed: np.ndarray, pixel: tuple[int, int], where: str) -> Iterator[Finding]:
    if layer.batch_axis is None:
        found = changed.any().reshape(1, 1)
    else:
        by_position = arranged_last(changed, layer).any(axis=(0, -1))
        found = by_position.reshape([n or 1 for n in layer.grid])
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
        if "n" in value.layout and not value.mixed and np.delete(changed, 0, value.axis("n")).any():
            raise AssertionError(f"the builder is wrong about the batch of {name}")
        layer = known.get(name)
        has_batch = layer is not None and layer.batch_axis is not None
        if has_batch and arranged_last(changed, layer)[1:].any():
            what = "what is called the batch is none"
            yield Finding("wrong", what, f"{name} {op_of(case.network, name).kind}")
