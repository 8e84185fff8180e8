"""How much color and pixels know in the galleries of rendered sets: recall at 1 of 20, chance 0.05.

python -m benchmarks.galleries                 minutes on 2 cores
python -m benchmarks.galleries --size 64
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import tyro

from vexplain.datasets import patterned, shape_swap, try_on
from vexplain.translation import color_histogram, in_batches, retrieval_ranks


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings."""

    size: int = 32  # height and width in pixels
    num_pairs: int = 400  # of which three quarters have a pattern


def main(config: Config) -> list[tuple[str, str, str, dict[str, float]]]:
    """Prints a row for each set, direction and kind of gallery, and returns them."""
    rows = []
    for name, room, settings in (("shape swap", shape_swap, {"level": 4}), ("try-on", try_on, {})):
        pairs = patterned(room.paired_test(config.num_pairs, size=config.size, **settings))
        for direction in ("ab", "ba"):
            for matched in ("pose", "colors"):
                made = room.galleries(pairs, direction, matched=matched, **settings)
                rows.append((name, direction, matched, recalls(pairs, direction, made)))
                found = ", ".join(f"{k} {v:.3f}" for k, v in rows[-1][-1].items())
                print(f"{name} {direction} {matched}, {len(made)} queries: {found}", flush=True)
    return rows


def recalls(pairs, direction: str, galleries: np.ndarray) -> dict[str, float]:
    """R@1 of the histogram within the true masks, of pixels, and of the true partner's pixels."""
    sides = (pairs.images_a, pairs.masks_a), (pairs.images_b, pairs.masks_b)
    (images, masks), (partners, true_masks) = sides if direction == "ab" else sides[::-1]
    members = galleries.reshape(-1, *galleries.shape[2:])
    repeated = np.repeat(true_masks, galleries.shape[1], axis=0)
    codes = in_batches(color_histogram, members, repeated).reshape(*galleries.shape[:2], -1)
    return {
        "color histogram": recall(in_batches(color_histogram, images, masks), codes),
        "pixels": recall(images, galleries),
        "the true partner's pixels": recall(partners, galleries),
    }


def recall(queries: np.ndarray, candidates: np.ndarray) -> float:
    """The share of queries whose nearest candidate is the first."""
    return float(jnp.mean(in_batches(retrieval_ranks, queries, candidates) == 1))


if __name__ == "__main__":
    main(tyro.cli(Config))
