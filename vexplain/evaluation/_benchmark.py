"""All methods on one or more tasks: scores against the truth, checks against the network, and who is best.

In all functions:
    task: the network and the images.
    methods: as `as_methods` takes them; the customary ones if left out.
    batch_size: images a step; the next multiple of the number of devices is taken.
    seed: of all that is drawn.
    description: of the progress bar; `None` shows none.
"""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vexplain._keeping import Store, identity, kept
from vexplain._text import aligned, html_table
from vexplain.catalog import METHODS, MethodFn, Methods, as_methods, title_of, with_options
from vexplain.evaluation.comparison import Difference, compare
from vexplain.evaluation.explained_network import Task
from vexplain.evaluation.flipping import FlippingScores, flipping_scores
from vexplain.evaluation.sanity import SanityChecks, sanity_checks
from vexplain.evaluation.scores import SCORES, Score, heatmap_scores, summarize
from vexplain.streaming import Checkpoint, fold_epoch
from vexplain.streaming.checkpoints import digest
from vexplain.streaming.devices import Mesh
from vexplain.transforms import LayerTable, layers
from vexplain.transforms.nonlinearities import ACTIVATION_KINDS

HINDSIGHT = ", best layer in hindsight"
CONTROLS = METHODS.of_kind("control")
_CAMS = ("grad_cam", "grad_cam_plus_plus", "layer_cam", "upsampled_activation")
_AT = " @ "  # between method and layer in the names of `hindsight_methods`

_PASSES: Store = collections.OrderedDict()


class Checks(NamedTuple):
    """Whether the maps of a task explain its network."""

    sanity: SanityChecks
    flipping: dict[str, FlippingScores]


def score_task(
    task: Task,
    methods: Methods | None = None,
    *,
    has_hindsight: bool = True,
    batch_size: int = 40,
    seed: int = 0,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    description: str | None = None,
) -> dict[str, Score]:
    """Returns the scores of every method on the test images of a task, the largest IoU area first.

    Of the class activation maps of all layers the best of each kind is kept, with `HINDSIGHT` in its name:
    it was chosen by its IoU area on these very images. Where nothing else was said, methods that guide ReLUs
    keep the gradient of other activation functions.

    Args:
        has_hindsight: class activation maps of every layer too.
        mesh: devices; one if left out, or where there are several processes one of each.
        checkpoint: where the scores so far are saved, and where a pass that was interrupted goes on.
    """
    functions = _lenient(methods)
    if unclear := [name for name in functions if _AT in name]:
        raise ValueError(f"methods: {unclear[0]!r} has {_AT!r}, which is before a layer: choose another name")
    if has_hindsight:
        functions |= hindsight_methods(layers(task.apply, task.variables, task.test[[0]]["images"]))
    # One compiled program for all networks of an architecture: relevance and weights are its arguments.
    name = (identity(task.apply), identity(tuple(functions.items())), len(task.test), seed)
    make = functools.partial(heatmap_scores, task.apply, functions, num_images=len(task.test), seed=seed)
    init, update = kept(_PASSES, name, make)
    state = fold_epoch(
        update,
        init(),
        task.test,
        batch_size=min(batch_size, len(task.test)),
        constants=task.network,
        mesh=mesh,
        checkpoint=checkpoint
        and checkpoint.of(**{"pass": "scores"}, methods=methods_digest(functions), seed=seed),
        description=description,
    )
    return best_in_hindsight(summarize(state))


def hindsight_methods(table: LayerTable) -> dict[str, MethodFn]:
    """Returns the class activation maps of every layer they could be of, named `"grad_cam @ relu_1"`.

    The best of them is found with the truth at hand, which flatters it: a line of its own in a table.

    Args:
        table: of a network. All activation functions and poolings with more than one position are taken; a
            ValueError where there is none.
    """
    chosen = [
        layer.name
        for layer in table
        if (layer.kind == "pool" or layer.kind in ACTIVATION_KINDS)
        and layer.inside is None
        and layer.batch_axis is not None
        and layer.num_positions > 1
    ]
    if not chosen:
        raise ValueError(f"table: no activation function or pooling has spatial axes:\n{table}")
    return {
        f"{name}{_AT}{layer}": functools.partial(METHODS[name].function, layer=layer)
        for name in _CAMS
        for layer in chosen
    }


