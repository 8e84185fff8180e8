"""Everything that the sparse regression needs to know of a dataset, summed in one pass over it.

The regression of class indicators l on responses x sees the data only through G = sum x x^T and B = sum x l^T
(and sum l^2, to measure its error). On the devices the sums are kept about the mean of the images so far, so
that features that hardly vary about a large mean lose no digits; images are collected in blocks, so that the
large matrix is read and written once a block; only one half of the symmetric matrix is computed; and every
sum is two float32, the rounded sum and what the rounding has lost, so that a million images are added up as
accurately as a hundred. The host joins these parts in float64.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import check_choice, check_positive
from vexplain.relevance._moments import MOMENTS_LAYOUT, Moments, Precision, collect, flush_block
from vexplain.streaming.devices import Mesh, best_precision, from_devices, on_each_device
from vexplain.typing import Array, Batch, Float, Images, Logits, Variables

ResponseFn: TypeAlias = Callable[[Variables, Images], tuple[Float[Array, "batch features"], Logits]]
_PANEL = 512  # features of a panel, at most; the matrix is updated panel by panel
_TINY = 1e-30  # in place of a number of images that is 0


class Statistics(NamedTuple):
    """Sums over images, with responses x and one-hot classes l, in float64 on the host."""

    gram: Float[np.ndarray, "features features"]  # G = sum x x^T, symmetric
    cross: Float[np.ndarray, "features classes"]  # B = sum x l^T
    counts: Float[np.ndarray, " classes"]  # sum l^2, the images of each class
    total: Float[np.ndarray, ""]  # images, those with a label outside the classes too


InitFn: TypeAlias = Callable[[], Moments]
UpdateFn: TypeAlias = Callable[[Moments, Batch, Variables], Moments]
FinishFn: TypeAlias = Callable[[Moments], Statistics]


def gram_statistics(
    response_fn: ResponseFn,
    num_features: int,
    num_classes: int,
    *,
    labels: str = "predicted",
    max_gram_bytes: int = 2 * 2**30,
    block_size: int = 2048,
    precision: Precision | None = None,
    mesh: Mesh | None = None,
) -> tuple[InitFn, UpdateFn, FinishFn]:
    """The `init`, `update` and `finish` that sum `Statistics` over a stream of batches.

    `init() -> state` and `update(state, batch, variables) -> state` are what `streaming.fold` takes (with
    `constants=variables`); `finish(state) -> Statistics` brings the sums to the host. A batch has "images",
    the array that `labels` names, and optionally "weights" (0 = padding). What is not finite reaches the
    sums, where the regression refuses it.

    A block of images with the mean m_b joins the n_a images before it, of mean m_a, by

        S <- S + sum (x - m_b)(x - m_b)^T + n_a n_b / (n_a + n_b) (m_b - m_a)(m_b - m_a)^T

    and in the end G = S + n m m^T in float64: no term is a small difference of large ones.

    Args:
        response_fn: (variables, images) -> (responses, logits), (batch, features) and (batch, classes).
        num_features: features m of a response vector.
        num_classes: classes C.
        labels: regress on the class the network "predicted" (what explains the network), on the "true" one,
            which is that of "labels", or on another array of the batches, by its name: (batch,) integers, or
            (batch, classes) of 0 and 1, for images of several classes or none.
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
        "block": (num_devices, places, num_features + num_classes),
        "weights": (num_devices, places),
        "num_filled": (),
    }
    precision = best_precision(mesh) if precision is None else precision
    flush = on_each_device(functools.partial(flush_block, num_features, precision), mesh, MOMENTS_LAYOUT)

    def init() -> Moments:  # on the host: no device holds the whole of it
        zeros: dict[str, Any] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        zeros["num_filled"] = np.zeros((), np.int32)
        return Moments(**zeros)

    def update(state: Moments, batch: Batch, variables: Variables) -> Moments:
        responses, logits = response_fn(variables, batch["images"])
        _check_shapes(responses, logits, num_features, num_classes)
        indicators = (
            _predicted(logits) if labels == "predicted" else given_indicators(batch, labels, num_classes)
        )
        weights = batch.get("weights", jnp.ones(responses.shape[:1], jnp.float32)).astype(jnp.float32)
        # Padding may hold anything, NaN too, and NaN times 0 would stay.
        is_padding = weights[:, None] == 0
        rows = [jnp.where(is_padding, 0, part) for part in (responses.astype(jnp.float32), indicators)]
        return collect(state, rows, weights, flush)

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


def given_indicators(batch: Batch, labels: str, num_classes: int) -> Float[Array, "batch classes"]:
    """Which classes each image is of, by an array of its batch; NaN where that is neither 0 nor 1."""
    name = "labels" if labels == "true" else labels
    if name not in batch:
        arrays = sorted(n for n in batch if np.ndim(batch[n]) in (1, 2) and n not in ("indices", "weights"))
        raise KeyError(
            f'batch: labels="{labels}" needs "{name}", got {arrays}; use one of these, or '
            'labels="predicted"; vexplain.datasets.with_extras adds one to a source'
        )
    found = jnp.asarray(batch[name])
    if found.ndim == 1 and jnp.issubdtype(found.dtype, jnp.integer):
        return jax.nn.one_hot(found, num_classes, dtype=jnp.float32)
    if found.ndim != 2 or found.shape[1] != num_classes:
        raise ValueError(
            f'batch: "{name}" has shape {found.shape} and dtype {found.dtype}: expected integers, (batch,), '
            f"or zeros and ones, (batch, {num_classes}); class_names has {num_classes} names"
        )
    is_indicator = ((found == 0) | (found == 1)).all(axis=1, keepdims=True)
    return jnp.where(is_indicator, found.astype(jnp.float32), jnp.nan)


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
        if getattr(array, "ndim", None) != 2 or array.shape[1] != width:
            of_groups = (
                "; a network that scores other things than these classes, such as an encoder, becomes one of "
                "them by vexplain.relevance.with_prototypes"
            )
            raise ValueError(
                f"response_fn: expected {name} of shape (batch, {width}), got "
                f"{getattr(array, 'shape', type(array).__name__)}{of_groups if name == 'logits' else ''}"
            )
