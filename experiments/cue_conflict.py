"""Which cue does a network use, its shape or its texture? Decisions, interventions, and relevant features.

After R. Geirhos et al., ImageNet-trained CNNs are biased towards texture, ICLR 2019, whose images are made by
style transfer and whose networks are large. Here the images are rendered (`vexplain.datasets.cue_objects`),
so that the truth is known: networks are trained on a class that is the shape, the texture or the color, or
several of them, one of which may be right with some probability only.

    python -m experiments.cue_conflict laptop          12 networks, 40 px
    python -m experiments.cue_conflict accelerator     64 px, textured backgrounds and clutter

Asked of each network: which cue decides where the cues are in conflict (`evaluation.shape_bias`); how often
the decision changes when one cue is changed and nothing else; and which cue its relevant features respond to.
Leaves `report.html`, `cue_conflict.json` and figures in `runs/cue_conflict`. Training resumes.

What to expect: a network whose class is the shape has the bias 1, one of the texture 0, one of the color
none; between them the bias grows with what the shape tells. What was found is in
docs/results/cue_conflict.md.
"""

import dataclasses
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.cue_conflict_measures import (
    bias_by_interventions,
    changed_decisions,
    decisions_by_cue,
    feature_kinds,
    total_effects,
)
from experiments.cue_conflict_report import write_figures_and_report
from experiments.job import fingerprint, plain_settings, say, step
from vexplain import classifiers, relevance
from vexplain._files import write_json
from vexplain.datasets import Source, in_memory
from vexplain.datasets.cue_objects import CUES, SHAPES, CueSource
from vexplain.evaluation import ShapeBias, decision_counts, rank_correlation, shape_bias
from vexplain.streaming import fold_epoch, is_writer
from vexplain.streaming.devices import Mesh, data_mesh
from vexplain.transforms import Layer, layers
from vexplain.typing import ApplyFn, Variables

