"""How operations choose their inputs and options, and how they name axes."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.transforms.network_graph import DoesNotFit, Value


def pick(rng: np.random.Generator, choices: Any) -> Any:
    """One of the choices, as it was given (not as a NumPy scalar)."""
    return choices[int(rng.integers(len(choices)))]


def recent(rng: np.random.Generator, values: list[Value], fits=lambda v: True) -> int:
    """The place of a value: mostly the last one, else any that fits."""
    if rng.random() < 0.85:
        if not fits(values[-1]):
            raise DoesNotFit("not the last value")
        return len(values) - 1
    places = [i for i, v in enumerate(values) if fits(v)]
    if not places:
        raise DoesNotFit("no value fits")
    return int(rng.choice(places[-6:]))


def on_map(**choices: Any):
    """A draw: a map of the image, and options drawn from lists."""

    def draw(rng, values):
        place = recent(rng, values, lambda v: v.is_map)
        return (place,), {name: pick(rng, options) for name, options in choices.items()}

    return draw


def on_any(fits=lambda v: True, **choices: Any):
    """A draw: any value that fits, and options drawn from lists."""

    def draw(rng, values):
        place = recent(rng, values, fits)
        return (place,), {name: pick(rng, options) for name, options in choices.items()}

    return draw


def on_two(rng, values):
    """Two values of one form, the later one mostly the last."""
    second = recent(rng, values)
    like = values[second]
    same = [
        i
        for i, v in enumerate(values)
        if i != second and (v.layout, v.array.shape, v.mixed) == (like.layout, like.array.shape, like.mixed)
    ]
    if not same:
        raise DoesNotFit("no two values of one form")
    return (int(rng.choice(same)), second), {}


def has_channels(v: Value) -> bool:
    return "c" in v.layout and len(v.layout) > 1


def shaped(v: Value, letter: str, vector: Any) -> Any:
    """A vector along one axis of a value, for broadcasting."""
    shape = [1] * len(v.layout)
    shape[v.axis(letter)] = -1
    return vector.reshape(shape)


def union(a: Value, b: Value) -> dict[str, Any]:
    local = tuple(None if None in pair else all(pair) for pair in zip(a.local, b.local, strict=True))
    flags = {name: getattr(a, name) or getattr(b, name) for name in ("mixed", "moved", "turned")}
    return {"local": local, **flags}


def arranged(v: Value, layout: str) -> Value:
    return v.to(jnp.transpose(v.array, [v.layout.index(letter) for letter in layout]), layout)
