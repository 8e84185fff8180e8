"""Everything that the sparse regression needs to know of a dataset, summed in one pass over it.

The regression of class indicators l on responses x sees the data only through G = sum x x^T and B = sum x l^T
(and sum l^2, to measure its error). Each sum is kept as two float32 arrays, the rounded sum and what the
rounding has lost, so that a million images are added up as accurately as a hundred.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.typing import Array, Batch, Float, Images, Logits, Variables

ResponseFn: TypeAlias = Callable[[Variables, Images], tuple[Float[Array, "batch features"], Logits]]


class Statistics(NamedTuple):
    """Sums over images, with responses x and one-hot classes l; a pytree of float32 arrays.

    The accurate sums are `gram + gram_residual` and `cross + cross_residual`, added in float64.
    """

    gram: Float[Array, "features features"]  # G = sum x x^T
    cross: Float[Array, "features classes"]  # B = sum x l^T
    counts: Float[Array, " classes"]  # sum l^2, the images of each class; exact up to 2^24
    total: Float[Array, ""]  # images, those with a label outside the classes too
    gram_residual: Float[Array, "features features"]  # what rounding has taken from gram
    cross_residual: Float[Array, "features classes"]


InitFn: TypeAlias = Callable[[], Statistics]
UpdateFn: TypeAlias = Callable[[Statistics, Batch, Variables], Statistics]
MergeFn: TypeAlias = Callable[[Statistics, Statistics], Statistics]


def gram_statistics(
    response_fn: ResponseFn,
    num_features: int,
    num_classes: int,
    *,
    labels: Literal["predicted", "true"] = "predicted",
    max_gram_bytes: int = 2 * 2**30,
) -> tuple[InitFn, UpdateFn, MergeFn]:
    """The `init`, `update` and `merge` that sum `Statistics` over a stream of batches.

    `init() -> state` and `update(state, batch, variables) -> state` are what `streaming.fold` takes (with
    `constants=variables`); `merge(state, state) -> state` adds the sums of two streams. A batch has "images",
    "labels" where labels="true", and optionally "weights" (0 = padding). What is not finite reaches the sums,
    where the regression refuses it.

    Args:
        response_fn: (variables, images) -> (responses, logits), (batch, features) and (batch, classes).
        num_features: features m of a response vector.
        num_classes: classes C.
        labels: regress on the class the network "predicted" (what explains the network), or the "true" one.
        max_gram_bytes: largest size allowed for G, 4 m^2 bytes; the state holds two such matrices and each
            update makes a third for a moment.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, section 3.1
        (the regression). Knuth, The Art of Computer Programming 2, section 4.2.2 (exact sum).

    Example:
        >>> import jax.numpy as jnp
        >>> init, update, merge = gram_statistics(lambda scale, x: (scale * x, x), 2, 2)
        >>> batch = {"images": jnp.array([[3.0, 1.0], [0.0, 2.0]]), "weights": jnp.ones(2)}
        >>> update(init(), batch, 1.0).cross.tolist()
        [[3.0, 0.0], [1.0, 2.0]]
    """
    check_choice("labels", labels, ("predicted", "true"))
    if (size := 4 * num_features**2) > max_gram_bytes:
        raise ValueError(
            f"num_features: the Gram matrix of m = {num_features} features takes {size:,} bytes "
            f"({size / 2**30:.2f} GiB), above max_gram_bytes = {max_gram_bytes:,}. Use fewer layers "
            "(the convolutional ones only: fully connected layers have the most features), or "
            "raise max_gram_bytes"
        )

    def init() -> Statistics:
        m, c = num_features, num_classes
        shapes = Statistics((m, m), (m, c), (c,), (), (m, m), (m, c))  # type: ignore[arg-type]
        return Statistics(*(jnp.zeros(shape, jnp.float32) for shape in shapes))

    def update(state: Statistics, batch: Batch, variables: Variables) -> Statistics:
        responses, logits = response_fn(variables, batch["images"])
        _check_shapes(responses, logits, num_features, num_classes)
        indicators = _predicted(logits) if labels == "predicted" else _true(batch, num_classes)
        weights = batch.get("weights", jnp.ones(responses.shape[:1], jnp.float32))
        return merge(state, _batch_sums(responses, indicators, weights))

    return init, update, merge


def merge(first: Statistics, second: Statistics) -> Statistics:
    """The statistics of both streams together; associative up to the rounding of the residuals."""
    gram, gram_error = _exact_sum(first.gram, second.gram)
    cross, cross_error = _exact_sum(first.cross, second.cross)
    return Statistics(
        gram=gram,
        cross=cross,
        counts=first.counts + second.counts,
        total=first.total + second.total,
        gram_residual=first.gram_residual + second.gram_residual + gram_error,
        cross_residual=first.cross_residual + second.cross_residual + cross_error,
    )


def _batch_sums(
    responses: Float[Array, "batch features"],
    indicators: Float[Array, "batch classes"],
    weights: Float[Array, " batch"],
) -> Statistics:
    weights = weights.astype(jnp.float32)[:, None]
    # Padding may hold anything, NaN too, and NaN times 0 would stay.
    responses = jnp.where(weights == 0, 0, responses.astype(jnp.float32))
    indicators = jnp.where(weights == 0, 0, indicators)
    weighted = (weights * responses).T
    gram = jnp.matmul(weighted, responses, precision=jax.lax.Precision.HIGHEST)
    cross = jnp.matmul(weighted, indicators, precision=jax.lax.Precision.HIGHEST)
    counts = jnp.sum(weights * indicators**2, axis=0)
    return Statistics(gram, cross, counts, jnp.sum(weights), jnp.zeros_like(gram), jnp.zeros_like(cross))


def _exact_sum(
    a: Float[Array, "*shape"], b: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    """The rounded sum and its rounding error: a + b = sum + error exactly (Knuth's two-sum)."""
    total = a + b
    b_rounded = total - a
    return total, (a - (total - b_rounded)) + (b - b_rounded)


def _predicted(logits: Logits) -> Float[Array, "batch classes"]:
    one_hot = jax.nn.one_hot(jnp.argmax(logits, axis=1), logits.shape[1], dtype=jnp.float32)
    is_finite = jnp.all(jnp.isfinite(logits), axis=1, keepdims=True)
    return jnp.where(is_finite, one_hot, jnp.nan)


def _true(batch: Batch, num_classes: int) -> Float[Array, "batch classes"]:
    if "labels" not in batch:
        raise KeyError(f'batch: labels="true" needs "labels", got {sorted(batch)}; use labels="predicted"')
    return jax.nn.one_hot(batch["labels"], num_classes, dtype=jnp.float32)


def _check_shapes(responses: Array, logits: Array, num_features: int, num_classes: int) -> None:
    for name, array, width in (
        ("responses", responses, num_features),
        ("logits", logits, num_classes),
    ):
        if array.ndim != 2 or array.shape[1] != width:
            raise ValueError(f"response_fn: expected {name} of shape (batch, {width}), got {array.shape}")
