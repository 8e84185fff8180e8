"""Crops aligned before they are averaged (*ours*): moved, turned, enlarged, and told apart where they differ.

The paper averages crops as they are, at the position of the strongest response, and its average images are
blurred where a feature responds to one thing in several poses. Here each crop is brought onto the mean of the
others by a similarity (`_congealing`), and where the aligned crops fall into two kinds each kind gets an
average of its own.

Noise can be aligned too, and its mean then shows what is not there. So an alignment has to predict pixels
that it was not fitted to: it is fitted to every other square of each crop, and kept where the squares that
were left out come closer to their mean; else the crops stay as they are. Two modes have to be further apart
than the halves of one that is spread evenly.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_positive
from vexplain.relevance import _congealing
from vexplain.relevance._congealing import Moves
from vexplain.typing import AnyArray, Float, Int, Shaped

MIN_CROPS = 8  # that are aligned, or make a mode: of fewer nothing can be tested
_MIN_SHARE = 0.1  # of the crops, for a mode
_LEAST_GAIN = 3.0  # standard errors, on the squares that were left out
_NUM_DIRECTIONS = 3  # principal ones, along which two modes are looked for
_NUM_DRAWS, _QUANTILE = 400, 0.99  # of crops that are spread evenly, to which two modes are compared


class Alignment(NamedTuple):
    """How the content of each crop is moved, turned and enlarged against the average of its mode.

    The point q = (row, column) of the average, counted from its center, is at the point
    p = shift + scale · R(angle) · q of the crop; in a mirrored one the column of q changes its sign first.

    Attributes:
        angles: (n,) radians, counterclockwise.
        scales: (n,).
        shifts: (n, 2) pixels, down and to the right.
        is_mirrored: (n,).
        modes: (n,) 0 for the mode with the most crops, then 1, ...
    """

    angles: Float[np.ndarray, " n"]
    scales: Float[np.ndarray, " n"]
    shifts: Float[np.ndarray, "n 2"]
    is_mirrored: Shaped[np.ndarray, " n"]
    modes: Int[np.ndarray, " n"]

    @property
    def shares(self) -> tuple[float, ...]:
        """The share of the crops that each mode has."""
        counts = np.bincount(self.modes)
        return tuple((counts / max(len(self.modes), 1)).tolist())


def align_crops(crops: AnyArray, *, mirror: bool = False, max_modes: int = 3) -> Alignment:
    """Returns the similarities that align crops to their means, and which mode each crop is of.

    Turns may have any angle; sizes differ by up to a factor of about 1.5 either way, moves by about 40 % of
    the window. The average is in the middle of them all, and the colors of a crop may be lighter or darker
    as a whole. Crops that are fewer than 8, or whose alignment does not explain pixels that it was not fitted
    to, stay as they are.

    Args:
        crops: (n, height, width, channels) in [0, 1]; NaN for pixels that are not seen.
        mirror: a crop may also be a mirror image of the mean.
        max_modes: as many means at most; 1 for a single one.

    Raises:
        ValueError: another number of axes, an empty window, or no mode.

    References:
        Learned-Miller, Data Driven Image Models through Continuous Joint Alignment, PAMI 2006, for aligning
        to the mean; what is kept, and the modes, are ours.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> pattern = np.zeros((30, 30, 1), np.float32)
        >>> pattern[10:20, 10:13] = pattern[17:20, 10:18] = 1  # an L
        >>> places = rng.integers(-5, 6, (20, 2))
        >>> crops = np.stack([np.roll(pattern, place, (0, 1)) for place in places])
        >>> alignment = align_crops(crops)
        >>> moved = alignment.shifts - alignment.shifts.mean(0)
        >>> bool(np.abs(moved - (places - places.mean(0))).max() < 0.5)
        True
    """
    _check(crops, max_modes)
    count = len(crops)
    kept = identity_alignment(count)
    members = [np.arange(count)]
    if count:
        grid = _padded(np.asarray(crops, np.float32))
        moves = _aligned(grid, np.arange(count), mirror)
        members, moves = _in_modes(grid, count, moves, mirror, max_modes)
        members.sort(key=len, reverse=True)
        kept = _as_alignment(moves, members, count, max(crops.shape[1:3]) / _congealing.SIDE)
    return kept


def identity_alignment(count: int) -> Alignment:
    """Returns the alignment that leaves crops as they are: the paper's."""
    zeros = np.zeros(count, np.float32)
    return Alignment(
        zeros, zeros + 1, np.zeros((count, 2), np.float32), np.zeros(count, bool), np.zeros(count, int)
    )


