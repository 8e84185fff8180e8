"""Do visualizations of relevant features excite them more than any image does? On rendered textures.

Method: Olah et al., Feature Visualization, Distill 2017; Fel et al., NeurIPS 2023 (fixed magnitudes).
A small network learns the texture of rendered objects. For the most relevant feature of each class: the image
of the training set that excites it most in the mean over positions, and images that are made for it.

    python -m experiments.feature_visualization smoke      seconds
    python -m experiments.feature_visualization laptop     10 minutes on 2 CPU cores that other work uses

It leaves `feature_visualization.png` and `.md` in `runs/feature_visualization`. Found: each image of
Fourier coefficients excites its feature 3.3 to 5.5 times as much as the best image of the set; those of fixed
magnitudes, which have no more contrast than a real image, 0.5 to 0.8 times.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from vexplain import concepts
from vexplain._text import aligned
from vexplain.classifiers import build_small, train
from vexplain.datasets import ArraySource
from vexplain.datasets.cue_objects import CueSource
from vexplain.figures import save_figure, style
from vexplain.figures.sheet import place, write
from vexplain.relevance import features, learn_relevance
from vexplain.transforms import Layer, channels_last, layers, read

SIDE, GAP, LEFT = 1.1, 0.08, 1.25  # inches


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment."""

    out: Path = Path("runs/feature_visualization")
    num_per_class: int = 100
    size: int = 48  # pixels
    width: int = 16  # of the network
    epochs: int = 20
    num_steps: int = 256
    seed: int = 0


PRESETS = {
    "smoke": (
        "seconds",
        Config(
            Path("runs/feature_visualization_smoke"),
            num_per_class=10,
            size=24,
            width=4,
            epochs=1,
            num_steps=4,
        ),
    ),
    "laptop": ("10 minutes on 2 CPU cores that other work uses", Config()),
}


def main(config: Config) -> dict[str, Any]:
    """Trains, draws and writes; returns the scores by class."""
    rendered = CueSource(texture=1.0, num_per_class=config.num_per_class, size=config.size)
    batch = rendered[np.arange(len(rendered))]
    source = ArraySource(batch["images"], batch["labels"], class_names=rendered.class_names)
    network = {"image_size": config.size, "width": config.width, "seed": config.seed}
    apply, variables = build_small("all_conv_net", len(source.class_names), **network)
    options = {"batch_size": min(32, len(source)), "learning_rate": 3e-3, "seed": config.seed}
    variables = train(apply, variables, source, epochs=config.epochs, **options)
    hits = np.concatenate(
        [jax.jit(apply)(variables, part) for part in np.array_split(batch["images"], 6)]
    ).argmax(1)
    accuracy = float((hits == batch["labels"]).mean())
    relevance = learn_relevance(apply, variables, source, on_empty_class="leave_out")
    table = layers(apply, variables, batch["images"][:1])
    found = {name: features(relevance, name)[:1] for name in source.class_names}
    chosen = {name: of_class[0] for name, of_class in found.items() if of_class}

    statistics = concepts.image_statistics(source)
    ways = {
        "Fourier coefficients": concepts.fourier_images(statistics.image_shape, colors=statistics.colors),
        "fixed magnitudes": concepts.fixed_magnitudes(statistics),
    }
    key, rows = jax.random.key(config.seed), {}
    for name, feature in chosen.items():
        layer, row = table[feature.layer], {}
        best = _scores(apply, variables, batch["images"], layer, feature.channel)
        row["best image"] = (batch["images"][best.argmax()], float(best.max()))
        for way, parametrization in ways.items():
            drawn = concepts.visualize(
                apply,
                variables,
                feature.channel,
                parametrization,
                layer=layer,
                key=key,
                num_steps=config.num_steps,
            )
            row[way] = (np.asarray(drawn.images[0]), float(drawn.scores[0]))
        rows[f"{name}: {feature.layer}, channel {feature.channel}"] = row
    _write(config, rows, accuracy)
    return {name: {way: score for way, (_, score) in row.items()} for name, row in rows.items()}


def _scores(apply: Any, variables: Any, images: np.ndarray, layer: Layer, channel: int) -> np.ndarray:
    """The mean of a channel over its positions, for each image."""

    @jax.jit
    def of_batch(variables, part):
        return channels_last(read(apply, [layer.name])(variables, part)[1][layer.name], layer)[..., channel]

    parts = np.array_split(images, max(len(images) // 100, 1))
    return np.concatenate([np.asarray(of_batch(variables, p)).reshape(len(p), -1).mean(1) for p in parts])


def _write(config: Config, rows: dict[str, Any], accuracy: float) -> None:
    ways = list(next(iter(rows.values())))
    table = [[name, *(f"{score:.3g}" for _, score in row.values())] for name, row in rows.items()]
    text = f"accuracy on the training set: {accuracy:.3f}\n\n{aligned(['feature', *ways], table)}\n"
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "feature_visualization.md").write_text(text, "utf-8")
    print(text)
    with style.context():
        figure = style.new_figure(LEFT + (SIDE + GAP) * len(rows) + GAP, 0.5 + (SIDE + GAP) * len(ways))
        for column, (name, row) in enumerate(rows.items()):
            left = LEFT + column * (SIDE + GAP)
            write(
                figure, left, 0.1, name.replace(": ", "\n").replace(", channel", ","), fontsize=7, width=SIDE
            )
            for n, (way, (image, _)) in enumerate(row.items()):
                top = 0.45 + n * (SIDE + GAP)
                axes = place(figure, left, top, SIDE, SIDE)
                axes.imshow(image, interpolation="nearest")
                axes.set_axis_off()
                if not column:
                    write(figure, 0.1, top + SIDE / 2, way.replace(" ", "\n"), va="center", fontsize=8)
        save_figure(figure, config.out / "feature_visualization.png")


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.feature_visualization"))
