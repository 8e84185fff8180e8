"""How strongly each channel of each layer responds to an image, as one vector of unit length.

A channel's response is its share of the layer's energy, so that layers of any scale and size can compete for
the same explanation. A fully connected layer is a 1x1 map.
"""

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from vexplain._checks import check_choice
from vexplain.relevance.layout import feature_layout
from vexplain.typing import Activations, Array, Float, Shaped

Measure: TypeAlias = Literal["energy", "norm", "magnitude", "maximum"]


def responses(
    activations: Activations, *, layers: Sequence[str] | None = None, measure: Measure = "energy"
) -> Float[Array, "batch features"]:
    """The response of every channel of every layer, each image's vector of Euclidean length one.

    With A the activation of a layer, of shape (height, width, channels), for each image

        e_q = sum_{u,v} A[u, v, q]^2      energy of channel q, no square root     (*paper*)
        d_q = e_q / sum_{q'} e_{q'}       share of the layer's energy             (*paper*)
        x   = concatenation of d over layers,  x <- x / ||x||_2                   (*paper*)

    Instead of its energy a channel may be measured by its "norm", the root of the energy (the text of the
    paper says so, as recalled; the authors' code does not), or by its "magnitude", the sum of |A|, or
    "maximum", the largest |A| (both *ours*). A layer that is zero everywhere has responses and gradients 0
    (*ours*); an activation that is not finite makes the whole vector of its image NaN.

    Args:
        activations: by layer name, (batch, *spatial, channels) or (batch, channels), floating point.
        layers: the layers to take and their order, as of `feature_layout`.
        measure: of a channel: "energy", "norm", "magnitude" or "maximum".

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, section 3.1.

    Example:
        >>> import jax.numpy as jnp
        >>> x = responses({"dense_1": jnp.array([[1.0, 2.0]]), "dense_2": jnp.array([[0.0, 0.0]])})
        >>> [round(float(value), 3) for value in x[0]]
        [0.243, 0.97, 0.0, 0.0]
    """
    check_measure(measure)
    names = [name for name, _ in feature_layout(activations, layers=layers)]
    batch_sizes = {name: activations[name].shape[0] for name in names}
    if len(set(batch_sizes.values())) > 1:
        raise ValueError(f"activations: batch sizes differ between the layers, {batch_sizes}")
    shares = jnp.concatenate([_shares(name, activations[name], measure) for name in names], axis=1)
    squares = jnp.sum(shares**2, axis=1, keepdims=True)
    return shares / jnp.sqrt(jnp.where(squares == 0, 1, squares))


def check_measure(measure: str) -> None:
    """Raises ValueError for a measure that `responses` does not know."""
    check_choice("measure", measure, _OF_CHANNELS)


_OF_CHANNELS: dict[Measure, Callable[..., Array]] = {  # of maps whose largest magnitude is 1
    "energy": lambda maps, axes: jnp.sum(maps**2, axis=axes),
    "norm": lambda maps, axes: _root(jnp.sum(maps**2, axis=axes)),
    "magnitude": lambda maps, axes: jnp.sum(jnp.abs(maps), axis=axes),
    "maximum": lambda maps, axes: jnp.max(jnp.abs(maps), axis=axes),
}


def _root(values: Array) -> Array:
    """The square root, whose gradient at 0 is 0."""
    return jnp.where(values > 0, jnp.sqrt(jnp.where(values > 0, values, 1)), 0)


def _shares(
    name: str, activation: Shaped[Array, "batch ..."], measure: Measure
) -> Float[Array, "batch channels"]:
    if not jnp.issubdtype(activation.dtype, jnp.floating):
        raise ValueError(f"activations: {name!r} must be floating point, got {activation.dtype}; convert it")
    activation = activation.astype(jnp.promote_types(activation.dtype, jnp.float32))
    not_batch = tuple(range(1, activation.ndim))
    # No square overflows; the shares do not depend on this divisor, so neither does their gradient.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(activation), axis=not_batch, keepdims=True))
    scaled = activation / jnp.where(largest == 0, 1, largest)
    measured = _OF_CHANNELS[measure](scaled, not_batch[:-1])
    total = jnp.sum(measured, axis=1, keepdims=True)
    return measured / jnp.where(total == 0, 1, total)
