"""A network with what was found in it, the images that it is scored on, and the heatmaps of many methods.

The relevant features belong to the explanation: when the weights of a network are changed, they are found
again. So what a check exchanges is both, arguments of one compiled program for the maps of all methods: a
dozen networks of the same shape cost one compilation.
"""

import collections
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vexplain._checks import as_classes, check_choice, check_images, check_positive
from vexplain._keeping import Store, identity, kept
from vexplain.attribution import Score, absolute_heatmaps, logit, normalize_heatmaps, positive_heatmaps
from vexplain.attribution.scores import predicted_targets
from vexplain.catalog import MethodFn, Methods, as_methods
from vexplain.datasets import Source
from vexplain.relevance import Relevance, learn_relevance
from vexplain.typing import ApplyFn, Array, Batch, Heatmaps, Images, Key, Shaped, Variables

SIGNS = ("positive part", "absolute value")  # of signed attributions, by which they are scored

_PROGRAMS: Store = collections.OrderedDict()


class ExplainedNetwork(NamedTuple):
    """The variables of a network and the features that are relevant in it, for methods that need them."""

    variables: Variables
    relevance: Any = None


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A network and images with masks, of any kind; `with_part_effects` adds a second truth.

    Attributes:
        name: in tables.
        apply: the network, `apply(variables, images) -> logits`.
        variables: its weights.
        relevance: its relevant features.
        train: the images that these were found on.
        test: the images that are explained; batches have "masks" of the truth, and where it is known
            "part_effects".
        accuracy: of the network on the test images, where it was measured.
    """

    name: str
    apply: ApplyFn
    variables: Variables
    relevance: Relevance
    train: Source
    test: Source
    accuracy: float | None = None

    @property
    def network(self) -> ExplainedNetwork:
        return ExplainedNetwork(self.variables, self.relevance)

    def relearn(self, variables: Variables) -> Relevance:
        """The relevant features of a changed network, by what it predicts: no truth comes in."""
        return learn_relevance(
            self.apply,
            variables,
            self.train,
            layers=self.relevance.layers,
            mu=float(self.relevance.mu),
            measure=self.relevance.measure,
            on_empty_class="leave_out",
        )


class Sample(NamedTuple):
    """The images that are explained, the class of each (`None`: the predicted one), and one key an image."""

    images: Images
    targets: Any  # (batch,) classes
    keys: Shaped[Array, " batch"]


HeatmapsFn = Callable[[ExplainedNetwork, Sample], dict[str, Heatmaps]]


def make_sample(
    apply: ApplyFn, network: ExplainedNetwork, batch: Batch, *, key: Key, targets: Any = None
) -> Sample:
    """Returns the images of a batch with their targets and keys.

    Args:
        network: its variables; the relevant features are not needed here.
        batch: "images", and optionally "indices": the key of an image follows from its index, whatever batch
            it is in.
    """
    check_images(batch["images"])
    images = jnp.asarray(batch["images"])
    if targets is None:
        targets = jax.jit(apply)(network.variables, images).argmax(-1)
    num_classes = jax.eval_shape(apply, network.variables, images).shape[-1]
    targets = jnp.asarray(as_classes(targets, len(images), num_classes))
    indices = jnp.asarray(batch.get("indices", np.arange(len(images))))
    return Sample(images, targets, jax.vmap(lambda n: jax.random.fold_in(key, n))(indices))


def attributions_of(
    apply: ApplyFn,
    methods: Mapping[str, MethodFn],
    network: ExplainedNetwork,
    sample: Sample,
    score: Score = logit,
) -> dict[str, Array]:
    """Returns what each method makes of the images, by name; to be traced.

    Args:
        methods: by name; one that takes a relevance is given that of the network, if it has none yet.
        network: variables and relevant features.
        sample: images, targets and keys.
        score: what is explained; methods of relevant features explain the class.
    """
    found, targets = {}, sample.targets
    if targets is None:
        targets = predicted_targets(score, apply(network.variables, sample.images))
    for name, method in methods.items():
        options: dict[str, Any] = {"score": score, "key": sample.keys}
        if _needs_relevance(method):
            options = {"key": sample.keys, "relevance": network.relevance}
        maps = method(apply, network.variables, sample.images, targets, **options)
        found[name] = _checked_maps(name, maps, sample.images)
    return found


def heatmaps_of(
    apply: ApplyFn,
    methods: Methods,
    *,
    score: Score = logit,
    signs: Mapping[str, str] | None = None,
    batch_size: int = 32,
) -> HeatmapsFn:
    """Returns the function `(network, sample) -> {method: heatmaps}`, one compiled program for all methods.

    Args:
        methods: as `as_methods` takes them.
        score: what is explained; methods of relevant features explain the class.
        signs: for methods that return signed attributions, the convention by which they are heatmaps,
            "positive part" or "absolute value"; the positive part for those not named.
        batch_size: how many images are explained at once; memory does not depend on their number.

    Returns:
        A function whose maps are in [0, 1]; a map with NaN or infinite values is zero everywhere.

    Example:
        >>> from vexplain.evaluation.explained_network import ExplainedNetwork, Sample
        >>> def brightness(apply, variables, images, targets=None, *, score=None, key=None):
        ...     return images.sum(-1)
        >>> heatmaps = heatmaps_of(lambda variables, images: images, brightness)
        >>> images = jnp.array([[[[0.5], [0.25], [0.0]]]])
        >>> sample = Sample(images, jnp.zeros(1, int), jax.random.split(jax.random.key(0), 1))
        >>> print(heatmaps(ExplainedNetwork(None), sample)["brightness"])
        [[[1.  0.5 0. ]]]
    """
    functions, chosen = as_methods(methods), dict(signs or {})
    check_signs(chosen, tuple(functions))
    options = (tuple(functions.items()), tuple(chosen.items()), score)
    name = (identity(apply), *map(identity, options))

    def make():
        @jax.jit
        def of_slice(network, sample):
            maps = attributions_of(apply, functions, network, sample, score)
            return {name: _finite_heatmaps(m, chosen.get(name, SIGNS[0])) for name, m in maps.items()}

        return of_slice

    of_slice = kept(_PROGRAMS, name, make)

    def of_sample(network: ExplainedNetwork, sample: Sample) -> dict[str, Heatmaps]:
        arrays = ExplainedNetwork(network.variables, jax.tree.map(jnp.asarray, network.relevance))
        found = in_slices(lambda part: of_slice(arrays, part), sample, batch_size)
        return {name: found[name] for name in functions}  # a compiled function returns dicts sorted by name

    return of_sample


def as_heatmaps(maps: Array, sign: str) -> Heatmaps:
    """Returns attributions as heatmaps in [0, 1]; heatmaps are shifted and scaled.

    Args:
        maps: (batch, height, width), or signed (batch, height, width, channels).
        sign: one of `SIGNS`, of signed ones.
    """
    if maps.ndim == 3:
        return normalize_heatmaps(maps)
    return positive_heatmaps(maps) if sign == SIGNS[0] else absolute_heatmaps(maps)


def in_slices(function: Callable[[Any], Any], arrays: Any, batch_size: int) -> Any:
    """Returns what a function makes of arrays with a leading batch axis, `batch_size` examples at a time.

    The last slice is filled up with the first examples, so that all slices have one shape.

    Example:
        >>> print(in_slices(lambda x: 2 * x, jnp.arange(5), 2))
        [0 2 4 6 8]
    """
    check_positive(batch_size=batch_size)
    count = len(jax.tree.leaves(arrays)[0])
    size = min(batch_size, count)
    parts = []
    for start in range(0, count, size):
        rows = np.arange(start, start + size) % count
        parts.append(function(jax.tree.map(lambda leaf, rows=rows: leaf[rows], arrays)))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:count], *parts)


def check_signs(signs: Mapping[str, str], names: Sequence[str]) -> None:
    """Raises ValueError for a sign convention of another name, or of a method that there is not."""
    for name, sign in signs.items():
        if name not in names:
            raise ValueError(f"signs: there is no method {name!r}; expected some of {list(names)}")
        check_choice(f"signs[{name!r}]", sign, SIGNS)


def with_relevance(method: MethodFn, network: ExplainedNetwork) -> MethodFn:
    """Returns the method, with the relevance of the network if it takes one and has none yet."""
    return functools.partial(method, relevance=network.relevance) if _needs_relevance(method) else method


def _needs_relevance(method: MethodFn) -> bool:
    """It takes one, and has none yet."""
    parameter = inspect.signature(method).parameters.get("relevance")
    return parameter is not None and parameter.default is parameter.empty


def _checked_maps(name: str, maps: Any, images: Images) -> Array:
    shape = getattr(maps, "shape", None)
    given = type(maps).__name__ if shape is None else f"shape {shape}"
    if shape is None or len(shape) not in (3, 4) or shape[:3] != images.shape[:3]:
        batch, height, width, _ = images.shape
        raise ValueError(
            f"methods[{name!r}] returned {given}: expected heatmaps ({batch}, {height}, {width}) or signed "
            f"attributions ({batch}, {height}, {width}, channels), of the size of the images"
        )
    return jnp.asarray(maps)


def _finite_heatmaps(maps: Array, sign: str) -> Heatmaps:
    is_finite = jnp.isfinite(maps).all(tuple(range(1, maps.ndim)))[:, None, None]
    return jnp.where(is_finite, as_heatmaps(maps, sign), 0)
