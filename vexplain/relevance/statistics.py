"""Everything that the sparse regression needs to know of a dataset, summed in one pass over it.

The regression of class indicators l on responses x sees the data only through G = sum x x^T and B = sum x l^T
(and sum l^2, to measure its error). On the devices the sums are kept about the mean of the images so far, so
that features that hardly vary about a large mean lose no digits; images are collected in blocks, so that the
large matrix is read and written once a block; only one half of the symmetric matrix is computed; and every
sum is two float32, the rounded sum and what the rounding has lost, so that a million images are added up as
accurately as a hundred. The host joins these parts in float64.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.streaming.devices import COPIED, SPLIT, Mesh, best_precision, from_devices, on_each_device
from vexplain.typing import Array, Batch, Float, Images, Int, Logits, Variables

Precision: TypeAlias = Literal["float32", "float64"]
ResponseFn: TypeAlias = Callable[[Variables, Images], tuple[Float[Array, "batch features"], Logits]]
_PANEL = 512  # features of a panel, at most; the matrix is updated panel by panel
_MOST = 1100  # images of a product in float32
_TINY = 1e-30  # in place of a number of images that is 0


class Statistics(NamedTuple):
    """Sums over images, with responses x and one-hot classes l, in float64 on the host."""

    gram: Float[np.ndarray, "features features"]  # G = sum x x^T, symmetric
    cross: Float[np.ndarray, "features classes"]  # B = sum x l^T
    counts: Float[np.ndarray, " classes"]  # sum l^2, the images of each class
    total: Float[np.ndarray, ""]  # images, those with a label outside the classes too


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
    block: Float[Array, "devices features_and_classes places"]  # x and l of images that are not summed yet
    weights: Float[Array, "devices places"]  # of these images; 0 where there is none
    num_filled: Int[Array, ""]  # places, on each device


InitFn: TypeAlias = Callable[[], Moments]
UpdateFn: TypeAlias = Callable[[Moments, Batch, Variables], Moments]
FinishFn: TypeAlias = Callable[[Moments], Statistics]

# How the state lies on the devices of a mesh, for `fold`: the matrices by rows, the block by images.
MOMENTS_LAYOUT = Moments(SPLIT, SPLIT, COPIED, COPIED, COPIED, SPLIT, SPLIT, COPIED)  # type: ignore[arg-type]


def gram_statistics(
    response_fn: ResponseFn,
    num_features: int,
    num_classes: int,
    *,
    labels: Literal["predicted", "true"] = "predicted",
    max_gram_bytes: int = 2 * 2**30,
    block_size: int = 2048,
    precision: Precision | None = None,
    mesh: Mesh | None = None,
) -> tuple[InitFn, UpdateFn, FinishFn]:
    """The `init`, `update` and `finish` that sum `Statistics` over a stream of batches.

    `init() -> state` and `update(state, batch, variables) -> state` are what `streaming.fold` takes (with
    `constants=variables`); `finish(state) -> Statistics` brings the sums to the host. A batch has "images",
    "labels" where labels="true", and optionally "weights" (0 = padding). What is not finite reaches the sums,
    where the regression refuses it.

    A block of images with the mean m_b joins the n_a images before it, of mean m_a, by

        S <- S + sum (x - m_b)(x - m_b)^T + n_a n_b / (n_a + n_b) (m_b - m_a)(m_b - m_a)^T

    and in the end G = S + n m m^T in float64: no term is a small difference of large ones.

    Args:
        response_fn: (variables, images) -> (responses, logits), (batch, features) and (batch, classes).
        num_features: features m of a response vector.
        num_classes: classes C.
        labels: regress on the class the network "predicted" (what explains the network), or the "true" one.
        max_gram_bytes: largest size allowed for 4 m^2 bytes. The state takes a little more than that, all
            devices together, and 4 m bytes for each image of a block; the statistics take twice that.
        block_size: images that are collected before the sums are updated, all devices together.
        precision: of the products: "float64", or "float32" where a device is slow at that (a TPU, most GPUs);
            what the devices are good at if left out. The sums are exact to 14 digits of the second moments
            about the mean, or to 6.
        mesh: devices that share the sums; then `fold` needs `layouts=MOMENTS_LAYOUT` and the same mesh.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, section 3.1
        (the regression). Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for computing
        sample variances, 1979 (blocks). Knuth, The Art of Computer Programming 2, section 4.2.2 (exact sum).

    Example:
        >>> import jax.numpy as jnp
        >>> init, update, finish = gram_statistics(lambda scale, x: (scale * x, x), 2, 2)
        >>> batch = {"images": jnp.array([[3.0, 1.0], [0.0, 2.0]]), "weights": jnp.ones(2)}
        >>> finish(update(init(), batch, 1.0)).cross.tolist()
        [[3.0, 0.0], [1.0, 2.0]]
    """
    check_choice("labels", labels, ("predicted", "true"))
    check_choice("precision", precision, (None, "float32", "float64"))
    _check_sizes(num_features, max_gram_bytes, block_size)
    num_devices = 1 if mesh is None else mesh.size
    num_panels, size = _panels(num_features, num_devices)
    places = -(-block_size // num_devices)
    shapes: dict[str, tuple[int, ...]] = {
        "scatter": (num_panels, 2, size, (num_panels // 2 + 1) * size),
        "cross": (num_panels, 2, size, num_classes),
        "origin": (num_features,),
        "sums": (2, num_features),
        "counts": (2, num_classes + 1),
        "block": (num_devices, num_features + num_classes, places),
        "weights": (num_devices, places),
        "num_filled": (),
    }
    precision = best_precision(mesh) if precision is None else precision
    flush = on_each_device(functools.partial(_flush, num_features, precision), mesh, MOMENTS_LAYOUT)

    def init() -> Moments:  # on the host: no device holds the whole of it
        zeros: dict[str, Any] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        zeros["num_filled"] = np.zeros((), np.int32)
        return Moments(**zeros)

    def update(state: Moments, batch: Batch, variables: Variables) -> Moments:
        responses, logits = response_fn(variables, batch["images"])
        _check_shapes(responses, logits, num_features, num_classes)
        indicators = _predicted(logits) if labels == "predicted" else _true(batch, num_classes)
        weights = batch.get("weights", jnp.ones(responses.shape[:1], jnp.float32)).astype(jnp.float32)
        rows = jnp.concatenate([responses.astype(jnp.float32), indicators], axis=1)
        # Padding may hold anything, NaN too, and NaN times 0 would stay.
        rows = jnp.where(weights[:, None] == 0, 0, rows)
        return _collect(state, rows, weights, flush)

    def finish(state: Moments) -> Statistics:
        return _joined(flushed(state), num_features)

    flushed = jax.jit(flush)
    return init, update, finish


def merge_statistics(first: Statistics, second: Statistics) -> Statistics:
    """Returns the statistics of the images of both, which may come from other hosts or days.

    All of it are sums in float64, so that parts may be merged in any order.

    Args:
        first: statistics of some images.
        second: of other images, with the same network, layers and classes.

    Raises:
        ValueError: they are of another number of features or classes.

    Example:
        >>> part = Statistics(np.eye(2), np.ones((2, 1)), np.array([3.0]), np.array(3.0))
        >>> merge_statistics(part, part).counts.tolist()
        [6.0]
    """
    if first.cross.shape != second.cross.shape:
        raise ValueError(
            "second: statistics of (features, classes) "
            f"{second.cross.shape} cannot be merged with those of {first.cross.shape}; use the same layers "
            "and classes for both"
        )
    return Statistics(*(np.add(a, b) for a, b in zip(first, second, strict=True)))


def _panels(num_features: int, num_devices: int) -> tuple[int, int]:
    """How many panels, a multiple of the devices, and how many features each has."""
    least = -(-num_features // (_PANEL * num_devices))
    num_panels = num_devices * (least + 1 - least % 2)  # an odd number has no pair of panels twice
    return num_panels, -(-num_features // num_panels)


def _collect(
    state: Moments,
    rows: Float[Array, "batch features_and_classes"],
    weights: Float[Array, " batch"],
    flush: Callable[[Moments], Moments],
) -> Moments:
    """Writes a batch into the block, which is summed first where the batch has no place in it."""
    num_devices, places = state.weights.shape
    if len(rows) % num_devices:
        raise ValueError(
            f"batch: {len(rows)} images, which {num_devices} devices cannot share evenly: choose a batch "
            f"size that is a multiple of {num_devices}"
        )
    share = len(rows) // num_devices
    num_parts = max(1, -(-share // places))  # of a batch that is larger than the block
    size = -(-share // num_parts)
    rows = rows.reshape(num_devices, share, -1).swapaxes(1, 2)
    missing = num_parts * size - share
    rows = jnp.pad(rows, [(0, 0), (0, 0), (0, missing)])
    weights = jnp.pad(weights.reshape(num_devices, share), [(0, 0), (0, missing)])

    def write(part: Array | int, state: Moments) -> Moments:
        state = jax.lax.cond(state.num_filled + size > places, flush, lambda state: state, state)
        block, kept = (
            jax.lax.dynamic_update_slice_in_dim(
                into, jax.lax.dynamic_slice_in_dim(x, part * size, size, -1), state.num_filled, -1
            )
            for into, x in ((state.block, rows), (state.weights, weights))
        )
        return state._replace(block=block, weights=kept, num_filled=state.num_filled + size)

    return write(0, state) if num_parts == 1 else jax.lax.fori_loop(0, num_parts, write, state)


def _flush(
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
        z = jnp.moveaxis(block, 0, 1).reshape(block.shape[1], -1).astype(precision)
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
    return _added(cross.swapaxes(0, 1), *products).swapaxes(0, 1)


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


def _added(pair: Float[Array, "2 ..."], *terms: Float[Array, "..."]) -> Float[Array, "2 ..."]:
    """A sum of two parts, the rounded one and what rounding has taken from it, with terms added."""
    total, residual = pair
    for term in terms:
        rounded = term.astype(jnp.float32)
        total, error = _exact_sum(total, rounded)
        residual = (residual + (error + (term - rounded))).astype(jnp.float32)
    return jnp.stack([total, residual])


def _exact_sum(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The rounded sum and its rounding error: a + b = sum + error exactly (Knuth's two-sum)."""
    total = a + b
    b_rounded = total - a
    return total, (a - (total - b_rounded)) + (b - b_rounded)


