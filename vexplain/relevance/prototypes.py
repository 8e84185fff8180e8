"""Any grouping of images as the classes of any network: an encoder without classes is explained by groups.

Clusters, pseudo-labels or attributes are classes once the network has one score for each. The nearest
prototype gives it: the mean of the outputs of a group's images, or the center of a cluster.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.datasets import Source
from vexplain.relevance.statistics import given_indicators
from vexplain.streaming import fold_epoch
from vexplain.streaming.devices import Mesh
from vexplain.typing import AnyArray, Array, Float, Variables


def with_prototypes(apply: Callable[..., Any]) -> Callable[..., Float[Array, "batch groups"]]:
    """Returns a network that scores groups of images, by how near the outputs of another are to prototypes.

    With x the outputs of an image, an embedding for instance, and p_g the prototype of group g,

        y_g = x · p_g - |p_g|² / 2 = (|x|² - |x - p_g|²) / 2,

    so that the group with the largest score is that of the nearest prototype, and the score is linear in x.
    These are classes as others are: `learn_relevance`, `explain` and every method take them.

    Args:
        apply: a network with outputs (batch, size).

    Returns:
        A function of `((variables, prototypes), images)`, prototypes (groups, size). Made twice of the same
        network it is the same function, so that nothing is compiled again.

    Example:
        >>> from vexplain import ArraySource, features, learn_relevance
        >>> encoder = lambda variables, images: jax.nn.relu(images).mean((1, 2)) @ variables
        >>> images = np.zeros((4, 2, 2, 2), np.float32)
        >>> images[:2, ..., 0] = images[2:, ..., 1] = 1  # two red ones, two green ones; nobody says so
        >>> source = ArraySource(images, np.zeros(4, int), class_names=("all",))
        >>> embedding = jnp.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])
        >>> centers = jnp.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]])  # of two clusters
        >>> grouped, variables = with_prototypes(encoder), (embedding, centers)
        >>> options = {"class_names": ("first", "second"), "layers": ["relu_1"], "mu": 1}
        >>> relevance = learn_relevance(grouped, variables, source, **options)
        >>> [(f.layer, f.channel) for f in features(relevance, "second")]
        [('relu_1', 1)]
    """
    return _WithPrototypes(apply)


def group_prototypes(
    apply: Callable[..., Any],
    variables: Variables,
    source: Source,
    *,
    labels: str,
    num_groups: int,
    batch_size: int = 64,
    mesh: Mesh | None = None,
) -> Float[np.ndarray, "groups size"]:
    """Returns the mean of the outputs of the images of each group, the prototypes of `with_prototypes`.

    Args:
        apply: a network with outputs (batch, size).
        source: the images.
        labels: the name of an array in its batches ("true" for "labels"): (batch,) integers, or
            (batch, groups) of 0 and 1.
        num_groups: of which every one needs an image, else a ValueError.
        batch_size: images a step.
        mesh: devices; one if left out.

    Example:
        >>> from vexplain import ArraySource
        >>> images = np.array([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1)
        >>> source = ArraySource(images, np.array([0, 1, 1]), class_names=("dark", "light"))
        >>> encoder = lambda variables, images: images.mean((1, 2)) * variables
        >>> group_prototypes(encoder, jnp.ones(2), source, labels="true", num_groups=2).tolist()
        [[0.0, 0.0], [0.75, 0.75]]
    """
    batch = source[[0]]["images"]
    size = jax.eval_shape(apply, variables, batch).shape
    if len(size) != 2:
        raise ValueError(f"apply returned shape {size}: expected one vector an image, (batch, size)")
    zeros = {"sums": jnp.zeros((num_groups, size[1])), "counts": jnp.zeros(num_groups)}

    def update(state, batch, variables):
        outputs = apply(variables, batch["images"]).astype(jnp.float32)
        is_padding = batch["weights"][:, None] == 0
        members = jnp.where(is_padding, 0, given_indicators(batch, labels, num_groups))
        sums = members.T @ jnp.where(is_padding, 0, outputs)
        return {"sums": state["sums"] + sums, "counts": state["counts"] + members.sum(0)}

    options: Any = {"batch_size": batch_size, "constants": variables, "mesh": mesh}
    found = jax.tree.map(np.asarray, fold_epoch(update, zeros, source, **options))
    if not (found["counts"] > 0).all():
        empty = np.flatnonzero(~(found["counts"] > 0)).tolist()
        raise ValueError(f"source: no image of groups {empty} by {labels!r}: give images of every group")
    return found["sums"] / found["counts"][:, None]


@dataclasses.dataclass(frozen=True)
class _WithPrototypes:
    apply: Callable[..., Any]

    def __call__(self, variables: Any, images: Any, *rest: Any) -> Float[Array, "batch groups"]:
        if not isinstance(variables, tuple) or len(variables) != 2:
            raise TypeError(
                f"variables is a {type(variables).__name__}: expected the pair (variables of the network, "
                "prototypes)"
            )
        own, prototypes = variables
        return _nearness(self.apply(own, images, *rest), jnp.asarray(prototypes))


def _nearness(outputs: Any, prototypes: AnyArray) -> Float[Array, "batch groups"]:
    shape = getattr(outputs, "shape", None)
    if shape is None or len(shape) != 2 or prototypes.ndim != 2 or prototypes.shape[1] != shape[1]:
        raise ValueError(
            f"apply returned {shape or type(outputs).__name__}, and prototypes have shape "
            f"{prototypes.shape}: expected (batch, size) and (groups, size); of a network that returns more, "
            "pass lambda v, images: apply(v, images)[...]"
        )
    return outputs @ prototypes.T - (prototypes**2).sum(1) / 2
