"""The recipe of Visual Explanation by Interpretation (ICLR 2019) for one batch of images.

The features that are relevant for the predicted class *and* respond strongly to this image are its
explanation. Each is made visible by sending its own activation map back to the pixels, through guided ReLUs
and resampled strides: one forward pass and K backward passes, whatever layers the K features are in.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vexplain._checks import check_choice
from vexplain._text import html_table
from vexplain.attribution import Network, attribution_method, positive_heatmaps
from vexplain.relevance._features import (
    Relevance,
    check_classes_have_features,
    check_relevance,
    check_score_count,
)
from vexplain.relevance._responses import responses
from vexplain.relevance.layout import layer_and_channel, split_features
from vexplain.relevance.scores import TopFeatures, feature_scores, top_features
from vexplain.transforms import (
    GUIDED,
    RESAMPLED_POOL,
    RESAMPLED_STRIDE,
    Layer,
    Rule,
    Rules,
    as_layer_output,
    channels_last,
    fast_in_loops,
    layers,
    read,
    with_rules,
)
from vexplain.typing import (
    Array,
    Float,
    Heatmaps,
    Labels,
    Logits,
    Shaped,
    Targets,
)

SIGNALS = ("activation", "ones")
COMBINATIONS = ("maximum", "mean", "weighted")


class Explanation(NamedTuple):
    """What explains each image of a batch.

    `features.indices`, `.scores` and `.valid` are (batch, K), best first; `feature_name` turns an index into
    layer and channel. A slot that is not valid has a map of zeros.
    """

    heatmaps: Heatmaps  # all K maps combined
    maps: Float[Array, "batch K height width"]  # one per feature
    features: TopFeatures
    targets: Labels
    logits: Logits

    def _repr_html_(self) -> str | None:
        if isinstance(self.logits, Tracer):
            return None
        targets, logits, found = (np.asarray(leaf) for leaf in (self.targets, self.logits, self.maps))
        indices, scores, valid = (np.asarray(leaf) for leaf in self.features)
        rows = [
            (f"{n}", f"{target}", f"{logits[n, target]:.3g}", _in_words(indices[n], scores[n], valid[n]))
            for n, target in enumerate(targets)
        ]
        caption = (
            f"{len(rows)} images, {found.shape[1]} maps each of {found.shape[2]} × {found.shape[3]} pixels"
        )
        return html_table(("image", "class explained", "score", "features by r"), rows, caption=caption)


def _in_words(indices: np.ndarray, scores: np.ndarray, valid: np.ndarray) -> str:
    pairs = zip(indices[valid], scores[valid], strict=True)
    return ", ".join(f"{index} (r = {score:.2g})" for index, score in pairs) or "none"


@attribution_method(after=check_classes_have_features)
def explain(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    relevance: Relevance,
    num_features: int = 3,
    rules: Rule | Rules = GUIDED | RESAMPLED_STRIDE,
    on_uncovered: str = "raise",
    signal: str = "activation",
    combination: str = "maximum",
) -> Explanation:
    """Returns the features that explain the class of each image, and heatmaps of them.

    With x the responses of an image and w the relevance weights of its class (all *paper*):

    1. r = x ∘ w / ‖w‖₁; the K features with the largest r > 0 are taken, over all layers together.
    2. Each feature's own activation map, all other channels zero, is sent back from its layer to the pixels.
    3. Per map: negative values to zero, L2 norm over the color channels, shift and scale to [0, 1].
    4. The maps are combined by the pixel-wise maximum.

    Under `jax.jit` an image whose class has no relevant features gets no valid map; outside it this raises.

    Args:
        relevance: what `learn_relevance` returned for this network.
        score: left out: the weights of the regression say what counts for a class.
        num_features: K. Where fewer features have r > 0, fewer maps are made.
        rules: backward rules. One that matches nothing in this network changes nothing.
        on_uncovered: what to do about activation functions that no rule covers, see `with_rules`.
        signal: what is sent back: the `"activation"` map (*paper*), or `"ones"`.
        combination: `"maximum"` (*paper*), `"mean"`, or `"weighted"` by r (both *ours*).

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 3.2 and 3.3.

    Example:
        >>> from vexplain import ArraySource, learn_relevance
        >>> def apply(variables, images):  # which of two colors is there more of?
        ...     return jax.nn.relu(images).mean((1, 2)) @ variables
        >>> images = jnp.array([[[[0.0, 0.0], [1.0, 0.5]]], [[[0.0, 1.0], [0.2, 0.0]]]])
        >>> source = ArraySource(np.asarray(images), np.array([0, 1]), class_names=("red", "green"))
        >>> relevance = learn_relevance(apply, jnp.eye(2), source)
        >>> options = {"relevance": relevance, "num_features": 1, "rules": GUIDED}
        >>> explanation = explain(apply, jnp.eye(2), images, **options)
        >>> print(explanation.heatmaps[:, 0])
        [[0. 1.]
         [1. 0.]]
        >>> feature_name(relevance, explanation.features.indices[0, 0])
        'relu_1[0]'
    """
    options = {"on_uncovered": on_uncovered, "signal": signal, "combination": combination}
    return _explanation(network, images, targets, relevance, num_features, rules, **options)


@attribution_method(after=check_classes_have_features)
def relevant_features(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    relevance: Relevance,
    num_features: int = 3,
    rules: Rule | Rules = GUIDED | RESAMPLED_STRIDE,
    on_uncovered: str = "raise",
    signal: str = "activation",
    combination: str = "maximum",
) -> Heatmaps:
    """Returns the heatmaps of the paper's recipe: of the relevant features that each image responds to most.

    `explain` has the equations and the options, and returns the features too.

    Args:
        relevance: what `learn_relevance` returned for this network.
        num_features: K, see `explain`.
        rules: see `explain`.
        on_uncovered: see `with_rules`.
        signal: see `explain`.
        combination: see `explain`.

    Example:
        >>> from vexplain import ArraySource, learn_relevance
        >>> apply = lambda variables, images: jax.nn.relu(images).mean((1, 2)) @ variables
        >>> images = np.zeros((2, 12, 12, 2), np.float32)
        >>> images[0, 3:9, 2:6, 0] = images[1, 5:, 5:, 1] = 1
        >>> source = ArraySource(images, np.array([0, 1]), class_names=("red", "green"))
        >>> relevance = learn_relevance(apply, jnp.eye(2), source, mu=2)
        >>> relevant_features(apply, jnp.eye(2), images, relevance=relevance, num_features=1).shape
        (2, 12, 12)
    """
    options = {"on_uncovered": on_uncovered, "signal": signal, "combination": combination}
    return _explanation(network, images, targets, relevance, num_features, rules, **options).heatmaps


@attribution_method(after=check_classes_have_features)
def resampled_relevant_features(
    network: Network,
    images: Array,
    targets: Targets,
    *,
    relevance: Relevance,
    num_features: int = 3,
    on_uncovered: str = "raise",
    signal: str = "activation",
    combination: str = "maximum",
) -> Heatmaps:
    """Returns the heatmaps of the paper's recipe with resampled poolings too (*ours*).

    What comes back to a pooling is enlarged to its input instead of sent to the winners, as Section 3.3 of
    the paper has it for strides: `relevant_features` with `rules=GUIDED | RESAMPLED_STRIDE | RESAMPLED_POOL`.
    A network without poolings has the maps of the paper's recipe.

    Args:
        relevance: what `learn_relevance` returned for this network.
        num_features: K, see `explain`.
        on_uncovered: see `with_rules`.
        signal: see `explain`.
        combination: see `explain`.

    Example:
        >>> from vexplain import ArraySource, learn_relevance
        >>> apply = lambda variables, images: jax.nn.relu(images).mean((1, 2)) @ variables
        >>> images = np.zeros((2, 12, 12, 2), np.float32)
        >>> images[0, 3:9, 2:6, 0] = images[1, 5:, 5:, 1] = 1
        >>> source = ArraySource(images, np.array([0, 1]), class_names=("red", "green"))
        >>> relevance = learn_relevance(apply, jnp.eye(2), source, mu=2)
        >>> resampled_relevant_features(apply, jnp.eye(2), images, relevance=relevance).shape
        (2, 12, 12)
    """
    rules = GUIDED | RESAMPLED_STRIDE | RESAMPLED_POOL
    options = {"on_uncovered": on_uncovered, "signal": signal, "combination": combination}
    return _explanation(network, images, targets, relevance, num_features, rules, **options).heatmaps


def _explanation(
    network: Network,
    images: Array,
    targets: Targets,
    relevance: Relevance,
    num_features: Any,  # the options are as the user gave them
    rules: Any,
    *,
    on_uncovered: Any,
    signal: Any,
    combination: Any,
) -> Explanation:
    check_options(num_features, rules, on_uncovered, signal, combination)
    check_relevance(relevance, network.score)
    apply, variables, _ = network
    table = layers(apply, variables, images)
    chosen = [table[name] for name in relevance.layers]
    read_fn = with_rules(
        read(apply, relevance.layers), rules, on_uncovered=on_uncovered, on_unmatched="ignore"
    )
    (logits, found), send = jax.vjp(lambda images: read_fn(variables, images), images)
    check_score_count(relevance, logits.shape[1])
    activations = {layer.name: channels_last(found[layer.name], layer) for layer in chosen}
    x = responses(activations, layers=relevance.layers, measure=relevance.measure)
    features = top_features(feature_scores(x, relevance, targets), num_features)

    def shown(indices):  # one feature an image, (batch,)
        sent = _signals(chosen, activations, relevance, indices, signal)
        return send((jnp.zeros_like(logits), sent))[0]

    # One after the other: memory is that of one.
    backward = jax.lax.map(fast_in_loops(shown), features.indices.T)
    maps = positive_heatmaps(jnp.moveaxis(backward, 0, 1))
    maps = jnp.where(features.valid[:, :, None, None], maps, 0)
    return Explanation(combined_maps(maps, features, combination), maps, features, targets, logits)


def check_options(
    num_features: Any = 3,
    rules: Any = GUIDED,
    on_uncovered: str = "raise",
    signal: str = "activation",
    combination: str = "maximum",
) -> None:
    """Raises ValueError for an option that `explain` does not take."""
    check_choice("on_uncovered", on_uncovered, ("raise", "gradient"))
    check_choice("signal", signal, SIGNALS)
    check_choice("combination", combination, COMBINATIONS)
    if isinstance(num_features, bool) or not isinstance(num_features, (int, np.integer)) or num_features < 1:
        raise ValueError(f"num_features is {num_features!r}: expected the number of heatmaps, 1 or more")
    if not isinstance(rules, (Rule, Rules)):
        raise ValueError(
            f"rules is {rules!r}: expected a Rule, or several joined by |, such as "
            "vexplain.GUIDED | vexplain.RESAMPLED_STRIDE"
        )


def feature_name(relevance: Relevance, index: Any) -> str:
    """Returns the name of a feature as `layer[channel]`.

    Args:
        relevance: whose features are counted.
        index: of the feature, for instance from `Explanation.features.indices`.

    Example:
        >>> layout = (("conv_1", 2), ("conv_2", 3))
        >>> relevance = Relevance(np.zeros((5, 1)), np.zeros(1), np.zeros(1), 1.0, layout, ("cat",))
        >>> feature_name(relevance, 4)
        'conv_2[2]'
    """
    layer, channel = layer_and_channel(relevance.layout, int(index))
    return f"{layer}[{channel}]"


def _signals(
    chosen: list[Layer],
    activations: dict[str, Any],
    relevance: Relevance,
    indices: Shaped[Array, " batch"],
    kind: str,
) -> dict[str, Any]:
    """What is sent back from each layer: the picked channel's own map, zero everywhere else."""
    total = sum(layer.num_channels for layer in chosen)
    picks = split_features(relevance.layout, jax.nn.one_hot(indices, total))
    signals = {}
    for layer in chosen:
        signal = activations[layer.name]
        signal = _of_unit_size(signal) if kind == "activation" else jnp.ones_like(signal)
        pick = picks[layer.name].astype(signal.dtype)
        pick = pick.reshape(len(pick), *(1,) * (signal.ndim - 2), -1)
        signals[layer.name] = as_layer_output(signal * pick, layer)
    return signals


