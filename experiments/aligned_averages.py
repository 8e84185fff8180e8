"""Are average images better where the crops are aligned first? Against the true position, angle and scale.

Paper: J. Oramas, K. Wang, T. Tuytelaars, Visual Explanation by Interpretation, ICLR 2019, Section 3.1, whose
average images are blurred by "poor alignment of receptive fields" (the authors' talk). Here the crops of
every relevant feature of the main job's networks are aligned by `relevance.align_crops` and by two other
ways. The renderer knows where each part of the flower is in each crop.

    python -m experiments.aligned_averages smoke      seconds
    python -m experiments.aligned_averages laptop     15 minutes on 2 CPU cores, training included

It leaves `aligned_averages.json`, `.md` and a sheet for each variant in `runs/aligned_averages`, and keeps
the trained networks there. What was found is in docs/results/aligned_averages.md.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from tqdm.auto import tqdm

from experiments import an8flower
from experiments.aligned_averages_report import write_report
from experiments.aligned_averages_rivals import by_log_polar, by_moments, signal_fn
from experiments.aligned_averages_truth import FOLDS, errors_of, frames_of, in_crops, true_alignment
from experiments.classifier_job import checked_mesh, searched_layers
from experiments.job import plain_settings, say
from vexplain._files import write_json
from vexplain.datasets.an8flower import RenderedSource, fold_indices
from vexplain.relevance import (
    Alignment,
    Pick,
    align_crops,
    aligned_averages,
    average_image,
    crop_windows,
    features,
    identity_alignment,
    learn_relevance,
    load_relevance,
    residual_variance,
    save_relevance,
    top_exemplars,
)
from vexplain.relevance.exemplars import found as found_exemplars
from vexplain.streaming import fold_epoch
from vexplain.transforms import layers

Variant = Literal["single_6c", "double_12c"]
PAPER, OURS, MOMENTS, LOG_POLAR, TRUTH = "none", "congealing", "moments", "log-polar", "truth"


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of the experiment; those of the networks are the main job's."""

    out: Path = Path("runs/aligned_averages")
    variants: tuple[Variant, ...] = ("single_6c", "double_12c")
    size: int = 64  # of the images, in pixels
    num_per_class: int = 300  # a fifth of them is held out
    widths: tuple[int, int, int] = (20, 50, 500)
    epochs: int = 8
    batch_size: int = 64
    num_exemplars: int = 100  # crops of a feature
    controls: tuple[str, ...] = ("shuffled", "random phases")
    seed: int = 0


PRESETS = {
    "smoke": (
        "Seconds: does everything run?",
        Config(
            variants=("single_6c",),
            size=16,
            num_per_class=12,
            widths=(4, 6, 12),
            epochs=2,
            batch_size=16,
            num_exemplars=10,
        ),
    ),
    "laptop": ("The networks of the main job, 64 px.", Config()),
}


def main(config: Config) -> dict[str, Any]:
    """Runs the experiment and returns what `aligned_averages.json` holds."""
    started = time.monotonic()
    config.out.mkdir(parents=True, exist_ok=True)
    rows, pictures = [], []
    for variant in config.variants:
        for row, picture in _variant(config, variant):
            rows.append(row)
            pictures.append(picture)
    found = {
        "features": rows,
        "seconds": time.monotonic() - started,
        "settings": plain_settings(config),
    }
    write_json(config.out / "aligned_averages.json", found)
    say(write_report(config.out, found, pictures))
    return found


