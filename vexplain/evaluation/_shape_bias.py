"""Shape or texture: which cue decides, on images whose shape is of one class and whose texture of another.

    shape bias = decisions for the shape / (decisions for the shape + decisions for the texture)

over the images whose two cues are of different classes. The ratio alone says little: a network that is right
about one image in a hundred by either cue has one too. So it comes with the share of images that were decided
by either cue, and with both accuracies.

The interval is Wilson's, of a proportion of independent decisions. A percentile bootstrap of the same images
would be a point where all were decided by one cue, at 0 and 1, where networks that use one cue are. Images
that share an object or a texture, as the published ones do, and several observers of the same images, are not
independent: their interval is too narrow.

References:
    Geirhos, Rubisch, Michaelis, Bethge, Wichmann, Brendel, ImageNet-trained CNNs are biased towards texture;
    increasing shape bias improves accuracy and robustness, ICLR 2019.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._text import aligned, html_table
from vexplain.evaluation.comparison import wilson_interval
from vexplain.typing import ApplyFn, Array, Batch, Float, Int, Logits, Variables

Categories = Mapping[str, Sequence[int]]
_HEADER = ("category", "shape bias", "interval", "by either cue", "by shape", "by texture", "images")


class DecisionCounts(NamedTuple):
    """Sums over images whose shape and texture are of different categories, by the category of the shape."""

    images: Int[Array | np.ndarray, " categories"]
    by_shape: Int[Array | np.ndarray, " categories"]  # decided for the category of the shape
    by_texture: Int[Array | np.ndarray, " categories"]
    num_not_finite: Int[Array | np.ndarray, ""]  # images whose logits hold NaN or infinity


@dataclasses.dataclass(frozen=True)
class ShapeBias:
    """Decisions on images whose cues are in conflict; `print` shows them as a table.

    Attributes:
        num_images: whose shape and texture are of different categories.
        num_by_shape: of them, decided for the category of the shape.
        num_by_texture: of them, decided for the category of the texture.
        coverage: of the interval.
        categories: the same for the images of each category of the shape, by its name.
    """

    num_images: int
    num_by_shape: int
    num_by_texture: int
    coverage: float = 0.95
    categories: "Mapping[str, ShapeBias]" = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        wilson_interval(0, 1, coverage=self.coverage)  # a wrong coverage raises

    @property
    def bias(self) -> float:
        """Decisions for the shape among those for either cue, in [0, 1]; NaN where there is none."""
        return _share(self.num_by_shape, self._num_decided)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's interval of the bias, (low, high); NaN where there is no decision for either cue."""
        low, high = wilson_interval(self.num_by_shape, self._num_decided, coverage=self.coverage)
        return float(low), float(high)

    @property
    def decided(self) -> float:
        """The share of images that were decided for either cue, in [0, 1]; NaN where there is no image."""
        return _share(self._num_decided, self.num_images)

    @property
    def shape_accuracy(self) -> float:
        """The share of images that were decided for the shape, in [0, 1]."""
        return _share(self.num_by_shape, self.num_images)

    @property
    def texture_accuracy(self) -> float:
        """The share of images that were decided for the texture, in [0, 1]."""
        return _share(self.num_by_texture, self.num_images)

    @property
    def _num_decided(self) -> int:
        return self.num_by_shape + self.num_by_texture

    def __repr__(self) -> str:
        return "\n".join([aligned(_HEADER, self._rows()), *self._warning()])

    def _repr_html_(self) -> str:
        return html_table(_HEADER, self._rows(), caption=" ".join(self._warning()))

    def _rows(self) -> list[list[str]]:
        return [_row("all", self), *(_row(name, part) for name, part in self.categories.items())]

    def _warning(self) -> list[str]:
        if self._num_decided:
            return []
        return [f"The bias is not defined: none of {self.num_images} images was decided by either cue."]


