"""The recipe of Visual Explanation by Interpretation (ICLR 2019) for one batch of images.

The features that are relevant for the predicted class *and* respond strongly to this image are its
explanation. Each is made visible by sending its own activation map back to the pixels, through guided ReLUs
and resampled strides. For a batch this is one forward pass and K backward passes in one compiled program,
whatever layers the K features of each image are in.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.attribution import positive_heatmaps
from vexplain.relevance._explained import check_classes_have_features, check_explained, check_score_count
from vexplain.relevance._features import Relevance
from vexplain.relevance._responses import responses
from vexplain.relevance.layout import layer_and_channel, split_features
from vexplain.relevance.scores import TopFeatures, feature_scores, top_features
from vexplain.transforms import (
    GUIDED,
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
from vexplain.typing import AnyArray, ApplyFn, Array, Float, Heatmaps, Labels, Logits, Shaped, Variables

SEEDS = ("activation", "ones")
COMBINATIONS = ("maximum", "mean", "weighted")
OPTIONS = ("num_features", "rules", "on_uncovered", "seed", "combination")


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


def explain(
    apply: ApplyFn,
    variables: Variables,
    images: AnyArray,
    relevance: Relevance,
    *,
    targets: AnyArray | None = None,
    num_features: int = 3,
    rules: Rule | Rules = GUIDED | RESAMPLED_STRIDE,
    on_uncovered: str = "raise",
    seed: str = "activation",
    combination: str = "maximum",
) -> Explanation:
    """Returns heatmaps of the features that explain the class of each image.

    With x the responses of an image and w the relevance weights of its class (all *paper*):

    1. r = x ∘ w / ‖w‖₁; the K features with the largest r > 0 are taken, over all layers together.
    2. Each feature's own activation map, all other channels zero, is sent back from its layer to the pixels.
    3. Per map: negative values to zero, L2 norm over the color channels, shift and scale to [0, 1].
    4. The maps are combined by the pixel-wise maximum.

    Args:
        apply: the network, `apply(variables, images) -> logits`.
        variables: of the network.
        images: (batch, height, width, channels) in [0, 1].
        relevance: what `find_relevance` returned for this network.
        targets: (batch,) integers, the class of each image to explain; the predicted one when left out.
        num_features: K. Where fewer features have r > 0, fewer maps are made.
        rules: backward rules. A rule that matches nothing in this network (RESAMPLED_STRIDE where all
            strides are 1) changes nothing.
        on_uncovered: what to do about activation functions that no rule covers, see `with_rules`.
        seed: what is sent back: the `"activation"` map (*paper*), or `"ones"`.
        combination: `"maximum"` (*paper*), `"mean"`, or `"weighted"` by r (both *ours*).

    Returns:
        Heatmaps, maps and the features they show. Under `jax.jit` an image whose class has no relevant
        features gets no valid map, and images and targets are checked by shape and dtype only: their range,
        and NaN, are not seen. Outside it all of this raises.

    Raises:
        ValueError: an unknown option, K larger than the number of features, images of another rank, dtype or
            range, no image, targets of another shape, dtype or range, or a class to explain that has no
            relevant features.

    References:
        Oramas, Wang, Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 3.2 and 3.3.

    Example:
        >>> from vexplain import ArraySource, learn_relevance
        >>> def apply(variables, images):  # which of two colors is there more of?
        ...     return jax.nn.relu(images).mean((1, 2)) @ variables
        >>> images = jnp.array([[[[0.0, 0.0], [1.0, 0.5]]], [[[0.0, 1.0], [0.2, 0.0]]]])
        >>> source = ArraySource(np.asarray(images), np.array([0, 1]), class_names=("red", "green"))
        >>> relevance = learn_relevance(apply, jnp.eye(2), source)
        >>> explanation = explain(apply, jnp.eye(2), images, relevance, num_features=1, rules=GUIDED)
        >>> print(explanation.heatmaps[:, 0])
        [[0. 1.]
         [1. 0.]]
        >>> feature_name(relevance, explanation.features.indices[0, 0])
        'relu_1[0]'
    """
    check_options(num_features, rules, on_uncovered, seed, combination)
    targets = check_explained(images, targets, relevance)
    options = (int(num_features), rules, on_uncovered, seed, combination)
    explanation = _explain(apply, variables, jnp.asarray(images), relevance, targets, options)
    check_classes_have_features(relevance, explanation.targets)
    return explanation


def check_options(
    num_features: Any = 3,
    rules: Any = GUIDED,
    on_uncovered: str = "raise",
    seed: str = "activation",
    combination: str = "maximum",
) -> None:
    """Raises ValueError for an option that `explain` does not take."""
    for option, value, allowed in (
        ("on_uncovered", on_uncovered, ("raise", "gradient")),
        ("seed", seed, SEEDS),
        ("combination", combination, COMBINATIONS),
    ):
        if value not in allowed:
            raise ValueError(f"{option} is {value!r}: expected one of {allowed}")
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
        relevance: what the index counts the features of.
        index: of the feature, for instance from `Explanation.features.indices`.

    Example:
        >>> layout = (("conv_1", 2), ("conv_2", 3))
        >>> relevance = Relevance(np.zeros((5, 1)), np.zeros(1), np.zeros(1), 1.0, layout, ("cat",))
        >>> feature_name(relevance, 4)
        'conv_2[2]'
    """
    layer, channel = layer_and_channel(relevance.layout, int(index))
    return f"{layer}[{channel}]"


