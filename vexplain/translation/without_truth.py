"""What can be said of translations where no one knows the true ones: have they collapsed, and what is kept.

Images differ, and so must their translations. There and back an image should come again, and not because it
was hidden in a faint pattern. What a similarity loss compares should be closer between an image and its own
translation than between the image and that of another.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vexplain.translation.cycle import hidden_channel_errors, hidden_channel_ratios
from vexplain.translation.similarity import color_distance, offset_distance, pose_distance
from vexplain.typing import Array, Float

_Images = Float[Array | np.ndarray, "images height width channels"]
_BATCH = 50
_FLAT = 0.02  # standard deviation of values in [0, 1]; that of a rendered image is above 0.1


def in_batches(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
    """Returns `function(*arrays)`, a tree of arrays, over batches of one size: one program serves all.

    Args:
        function: of arrays with a leading batch axis.
        arrays: with one leading axis, NumPy's.

    Example:
        >>> in_batches(lambda x: 2 * x, np.arange(3.0))
        array([0., 2., 4.], dtype=float32)
    """
    count, made = len(arrays[0]), []
    for start in range(0, count, _BATCH):
        chosen = np.minimum(np.arange(start, start + _BATCH), count - 1)
        part = function(*(jnp.asarray(array[chosen]) for array in arrays))
        made.append(jax.tree.map(lambda x: np.asarray(x)[: count - start], part))  # noqa: B023
    return jax.tree.map(lambda *parts: np.concatenate(parts), *made)


def collapse(outputs: _Images, inputs: _Images) -> str:
    """Returns why a training failed, whatever its scores are; "" where translations differ as images do.

    Args:
        outputs: translations, in [0, 1].
        inputs: the images that were translated.

    Example:
        >>> images = np.random.default_rng(0).uniform(size=(4, 8, 8, 3))
        >>> collapse(images, images), collapse(images[:1].repeat(4, 0), images)
        ('', 'all translations are the same image')
    """
    outputs, inputs = np.asarray(outputs), np.asarray(inputs)
    within = np.median(outputs.std((1, 2)).max(-1))  # of a single translation
    across, expected = (np.mean(images.std(0)) for images in (outputs, inputs))
    if within < _FLAT:
        mean = ", ".join(f"{value:.2f}" for value in outputs.mean((0, 1, 2)))
        return f"at least half of the translations are images of one color (mean RGB {mean})"
    if across < _FLAT * expected:
        return "all translations are the same image"
    return ""


def cycle_scores(translate: Callable[..., Any], images: _Images, direction: str) -> dict[str, float]:
    """Returns the mean cycle error, and how many times each disturbance of the translation enlarges it.

    The factors are those of the mean errors.

    Args:
        translate: `translate(images, direction=...)`.
        images: of the domain that is translated from, in [0, 1].
        direction: "ab" or "ba".
    """
    back = {"ab": "ba", "ba": "ab"}[direction]
    there_fn, back_fn = (functools.partial(translate, direction=d) for d in (direction, back))

    def errors(images):
        return hidden_channel_errors(jax.random.key(0), there_fn, back_fn, images)

    found = in_batches(errors, np.asarray(images))
    found = {name: jnp.mean(values, keepdims=True) for name, values in found.items()}
    ratios = {name: float(ratio[0]) for name, ratio in hidden_channel_ratios(found).items()}
    return {"cycle error": float(found["clean"][0])} | ratios


def kept_scores(images: _Images, outputs: _Images) -> dict[str, tuple[float, float]]:
    """Returns how far images and their translations are apart, and how far those of others are: two means.

    Where both are alike, nothing of the kind was kept. The distances are the similarity losses: of colors
    (S1), of tilt and size (S8), and of the shift of the middle (S9).

    Args:
        images: what was translated, in [0, 1], two or more.
        outputs: the translations.

    Example:
        >>> images = np.zeros((3, 16, 16, 3)) + np.arange(3)[:, None, None, None] / 4
        >>> images[:, 4:9, 5:9] = [0.9, 0.1, 0.5]
        >>> own, others = kept_scores(images, images)["color"]
        >>> own, others >= 0
        (0.0, True)
    """
    images, outputs = np.asarray(images), np.asarray(outputs)
    distances = {"color": color_distance, "tilt and size": pose_distance, "middle": offset_distance}
    found = {}
    for name, distance in distances.items():
        own, others = (
            in_batches(jax.jit(distance), images, made) for made in (outputs, np.roll(outputs, 1, axis=0))
        )
        found[name] = (float(np.mean(own)), float(np.mean(others)))
    return found
