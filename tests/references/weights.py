"""Random weights that both sides make for themselves, so that a reference file need not hold them.

Every array is drawn from its own generator, seeded by its name, whatever else there is.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

_COUNTER = "num_batches_tracked"


def seeded_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """Returns weights for named shapes of PyTorch that keep the size of activations through a network.

    Kernels are normal with variance 2 / fan-in, running variances and scales uniform in [0.5, 1.5], the rest
    normal with deviation 0.1: nothing is 0 or 1, as so much in a fresh network is.

    Args:
        shapes: by the name of the array.
    """
    return {name: _draw(name, tuple(shape)) for name, shape in shapes.items() if _COUNTER not in name}


def seeded_images(count: int, size: int) -> np.ndarray:
    """Returns smooth random images with edges, (count, size, size, 3), float32 in [0, 1]."""
    generator = np.random.default_rng(size)
    coarse = generator.uniform(size=(count, -(-size // 8), -(-size // 8), 3))
    blocks = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size]
    noise = generator.uniform(size=blocks.shape)
    return (0.7 * blocks + 0.3 * noise).astype(np.float32)


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) in (2, 4):
        values = generator.normal(size=shape) * math.sqrt(2 / math.prod(shape[1:]))
    elif name.endswith((".running_var", ".weight", ".gamma", ".layer_scale")):
        values = generator.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * generator.normal(size=shape)
    return values.astype(np.float32)
