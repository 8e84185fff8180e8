"""The methods of a command line with their options, and the heatmaps of each as files.

A heatmap is a gray PNG of 8 bits that vouches for itself: see `sealed`. It depends on the network, the image,
the relevant features, the method and its options.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from vexplain import attribution
from vexplain.attribution import Score, logit, normalize_heatmaps, positive_heatmaps
from vexplain.catalog import METHODS, attribute
from vexplain.command.images import name_of
from vexplain.command.inputs import function_of
from vexplain.command.model import Model
from vexplain.command.names import AGAINST
from vexplain.command.sealed import is_sealed, write_sealed
from vexplain.datasets.batches import epoch_batches
from vexplain.datasets.sources import as_eight_bits, subset
from vexplain.relevance import Relevance, num_features
from vexplain.streaming import is_writer
from vexplain.streaming.devices import Mesh, shard_batch
from vexplain.transforms import LayerTable
from vexplain.transforms.fingerprint import program_fingerprint

RECIPE = "relevant_features"


class Chosen(NamedTuple):
    """A method of the catalog, as a command line has it."""

    name: str
    options: dict[str, Any]
    score: Score
    key: str  # all that its maps depend on beside the network, the images and their relevant features

    @property
    def needs_relevance(self) -> bool:
        return "relevance" in METHODS[self.name].needs

    @property
    def sees_network(self) -> bool:
        return METHODS[self.name].kind != "control"


def chosen_methods(
    arguments: Any, model: Model, table: LayerTable, class_names: tuple[str, ...]
) -> tuple[Chosen, ...]:
    """Returns the methods of a command line.

    Args:
        arguments: with `method`, `score`, `layer`, `grid`, `on_uncovered` and `multi_label`.
        class_names: one a class, by which a score may name one.

    Raises:
        ValueError: a layer or a score that does not exist, or that none of the methods has.
    """
    names = arguments.method
    layer = _layer(arguments, table)
    if layer is not None and not any("layer" in METHODS[name].options for name in names):
        raise ValueError(f"--layer is {arguments.layer!r}: none of {', '.join(names)} is a map of a layer")
    score, program = _score(arguments, model, class_names)
    explaining = [n for n in names if METHODS[n].kind != "control" and "relevance" not in METHODS[n].needs]
    if arguments.score != "logit" and not explaining:
        raise ValueError(
            f"--score is {arguments.score!r}: {', '.join(names)} do not explain a score; relevant features "
            "explain the class itself"
        )
    chosen = []
    for name in names:
        given = {"on_uncovered": arguments.on_uncovered, "layer": layer}
        options = {k: v for k, v in given.items() if k in METHODS[name].options and v is not None}
        described = {**options, "layer": (arguments.layer, arguments.grid)} if "layer" in options else options
        own = score if name in explaining else logit
        key = f"{name} {sorted(described.items())} {program if name in explaining else ''}"
        chosen.append(Chosen(name, options, own, key))
    return tuple(chosen)


def has_named_methods(arguments: Any) -> bool:
    """Returns whether the methods are those that a user asked for, or those that are customary."""
    return tuple(arguments.method) != METHODS.customary


def problems_of(
    methods: tuple[Chosen, ...], model: Model, searched: Sequence[Any], class_names: tuple[str, ...]
) -> dict[str, str]:
    """Returns, by name, why this network does not have a method: known before a pass over the images.

    A class activation map wants a layer with positions, rules want activation functions that they know.

    Args:
        methods: of the command line.
        model: the network.
        searched: the layers whose features may be relevant.
        class_names: one a class.
    """
    size = model.resizing.size
    images = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    layout = tuple((layer.name, layer.num_channels) for layer in searched)
    none = np.zeros((sum(count for _, count in layout), len(class_names)))
    relevance = Relevance(none, none[0], none[0], 1.0, layout, class_names)
    problems = {}
    for method in methods:
        own: dict[str, Any] = {"relevance": relevance} if method.needs_relevance else {}

        def maps(variables, images, method=method, own=own):
            targets, key = np.zeros(1, np.int32), jax.random.key(0)
            options = {"score": method.score, "key": key, **own, **method.options}
            return attribute(method.name, model.apply, variables, images, targets, **options)

        try:
            jax.eval_shape(maps, model.variables, images)
        except (ValueError, KeyError, TypeError) as error:
            problems[method.name] = f"{error}{_advice(error)}"
    return problems


def _advice(error: Exception) -> str:
    if "on_uncovered" in str(error):
        return "\n--on-uncovered gradient takes their ordinary gradient"
    return "\n--layer and --grid say which tokens have which place" if "with_grid" in str(error) else ""


def _layer(arguments: Any, table: LayerTable) -> Any:
    if arguments.layer is None:
        return None
    try:
        layer = table[arguments.layer]
        return layer if arguments.grid is None else layer.with_grid(arguments.grid)
    except KeyError as error:
        raise ValueError(f"--layer: {error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"--grid: {error}") from error


def _score(arguments: Any, model: Model, class_names: tuple[str, ...]) -> tuple[Score, str]:
    """The score, and what tells it from others."""
    name = arguments.score
    if name.startswith(AGAINST):
        other = name.removeprefix(AGAINST)
        numbers = {text: n for n, text in enumerate(class_names)}
        place = numbers.get(other, int(other) if other.isdecimal() else -1)
        if not 0 <= place < model.num_classes:
            raise ValueError(
                f"--score is {name!r}: {model.name} has no class {other!r}; expected one of "
                f"{', '.join(class_names[:5])}{', ...' if len(class_names) > 5 else ''} or a number below "
                f"{model.num_classes}"
            )
        return attribution.against(place), f"against {place}"
    if name == "probability" and arguments.multi_label:
        return label_probability, "sigmoid"
    if ":" not in name:
        return getattr(attribution, name), name
    function = function_of("--score", name)
    images = jax.ShapeDtypeStruct((2, model.resizing.size, model.resizing.size, 3), np.float32)
    shapes = (model.variables, images, jax.ShapeDtypeStruct((2,), np.int32))
    try:
        return function, program_fingerprint(lambda v, x, t: function(model.apply(v, x), t), shapes)
    except Exception as error:  # the user's own code
        raise ValueError(f"--score {name} failed: {type(error).__name__}: {error}") from error


def label_probability(outputs: Any, targets: Any) -> Any:
    """Returns the probability of each target label where the outputs are independent logits.

    Args:
        outputs: (batch, labels).
        targets: (batch,) integers.

    Example:
        >>> print(label_probability(jnp.array([[0.0, 9.0]]), jnp.array([0])))
        [0.5]
    """
    return jax.nn.sigmoid(logit(outputs, targets))


def save_heatmaps(
    arguments: Any, found: Any, methods: tuple[Chosen, ...], mesh: Mesh
) -> dict[int, dict[str, str]]:
    """Returns, by place of the image in the source and by method, the file that holds its heatmap.

    Files of an earlier run with the same digest are used again. The recipe's maps are those of the
    explanations, and are not made here. Of several processes each makes a share, and returns that.
    """
    files: dict[int, dict[str, str]] = {}
    has_features = num_features(found.relevance)[found.predictions.predicted] > 0
    shares = np.arange(len(has_features))[jax.process_index() :: jax.process_count()]
    for method in methods:
        if method.name == RECIPE:
            continue
        places = shares[has_features[shares]] if method.needs_relevance else shares
        kept = [n for n in places.tolist() if is_kept(arguments.out, found, method, n)]
        made = _made(arguments, found, method, np.setdiff1d(places, kept), mesh, len(kept))
        for place, heatmap in made:
            save_heatmap(arguments.out, found, method, place, heatmap)
            kept.append(place)
        for place in kept:
            files.setdefault(place, {})[method.name] = heatmap_file(found, method.name, place)
    return files


def heatmap_file(found: Any, name: str, place: int) -> str:
    """Returns where the heatmap of an image is, below the folder of results."""
    return f"heatmaps/{name}/{_file(found, place)}.png"


def save_heatmap(out: Path, found: Any, method: Chosen, place: int, heatmap: Any) -> None:
    """Writes a heatmap, (height, width) in [0, 1], with the digest of what it depends on."""
    path = out / heatmap_file(found, method.name, place)
    write_sealed(path, as_eight_bits(heatmap), _settings(found, method, place))


def is_kept(out: Path, found: Any, method: Chosen, place: int) -> bool:
    """Returns whether the heatmap of an image is there, whole, and of these settings."""
    return is_sealed(out / heatmap_file(found, method.name, place), _settings(found, method, place))


def _settings(found: Any, method: Chosen, place: int) -> str:
    return f"{found.fingerprint}\n{method.key}\n{_file(found, place)}"


def _file(found: Any, place: int) -> str:
    return name_of(Path(str(found.predictions.source.files[place])), found.folder.root)


def _made(
    arguments: Any, found: Any, method: Chosen, places: np.ndarray, mesh: Mesh, num_done: int
) -> Iterator[tuple[int, np.ndarray]]:
    """The heatmaps of images that can be read, in batches."""
    bar = {"desc": METHODS[method.name].title, "unit": "image", "disable": not is_writer()}
    with tqdm(total=len(places) + num_done, initial=num_done, **bar) as progress:
        for batch, here in batches_of(found.predictions.source, places, arguments.batch_size, mesh):
            maps = _heatmaps(found, method, batch["images"], batch["labels"], here)
            for n, place in enumerate(here[: batch["count"]].tolist()):
                progress.update()
                if batch["weights"][n]:  # read when it was predicted, and gone or broken since
                    yield place, maps[n]


def batches_of(
    source: Any, places: np.ndarray, batch_size: int, mesh: Mesh
) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Yields batches of some images of a source on the devices of a mesh, and the places of their rows.

    The last one is filled up with the first image; "count" says how many rows it has before.
    """
    if not len(places):
        return
    size = shared_size(batch_size, len(source), mesh)  # whichever are left of them: the same program
    batch_fn, num_steps = epoch_batches(subset(source, places), size)
    for t in range(num_steps):
        batch, start = batch_fn(t), t * batch_fn.batch_size
        rows = start + np.arange(batch_fn.batch_size)
        images = batch["images"]
        if mesh.size > 1 and not mesh.is_multi_process:  # of several, each has images of its own
            images = shard_batch({"images": images}, mesh)["images"]
        here = places[np.where(rows < len(places), rows, 0)]
        count = min(batch_fn.batch_size, len(places) - start)
        yield {**batch, "images": images, "pixels": batch["images"], "count": count}, here


def shared_size(batch_size: int, count: int, mesh: Mesh) -> int:
    """Returns how many images are taken at once: no more than there are, and a multiple of the devices."""
    return -(-min(batch_size, count) // mesh.size) * mesh.size


def _heatmaps(found: Any, method: Chosen, images: Any, targets: Any, places: np.ndarray) -> np.ndarray:
    options: dict[str, Any] = dict(method.options)
    if method.needs_relevance:
        options["relevance"] = found.relevance
    key = jax.vmap(lambda n: jax.random.fold_in(jax.random.key(0), n))(jnp.asarray(places))
    given = (found.model.apply, found.model.variables, images, targets)
    maps = attribute(method.name, *given, score=method.score, key=key, **options)
    is_finite = np.isfinite(np.asarray(maps)).reshape(len(places), -1).all(1)
    if not is_finite.all():
        raise ValueError(
            f"--method {method.name}: the map of {_file(found, places[int(is_finite.argmin())])} holds NaN "
            "or infinite values; leave the method out"
        )
    return np.asarray(normalize_heatmaps(maps) if maps.ndim == 3 else positive_heatmaps(maps))
