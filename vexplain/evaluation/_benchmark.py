"""One call that scores a method of one's own beside all others: truth, sanity checks, flipped pixels."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from vexplain._text import aligned
from vexplain.attribution import class_score
from vexplain.evaluation.comparison import Difference, compare_over_cells
from vexplain.evaluation.flipping import FlippingScores, flipping_scores
from vexplain.evaluation.methods import CONTROLS, Method, hindsight_methods, methods_for
from vexplain.evaluation.sanity import SanityChecks, sanity_checks
from vexplain.evaluation.scores import CEILING, SCORES, Score, heatmap_scores, summarize
from vexplain.evaluation.tasks import FlowerSettings, Task, flower_task
from vexplain.relevance import Relevance
from vexplain.streaming import fold_epoch
from vexplain.streaming.devices import Mesh
from vexplain.transforms import LayerTable, layers
from vexplain.typing import ApplyFn

UserMethod = Callable[..., Any]  # (score_fn, variables, images, targets) -> attributions or heatmaps
HINDSIGHT = ", best layer in hindsight"
_AT = " @ "  # between method and layer in the names of `hindsight_methods`


@dataclasses.dataclass(frozen=True)
class MethodChoice:
    """Which methods are scored, and how much the sampling ones may cost.

    Attributes:
        own: (name, method) of methods that the library does not have,
            `method(score_fn, variables, images, targets)`.
        names: of those of `methods_for`, the controls included; all if `None`.
        has_hindsight: class activation maps of every layer too.
        num_samples: of SmoothGrad.
        num_steps: of integrated gradients.
        window: of occlusion in pixels; an eighth of the image if `None`.
        stride: of occlusion in pixels; half a window if `None`.
    """

    own: tuple[tuple[str, UserMethod], ...] = ()
    names: tuple[str, ...] | None = None
    has_hindsight: bool = True
    num_samples: int = 25
    num_steps: int = 25
    window: int | None = None
    stride: int | None = None

    def methods(self, apply: ApplyFn, table: LayerTable, relevance: Relevance) -> dict[str, Method]:
        """The methods by name, for a network; the relevance may be traced.

        Args:
            apply: the network.
            table: its layers.
            relevance: its relevant features.

        Raises:
            ValueError: an own method has a name that is taken, or holds " @ ".
        """
        options = {name: getattr(self, name) for name in ("num_samples", "num_steps", "window", "stride")}
        known = methods_for(apply, table, relevance, names=self.names, on_uncovered="gradient", **options)
        for name, _ in self.own:
            if name in known or name == CEILING:
                raise ValueError(f"name is {name!r}, which is a method of the library: choose another")
            if _AT in name:
                raise ValueError(f"name is {name!r}: {_AT!r} is before the layer of a CAM: choose another")
        score = class_score(apply)
        own = {name: _as_method(score, method) for name, method in self.own}
        later = hindsight_methods(apply, table) if self.has_hindsight else {}
        return own | known | later


def _as_method(score_fn: Any, method: UserMethod) -> Method:
    return lambda variables, images, targets, keys: method(score_fn, variables, images, targets)


class Checks(NamedTuple):
    """Whether the maps of a task explain its network."""

    sanity: SanityChecks
    flipping: dict[str, FlippingScores]


def score_task(
    task: Task,
    *,
    choice: MethodChoice | None = None,
    batch_size: int = 40,
    seed: int = 0,
    mesh: Mesh | None = None,
    description: str | None = None,
) -> dict[str, Score]:
    """Returns the scores of every method on the test images of a task, the largest IoU area first.

    Of the class activation maps of all layers the best of each kind is kept, with `HINDSIGHT` in its name:
    it was chosen by its IoU area on these very images.

    Args:
        task: the network and the images.
        choice: of methods; all if left out.
        batch_size: images a step; with several devices, a multiple of their number.
        seed: of the methods that draw.
        mesh: devices; one if left out.
        description: of the progress bar; `None` shows none.
    """
    init, update = _scoring(task.apply, choice or MethodChoice(), len(task.test), seed)
    table = layers(task.apply, task.variables, task.test[[0]]["images"])
    state = fold_epoch(
        update,
        init(table, task.relevance),
        task.test,
        batch_size=min(batch_size, len(task.test)) if mesh is None else batch_size,
        constants=task.network,
        mesh=mesh,
        description=description,
    )
    return best_in_hindsight(summarize(state))


@functools.lru_cache(maxsize=16)
def _scoring(apply: ApplyFn, choice: MethodChoice, num_images: int, seed: int):
    """One compiled program for all networks of an architecture: relevance and weights are its arguments."""

    def pair(table: LayerTable, relevance: Relevance):
        return heatmap_scores(
            apply, choice.methods(apply, table, relevance), num_images=num_images, seed=seed
        )

    def update(state, batch, network):
        table = layers(apply, network.variables, batch["images"])
        return pair(table, network.relevance)[1](state, batch, network.variables)

    return lambda table, relevance: pair(table, relevance)[0](), update


def best_in_hindsight(scores: Mapping[str, Score]) -> dict[str, Score]:
    """Returns the scores with one row for the best layer of each kind of class activation map.

    Args:
        scores: by name, among them `"Grad-CAM @ relu_1"` and the like.
    """
    best: dict[str, Score] = {}
    for name, score in sorted(scores.items(), key=lambda item: -item[1].mean("IoU area")):
        kind, at, _ = name.partition(_AT)
        best.setdefault(kind + HINDSIGHT if at else name, score)
    return best


def check_task(
    task: Task,
    *,
    choice: MethodChoice | None = None,
    readings: Mapping[str, str] | None = None,
    random_labels: Task | None = None,
    num_images: int = 24,
    num_draws: int = 5,
    num_steps: int = 32,
    batch_size: int = 24,
    seed: int = 0,
) -> Checks:
    """Returns whether the maps explain the network of a task: sanity checks, deletion and insertion.

    Args:
        task: the network and the images.
        choice: of methods; those of all layers are left out.
        readings: of methods with signed attributions, from `Score.reading`.
        random_labels: the same network, trained on shuffled labels.
        num_images: the first test images.
        num_draws: of networks with all weights shuffled.
        num_steps: of the curves of deletion and insertion.
        batch_size: images that are explained at once.
        seed: of all that is drawn.
    """
    choice = dataclasses.replace(choice or MethodChoice(), has_hindsight=False)
    batch = task.test[np.arange(min(num_images, len(task.test)))]
    table = layers(task.apply, task.variables, batch["images"][:1])

    def methods_fn(relevance):
        return choice.methods(task.apply, table, relevance)

    names = methods_fn(task.relevance)
    chosen = {name: reading for name, reading in (readings or {}).items() if name in names and reading}
    key, flipping_key = jax.random.split(jax.random.key(seed))
    checks = sanity_checks(
        task.apply,
        methods_fn,
        task.network,
        batch,
        key=key,
        relearn=task.relearn,
        control_names=[name for name in CONTROLS if name in names],
        random_labels=None if random_labels is None else random_labels.network,
        explained="own prediction",
        num_draws=num_draws,
        readings=chosen,
        batch_size=batch_size,
    )
    flips = flipping_scores(
        task.apply, methods_fn, task.network, batch, key=flipping_key, num_steps=num_steps, readings=chosen
    )
    return Checks(checks, flips)


@dataclasses.dataclass(frozen=True, eq=False)
class Benchmark:
    """How every method scored. `print` it for the table.

    Attributes:
        name: of the user's own method.
        cells: scores by method, by name of the cell.
        checks: by name of the cell, where they were made.
    """

    name: str
    cells: Mapping[str, Mapping[str, Score]]
    checks: Mapping[str, Checks]

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The means over the images of all cells, each cell counting alike, the largest IoU area first.

        A star says that the method is significantly above one's own, a minus that it is below. A method that
        failed a sanity check in some cell is marked.
        """
        names = [
            s for s in SCORES if all(s in score.values for c in self.cells.values() for score in c.values())
        ]
        differences = compare_over_cells(self.cells, self.name)
        rows = []
        for method in self._ranked():
            marks = differences.get(method, {})
            row = [method + (" <" if method == self.name else "")]
            row += [f"{self.mean(method, s):.3f}{_mark(marks.get(s))}" for s in names]
            rows.append([*row, self._verdict(method)])
        return aligned(["method", *names, "sanity checks"], rows)

    def mean(self, method: str, score: str) -> float:
        """The mean over cells of a score.

        Args:
            method: its name.
            score: one of `SCORES`.
        """
        return float(np.mean([scores[method].mean(score) for scores in self.cells.values()]))

    def _ranked(self) -> list[str]:
        everywhere = [m for m in next(iter(self.cells.values())) if all(m in c for c in self.cells.values())]
        return sorted(everywhere, key=lambda method: -self.mean(method, "IoU area"))

    def _verdict(self, method: str) -> str:
        found = [c.sanity.scores[method] for c in self.checks.values() if method in c.sanity.scores]
        if not found:
            return ""
        reasons = dict.fromkeys(reason for score in found for reason in score.reasons)
        return "pass" if not reasons else "; ".join(reasons)


