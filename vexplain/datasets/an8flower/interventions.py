"""Images with one part changed: what a network makes of a part is found by changing it, and nothing else.

The same scene is painted once for each part, that part in other colors. Pixels that do not show the part keep
their bits. How much the score of a network changes is measured in `vexplain.evaluation`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets.an8flower.difficulty import View
from vexplain.datasets.an8flower.renderer import backdrop, paint, part_coverage, see, surface_colors
from vexplain.datasets.an8flower.scene import CLASS_COLORS, PARTS, Factors
from vexplain.typing import Array, Float, Int

CHANGES = ("recolor", "gray", "base")
GRAY = 0.5


class Interventions(NamedTuple):
    """One image a part, in which that part is changed; and where it is seen in the image as it was.

    The order is that of `part_names(difficulty)`.
    """

    images: Float[Array, "parts height width 3"]
    masks: Float[Array, "parts height width"]


def intervene(
    factors: Factors, label: Int[Array, ""] | int, *, change: str = "recolor", **options: Any
) -> Interventions:
    """Returns the image of a class with each of its parts changed, one at a time.

    Args:
        factors: from `render`.
        label: the class.
        change: what becomes of a part.
            `"recolor"`: it shows the color of another class, the one half around the list of colors; in place
            of a pot stands a stake, and the other way round; the cue shows another class.
            `"gray"`: it is gray, shaded as before.
            `"base"`: what an object of no class shows: the part that carries the class has its base color,
            the background no texture, and what surrounds the flower is not there. What has its base color
            already is left as it is.
        **options: variant, size, samples and difficulty, as in `render`.

    Returns:
        `images` (parts, size, size, 3) in [0, 1], and `masks` (parts, size, size), coverage in [0, 1].

    Raises:
        ValueError: an unknown change, variant or difficulty, or factors of another difficulty.

    Example:
        >>> from vexplain.datasets.an8flower.renderer import draw_view
        >>> def changed(key):
        ...     factors = draw_view(key, 2, variant="single_6c")
        ...     return intervene(factors, 2, change="gray", size=16).images
        >>> jax.eval_shape(changed, jax.random.key(0)).shape
        (5, 16, 16, 3)
    """
    check_choice("change", change, CHANGES)
    view = View(**options)
    around = view.around
    context = label % around.classes_a_color
    seen, behind = see(factors, context, view), backdrop(factors, view)
    colors = surface_colors(factors, label, view)
    coverage = jnp.moveaxis(part_coverage(seen, view), -1, 0)
    new_colors, new_behind = _changed_colors(factors, label, colors, change, view)
    of_part = np.minimum(np.arange(1, len(colors) + 1), len(PARTS))
    image = paint(factors, seen, colors, behind, view)

    def changed(part):
        row = jnp.where((of_part == part)[:, None], new_colors, colors)
        return paint(factors, seen, row, jnp.where(part == 0, new_behind, behind), view)

    images = jax.lax.map(changed, jnp.arange(len(coverage)))
    images = jnp.where(coverage[..., None] > 0, images, image)
    other = None
    if around.part is not None and change == "base":
        other = see(factors._replace(scenery=None), 0, view._replace(difficulty="plain"))
    elif around.contexts and change == "recolor":
        other = see(factors, (context + 1) % around.classes_a_color, view)
    if other is not None:
        images = images.at[-1].set(paint(factors, other, colors, behind, view))
    return Interventions(images, coverage)


def _changed_colors(factors, label, colors, change, view):
    """Colors of all surfaces, and of the background, as they are when their turn comes."""
    if change == "gray":
        return jnp.full_like(colors, GRAY), jnp.full((3,), GRAY)
    if change == "base":
        return surface_colors(factors, -1, view), jnp.full((3,), factors.shade)
    around, palette = view.around, jnp.asarray(CLASS_COLORS)
    color = palette[around.opposite(around.color_of_class(label))]
    new = jnp.broadcast_to(color, colors.shape)
    if around.is_cue:
        new = new.at[-1].set(palette[around.opposite(factors.scenery.cue)])
    return new, color