@functools.partial(jax.jit, static_argnums=(0, 5))
def _explain(apply, variables, images, relevance, targets, options) -> Explanation:
    num_features, rules, on_uncovered, seed, combination = options
    table = layers(apply, variables, images)
    rows = [table[name] for name in relevance.layers]
    reading = with_rules(
        read(apply, relevance.layers), rules, on_uncovered=on_uncovered, on_unmatched="ignore"
    )
    (logits, found), send = jax.vjp(lambda images: reading(variables, images), images)
    check_score_count(relevance, logits.shape[1])
    targets = logits.argmax(-1) if targets is None else targets
    activations = {row.name: channels_last(found[row.name], row) for row in rows}
    x = responses(activations, layers=relevance.layers, measure=relevance.measure)
    scores = feature_scores(x, relevance, targets)
    features = top_features(scores, num_features)

    def shown(indices):  # one feature an image, (batch,)
        seeds = _seeds(rows, activations, relevance, indices, seed)
        return send((jnp.zeros_like(logits), seeds))[0]

    # One after the other: memory is that of one.
    backward = jax.lax.map(fast_in_loops(shown), features.indices.T)
    maps = positive_heatmaps(jnp.moveaxis(backward, 0, 1))
    maps = jnp.where(features.valid[:, :, None, None], maps, 0)
    return Explanation(combined_maps(maps, features, combination), maps, features, targets, logits)


def _seeds(
    rows: list[Layer],
    activations: dict[str, Any],
    relevance: Relevance,
    indices: Shaped[Array, " batch"],
    seed: str,
) -> dict[str, Any]:
    """What is sent back from each layer: the picked channel's own map, zero everywhere else."""
    total = sum(row.num_channels for row in rows)
    picks = split_features(relevance.layout, jax.nn.one_hot(indices, total))
    seeds = {}
    for row in rows:
        signal = activations[row.name]
        signal = signal if seed == "activation" else jnp.ones_like(signal)
        pick = picks[row.name].astype(signal.dtype)
        pick = pick.reshape(len(pick), *(1,) * (signal.ndim - 2), -1)
        seeds[row.name] = as_layer_output(signal * pick, row)
    return seeds


def combined_maps(
    maps: Float[Array, "batch K height width"], features: TopFeatures, combination: str
) -> Heatmaps:
    """Returns one map an image, of those of its features.

    Args:
        maps: in [0, 1]; zero where a feature is not valid.
        features: (batch, K) each.
        combination: "maximum", "mean" over the valid features, or "weighted" by their scores.

    Raises:
        ValueError: another combination.

    Example:
        >>> features = TopFeatures(jnp.array([[4, 0]]), jnp.array([[0.5, 0.0]]), jnp.array([[True, False]]))
        >>> maps = jnp.array([[[[0.2, 1.0]], [[0.0, 0.0]]]])
        >>> print(combined_maps(maps, features, "mean"))  # of the one valid map
        [[[0.2 1. ]]]
    """
    if combination not in COMBINATIONS:
        raise ValueError(f"combination is {combination!r}: expected one of {COMBINATIONS}")
    if combination == "maximum":
        return maps.max(1)
    scores = features.scores if combination == "weighted" else features.valid.astype(maps.dtype)
    total = scores.sum(1, keepdims=True)
    shares = scores / jnp.where(total > 0, total, 1)
    return jnp.einsum("bk,bkhw->bhw", shares, maps)
