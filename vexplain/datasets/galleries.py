"""Galleries in which an object is to be found again: its partner among others that agree with it in a lot.

In a gallery of test images pose gives an object away in spite of a wrong appearance, and color in spite of a
wrong texture. So every pair has a gallery of its own, made of its true partner and of the same picture with
other objects' appearance: of all of it where only the pose is matched, or of the pattern alone where the
colors are matched too. As a histogram of colors also tells how much of each there is and, by the mixed pixels
along the borders, how fine the pattern is, the patterns that are chosen then are those most alike in both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.datasets.appearance import PATTERN
from vexplain.typing import Array, Float, Int

MATCHED = ("pose", "colors")
NUM_MEMBERS = 20
MOST_PIXELS = 32  # height at which patterns are compared: how alike they are changes little with size
_NUM_CONSIDERED = 300  # other patterns, of which the most alike are chosen


def render_galleries(
    factors: Any,
    render_fn: Callable[[Any], np.ndarray],
    shares_fn: Callable[[Any], np.ndarray],
    *,
    appearance: Sequence[str],
    matched: str,
    num_members: int,
) -> Float[np.ndarray, "pairs members height width 3"]:
    """Returns the gallery of each pair, its true partner first.

    Args:
        factors: of the pairs, NumPy arrays in a NamedTuple.
        render_fn: images of batched factors.
        shares_fn: `pattern_shares` of batched factors.
        appearance: names of the factors that differ within galleries where only the pose is matched.
        matched: `"pose"` or `"colors"`.
        num_members: of a gallery; where there are fewer pairs, as many as these.

    Raises:
        ValueError: another `matched`; fewer than one member; colors are to be matched and a pair has no
            pattern.
    """
    check_choice("matched", matched, MATCHED)
    check_positive(num_members=num_members)
    count = len(factors.hue)
    if matched == "pose":
        others = _spread(count, min(num_members, count))
    else:
        _check_patterned(factors)
        others, appearance = _alike(factors, shares_fn, min(num_members, count)), PATTERN
    images = render_fn(_with(factors, others, appearance))
    return images.reshape(*others.shape, *images.shape[1:])


def pattern_shares(
    mask: Float[Array, "height width"], second: Float[Array, "height width"]
) -> Float[Array, " 2"]:
    """Returns how much of an object has the second color, and how much lies in pixels of both colors.

    Args:
        mask: coverage of each pixel by the object.
        second: coverage by its second color.
    """
    mixed = jnp.minimum(second, mask - second)
    return jnp.stack([second.sum(), mixed.sum()]) / mask.sum()


def _spread(count: int, num_others: int) -> Int[np.ndarray, "pairs others"]:
    """Itself and others, as far apart as possible, so that every one is as often in a gallery."""
    return (np.arange(count)[:, None] + np.arange(num_others) * (count // num_others)) % count


def _alike(
    factors: Any, shares_fn: Callable[[Any], np.ndarray], num_members: int
) -> Int[np.ndarray, "pairs members"]:
    """Itself and the patterns most alike in both shares, each in units of its standard deviation."""
    others = _spread(len(factors.hue), min(_NUM_CONSIDERED, len(factors.hue)))
    found = shares_fn(_with(factors, others, PATTERN)).reshape(*others.shape, 2)
    differences = np.abs(found - found[:, :1]) / np.maximum(found.std((0, 1)), 1e-6)
    nearest = np.argsort(differences.sum(-1), axis=1, kind="stable")  # itself is the first
    return np.take_along_axis(others, nearest[:, :num_members], axis=1)


def _with(factors: Any, others: Int[np.ndarray, "pairs others"], names: Sequence[str]) -> Any:
    """The factors of each pair once for each of its others, whose are the named ones, one after the other."""
    own = np.broadcast_to(np.arange(len(others))[:, None], others.shape)
    return type(factors)(
        *(
            np.asarray(leaf)[others if name in names else own].reshape(-1)
            for name, leaf in factors._asdict().items()
        )
    )


def _check_patterned(factors: Any) -> None:
    is_plain = np.asarray(factors.texture) == 0
    if is_plain.any():
        raise ValueError(
            f"pairs: {is_plain.sum()} of {len(is_plain)} have no pattern, which gives them away; "
            "pass patterned(pairs)"
        )


def patterned(pairs: Any) -> Any:
    """Returns the pairs whose objects have a pattern: those that matched colors leave something to find by.

    Args:
        pairs: of shape swap or try-on.

    Raises:
        ValueError: all are plain.
    """
    chosen = np.flatnonzero(np.asarray(pairs.factors.texture) > 0)
    if not len(chosen):
        raise ValueError(f"pairs: all {len(pairs.images_a)} are plain: expected some with a pattern")
    rows = {name: array[chosen] for name, array in pairs._asdict().items() if name != "factors"}
    factors = type(pairs.factors)(*(np.asarray(leaf)[chosen] for leaf in pairs.factors))
    return pairs._replace(**rows, factors=factors)
