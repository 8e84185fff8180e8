"""Galleries in which an object is to be found again: its partner among others that agree with it in a lot.

In a gallery of test images pose gives an object away in spite of a wrong appearance, and color in spite of a
wrong texture. So every pair has a gallery of its own, made of its true partner and of the same picture with
other objects' appearance: of all of it where only the pose is matched, or of the pattern alone where the
colors are matched too. As a histogram of colors also tells how much of each there is and, by the mixed pixels
along the borders, how fine the pattern is, the patterns that are chosen then are those most alike in both.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.datasets.appearance import PATTERN
from vexplain.typing import Float, Int

MATCHED = ("pose", "colors")
NUM_MEMBERS = 20
_NUM_CONSIDERED = 150  # other patterns, of which the most alike are chosen


def render_galleries(
    factors: Any,
    render_fn: Callable[[Any], np.ndarray],
    coverage_fn: Callable[[Any], tuple[np.ndarray, np.ndarray]],
    *,
    appearance: Sequence[str],
    matched: str,
    num_members: int,
) -> Float[np.ndarray, "pairs members height width 3"]:
    """Returns the gallery of each pair, its true partner first.

    Args:
        factors: of the pairs, NumPy arrays in a NamedTuple.
        render_fn: images of batched factors.
        coverage_fn: of batched factors, how much of each pixel the object and its second color cover.
        appearance: names of the factors that differ within galleries where only the pose is matched.
        matched: `"pose"` or `"colors"`.
        num_members: of a gallery; where there are fewer pairs, as many as these.

    Raises:
        ValueError: another `matched`; fewer than two members; colors are to be matched and a pair has no
            pattern, or too few pairs are given.
    """
    check_choice("matched", matched, MATCHED)
    check_positive(num_members=num_members)
    count = len(factors.hue)
    num_members = min(num_members, count)
    if matched == "pose":
        others = _spread(count, num_members)
    else:
        _check_patterned(factors, num_members)
        others, appearance = _alike(factors, coverage_fn, num_members), PATTERN
    return np.stack([render_fn(_with(factors, column, appearance)) for column in others.T], axis=1)


def _spread(count: int, num_others: int) -> Int[np.ndarray, "pairs others"]:
    """Itself and others, as far apart as possible, so that every one is as often in a gallery."""
    return (np.arange(count)[:, None] + np.arange(num_others) * (count // num_others)) % count


def _alike(
    factors: Any, coverage_fn: Callable[..., Any], num_members: int
) -> Int[np.ndarray, "pairs members"]:
    """Itself and the patterns most alike in share and in mixed pixels, each in units of its deviation."""
    others = _spread(len(factors.hue), min(_NUM_CONSIDERED, len(factors.hue)))
    found = np.stack([_shares(*coverage_fn(_with(factors, column, PATTERN))) for column in others.T], axis=1)
    differences = np.abs(found - found[:, :1]) / np.maximum(found.std((0, 1)), 1e-6)
    nearest = np.argsort(differences.sum(-1), axis=1, kind="stable")  # itself is the first
    return np.take_along_axis(others, nearest[:, :num_members], axis=1)


def _shares(masks: np.ndarray, second: np.ndarray) -> Float[np.ndarray, "pairs 2"]:
    """How much of an object has the second color, and how much of it lies in pixels of both colors."""
    area = masks.sum((1, 2))
    mixed = np.minimum(second, masks - second).sum((1, 2))
    return np.stack([second.sum((1, 2)), mixed], axis=-1) / area[:, None]


def _with(factors: Any, others: np.ndarray, names: Sequence[str]) -> Any:
    return factors._replace(**{name: np.asarray(getattr(factors, name))[others] for name in names})


def _check_patterned(factors: Any, num_members: int) -> None:
    is_plain = np.asarray(factors.texture) == 0
    if is_plain.any():
        raise ValueError(
            f"pairs: {is_plain.sum()} of {len(is_plain)} have no pattern, which gives them away; "
            "pass patterned(pairs)"
        )
    if len(is_plain) < 2 or num_members < 2:
        raise ValueError(f"pairs: there are {len(is_plain)}: expected two or more to choose patterns from")


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