def move_crops(
    crops: Float[AnyArray, "n height width channels"], alignment: Alignment
) -> Float[np.ndarray, "n height width channels"]:
    """Returns crops moved onto the average, by bilinear interpolation; NaN where nothing is seen.

    Args:
        crops: in [0, 1]; NaN for pixels that are not seen.
        alignment: of these crops.

    Example:
        >>> crops = np.random.default_rng(0).uniform(size=(2, 4, 3, 1)).astype(np.float32)
        >>> bool(np.allclose(move_crops(crops, identity_alignment(2)), crops))
        True
    """
    if not len(crops):
        return np.asarray(crops, np.float32)
    return np.asarray(_moved(jnp.asarray(crops, jnp.float32), _as_moves(alignment)))


def residual_variance(
    crops: Float[AnyArray, "n height width channels"], alignment: Alignment, *, free_offset: bool = False
) -> Float[np.ndarray, " n"]:
    """Returns the mean squared error of each crop against the mean of the others of its mode.

    It is taken over the seen pixels of the crop, as they are, and all channels: the mean is moved to the
    crop, and not the crop to the mean, which would smooth it.

    Args:
        crops: in [0, 1]; NaN for pixels that are not seen.
        alignment: of these crops.
        free_offset: each crop may be lighter or darker than the mean as a whole, by one color.

    Example:
        >>> crops = np.zeros((20, 6, 6, 1), np.float32)
        >>> crops[::2] = 1
        >>> print(residual_variance(crops, identity_alignment(20)).mean().round(2))
        0.28
    """
    side = max(crops.shape[1:3])
    grid = _congealing.on_grid(jnp.asarray(crops, jnp.float32), side=side)
    found = np.zeros(len(crops), np.float32)
    for mode in range(len(alignment.shares)):
        is_member = alignment.modes == mode
        both = _congealing.errors(grid, jnp.asarray(is_member, jnp.float32), _as_moves(alignment))
        found = np.where(is_member, np.asarray(both[int(free_offset)]), found)
    return found


def _check(crops: AnyArray, max_modes: int) -> None:
    if crops.ndim != 4 or not min(crops.shape[1:]):
        raise ValueError(f"crops has shape {crops.shape}: expected (n, height, width, channels)")
    check_positive(max_modes=max_modes)


def _padded(crops: np.ndarray) -> np.ndarray:
    """With crops of which nothing is seen, so that one compiled program serves several numbers of crops."""
    size = 1 << max(5, math.ceil(math.log2(len(crops))))
    return np.concatenate([crops, np.full((size - len(crops), *crops.shape[1:]), np.nan, np.float32)])


def _aligned(crops: np.ndarray, members: np.ndarray, mirror: bool) -> Moves:
    """Moves of all crops that align the members, if that explains squares that it was not fitted to."""
    weights = _weights(crops, members)
    none = _congealing.no_moves(len(crops))
    if len(members) < MIN_CROPS:
        return none
    fitted, left_out = (_congealing.on_grid(half) for half in _halves(crops))
    moves = _congealing.congeal(fitted, weights, mirror=mirror)
    before, after = (np.asarray(_congealing.errors(left_out, weights, m)[1])[members] for m in (none, moves))
    gains = before - after
    if gains.mean() <= _LEAST_GAIN * gains.std(ddof=1) / math.sqrt(len(members)):
        return none
    return _congealing.congeal(_congealing.on_grid(crops), weights, mirror=mirror)


def _weights(crops: np.ndarray, members: np.ndarray) -> jax.Array:
    weights = np.zeros(len(crops), np.float32)
    weights[members] = 1
    return jnp.asarray(weights)