def _joined(state: Moments, num_features: int) -> Statistics:
    """The statistics of a state whose block is empty."""
    sums, counts, cross = (
        _total(part, axis) for part, axis in ((state.sums, 0), (state.counts, 0), (state.cross, 1))
    )
    counts, total, origin = counts[:-1], counts[-1], from_devices(state.origin)
    gram = _whole(from_devices(state.scatter))[:num_features, :num_features]
    cross = cross.reshape(-1, len(counts))[:num_features]
    with np.errstate(invalid="ignore"):  # what is not finite is refused by the regression, which names it
        root = np.sqrt(total) * (origin + sums / max(total, _TINY))
        for start in range(0, num_features, _PANEL):  # no second matrix of this size
            gram[start : start + _PANEL] += root[start : start + _PANEL, None] * root
        return Statistics(gram, cross + origin[:, None] * counts, counts, total)


def _total(parts: Any, axis: int) -> np.ndarray:
    """The sum of two parts, in float64."""
    return np.asarray(np.sum(from_devices(parts), axis=axis, dtype=np.float64))


def _whole(scatter: np.ndarray) -> np.ndarray:
    """The symmetric matrix of which `Moments.scatter` has one half."""
    num_panels, _, size, columns = scatter.shape
    whole = np.empty((num_panels * size, num_panels * size))
    for i in range(num_panels):
        panel = np.add(scatter[i, 0], scatter[i, 1], dtype=np.float64)
        for j in range(columns // size):
            part = panel[:, j * size : (j + 1) * size]
            rows, others = (slice(k * size, (k + 1) * size) for k in (i, (i + j) % num_panels))
            whole[rows, others] = part if j else (part + part.T) / 2
            whole[others, rows] = whole[rows, others].T
    return whole


def _predicted(logits: Logits) -> Float[Array, "batch classes"]:
    one_hot = jax.nn.one_hot(jnp.argmax(logits, axis=1), logits.shape[1], dtype=jnp.float32)
    is_finite = jnp.all(jnp.isfinite(logits), axis=1, keepdims=True)
    return jnp.where(is_finite, one_hot, jnp.nan)


def _true(batch: Batch, num_classes: int) -> Float[Array, "batch classes"]:
    if "labels" not in batch:
        raise KeyError(f'batch: labels="true" needs "labels", got {sorted(batch)}; use labels="predicted"')
    return jax.nn.one_hot(batch["labels"], num_classes, dtype=jnp.float32)


def _check_sizes(num_features: int, max_gram_bytes: int, block_size: int) -> None:
    if (size := 4 * num_features**2) > max_gram_bytes:
        raise ValueError(
            f"num_features: the Gram matrix of m = {num_features} features takes {size:,} bytes "
            f"({size / 2**30:.2f} GiB), above max_gram_bytes = {max_gram_bytes:,}. Use fewer layers "
            "(the convolutional ones only: fully connected layers have the most features), or "
            "raise max_gram_bytes"
        )
    check_positive(block_size=block_size)


def _check_shapes(responses: Array, logits: Array, num_features: int, num_classes: int) -> None:
    for name, array, width in (
        ("responses", responses, num_features),
        ("logits", logits, num_classes),
    ):
        if array.ndim != 2 or array.shape[1] != width:
            raise ValueError(f"response_fn: expected {name} of shape (batch, {width}), got {array.shape}")
