"""What makes the class hard to find, or easy to cheat: the difficulties of the data, by name.

    plain         one flower before an even gray
    textured      the background is a sum of random colored waves
    distractors   three eggs in class colors lie where the flower is not, whatever the class
    occluded      a gray stone hides a third or so of each part that may carry the class
    context       a color stands for two classes: a pot or a stake at the stem decides between them
    low_contrast  the image is drawn toward the gray of its background, to a fifth or two
    shortcut      a colored patch in a corner shows the class too, with a stated probability

The truth is what determines the class. For `context` these are two things, the colored part and the pot or
the stake, and the mask holds both. For `shortcut` the mask is the part, and the patch has a mask of its own:
which of the two a network uses is found by intervention.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.datasets.an8flower import scenery
from vexplain.datasets.an8flower.scene import COLOR_NAMES, PARTS, Factors, class_names
from vexplain.datasets.an8flower.scenery import Asked, Scenery
from vexplain.typing import Array, Float, Int, Key


def _no_colors(drawn: Any) -> Float[Array, "objects 3"]:
    return jnp.zeros((0, 3))


@dataclasses.dataclass(frozen=True)
class Difficulty:
    """What surrounds the flower, and what it does to the class; an own one is given in place of a name.

    Args:
        name: of it, in the names of results.
        draw: `(key, surface, asked) -> Scenery`, random surroundings of a flower whose parts are seen as
            `surface` (32, 32) tells; only a cue looks at the class. Nothing is drawn where it is left out.
        part: the name of the part that it adds to those of the flower.
        place: `(surface, normal, factors, context, plane) -> surface, normal`, what the rays that pass
            `plane` meet with its objects there: surfaces from `len(PARTS)` on, one number each.
        colors: `(scenery) -> (objects, 3)`, of these surfaces.
        has_room: `(factors, surface) -> bool array`, whether a view shows what is added, whatever the class.
        margin: how many times the least coverage the part that carries the class must have before.
        contexts: names of what decides between the classes that share a color.
        is_cue: its part shows a class, `Scenery.cue`, which need not be that of the image.

    Example:
        >>> DIFFICULTIES["occluded"].part
        'occluders'
        >>> faint = Difficulty("faint", lambda key, surface, asked: Scenery(contrast=jnp.float32(0.1)))
        >>> faint.part_names
        ('background', 'stem', 'leaves', 'petals', 'disc')
    """

    name: str
    draw: Callable[[Key, Int[Array, "height width"], Asked], Scenery] | None = None
    part: str | None = None
    place: Callable[..., Any] | None = None
    colors: Callable[[Scenery], Float[Array, "objects 3"]] = _no_colors
    has_room: Callable[[Factors, Int[Array, "height width"]], Array] | None = None
    margin: float = 2.5
    contexts: tuple[str, ...] = ()
    is_cue: bool = False

    @property
    def part_names(self) -> tuple[str, ...]:
        """The parts of an image, the background first, what surrounds the flower last."""
        return PARTS if self.part is None else (*PARTS, self.part)

    @property
    def classes_a_color(self) -> int:
        return max(1, len(self.contexts))

    def class_names(self, variant: str) -> tuple[str, ...]:
        """Returns the names of the classes of a variant.

        Example:
            >>> DIFFICULTIES["context"].class_names("single_6c")[:2]
            ('red petals with a pot', 'red petals with a stake')
        """
        names, n = class_names(variant), self.classes_a_color
        if not self.contexts:
            return names
        return tuple(f"{names[i - i % n]} with a {self.contexts[i % n]}" for i in range(len(names)))

    def color_of_class(self, label: Int[Array, ""] | int) -> Int[Array, ""] | int:
        """Returns the index of the color that the part which carries a class shows in it."""
        color = label % len(COLOR_NAMES)
        return color - color % self.classes_a_color

    def opposite(self, color: Int[Array, ""] | int) -> Int[Array, ""] | int:
        """Returns the color half around the list, or the next that a class has where some are left out."""
        step = self.classes_a_color if self.contexts else len(COLOR_NAMES) // 2
        return (color + step) % len(COLOR_NAMES)


DIFFICULTIES = {
    difficulty.name: difficulty
    for difficulty in (
        Difficulty("plain"),
        Difficulty("textured", scenery.textured),
        Difficulty(
            "distractors", scenery.distractors, "distractors", scenery.place_behind, scenery.colors_of_objects
        ),
        Difficulty(
            "occluded",
            scenery.occluders,
            "occluders",
            scenery.place_before,
            scenery.colors_of_objects,
            margin=5.0,  # half of it may be hidden
        ),
        Difficulty(
            "context",
            scenery.pot_or_stake,
            "context",
            scenery.place_context,
            scenery.colors_of_wood,
            scenery.room_for_context,
            contexts=("pot", "stake"),
        ),
        Difficulty("low_contrast", scenery.low_contrast),
        Difficulty(
            "shortcut",
            scenery.cue,
            "cue",
            scenery.place_cue,
            scenery.colors_of_cue,
            scenery.room_for_cue,
            is_cue=True,
        ),
    )
}


def difficulty_of(difficulty: str | Difficulty) -> Difficulty:
    """Returns the difficulty of a name, or the one that was given.

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(difficulty, Difficulty):
        return difficulty
    check_choice("difficulty", difficulty, DIFFICULTIES)
    return DIFFICULTIES[difficulty]


def part_names(difficulty: str | Difficulty) -> tuple[str, ...]:
    """Returns the names of the parts of an image, the background first, what surrounds the flower last.

    Raises:
        ValueError: an unknown difficulty.

    Example:
        >>> part_names("shortcut")
        ('background', 'stem', 'leaves', 'petals', 'disc', 'cue')
    """
    return difficulty_of(difficulty).part_names


class View(NamedTuple):
    """How a scene is shown, which the functions of the renderer are given as options."""

    variant: str = "single_6c"  # or "double_12c"
    size: int = 112  # height and width in pixels
    samples: int = 3  # rays a pixel along each axis
    difficulty: str | Difficulty = "plain"  # with which the factors were drawn

    @property
    def around(self) -> Difficulty:
        """What surrounds the flower; an unknown difficulty raises ValueError."""
        return difficulty_of(self.difficulty)
