"""What both sides of `propagation.npz` draw anew: the weights of a small network, images and baselines."""

import numpy as np

MEAN, SCALE = np.array([0.4, 0.5, 0.6]), np.array([0.25, 0.2, 0.3])
SHAPE, CLASSES = (2, 13, 10, 3), 4


def drawn() -> dict[str, np.ndarray]:
    """Weights as JAX has them: kernels (rows, columns, inputs, filters)."""
    rng = np.random.default_rng(19)
    return {
        "conv": rng.normal(size=(3, 3, 3, 5)) / 3,
        "bias": rng.normal(size=5) / 3,
        "norm_scale": rng.uniform(0.5, 1.5, 5) * np.array([1, -1, 1, 1, -1]),
        "norm_shift": rng.normal(size=5) / 3,
        "norm_mean": rng.normal(size=5) / 3,
        "norm_variance": rng.uniform(0.5, 1.5, 5),
        "second": rng.normal(size=(2, 3, 5, 6)) / 3,
        "second_bias": rng.normal(size=6) / 5,
        "dense": rng.normal(size=(6, CLASSES)),
        "dense_bias": rng.normal(size=CLASSES) / 5,
        "images": rng.uniform(size=SHAPE),
        "baseline": rng.uniform(size=SHAPE),
    }