def best_in_hindsight(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Returns the scores, of `"grad_cam @ relu_1"` and the like only those of the best layer."""
    best: dict[str, Score] = {}
    for name, score in sorted(scores.items(), key=lambda item: -item[1].mean("IoU area")):
        kind, at, _ = name.partition(_AT)
        best.setdefault(kind + HINDSIGHT if at else name, score)
    return best


def check_task(
    task: Task,
    methods: Methods | None = None,
    *,
    signs: Mapping[str, str] | None = None,
    random_labels: Task | None = None,
    num_images: int = 24,
    num_draws: int = 5,
    num_steps: int = 32,
    batch_size: int = 24,
    seed: int = 0,
) -> Checks:
    """Returns whether the maps explain the network of a task: sanity checks, deletion and insertion.

    Args:
        methods: as `as_methods` takes them, controls among them; the customary ones if left out.
        signs: of methods with signed attributions, from `Score.sign`.
        random_labels: the same network, trained on shuffled labels.
        num_images: the first test images.
        num_draws: of networks with all weights shuffled.
        num_steps: of the curves of deletion and insertion.
    """
    functions = _lenient(methods)
    batch = task.test[np.arange(min(num_images, len(task.test)))]
    chosen = {name: sign for name, sign in (signs or {}).items() if name in functions and sign}
    key, flipping_key = jax.random.split(jax.random.key(seed))
    checks = sanity_checks(
        task.apply,
        functions,
        task.network,
        batch,
        key=key,
        relearn=task.relearn,
        control_names=[name for name in CONTROLS if name in functions],
        random_labels=None if random_labels is None else random_labels.network,
        explained="own prediction",
        num_draws=num_draws,
        signs=chosen,
        batch_size=batch_size,
    )
    flips = flipping_scores(
        task.apply, functions, task.network, batch, key=flipping_key, num_steps=num_steps, signs=chosen
    )
    return Checks(checks, flips)


@dataclasses.dataclass(frozen=True, eq=False)
class Benchmark:
    """How every method scored. `print` it for the table.

    Attributes:
        name: of the user's own method.
        scores: by name of the task, scores by method.
        checks: by name of the task, where they were made.
    """

    name: str
    scores: Mapping[str, Mapping[str, Score]]
    checks: Mapping[str, Checks]

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The means over the images of all tasks, each task counting alike, the largest IoU area first.

        A star says that the method is significantly above one's own, a minus that it is below.
        """
        return aligned(*self._table())

    def _repr_html_(self) -> str:
        header, rows = self._table()
        caption = f"Means over {', '.join(self.scores)}; * significantly above {self.name}, - below"
        return html_table(header, [[cell.strip() for cell in row] for row in rows], caption=caption)

    def _table(self) -> tuple[list[str], list[list[str]]]:
        every = self.scores.values()
        names = [s for s in SCORES if all(s in score.values for found in every for score in found.values())]
        differences = compare(self.scores, self.name)
        rows = []
        for method in self._ranked():
            marks = differences.get(method, {})
            row = [title_of(method) + (" <" if method == self.name else "")]
            row += [f"{self.mean(method, s):.3f}{_mark(marks.get(s))}" for s in names]
            rows.append([*row, self._verdict(method)])
        return ["method", *names, "sanity checks"], rows

    def mean(self, method: str, score: str) -> float:
        """The mean over tasks of one of `SCORES`."""
        return float(np.mean([found[method].mean(score) for found in self.scores.values()]))

    def _ranked(self) -> list[str]:
        every = list(self.scores.values())
        names = [name for name in every[0] if all(name in found for found in every)]
        return sorted(names, key=lambda method: -self.mean(method, "IoU area"))

    def _verdict(self, method: str) -> str:
        found = [c.sanity.scores[method] for c in self.checks.values() if method in c.sanity.scores]
        if not found:
            return ""
        reasons = dict.fromkeys(reason for score in found for reason in score.reasons)
        return "pass" if not reasons else "; ".join(reasons)


def benchmark(
    method: MethodFn,
    tasks: Task | Sequence[Task],
    *,
    name: str = "yours",
    methods: Methods | None = None,
    has_checks: bool = True,
    batch_size: int = 40,
    mesh: Mesh | None = None,
    checkpoint: Checkpoint | None = None,
    description: str | None = "Scoring heatmaps",
) -> Benchmark:
    """Returns how a method of one's own scores beside all others, against ground truth and the network.

    Args:
        method: of the signature of all methods; pure, since it is compiled.
        tasks: networks and images with masks; `experiments.flowers` makes some of rendered flowers.
        name: of the method in the tables.
        methods: the others, to which the controls are added; the customary ones if left out, and the class
            activation maps of every layer too.
        has_checks: make the sanity checks, and delete and insert pixels.
        mesh: devices of the scores; one if left out, or where there are several processes one of each.
        checkpoint: where the scores so far are saved, a folder for each task, and where a pass that was
            interrupted goes on; the checks of a task begin anew.

    Example:
        >>> from vexplain.evaluation import Task
        >>> def doubled(apply, variables, images, targets=None, *, score=None, key=None):
        ...     return 2 * vexplain.gradient(apply, variables, images, targets)
        >>> task = Task("mine", apply, variables, relevance, train, test)  # doctest: +SKIP
        >>> print(benchmark(doubled, task, name="doubled"))  # doctest: +SKIP
    """
    if not callable(method):
        raise TypeError(
            f"method is a {type(method).__name__}: expected a function (apply, variables, images, "
            "targets=None, *, score, key)"
        )
    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    if not tasks:
        raise ValueError("tasks is empty: give one or more")
    others = as_methods(methods) | ({} if methods is None else as_methods(CONTROLS))
    if name in others:
        raise ValueError(f"name is {name!r}, which is another method: choose another")
    functions = {name: method} | others
    found, checks = {}, {}
    for n, task in enumerate(tasks):
        title = task.name if task.name not in found else f"{task.name} ({n})"
        options: dict[str, Any] = {"has_hindsight": methods is None, "batch_size": batch_size, "mesh": mesh}
        options |= {"checkpoint": checkpoint and checkpoint.below(f"{n}"), "description": description}
        found[title] = score_task(task, functions, **options)
        if has_checks:
            signs = {m: score.sign for m, score in found[title].items()}
            checks[title] = check_task(task, functions, signs=signs)
    return Benchmark(name, found, checks)


def methods_digest(methods: Mapping[str, MethodFn]) -> str:
    """Returns what tells methods and their options from others, for a fingerprint.

    Args:
        methods: by name.
    """
    return digest([(name, *_described(method)) for name, method in methods.items()])


def _described(method: Any) -> tuple[str, ...]:
    if isinstance(method, functools.partial):
        options = sorted(method.keywords.items())
        return (*_described(method.func), *map(repr, method.args), *(f"{k}={v!r}" for k, v in options))
    return (f"{getattr(method, '__module__', '')}.{getattr(method, '__qualname__', repr(method))}",)


def _lenient(methods: Methods | None) -> dict[str, MethodFn]:
    """Where rules for ReLUs find others, or none, the gradient."""
    return with_options(as_methods(methods), on_uncovered="gradient", on_unmatched="ignore")


def _mark(difference: Difference | None) -> str:
    if difference is None:  # of one's own method, or of a score that some task does not have
        return " "
    return "*" if difference.is_above else "-" if difference.is_below else " "
