"""Shape translation: a T-shirt in the shape of trousers, its appearance and pose kept, learned without pairs.

Paper: L. Bollens, T. Tuytelaars, J. Oramas, Towards Object Shape Translation Through Unsupervised Generative
Deep Models, ICIP 2019. Its structure is known (a VAE for each domain, GAN, cycle and similarity losses), its
details are not: networks, weights and the similarity loss are *reconstructed*. The data is rendered, so that
the true translation of every test image is known.

    python -m experiments.shape_translation laptop                         the full model: 30 minutes, 2 cores
    python -m experiments.shape_translation laptop --rung gan --minutes 8  a rung of the ladder
    python -m experiments.shape_translation accelerator                    64 px; call it again until done
    python -m experiments.shape_translation accelerator --rung supervised  its upper bound, trained with pairs
    python -m experiments.shape_translation accelerator --size 128 --seed 1
    python -m experiments.shape_translation laptop --a shirts --b trousers  two folders of images

Rungs: `vae` (two VAEs), `gan` (+ GAN), `cycle` (+ cycle), `similarity` (+ similarity: the full model, the
default), `shared` (the full model with a shared encoder), the rivals `cyclegan` and `unit`, whose losses are
the published ones on networks of this house, and `supervised`, the networks of the full model trained with
pairs. Each is trained in a folder of its own and resumes there; every call writes the report anew, with a row
for every rung that has been trained and for controls that learn nothing, which every model should beat. Rungs
that were trained with several seeds are compared seed by seed.

Training stops after `minutes` or `num_steps`, whichever comes first; a call stops after `call_minutes`. A run
that is bounded by time is not repeatable to the bit; one bounded by steps is.
"""

import contextlib
import dataclasses
import functools
import io
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optax
import tyro
from tensorboardX import SummaryWriter
from tqdm.auto import tqdm

from experiments.job import fingerprint, plain_settings, say
from experiments.shape_translation_folders import run_on_folders
from experiments.shape_translation_report import write_ladder_report
from experiments.shape_translation_scores import (
    galleries,
    in_direction,
    means,
    recall,
    scores_of,
)
from vexplain._files import write_json, write_whole
from vexplain.datasets import Source, in_memory, paired_batches, unpaired_batches
from vexplain.datasets.shape_swap import ShapeSwapSource, paired_test
from vexplain.streaming import Checkpoint, agree_on, is_writer
from vexplain.streaming.devices import data_mesh
from vexplain.streaming.processes import wait_for_all
from vexplain.translation import (
    VAES,
    Latent,
    NetworkSettings,
    Sharing,
    TranslationState,
    Translator,
    Weights,
    collapse,
    cycle_scores,
    in_batches,
    num_parameters,
    train_translator,
    translation_report,
)

