"""What has this classifier learned, and why did it decide so: the main job, end to end.

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation: Improving Visual Feedback
Capabilities of Deep Neural Networks, ICLR 2019 (arXiv 1712.06302), Sections 3 and 4 on an8Flower. The data is
a re-creation: the original must be downloaded by hand.

    python -m experiments.an8flower laptop                              3 minutes on 2 CPU cores
    python -m experiments.an8flower laptop --variant double_12c         5 minutes
    python -m experiments.an8flower accelerator --variant double_12c    112 px, 1000 images a class

It renders an8Flower, trains a classifier, finds the features relevant for each class, shows what they look
like, explains test images, scores the explanations against the true part, and leaves `report.html`,
`metrics.json`, `relevance.npz` and all figures in `runs/an8flower`. Training resumes: call it again after an
interruption.

What to expect (Table 1 of the paper, IoU area in percent as recalled, unchecked; original data, 112 px): ours
22.5 / 23.2, guided backprop 21.3 / 21.9, Grad-CAM 17.5 / 14.8 on single_6c / double_12c. The numbers of this
code are in docs/results/an8flower.md.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from flax import nnx
from tqdm.auto import tqdm

from experiments.an8flower_report import write_figures_and_report
from experiments.classifier_job import (
    ablate,
    checked_mesh,
    find_features,
    measure_accuracy,
    passes_of,
    searched_layers,
    train_classifier,
)
from experiments.job import plain_settings, say, step
from vexplain import evaluation, relevance
from vexplain._files import write_json
from vexplain.attribution import cam_layer
from vexplain.catalog import as_methods, title_of
from vexplain.classifiers import FlowerNet, functionalize
from vexplain.datasets import Source, in_memory, subset
from vexplain.datasets.an8flower import RenderedSource, fold_indices
from vexplain.datasets.an8flower.source import NUM_FOLDS
from vexplain.relevance import interpret
from vexplain.streaming import Checkpoint, fold_epoch, is_writer
from vexplain.transforms import layers

# One of each kind, in minutes; `experiments.ground_truth` compares all of them.
METHODS = (
    "relevant_features",
    "resampled_relevant_features",
    "relevant_evidence",
    "gradient",
    "guided_backprop",
    "grad_cam",
    "upsampled_activation",
    "sobel_edges",
    "random_map",
)


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the main job."""

    variant: Literal["single_6c", "double_12c"] = "single_6c"
    difficulty: str = "plain"  # or textured, distractors, occluded, context, low_contrast, shortcut
    out: Path = Path("runs/an8flower")
    size: int = 64  # height and width of the images, in pixels
    num_per_class: int = 300  # a fifth of them is held out
    test_fold: int = 0  # 0 to 4
    samples: int = 3  # rays a pixel along each axis
    widths: tuple[int, int, int] = (20, 50, 500)  # of the network, as in the paper's for MNIST
    epochs: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3  # peak; cosine decay to zero
    seed: int = 0
    mu: float = 5.0  # released by the authors for an8Flower; 10 elsewhere
    num_features: int = 3  # heatmaps an image, K
    num_exemplars: int = 100  # crops in an average image
    num_draws: int = 5  # of random features in the ablation
    num_explained: int = 12  # test images shown in the report, shared out over the classes
    devices: int | None = None  # all, if left out

    def __post_init__(self):
        """Raises ValueError for a setting that could only fail later, after minutes of rendering."""
        counts = ("num_per_class", "samples", "epochs", "batch_size", "num_features", "num_exemplars")
        for name in (*counts, "num_draws", "num_explained"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        for name in ("mu", "learning_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a positive number")
        if self.size < 4 or self.size % 4:
            raise ValueError(
                f"size is {self.size}: expected a multiple of 4, for the network pools twice by 2"
            )
        if not 0 <= self.test_fold < NUM_FOLDS:
            raise ValueError(f"test_fold is {self.test_fold}: expected 0 to {NUM_FOLDS - 1}")
        if min(self.widths) < 1:
            raise ValueError(f"widths is {self.widths}: expected 1 or more channels a layer")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: expected 0 or more")
        if self.devices is not None and self.devices < 1:
            raise ValueError(f"devices is {self.devices}: expected 1 or more, or none for all")


_SMOKE = Config(size=16, num_per_class=12, widths=(4, 6, 12), epochs=3, batch_size=16, num_exemplars=5)
PRESETS = {
    "smoke": ("Seconds: does everything run?", _SMOKE),
    "laptop": ("Minutes on 2 CPU cores, 64 px.", Config()),
    "accelerator": (
        "The size of the paper, 112 px.",
        Config(size=112, num_per_class=1000, epochs=10, batch_size=128),
    ),
}


def main(config: Config) -> dict[str, Any]:
    """Runs the job and returns what `metrics.json` holds."""
    started, timings = time.monotonic(), {}
    mesh = checked_mesh(config.batch_size, config.devices)
    say(f"vexplain: the main job on an8Flower {config.variant}, {config.size} px; results in {config.out}")
    config.out.mkdir(parents=True, exist_ok=True)

    with step("Rendering", timings):
        train, test = render_data(config)
    rate = (len(train) + len(test)) / timings["Rendering"]
    with step("Training", timings):
        apply, variables = train_network(config, train, mesh)
    table = layers(apply, variables, test[[0]]["images"])
    say(f"\n{table}\n")
    passes = passes_of(config, without=("num_explained",))
    accuracy = measure_accuracy(apply, variables, test, mesh, config.batch_size, passes.below("accuracy"))
    say(f"held-out accuracy {accuracy:.2%} on {len(test)} images")

    with step("Relevant features", timings):
        searched = searched_layers(table)
        options = {"mu": config.mu, "batch_size": config.batch_size, "mesh": mesh, "checkpoint": passes}
        found, found_conv = find_features(apply, variables, train, searched, **options)
    say(f"\n{found}\n")
    with step("Average images", timings):
        views = interpret(
            apply,
            variables,
            table,
            found,
            train,
            num_images=config.num_exemplars,
            batch_size=config.batch_size,
            mesh=mesh,
            checkpoint=passes.below("average-images"),
        )
    with step("Explanations and scores", timings):
        methods = as_methods(METHODS, num_features=config.num_features)
        network = evaluation.ExplainedNetwork(variables, found)
        scores = score(config, apply, network, methods, test, mesh, passes.below("scores"))
    with step("Ablation", timings):
        options = {"num_draws": config.num_draws, "seed": config.seed}
        options |= {"batch_size": config.batch_size, "mesh": mesh}
        done = passes.below("ablation")
        ablation = ablate(apply, variables, table, (found, found_conv), test, checkpoint=done, **options)
        ablation["accuracy"] = accuracy

    metrics = {
        "variant": config.variant,
        "accuracy": accuracy,
        "num_test_images": len(test),
        "num_candidates": relevance.layout_size(found.layout),
        "num_features": dict(zip(found.class_names, map(int, relevance.num_features(found)), strict=True)),
        "relative_duality_gap": float(np.max(found.gaps)),
        "cam_layer": cam_layer(table),
        "scores": {name: _plain(s) for name, s in scores.items()},
        "ablation": ablation,
        "rendering_images_per_second": rate,
        "seconds": timings | {"total": time.monotonic() - started},
        "settings": plain_settings(config),
    }
    if is_writer():
        write_json(config.out / "metrics.json", metrics)
        relevance.save_relevance(found, config.out / "relevance.npz")
        report = write_figures_and_report(
            config.out,
            apply,
            network,
            views,
            scores,
            methods,
            metrics,
            test,
            num_explained=config.num_explained,
        )
        for name, s in scores.items():
            area, best = s.mean("IoU area"), s.mean("best IoU")
            say(f"  {title_of(name):34s} IoU area {area:6.2%}   best IoU {best:6.2%}   {s.sign}")
        say(
            f"accuracy without relevant features {ablation['relevant']:.2%}, without random ones "
            f"{np.mean(ablation['random']):.2%}\n\nThe report is in {report}"
        )
    passes.remove()
    return metrics


def render_data(config: Config) -> tuple[Source, Source]:
    """Renders the images once, keeps them in memory, and splits off a fold for testing."""
    rendered = RenderedSource(
        config.variant, config.num_per_class, config.size, config.samples, config.seed, config.difficulty
    )
    train, test = fold_indices(rendered, config.test_fold)
    if len(train) < config.batch_size or not len(test):
        raise ValueError(
            f"num_per_class is {config.num_per_class}: leaves {len(train)} images for training and "
            f"{len(test)} for testing, of which a batch takes {config.batch_size}; raise it, or lower "
            "batch_size"
        )
    source = in_memory(rendered, progress=lambda r: tqdm(r, desc="Rendering", unit="batch"))
    return subset(source, train), subset(source, test)


def train_network(config: Config, train: Source, mesh: Any):
    """Trains the network of the paper, or goes on where a checkpoint stops."""
    num_classes = len(train.class_names)
    module = FlowerNet(num_classes, image_size=config.size, widths=config.widths, rngs=nnx.Rngs(config.seed))
    apply, variables = functionalize(module)
    options = {"epochs": config.epochs, "learning_rate": config.learning_rate}
    return apply, train_classifier(config, apply, variables, train, mesh, **options)


def score(
    config: Config, apply: Any, network: Any, methods: Any, test: Source, mesh: Any, checkpoint: Checkpoint
):
    """What every method scores against the true part, on all test images."""
    init, update = evaluation.heatmap_scores(apply, methods, num_images=len(test), seed=config.seed)
    return evaluation.summarize(
        fold_epoch(
            update,
            init(),
            test,
            batch_size=config.batch_size,
            constants=network,
            mesh=mesh,
            checkpoint=checkpoint,
            description="Scoring heatmaps",
        )
    )


def _plain(score: evaluation.Score) -> dict[str, Any]:
    return {
        "means": {name: score.mean(name) for name in score.values},
        "standard_errors": {name: score.standard_error(name) for name in score.values},
        "curve": [round(float(v), 5) for v in score.curve],
        "sign": score.sign,
    }


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.an8flower"))
