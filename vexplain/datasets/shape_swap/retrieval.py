"""Galleries of shape swap, and the exemplars that say which of several shapes is meant."""

import functools
from typing import Any

import jax
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets import appearance
from vexplain.datasets.galleries import MOST_PIXELS, NUM_MEMBERS, pattern_shares, render_galleries
from vexplain.datasets.rendered_domains import in_parts
from vexplain.datasets.shape_swap.factors import Factors
from vexplain.datasets.shape_swap.renderer import coverage
from vexplain.datasets.shape_swap.source import Pairs, ShapeSwapSource, render_batch
from vexplain.typing import Array, Float

APPEARANCE = (*appearance.RANGES, "shade")  # what a gallery of matched pose varies
_SAMPLES = 3


def galleries(
    pairs: Pairs, direction: str, *, level: int, matched: str = "pose", num_members: int = NUM_MEMBERS
) -> Float[np.ndarray, "pairs members height width 3"]:
    """Returns a gallery for each input: its true partner first, then others that agree with it in a lot.

    Args:
        pairs: of `paired_test`.
        direction: `"ab"`, candidates of domain B, or `"ba"`.
        level: of the pairs.
        matched: `"pose"`, candidates of the partner's shape and pose in other objects' appearance; or
            `"colors"`, which have its colors and background too, differ in texture, frequency, angle and
            phase, and are most alike in how much of each color there is: a color histogram hardly helps.
        num_members: of a gallery; where there are fewer pairs, as many as these.

    Raises:
        ValueError: an unknown direction, level or `matched`; colors are to be matched and an object is plain
            (pass `patterned(pairs)`).

    Example:
        >>> from vexplain.datasets import patterned
        >>> from vexplain.datasets.shape_swap import paired_test
        >>> pairs = patterned(paired_test(8, size=16))
        >>> galleries(pairs, "ab", level=4, matched="colors", num_members=3).shape[1:]
        (3, 16, 16, 3)
    """
    check_choice("direction", direction, ("ab", "ba"))
    domain, size = "ab".index(direction[1]), pairs.images_a.shape[1]
    options = {"level": level, "size": size, "samples": _SAMPLES}
    coarse = options | {"size": min(options["size"], MOST_PIXELS)}
    return render_galleries(
        pairs.factors,
        lambda factors: in_parts(lambda part: render_batch(part, domain, **options)[0], factors),
        lambda factors: in_parts(lambda part: _shares(part, domain, **coarse), factors),
        appearance=APPEARANCE,
        matched=matched,
        num_members=num_members,
    )


def exemplars(
    pairs: Pairs, direction: str, *, level: int, variant: str = "U", seed: int = 0
) -> Float[np.ndarray, "pairs height width 3"]:
    """Returns an image for each input that says which of its true translations is meant.

    An exemplar is of the target domain, has the partner's own factor (the corners of the polygon, the spikes
    of the star), and appearance and pose of its own, those of the split `"test"`. Given it, the partner is
    the only true translation; without one, each of `Pairs.targets_a` or `targets_b` is.

    Args:
        pairs: of `paired_test`.
        direction: `"ab"`, exemplars of domain B, or `"ba"`.
        level: of the pairs; where shapes have no own factor, exemplars are any images of the target domain.
        variant: of the exemplars.
        seed: of the exemplars.

    Raises:
        ValueError: an unknown direction, level or variant.

    Example:
        >>> from vexplain.datasets.shape_swap import paired_test
        >>> exemplars(paired_test(2, level=3, size=16), "ab", level=3).shape
        (2, 16, 16, 3)
    """
    check_choice("direction", direction, ("ab", "ba"))
    domain, (count, size) = "ab".index(direction[1]), pairs.images_a.shape[:2]
    options: dict[str, Any] = {"level": level, "variant": variant, "size": size, "seed": seed}
    source = ShapeSwapSource(domain, num_images=count, split="test", **options)
    own = {name: np.asarray(getattr(pairs.factors, name)) for name in ("corners", "spikes")}
    factors = jax.device_get(source.factors(np.arange(count)))._replace(**own)
    return in_parts(lambda part: source.rendered(part, domain)["images"], factors)


@functools.partial(jax.jit, static_argnames=("level", "size", "samples"))
def _shares(
    factors: Factors, domain: jax.Array | int, *, level: int, size: int, samples: int
) -> Float[Array, "pairs 2"]:
    options = {"level": level, "size": size, "samples": samples}
    return jax.lax.map(lambda one: pattern_shares(*coverage(one, domain, **options)), factors)
