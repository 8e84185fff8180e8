"""Similarity losses: what an image and its translation must have in common, though their shapes differ.

Reconstruction, GAN and cycle losses do not notice a change that leaves the target domain as it is (all hues
turned by 120°, all objects leaning to the other side): a comparison of the two images in a fixed space does.
The paper's own similarity loss is not known; these are candidates (*reconstructed*), one value per example.

In all functions:
    a: images, (batch, height, width, channels) in [0, 1].
    b: their translations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vexplain.translation.networks import Latents
from vexplain.typing import Array, Float, Images, Key, Masks

_ROUND = 0.05  # anisotropy below which the tilt of an object counts less and less
_EDGE, _SOFTNESS = 0.12, 0.04  # color distance at which a pixel is half foreground, and the width of the step


def background_contrast(images: Images) -> Float[Array, "batch height width"]:
    """Returns the distance of each pixel's color from the mean color of the border."""
    edges = [images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]]
    background = jnp.concatenate(edges, axis=1).mean(1)[:, None, None]
    return jnp.sqrt(((images - background) ** 2).sum(-1) + 1e-6)


def soft_foreground(images: Images) -> Float[Array, "batch height width"]:
    """Returns a differentiable mask in [0, 1] of what differs from the mean color of the border."""
    return jax.nn.sigmoid((background_contrast(images) - _EDGE) / _SOFTNESS)


def color_distance(a: Images, b: Images) -> Float[Array, " batch"]:
    """Returns how far mean and covariance of the foreground's colors are apart (candidate S1).

    mean |mean_a - mean_b| over channels + 4 · mean |cov_a - cov_b| over their pairs.
    """
    (mean_a, cov_a), (mean_b, cov_b) = _statistics(a), _statistics(b)
    # By the 4, standard deviations weigh as much as means, for colors are in [0, 1].
    return jnp.abs(mean_a - mean_b).mean(-1) + 4 * jnp.abs(cov_a - cov_b).mean((-2, -1))


def low_pass_distance(a: Images, b: Images, *, factor: int = 8) -> Float[Array, " batch"]:
    """Returns mean |a - b| of images averaged over blocks of `factor` pixels (candidate S5).

    It ties color, position and size, and leaves the outline within a block free.

    Args:
        factor: height and width of a block in pixels; divides the image.
    """
    return jnp.abs(_blocks(a, factor) - _blocks(b, factor)).mean((1, 2, 3))


def pose_distance(a: Images, b: Images) -> Float[Array, " batch"]:
    """Returns how far tilt and size of the two objects are apart (candidate S8, *ours*).

    1 - cos 2(φ_a - φ_b) + |log(mass_a / mass_b)|, with φ the direction of the principal axis of an object
    whose pixels weigh by their contrast to the background, and mass the sum of the weights. The other losses
    let a T-shirt that leans to the left become trousers that lean to the right. The tilt of an object without
    a principal axis does not count. Masses compare sizes as far as contrasts agree.
    """
    one, other = _pose(a), _pose(b)
    both = jnp.sqrt((one.tilt**2).sum(-1) * (other.tilt**2).sum(-1) + 1e-9)
    tilt = (both - (one.tilt * other.tilt).sum(-1)) / (both + _ROUND**2)
    return tilt + jnp.abs(jnp.log(one.mass / other.mass))


def offset_distance(a: Images, b: Images) -> Float[Array, " batch"]:
    """Returns how far the shift of each object's middle is from that of the batch (candidate S9, *ours*).

    |o - mean o| with o = R(-δ) (middle_b - middle_a) / radius_a, the shift turned back by the tilt δ of the
    object against the mean tilt of the batch, in units of its root mean square radius; the mean is over the
    batch. Objects should be tilted by less than 90° against each other.
    """
    one, other = _pose(a), _pose(b)
    turned = (one.tilt[:, 0] + 1j * one.tilt[:, 1]) * jnp.conj((one.tilt[:, 0] + 1j * one.tilt[:, 1]).mean())
    back = jnp.exp(-0.5j * jnp.angle(turned))
    shift = (other.middle - one.middle) / one.radius[:, None]
    shift = (shift[:, 0] + 1j * shift[:, 1]) * back
    rest = shift - shift.mean()
    return jnp.sqrt(rest.real**2 + rest.imag**2 + 1e-8)