def _variant(config: Config, variant: Variant):
    """Measures and pictures of each relevant feature of the network of a variant."""
    names = ("size", "num_per_class", "widths", "epochs", "batch_size", "seed")
    settings = {name: getattr(config, name) for name in names}
    job = an8flower.Config(variant=variant, out=config.out / variant, **settings)
    job.out.mkdir(parents=True, exist_ok=True)
    mesh = checked_mesh(job.batch_size, 1)
    train, _ = an8flower.render_data(job)
    apply, variables = an8flower.train_network(job, train, mesh)
    table = layers(apply, variables, train[[0]]["images"])
    path = job.out / f"relevance-{config.size}-{config.num_per_class}-{config.epochs}-{config.seed}.npz"
    if not path.exists():
        options = {"layers": searched_layers(table)[0], "mu": job.mu, "batch_size": job.batch_size}
        learned = learn_relevance(apply, variables, train, on_empty_class="leave_out", mesh=mesh, **options)
        save_relevance(learned, path)
    learned = load_relevance(path)
    wanted = [(c, feature) for c in range(len(learned.class_names)) for feature in features(learned, c)]
    init, update = top_exemplars(
        apply, table, [Pick(f.layer, f.channel, c) for c, f in wanted], num_images=config.num_exemplars
    )
    options = {"batch_size": job.batch_size, "constants": variables, "mesh": mesh}
    exemplars = fold_epoch(update, init(), train, **options)
    source = RenderedSource(variant, job.num_per_class, job.size, job.samples, job.seed, job.difficulty)
    places = fold_indices(source, job.test_fold)[0]
    signals = {name: signal_fn(apply, table[name]) for name in dict.fromkeys(f.layer for _, f in wanted)}
    for n, (c, feature) in enumerate(tqdm(wanted, desc=f"Features of {variant}")):
        layer = table[feature.layer]
        _, indices, at_rows, at_columns = found_exemplars(exemplars, n)
        images = np.asarray(train[indices]["images"], np.float32)
        crops = crop_windows(images, layer, at_rows, at_columns)
        corners = np.array([layer.window(r, k)[:2] for r, k in zip(at_rows, at_columns, strict=True)])
        corners = np.zeros_like(corners) if layer.sees_whole_image else corners
        frames, coverage = frames_of(source, places[indices])
        coverage = crop_windows(coverage, layer, at_rows, at_columns)
        part, frames = in_crops(frames, coverage, corners, is_whole=layer.sees_whole_image)
        signal = signals[layer.name](variables, images, feature.channel, at_rows, at_columns)
        signal = crop_windows(np.asarray(signal)[..., None], layer, at_rows, at_columns)[..., 0]
        started = time.monotonic()
        ours = align_crops(crops)
        seconds = time.monotonic() - started
        alignments = {
            PAPER: identity_alignment(len(crops)),
            OURS: ours,
            MOMENTS: by_moments(signal),
            LOG_POLAR: by_log_polar(crops),
            TRUTH: true_alignment(frames, FOLDS[part]),
        }
        row = {
            "variant": variant,
            "class": learned.class_names[c],
            "feature": f"{feature.layer}[{feature.channel}]",
            "weight": float(feature.weight),
            "part": part,
            "window": list(crops.shape[1:3]),
            "num_crops": len(crops),
            "shares": list(ours.shares),
            "is_aligned": not np.array_equal(ours.shifts, alignments[PAPER].shifts),
            "seconds": seconds,
            "ways": {
                name: _measured(crops, alignment) | errors_of(alignment, frames, FOLDS[part])
                for name, alignment in alignments.items()
            },
            "controls": {
                name: _gain(control)
                for name, control in _controls(crops, config.seed).items()
                if name in config.controls
            },
        }
        yield row, [average_image(crops), *(average.image for average in aligned_averages(crops, ours))]


def _measured(crops: np.ndarray, alignment: Alignment) -> dict[str, float]:
    averages = aligned_averages(crops, alignment)
    energy = float(np.mean([_steepness(crop) for crop in crops]))
    sharp = sum(average.share * _steepness(average.image) for average in averages)
    return {
        "variance": float(residual_variance(crops, alignment).mean()),
        "variance, free offset": float(residual_variance(crops, alignment, free_offset=True).mean()),
        "sharpness": sharp / max(energy, 1e-12),
    }


def _steepness(image: np.ndarray) -> float:
    """Mean square of the differences between neighboring pixels that exist."""
    return float(sum(np.nanmean(np.diff(image, axis=axis) ** 2) for axis in (0, 1)))


def _controls(crops: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Crops without structure in common: their pixels shuffled, or the phases of their spectrum random."""
    rng = np.random.default_rng(seed)
    count, height, width, channels = crops.shape
    flat = crops.reshape(count, -1, channels)
    shuffled = np.stack([pixels[rng.permutation(height * width)] for pixels in flat]).reshape(crops.shape)
    middle = np.nanmean(crops, (1, 2), keepdims=True)
    phases = np.fft.rfft2(rng.normal(size=(count, height, width, 1)), axes=(1, 2))
    phases /= np.maximum(np.abs(phases), 1e-12)
    phases[:, 0, 0] = 1
    spectrum = np.fft.rfft2(np.nan_to_num(crops - middle), axes=(1, 2)) * phases
    smooth = np.fft.irfft2(spectrum, (height, width), axes=(1, 2)) + middle
    return {"shuffled": shuffled, "random phases": smooth.astype(np.float32)}


def _gain(crops: np.ndarray) -> float:
    """By how much alignment lowers the variance of a control."""
    alignment, none = align_crops(crops), identity_alignment(len(crops))
    if all(map(np.array_equal, alignment, none)):
        return 0.0
    return float(1 - residual_variance(crops, alignment).mean() / residual_variance(crops, none).mean())


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.aligned_averages"))
