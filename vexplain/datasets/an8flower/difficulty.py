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

from typing import NamedTuple

from vexplain._checks import check_choice
from vexplain.datasets.an8flower.scene import COLOR_NAMES, PARTS, class_names
from vexplain.typing import Array, Int

SURROUNDINGS = {  # a difficulty -> the part that it adds to those of the flower
    "plain": (),
    "textured": (),
    "distractors": ("distractors",),
    "occluded": ("occluders",),
    "context": ("context",),
    "low_contrast": (),
    "shortcut": ("cue",),
}
DIFFICULTIES = tuple(SURROUNDINGS)
CONTEXTS = ("pot", "stake")


class View(NamedTuple):
    """How a scene is shown, which the functions of the renderer are given as options."""

    variant: str = "single_6c"  # or "double_12c"
    size: int = 112  # height and width in pixels
    samples: int = 3  # rays a pixel along each axis
    difficulty: str = "plain"  # with which the factors were drawn


def part_names(difficulty: str) -> tuple[str, ...]:
    """Returns the names of the parts of an image, the background first, what surrounds the flower last.

    Raises:
        ValueError: an unknown difficulty.

    Example:
        >>> part_names("shortcut")
        ('background', 'stem', 'leaves', 'petals', 'disc', 'cue')
    """
    check_choice("difficulty", difficulty, DIFFICULTIES)
    return PARTS + SURROUNDINGS[difficulty]


def names_of_classes(variant: str, difficulty: str) -> tuple[str, ...]:
    """Returns the names of the classes of a variant under a difficulty; an unknown one raises ValueError.

    Example:
        >>> names_of_classes("single_6c", "context")[:2]
        ('red petals with a pot', 'red petals with a stake')
    """
    check_choice("difficulty", difficulty, DIFFICULTIES)
    names = class_names(variant)
    if difficulty != "context":
        return names
    return tuple(f"{names[n - n % 2]} with a {CONTEXTS[n % 2]}" for n in range(len(names)))


def color_of_class(label: Int[Array, ""] | int, difficulty: str) -> Int[Array, ""] | int:
    """Returns the index of the color that the part which carries a class shows in it."""
    color = label % len(COLOR_NAMES)
    return color - color % 2 if difficulty == "context" else color