def gram_distance(
    a: Images,
    b: Images,
    *,
    key: Key,
    num_features: int = 32,
    coverage: tuple[Masks, Masks] | None = None,
) -> Float[Array, " batch"]:
    """Returns the squared distance of Gram matrices of frozen features over the foreground (candidate S2).

    The features are those of a random 5×5 convolution, drawn by `key`, and a ReLU. Gram matrices are averages
    over the foreground, so that neither its size nor its shape counts.

    Args:
        num_features: number of filters.
        coverage: (batch, height, width) of the objects in `a` and in `b`; if left out that of
            `soft_foreground`, for plain backgrounds.

    References:
        Gatys, Ecker, Bethge, Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, with other
        features.
    """
    channels = a.shape[-1]
    kernel = jax.random.normal(key, (5, 5, channels, num_features)) / jnp.sqrt(25 * channels)

    def gram(images, mask):
        features = jax.lax.conv_general_dilated(
            images - 0.5, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        features = jax.nn.relu(features)
        total = jnp.maximum(mask.sum((1, 2)), 1)
        return (
            jnp.einsum("nhw,nhwc,nhwd->ncd", mask, features, features, precision="highest")
            / total[:, None, None]
        )

    masks = (soft_foreground(a), soft_foreground(b)) if coverage is None else coverage
    return ((gram(a, masks[0]) - gram(b, masks[1])) ** 2).mean((1, 2)) * num_features


def latent_distance(a: Latents, b: Latents) -> Float[Array, " batch"]:
    """Returns the mean squared distance of the latent of an image and that of its translation (candidate S4).

    By itself it cannot anchor the appearance: any orthogonal change of one domain's latent leaves it zero.
    """
    return ((a - b) ** 2).mean(tuple(range(1, a.ndim)))


class _Pose(NamedTuple):
    middle: Float[Array, "batch 2"]  # x to the right and y down, in pixels
    radius: Float[Array, " batch"]  # root mean square distance from the middle, in pixels
    tilt: Float[Array, "batch 2"]  # (cos 2φ, sin 2φ) of the principal axis, times the anisotropy in [0, 1]
    mass: Float[Array, " batch"]  # sum of the weights


def _pose(images: Images) -> _Pose:
    """Moments of an object whose pixels weigh by their contrast, which a blurred outline hardly changes."""
    contrast = background_contrast(images)
    weights = contrast * jax.nn.sigmoid(3 * (contrast - _EDGE / 2) / _SOFTNESS)
    mass = weights.sum((1, 2)) + 1
    rows, columns = (jnp.arange(n, dtype=weights.dtype) - (n - 1) / 2 for n in weights.shape[1:])

    def mean(values):
        return (weights * values).sum((1, 2)) / mass

    middle = jnp.stack([mean(columns[None, None]), mean(rows[None, :, None])], -1)
    x, y = columns[None, None] - middle[:, :1, None], rows[None, :, None] - middle[:, 1:, None]
    xx, xy, yy = mean(x * x), mean(x * y), mean(y * y)
    tilt = jnp.stack([xx - yy, 2 * xy], -1) / (xx + yy + 1)[:, None]
    return _Pose(middle, jnp.sqrt(xx + yy + 1), tilt, mass)


def _statistics(images: Images):
    mask = soft_foreground(images)
    weights = mask / jnp.maximum(mask.sum((1, 2), keepdims=True), 1)
    mean = jnp.einsum("nhw,nhwc->nc", weights, images, precision="highest")
    centered = images - mean[:, None, None]
    return mean, jnp.einsum("nhw,nhwc,nhwd->ncd", weights, centered, centered, precision="highest")


def _blocks(images: Images, factor: int):
    n, h, w, c = images.shape
    if h % factor or w % factor:
        raise ValueError(f"factor is {factor}: expected a divisor of the image's {h}×{w} pixels")
    return images.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))
