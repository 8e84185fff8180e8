"""Where the evidence for the class is: an area instead of edges, from the relevant features (*ours*).

The recipe of the paper shows what its features look at: it sends their activation maps back to the pixels,
through rules that keep edges. This map asks another question: at which pixels is what these features add to
the lead of the class over the others? It takes one forward pass and two backward passes, however many
features are relevant.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vexplain.attribution import Network, attribution_method, guided_filter, normalize_heatmaps
from vexplain.datasets.filters import gaussian_blur
from vexplain.relevance._features import (
    Relevance,
    check_classes_have_features,
    check_relevance,
    check_score_count,
)
from vexplain.relevance.layout import split_features
from vexplain.transforms import Layer, LayerTable, as_layer_output, channels_last, edit, layers, read
from vexplain.transforms.layer_kinds import LINEAR_KINDS
from vexplain.typing import (
    AnyArray,
    Array,
    Float,
    Heatmaps,
    Labels,
    Logits,
    Targets,
)

REACH = 1 / 64  # of the side of a layer: standard deviation of the neighborhood that shares a gradient
DOUBT = 0.3  # what is left of fine evidence where no deeper layer agrees
WINDOW = 1 / 6  # of the side of the image: radius of the windows of the area-filling step
SMOOTHNESS = 1e-3  # of that step, in squared units of color: steps of color below 0.03 are no edges
_NUM_ROUNDS = 20  # of the split of a map into two levels


class Evidence(NamedTuple):
    """Where the evidence of each image is, and of which features."""

    heatmaps: Heatmaps
    unfilled: Heatmaps  # before the area-filling step
    contributions: Float[Array, "batch features"]  # of the class's relevant features to its lead; else 0
    targets: Labels
    logits: Logits


@attribution_method(after=check_classes_have_features)
def find_evidence(network: Network, images: Array, targets: Targets, *, relevance: Relevance) -> Evidence:
    """Returns heatmaps of the regions that give the relevant features their evidence for the class (*ours*).

    With m = y - ȳ the score of the class less the mean of the other scores, A the activation of a layer, and
    w the relevance weights:

    1. c_f = Σ over positions of A_f ∂m/∂A_f is what feature f contributes to m. A feature with w_f > 0 for
       the class and c_f > 0 counts: for the score of the class, against those of others, or both.
    2. ∂m/∂A_f of these is sent back, and nothing of other features. At a layer with positions arrives G, to
       which the layer's own features among them add theirs.
    3. E = max(0, Σ_k Ḡ_k A_k), where Ḡ is G under a Gaussian of 1/64 of the layer, half a position at least:
       a texture turns the sign of G within few pixels. (The mean over all positions instead would be
       Grad-CAM's weight.)
    4. The finest layer says where, the deeper ones whether: E_fine (D + 0.3), with D in [0, 1] the mean of
       E over the last layers of all coarser resolutions, saturated as in step 6.
    5. The guided filter spreads it over regions of one color, and not across their edges.
    6. The map is split into two levels (2-means); the upper one and what is above it become 1.

    It needs no rule for ReLUs, only layers that can be read. Its constants were chosen on an8Flower
    `single_6c`, plain, and on cue objects whose class is the shape or the texture.

    Args:
        relevance: what `learn_relevance` returned for this network.

    Returns:
        Heatmaps, and the contributions of the features. An image in which no relevant feature counts for the
        class has a map of zeros.

    Example:
        >>> import numpy as np
        >>> from vexplain import ArraySource, learn_relevance
        >>> def apply(variables, images):  # which of two colors is there more of?
        ...     return jax.nn.relu(images).mean((1, 2)) @ variables
        >>> images = np.zeros((2, 12, 12, 2), np.float32)
        >>> images[0, 3:9, 2:6, 0] = images[1, 5:, 5:, 1] = 1
        >>> source = ArraySource(images, np.array([0, 1]), class_names=("red", "green"))
        >>> relevance = learn_relevance(apply, jnp.eye(2), source, mu=2)
        >>> evidence = find_evidence(apply, jnp.eye(2), images, relevance=relevance)
        >>> bool(((evidence.heatmaps > 0.5) == (images.max(-1) > 0)).all())
        True
    """
    return _evidence(network, images, targets, relevance)


@attribution_method(after=check_classes_have_features)
def relevant_evidence(network: Network, images: Array, targets: Targets, *, relevance: Relevance) -> Heatmaps:
    """Returns heatmaps of the regions that give the relevant features their evidence for the class (*ours*).

    `find_evidence` has the equations, and returns the contributions of the features too.

    Example:
        >>> import numpy as np
        >>> from vexplain import ArraySource, learn_relevance
        >>> apply = lambda variables, images: jax.nn.relu(images).mean((1, 2)) @ variables
        >>> images = np.zeros((2, 12, 12, 2), np.float32)
        >>> images[0, 3:9, 2:6, 0] = images[1, 5:, 5:, 1] = 1
        >>> source = ArraySource(images, np.array([0, 1]), class_names=("red", "green"))
        >>> relevance = learn_relevance(apply, jnp.eye(2), source, mu=2)
        >>> relevant_evidence(apply, jnp.eye(2), images, relevance=relevance).shape
        (2, 12, 12)
    """
    return _evidence(network, images, targets, relevance).heatmaps


def _evidence(network: Network, images: Array, targets: Targets, relevance: Relevance) -> Evidence:
    check_relevance(relevance, network.score)
    apply, variables, _ = network
    table = layers(apply, variables, images)
    fine, *coarser = evidence_layers(table)
    names = tuple(dict.fromkeys((*relevance.layers, fine.name, *(layer.name for layer in coarser))))
    chosen = {name: table[name] for name in names}
    logits, activations, send = _backward(apply, variables, images, chosen)
    check_score_count(relevance, logits.shape[1])
    own = jax.nn.one_hot(targets, logits.shape[1], dtype=logits.dtype)
    lead = own - (1 - own) / max(logits.shape[1] - 1, 1)
    gradients = send(lead, {})
    contributions = _contributions(gradients, activations, relevance, own)
    counts = split_features(relevance.layout, contributions > 0)
    seeds = {name: gradients[name] * _beside(counts[name], gradients[name]) for name in relevance.layers}
    arrived = send(jnp.zeros_like(logits), seeds)

    def evidence_of(layer: Layer) -> Heatmaps:
        signal = arrived[layer.name] + seeds.get(layer.name, 0)
        return _localized(signal, activations[layer.name], images)

    deeper = sum((normalize_heatmaps(evidence_of(layer)) for layer in coarser), jnp.zeros(images.shape[:3]))
    agreed = _saturated(deeper) + DOUBT if coarser else 1.0
    unfilled = normalize_heatmaps(evidence_of(fine) * agreed)
    radius = max(round(min(images.shape[1:3]) * WINDOW), 1)
    filled = guided_filter(unfilled, images, radius=radius, smoothness=SMOOTHNESS)
    return Evidence(_saturated(jax.nn.relu(filled)), unfilled, contributions, targets, logits)


def evidence_layers(table: LayerTable) -> tuple[Layer, ...]:
    """Returns the layers that evidence is read from: the finest first, then one for each coarser resolution.

    The finest is the first activation function with positions (the first layer, where there is none); of
    each coarser resolution it is the last activation function, or the last layer where there is none.

    Example:
        >>> def apply(variables, images):
        ...     x = jax.nn.relu(jax.nn.relu(images))
        ...     x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        ...     return x.mean((1, 2))
        >>> [layer.name for layer in evidence_layers(layers(apply, None, jnp.ones((1, 4, 4, 3))))]
        ['relu_1', 'pool_1']
    """
    spatial = [row for row in table if row.num_positions > 1 and row.is_readable]
    if not spatial:
        raise ValueError(
            "apply: no layer of this network has positions (two spatial axes), so that evidence has no place"
        )
    by_resolution: dict[int, list[Layer]] = {}
    for layer in spatial:
        by_resolution.setdefault(layer.num_positions, []).append(layer)
    found = []
    for _, chosen in sorted(by_resolution.items(), reverse=True):
        bends = [layer for layer in chosen if layer.kind not in LINEAR_KINDS] or chosen
        found.append(bends[-1] if found else bends[0])
    return tuple(found)


def _backward(apply, variables, images, chosen: dict[str, Layer]):
    """(logits, activations, send), channels last.

    `send(of_logits, seeds)` is what arrives at each layer from later ones, its own seed left out.
    """

    def moved(deltas):
        changes = {name: (lambda a, delta=delta: a + delta) for name, delta in deltas.items()}
        return read(edit(apply, changes), tuple(chosen))(variables, images)

    _, shapes = jax.eval_shape(read(apply, tuple(chosen)), variables, images)
    zeros = {name: jnp.zeros(shape.shape, shape.dtype) for name, shape in shapes.items()}
    (logits, found), pull = jax.vjp(moved, zeros)

    def send(of_logits: Array, seeds: dict[str, Array]) -> dict[str, Array]:
        given = {name: as_layer_output(seed, chosen[name]) for name, seed in seeds.items()}
        arrived = pull((of_logits, zeros | given))[0]
        return {name: channels_last(arrived[name], chosen[name]) for name in chosen}

    return logits, {name: channels_last(found[name], chosen[name]) for name in chosen}, send


def _contributions(
    gradients: dict[str, Array], activations: dict[str, Array], relevance: Relevance, own: Array
) -> Float[Array, "batch features"]:
    """Of the features with a positive weight for the class; else 0."""

    def of_layer(name: str) -> Array:
        products = gradients[name] * activations[name]
        return products.sum(tuple(range(1, products.ndim - 1)))

    found = jnp.concatenate([of_layer(name) for name in relevance.layers], axis=1)
    return jnp.where(jnp.asarray(relevance.weights > 0).T[own.argmax(1)], found, 0)


def _beside(chosen: AnyArray, like: Array) -> Array:
    """(batch, channels) in the shape of a layer whose channels are last."""
    return jnp.asarray(chosen, like.dtype).reshape(len(chosen), *(1,) * (like.ndim - 2), -1)


def _localized(signal: Array, activation: Array, images: Array) -> Heatmaps:
    """max(0, Σ_k of the locally averaged signal times the activation), at the size of the images."""
    sigma = max(min(signal.shape[1:3]) * REACH, 0.5)
    radius = min(max(round(3 * sigma), 1), min(signal.shape[1:3]) - 1)
    shared = gaussian_blur(signal, sigma=sigma, radius=radius) if radius else signal
    maps = jax.nn.relu((shared * activation).sum(-1))
    return jax.image.resize(maps, images.shape[:3], "bilinear")


def _saturated(heatmaps: Heatmaps) -> Heatmaps:
    """Maps over the mean of the upper of their two levels, at most 1; the levels are those of 2-means."""
    maps = normalize_heatmaps(heatmaps)

    def means(levels):
        is_upper = maps >= levels.mean(0)[:, None, None]
        lower, upper = (
            (maps * part).sum((1, 2)) / jnp.maximum(part.sum((1, 2)), 1) for part in (~is_upper, is_upper)
        )
        return jnp.stack([lower, upper])

    start = jnp.stack([jnp.zeros(len(maps)), jnp.ones(len(maps))])
    upper = jax.lax.fori_loop(0, _NUM_ROUNDS, lambda _, levels: means(levels), start)[1][:, None, None]
    return jnp.minimum(maps / jnp.where(upper > 0, upper, 1), 1)
