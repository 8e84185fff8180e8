"""What is explained: functions `score(outputs, targets) -> (batch,)` of what a network returns.

Any such function serves, without registration: of a head of a tuple or dict, of a segmentation, of an
embedding. The ones here take class scores, (batch, classes), and the classes to explain, (batch,) integers.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vexplain.typing import AnyArray, Array, Float, Shaped

Score = Callable[[Any, Any], Float[Array, " batch"]]


def logit(outputs: Any, targets: Any) -> Float[Array, " batch"]:
    """Returns the output of each target class; NaN, with its derivative, for a target that is no class.

    Args:
        outputs: (batch, classes), two classes or more.
        targets: (batch,) integers.

    Raises:
        ValueError: the outputs have another form, or targets were left out where there are none to predict.

    Example:
        >>> print(logit(jnp.array([[1.0, 2.0], [3.0, 5.0]]), jnp.array([0, 1])))
        [1. 5.]
    """
    num_classes = class_outputs(outputs).shape[1]
    found = jnp.take_along_axis(outputs, targets[:, None], axis=1, mode="clip")[:, 0]
    return found * _one_of(targets, num_classes)


def probability(outputs: Any, targets: Any) -> Float[Array, " batch"]:
    """Returns the softmax probability of each target class.

    Args:
        outputs: (batch, classes), two classes or more.
        targets: (batch,) integers.

    Raises:
        ValueError: the outputs have another form.

    Example:
        >>> print(probability(jnp.zeros((1, 4)), jnp.array([2])))
        [0.25]
    """
    return logit(jax.nn.softmax(class_outputs(outputs)), targets)


def margin(outputs: Any, targets: Any) -> Float[Array, " batch"]:
    """Returns the output of each target class less the mean of the others.

    Args:
        outputs: (batch, classes), two classes or more.
        targets: (batch,) integers.

    Raises:
        ValueError: the outputs have another form.

    Example:
        >>> print(margin(jnp.array([[1.0, 2.0, 6.0]]), jnp.array([2])))
        [4.5]
    """
    own = logit(outputs, targets)
    return own - (outputs.sum(1) - own) / (outputs.shape[1] - 1)


def against(other: int | Sequence[int] | Shaped[Any, " batch"]) -> Score:
    """Returns the score: the output of each target class less that of another class.

    Args:
        other: the class that it is held against, an integer or (batch,) of them.

    Raises:
        ValueError: it is no integer, or negative.

    Example:
        >>> print(against(0)(jnp.array([[1.0, 2.0, 6.0]]), jnp.array([2])))
        [5.]
    """
    if not isinstance(other, Tracer):
        classes = np.asarray(other)
        if classes.dtype.kind not in "iu" or classes.ndim > 1 or (classes < 0).any():
            raise ValueError(
                f"other is {other!r}: expected a class, an integer from 0 on, or one an image, (batch,)"
            )
    return _Against(other)


def similarity(vector: AnyArray) -> Score:
    """Returns the score: the cosine of the angle between the output of each image and a vector, in [-1, 1].

    It explains encoders without classes: what of an image makes it similar to a text, or to another image. A
    row of zeros is similar to nothing, 0. Targets are not looked at.

    Args:
        vector: the embedding to compare with, (size,), or one an image, (batch, size).

    Example:
        >>> print(similarity(jnp.array([1.0, 0.0]))(jnp.array([[3.0, 4.0], [-2.0, 0.0]]), None))
        [ 0.6 -1. ]
    """
    if np.ndim(vector) not in (1, 2):
        raise ValueError(f"vector has shape {np.shape(vector)}: expected (size,), or (batch, size)")
    return _Similarity(vector)


def binary(outputs: Any, targets: Any) -> Float[Array, " batch"]:
    """Returns the one output of a network of two classes for class 1, and its negative for class 0.

    Args:
        outputs: (batch,) or (batch, 1), positive for class 1.
        targets: (batch,) of 0 and 1.

    Raises:
        ValueError: the outputs have another form.

    Example:
        >>> print(binary(jnp.array([3.0, 4.0]), jnp.array([1, 0])))
        [ 3. -4.]
    """
    return jnp.where(targets == 1, 1, -1) * _one_output(outputs) * _one_of(targets, 2)


def class_outputs(outputs: Any) -> Any:
    """Returns the outputs, once they are known to be class scores.

    Raises:
        ValueError: they are something else than one array (batch, classes) of two classes or more.
    """
    shape = getattr(outputs, "shape", None)
    if shape is not None and len(shape) == 2 and shape[1] > 1:
        return outputs
    if _is_one_an_image(outputs):
        raise ValueError(
            f"apply returned shape {shape}, one output an image: expected (batch, classes); for a network of "
            "two classes with one logit pass score=vexplain.binary, else a score of your own"
        )
    raise ValueError(
        f"apply returned {_described(outputs)}: expected (batch, classes); say what is to be explained by "
        f"score=lambda outputs, targets: {_advice(outputs)}"
    )


def num_classes_of(score: Score, outputs: Any) -> int | None:
    """Returns how many classes the targets of a score count; `None` where they may be anything."""
    if score is binary:
        return 2
    if score in (logit, probability, margin) or isinstance(score, _Against):
        return class_outputs(outputs).shape[1]
    return None


def check_score(score: Score, outputs: Any) -> None:
    """Raises ValueError where a score holds the target against what is no class of the network."""
    if isinstance(score, _Against) and not isinstance(score.other, Tracer):
        num_classes, others = class_outputs(outputs).shape[1], np.asarray(score.other)
        if (others >= num_classes).any():
            raise ValueError(f"score is against({score.other}): expected a class from 0 to {num_classes - 1}")


def predicted_targets(score: Score, outputs: Any) -> Any:
    """Returns the predicted classes where the outputs are class scores; else `None`: no targets.

    Args:
        score: what is explained.
        outputs: of the network.
    """
    if score is binary:
        return (_one_output(outputs) > 0).astype(jnp.int32)
    shape = getattr(outputs, "shape", ())
    if num_classes_of(score, outputs) is None and (len(shape) != 2 or shape[1] < 2):
        return None
    return outputs.argmax(-1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Against:
    other: Any

    def __call__(self, outputs: Any, targets: Any) -> Float[Array, " batch"]:
        if np.shape(self.other) not in ((), targets.shape):
            raise ValueError(
                f"other has shape {np.shape(self.other)}: expected one class, or one for each of the "
                f"{len(targets)} images"
            )
        others = jnp.broadcast_to(jnp.asarray(self.other), targets.shape)
        return logit(outputs, targets) - logit(outputs, others)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Similarity:
    vector: Any

    def __call__(self, outputs: Any, targets: Any) -> Float[Array, " batch"]:
        shape, size = getattr(outputs, "shape", None), np.shape(self.vector)
        if shape is None or len(shape) != 2 or shape[1] != size[-1] or size[:-1] not in ((), shape[:1]):
            raise ValueError(
                f"apply returned {_described(outputs)}, and vector has shape {size}: similarity is for "
                "embeddings (batch, size) and a vector (size,), or one an image, (batch, size)"
            )
        return (_unit(outputs) * _unit(jnp.asarray(self.vector))).sum(-1)


def _one_of(targets: Any, num_classes: int) -> Any:
    """1, or NaN for what is no class: as a factor it spoils the derivative too, where targets are traced."""
    return jnp.where((targets >= 0) & (targets < num_classes), 1.0, jnp.nan)


def _unit(vectors: Any) -> Any:
    """Of length one; zeros, and their derivative, stay zero."""
    is_zero = (vectors == 0).all(-1, keepdims=True)
    safe = jnp.where(is_zero, 1, vectors)
    return jnp.where(is_zero, 0, safe / jnp.linalg.norm(safe, axis=-1, keepdims=True))


def _one_output(outputs: Any) -> Float[Array, " batch"]:
    if not _is_one_an_image(outputs):
        raise ValueError(
            f"apply returned {_described(outputs)}: score=binary is for one output an image, (batch,) or "
            "(batch, 1); for class scores pass score=vexplain.logit"
        )
    return outputs.reshape(len(outputs))


def _is_one_an_image(outputs: Any) -> bool:
    shape = getattr(outputs, "shape", None)
    return shape is not None and (len(shape) == 1 or shape[1:] == (1,))


def _described(outputs: Any) -> str:
    if hasattr(outputs, "shape"):
        return f"shape {outputs.shape}"
    if isinstance(outputs, dict):
        return f"a dict of {sorted(outputs)}"
    return f"a {type(outputs).__name__}" + (
        f" of {len(outputs)}" if isinstance(outputs, tuple | list) else ""
    )


def _advice(outputs: Any) -> str:
    if isinstance(outputs, dict):
        return f"vexplain.logit(outputs[{next(iter(outputs), 'name')!r}], targets)"
    if isinstance(outputs, tuple | list):
        return "vexplain.logit(outputs[0], targets)"
    return "outputs[..., 0].mean((1, 2)), or what it is"
