"""One way to call every method: checked, and compiled once for a network, its options and image size.

A method is written as a plain function `(network, images, targets, *, <its own options>)` of arrays that may
be traced. `attribution_method` makes of it what users call. With concrete arguments the images, targets and
outputs are checked, and the method is compiled once; other images, weights of the same shapes and other
targets compile nothing. A batch of another size goes through a program that exists where that costs little:
filled up, or in parts. With traced arguments, inside `jit`, `vmap` or `grad` of the caller, the function is
called as it is.
"""

import collections
import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Protocol, overload, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vexplain._checks import as_classes, check_image_form, check_range
from vexplain._keeping import Store, avals, identity, kept
from vexplain.attribution.scores import Score, check_score, logit, num_classes_of, predicted_targets
from vexplain.transforms import Rule, Rules, with_rules

_Before = Callable[[dict[str, Any]], dict[str, Any]]

_MAX_PARTS = 8  # of a batch that is larger than what was compiled
_MAX_FILL = 8  # times as many images as asked for, of a batch that is smaller


class Network(NamedTuple):
    """What a method looks at: a network, its variables, and the score of its outputs."""

    apply: Any
    variables: Any
    score: Any

    def scores(self, images: Any, targets: Any) -> Any:
        """The score of each image, (batch,)."""
        return self.score(_traced_once(self.apply)(self.variables, images), targets)

    def gradient(self, images: Any, targets: Any) -> Any:
        """∂ Σ scores / ∂ images."""
        return jax.grad(lambda x: self.scores(x, targets).sum())(images)

    def with_rules(self, rules: Rule | Rules, **options: Any) -> "Network":
        """The same with other backward rules, see `transforms.with_rules`."""
        return self._replace(apply=with_rules(self.apply, rules, **options))


@runtime_checkable
class Method(Protocol):
    """The signature of all methods; `inspect.signature` and `help` show the options of each."""

    __name__: str

    def __call__(
        self,
        apply: Any,
        variables: Any,
        images: Any,
        targets: Any = None,
        *,
        score: Score = logit,
        key: Any = None,
        **options: Any,
    ) -> Any: ...


@overload
def attribution_method(function: Callable[..., Any]) -> Method: ...
@overload
def attribution_method(
    *, before: _Before | None = None, after: Callable[..., None] | None = None
) -> Callable[[Callable[..., Any]], Method]: ...
def attribution_method(
    function: Callable[..., Any] | None = None,
    *,
    before: _Before | None = None,
    after: Callable[..., None] | None = None,
) -> Any:
    """Returns the method that users call, `method(apply, variables, images, targets=None, *, score, key)`.

    Args:
        function: takes, by these names, what it needs of `network` (a `Network`), `images`, `targets` (an
            array, (batch,) classes unless the score takes something else), and `key` (one an image; a call
            without a key is an error then), and options of its own, keyword-only. What it returns has a
            leading batch axis in every array, and depends on no other image of the batch.
        before: `before(options)` returns what the function gets of the options that were given; arrays among
            them have values unless the caller traces them.
        after: `after(targets, **options)` may raise, once the targets are known; not within a trace.

    Example:
        >>> @attribution_method
        ... def saliency(network, images, targets):
        ...     return abs(network.gradient(images, targets))
        >>> apply = lambda variables, images: images.mean((1, 2)) @ variables
        >>> print(saliency(apply, -jnp.eye(2), np.array([[[[0.5, 1.0]]]])))
        [[[[1. 0.]]]]
    """
    made = functools.partial(_method, before=before, after=after)
    return made if function is None else made(function)


def _method(
    function: Callable[..., Any], before: _Before | None, after: Callable[..., None] | None
) -> Method:
    parameters = inspect.signature(function).parameters
    needs = frozenset(parameters) & {"network", "images", "targets", "key"}

    @functools.wraps(function)
    def method(apply, variables, images, targets=None, *, score=logit, key=None, **options):
        check_image_form(images)
        key = checked_key(function.__name__, key, "key" in needs, len(images))
        options = options if before is None else before(options)
        call = _Call(function, needs, apply, score, options)
        given = (apply, variables, images, targets, score, key, options)
        if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
            return call.traced(variables, images, targets, key, np.arange(len(images)))[0]
        result, targets = _run(call, variables, images, targets, key)
        if after is not None:
            after(np.asarray(targets), **options)
        return result

    shared = list(inspect.signature(Method.__call__).parameters.values())[1:-1]
    own = [parameter for name, parameter in parameters.items() if name not in needs]
    signature = inspect.Signature(
        [*shared, *own], return_annotation=inspect.signature(function).return_annotation
    )
    method.__signature__ = signature  # type: ignore[attr-defined]
    return method


