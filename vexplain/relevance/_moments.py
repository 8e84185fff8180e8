"""The moments of responses about their mean, added up block by block on the devices: the state of a pass."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from vexplain.streaming.devices import COPIED, SPLIT
from vexplain.typing import Array, Float, Int

Precision: TypeAlias = Literal["float32", "float64"]
_MOST = 1100  # images of a product in float32
_TINY = 1e-30  # in place of a number of images that is 0


class Moments(NamedTuple):
    """The state of a pass, in float32: moments about the mean, and the block that is being filled.

    Of two parts of a sum the second is what rounding has taken from the first. The features are cut into P
    panels of p; panel i of `scatter` holds its products with the panels i, i + 1, ..., i + P // 2 (modulo P),
    which is each pair of features once.
    """

    scatter: Float[Array, "panels 2 p columns"]  # sum (x - mean)(x - mean)^T, one half of it
    cross: Float[Array, "panels 2 p classes"]  # sum (x - origin) l^T
    origin: Float[Array, " features"]  # the mean of the first block, rounded
    sums: Float[Array, "2 features"]  # sum (x - origin)
    counts: Float[Array, "2 classes_and_one"]  # sum l^2, and the number of images
    block: Float[Array, "devices places features_and_classes"]  # x and l of images that are not summed yet
    weights: Float[Array, "devices places"]  # of these images; 0 where there is none
    num_filled: Int[Array, ""]  # places, on each device


# How the state lies on the devices of a mesh, for `fold`: the matrices by rows, the block by images.
MOMENTS_LAYOUT = Moments(SPLIT, SPLIT, COPIED, COPIED, COPIED, SPLIT, SPLIT, COPIED)  # type: ignore[arg-type]


def collect(
    state: Moments,
    rows: Sequence[Float[Array, "batch _"]],
    weights: Float[Array, " batch"],
    flush: Callable[[Moments], Moments],
) -> Moments:
    """Writes a batch into the block, which is summed first where the batch has no place in it.

    `rows` are the responses and the indicators of classes.
    """
    num_devices, places = state.weights.shape
    if len(weights) % num_devices:
        raise ValueError(
            f"batch: {len(weights)} images, which {num_devices} devices cannot share evenly: choose a batch "
            f"size that is a multiple of {num_devices}"
        )
    share = len(weights) // num_devices
    num_parts = max(1, -(-share // places))  # of a batch that is larger than the block
    size = -(-share // num_parts)
    missing = [(0, 0), (0, num_parts * size - share)]
    weights = jnp.pad(weights.reshape(num_devices, share), missing)
    rows = [jnp.pad(part.reshape(num_devices, share, -1), [*missing, (0, 0)]) for part in rows]

    def write(part: Array | int, state: Moments) -> Moments:
        state = jax.lax.cond(state.num_filled + size > places, flush, lambda state: state, state)
        block, column = state.block, 0
        for those in rows:  # each in its place: joined before, they would be copied once more
            those = jax.lax.dynamic_slice_in_dim(those, part * size, size, 1)
            block = jax.lax.dynamic_update_slice(block, those, (0, state.num_filled, column))
            column += those.shape[2]
        those = jax.lax.dynamic_slice_in_dim(weights, part * size, size, 1)
        kept = jax.lax.dynamic_update_slice_in_dim(state.weights, those, state.num_filled, 1)
        return state._replace(block=block, weights=kept, num_filled=state.num_filled + size)

    return write(0, state) if num_parts == 1 else jax.lax.fori_loop(0, num_parts, write, state)


def flush_block(
    num_features: int,
    precision: Precision,
    state: Moments,
    device: Array | int,
    gather: Callable[[Array], Array],
) -> Moments:
    """The state with its block summed and emptied.

    Args:
        num_features: m.
        precision: of the products, and of what they are made of.
        state: the part of it that this device has.
        device: its number.
        gather: joins the parts of all devices along the leading axis.
    """
    block, weights = gather(state.block), gather(state.weights)
    num_panels = len(block) * len(state.scatter)
    with jax.enable_x64(precision == "float64"):
        z = block.reshape(-1, block.shape[2]).T.astype(precision)
        weights = weights.reshape(-1).astype(precision)
        x, indicators = z[:num_features], z[num_features:]
        squares = jnp.concatenate([indicators**2, jnp.ones_like(x[:1])])
        counts = _added(state.counts, jnp.sum(weights * squares, axis=1))
        count, before = jnp.sum(weights), state.counts[0, -1].astype(precision) + state.counts[1, -1]
        first = _dot(x, weights[None] / jnp.maximum(count, _TINY))[:, 0].astype(jnp.float32)
        origin = jnp.where(before > 0, state.origin, first)
        parts = _exact_sum(x, jnp.broadcast_to(-origin.astype(precision)[:, None], x.shape))
        parts = _parts(*parts, precision)
        block_sums = [_dot(part, weights[None])[:, 0] for part in parts]
        sums = _added(state.sums, *block_sums)
        mean = sum(block_sums) / jnp.maximum(count, _TINY)
        mean_before = jnp.sum(state.sums.astype(precision), axis=0) / jnp.maximum(before, _TINY)
        # As one image more the distance of the means, as the formula of `gram_statistics` has it.
        distance = jnp.sqrt(before * count / jnp.maximum(before + count, _TINY)) * (mean - mean_before)
        centered = jnp.sqrt(weights) * (sum(parts) - mean[:, None])
        centered = jnp.concatenate([centered, distance[:, None]], axis=1)
        return state._replace(
            scatter=_with_products(state.scatter, centered, device, num_panels),
            cross=_with_cross(state.cross, parts, weights * indicators, device, num_panels),
            origin=origin,
            sums=sums,
            counts=counts,
            weights=jnp.zeros_like(state.weights),
            num_filled=jnp.zeros_like(state.num_filled),
        )


def _with_products(
    scatter: Float[Array, "panels 2 p columns"],
    x: Float[Array, "features images"],
    device: Array | int,
    num_panels: int,
) -> Float[Array, "panels 2 p columns"]:
    """The sums of products with those of some images added, panel by panel in place."""
    num_own, _, size, columns = scatter.shape
    x = _padded(x, num_panels * size)
    x = jnp.concatenate([x, x[: columns - size]])  # the panels after the last are the first ones
    # In float32 the error of a product grows with its images, so that there are few.
    num_parts = 1 if x.dtype == jnp.float64 else -(-x.shape[1] // _MOST)
    most = -(-x.shape[1] // num_parts)

    def add(i: Array | int, scatter: Array) -> Array:
        partners = jax.lax.dynamic_slice_in_dim(x, (device * num_own + i) * size, columns)
        pair = scatter[i]
        for start in range(0, x.shape[1], most):
            images = partners[:, start : start + most]
            pair = _added(pair, _dot(images[:size], images))
        return scatter.at[i].set(pair)

    return jax.lax.fori_loop(0, num_own, add, scatter)


def _with_cross(
    cross: Float[Array, "panels 2 p classes"],
    parts: Sequence[Float[Array, "features images"]],
    indicators: Float[Array, "classes images"],
    device: Array | int,
    num_panels: int,
) -> Float[Array, "panels 2 p classes"]:
    num_own, _, size, _ = cross.shape
    own = [
        jax.lax.dynamic_slice_in_dim(
            _padded(part, num_panels * size), device * num_own * size, num_own * size
        )
        for part in parts
    ]
    products = (_dot(part, indicators).reshape(num_own, size, -1) for part in own)
    return _added(cross, *products, axis=1)


def _parts(total: Array, residual: Array, precision: Precision) -> tuple[Array, ...]:
    """Parts that add up to the numbers, and whose products with zeros and ones add up without rounding.

    In float32 the first part has 11 bits below the largest number of its row, so that the sum of thousands is
    exact; the second is smaller by so much, and so is its rounding.
    """
    if precision == "float64":
        return (total + residual,)
    _, exponent = jnp.frexp(jnp.max(jnp.abs(total), axis=1, keepdims=True))
    shift = jnp.ldexp(jnp.float32(1.5), exponent + 12)
    coarse = (total + shift) - shift
    return coarse, (total - coarse) + residual


def _padded(x: Float[Array, "features images"], num_rows: int) -> Float[Array, "rows images"]:
    return jnp.pad(x, [(0, num_rows - len(x)), (0, 0)])


def _dot(a: Float[Array, "rows images"], b: Float[Array, "others images"]) -> Float[Array, "rows others"]:
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def _added(pair: Float[Array, "..."], *terms: Float[Array, "..."], axis: int = 0) -> Float[Array, "..."]:
    """A sum of two parts, the rounded one and what rounding has taken from it, with terms added."""
    total, residual = (jax.lax.index_in_dim(pair, part, axis, keepdims=False) for part in (0, 1))
    for term in terms:
        rounded = term.astype(jnp.float32)
        total, error = _exact_sum(total, rounded)
        residual = (residual + (error + (term - rounded))).astype(jnp.float32)
    return jnp.stack([total, residual], axis)


def _exact_sum(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The rounded sum and its rounding error: a + b = sum + error exactly (Knuth's two-sum)."""
    total = a + b
    b_rounded = total - a
    return total, (a - (total - b_rounded)) + (b - b_rounded)
