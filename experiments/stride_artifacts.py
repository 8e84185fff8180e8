"""How much grid do strided convolutions leave in heatmaps, and what does RESAMPLED_STRIDE keep without it?

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 3.3 and
Figure 3, which show the artifacts and the fix, and measure neither. The measures are ours
(`vexplain.evaluation.stride_artifact_energy`).

    python -m experiments.stride_artifacts laptop        8 minutes on 2 busy CPU cores
    python -m experiments.stride_artifacts accelerator   more images and training

VGG-F, AlexNet and ResNet-50 with random weights on flowers of 224 px, and a network with a first convolution
of stride 4 that is trained here on an8Flower, where the true part is known. Layer by layer, guided
backpropagation as the network is, with the rule, with RESAMPLED_POOL (*ours*) too, at stride 1 with the same
weights and the same total pooling, and blurred by a box as large as the grid's period, which removes a grid
too. Leaves `report.html`, `metrics.json` and figures in `runs/stride_artifacts`. Training resumes.

What to expect (laptop, mean of 240 test images): at the trained network's first ReLU the grid has 31 % of the
map's energy, and 0.1 % with the rule; IoU area 23.9 % as it is, 42.9 % with the rule, 41.9 % blurred, 26.1 %
at stride 1. Next to the pixels the rule is nearly a box blur of the signed map; at the later strides of
ResNet-50 it is not. All numbers are in the README.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from flax import nnx
from tqdm.auto import tqdm

from experiments.classifier_job import passes_of, train_classifier
from experiments.job import plain_settings, say, step
from experiments.stride_artifacts_maps import (
    BLURRED,
    RULES,
    STRIDE_1,
    STRIDED,
    TREATMENTS,
    StridedFlowerNet,
    at_stride_one,
    box_blur,
    grid_period,
    last_of_each_part,
    layer_attributions,
    measures,
    summary,
    treated,
)
from experiments.stride_artifacts_report import Example, write_figures_and_report
from vexplain import relevance
from vexplain._files import write_json
from vexplain.attribution import normalize_heatmaps
from vexplain.classifiers import VGGF, AlexNet, ResNet, functionalize
from vexplain.datasets import Source, in_memory, subset
from vexplain.datasets.an8flower import RenderedSource, fold_indices
from vexplain.relevance import explain
from vexplain.streaming import is_writer
from vexplain.transforms import GUIDED, layers

RECIPE = "relevant features"  # the recipe of the paper in place of a layer
TRAINED = "StridedFlowerNet, trained"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    out: Path = Path("runs/stride_artifacts")
    networks: tuple[str, ...] = ("vgg_f", "alexnet", "resnet50")  # with random weights
    network_size: int = 224  # pixels of their images
    num_images: int = 4  # for each of them
    narrowing: int = 1  # their channels are divided by it
    size: int = 64  # pixels of the images of the trained network
    num_per_class: int = 200  # a fifth of them is held out
    samples: int = 3  # rays a pixel along each axis
    widths: tuple[int, int, int] = (32, 50, 500)  # of the trained network
    epochs: int = 12
    batch_size: int = 40
    learning_rate: float = 1e-3  # peak; cosine decay to zero
    mu: float = 5.0  # of the relevant features
    seed: int = 0

    def __post_init__(self):
        """Raises ValueError for a setting that could only fail later."""
        for name in ("num_images", "narrowing", "num_per_class", "samples", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if self.num_images < 2:
            raise ValueError(f"num_images is {self.num_images}: a standard error takes 2 or more")
        if self.size < 24 or self.size % 8:
            raise ValueError(f"size is {self.size}: expected a multiple of 8, 24 or more")
        if unknown := set(self.networks) - {"vgg_f", "alexnet", "resnet50"}:
            raise ValueError(f"networks has {sorted(unknown)}: expected vgg_f, alexnet, resnet50")
        if "vgg_f" in self.networks and self.network_size != VGGF.size:
            raise ValueError(f"network_size is {self.network_size}: vgg_f takes {VGGF.size} only")


_SMOKE = Config(
    networks=("alexnet",),
    network_size=72,
    num_images=2,
    narrowing=16,
    size=32,
    num_per_class=6,
    samples=1,
    widths=(4, 5, 7),
    epochs=2,
    batch_size=6,
)
PRESETS = {
    "smoke": ("Seconds: does everything run?", _SMOKE),
    "laptop": ("Ten minutes on 2 CPU cores.", Config()),
    "accelerator": (
        "More images, and the trained network at 112 px.",
        Config(num_images=32, size=112, num_per_class=1000, batch_size=100),
    ),
}
Row = dict[str, Any]


def main(config: Config) -> dict[str, Any]:
    """Runs the experiment and returns what `metrics.json` holds."""
    started, timings = time.monotonic(), {}
    config.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    examples: list[Example] = []
    images = network_images(config)
    for name in config.networks:
        with step(name, timings):
            found, shown = random_network(config, name, images)
        rows, examples = rows + found, examples + shown
        say(_lines(found))
    with step("Rendering", timings):
        train, test = render_data(config)
    with step("Training", timings):
        module, variables = train_network(config, train)
    with step("Scores of the trained network", timings):
        found, shown, accuracies = trained_network(config, module, variables, train, test)
    say(_lines(found))
    metrics = {
        "accuracy": accuracies,
        "num_test_images": len(test) // config.batch_size * config.batch_size,
        "rows": rows + found,
        "seconds": timings | {"total": time.monotonic() - started},
        "settings": plain_settings(config),
    }
    if is_writer():
        write_json(config.out / "metrics.json", metrics)
        report = write_figures_and_report(config.out, metrics, examples + shown)
        say(f"\nThe report is in {report}")
    passes_of(config).remove()
    return metrics


def network_images(config: Config) -> jax.Array:
    """Flowers in the size of the published networks."""
    samples = min(config.samples, 2)
    source = RenderedSource("double_12c", 8, config.network_size, samples, seed=config.seed)
    return jnp.asarray(source[np.arange(config.num_images) * 7 % len(source)]["images"])


def random_network(config: Config, name: str, images: jax.Array) -> tuple[list[Row], list[Example]]:
    """Measures a published network with random weights, layer by layer."""
    module = published(name, config)
    (apply, variables), (dense, _) = functionalize(module), functionalize(at_stride_one(module))
    table = layers(apply, variables, images)
    names = last_of_each_part(table)
    sent = [
        *(layer_attributions(apply, variables, images, names, rules) for rules in RULES.values()),
        layer_attributions(dense, variables, images, names, RULES[STRIDED]),
    ]
    rows, examples = [], []
    for n, layer in enumerate(names):
        period = grid_period(table, layer)
        maps = treated([of_layers[n] for of_layers in sent], period)
        rows += rows_of(name, layer, period, measures(maps, period))
        shown = {k: np.asarray(v[0]) for k, v in maps.items()}
        examples.append(Example(name, layer, period, np.asarray(images[0]), shown))
    return rows, examples


def published(name: str, config: Config) -> nnx.Module:
    """The network with random weights. Its dense layers, which no heatmap here comes from, are small."""
    rngs, by = nnx.Rngs(config.seed), config.narrowing
    if name == "resnet50":
        return ResNet(num_classes=10, width=64 // by, rngs=rngs)
    make, widths = {
        "vgg_f": (VGGF, (64, 256, 256, 256, 256)),
        "alexnet": (AlexNet, (64, 192, 384, 256, 256)),
    }[name]
    return make(10, widths=[w // by for w in widths], hidden=8, rngs=rngs)


def render_data(config: Config) -> tuple[Source, Source]:
    """Renders an8Flower, and splits off a fifth for testing."""
    rendered = RenderedSource(
        "single_6c", config.num_per_class, config.size, config.samples, seed=config.seed
    )
    train, test = fold_indices(rendered, 0)
    if min(len(train), len(test)) < config.batch_size:
        raise ValueError(
            f"num_per_class is {config.num_per_class}: leaves {len(train)} images for training and "
            f"{len(test)} for testing, of which a batch takes {config.batch_size}; raise it, or lower "
            "batch_size"
        )
    source = in_memory(rendered, progress=lambda r: tqdm(r, desc="Rendering", unit="batch"))
    return subset(source, train), subset(source, test)


def train_network(config: Config, train: Source) -> tuple[nnx.Module, Any]:
    """Trains the strided network, or goes on where a checkpoint stops."""
    num_classes, rngs = len(train.class_names), nnx.Rngs(config.seed)
    module = StridedFlowerNet(num_classes, image_size=config.size, widths=config.widths, rngs=rngs)
    apply, variables = functionalize(module)
    trained = train_classifier(
        config,
        apply,
        variables,
        train,
        None,
        epochs=config.epochs,
        learning_rate=config.learning_rate,
        without=("networks", "network_size", "num_images", "narrowing"),
    )
    return module, trained


def trained_network(
    config: Config, module: nnx.Module, variables: Any, train: Source, test: Source
) -> tuple[list[Row], list[Example], dict[str, float]]:
    """Measures the trained network on the test images, layer by layer and by the recipe of the paper."""
    (apply, _), (dense, _) = functionalize(module), functionalize(at_stride_one(module))
    table = layers(apply, variables, test[[0]]["images"])
    names = tuple(row.name for row in table if row.kind == "relu")
    found = relevance.learn_relevance(
        apply,
        variables,
        train,
        layers=names,
        mu=config.mu,
        labels="true",
        batch_size=config.batch_size,
        checkpoint=passes_of(config).below("relevance"),
    )
    per_image: dict[str, list[Any]] = {layer: [] for layer in (*names, RECIPE)}
    hits, examples = {STRIDED: [], STRIDE_1: []}, []
    for start in tqdm(
        range(0, len(test) - config.batch_size + 1, config.batch_size), desc="Scoring heatmaps"
    ):
        batch = test[np.arange(start, start + config.batch_size)]
        images, masks = jnp.asarray(batch["images"]), jnp.asarray(batch["masks"])
        for key, network in ((STRIDED, apply), (STRIDE_1, dense)):
            hits[key].append(np.argmax(network(variables, images), -1) == batch["labels"])
        for layer, maps in maps_of_trained(apply, dense, variables, images, names, found).items():
            per_image[layer].append(measures(maps, 4, masks))
            if not start:
                shown = {k: np.asarray(v[0]) for k, v in maps.items()}
                examples.append(Example(TRAINED, layer, 4, np.asarray(images[0]), shown))
    rows = []
    for layer, parts in per_image.items():
        joined = jax.tree.map(lambda *v: np.concatenate(v), *parts)
        rows += rows_of(TRAINED, layer, 4, {t: joined[t] for t in TREATMENTS if t in joined})
    return rows, examples, {key: float(np.mean(np.concatenate(v))) for key, v in hits.items()}


def maps_of_trained(apply, dense, variables, images, names, found) -> dict[str, Mapping[str, Any]]:
    """Heatmaps of the trained network: by layer, and of the relevant features together; by treatment."""
    sent = [
        *(layer_attributions(apply, variables, images, names, rules) for rules in RULES.values()),
        layer_attributions(dense, variables, images, names, RULES[STRIDED]),
    ]
    maps: dict[str, Mapping[str, Any]] = {
        layer: treated([of_layers[n] for of_layers in sent], 4) for n, layer in enumerate(names)
    }
    explained = {
        treatment: explain(apply, variables, images, relevance=found, rules=rules)
        for treatment, rules in RULES.items()
    }
    targets = explained[STRIDED].targets
    explained[STRIDE_1] = explain(dense, variables, images, targets, relevance=found, rules=GUIDED)
    recipe = {treatment: explanation.heatmaps for treatment, explanation in explained.items()}
    return maps | {RECIPE: recipe | {BLURRED: normalize_heatmaps(box_blur(recipe[STRIDED], 4))}}


def rows_of(network: str, layer: str, period: int, found: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """One row a treatment: mean and standard error of each measure, and of its gain over the blur."""
    rows = []
    for treatment, values in found.items():
        row = {"network": network, "layer": layer, "period": period, "treatment": treatment}
        row |= {"measures": {key: summary(v) for key, v in values.items()}}
        gains = {key: summary(np.asarray(v) - np.asarray(found[BLURRED][key])) for key, v in values.items()}
        rows.append(row | {"gain_over_blur": gains})
    return rows


def _lines(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        found = {key: f"{mean:.3f}" for key, (mean, _) in row["measures"].items()}
        lines.append(f"{row['network']} {row['layer']} /{row['period']}  {row['treatment']:32} {found}")
    return "\n".join(lines)


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.stride_artifacts"))
