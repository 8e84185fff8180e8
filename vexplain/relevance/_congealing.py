"""Congealing: crops are aligned to their own mean, which sharpens as they are (*ours*).

The model: a seen pixel p of crop i, counted from the center of its window, has the color of the mean at the
point q that a similarity takes there, up to one offset of color for the crop,

    crop_i(p) = mean(q) + offset_i + noise,    p = shift_i + scale_i · R(angle_i) · F_i · q,

with F_i the identity, or a mirror. The sum of squared errors is looked at in the pixels of the crop: every
pixel that was seen must be explained, so that nothing is gained by moving it out of the picture, and nothing
by interpolation, which smooths the mean alone. The mean that explains a crop is that of the others.

First all turns, sizes and moves of a coarse grid are tried (correlations of the crops with a bank of turned
and enlarged means), then each crop is refined by damped Gauss-Newton steps. All crops go at once.

References:
    Learned-Miller, Data Driven Image Models through Continuous Joint Alignment, PAMI 2006.
    Frey and Jojic, Transformation-Invariant Clustering Using the EM Algorithm, PAMI 2003.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.typing import Array, Float

SIDE = 24  # pixels of the grid on which crops are aligned, along their longer side
_POOL = 2  # pixels of that grid in one of the exhaustive search
_REACH = 5  # of the exhaustive search in its pixels: 42 % of the window to every side
_ANGLES = np.arange(18) * (2 * np.pi / 18)
_LOG_SCALES = np.log(1.33) * np.arange(-1, 2)
_PRIOR = 0.2  # of the mean error a crop, where a move has the size below: of two equals the smaller one wins
_SIZES = {"angle": np.pi, "log_scale": np.log(1.33), "shift": 1 / 3}  # the shift as a share of the window
_NUM_SEEDS = 3  # crops that begin as the mean, beside the mean itself
_NUM_SEARCHES, _NUM_REFINEMENTS, _NUM_STEPS = 2, 3, 3
_UNITS = (0.1, 0.1, 1.0, 1.0)  # of a Gauss-Newton step
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class Moves(NamedTuple):
    """The similarities, as the module has them; shifts are in pixels of the grid, rows first."""

    angles: Float[Array, " n"]
    log_scales: Float[Array, " n"]
    shifts: Float[Array, "n 2"]
    flips: Float[Array, " n"]  # 1, or -1 where mirrored


class Grid(NamedTuple):
    """Crops on a square grid: colors, which are 0 where a pixel is not seen, and whether it is (0 or 1)."""

    colors: Float[Array, "n side side channels"]
    is_seen: Float[Array, "n side side"]


def no_moves(count: int) -> Moves:
    """Returns the moves that leave every crop as it is."""
    return Moves(jnp.zeros(count), jnp.zeros(count), jnp.zeros((count, 2)), jnp.ones(count))


@functools.partial(jax.jit, static_argnames=("side",))
def on_grid(crops: Float[Array, "n height width channels"], side: int = SIDE) -> Grid:
    """Returns crops, NaN where nothing is seen, resized so that the longer side of a window fills a grid."""
    n, height, width, _ = crops.shape
    is_seen = ~jnp.isnan(crops).any(-1, keepdims=True)
    scale = side / max(height, width)
    moves = jnp.array([(side - height * scale) / 2, (side - width * scale) / 2])

    def resized(values: Array) -> Array:
        shape = (n, side, side, values.shape[-1])
        return jax.image.scale_and_translate(values, shape, (1, 2), jnp.full(2, scale), moves, "linear")

    weights = resized(is_seen.astype(jnp.float32))
    colors = resized(jnp.where(is_seen, crops, 0).astype(jnp.float32)) / jnp.maximum(weights, 1e-6)
    is_seen = weights > 0.5
    return Grid(jnp.where(is_seen, colors, 0), is_seen[..., 0].astype(jnp.float32))


@functools.partial(jax.jit, static_argnames=("mirror",))
def congeal(grid: Grid, weights: Float[Array, " n"], *, mirror: bool = False) -> Moves:
    """Returns the moves that align crops to the mean of those with weight 1; weight 0 leaves a crop out.

    It begins with the plain mean, or one of the first crops: what explains the others best.
    """
    fill = _mean_color(grid, weights)
    own = _own_sums(grid, weights, no_moves(len(weights)))
    firsts = jnp.argsort(-weights, stable=True)[:_NUM_SEEDS]
    alone = 1e3  # copies of a seed: it is not drawn to the mean color
    seeds = [_mean(own.sum(0), fill, weights), *(_mean(alone * own[n], fill, weights) for n in firsts)]
    found, costs = jax.lax.map(lambda seed: _search(seed, grid, fill, mirror), jnp.stack(seeds))
    best = (costs * weights).sum(1).argmin()
    moves = jax.tree.map(lambda leaf: leaf[best], found)
    means = jnp.broadcast_to(jnp.stack(seeds)[best], own.shape[:-1] + fill.shape)
    offsets = jax.vmap(functools.partial(_offset, fill))(means, moves, grid)

    def step(find, state, _):
        moves, offsets = state
        moves = _centered(moves, weights)
        own = _own_sums(_recolored(grid, offsets), weights, moves)
        moves, means = find(own, moves)
        return (moves, jax.vmap(functools.partial(_offset, fill))(means, moves, grid)), None

    def search(own, _):
        mean = _mean(own.sum(0), fill, weights)
        return _search(mean, grid, fill, mirror)[0], jnp.broadcast_to(mean, own.shape[:-1] + fill.shape)

    def refine(own, moves):
        means = _mean(own.sum(0) - own, fill, weights)
        return jax.vmap(functools.partial(_refined, fill))(means, moves, grid), means

    state = (moves, offsets)
    state, _ = jax.lax.scan(functools.partial(step, search), state, None, length=_NUM_SEARCHES)
    (moves, _), _ = jax.lax.scan(functools.partial(step, refine), state, None, length=_NUM_REFINEMENTS)
    return _centered(moves, weights)


@jax.jit
def errors(grid: Grid, weights: Float[Array, " n"], moves: Moves) -> Float[Array, "2 n"]:
    """Returns the mean squared error of each crop against the moved mean of the others, a pixel and channel.

    The second row allows each crop an offset of its color.
    """
    fill = _mean_color(grid, weights)

    def compared(offsets):
        recolored = _recolored(grid, offsets)
        total = _own_sums_added(recolored, weights, moves)

        def one(args):
            crop, own, weight, move = args
            mean = _mean(total - weight * _canvas(own, move), fill, weights)
            difference = crop.colors - _explained(mean, fill, move, crop)
            free = _without_offset(difference, crop)
            found = jnp.stack([_mean_square(difference, crop), _mean_square(free, crop)])
            return found, _offset(fill, mean, move, crop)

        return jax.lax.map(one, (grid, recolored, weights, moves))

    plain, offsets = compared(jnp.zeros((len(weights), grid.colors.shape[-1])))
    return jnp.stack([plain[:, 0], compared(offsets)[0][:, 1]])


@jax.jit
def deviations(
    grid: Grid, weights: Float[Array, " n"], moves: Moves
) -> Float[Array, "n canvas canvas channels"]:
    """Returns crops moved onto their mean less that mean and an offset each; 0 where nothing is seen."""
    fill = _mean_color(grid, weights)
    mean = _mean(_own_sums_added(grid, weights, moves), fill, weights)
    offsets = jax.vmap(functools.partial(_offset, fill, mean))(moves, grid)

    def one(args):
        canvas = _canvas(*args)
        return canvas[..., :-1] - canvas[..., -1:] * mean

    return jax.lax.map(one, (_recolored(grid, offsets), moves))


def points(side: int) -> Float[Array, "side side 2"]:
    """Returns row and column of the pixels of a grid, counted from its center."""
    line = jnp.arange(side) - (side - 1) / 2
    return jnp.stack(jnp.meshgrid(line, line, indexing="ij"), -1)


def in_crop(move: Moves, q: Float[Array, "... 2"]) -> Float[Array, "... 2"]:
    """Returns where in a crop the points q of the mean are."""
    flipped = q * jnp.stack([jnp.ones_like(move.flips), move.flips])
    return jnp.exp(move.log_scales) * flipped @ _rotation(move.angles).T + move.shifts


def in_mean(move: Moves, p: Float[Array, "... 2"]) -> Float[Array, "... 2"]:
    """Returns where in the mean the points p of a crop are."""
    turned = (p - move.shifts) @ _rotation(move.angles) / jnp.exp(move.log_scales)
    return turned * jnp.stack([jnp.ones_like(move.flips), move.flips])


def sample(image: Float[Array, "height width channels"], where: Float[Array, "... 2"]) -> Array:
    """Returns the bilinear interpolation of an image at points counted from its center; 0 outside."""
    height, width = image.shape[:2]
    r, c = where[..., 0] + (height - 1) / 2, where[..., 1] + (width - 1) / 2
    total = jnp.zeros((*r.shape, image.shape[-1]), image.dtype)
    for down in (0, 1):
        for right in (0, 1):
            row, column = jnp.floor(r) + down, jnp.floor(c) + right
            share = (1 - jnp.abs(r - row)) * (1 - jnp.abs(c - column))
            is_inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            place = jnp.clip(row, 0, height - 1).astype(int), jnp.clip(column, 0, width - 1).astype(int)
            total += image[place] * (share * is_inside)[..., None]
    return total


def _rotation(angle: Float[Array, ""]) -> Float[Array, "2 2"]:
    """Of (row, column), counterclockwise as an image is looked at."""
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])


def _mean_color(grid: Grid, weights: Array) -> Float[Array, " channels"]:
    counts = grid.is_seen * weights[:, None, None]
    return (grid.colors * counts[..., None]).sum((0, 1, 2)) / jnp.maximum(counts.sum(), 1e-6)


def _canvas(crop: Grid, move: Moves) -> Float[Array, "canvas canvas sums"]:
    """A crop moved onto the mean, a quarter of the window larger to every side; the last channel counts."""
    side = crop.is_seen.shape[-1]
    colors = jnp.concatenate([crop.colors * crop.is_seen[..., None], crop.is_seen[..., None]], -1)
    return sample(colors, in_crop(move, points(side + 2 * (side // 4))))


def _own_sums(grid: Grid, weights: Array, moves: Moves) -> Float[Array, "n canvas canvas sums"]:
    return jax.vmap(lambda crop, weight, move: weight * _canvas(crop, move))(grid, weights, moves)


def _own_sums_added(grid: Grid, weights: Array, moves: Moves) -> Float[Array, "canvas canvas sums"]:
    """The sum over crops, one after the other: memory is that of one."""

    def add(total, args):
        crop, weight, move = args
        return total + weight * _canvas(crop, move), None

    side, channels = grid.colors.shape[-2:]
    canvas = side + 2 * (side // 4)
    total, _ = jax.lax.scan(add, jnp.zeros((canvas, canvas, channels + 1)), (grid, weights, moves))
    return total


def _mean(total: Array, fill: Array, weights: Array) -> Float[Array, "... canvas canvas channels"]:
    """Drawn to the mean color of all as one crop in twenty would: what few have seen is not relied on."""
    prior = jnp.maximum(1, weights.sum() / 20)
    return (total[..., :-1] + prior * fill) / (total[..., -1:] + prior)


def _explained(mean: Array, fill: Array, move: Moves, crop: Grid) -> Float[Array, "side side channels"]:
    side = crop.is_seen.shape[-1]
    return sample(mean - fill, in_mean(move, points(side))) + fill


def _without_offset(difference: Array, crop: Grid) -> Array:
    is_seen = crop.is_seen[..., None]
    return difference - (difference * is_seen).sum((0, 1)) / jnp.maximum(is_seen.sum(), 1e-6)


def _offset(fill: Array, mean: Array, move: Moves, crop: Grid) -> Float[Array, " channels"]:
    difference = (crop.colors - _explained(mean, fill, move, crop)) * crop.is_seen[..., None]
    return difference.sum((0, 1)) / jnp.maximum(crop.is_seen.sum(), 1e-6)


def _recolored(grid: Grid, offsets: Float[Array, "n channels"]) -> Grid:
    return grid._replace(colors=grid.colors - offsets[:, None, None])


def _mean_square(difference: Array, crop: Grid) -> Float[Array, ""]:
    squares = crop.is_seen[..., None] * difference**2
    return squares.sum() / jnp.maximum(crop.is_seen.sum() * difference.shape[-1], 1e-6)


def _pooled(values: Array) -> Array:
    """Means over squares of the grid, rows and columns being the axes before the last one."""
    *batch, side, _, channels = values.shape
    blocks = values.reshape(*batch, side // _POOL, _POOL, side // _POOL, _POOL, channels)
    return blocks.mean((-4, -2))


def _search(mean: Array, grid: Grid, fill: Array, mirror: bool) -> tuple[Moves, Float[Array, " n"]]:
    """The best of all moves of a coarse grid for each crop, and its cost.

    With V a mean that is turned and enlarged, x a crop, m its seen pixels and |m| their number, the squared
    error with a free offset is Σ m x'² - 2 Σ m x' V + Σ m V² - (Σ m V)² / |m|, x' = x less its mean.
    """
    bank = _bank(mirror)
    seen = _pooled(grid.is_seen[..., None])
    colors = _pooled(grid.colors * grid.is_seen[..., None]) / jnp.maximum(seen, 1e-6)
    number = jnp.maximum(seen.sum((1, 2)), 1e-6)  # (n, 1)
    colors = (colors - ((colors * seen).sum((1, 2)) / number)[:, None, None]) * seen
    small = _pooled(mean - fill)
    extent = points(colors.shape[1] + 2 * _REACH)
    turned = jax.vmap(lambda move: sample(small, in_mean(move, extent)))(bank)

    def correlated(images: Array, kernels: Array) -> Array:
        kernels = jnp.moveaxis(kernels, 0, -1)
        return jax.lax.conv_general_dilated(images, kernels, (1, 1), "VALID", dimension_numbers=_DIMENSIONS)

    squares = correlated((turned**2).sum(-1, keepdims=True), seen)
    sums = sum(correlated(turned[..., c : c + 1], seen) ** 2 for c in range(turned.shape[-1]))
    energy = jnp.maximum((colors**2).sum((1, 2, 3)).mean(), 1e-6)
    cost = (squares - sums / number[:, 0] - 2 * correlated(turned, colors)) / energy + _prior(bank, grid)
    flat = cost.reshape(-1, cost.shape[-1])
    which, row, column = jnp.unravel_index(flat.argmin(0), cost.shape[:3])
    shifts = _POOL * (_REACH - jnp.stack([row, column], -1)).astype(jnp.float32)
    return Moves(bank.angles[which], bank.log_scales[which], shifts, bank.flips[which]), flat.min(0)


def _bank(mirror: bool) -> Moves:
    flips = np.array([1.0, -1.0] if mirror else [1.0])
    grids = np.meshgrid(_ANGLES, _LOG_SCALES, flips, indexing="ij")
    angles, log_scales, flips = (jnp.asarray(values.ravel(), jnp.float32) for values in grids)
    return Moves(angles, log_scales, jnp.zeros((len(angles), 2)), flips)


def _prior(bank: Moves, grid: Grid) -> Float[Array, "bank rows columns 1"]:
    angles = jnp.abs((bank.angles + jnp.pi) % (2 * jnp.pi) - jnp.pi) / _SIZES["angle"]
    turns = angles**2 + (bank.log_scales / _SIZES["log_scale"]) ** 2
    line = (jnp.arange(2 * _REACH + 1) - _REACH) * _POOL / (_SIZES["shift"] * grid.is_seen.shape[-1])
    return _PRIOR * (turns[:, None, None] + line[:, None] ** 2 + line**2)[..., None]


def _refined(fill: Array, mean: Array, move: Moves, crop: Grid) -> Moves:
    """Damped Gauss-Newton steps (Levenberg, Marquardt) on the squared error; a step that fails is undone."""
    start = jnp.concatenate([jnp.stack([move.angles, move.log_scales]), move.shifts])
    place = points(crop.is_seen.shape[-1])
    slopes = jnp.gradient(mean, axis=(0, 1))
    surface = jnp.concatenate([mean - fill, *slopes], -1)
    is_seen = crop.is_seen[..., None]

    def moved(step):
        values = start + jnp.array(_UNITS) * step
        return Moves(values[0], values[1], values[2:], move.flips)

    def linearized(step):
        where = in_mean(moved(step), place)
        ways = jax.jacfwd(lambda step: in_mean(moved(step), place))(step)  # (side, side, 2, 4)
        value, down, right = jnp.split(sample(surface, where), 3, -1)
        residual = is_seen * _without_offset(crop.colors - fill - value, crop)
        change = -(down[..., None] * ways[:, :, :1] + right[..., None] * ways[:, :, 1:])
        change = is_seen[..., None] * jax.vmap(_without_offset, (-1, None), -1)(change, crop)
        return residual.ravel(), change.reshape(-1, 4)

    def body(state, _):
        step, damping, (residual, change) = state
        curvature = change.T @ change
        damped = curvature + damping * jnp.diag(jnp.diag(curvature) + 1e-6)
        new = step - jnp.linalg.solve(damped, change.T @ residual)
        found = linearized(new)
        better = (found[0] ** 2).sum() < (residual**2).sum()
        pairs = (new, damping / 4, found), (step, damping * 4, (residual, change))
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), *pairs), None

    state = (jnp.zeros(4), jnp.asarray(0.1), linearized(jnp.zeros(4)))
    (step, _, _), _ = jax.lax.scan(body, state, None, length=_NUM_STEPS)
    return moved(step)


def _centered(moves: Moves, weights: Array) -> Moves:
    """The same moves against a mean that is itself moved, so that the crops are not on the average."""
    shares = weights / jnp.maximum(weights.sum(), 1e-6)
    flips = moves.flips * jnp.where((shares * moves.flips).sum() < 0, -1, 1)
    turn = jnp.arctan2((shares * jnp.sin(flips * moves.angles)).sum(), (shares * jnp.cos(moves.angles)).sum())
    angles = moves.angles - flips * turn
    moves = Moves(angles, moves.log_scales - (shares * moves.log_scales).sum(), moves.shifts, flips)
    centers = jax.vmap(lambda move: in_mean(move, jnp.zeros(2)))(moves)
    center = (shares[:, None] * centers).sum(0)
    return moves._replace(shifts=jax.vmap(lambda move: in_crop(move, center))(moves))