_INDEPENDENT = {"shape": 1 / 6, "texture": 1 / 6, "color": 1 / 6}
_FREE = (
    "out",
    "classes",
    "devices",
    "num_test",
    "num_conflict",
    "num_interventions",
    "mu",
    "probabilities",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    out: Path = Path("runs/cue_conflict")
    classes: tuple[str, ...] = ()  # names of tasks, as "texture and shape"; all, if left out
    network: str = "all_conv_net"  # or flower_net
    width: int = 16  # of the network
    size: int = 40  # of the images, in pixels
    samples: int = 3  # points a pixel along each axis
    background: str = "plain"  # or textured
    clutter: int = 0  # small objects
    num_per_class: int = 1000  # images of training
    num_test: int = 100  # images a class, held out
    num_conflict: int = 200  # images a class whose cues are in conflict
    num_interventions: int = 120  # images, whose cues are changed to each other value
    probabilities: tuple[float, ...] = (0.6, 0.8, 0.9)  # of the less certain one of two cues
    epochs: int = 16
    batch_size: int = 64
    learning_rate: float = 3e-3  # peak; cosine decay to zero
    mu: float = 5.0  # of the relevant features
    seed: int = 0
    devices: int | None = None  # all, if left out

    def __post_init__(self):
        """Raises ValueError for a setting that could only fail later."""
        self.source("train", {"shape": 1.0})
        for name in ("num_test", "num_conflict", "num_interventions", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if not all(1 / 6 < p < 1 for p in self.probabilities):
            raise ValueError(f"probabilities is {self.probabilities}: expected numbers between 1/6 and 1")
        if unknown := set(self.classes) - set(self.tasks()):
            raise ValueError(f"classes has {sorted(unknown)}: expected some of {list(self.tasks())}")

    def source(self, split: str, cues: dict[str, float], num_per_class: int | None = None) -> CueSource:
        """The images of a split whose class is told by some cues."""
        names = ("size", "samples", "background", "clutter", "seed")
        options = {name: getattr(self, name) for name in names}
        return CueSource(split=split, num_per_class=num_per_class or self.num_per_class, **cues, **options)

    def tasks(self) -> dict[str, dict[str, float]]:
        """The probability of each cue that tells the class, by name; those of shape and texture are ordered.

        The first ones go from a class that is the texture to one that is the shape: first the shape becomes
        more certain, then the texture less.
        """
        rising = sorted(self.probabilities)
        found = {"texture": {"texture": 1.0}}
        found |= {f"texture, shape at {p:.0%}": {"texture": 1.0, "shape": p} for p in rising}
        found["texture and shape"] = {"texture": 1.0, "shape": 1.0}
        found |= {f"shape, texture at {p:.0%}": {"shape": 1.0, "texture": p} for p in rising[::-1]}
        found["shape"] = {"shape": 1.0}
        found["color"] = {"color": 1.0}
        return found | {f"color and {cue}": {"color": 1.0, cue: 1.0} for cue in ("shape", "texture")}


_SMOKE = Config(
    classes=("texture", "shape"),
    width=2,
    size=16,
    samples=1,
    num_per_class=11,
    num_test=4,
    num_conflict=11,
    num_interventions=64,
    probabilities=(),
    epochs=1,
)
PRESETS = {
    "smoke": ("Seconds: does everything run?", _SMOKE),
    "laptop": ("Minutes on 2 CPU cores, 40 px.", Config()),
    "accelerator": (
        "Textured backgrounds and clutter, 64 px.",
        Config(
            width=32, size=64, background="textured", clutter=5, num_per_class=4000, epochs=20, batch_size=128
        ),
    ),
}


def main(config: Config) -> dict[str, Any]:
    """Runs the experiment and returns what `cue_conflict.json` holds."""
    started, cpu_started, seconds = time.monotonic(), time.process_time(), {}
    config.out.mkdir(parents=True, exist_ok=True)
    mesh = data_mesh(config.devices)
    with step("Rendering", seconds):
        conflicts = in_memory(config.source("conflict", {"shape": 1.0}, config.num_conflict))
        changed = {
            split: config.source(split, cues, -(-config.num_interventions // 6))
            for split, cues in (("conflict", {"shape": 1.0}), ("test", _INDEPENDENT))
        }
        changed = {
            split: with_changes(source, np.arange(config.num_interventions))
            for split, source in changed.items()
        }
    asked = questions(config, conflicts)
    rows, biases = [], {}
    for name, cues in config.tasks().items():
        if config.classes and name not in config.classes:
            continue
        with step(name, seconds):
            row, biases[name] = measure(config, name, cues, asked, conflicts, changed, mesh)
        rows.append(row)
        say(_line(row))
    metrics = {
        "rows": rows,
        "rank_correlation": ranks_alike(rows),
        "seconds": seconds | {"total": time.monotonic() - started, "cpu": time.process_time() - cpu_started},
        "settings": plain_settings(config),
    }
    if is_writer():
        write_json(config.out / "cue_conflict.json", metrics)
        say(f"\nThe report is in {write_figures_and_report(config, metrics, biases)}")
    return metrics


def with_changes(source: CueSource, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, height, width, 3), and the same with one cue changed (n, values, cues, height, width, 3).

    Each cue takes each of its other values: some of them only would be more, or less, alike than most.
    """
    changed = [source.interventions(indices, step=step) for step in range(1, len(SHAPES))]
    return np.asarray(source[indices]["images"]), np.stack(changed, axis=1)


class Questions(NamedTuple):
    """What is asked of every network, compiled once for all: they differ in their weights alone."""

    apply: Any
    variables: Any  # of the network before training
    layers: tuple[Layer, ...]  # whose channels are candidates
    decide: Any  # (variables, images) -> predicted classes
    respond: Any  # (variables, images) -> responses
    confusion: Any
    decisions: Any


def questions(config: Config, images: Source) -> Questions:
    """The network with random weights, and what is asked of it."""
    apply, variables = classifiers.build_small(
        config.network, len(SHAPES), image_size=config.size, width=config.width, seed=config.seed
    )
    table = layers(apply, variables, images[[0]]["images"])
    # A layer of one channel a class is the scores themselves: without it there is nothing to ask.
    rows = tuple(row for row in relevance.default_layers(table) if row.num_channels != len(SHAPES))
    respond = relevance.response_fn(apply, rows)
    return Questions(
        apply,
        variables,
        rows,
        jax.jit(lambda variables, images: apply(variables, images).argmax(-1)),
        jax.jit(lambda variables, images: respond(variables, images)[0]),
        classifiers.confusion(apply, len(SHAPES)),
        decision_counts(apply, len(SHAPES)),
    )


def measure(
    config: Config,
    name: str,
    cues: dict[str, float],
    asked: Questions,
    conflicts: Source,
    changed: Any,
    mesh: Any,
) -> tuple[dict[str, Any], ShapeBias]:
    """Trains a network on a class that some cues tell, and asks which cue it uses."""
    train = in_memory(config.source("train", cues))
    options = {"batch_size": config.batch_size, "mesh": mesh}
    variables = trained(config, name, asked.apply, asked.variables, train, mesh)
    (init, update), test = asked.confusion, config.source("test", cues, config.num_test)
    accuracy = classifiers.accuracy(fold_epoch(update, init(), test, constants=variables, **options))
    init, update = asked.decisions
    counts = fold_epoch(update, init(), conflicts, constants=variables, **options)
    bias = shape_bias(counts, class_names=SHAPES)
    flips = changed_decisions(asked.decide, variables, *changed["conflict"])
    found = relevance.learn_relevance(
        asked.apply, variables, train, layers=asked.layers, mu=config.mu, labels="true", **options
    )
    effects = total_effects(asked.respond, variables, *changed["test"])
    row = {
        "name": name,
        "cues": cues,
        "accuracy": accuracy,
        "bias": bias.bias,
        "interval": bias.interval,
        "decided": bias.decided,
        "decisions": decisions_by_cue(asked.decide, variables, conflicts),
        "changed_decisions": dict(zip(CUES, flips, strict=True)),
        "bias_by_interventions": bias_by_interventions(flips),
        "features": feature_kinds(found, effects),
    }
    return row, bias


def trained(
    config: Config, name: str, apply: ApplyFn, variables: Variables, train: Source, mesh: Mesh | None
) -> Variables:
    """Weights of a task; training is kept, and goes on where it stopped."""
    return classifiers.train(
        apply,
        variables,
        train,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        batch_size=config.batch_size,
        seed=config.seed,
        directory=config.out / "networks" / _file_name(f"{name} {fingerprint(config, without=_FREE)}"),
        mesh=mesh,
        description=name,
    )


def ranks_alike(rows: list[dict[str, Any]]) -> float:
    """Spearman's correlation of the two biases over the networks that have both."""
    pairs = np.array([(row["bias"], row["bias_by_interventions"]) for row in rows])
    pairs = pairs[np.isfinite(pairs).all(1)]
    first, second = jnp.asarray(pairs.T, jnp.float32)[:, None]
    return float(rank_correlation(first, second)[0]) if len(pairs) > 1 else float("nan")


def _file_name(text: str) -> str:
    return re.sub(r"\W+", "-", text)


def _line(row: dict[str, Any]) -> str:
    shares = ", ".join(f"{kind} {share:.0%}" for kind, share in row["features"]["weight"].items())
    biases = ("–" if np.isnan(row[n]) else f"{row[n]:.1%}" for n in ("bias", "bias_by_interventions"))
    bias, by_interventions = biases
    return (
        f"{row['name']:22}  accuracy {row['accuracy']:6.1%}  shape bias {bias:>6}, by either cue "
        f"{row['decided']:6.1%}, by interventions {by_interventions:>6}  features: {shares}"
    )


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.cue_conflict"))
