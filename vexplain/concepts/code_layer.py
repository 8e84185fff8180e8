"""The codes of a sparse autoencoder as a layer of the network: everything that takes a layer takes them."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from vexplain.concepts.sparse_autoencoder import SparseAutoencoder, check_layer, encode, from_rows, rows_of
from vexplain.transforms import Layer, edit
from vexplain.transforms.layer_table import Traced, traced_layers
from vexplain.typing import Array


def with_codes(apply: Callable[..., Any], layer: Layer | str, *, name: str = "codes") -> Callable[..., Any]:
    """Returns the same network with the codes of a layer as a layer of their own, on the way to the outputs.

    With a the activation of the layer, z its codes and D the decoder, a is written as

        a = z D + r,        r = a - z D,

    of which z is the layer that is added: it has the positions and receptive fields of `layer`, can be read,
    edited, and differentiated by. What rounding takes from the sum is added again, so that the outputs stay
    as they are, bit for bit. Where z is edited, r is not: what the codes do not explain stays as it was.

    The rest r keeps its derivative (*ours*). Then the network is the same function of the pixels as before,
    the gradient through z and that through r add up to the gradient of a, and each map of the whole network
    is what it was; the derivative by z is the sensitivity of the outputs to the codes alone. Without that of
    r a gradient would be one of another network, which sees what is explained by codes only.

    The layer whose values are a again is named `name/output`, the steps between `name/encoder` and so on.

    Args:
        apply: the network, `apply(variables, images)`.
        layer: that the autoencoder was learned on.
        name: of the layer of codes; a ValueError where the network has one of that name.

    Returns:
        A function of `((variables, autoencoder), images)` with the outputs of `apply`. Made twice of the same
        network it is the same function, so that nothing is compiled again.

    Example:
        >>> from vexplain import layers
        >>> apply = lambda variables, images: jax.nn.relu(images @ variables).mean((1, 2)) @ variables
        >>> autoencoder = SparseAutoencoder(jnp.eye(2), jnp.eye(2), jnp.zeros(2), num_active=1)
        >>> coded = with_codes(apply, "relu_1")
        >>> layers(coded, (jnp.eye(2), autoencoder), jnp.ones((1, 4, 4, 2)))["codes"].grid
        (4, 4)
    """
    return _WithCodes(apply, layer.name if isinstance(layer, Layer) else layer, name)


@dataclasses.dataclass(frozen=True)
class _WithCodes:
    apply: Callable[..., Any]
    layer: str
    name: str

    def __call__(self, variables: Any, images: Any, *rest: Any) -> Any:
        own, autoencoder = _parted(variables)
        args = (own, images, *rest)
        traced = traced_layers(self.apply, args)
        row = traced.table[self.layer]
        check_layer(row)
        if self.name in traced.table.names:
            raise ValueError(f"name is {self.name!r}: the network has a layer of this name; give another")
        scope = f"{_root(traced, row) or self.name}/{self.name}"
        changed = edit(self.apply, {row.name: lambda a: _spliced(a, autoencoder, row, self.name, scope)})
        return changed(*args)


def _spliced(a: Array, autoencoder: SparseAutoencoder, row: Layer, name: str, scope: str) -> Array:
    """The activation itself, written as what its codes explain and the rest.

    Subtractions stand for additions, for a sum of two maps is taken for the end of a residual block.
    """
    wide = rows_of(a, row).astype(jnp.promote_types(a.dtype, jnp.float32))
    with jax.named_scope(f"{scope}/encoder"):
        found = encode(autoencoder, wide)
    codes = checkpoint_name(found, name)
    with jax.named_scope(f"{scope}/explained"):
        explained = found @ autoencoder.decoder
    with jax.named_scope(f"{scope}/decoder"):
        decoded = codes @ autoencoder.decoder
    left = wide - explained
    lost = jax.lax.stop_gradient((left - -explained) - wide)  # to rounding: not a part of any edit
    joined = (left - -decoded) - lost
    return checkpoint_name(from_rows(joined, row).astype(a.dtype), f"{name}/output")


def _root(traced: Traced, row: Layer) -> str | None:
    """The first module of the path of a layer, or of another: one more would be a part of all names."""
    own = traced.drafts[row.index].step.scope
    return next(iter(own), None) or min(
        (draft.step.scope[0] for draft in traced.drafts if draft.step.scope), default=None
    )


def _parted(variables: Any) -> tuple[Any, SparseAutoencoder]:
    if not isinstance(variables, tuple) or len(variables) != 2:
        raise TypeError(
            f"variables is a {type(variables).__name__}: expected the pair (variables of the network, "
            "autoencoder)"
        )
    own, autoencoder = variables
    if not isinstance(autoencoder, SparseAutoencoder):
        raise TypeError(
            f"autoencoder is a {type(autoencoder).__name__}: expected what learn_autoencoder returned; "
            "variables are the pair (variables of the network, autoencoder)"
        )
    return own, autoencoder
