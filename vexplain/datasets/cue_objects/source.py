"""Cue objects as a source of labeled images, rendered when they are asked for."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.datasets.cue_objects.factors import (
    BACKGROUNDS,
    CUES,
    NAMES,
    NUM_VALUES,
    Factors,
    draw_factors,
)
from vexplain.datasets.cue_objects.renderer import intervene, render_factors
from vexplain.datasets.sources import LazySource, as_places, rounded
from vexplain.typing import Float

SPLITS = ("train", "validation", "test", "conflict")
_CHANCE = 1 / NUM_VALUES


@dataclasses.dataclass(frozen=True)
class CueSource(LazySource):
    """A fixed set of renderings. Example i has label i mod 6 and the i-th key of its split.

    Shape, texture and color are the probability that this cue shows the class; a cue that is left out is
    independent of it. `CueSource(texture=1.0)` is a set whose class is the texture; with `shape=1.0` beside
    it the cues are redundant, and with `shape=0.8` a fifth of the shapes are those of another class.

    The split "conflict" is the test of which cue a network uses: the three cues of an image show three
    different classes, all combinations equally often. Its label is that of the cue with the largest
    probability, the first of several.

    Batches also have "shapes", "textures" and "colors" (n,), the values of the cues; "masks" are the coverage
    by the object. Split and index make the random key: splits share no pose, and sets that differ in their
    probabilities show the same poses. Images are rounded to 8 bits, as those of the same set stored as files
    are.

    Args:
        shape: in [0, 1], or `None`.
        texture: in [0, 1], or `None`.
        color: in [0, 1], or `None`.
        num_per_class: images a class.
        size: height and width in pixels.
        samples: points a pixel along each axis.
        background: "plain" or "textured".
        clutter: number of small objects behind the object.
        seed: of the keys.
        split: "train", "validation", "test" or "conflict".

    Raises:
        ValueError: no cue is given, an unknown split or background, or a number out of range.

    Example:
        >>> source = CueSource(texture=1.0, num_per_class=2, size=16)
        >>> batch = source[np.array([0, 7])]
        >>> batch["images"].shape, batch["labels"].tolist(), batch["textures"].tolist()
        ((2, 16, 16, 3), [0, 1], [0, 1])
        >>> source.class_names[:2]
        ('stripes', 'checker')
    """

    _: dataclasses.KW_ONLY
    shape: float | None = None
    texture: float | None = None
    color: float | None = None
    num_per_class: int = 1000
    size: int = 48
    samples: int = 3
    background: str = "plain"
    clutter: int = 0
    seed: int = 0
    split: str = "train"

    def __post_init__(self):
        given = {cue: getattr(self, cue) for cue in CUES if getattr(self, cue) is not None}
        if not given:
            raise ValueError(
                "shape, texture and color are None: give the probability of one that is the class"
            )
        for cue, probability in given.items():
            if not 0 <= probability <= 1:
                raise ValueError(f"{cue} is {probability}: expected a probability, 0 to 1, or None")
        check_choice("split", self.split, SPLITS)
        check_choice("background", self.background, BACKGROUNDS)
        check_positive(num_per_class=self.num_per_class, size=self.size, samples=self.samples)
        if self.clutter < 0:
            raise ValueError(f"clutter is {self.clutter}: expected a number of objects, 0 or more")

    @property
    def agreement(self) -> tuple[float, float, float]:
        """The probabilities of all three cues."""
        shape, texture, color = (_CHANCE if p is None else p for p in (self.shape, self.texture, self.color))
        return shape, texture, color

    @property
    def class_names(self) -> tuple[str, ...]:
        """The values of the cues that are given, as in "disc" or "disc, stripes"."""
        given = [NAMES[cue] for cue in CUES if getattr(self, cue) is not None]
        return tuple(", ".join(values) for values in zip(*given, strict=True))

    def __len__(self) -> int:
        return self.num_per_class * NUM_VALUES

    def factors(self, indices: Any) -> Factors:
        """Returns the factors of some examples, batched."""
        return _draw_batch(*self._drawn(as_places(indices, len(self))), **self._static)

    def interventions(
        self, indices: Any, *, step: int = NUM_VALUES // 2
    ) -> Float[np.ndarray, "n cues h w 3"]:
        """Returns the images of some examples with one cue changed after the other: `intervene`.

        Args:
            indices: of the examples.
            step: 1 to 5: value v of a cue becomes (v + step) mod 6.

        Example:
            >>> source = CueSource(shape=1.0, num_per_class=2, size=16, samples=1)
            >>> source.interventions(np.array([0, 7])).shape
            (2, 3, 16, 16, 3)
        """
        check_choice("step", step, range(1, NUM_VALUES))
        return np.asarray(
            _intervene_batch(self.factors(indices), jnp.int32(step), size=self.size, samples=self.samples)
        )

    def _batch(self, indices: np.ndarray) -> dict[str, Any]:
        keys, labels, agreement = self._drawn(indices)
        factors = _draw_batch(keys, labels, agreement, **self._static)
        images, masks = _render_batch(factors, size=self.size, samples=self.samples)
        cues = {f"{cue}s": np.asarray(getattr(factors, cue), np.int32) for cue in CUES}
        return {"images": images, "masks": masks, "labels": np.asarray(labels, np.int32), **cues}

    def _drawn(self, indices: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
        root = jax.random.fold_in(jax.random.key(self.seed), SPLITS.index(self.split))
        places = jnp.asarray(indices, jnp.uint32)
        keys = jax.vmap(lambda index: jax.random.fold_in(root, index))(places)
        return keys, jnp.asarray(indices % NUM_VALUES, jnp.int32), jnp.asarray(self.agreement, jnp.float32)

    @property
    def _static(self) -> dict[str, Any]:
        leading = CUES[int(np.argmax(self.agreement))]
        conflict = leading if self.split == "conflict" else None
        return {"background": self.background, "clutter": self.clutter, "conflict": conflict}


@functools.partial(jax.jit, static_argnames=("background", "clutter", "conflict"))
def _draw_batch(keys: jax.Array, labels: jax.Array, agreement: jax.Array, **static: Any) -> Factors:
    return jax.vmap(lambda key, label: draw_factors(key, label, agreement=agreement, **static))(keys, labels)


@functools.partial(jax.jit, static_argnames=("size", "samples"))
def _render_batch(factors: Factors, *, size: int, samples: int) -> tuple[jax.Array, jax.Array]:
    """One image after the other: its points stay in a CPU's cache, and fill an accelerator."""
    options = {"size": size, "samples": samples}
    return jax.lax.map(lambda one: jax.tree.map(rounded, render_factors(one, **options)), factors)


@functools.partial(jax.jit, static_argnames=("size", "samples"))
def _intervene_batch(factors: Factors, step: jax.Array, *, size: int, samples: int) -> jax.Array:
    options = {"size": size, "samples": samples}
    return jax.lax.map(lambda one: rounded(intervene(one, step=step, **options)), factors)
