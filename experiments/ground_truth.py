"""Which explanation covers what decides the class? All methods against ground truth, and against the network.

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 4.3 and
Table 1. Ours: graded difficulties, interventions as a second truth, controls, sanity checks, a deeper network
with strides, objects whose class is a shape or a texture, and an own method. That was chosen on `single_6c`,
plain, and on cue objects of other sizes (a8f7207), but after earlier versions had been scored on all flowers.

    python -m experiments.ground_truth laptop             64 px, 24 cells of 2 folds
    python -m experiments.ground_truth accelerator        112 px, 1,000 images a class, 5 folds, 40 cells
    python -m experiments.ground_truth laptop --study     what decides the rank of the paper's recipe

It renders flowers and cue objects, trains a network for each variant, difficulty and fold (kept, and gone on
with), scores every method on held-out images, checks whether the maps explain the network, and leaves
`report.html`, `metrics.json`, figures and one file a cell in `runs/ground_truth`. Call it again after an
interruption.

What to expect (Table 1 of the paper, IoU area in percent as recalled, unchecked; original data, 112 px): see
`RECALLED`. The numbers of this code are in the README.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro
from tqdm.auto import tqdm

from experiments import cue_tasks
from experiments.classifier_job import checked_mesh
from experiments.flowers import flower_task, rendered_flowers
from experiments.ground_truth_cells import Cell, Key, load_cell, save_cell
from experiments.ground_truth_methods import methods_named
from experiments.ground_truth_metrics import OURS, PAPER, plain_checks, summary
from experiments.ground_truth_report import write_figures_and_report
from experiments.ground_truth_study import study_recipe
from experiments.job import fingerprint, plain_settings, say, step
from experiments.trained_tasks import TaskSettings
from vexplain._files import write_json
from vexplain.catalog import MethodFn, title_of, with_options
from vexplain.classifiers import SMALL_NAMES
from vexplain.datasets import Source
from vexplain.datasets.an8flower import DIFFICULTIES, VARIANTS
from vexplain.datasets.an8flower.source import NUM_FOLDS
from vexplain.datasets.cue_objects import CUES
from vexplain.evaluation import (
    CEILING,
    CONTROLS,
    HINDSIGHT,
    Task,
    check_task,
    heatmaps_of,
    make_sample,
    score_task,
)
from vexplain.streaming import Checkpoint, is_writer
from vexplain.streaming.processes import exists, wait_for_all

STUDIED = ("plain", "textured")  # difficulties of the study
_DIFFICULTIES = dict.fromkeys(VARIANTS, DIFFICULTIES) | {c: tuple(cue_tasks.DIFFICULTIES) for c in CUES}
_VERSION = 4  # of the methods and truths: files of older ones are not read


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the benchmark."""

    out: Path = Path("runs/ground_truth")
    variants: tuple[str, ...] = ("single_6c", "double_12c", "shape", "texture")  # flowers; cue objects
    difficulties: tuple[str, ...] = ("plain", "textured", "distractors", "clutter")  # where a variant has it
    networks: tuple[str, ...] = ("flower_net", "all_conv_net")
    folds: tuple[int, ...] = (0, 1)
    size: int = 64  # height and width of the images, in pixels
    num_per_class: int = 300  # a fifth of them is held out
    num_test: int = 120  # of these are scored, a cell and fold
    samples: int = 3  # rays a pixel along each axis
    width: int | None = None  # of the networks
    epochs: int = 8
    batch_size: int = 64  # of training
    learning_rate: float = 1e-3
    mu: float = 5.0
    seed: int = 0
    num_samples: int = 15  # of SmoothGrad and expected gradients
    num_steps: int = 15  # of integrated gradients
    num_masks: int = 250  # of RISE, LIME and KernelSHAP
    num_permutations: int = 2  # of 64 patches, whose Shapley values are sampled
    window: int = 8  # of occlusion, in pixels
    stride: int = 8
    num_scored_at_once: int = 20
    checked: tuple[str, ...] | None = None  # difficulties whose first fold is checked; the first if left out
    num_checked: int = 32  # images of these
    num_draws: int = 5  # shufflings of all weights
    num_shown: int = 4  # images of a cell in the gallery
    methods: tuple[str, ...] | None = None  # all if left out; ours, the recipe and controls are needed
    study: bool = False  # of the paper's recipe: mu, K, layers, responses
    devices: int | None = None  # all, if left out

    def __post_init__(self):
        """Raises ValueError for a setting that could only fail later, after minutes of training."""
        for name in ("num_test", "num_checked", "num_draws", "num_shown", "num_scored_at_once", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        every = tuple(dict.fromkeys(itertools.chain(*_DIFFICULTIES.values())))
        known = {"variants": tuple(_DIFFICULTIES), "difficulties": every, "networks": SMALL_NAMES}
        known |= {"folds": range(NUM_FOLDS), "checked": self.difficulties}
        for name, expected in known.items():
            values = self.all_checked if name == "checked" else getattr(self, name)
            if not values and name != "checked":
                raise ValueError(f"{name} is empty: name one or more of {', '.join(map(str, expected))}")
            for value in values:
                if value not in expected:
                    raise ValueError(f"{name}: {value!r} is none of {', '.join(map(str, expected))}")
        if "flower_net" in self.networks and self.size % 4:
            raise ValueError(f"size is {self.size}: expected a multiple of 4, for flower_net pools twice")
        if empty := [v for v in self.variants if not set(_DIFFICULTIES[v]) & set(self.difficulties)]:
            expected = ", ".join(_DIFFICULTIES[empty[0]])
            raise ValueError(f"difficulties: {empty[0]} has none of them; expected some of {expected}")
        _check_methods(self.methods)

    @property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """Variants with their difficulties."""
        pairs = itertools.product(self.variants, self.difficulties)
        return tuple((variant, name) for variant, name in pairs if name in _DIFFICULTIES[variant])

    @property
    def all_checked(self) -> tuple[str, ...]:
        """The difficulties on which maps are checked too."""
        return self.difficulties[:1] if self.checked is None else self.checked

    @property
    def chosen(self) -> dict[str, MethodFn]:
        """The methods, at the cost that this run allows."""
        names = ("num_samples", "num_steps", "num_masks", "num_permutations", "window", "stride")
        options = {name: getattr(self, name) for name in names}
        options |= {"on_uncovered": "gradient", "on_unmatched": "ignore"}
        return with_options(methods_named(self.methods), **options)

    def task(self, key: Key, fold: int, **changes: Any) -> TaskSettings:
        """The task of a cell and fold.

        Args:
            key: variant, difficulty, network.
            fold: which is held out.
            **changes: other fields of `TaskSettings`.
        """
        shared = ("size", "num_per_class", "num_test", "samples", "width", "epochs", "batch_size")
        fields = {name: getattr(self, name) for name in (*shared, "learning_rate", "mu", "seed")}
        variant, difficulty, network = key
        return TaskSettings(variant, difficulty, network, fold, **(fields | changes))


def _check_methods(names: tuple[str, ...] | None) -> None:
    """The report needs our method and the recipe, the sanity checks the controls, and all of them a rival."""
    methods_named(names)
    if names is None:
        return
    needed = (OURS, PAPER, *CONTROLS)
    if missing := [name for name in needed if name not in names]:
        raise ValueError(f"methods: {', '.join(map(repr, missing))} must be among them")
    if not set(names) - set(needed):
        raise ValueError("methods: expected one or more rivals, such as 'guided_backprop'")


_SMOKE = Config(
    variants=("single_6c",),
    difficulties=("plain",),
    networks=("flower_net",),
    size=16,
    num_per_class=12,
    num_test=8,
    samples=1,
    width=4,
    epochs=3,
    batch_size=16,
    num_samples=2,
    num_steps=2,
    num_masks=100,
    num_permutations=1,
    num_scored_at_once=8,
    num_checked=4,
    num_draws=2,
    num_shown=2,
    study=True,
)
_ALL = tuple(dict.fromkeys(itertools.chain(*_DIFFICULTIES.values())))
PRESETS = {
    "smoke": ("Minutes: does everything run?", _SMOKE),
    "laptop": ("64 px, two folds: training and scoring on 2 CPU cores.", Config()),
    "accelerator": (
        "112 px, 1,000 images a class, five folds, every difficulty.",
        Config(
            difficulties=_ALL,
            folds=(0, 1, 2, 3, 4),
            size=112,
            num_per_class=1000,
            num_test=1000,
            epochs=12,
            batch_size=128,
            num_samples=50,
            num_steps=50,
            num_masks=2000,
            num_permutations=25,
            window=14,
            stride=7,
            num_scored_at_once=64,
            checked=_ALL,
            num_checked=64,
            study=True,
        ),
    ),
}


class _Found(NamedTuple):
    """What a run has found so far."""

    cells: dict[Key, list[Cell]]  # one a fold
    checks: dict[Key, dict[str, Any]]  # of the first fold
    studies: dict[str, list[dict[str, Any]]]


def main(config: Config) -> dict[str, Any]:
    """Runs the benchmark and returns what `metrics.json` holds."""
    started, timings, found = time.monotonic(), {}, _Found({}, {}, {})
    mesh = _mesh(config)
    config.out.mkdir(parents=True, exist_ok=True)
    say(f"vexplain: all methods against ground truth, {config.size} px; results in {config.out}")
    for variant, difficulty in config.kinds:
        _run(config, _Tasks(config, variant, difficulty, mesh), found, timings)
    metrics = summary(found.cells, found.checks) | {
        "study": found.studies,
        "seconds": timings | {"total": time.monotonic() - started},
        "settings": plain_settings(config),
    }
    if is_writer():
        write_json(config.out / "metrics.json", metrics)
        report = write_figures_and_report(config.out, found.cells, found.checks, metrics)
        say(f"\nThe report is in {report}")
    return metrics


def _mesh(config: Config) -> Any:
    mesh = checked_mesh(config.batch_size, config.devices)
    if config.num_scored_at_once % mesh.size:
        raise ValueError(
            f"num_scored_at_once is {config.num_scored_at_once}: expected a multiple of the "
            f"{mesh.size} devices, or use fewer by --devices"
        )
    return mesh


def _run(config: Config, tasks: "_Tasks", found: _Found, timings: dict[str, float]) -> None:
    """Scores, checks and studies the networks of one variant and difficulty."""
    name, difficulty = ", ".join(tasks.kind), tasks.kind[1]
    with step(name, timings):
        for key, fold in tasks.all:
            found.cells.setdefault(key, []).append(scored_cell(config, tasks, key, fold))
            say(_line(key, fold, found.cells[key][-1]))
    if difficulty in config.all_checked:
        with step(f"Checks on {name}", timings):
            for network in config.networks:
                key = (*tasks.kind, network)
                found.checks[key] = checked_cell(config, tasks, key, found.cells[key][0])
    if config.study and difficulty in STUDIED:
        with step(f"Study of the recipe on {name}", timings):
            key = (*tasks.kind, config.networks[0])
            found.studies[name] = study_recipe(tasks.task(key, config.folds[0]))


class _Tasks:
    """The networks of one variant and difficulty; flowers are rendered once, for all folds of all of them."""

    def __init__(self, config: Config, variant: str, difficulty: str, mesh: Any):
        self.config, self.kind, self.mesh = config, (variant, difficulty), mesh
        self._images: Source | None = None
        self._tasks: dict[Any, Task] = {}  # checks and study ask for the first fold again

    @property
    def all(self) -> Iterator[tuple[Key, int]]:
        """Cells and folds."""
        for network in self.config.networks:
            for fold in self.config.folds:
                yield (*self.kind, network), fold

    def task(self, key: Key, fold: int, **changes: Any) -> Task:
        """The network of a cell and fold, trained if it is not there."""
        settings = self.config.task(key, fold, **changes)
        options = {"directory": self.config.out, "mesh": self.mesh}
        options |= {"description": f"Training, {settings.name}, fold {fold}"}
        if settings not in self._tasks and self.kind[0] in CUES:
            self._tasks[settings] = cue_tasks.cue_task(settings, **options)
        elif settings not in self._tasks:
            if self._images is None:
                self._images = rendered_flowers(settings, progress=lambda r: tqdm(r, desc="Rendering"))
            self._tasks[settings] = flower_task(settings, images=self._images, **options)
        return self._tasks[settings]


def scored_cell(config: Config, tasks: _Tasks, key: Key, fold: int) -> Cell:
    """The scores of a cell and fold, from its file if there is one."""
    path = _path(config, "cells", key, fold, ".npz", also=("num_checked", "num_draws"))
    if exists(path):
        return load_cell(path)
    task = tasks.task(key, fold)
    started, checkpoint = time.monotonic(), Checkpoint(path.with_suffix(".scores"))
    scores = score_task(
        task,
        config.chosen,
        has_hindsight=config.methods is None,
        batch_size=config.num_scored_at_once,
        seed=config.seed,
        mesh=tasks.mesh,
        checkpoint=checkpoint,
        description="Scoring heatmaps",
    )
    seconds = time.monotonic() - started
    shown, maps = gallery(config, task, scores)
    assert task.accuracy is not None
    cell = Cell(scores, task.accuracy, seconds, shown["images"], shown["masks"], maps)
    if is_writer():
        save_cell(path, cell)
    checkpoint.remove()
    return cell


def gallery(config: Config, task: Task, scores: Any) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A few images, and what every method makes of them."""
    batch = task.test[np.arange(min(config.num_shown, len(task.test)))]
    signs = {name: s.sign for name, s in scores.items() if s.sign and HINDSIGHT not in name}
    heatmaps_fn = heatmaps_of(task.apply, config.chosen, signs=signs, batch_size=config.num_shown)
    sample = make_sample(task.apply, task.network, batch, key=jax.random.key(config.seed))
    found = {name: np.asarray(maps) for name, maps in heatmaps_fn(task.network, sample).items()}
    return {name: np.asarray(batch[name]) for name in ("images", "masks")}, found


def checked_cell(config: Config, tasks: _Tasks, key: Key, cell: Cell) -> dict[str, Any]:
    """Whether the maps explain the network of the first fold: sanity checks, deletion, insertion."""
    path = _path(config, "checks", key, config.folds[0], ".json", also=("num_scored_at_once",))
    if exists(path):
        return json.loads(path.read_text())
    fold = config.folds[0]
    signs = {name: score.sign for name, score in cell.scores.items()}
    found = check_task(
        tasks.task(key, fold),
        config.chosen,
        signs=signs,
        random_labels=tasks.task(key, fold, has_random_labels=True),
        num_images=config.num_checked,
        num_draws=config.num_draws,
        batch_size=min(config.num_scored_at_once, config.num_checked),
        seed=config.seed,
    )
    if is_writer():
        write_json(path, plain_checks(found))
    wait_for_all()
    return json.loads(path.read_text())


def _path(config: Config, kind: str, key: Key, fold: int, ending: str, *, also: tuple[str, ...] = ()) -> Path:
    """A file whose name says what it depends on."""
    free = ("out", "variants", "difficulties", "networks", "folds", "checked", "study", "devices", *also)
    name = f"{'-'.join(key)}-{fold}-{_VERSION}-{fingerprint(config, without=free)}"
    return config.out / kind / f"{name}{ending}"


def _line(key: Key, fold: int, cell: Cell) -> str:
    """One line of the log: where our methods stand."""
    areas = {name: s.mean("IoU area") for name, s in cell.scores.items() if name not in (CEILING, *CONTROLS)}
    best = max(areas, key=lambda name: areas[name])
    return (
        f"  {', '.join(key)}, fold {fold}: accuracy {cell.accuracy:.1%}; IoU area {areas[OURS]:.1%} (ours), "
        f"best {title_of(best)} {areas[best]:.1%}; scored in {cell.seconds:.0f} s"
    )


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.ground_truth"))
