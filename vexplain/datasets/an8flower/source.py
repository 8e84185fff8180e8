"""an8Flower as a source of labeled images, rendered when they are asked for."""

import dataclasses
import functools
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.datasets.an8flower.difficulty import Difficulty, View, difficulty_of
from vexplain.datasets.an8flower.interventions import Interventions, intervene
from vexplain.datasets.an8flower.renderer import draw_view, render_factors
from vexplain.datasets.sources import LazySource, as_places, rounded

NUM_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class RenderedSource(LazySource):
    """A fixed set of renderings. Example i has label i mod C and the i-th key.

    Images are rounded to 8 bits, as those of the same set stored as files are. "masks" show what determines
    the class; under `"shortcut"` a batch also has "cue_masks" and "cues", the classes that the patches show.
    For a test of what a network learned from the patch, take the same set with `cue_probability` 1 (all
    congruent) and 0 (none): the flowers and folds are the same.

    Variant, size, samples, difficulty and cue_probability are those of `render`.

    Args:
        num_per_class: images a class.
        seed: of the keys.

    Raises:
        ValueError: an unknown variant or difficulty, or a number out of range.

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
    difficulty: str | Difficulty = "plain"
    cue_probability: float = 0.9

    def __post_init__(self):
        _ = self.class_names  # an unknown variant or difficulty raises
        if not 0 <= self.cue_probability <= 1:
            raise ValueError(f"cue_probability is {self.cue_probability}: expected 0 to 1")
        check_positive(num_per_class=self.num_per_class, size=self.size, samples=self.samples)

    @property
    def class_names(self) -> tuple[str, ...]:
        return difficulty_of(self.difficulty).class_names(self.variant)

    def __len__(self) -> int:
        return self.num_per_class * len(self.class_names)

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        return {**self._rendered(indices), "labels": self._labels(indices)}

    def interventions(self, indices: Any, *, change: str = "recolor") -> Interventions:
        """Returns the images of some examples, each with one part changed after the other: `intervene`.

        Returns:
            `images` (n, parts, size, size, 3), rounded to 8 bits as the images of the source are, and `masks`
            (n, parts, size, size) of all parts, in the order of `part_names(difficulty)`.

        Example:
            >>> source = RenderedSource(num_per_class=2, size=16, samples=1)
            >>> source.interventions(np.array([0, 7]), change="gray").masks.shape
            (2, 5, 16, 16)
        """
        return self._rendered(as_places(indices, len(self)), change)

    def keys(self, indices: Any) -> jax.Array:
        """Returns the random keys of some examples."""
        root = jax.random.key(self.seed)
        return jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(indices, jnp.uint32))

    def _labels(self, indices: np.ndarray) -> np.ndarray:
        return (indices % len(self.class_names)).astype(np.int32)

    def _rendered(self, indices: np.ndarray, change: str | None = None) -> Any:
        view = View(self.variant, self.size, self.samples, self.difficulty)
        examples = (self.keys(indices), self._labels(indices))
        return _render_batch(*examples, jnp.float32(self.cue_probability), view=view, change=change)


def fold_of(key: jax.Array) -> int:
    """Returns the fold, 0 to 4, of an example: a hash of its key mod 5.

    Example:
        >>> fold_of(jax.random.key(3)) in range(5)
        True
    """
    return zlib.crc32(np.asarray(jax.random.key_data(key)).tobytes()) % NUM_FOLDS


def folds_of(source: RenderedSource, indices: np.ndarray) -> np.ndarray:
    """Returns the fold of each of these examples."""
    data = np.asarray(jax.random.key_data(source.keys(indices)))
    return np.array([zlib.crc32(row.tobytes()) % NUM_FOLDS for row in data])


def fold_indices(source: RenderedSource, fold: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the training and the test examples of a fold.

    Raises:
        ValueError: the fold is not 0 to 4.
    """
    check_choice("fold", fold, range(NUM_FOLDS))
    folds = folds_of(source, np.arange(len(source)))
    return np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


@functools.partial(jax.jit, static_argnames=("view", "change"))
def _render_batch(keys, labels, cue_probability, *, view: View, change: str | None):
    """One image after the other, whose rays stay in a CPU's cache; the rays of one fill an accelerator."""

    def one(key_and_label):
        key, label = key_and_label
        options, drawn = view._asdict(), {"variant": view.variant, "difficulty": view.difficulty}
        factors = draw_view(key, label, cue_probability=cue_probability, **drawn)
        if change is not None:
            return jax.tree.map(rounded, intervene(factors, label, change=change, **options))
        rendering = render_factors(factors, label, **options)
        found = {"images": rounded(rendering.image), "masks": rounded(rendering.mask)}
        if view.around.is_cue:
            found |= {"cue_masks": rounded(rendering.parts[..., -1]), "cues": factors.scenery.cue}
        return found

    return jax.lax.map(one, (keys, labels))
