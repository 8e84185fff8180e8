"""Galleries of try-on: the true partner among the same picture of other garments."""

import functools

import jax
import numpy as np

from vexplain._checks import check_choice
from vexplain.datasets.galleries import MOST_PIXELS, NUM_MEMBERS, pattern_shares, render_galleries
from vexplain.datasets.rendered_domains import in_parts
from vexplain.datasets.try_on.factors import GARMENT, Factors
from vexplain.datasets.try_on.renderer import coverage
from vexplain.datasets.try_on.source import Pairs, render_batch
from vexplain.typing import Array, Float

_SAMPLES = 3


def galleries(
    pairs: Pairs, direction: str, *, matched: str = "pose", num_members: int = NUM_MEMBERS
) -> Float[np.ndarray, "pairs members height width 3"]:
    """Returns a gallery for each input: its true partner first, then other garments in the same picture.

    Args:
        pairs: of `paired_test`.
        direction: `"ab"`, worn candidates, on the same figure before the same scene; or `"ba"`, products.
        matched: `"pose"`, garments that differ in all; or `"colors"`, which have the same two colors, differ
            in texture, frequency, angle and phase, and are most alike in how much of each color there is.
        num_members: of a gallery; where there are fewer pairs, as many as these.

    Raises:
        ValueError: an unknown direction or `matched`; colors are to be matched and a garment is plain (pass
            `patterned(pairs)`).

    Example:
        >>> from vexplain.datasets.try_on import paired_test
        >>> galleries(paired_test(4, size=16), "ba", num_members=3).shape
        (4, 3, 16, 16, 3)
    """
    check_choice("direction", direction, ("ab", "ba"))
    domain, options = "ab".index(direction[1]), {"size": pairs.images_a.shape[1], "samples": _SAMPLES}
    coarse = options | {"size": min(options["size"], MOST_PIXELS)}
    return render_galleries(
        pairs.factors,
        lambda factors: in_parts(lambda part: render_batch(part, domain, **options)[0], factors),
        lambda factors: in_parts(lambda part: _shares(part, domain, **coarse), factors),
        appearance=GARMENT,
        matched=matched,
        num_members=num_members,
    )


@functools.partial(jax.jit, static_argnames=("size", "samples"))
def _shares(factors: Factors, domain: jax.Array | int, *, size: int, samples: int) -> Float[Array, "pairs 2"]:
    options = {"size": size, "samples": samples}
    return jax.lax.map(lambda one: pattern_shares(*coverage(one, domain, **options)), factors)