def shape_bias(
    decisions: Any,
    *,
    shapes: Any = None,
    textures: Any = None,
    class_names: Sequence[str] | None = None,
    coverage: float = 0.95,
) -> ShapeBias:
    """Returns how often the shape decides where shape and texture are of different categories.

    Images whose cues are of the same category are left out. Where no image was decided for either cue, the
    bias is NaN, and the table says so.

    Args:
        decisions: the category that was decided for in each image, (n,): integers, -1 for none of them; or
            names, where any other name is none of them. Or `DecisionCounts`, from a network by
            `decision_counts`.
        shapes: the category of the shape of each image, (n,), integers or names; none with `DecisionCounts`.
        textures: the category of the texture of each.
        class_names: of the categories, in order; their numbers if left out, or the names of the shapes.
        coverage: of the intervals, in (0, 1).

    Raises:
        ValueError: arrays of different lengths or without an image, categories that there are not, or logits
            of a network that are not finite.

    References:
        Geirhos et al., ICLR 2019, Figure 4; its authors' data gives 25.31 % for AlexNet, 95.87 % for people.

    Example:
        >>> shapes, textures = ["cat", "cat", "dog", "dog"], ["dog", "dog", "cat", "dog"]
        >>> found = shape_bias(["cat", "dog", "car", "dog"], shapes=shapes, textures=textures)
        >>> found.bias, found.num_images, round(found.decided, 2)
        (0.5, 3, 0.67)
    """
    if isinstance(decisions, DecisionCounts):
        if shapes is not None or textures is not None:
            raise ValueError("shapes and textures are given beside DecisionCounts, which hold them already")
        counts = DecisionCounts(*(np.asarray(leaf) for leaf in jax.device_get(decisions)))
        names = _names(class_names, len(counts.images))
        if len(names) > len(counts.images):
            raise ValueError(
                f"class_names has {len(names)} names: expected {len(counts.images)}, one a category"
            )
    else:
        counts, names = _counted(decisions, shapes, textures, class_names)
    if bad := int(counts.num_not_finite):
        raise ValueError(
            f"decisions: the logits of {bad} images hold NaN or infinite values; mend the network"
        )
    if not counts.images.sum():
        raise ValueError(
            "decisions: no image has a shape of one category and a texture of another; expected images whose "
            "cues are in conflict"
        )
    columns = [counts.images, counts.by_shape, counts.by_texture]
    rows = np.stack(columns, axis=1).tolist()
    parts = {name: ShapeBias(*row, coverage=coverage) for name, row in zip(names, rows, strict=True)}
    return ShapeBias(*(int(column.sum()) for column in columns), coverage=coverage, categories=parts)


def decision_counts(
    apply: ApplyFn, categories: int | Categories
) -> tuple[Callable[[], DecisionCounts], Callable[[DecisionCounts, Batch, Variables], DecisionCounts]]:
    """Returns the pair (init, update) that counts the decisions of a network, for `streaming.fold_epoch`.

    Batches have "images", "shapes" and "textures" (batch,), categories by their number, and optionally
    "weights" (0 = padding).

    Args:
        categories: how many there are, where they are the classes of the network; or for a network of finer
            classes, the classes of each by name, as `datasets.imagenet_categories()` has them: the decision
            is then the largest of the `category_probabilities`.

    Example:
        >>> init, update = decision_counts(lambda variables, images: images.mean((1, 2)), 3)
        >>> images = jnp.eye(3)[:, None, None]  # one pixel each: decided for 0, 1, 2
        >>> batch = {"images": images, "shapes": jnp.array([0, 0, 0]), "textures": jnp.array([2, 1, 1])}
        >>> found = shape_bias(update(init(), batch, None))
        >>> found.num_by_shape, found.num_by_texture, found.num_images
        (1, 1, 3)
    """
    num_categories = categories if isinstance(categories, int) else len(categories)
    if num_categories < 2:
        raise ValueError(f"categories has {num_categories}: expected 2 or more")

    def init() -> DecisionCounts:
        zeros = jnp.zeros(num_categories, jnp.int32)
        return DecisionCounts(zeros, zeros, zeros, jnp.zeros((), jnp.int32))

    def update(state: DecisionCounts, batch: Batch, variables: Variables) -> DecisionCounts:
        logits = jnp.asarray(apply(variables, batch["images"]))
        shapes, textures = (jnp.asarray(batch[name]) for name in ("shapes", "textures"))
        counts = jnp.asarray(batch.get("weights", jnp.ones(len(logits)))) > 0
        is_finite = jnp.isfinite(logits).all(-1)
        decisions = _scores(logits, categories).argmax(-1)
        counts &= shapes != textures

        def added(before: Any, where: Array) -> Array:
            return before.at[shapes].add((counts & where).astype(before.dtype))

        return DecisionCounts(
            added(state.images, counts),
            added(state.by_shape, decisions == shapes),
            added(state.by_texture, decisions == textures),
            state.num_not_finite + (counts & ~is_finite).sum(),
        )

    return init, update