class _Call(NamedTuple):
    """A method with everything that is not an array of its images."""

    function: Callable[..., Any]
    needs: frozenset[str]
    apply: Any
    score: Any
    options: dict[str, Any]

    @property
    def sees_network(self) -> bool:
        return "network" in self.needs

    def traced(self, variables: Any, images: Any, targets: Any, key: Any, positions: Any) -> tuple[Any, Any]:
        """What the function returns, and the targets; these and the key are brought into its form."""
        images = jnp.asarray(images)
        if self.sees_network:
            if targets is None:
                targets = predicted_targets(self.score, _traced_once(self.apply)(variables, images))
            else:
                outputs = jax.eval_shape(_traced_once(self.apply), variables, images)
                targets = _as_targets(self.score, targets, len(images), outputs)
        if key is not None and key.ndim == 0:
            key = jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.asarray(positions))
        network = Network(self.apply, variables, self.score)
        given = {"network": network, "images": images, "targets": targets, "key": key}
        return self.function(**{name: given[name] for name in self.needs}, **self.options), targets


def _traced_once(apply: Callable[..., Any]) -> Callable[..., Any]:
    """The network as a function that JAX traces once for its shapes, as the transformations do."""
    try:
        hash(apply)
    except TypeError:
        return apply
    return jax.jit(apply)


class _Found(NamedTuple):
    """What a program says of each image beside the result: (batch,) each."""

    low: Any
    high: Any
    is_finite: Any
    has_outputs: Any  # none of them NaN
    has_score: Any  # finite


