"""Learning without labels: two views of an image shall be near each other, and far from those of others.

SimCLR in small (Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, 2020). A
view is a crop of the image, perhaps mirrored, in other colors: its hue is turned by a random angle, its
saturation, brightness and contrast are changed. What views do not share cannot be learned.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.cluster.vq import kmeans2

from vexplain.streaming.divergence import Divergence, guarded, no_divergence, raise_if_diverged, running_mean
from vexplain.typing import Array, Float, Images, Key, PyTree

# NTSC's luma and two axes of color: hue is an angle, saturation a length.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


class ContrastiveState(NamedTuple):
    """Everything that training changes."""

    params: PyTree  # {"encoder", "head"}
    opt_state: PyTree
    step: Array
    loss: Array  # running average
    divergence: Divergence


def contrastive(
    apply: Callable[..., Any],
    optimizer: optax.GradientTransformation,
    *,
    temperature: float,
    smallest_crop: float,
    hue: float,
    seed: int,
) -> tuple[Callable[..., ContrastiveState], Callable[..., ContrastiveState]]:
    """Returns the pair (init, update) that trains an encoder, and a head that is left out later.

    Args:
        apply: the encoder, (variables, images) -> (batch, size).
        optimizer: from optax.
        temperature: of the softmax.
        smallest_crop: share of the area of the image that a view has at least.
        hue: largest turn of the hue, 0.5 for any.
        seed: of the views.

    Returns:
        `init(variables, head) -> ContrastiveState` and `update(state, batch) -> ContrastiveState`.
    """

    def init(variables: PyTree, head: PyTree) -> ContrastiveState:
        params = {"encoder": variables, "head": head}
        step, loss = jnp.zeros((), jnp.int32), jnp.zeros(())
        return ContrastiveState(params, optimizer.init(params), step, loss, no_divergence(["loss"]))

    def objective(params, images, key):
        views = [view(k, images, smallest_crop=smallest_crop, hue=hue) for k in jax.random.split(key)]
        embedded = apply(params["encoder"], jnp.concatenate(views))
        hidden = jax.nn.relu(embedded @ params["head"]["first"])
        return contrastive_loss(hidden @ params["head"]["second"], temperature)

    def update(state: ContrastiveState, batch: Any) -> ContrastiveState:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, gradient = jax.value_and_grad(objective)(state.params, batch["images"], key)
        changes, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        keep, divergence = guarded(state.divergence, {"loss": loss}, step=state.step)
        after = (optax.apply_updates(state.params, changes), opt_state)
        params, opt_state = keep(after, (state.params, state.opt_state))
        shown = running_mean({"loss": loss}, {"loss": state.loss}, step=state.step)["loss"]
        return ContrastiveState(params, opt_state, state.step + 1, shown, divergence)

    return init, update


def contrastive_report(state: ContrastiveState) -> dict[str, Any]:
    """Returns the loss for the progress bar; raises where one was not finite."""
    raise_if_diverged(state.divergence)
    return {"loss": state.loss}


def contrastive_loss(embedded: Float[Array, "rows size"], temperature: float) -> Float[Array, ""]:
    """Returns the normalized temperature-scaled cross-entropy of two views, the second half after the first.

    mean over rows i of  -log( exp(s_ij / τ) / Σ_{k≠i} exp(s_ik / τ) ),   s the cosine, j the other view
    """
    unit = embedded / jnp.maximum(jnp.linalg.norm(embedded, axis=1, keepdims=True), 1e-6)
    count = len(unit)
    logits = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, unit @ unit.T / temperature)
    other = (jnp.arange(count) + count // 2) % count
    return optax.softmax_cross_entropy_with_integer_labels(logits, other).mean()


def view(key: Key, images: Images, *, smallest_crop: float, hue: float) -> Images:
    """Returns a random view of each image: cropped and enlarged again, perhaps mirrored, in other colors."""
    keys = jax.random.split(key, len(images))
    return jax.vmap(lambda k, image: _view(k, image, smallest_crop, hue))(keys, jnp.asarray(images))


def _view(key: Key, image: Array, smallest_crop: float, hue: float) -> Array:
    area, x, y, mirrored, turn, color, gain, shift = jax.random.uniform(key, (8,))
    side = jnp.sqrt(smallest_crop + (1 - smallest_crop) * area)
    image = jnp.where(mirrored < 0.5, image[:, ::-1], image)
    height, width, _ = image.shape
    corner = (1 - side) / side * jnp.stack([y * height, x * width])
    scale = jnp.full(2, 1 / side)
    cropped = jax.image.scale_and_translate(
        image, image.shape, (0, 1), scale, -corner, method="linear", antialias=False
    )
    angle, length = 2 * jnp.pi * hue * (2 * turn - 1), 0.6 + 0.8 * color
    turned = length * jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    in_yiq = jnp.eye(3).at[1:, 1:].set(turned)
    changed = cropped @ (jnp.asarray(_FROM_YIQ) @ in_yiq @ jnp.asarray(_TO_YIQ)).T.astype(image.dtype)
    mean = changed.mean()
    return jnp.clip((0.7 + 0.6 * gain) * (changed - mean) + mean + 0.3 * (shift - 0.5), 0, 1)


def k_means(points: np.ndarray, num_clusters: int, *, seed: int, num_starts: int = 8) -> np.ndarray:
    """Returns the centers (num_clusters, size) of the best of several starts: the least squared distances."""
    found = [kmeans2(points, num_clusters, minit="++", rng=seed + n, iter=50) for n in range(num_starts)]
    return min(found, key=lambda pair: ((points - pair[0][pair[1]]) ** 2).sum())[0]


def mutual_information(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the mutual information of two groupings, over the mean of their entropies: 0 to 1."""
    table = np.zeros((first.max() + 1, second.max() + 1))
    np.add.at(table, (first, second), 1 / len(first))

    def entropy(shares):
        return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())

    each = entropy(table.sum(1)), entropy(table.sum(0))
    return (sum(each) - entropy(table)) / (sum(each) / 2) if sum(each) else 0.0
