"""Are the concepts that TCAV and CRAFT find those that a network uses? Rendered objects, where that is known.

After B. Kim et al., TCAV, ICML 2018, and T. Fel et al., CRAFT, CVPR 2023. The networks are three of
`experiments.cue_conflict`: their class is the texture, the shape or the color of an object, and nothing else
tells it. Concepts are the six values of each cue, "stripes", "star", "red", ..., 18 in all, each given by
objects that show it and are of any other texture, shape and color. So it is known what has to come out: of
the cue that is the class, the concept of each class has the score 1 and is significant; the network needs no
other concept.

    python -m experiments.cue_concepts laptop      40 px; trains the networks that `cue_conflict` has not yet

Leaves `cue_concepts.json` and `concepts.png` in `runs/cue_concepts`. It takes 2 minutes on 2 CPU cores, and 3
more for each network that is to be trained. What was found is in docs/results/cue_concepts.md.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments import cue_conflict
from experiments.job import plain_settings, say, step
from vexplain import classifiers, concepts
from vexplain._files import write_json
from vexplain.datasets import ArraySource, Source, in_memory, subset
from vexplain.datasets.cue_objects import CUES
from vexplain.datasets.cue_objects.factors import NAMES
from vexplain.figures import style
from vexplain.figures.images import overlay, pixels, show
from vexplain.figures.sheet import place, write
from vexplain.typing import ApplyFn, Variables


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    out: Path = Path("runs/cue_concepts")
    study: cue_conflict.Config = dataclasses.field(default_factory=cue_conflict.Config)  # keeps its networks
    networks: tuple[str, ...] = ("texture", "shape", "color")  # the cue that is the class
    layers: tuple[str, ...] = ("relu_2", "relu_4", "relu_5")
    num_per_value: int = 60  # images of a concept, and of a random set
    num_random: int = 900  # images that random sets are drawn from
    num_test: int = 100  # images a class that scores are counted on
    num_runs: int = 20  # vectors of each concept
    num_concepts: int = 5  # factors
    factored: str = "relu_4"  # the layer that is factorized
    num_importance: int = 32  # images whose concepts are masked


PRESETS = {
    "smoke": (
        "Seconds: does everything run?",
        Config(
            study=cue_conflict.PRESETS["smoke"][1],
            networks=("color",),
            layers=("relu_2",),
            num_per_value=10,
            num_random=60,
            num_test=6,
            num_runs=2,
            num_concepts=2,
            num_importance=4,
        ),
    ),
    "laptop": ("Minutes on 2 CPU cores, 40 px.", Config()),
}
_INDEPENDENT: dict[str, float] = dict.fromkeys(CUES, 1 / 6)
_SHOWN = 6  # crops of a concept; half as many images


def main(config: Config) -> dict[str, Any]:
    """Runs the experiment and returns what `cue_concepts.json` holds."""
    config.out.mkdir(parents=True, exist_ok=True)
    study, seconds, rows, found = config.study, {}, [], []
    with step("Rendering", seconds):
        per_class = -(-config.num_random // 6)
        objects = in_memory(study.source("validation", _INDEPENDENT, 3 * config.num_per_value + per_class))
        test = in_memory(study.source("test", _INDEPENDENT, config.num_test))
    random = subset(objects, range(len(objects) - 6 * per_class, len(objects)))
    given = sets_of_values(objects, len(objects) - 6 * per_class, config.num_per_value)
    apply, untrained = classifiers.build_small(
        study.network, 6, image_size=study.size, width=study.width, seed=study.seed
    )
    for cue in config.networks:
        with step(cue, seconds):
            train = in_memory(study.source("train", study.tasks()[cue]))
            variables = cue_conflict.trained(study, cue, apply, untrained, train, None)
            asked = ArraySource(test.images, test.extras[f"{cue}s"], class_names=NAMES[cue])
            for layer in config.layers:
                rows += tested(config, cue, apply, variables, given, random, asked, layer)
            found.append(factorized(config, cue, apply, variables, asked))
    for row in rows:
        say("  ".join(f"{value:.2f}" if isinstance(value, float) else str(value) for value in row.values()))
    draw(found).savefig(config.out / "concepts.png", dpi=style.DPI)
    metrics = {
        "rows": rows,
        "factors": [one["numbers"] for one in found],
        "seconds": seconds,
        "settings": plain_settings(config),
    }
    write_json(config.out / "cue_concepts.json", metrics)
    return metrics


def sets_of_values(objects: ArraySource, count: int, most: int) -> dict[str, Source]:
    """Of the first `count` objects, those that show each value of each cue, `most` of each."""
    sets = {}
    for cue in CUES:
        values = np.asarray(objects.extras[f"{cue}s"])[:count]
        for n, name in enumerate(NAMES[cue]):
            sets[name] = subset(objects, np.flatnonzero(values == n)[:most])
    return sets


def tested(
    config: Config,
    cue: str,
    apply: ApplyFn,
    variables: Variables,
    given: dict[str, Source],
    random: Source,
    asked: Source,
    layer: str,
) -> list[dict[str, Any]]:
    """The vectors and scores of the concepts of each cue, in one layer."""
    vectors = concepts.concept_vectors(
        apply,
        variables,
        given,
        random,
        layer=layer,
        num_runs=config.num_runs,
        num_images=config.num_per_value,
    )
    scores = concepts.tcav(apply, variables, vectors, asked)
    rows = []
    for n, other in enumerate(CUES):
        own = slice(6 * n, 6 * n + 6)
        means, is_significant = scores.means[:, own], scores.is_significant()[:, own]
        row = {
            "class": cue,
            "layer": layer,
            "concepts": other,
            "held-out accuracy": float(vectors.accuracies[own].mean()),
            "above chance": int(scores.is_above_chance[own].sum()),
            "significant": float(is_significant.mean()),
        }
        if other == cue:
            row["own score"] = float(np.diag(means).mean())
            row["own significant"] = int(np.diag(is_significant & (means > 0.5)).sum())
        rows.append(row)
    return rows


def factorized(
    config: Config, cue: str, apply: ApplyFn, variables: Variables, asked: ArraySource
) -> dict[str, Any]:
    """The concepts of the images that the network assigns to its most frequent class."""
    images = asked[np.arange(len(asked))]["images"]
    decided = np.asarray(jax.jit(apply)(variables, images).argmax(1))
    target = int(np.bincount(decided).argmax())
    chosen = subset(asked, np.flatnonzero(decided == target))
    factors = concepts.concept_factors(
        apply, variables, chosen, num_concepts=config.num_concepts, layer=config.factored
    )
    shown = chosen[np.arange(min(config.num_importance, len(chosen)))]["images"]
    importance = concepts.concept_importance(
        apply, variables, shown, target, factors=factors, num_designs=64
    ).mean(0)
    maps = np.asarray(concepts.concept_maps(apply, variables, shown[: _SHOWN // 2], factors=factors))
    order = np.argsort(-np.asarray(importance))
    return {
        "numbers": {
            "class": NAMES[cue][target],
            "images": len(chosen),
            "relative error": float(factors.relative_error),
            "importance": np.asarray(importance)[order].tolist(),
        },
        "crops": [concepts.concept_crops(factors, chosen, int(n), num_crops=_SHOWN) for n in order],
        "images": shown[: _SHOWN // 2],
        "maps": np.moveaxis(maps[..., order] / maps.max((1, 2, 3), keepdims=True), -1, 0),
    }


def draw(found: list[dict[str, Any]], *, num_concepts: int = 3) -> Figure:
    """The most important concepts of each network: crops that show most of it, and where it is."""
    side, gap = 0.62, 0.06
    per_network = num_concepts * (side + gap) + 0.42
    columns = _SHOWN + 2 * (_SHOWN // 2)
    figure = Figure((0.75 + columns * (side + gap) + 0.1, len(found) * per_network + 0.05))
    for n, one in enumerate(found):
        top = n * per_network + 0.08
        write(figure, 0.08, top, f"Images decided for {one['numbers']['class']!r}", fontsize=9)
        for k in range(min(num_concepts, len(one["crops"]))):
            row = top + 0.26 + k * (side + gap)
            share = one["numbers"]["importance"][k]
            write(figure, 0.08, row + side / 2, f"{share:.2f}", fontsize=9, va="center")
            cells = [pixels(crop) for crop in one["crops"][k]]
            for image, heat in zip(one["images"], one["maps"][k], strict=True):
                cells += [pixels(image), overlay(image, heat)]
            for column, cell in enumerate(cells):
                show(place(figure, 0.55 + column * (side + gap), row, side, side), cell)
    return figure


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.cue_concepts"))