def _of_unit_size(signal: Array) -> Array:
    """Times the power of two that brings the largest number of each image near 1.

    The map does not depend on it, and in float16 the way back loses fewer small numbers.
    """
    largest = jnp.abs(signal).max(tuple(range(1, signal.ndim - 1)), keepdims=True)
    return jnp.ldexp(signal, -jnp.frexp(largest)[1])


def combined_maps(
    maps: Float[Array, "batch K height width"], features: TopFeatures, combination: str
) -> Heatmaps:
    """Returns one map an image, of those of its features.

    Args:
        maps: in [0, 1]; zero where a feature is not valid.
        features: (batch, K) each.
        combination: "maximum", "mean" over the valid features, or "weighted" by their scores.

    Example:
        >>> features = TopFeatures(jnp.array([[4, 0]]), jnp.array([[0.5, 0.0]]), jnp.array([[True, False]]))
        >>> maps = jnp.array([[[[0.2, 1.0]], [[0.0, 0.0]]]])
        >>> print(combined_maps(maps, features, "mean"))  # of the one valid map
        [[[0.2 1. ]]]
    """
    check_choice("combination", combination, COMBINATIONS)
    if combination == "maximum":
        return maps.max(1)
    scores = features.scores if combination == "weighted" else features.valid.astype(maps.dtype)
    total = scores.sum(1, keepdims=True)
    shares = scores / jnp.where(total > 0, total, 1)
    return jnp.einsum("bk,bkhw->bhw", shares, maps, precision="highest")