def _halves(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fields of two colors of a checkerboard, four along the longer side of the window."""
    height, width = crops.shape[1:3]
    size = max(1, round(max(height, width) / 4))
    rows, columns = np.indices((height, width)) // size
    is_black = ((rows + columns) % 2 == 1)[..., None]
    return np.where(is_black, np.nan, crops), np.where(is_black, crops, np.nan)


def _in_modes(
    crops: np.ndarray, count: int, moves: Moves, mirror: bool, max_modes: int
) -> tuple[list[np.ndarray], Moves]:
    """The members of each mode, and moves with which each crop is on the mean of its own."""
    open_modes, modes = [np.arange(count)], []
    while open_modes:
        members = open_modes.pop(0)
        parts = None
        if len(modes) + len(open_modes) + 2 <= max_modes and len(members) >= 2 * _least_members(count):
            grid, weights = _congealing.on_grid(crops), _weights(crops, members)
            parts = _two_parts(np.asarray(_congealing.deviations(grid, weights, moves)), members, count)
        if parts is None:
            modes.append(members)
            continue
        for part in parts:
            found = _aligned(crops, part, mirror)
            moves = jax.tree.map(lambda old, new, part=part: old.at[part].set(new[part]), moves, found)
        open_modes += parts
    return modes, moves


def _least_members(count: int) -> int:
    return max(MIN_CROPS, math.ceil(_MIN_SHARE * count))


def _two_parts(deviations: np.ndarray, members: np.ndarray, count: int) -> list[np.ndarray] | None:
    """Two kinds of crops, if along a principal direction they are more apart than evenly spread ones."""
    least = _least_members(count)
    rows = deviations[members].reshape(len(members), -1)
    values, vectors = np.linalg.eigh(rows @ rows.T)
    scores = vectors[:, ::-1][:, :_NUM_DIRECTIONS].T * (values[::-1][:_NUM_DIRECTIONS, None] > 1e-6)
    shares, cuts = _best_cuts(np.sort(scores, axis=1), least)
    even = np.sort(np.random.default_rng(0).uniform(size=(_NUM_DRAWS, len(members))), axis=1)
    if shares.max() <= np.quantile(_best_cuts(even, least)[0], _QUANTILE):
        return None
    best = int(shares.argmax())
    order = np.argsort(scores[best], kind="stable")
    return [np.sort(members[order[: cuts[best]]]), np.sort(members[order[cuts[best] :]])]


def _best_cuts(values: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """What share of the variance of each row of sorted numbers its best cut explains, and where it is."""
    size = values.shape[1]
    values = values - values.mean(1, keepdims=True)
    total = np.maximum((values**2).sum(1), 1e-12)
    left = np.arange(1, size)
    between = np.cumsum(values, axis=1)[:, :-1] ** 2 * size / (left * (size - left))
    between = np.where((left >= least) & (left <= size - least), between, 0)
    return between.max(1) / total, between.argmax(1) + 1


def _as_alignment(moves: Moves, members: list[np.ndarray], count: int, spacing: float) -> Alignment:
    angles, log_scales, shifts, flips = (np.asarray(leaf)[:count] for leaf in moves)
    modes = np.zeros(count, int)
    for mode, part in enumerate(members):
        modes[part] = mode
    angles = (angles + np.pi) % (2 * np.pi) - np.pi
    return Alignment(angles, np.exp(log_scales), spacing * shifts, flips < 0, modes)


def _as_moves(alignment: Alignment) -> Moves:
    flips = jnp.where(jnp.asarray(alignment.is_mirrored), -1.0, 1.0)
    angles, shifts = jnp.asarray(alignment.angles), jnp.asarray(alignment.shifts)
    return Moves(angles, jnp.log(jnp.asarray(alignment.scales)), shifts, flips)


@jax.jit
def _moved(crops: jax.Array, moves: Moves) -> jax.Array:
    height, width, _ = crops.shape[1:]
    lines = [jnp.arange(n) - (n - 1) / 2 for n in (height, width)]
    place = jnp.stack(jnp.meshgrid(*lines, indexing="ij"), -1)

    def one(args):
        crop, move = args
        is_seen = ~jnp.isnan(crop).any(-1, keepdims=True)
        colors = jnp.concatenate([jnp.where(is_seen, crop, 0), is_seen.astype(crop.dtype)], -1)
        found = _congealing.sample(colors, _congealing.in_crop(move, place))
        return jnp.where(found[..., -1:] > 0.5, found[..., :-1] / jnp.maximum(found[..., -1:], 0.5), jnp.nan)

    return jax.lax.map(one, (crops, moves))