def category_probabilities(
    logits: Float[Array | np.ndarray, "batch classes"], categories: Categories
) -> Float[Array, "batch categories"]:
    """Returns the mean probability of the classes of each category.

        P_c = (1/|c|) Σ_{k in c} softmax(logits)_k

    The mean, not the sum: a category of 100 classes is no likelier than one of two. The probabilities of
    categories do not sum to 1.

    Args:
        logits: of a network of finer classes.
        categories: the classes of each by name, as `datasets.imagenet_categories()` has them.

    Raises:
        ValueError: a category without a class, a class that the network does not have, or one in two.

    References:
        Geirhos et al., Generalisation in humans and deep neural networks, NeurIPS 2018, appendix (why the
        mean).

    Example:
        >>> print(category_probabilities(jnp.log(jnp.array([[0.5, 0.3, 0.2]])), {"a": [0, 2], "b": [1]}))
        [[0.35 0.3 ]]
    """
    num_classes = logits.shape[-1]
    members = [np.asarray(list(classes), np.int64) for classes in categories.values()]
    for name, classes in zip(categories, members, strict=True):
        if not classes.size or not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError(
                f"categories: {name!r} has the classes {classes.tolist()}: expected one or more of 0 to "
                f"{num_classes - 1}, the classes of the network"
            )
    every = np.concatenate(members)
    if len(np.unique(every)) < len(every):
        raise ValueError("categories share a class: expected each class in one category")
    means = np.zeros((num_classes, len(members)), np.float32)
    for place, classes in enumerate(members):
        means[classes, place] = 1 / len(classes)
    return jnp.matmul(jax.nn.softmax(jnp.asarray(logits)), means, precision="highest")


def _scores(logits: Logits, categories: int | Categories) -> Array:
    if not isinstance(categories, int):
        return category_probabilities(logits, categories)
    if logits.shape[-1] != categories:
        raise ValueError(
            f"categories is {categories}, and the network has {logits.shape[-1]} classes: pass the classes "
            "of each category, as datasets.imagenet_categories() has them for ImageNet"
        )
    return logits


def _counted(
    decisions: Any, shapes: Any, textures: Any, class_names: Sequence[str] | None
) -> tuple[DecisionCounts, Sequence[str]]:
    if shapes is None or textures is None:
        raise ValueError("shapes and textures are needed: the categories of both cues of each image")
    given = {"decisions": decisions, "shapes": shapes, "textures": textures}
    arrays = {name: np.asarray(values) for name, values in given.items()}
    lengths = {name: array.shape for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or arrays["shapes"].ndim != 1:
        raise ValueError(
            f"decisions, shapes and textures have the shapes {lengths}: expected one entry an image"
        )
    if arrays["shapes"].dtype.kind in "UO":
        if arrays["decisions"].dtype.kind not in "UO":
            raise ValueError("decisions are no names, but shapes are: expected names, or integers, for all")
        known = list(class_names or sorted({*arrays["shapes"].tolist(), *arrays["textures"].tolist()}))
        places = {name: place for place, name in enumerate(known)}
        arrays = {n: np.array([places.get(v, -1) for v in a.tolist()]) for n, a in arrays.items()}
    else:
        largest = max((int(a.max()) for a in arrays.values() if a.size and a.dtype.kind in "iu"), default=0)
        known = _names(class_names, largest + 1)
    for name, array in arrays.items():
        lowest = -1 if name == "decisions" else 0
        if array.dtype.kind not in "iu" or (
            array.size and not lowest <= array.min() <= array.max() < len(known)
        ):
            raise ValueError(
                f"{name} has entries that are no category: expected integers from {lowest} to "
                f"{len(known) - 1}, or names of class_names"
            )
    found, shape, texture = arrays.values()
    in_conflict = shape != texture

    def counted(where: np.ndarray) -> np.ndarray:
        return np.bincount(shape[in_conflict & where], minlength=len(known))

    is_shape, is_texture = found == shape, found == texture
    return DecisionCounts(
        counted(in_conflict), counted(is_shape), counted(is_texture), np.zeros((), np.int64)
    ), known


def _names(class_names: Sequence[str] | None, count: int) -> Sequence[str]:
    if class_names is None:
        return [str(n) for n in range(count)]
    if len(class_names) < count:
        raise ValueError(f"class_names has {len(class_names)} names: expected {count}, one a category")
    return class_names


def _share(count: int, total: int) -> float:
    return count / total if total else float("nan")


def _row(name: str, part: ShapeBias) -> list[str]:
    shares = (part.decided, part.shape_accuracy, part.texture_accuracy)
    low, high = part.interval
    bias = ["none decided", ""] if np.isnan(part.bias) else [f"{part.bias:.1%}", f"{low:.1%} – {high:.1%}"]
    return [name, *bias, *("" if np.isnan(s) else f"{s:.1%}" for s in shares), str(part.num_images)]
