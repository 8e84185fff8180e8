"""The losses of a translation in layers: a dictionary of functions of what a step made.

A new loss is one function here and one weight of the same name in `LayeredWeights`. Each returns one number
for a batch of both domains; all but the adversarial one compare images in [0, 1] or codes.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vexplain.translation import similarity
from vexplain.translation.layered.compositing import eroded
from vexplain.translation.layered.model import Layers
from vexplain.translation.layered.networks import Codes
from vexplain.translation.layered.scenes import Fitted
from vexplain.translation.losses import absolute_error, adversarial_loss, check_weights
from vexplain.typing import Array, Float, Images, Masks

_COVERED = 10.0  # weight of what is covered, in the loss of the fit
_SHARPNESS = 10.0  # of the softmax over products of appearance codes


class Made(NamedTuple):
    """What the generator makes of a batch, the images of A before those of B."""

    codes: Codes  # of the images
    own: Layers  # the images again
    other: Layers  # their translations
    hidden_texture: Images  # the texture, of images of which a part was hidden
    hidden_codes: Codes
    back_codes: Codes  # of the translations
    back: Layers  # their translations back
    fitted: Fitted | None  # what belongs where the images are, of networks with scenes


class Truth(NamedTuple):
    """What the losses may know: the images, what their objects cover, and the critic's scores."""

    images: Images
    coverage: Masks
    scores: Callable[[Layers], Float[Array, " batch"]]  # of translations, in their domain


@dataclasses.dataclass(frozen=True)
class LayeredWeights:
    """Weights of the losses; a loss of weight 0 is not computed."""

    coverage: float = 10.0  # mean |coverage of the image - that drawn in the shape of its own domain|
    reconstruction: float = 10.0  # mean |x - x_aa|
    hidden: float = 5.0  # mean |e| + 4 e² on the object, e = x - texture, of which a part was hidden (ours)
    gan: float = 2.0  # least-squares loss of the translations
    overlap: float = 5.0  # mean |x - x_ab| where both show the object: valid where textures stay (ours)
    cycle: float = 5.0  # mean |x - x_aba|
    appearance: float = 0.5  # 1 - cos of the codes of x and x_ab, and of x and x with a part hidden
    contrast: float = 0.1  # cross-entropy of finding x by the code of x_ab among the batch (ours)
    gram: float = 1.0  # style: Gram matrices of frozen features over the foreground
    pose: float = 0.5  # tilt and size
    offset: float = 1.0  # shift of the middle
    fit: float = 0.0  # errors of shape code, coverage and background of what belongs where images are (ours)
    paired: float = 0.0  # mean |y - x_ab| for batches of partners: the supervised upper bound
    penalty: float = 0.5  # gamma of R1, of the discriminator
    # No weight: standard deviation of the noise on translations before they are encoded again.
    cycle_noise: float = 0.02

    def __post_init__(self):
        check_weights(self)


# Of networks with scenes, where translations have a pose of their own.
SAME_POSE = ("overlap", "pose", "offset")
SCENE_WEIGHTS = LayeredWeights(fit=1.0, **dict.fromkeys(SAME_POSE, 0.0))


def coverage(made: Made, truth: Truth) -> Array:
    return absolute_error(made.own.coverage, truth.coverage).mean()


def reconstruction(made: Made, truth: Truth) -> Array:
    return absolute_error(made.own.image, truth.images).mean()


def hidden(made: Made, truth: Truth) -> Array:
    # By |e| alone a network that is not sure of a pattern paints the more frequent of its colors and stays.
    error = jnp.abs(made.hidden_texture - truth.images).mean(-1)
    squared = jnp.square(made.hidden_texture - truth.images).mean(-1)
    return _mean_over(eroded(truth.coverage), error + 4 * squared)


def gan(made: Made, truth: Truth) -> Array:
    return adversarial_loss(truth.scores(made.other), target=1).mean()


def overlap(made: Made, truth: Truth) -> Array:
    both = eroded(truth.coverage) * jax.lax.stop_gradient(made.other.coverage)
    return _mean_over(both, jnp.abs(made.other.texture - truth.images).mean(-1))


def cycle(made: Made, truth: Truth) -> Array:
    return absolute_error(made.back.image, truth.images).mean()


def appearance(made: Made, truth: Truth) -> Array:
    own, back, part = (c.appearance for c in (made.codes, made.back_codes, made.hidden_codes))
    return (2 - (own * back).sum(-1) - (own * part).sum(-1)).mean()


def contrast(made: Made, truth: Truth) -> Array:
    logits = _SHARPNESS * made.back_codes.appearance @ made.codes.appearance.T
    return -jnp.diagonal(jax.nn.log_softmax(logits)).mean()


def gram(made: Made, truth: Truth) -> Array:
    given = None if made.fitted is None else (truth.coverage, made.other.coverage)
    distances = similarity.gram_distance(
        truth.images, made.other.image, key=jax.random.key(0), coverage=given
    )
    return distances.mean()


def pose(made: Made, truth: Truth) -> Array:
    return similarity.pose_distance(truth.images, made.other.image).mean()


def offset(made: Made, truth: Truth) -> Array:
    halves = zip(jnp.split(truth.images, 2), jnp.split(made.other.image, 2), strict=True)
    return jnp.stack([similarity.offset_distance(a, b).mean() for a, b in halves]).mean()


def fit(made: Made, truth: Truth) -> Array:
    assert made.fitted is not None, "a translator without scenes"
    shape = jax.lax.stop_gradient(made.codes.shape)
    behind = absolute_error(made.fitted.background, made.own.background)
    # What came back into the scenes was drawn as it fits there.
    half = len(truth.images) // 2
    covered = absolute_error(made.back.coverage, truth.coverage)[half:]
    return jnp.square(made.fitted.shape - shape).mean() + behind.mean() + _COVERED * covered.mean()


def paired(made: Made, truth: Truth) -> Array:
    return absolute_error(made.other.image, jnp.roll(truth.images, len(truth.images) // 2, 0)).mean()


LOSSES: dict[str, Callable[[Made, Truth], Array]] = {
    loss_fn.__name__: loss_fn
    for loss_fn in (
        *(coverage, reconstruction, hidden, gan, overlap, cycle),
        *(appearance, contrast, gram, pose, offset, fit, paired),
    )
}


def _mean_over(region: Masks, values: Array) -> Array:
    """Mean over a region, in which each image counts as much."""
    return ((region * values).sum((1, 2)) / (region.sum((1, 2)) + 1)).mean()
