"""Layer-wise relevance propagation: the score is shared out from layer to layer, down to the pixels.

The rules are those of `transforms.propagation`, values that join; a composite says which one is for which
layer. No layer of a network is named: all are found in its program. Some authors say that LRP is patented for
commercial use.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.attribution.calling import Network, attribution_method
from vexplain.attribution.gradients import broadcast_baseline
from vexplain.transforms import (
    DIFFERENCES,
    Layer,
    LayerTable,
    Rule,
    Rules,
    attention_lrp,
    epsilon_plus_flat,
    layers,
    lrp_composite,
    opened,
    with_rules,
)
from vexplain.transforms.differences import paired
from vexplain.typing import AnyArray, Array, Attributions, Shaped, Targets


class Propagation(NamedTuple):
    """The attributions of LRP, and what became of the score.

    Attributes:
        attributions: (batch, height, width, channels), signed.
        scores: (batch,), what was shared out: Σ_k y_k ∂s/∂y_k for the outputs y and a score s of them, which
            is the score itself of a logit, a margin, or another sum of outputs.
        absorbed: (batch,), the scores less the sums of the attributions: what went to biases, or was lost by
            a rule that does not keep the sum.
    """

    attributions: Attributions
    scores: Shaped[Array, " batch"]
    absorbed: Shaped[Array, " batch"]


class LayerRelevance(NamedTuple):
    """The relevance of the numbers of some layers, on its way to the pixels.

    Attributes:
        layers: their rows in the layer table, for these images.
        relevance: of each layer, in its own axes: R = a c, see `transforms.propagation`.
        signals: of each layer, in its own axes: c.
        scores: (batch,), see `Propagation`.
        send: `({name: signal}) -> attributions`, what reaches the pixels of signals at the layers.
    """

    layers: dict[str, Layer]
    relevance: dict[str, Any]
    signals: dict[str, Any]
    scores: Shaped[Array, " batch"]
    send: Callable[[dict[str, Any]], Attributions]


@attribution_method
def propagate(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    composite: Rule | Rules = epsilon_plus_flat(),  # noqa: B008
    on_uncovered: str = "raise",
) -> Propagation:
    """Returns the attributions of `lrp`, and for every image how much of the score they are.

    Args:
        composite: see `lrp`.
        on_uncovered: see `lrp`.

    Example:
        >>> apply = lambda w, images: images.sum((1, 2)) @ w - 0.5
        >>> images, w = jnp.array([[[[0.5, 1.0]]]]), jnp.array([[2.0, 0.0], [3.0, 1.0]])
        >>> from vexplain.transforms import lrp_epsilon
        >>> found = propagate(apply, w, images, targets=0, composite=lrp_epsilon(0.0))
        >>> print(found.attributions[0, 0], found.scores, found.absorbed)
        [[1. 3.]] [3.5] [-0.5]
    """
    return _propagated(network, images, targets, composite, on_uncovered)


@attribution_method
def lrp(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    composite: Rule | Rules = epsilon_plus_flat(),  # noqa: B008
    on_uncovered: str = "raise",
) -> Attributions:
    """Returns the score shared out among the pixels, layer by layer (layer-wise relevance propagation).

    A linear layer z_j = Σ_i u_i w_ij + b_j that was given R_j hands on, for the rule LRP-0,

        R_i = Σ_j u_i w_ij / z_j R_j

    and other rules change the shares: `transforms.propagation` has them all. What is explained is an output
    or a weighted sum of outputs, from its value on; `propagate` returns how much of it biases took.

    Args:
        composite: which rule is for which linear layer: `epsilon_plus_flat()`, `epsilon_gamma_box()`, ...,
            one rule for all such as `lrp_epsilon()`, or rules of your own that are joined by `|`.
        on_uncovered: `"raise"`, or `"gradient"` to keep the gradient of a step that no rule is for.

    Raises:
        ValueError: a step of the network is not linear, and no rule is for it; or a rule of the first linear
            layer finds none that pixels enter alone.

    References:
        Bach et al., On Pixel-Wise Explanations for Non-Linear Classifier Decisions by Layer-Wise Relevance
        Propagation, PLOS ONE 2015, Equations 56, 58, 60.
        Montavon et al., Layer-Wise Relevance Propagation: An Overview, 2019.

    Example:
        >>> from vexplain.transforms import lrp_epsilon
        >>> apply = lambda w, images: jax.nn.relu(images.sum((1, 2)) @ w[0]) @ w[1]
        >>> w = (jnp.array([[2.0, -1.0], [1.0, 1.0]]), jnp.array([[3.0, 0.0], [4.0, 1.0]]))
        >>> found = lrp(apply, w, jnp.array([[[[0.5, 1.0]]]]), 0, composite=lrp_epsilon(0.0))
        >>> print(found[0, 0])
        [[1. 7.]]
    """
    return _propagated(network, images, targets, composite, on_uncovered).attributions


@attribution_method
def attn_lrp(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    composite: Rule | Rules = attention_lrp(),  # noqa: B008
    on_uncovered: str = "raise",
) -> Attributions:
    """Returns the score shared out among the pixels of a transformer, through its attention too (AttnLRP).

    Linear layers have the epsilon rule, normalizations a constant deviation, a product of two activations
    gives half to each, and the softmax s of x its gradient,

        R_i = x_i (R'_i - s_i Σ_j R'_j)

    Args:
        composite: `attention_lrp()`, or `conservative_lrp()` (CP-LRP), which sends nothing through attention
            weights and gates.
        on_uncovered: see `lrp`.

    Raises:
        ValueError: a step of the network is not linear, and no rule is for it.

    References:
        Achtibat et al., AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers, ICML
        2024, Section 3.
        Ali et al., XAI for Transformers: Better Explanations through Conservative Propagation, ICML 2022.

    Example:
        >>> apply = lambda w, images: (images[:, 0] * (images[:, 1] @ w)).sum(1)
        >>> images, w = jnp.array([[[[0.5, 1.0]], [[1.0, 0.0]]]]), jnp.array([[2.0, 4.0], [0.0, 1.0]])
        >>> found = attn_lrp(apply, w, images, score=lambda outputs, targets: outputs.sum(1))
        >>> print(found[0, :, 0].round(3))
        [[0.5 2. ]
         [2.5 0. ]]
    """
    return _propagated(network, images, targets, composite, on_uncovered).attributions


@attribution_method
def deeplift(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    baseline: float | AnyArray = 0.0,
) -> Attributions:
    """Returns the difference of the score from that of a baseline, shared out among the pixels (DeepLIFT).

    The rescale rule: what leaves a step differs by Δy from what leaves it for the baseline, and a function of
    one number, y = f(x), hands on the multiplier Δy / Δx in place of its derivative. The attributions
    m (x - x') of an image sum to y(x) - y(x'), exactly and for any baseline. `transforms.differences` has the
    multipliers of maxima, products and quotients.

    Args:
        baseline: x', an image without information: a number, or an array that broadcasts to the images.

    Raises:
        ValueError: a step of the network has no multiplier, or its batch axis could not be followed.

    References:
        Shrikumar, Greenside, Kundaje, Learning Important Features Through Propagating Activation Differences,
        ICML 2017, Equation 1 and Section 3.5.1.

    Example:
        >>> apply = lambda v, x: 2 * jax.nn.relu(x[:, 0, 0]) + 2 * jax.nn.relu(x[:, 0, 1] - 0.5)
        >>> images = jnp.array([[[[0.25], [1.0]]]])
        >>> print(deeplift(apply, None, images, score=lambda y, t: y[:, 0])[0, 0, :, 0])
        [0.5 1. ]
    """
    pairs = paired(images, broadcast_baseline(baseline, images))
    doubled = jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=0), targets)
    scored = lambda v, x, t: network.score(network.apply(v, x), t)  # noqa: E731
    ruled = with_rules(scored, DIFFERENCES, on_unmatched="ignore")
    multipliers = jax.grad(lambda x: ruled(network.variables, x, doubled)[::2].sum())(pairs)[::2]
    return multipliers * (images - broadcast_baseline(baseline, images))


def _propagated(network, images, targets, composite, on_uncovered) -> Propagation:
    rules = lrp_composite(composite)
    ruled = network.with_rules(rules, on_uncovered=on_uncovered, on_unmatched="ignore")
    outputs, send = jax.vjp(lambda x: ruled.apply(network.variables, x), images)
    scores, slopes = _score_slopes(network, outputs, targets)
    attributions = _as_attributions(rules, images, send(slopes)[0])
    return Propagation(attributions, scores, scores - attributions.sum((1, 2, 3)))


def propagate_to(
    network: Network,
    images: Any,
    targets: Any,
    chosen: Sequence[str | Layer],
    composite: Rule | Rules,
    on_uncovered: str = "raise",
) -> LayerRelevance:
    """Returns the relevance of some layers, with its way on to the pixels: one forward and one backward pass.

    Args:
        chosen: the layers, by name or as rows of a layer table, for a batch of any size.
        composite: see `lrp`.
        on_uncovered: see `lrp`.

    Raises:
        ValueError: a layer cannot be reached, or its batch axis could not be followed.
    """
    rules, (apply, variables, _) = lrp_composite(composite), network
    rows = {row.name: row for row in _rows(layers(apply, variables, images), chosen)}
    for name, row in rows.items():
        if row.batch_axis is None:
            raise ValueError(
                f"layer {name!r} of shape {row.shape} has no relevance of each image, {row.unreadable}: "
                "choose another layer"
            )
    ruled = with_rules(opened(apply, list(rows)), rules, on_uncovered=on_uncovered, on_unmatched="ignore")
    none = {name: jnp.zeros(row.shape, images.dtype) for name, row in rows.items()}
    outputs, send, found = jax.vjp(lambda shifts: ruled(variables, images, shifts), none, has_aux=True)
    scores, slopes = _score_slopes(network, outputs, targets)
    (signals,) = send(slopes)
    _, send_on = jax.vjp(lambda x: ruled(variables, x, none)[1], images)

    def attributions(signals):
        (sent,) = send_on({name: signal.astype(found[name].dtype) for name, signal in signals.items()})
        return _as_attributions(rules, images, sent)

    relevance = {name: found[name] * signals[name] for name in rows}
    return LayerRelevance(rows, relevance, signals, scores, attributions)


def _rows(table: LayerTable, chosen: Sequence[str | Layer]) -> list[Layer]:
    """Of the table, with the axes of a row that was given."""
    here = [table[row if isinstance(row, str) else row.name] for row in chosen]
    return [
        row if isinstance(given, str) else dataclasses.replace(given, shape=row.shape)
        for given, row in zip(chosen, here, strict=True)
    ]


def _score_slopes(network: Network, outputs: Any, targets: Any) -> tuple[Array, Any]:
    """What is shared out of each image, (batch,), and the derivative of the score by the outputs."""
    score = lambda y: network.score(y, targets)  # noqa: E731
    _, slopes = jax.vjp(score, outputs)
    scores = jax.jvp(score, (outputs,), (jax.tree.map(_tangent, outputs),))[1]
    return scores, slopes(jnp.ones_like(scores))[0]


def _as_attributions(rules: Rules, images: Any, sent: Any) -> Any:
    return sent if any(rule.sends_attributions for rule in rules.rules) else images * sent


def _tangent(y: Any) -> Any:
    return y if jnp.issubdtype(y.dtype, jnp.inexact) else np.zeros(y.shape, jax.dtypes.float0)