Rung = Literal["vae", "gan", "cycle", "similarity", "shared", "cyclegan", "unit", "supervised"]
# The steps of the talk, and all of them with sharing.
LADDER = ("vae", "gan", "cycle", "similarity", "shared")
SHOWN = ("iou_gain", "hue_error", "delta_e", "l1", "centroid_error", "score")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one training."""

    rung: Rung = "similarity"  # the full model; with a shared encoder it learns more slowly
    out: Path = Path("runs/shape_translation")
    a: Path | None = None  # folder of images of domain A, and
    b: Path | None = None  # of domain B; rendered if left out
    level: int = 4  # of shape swap: T-shirt and trousers
    variant: Literal["U", "N", "F"] = (
        "U"  # uniform hues, where a change of all hues goes unnoticed, skewed ones, or finer textures
    )
    size: int = 32  # height and width of the images, in pixels
    width: int = 32  # of the networks
    latent: Latent = "vector"  # aligns position and size; a grid keeps more of the texture
    latent_size: int = 128  # numbers in the vector, or in each vector of the grid
    num_blocks: int = 2  # residual blocks around the latent
    num_images: int = 20_000  # a domain
    num_pairs: int = 500  # of the test set
    batch_size: int = 16
    learning_rate: float = 6e-4
    num_steps: int = 100_000
    minutes: float = 30.0  # of training, over all calls
    call_minutes: float = float("inf")  # of training, in one call
    vae_steps: int = 800  # of the two VAEs alone, before all is trained together; not of the rivals
    every: int = 250  # steps between two checkpoints, log lines and sample grids
    gan: float = 2.0  # weight; of a loss with a factor ½, so that 2 is CycleGAN's 1
    color: float = 5.0  # weight of the similarity S1
    pose: float = 2.0  # weight of the similarity S8
    offset: float = 5.0  # weight of the similarity S9
    cycle_noise: float = 0.05  # on translations on their way back, of the ladder and not of the rivals
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    devices: int | None = None  # all, if left out

    def __post_init__(self):
        if (self.a is None) != (self.b is None) or (self.a is not None and self.rung == "supervised"):
            raise ValueError(f"a is {self.a} and b {self.b}: expected two folders, and a rung without pairs")
        if self.vae_steps < 0:
            raise ValueError(f"vae_steps is {self.vae_steps}: expected 0 or more")
        for name in ("num_images", "num_pairs", "batch_size", "num_steps", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        for name in ("minutes", "call_minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected more than 0")


PRESETS = {
    "smoke": (
        "Seconds: does everything run?",
        Config(size=16, width=4, num_images=64, num_pairs=8, batch_size=8, vae_steps=2, num_steps=6, every=3),
    ),
    "laptop": ("30 minutes on 2 CPU cores, 32 px.", Config()),
    "accelerator": (
        "64 px, in commands of 10 minutes that go on where the last one stopped.",
        Config(
            size=64,
            width=64,
            num_pairs=2000,
            batch_size=64,
            learning_rate=1.5e-4,  # four times the channels of the laptop's: at 6e-4 the decoders go white
            num_steps=60_000,
            minutes=float("inf"),
            call_minutes=8.0,
            every=1000,
            precision="bfloat16",
        ),
    ),
}


def networks(config: Config) -> NetworkSettings:
    """Sizes of the networks of a rung; those of the rivals are the same around maps without a bottleneck."""
    sharing: dict[str, Sharing] = {"shared": "encoder", "unit": "middle"}
    full = NetworkSettings(
        image_size=config.size,
        width=config.width,
        latent=config.latent,
        latent_size=config.latent_size,
        num_blocks=config.num_blocks,
        sharing=sharing.get(config.rung, "nothing"),
        precision=config.precision,
    )
    if config.rung in ("cyclegan", "unit"):
        variance: Literal["none", "fixed"] = "none" if config.rung == "cyclegan" else "fixed"
        latent: Latent = "4x4" if config.size < 64 else "16x16"
        return dataclasses.replace(full, latent=latent, latent_size=4 * config.width, variance=variance)
    return full


def weights(config: Config) -> Weights:
    """Losses of a rung: the steps of the talk, and the published ones of the rivals."""
    similarity = {"color": config.color, "pose": config.pose, "offset": config.offset}
    full = Weights(gan=config.gan, cycle_noise=config.cycle_noise, **similarity)
    without = dataclasses.replace(full, **dict.fromkeys(similarity, 0.0))
    rival = dataclasses.replace(without, cycle_noise=0.0)
    rungs = {
        "vae": VAES,
        "gan": dataclasses.replace(without, cycle=0.0),
        "cycle": without,
        "similarity": full,
        "shared": full,
        "cyclegan": dataclasses.replace(rival, reconstruction=0.0, kl=0.0, identity=5.0),
        "unit": dataclasses.replace(rival, kl=0.01, kl_cycle=0.01),
        "supervised": dataclasses.replace(VAES, paired=10.0),
    }
    return rungs[config.rung]


def main(config: Config) -> dict[str, Any]:
    """Trains a rung as far as its time goes, scores it, and writes the report of all rungs."""
    if config.a is not None and config.b is not None:
        return run_on_folders(config, Translator(networks(config)), train)
    folder = config.out / f"{config.rung}-{config.variant}-seed{config.seed}"
    say(f"vexplain: shape translation, {config.rung}, {config.size} px; results in {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    translator = Translator(networks(config))
    sources = [training_images(config, domain) for domain in (0, 1)]
    pairs = paired_test(config.num_pairs, level=config.level, variant=config.variant, size=config.size)

    def shown(made):
        scored = means(scores_of(made, pairs, "ab"))
        return {name: scored[name] for name in SHOWN}

    state, history = train(config, folder, translator, sources, pairs.images_a[:100], shown)
    images_seen = int(state.step) * config.batch_size
    say(f"{state.step} steps, {images_seen} images of each domain, {history['seconds'] / 60:.1f} minutes")
    translate_fn = functools.partial(translator.translate, state.average)
    outputs = {d: translated(translate_fn, in_direction(pairs, d)[0], d) for d in ("ab", "ba")}
    scores = {
        d: means(scores_of(made, pairs, d))
        | {"recall": recall(made, galleries(pairs, d, level=config.level))}
        | {"cycle": cycle_scores(translate_fn, in_direction(pairs, d)[0], d)}
        for d, made in outputs.items()
    }
    metrics = {
        "rung": config.rung,
        "steps": int(state.step),
        "images_seen": images_seen,
        "minutes": history["seconds"] / 60,
        "num_parameters": num_parameters(state.variables.generator),
        "receptive_field": translator.settings.receptive_field,
        "scores": scores,
        "losses": {name: float(value) for name, value in state.losses.items()},
        "collapsed": {d: collapse(made, in_direction(pairs, d)[0]) for d, made in outputs.items()},
        "settings": plain_settings(config),
    }
    for direction, found in scores.items():
        say(f"{direction}: " + ", ".join(f"{name} {found[name]:.3g}" for name in SHOWN))
    for direction, reason in metrics["collapsed"].items():
        if reason:
            say(f"WARNING: the training collapsed: {direction}: {reason}")
    if is_writer():
        write_json(folder / "metrics.json", metrics)
        save_outputs(folder / "outputs.npz", outputs)
        rest = (sources[1], translator, state.average, history, metrics)
        say(f"The report is in {write_ladder_report(config.out, pairs, *rest)}")
    wait_for_all()
    return metrics


def save_outputs(path: Path, outputs: Mapping[str, np.ndarray]) -> None:
    """Writes the translations of the test images, 8 bits a value, in one piece."""
    eight_bits: dict[str, Any] = {
        name: np.round(made * 255).astype(np.uint8) for name, made in outputs.items()
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **eight_bits)
    write_whole(path, buffer.getvalue())


def training_images(config: Config, domain: int) -> Source:
    """The images of a domain, rendered once and held in memory; with partners for the supervised bound."""
    source = ShapeSwapSource(
        domain,
        split="partners" if config.rung == "supervised" else "train",
        level=config.level,
        variant=config.variant,
        num_images=config.num_images,
        size=config.size,
        seed=config.seed,
    )
    return in_memory(
        source, progress=lambda r: tqdm(r, desc=f"Rendering domain {'AB'[domain]}", unit="batch")
    )


def train(config: Config, folder: Path, translator: Translator, sources, watched, scored, *, files: str = ""):
    """Trains in stretches of `every` steps until steps or minutes are spent, and returns the last state.

    After each stretch the watched images of A are translated, and scored by `scored(translations)`. `files`
    tells images that are not rendered from others.
    """
    batches = paired_batches if config.rung == "supervised" else unpaired_batches
    batch_fn, _ = batches(sources[0], sources[1], config.batch_size, seed=config.seed)
    checkpoint, optimizer = checkpoint_of(config, folder), optimizer_of(config)
    checkpoint = checkpoint.of(files=files) if files else checkpoint
    given = (batch_fn, optimizer)
    options: dict[str, Any] = {"seed": config.seed, "mesh": data_mesh(config.devices)}
    variables = None
    history, started = agree_on(read_history(folder / "history.json")), time.monotonic()
    if config.vae_steps and config.rung in LADDER:
        alone = dataclasses.replace(checkpoint, directory=folder / "checkpoints-vae")
        first = {"num_steps": config.vae_steps, "checkpoint": alone, "description": "Two VAEs"}
        variables = train_translator(translator, VAES, *given, **first, **options).variables
        if not history["steps"]:
            history["seconds"] = agree_on(time.monotonic() - started)
    options |= {"variables": variables, "checkpoint": checkpoint}
    folded = functools.partial(train_translator, translator, weights(config), *given, **options)
    done = history["steps"][-1] if history["steps"] else 0
    state = None
    until = min(config.minutes * 60, history["seconds"] + config.call_minutes * 60)
    bar = tqdm(total=until, initial=history["seconds"], desc="Training", unit="s", disable=not is_writer())
    with bar, log_of(folder, done) as log:
        while done < config.num_steps and history["seconds"] < until:
            started = time.monotonic()
            done = min(done + config.every, config.num_steps)
            state = folded(num_steps=done)
            losses = {name: float(value) for name, value in translation_report(state).items()}
            quick = translated(functools.partial(translator.translate, state.average), watched, "ab")
            found = scored(quick)
            spent = agree_on(time.monotonic() - started)  # all processes stop at the same step
            values = losses | found
            note(history, done, spent, values)
            if log is not None:
                for name, value in values.items():
                    log.add_scalar(name, value, done)
                log.add_images("translations", quick[:16], done, dataformats="NHWC")
                write_json(folder / "history.json", history)
            bar.update(spent)
            bar.set_postfix({"step": done} | {name: f"{found[name]:.3f}" for name in list(found)[:2]})
    return state or folded(num_steps=done), history  # all was done in earlier calls


def log_of(folder: Path, step: int) -> contextlib.AbstractContextManager[SummaryWriter | None]:
    """The log from a step on, in the process that writes it."""
    if not is_writer():
        return contextlib.nullcontext()
    return SummaryWriter(str(folder / "tensorboard"), purge_step=step)


def optimizer_of(config: Any) -> optax.GradientTransformation:
    """Adam with the short memories that suit a game of two networks."""
    return optax.adam(config.learning_rate, 0.5, 0.99)


def checkpoint_of(config: Config, folder: Path) -> Checkpoint:
    """Where a training is saved, at the end of every stretch."""
    free = ("out", "num_pairs", "num_steps", "minutes", "call_minutes", "every", "devices")
    absent = [name for name in ("a", "b") if getattr(config, name) is None]
    settings = fingerprint(config, without=(*free, *absent))
    return checkpoint_in(folder, settings)


def checkpoint_in(folder: Path, settings: str) -> Checkpoint:
    """A checkpoint that is written where a fold ends."""
    return Checkpoint(folder / "checkpoints", every=10**9, fingerprint=settings)


def read_history(path: Path) -> dict[str, Any]:
    """What was noted in earlier calls."""
    return json.loads(path.read_text()) if path.exists() else {"steps": [], "seconds": 0.0, "values": {}}


def note(history: dict[str, Any], step: int, seconds: float, values: Mapping[str, float]) -> None:
    """Adds a line to the history."""
    history["steps"].append(step)
    history["seconds"] += seconds
    for name, value in values.items():
        history["values"].setdefault(name, []).append(value)


def translated(translate_fn: Callable[..., Any], images: np.ndarray, direction: str) -> np.ndarray:
    """The translations of images, in batches of one size."""
    return in_batches(lambda x: translate_fn(x, direction=direction), images)


def state_of(config: Config) -> TranslationState:
    """The last state of a training, for use in other programs."""
    folder = config.out / f"{config.rung}-{config.variant}-seed{config.seed}"
    done = read_history(folder / "history.json")["steps"][-1]
    given = (Translator(networks(config)), weights(config), lambda t: {}, optimizer_of(config))
    return train_translator(
        *given, num_steps=done, seed=config.seed, checkpoint=checkpoint_of(config, folder)
    )


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.shape_translation"))