class _Program:
    """A compiled call, and for which batch sizes there is one."""

    def __init__(self, treedef: Any, statics: list[Any]):
        self.sizes: dict[Hashable, list[int]] = collections.defaultdict(list)
        self.mixes: dict[Hashable, bool] = {}  # whether an image changes the result of another

        def program(arrays, variables, images, targets, key, positions):
            leaves = [s if a is None else a for s, a in zip(statics, arrays, strict=True)]
            call = _Call(*jax.tree.unflatten(treedef, leaves))
            result = call.traced(variables, images, targets, key, positions)
            return result, _found(call, variables, images, targets)

        self.compiled = jax.jit(program)

    def size_for(self, kind: Hashable, count: int) -> int:
        """The batch size to run this many images at: one that is compiled, unless that is wasteful."""
        if self.mixes.get(kind):
            return count
        fitting = [
            size
            for size in self.sizes[kind]
            if size == count
            or (size > count and size <= _MAX_FILL * count)
            or (1 < size < count <= _MAX_PARTS * size)
        ]
        if fitting:
            return min(fitting, key=lambda size: -(-count // size) * size)
        self.sizes[kind].append(count)
        return count


_PROGRAMS: Store = collections.OrderedDict()
_OUTPUTS: Store = collections.OrderedDict()


def _run(call: _Call, variables: Any, images: Any, targets: Any, key: Any) -> Any:
    count = len(images)
    if not count:
        raise ValueError(f"images has shape {images.shape}: it holds no image to explain")
    outputs = _outputs(call, variables, images) if call.sees_network else None
    targets = _as_targets(call.score, targets, count, outputs) if call.sees_network else None
    leaves, treedef = jax.tree.flatten(tuple(call))
    arrays = [leaf if isinstance(leaf, np.ndarray | jax.Array) else None for leaf in leaves]
    statics = [None if a is not None else leaf for a, leaf in zip(arrays, leaves, strict=True)]
    name = (identity(treedef), *map(identity, statics))
    program = kept(_PROGRAMS, name, lambda: _Program(treedef, statics))
    kind = (*avals((arrays, variables)), images.shape[1:], *avals((targets, key), 1))
    if isinstance(images, np.ndarray) and kind not in program.sizes:  # before anything is compiled
        check_range(
            "images", float(images.min()), float(images.max()), is_finite=bool(np.isfinite(images).all())
        )
    is_split = isinstance(images, jax.Array) and len(images.sharding.device_set) > 1
    size = count if is_split else program.size_for(kind, count)
    rest, examples = (arrays, variables), (images, targets, key, np.arange(count, dtype=np.int32))
    if size == count:
        result, found = program.compiled(*rest, *examples)
    else:
        if kind not in program.mixes:
            program.mixes[kind] = _mixes(program, rest, examples, size)
            if program.mixes[kind]:
                return _run(call, variables, images, targets, key)
        result, found = _in_parts(program, rest, examples, size)
    _check_found(_Found(*map(np.asarray, found)), sees_network=call.sees_network)
    return result


def _in_parts(program: _Program, rest: Any, examples: Any, size: int) -> Any:
    """The results of a batch, at a batch size that is compiled; the last part is filled up."""
    count = len(examples[-1])
    parts = [
        program.compiled(*rest, *_rows(examples, np.arange(start, start + size) % count))
        for start in range(0, count, size)
    ]
    return jax.tree.map(lambda *leaves: jax.device_put(_joined(leaves, count)), *parts)


def _joined(leaves: Any, count: int) -> np.ndarray:
    return np.concatenate([np.asarray(leaf) for leaf in leaves])[:count]


def _mixes(program: _Program, rest: Any, examples: Any, size: int) -> bool:
    """Whether the results of some images change when others of their batch do, found by trial.

    A normalization over the batch does that. Then no batch may be filled up or parted.
    """
    count = len(examples[-1])
    given = _rows(examples, np.arange(size) % count)
    num_kept = min(count, size - 1)
    is_other = (np.arange(size) >= num_kept)[:, None, None, None]
    changed = (np.where(is_other, 1 - np.asarray(given[0]), given[0]), *given[1:])
    (first, _), (second, _) = (program.compiled(*rest, *batch) for batch in (given, changed))
    pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    return not all(_is_close(np.asarray(a)[:num_kept], np.asarray(b)[:num_kept]) for a, b in pairs)


def _is_close(first: np.ndarray, second: np.ndarray) -> bool:
    scale = float(np.nan_to_num(np.abs(first.astype(float))).max(initial=0))
    return np.allclose(first, second, rtol=1e-4, atol=1e-5 * scale, equal_nan=True)


def _rows(examples: Any, rows: np.ndarray) -> Any:
    images, targets, key, positions = examples
    key = key[rows] if key is not None and key.ndim else key
    return (
        np.asarray(images)[rows],
        jax.tree.map(lambda leaf: np.asarray(leaf)[rows], targets),
        key,
        positions[rows],
    )


def _found(call: _Call, variables: Any, images: Any, targets: Any) -> _Found:
    over_image = (1, 2, 3)
    low, high = images.min(over_image), images.max(over_image)
    is_finite = jnp.isfinite(images).all(over_image)
    fine = jnp.ones(len(images), bool)
    if not call.sees_network:
        return _Found(low, high, is_finite, fine, fine)
    # XLA finds this forward pass in the method's own and computes it once.
    outputs = _traced_once(call.apply)(variables, images)
    targets = predicted_targets(call.score, outputs) if targets is None else targets
    score = call.score(outputs, targets)
    if getattr(score, "shape", None) != (len(images),):
        raise ValueError(
            f"score returned {getattr(score, 'shape', type(score).__name__)}: expected one number an image, "
            f"({len(images)},)"
        )
    rows = [leaf for leaf in jax.tree.leaves(outputs) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    rows = [leaf.reshape(len(images), -1) for leaf in rows if leaf.shape[:1] == (len(images),)]
    has_outputs = functools.reduce(lambda ok, leaf: ok & ~jnp.isnan(leaf).any(1), rows, fine)
    return _Found(low, high, is_finite, has_outputs, jnp.isfinite(score))


def _check_found(found: _Found, *, sees_network: bool) -> None:
    check_range(
        "images", float(found.low.min()), float(found.high.max()), is_finite=bool(found.is_finite.all())
    )
    for is_fine, what in (
        (found.has_outputs, "apply returned NaN"),
        (found.has_score, "score is not finite"),
    ):
        if sees_network and not is_fine.all():
            raise ValueError(
                f"{what} for {(~is_fine).sum()} of {len(is_fine)} images, first for image "
                f"{int(is_fine.argmin())}: look for NaN in variables, or for a division by zero or a "
                "logarithm of 0 in the network"
            )


def _outputs(call: _Call, variables: Any, images: Any) -> Any:
    """The shapes that the network returns, from a trace that is made once."""
    leaves, treedef = jax.tree.flatten(call.apply)
    name = (identity(treedef), *map(identity, leaves), *avals(variables), images.shape[1:])
    shape = jax.ShapeDtypeStruct(images.shape, jax.dtypes.canonicalize_dtype(images.dtype))
    return kept(_OUTPUTS, name, lambda: jax.eval_shape(_traced_once(call.apply), variables, shape))


def _as_targets(score: Any, targets: Any, count: int, outputs: Any) -> Any:
    """Targets as arrays with a leading batch axis; left out, they stay so."""
    check_score(score, outputs)
    num_classes = num_classes_of(score, outputs)
    if targets is None:
        return None
    if num_classes is not None or isinstance(targets, int | list):
        return as_classes(targets, count, num_classes)
    for leaf in jax.tree.leaves(targets):
        if np.ndim(leaf) < 1 or len(leaf) != count:
            raise ValueError(
                f"targets has shape {np.shape(leaf)}: expected a leading axis of {count}, one row an image"
            )
    return jax.tree.map(lambda leaf: leaf if isinstance(leaf, jax.Array) else np.asarray(leaf), targets)


def checked_key(name: str, key: Any, is_needed: bool, count: int) -> Any:
    """Returns a key as an array of keys, (), or (count,) for one an image; `None` where none is needed.

    Args:
        name: of the function that draws, for errors.
        key: what a caller gave.
        is_needed: whether the function draws.
        count: of the images.

    Raises:
        ValueError: a key is needed and missing, it is no key, or there are others in number.
    """
    if key is None:
        if is_needed:
            raise ValueError(f"key is None: {name} draws at random; pass key=jax.random.key(0)")
        return None
    if not hasattr(key, "dtype"):
        raise ValueError(f"key is {key!r}: expected a random key, such as jax.random.key({key!r})")
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.shape not in ((), (count,)):
        raise ValueError(f"key has shape {key.shape}: expected one key, or one an image, ({count},)")
    return key