def benchmark(
    method: UserMethod,
    *,
    tasks: Task | Sequence[Task] | None = None,
    name: str = "yours",
    names: Sequence[str] | None = None,
    has_checks: bool = True,
    batch_size: int = 40,
    description: str | None = "Scoring heatmaps",
) -> Benchmark:
    """Scores a method of attribution beside all others, against ground truth and against the network.

    Without tasks it renders an8Flower (`single_6c`, plain, 64 px) and trains a small network, which is kept
    in `runs/ground_truth`: some minutes on a CPU, the first time.

    Args:
        method: `method(score_fn, variables, images, targets)` -> heatmaps (batch, height, width), or signed
            attributions (batch, height, width, channels); pure, since it is compiled.
        tasks: from `flower_task`, or a `Task` of one's own network and images with masks.
        name: of the method in the tables.
        names: the other methods, of `methods_for`, to which the controls are added; all if left out, and the
            class activation maps of every layer too.
        has_checks: make the sanity checks, and delete and insert pixels.
        batch_size: images a step.
        description: of the progress bar; `None` shows none.

    Raises:
        TypeError: the method is no function.
        ValueError: its name is taken, an unknown one is in `names`, no task, or maps of another shape.

    Example:
        >>> from vexplain.attribution import gradient
        >>> from vexplain.evaluation import FlowerSettings, flower_task
        >>> def doubled_gradient(score_fn, variables, images, targets):
        ...     return 2 * gradient(score_fn, variables, images, targets)
        >>> task = flower_task(FlowerSettings(...))  # doctest: +SKIP
        >>> print(benchmark(doubled_gradient, tasks=task, name="doubled"))  # doctest: +SKIP
    """
    if not callable(method):
        raise TypeError(
            f"method is a {type(method).__name__}: expected a function (score_fn, variables, images, targets)"
        )
    if tasks is None:
        tasks = [flower_task(FlowerSettings(), description=description and "Training")]
    tasks = [tasks] if isinstance(tasks, Task) else list(tasks)
    if not tasks:
        raise ValueError("tasks is empty: leave it out, or give one or more of flower_task(...)")
    others = None if names is None else tuple(dict.fromkeys((*names, *CONTROLS)))
    choice = MethodChoice(own=((name, method),), names=others, has_hindsight=names is None)
    cells, checks = {}, {}
    for n, task in enumerate(tasks):
        cell = task.name if task.name not in cells else f"{task.name} ({n})"
        cells[cell] = score_task(task, choice=choice, batch_size=batch_size, description=description)
        if has_checks:
            readings = {m: score.reading for m, score in cells[cell].items()}
            checks[cell] = check_task(task, choice=choice, readings=readings)
    return Benchmark(name, cells, checks)


def _mark(difference: Difference | None) -> str:
    if difference is None:  # of one's own method, or of a score that some cell does not have
        return " "
    return "*" if difference.is_above else "-" if difference.is_below else " "
