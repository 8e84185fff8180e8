"""Which part of a flower does a relevant feature detect? Network dissection against the true masks of parts.

Paper: D. Bau, B. Zhou, A. Khosla, A. Oliva, A. Torralba, Network Dissection: Quantifying Interpretability of
Deep Visual Representations, CVPR 2017; the relevant features are those of Oramas et al., ICLR 2019.

    python -m experiments.dissection laptop         a minute on 2 CPU cores

It renders an8Flower, trains a small network (kept in `runs/dissection`), finds the features that are relevant
for some class, and measures every channel of the layers that hold some against the masks of background, stem,
leaves, petals and disc, on the held-out images. It prints two tables in Markdown.

What to expect: docs/concepts.md has what this prints.
"""

import dataclasses
from pathlib import Path

import numpy as np
import tyro

from experiments.flowers import flower_task
from experiments.job import say
from experiments.trained_tasks import TaskSettings
from vexplain.concepts import Dissection, detectors, dissect
from vexplain.datasets.an8flower import part_names
from vexplain.evaluation import Task
from vexplain.relevance import features, relevant_union
from vexplain.transforms import layers

_LAPTOP = TaskSettings(size=32, num_per_class=100, samples=2, width=8, epochs=40, learning_rate=3e-3)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    task: TaskSettings = _LAPTOP  # which flowers, and which network
    out: Path = Path("runs/dissection")
    level: float = 0.005  # of the paper: the share of activations above a threshold
    min_iou: float = 0.04  # of the paper: from here on a channel is a detector


PRESETS = {
    "smoke": (
        "Seconds: does everything run?",
        Config(
            TaskSettings(size=16, num_per_class=12, num_test=10, samples=1, width=4, epochs=2, batch_size=16)
        ),
    ),
    "laptop": ("A minute on 2 CPU cores, 32 px.", Config()),
    "accelerator": ("112 px.", Config(TaskSettings(size=112, num_per_class=1000, num_test=1000))),
}


def main(config: Config) -> dict[str, Dissection]:
    """Runs the experiment, prints its tables, and returns the dissection of each layer by name."""
    task = flower_task(config.task, directory=config.out)
    parts = part_names(config.task.difficulty)
    table = layers(task.apply, task.variables, task.test[np.arange(1)]["images"])
    options = {"concepts": parts, "level": config.level, "description": None}
    found = {
        layer.name: dissect(task.apply, task.variables, task.test, layer=layer, **options)
        for layer in table
        if layer.name in relevant_union(task.relevance) and layer.num_positions > 1
    }
    shares = np.mean([task.test[[n]]["part_masks"][0].mean((1, 2)) for n in range(len(task.test))], axis=0)
    say(f"held-out accuracy {task.accuracy:.1%} on {len(task.test)} images; share of the pixels: ")
    say(", ".join(f"{part} {share:.1%}" for part, share in zip(parts, shares, strict=True)))
    say("\n".join(_layer_rows(found, config.min_iou)))
    say("\n".join(_feature_rows(task, found, config.min_iou)))
    return found


def _layer_rows(found: dict[str, Dissection], min_iou: float) -> list[str]:
    """How many channels of each layer detect which part."""
    rows = ["\n| layer | channels | detectors |", "| --- | --- | --- |"]
    for name, dissection in found.items():
        concepts = [d.concept for d in detectors(dissection, min_iou=min_iou)]
        counts = ", ".join(f"{c} {concepts.count(c)}" for c in dissection.concepts if c in concepts)
        rows.append(f"| `{name}` | {len(dissection.iou)} | {counts or 'none'} |")
    return rows


def _feature_rows(task: Task, found: dict[str, Dissection], min_iou: float) -> list[str]:
    """What each relevant feature detects, the largest weight of any class first."""
    weights: dict[tuple[str, int], list[tuple[float, str]]] = {}
    for name in task.relevance.class_names:
        for feature in features(task.relevance, name):
            weights.setdefault((feature.layer, feature.channel), []).append((feature.weight, name))
    rows = ["\n| relevant feature | for the class (weight) | part | IoU |", "| --- | --- | --- | --- |"]
    for (layer, channel), of_class in sorted(weights.items(), key=lambda item: -max(item[1])[0]):
        classes = ", ".join(f"{name} ({weight:.2f})" for weight, name in sorted(of_class, reverse=True))
        part, iou = _best_part(found.get(layer), channel, min_iou)
        rows.append(f"| `{layer}[{channel}]` | {classes} | {part} | {iou} |")
    return rows


def _best_part(dissection: Dissection | None, channel: int, min_iou: float) -> tuple[str, str]:
    if dissection is None:
        return "no rows and columns", ""
    best = int(dissection.iou[channel].argmax())
    iou = float(dissection.iou[channel, best])
    return (dissection.concepts[best] if iou > min_iou else "none"), f"{iou:.3f}"


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.dissection"))
