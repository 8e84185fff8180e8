"""an8Flower as a source of labeled images, rendered when they are asked for."""

import dataclasses
import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.datasets.an8flower.renderer import render
from vexplain.datasets.an8flower.scene import class_names
from vexplain.datasets.sources import one_example

NUM_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class RenderedSource:
    """A fixed set of renderings. Example i has label i mod C and the i-th key.

    Images are rounded to 8 bits, so that they are those of the same set stored as files.

    Args:
        variant: `"single_6c"` or `"double_12c"`.
        num_per_class: images a class.
        size: height and width in pixels.
        samples: rays a pixel along each axis.
        seed: of the keys.

    Example:
        >>> source = RenderedSource("single_6c", num_per_class=2, size=16)
        >>> batch = source[np.array([0, 7])]
        >>> batch["images"].shape, batch["masks"].shape, batch["labels"].tolist()
        ((2, 16, 16, 3), (2, 16, 16), [0, 1])
    """

    variant: str = "single_6c"
    num_per_class: int = 1000
    size: int = 112
    samples: int = 3
    seed: int = 0

    def __post_init__(self):
        class_names(self.variant)  # an unknown variant raises
        for name in ("num_per_class", "size", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")

    @property
    def class_names(self) -> tuple[str, ...]:
        return class_names(self.variant)

    def __len__(self) -> int:
        return self.num_per_class * len(self.class_names)

    def __getitem__(self, indices: Any) -> dict[str, Any]:
        if np.ndim(indices) == 0:
            return one_example(self, indices)
        indices = np.asarray(indices)
        labels = (indices % len(self.class_names)).astype(np.int32)
        images, masks = _render_batch(
            self.keys(indices), labels, variant=self.variant, size=self.size, samples=self.samples
        )
        return {"images": images, "masks": masks, "labels": labels, "indices": indices.astype(np.int32)}

    def keys(self, indices: Any) -> jax.Array:
        """The random keys of some examples."""
        root = jax.random.key(self.seed)
        return jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(indices, jnp.uint32))


def fold_of(key: jax.Array) -> int:
    """Returns the fold, 0 to 4, of an example: a hash of its key mod 5.

    Example:
        >>> fold_of(jax.random.key(3)) in range(5)
        True
    """
    return zlib.crc32(np.asarray(jax.random.key_data(key)).tobytes()) % NUM_FOLDS


def fold_indices(source: RenderedSource, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and the test examples of a fold.

    Raises:
        ValueError: the fold is not 0 to 4.
    """
    if not 0 <= fold < NUM_FOLDS:
        raise ValueError(f"fold is {fold}: expected 0 to {NUM_FOLDS - 1}")
    data = np.asarray(jax.random.key_data(source.keys(np.arange(len(source)))))
    folds = np.array([zlib.crc32(row.tobytes()) % NUM_FOLDS for row in data])
    return np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


@functools.partial(jax.jit, static_argnames=("variant", "size", "samples"))
def _render_batch(keys, labels, *, variant, size, samples):
    """One image after the other, whose rays stay in a CPU's cache; the rays of one fill an accelerator."""

    def one(key_and_label):
        image, mask, _ = render(*key_and_label, variant=variant, size=size, samples=samples)
        return jnp.round(image * 255) / 255, jnp.round(mask * 255) / 255

    return jax.lax.map(one, (keys, labels))
