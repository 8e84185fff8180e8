"""The same garment in another shape, its texture carried along, by one model that also finds it again.

Paper: K. Wang, L. Ma, J. Oramas, L. Van Gool, T. Tuytelaars, An Unpaired Shape Transforming Method for Image
Translation and Cross-Domain Retrieval, arXiv 1812.02134. Its abstract is known and its method is not: one
model, an appearance code that retrieves, and the kinds of losses are *reconstructed*; the layers (shape,
texture, background) and the ways in which texture is carried are *ours*. The data is rendered, so that the
true translation of every test image is known.

    python -m experiments.appearance_translation laptop                       45 minutes on 2 cores, 32 px
    python -m experiments.appearance_translation laptop --carriers attention  another way to carry texture
    python -m experiments.appearance_translation laptop --without overlap     an ablation
    python -m experiments.appearance_translation accelerator --minutes 8      64 px; call it again until done
    python -m experiments.appearance_translation laptop --data try_on         garments put on and taken off
    python -m experiments.appearance_translation laptop --a shirts --b coats  any two folders of images

Each setting of carriers, losses left out and seed is trained in a folder of its own and resumes there; every
call writes the report anew, with a row for each training on the same data and for references that learn
nothing. Training stops after `minutes` or `num_steps`, whichever comes first; a call stops after
`call_minutes`. Compilation does not count.
"""

import dataclasses
import functools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from tqdm.auto import tqdm

from experiments.appearance_translation_data import Data, rendered_data
from experiments.appearance_translation_report import write_appearance_report
from experiments.appearance_translation_scores import all_scores, answers, scores_in, translations
from experiments.job import fingerprint, plain_settings, say
from experiments.shape_translation import (
    checkpoint_in,
    log_of,
    note,
    optimizer_of,
    read_history,
    save_outputs,
    translated,
)
from experiments.shape_translation_folders import open_domain, scores_of_folders, write_folders_report
from experiments.shape_translation_scores import in_direction, means
from vexplain._files import write_json
from vexplain.datasets.batches import shuffled_indices
from vexplain.streaming import agree_on, fold, is_writer
from vexplain.streaming.checkpoints import digest
from vexplain.streaming.devices import data_mesh
from vexplain.streaming.processes import wait_for_all
from vexplain.translation import TranslationState, kept_scores, num_parameters, translation_report
from vexplain.translation.layered import (
    SCENE_WEIGHTS,
    Carrier,
    LayeredSettings,
    LayeredTranslator,
    LayeredWeights,
    layered_training,
)
from vexplain.translation.layered.losses import LOSSES
from vexplain.typing import Batch

SHOWN = ("iou_gain", "hue_error", "l1", "texture", "score")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one training."""

    carriers: tuple[Carrier, ...] = ("offsets", "flow")  # what brings the input's texture; several, or none
    without: tuple[str, ...] = ()  # losses that are left out
    paired: bool = False  # trained with pairs: the upper bound
    a: Path | None = None  # folder of images with plain backgrounds, instead of the rendered domain A
    b: Path | None = None  # likewise, of domain B
    out: Path = Path("runs/appearance_translation")
    data: Data = "shape_swap"  # the rendered data; or "try_on": products, and the same garments worn
    level: int = 4  # of shape swap: T-shirt and trousers
    variant: Literal["U", "N", "F"] = "U"  # uniform hues, skewed ones, or finer textures
    size: int = 32  # height and width of the images, in pixels
    width: int = 24  # of the networks
    appearance_size: int = 64  # numbers of the appearance code
    num_images: int = 20_000  # a domain
    num_pairs: int = 500  # of the test set
    batch_size: int = 16
    learning_rate: float = 6e-4
    num_steps: int = 100_000
    minutes: float = 40.0  # of training, over all calls
    call_minutes: float = float("inf")  # of training, in one call
    every: int = 250  # steps between two checkpoints and log lines
    precision: Literal["float32", "bfloat16"] = "float32"  # of the convolutions
    seed: int = 0
    devices: int | None = None  # all, if left out

    def __post_init__(self):
        if unknown := [name for name in self.without if name not in LOSSES]:
            raise ValueError(f"without has {unknown[0]!r}: expected some of {', '.join(LOSSES)}")
        if (self.a is None) != (self.b is None):
            given, missing = ("a", "b") if self.b is None else ("b", "a")
            raise ValueError(f"{given} is given and {missing} is not: give the folders of both domains")
        if self.paired and self.a is not None:
            raise ValueError("paired is True: images of folders have no known partners; leave it out")
        if self.data != "shape_swap" and (self.paired or self.a is not None):
            other = "paired" if self.paired else "a"
            raise ValueError(f"data is {self.data!r} and {other} is given: expected one of them")
        for name in ("num_images", "num_pairs", "batch_size", "num_steps", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        for name in ("minutes", "call_minutes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected more than 0")

    @property
    def folder(self) -> Path:
        """Of this training."""
        name = "+".join(self.carriers) or "painted"
        name += "".join(f"-without-{loss}" for loss in self.without) + "-paired" * self.paired
        if self.a is not None and self.b is not None:
            return self.out / f"{self.a.resolve().name}-{self.b.resolve().name}-{name}-seed{self.seed}"
        set_name = "try_on-" * (self.data == "try_on")
        return self.out / f"{set_name}{name}-{self.variant}-seed{self.seed}"


PRESETS = {
    "smoke": (
        "Seconds: does everything run?",
        Config(size=16, width=4, num_images=64, num_pairs=8, batch_size=8, num_steps=6, every=3),
    ),
    "laptop": ("45 minutes on 2 CPU cores, 32 px.", Config()),
    "accelerator": (
        "64 px, in commands of 10 minutes that go on where the last one stopped.",
        Config(
            size=64,
            width=64,
            num_pairs=2000,
            batch_size=32,
            learning_rate=4e-4,
            minutes=float("inf"),
            call_minutes=8.0,
            every=1000,
            precision="bfloat16",
        ),
    ),
}


def networks(config: Config) -> LayeredSettings:
    """Sizes of the networks."""
    return LayeredSettings(
        image_size=config.size,
        width=config.width,
        appearance_size=config.appearance_size,
        carriers=config.carriers,
        precision=config.precision,
        has_scenes=config.a is None and rendered_data(config).has_scenes,
    )


def weights(config: Config) -> LayeredWeights:
    """Of the losses, without those that are left out."""
    whole = SCENE_WEIGHTS if networks(config).has_scenes else LayeredWeights()
    found = dataclasses.replace(whole, **dict.fromkeys(config.without, 0.0))
    return dataclasses.replace(found, gan=0.0, paired=10.0) if config.paired else found


def main(
    config: Config, arrays: dict[str, np.ndarray] | None = None, *, with_report: bool = True
) -> dict[str, Any]:
    """Trains a model as far as its time goes, scores it, and writes the report of all models.

    Args:
        arrays: what is trained on, in 8 bits, where several trainings share it.
        with_report: whether the report is written, which draws every model again.
    """
    say(f"vexplain: appearance translation, {config.size} px; results in {config.folder}")
    translator = LayeredTranslator(networks(config))
    if config.a is not None and config.b is not None:
        return main_of_folders(config, translator, [config.a, config.b])
    data = rendered_data(config)
    arrays = arrays or data.training(split="partners" if config.paired else "train")
    pairs = data.pairs()

    def made_by(generator, direction: str, count: int | None = None):
        images = in_direction(pairs, direction)[0][:count]
        given = {name: values[:count] for name, values in data.given(pairs, direction).items()}
        return translations(translator, generator, images, direction, given)

    def watch(generator):
        quick, masks = made_by(generator, "ab", 100)
        scored = means(scores_in(quick, pairs, "ab", masks=masks))
        return {name: scored[name] for name in SHOWN}, quick

    state, history = train(config, translator, arrays, watch)
    outputs = {d: made_by(state.average, d) for d in ("ab", "ba")}
    untrained = translator.init(jax.random.key(config.seed + 1)).generator
    metrics = {
        "carriers": list(config.carriers),
        "without": list(config.without),
        "steps": int(state.step),
        "images_seen": int(state.step) * config.batch_size,
        "minutes": history["seconds"] / 60,
        "seconds_to_compile": history.get("seconds_to_compile"),
        "num_parameters": num_parameters(state.variables.generator),
        "scores": {
            d: all_scores(*made, pairs, d, data, translator, state.average, untrained)
            for d, made in outputs.items()
        },
        "losses": {name: float(value) for name, value in state.losses.items()},
        "settings": plain_settings(config),
    }
    for direction, found in metrics["scores"].items():
        say(f"{direction}: " + ", ".join(f"{name} {found[name]:.3g}" for name in SHOWN))
    if is_writer():
        write_json(config.folder / "metrics.json", metrics)
        save_outputs(config.folder / "outputs.npz", {d: images for d, (images, _) in outputs.items()})
        ranked = {d: answers(pairs, d, data, translator, state.average) for d in outputs}
        save_outputs(config.folder / "answers.npz", ranked)
        if with_report:
            say(f"The report is in {report_of(config)}")
    wait_for_all()
    return metrics


def main_of_folders(config: Config, translator: LayeredTranslator, folders: list[Path]) -> dict[str, Any]:
    """The same for people's own images, of which no partner is known."""
    domains = [open_domain(folder, config.size) for folder in folders]
    for name, folder, domain in zip("ab", folders, domains, strict=True):
        if len(domain.source) < config.batch_size:
            raise ValueError(
                f"{name} is {folder}: {len(domain.source)} readable images are left to train on; expected at "
                f"least batch_size, {config.batch_size}; add images or lower it"
            )
    held_out = {name: domain.held_out for name, domain in zip("ab", domains, strict=True)}

    def watch(generator):
        translate_fn = functools.partial(translator.translate, generator)
        made = translated(translate_fn, held_out["a"][:100], "ab")
        return {n: own for n, (own, _) in kept_scores(held_out["a"][:100], made).items()}, made

    files = digest([domain.files for domain in domains])
    arrays = {name: domain.source.images for name, domain in zip("ab", domains, strict=True)}
    state, history = train(config, translator, arrays, watch, files=files)
    metrics = scores_of_folders(functools.partial(translator.translate, state.average), held_out) | {
        "steps": int(state.step),
        "minutes": history["seconds"] / 60,
        "skipped": {name: reason for domain in domains for name, reason in domain.skipped.items()},
        "losses": {name: float(value) for name, value in state.losses.items()},
        "settings": plain_settings(config),
    }
    outputs = metrics.pop("outputs")
    if is_writer():
        write_json(config.folder / "metrics.json", metrics)
        save_outputs(config.folder / "outputs.npz", outputs)
        model = "A model in layers (shape, texture, background)"
        path = write_folders_report(config.folder, held_out, outputs, history, metrics, model=model)
        say(f"The report is in {path}")
    wait_for_all()
    return metrics


def report_of(config: Config) -> Path:
    """Writes the report of all trainings on the same data, and returns where it is."""
    metrics = json.loads((config.folder / "metrics.json").read_text())
    history = read_history(config.folder / "history.json")
    return write_appearance_report(config, rendered_data(config), history, metrics)


def train(
    config: Config, translator: LayeredTranslator, arrays: Mapping[str, Any], watch, *, files: str = ""
):
    """Trains in stretches of `every` steps until steps or minutes are spent, and returns the last state.

    After each, `watch(generator)` gives scores and images for the log. `files` names the files trained on.
    """
    folder = config.folder
    folder.mkdir(parents=True, exist_ok=True)
    run, state = training(config, translator, arrays)
    checkpoint = checkpoint_of(config, files)
    history = agree_on(read_history(folder / "history.json"))
    done = history["steps"][-1] if history["steps"] else 0
    until = min(config.minutes * 60, history["seconds"] + config.call_minutes * 60)
    started = time.monotonic()
    run(state, num_steps=1)
    history["seconds_to_compile"] = agree_on(time.monotonic() - started)
    bar = tqdm(total=until, initial=history["seconds"], desc="Training", unit="s", disable=not is_writer())
    with bar, log_of(folder, done) as log:
        while done < config.num_steps and history["seconds"] < until:
            started = time.monotonic()
            done = min(done + config.every, config.num_steps)
            state = run(state, num_steps=done, checkpoint=checkpoint)
            losses = {name: float(value) for name, value in translation_report(state).items()}
            spent = agree_on(time.monotonic() - started)  # all processes stop at the same step
            scored, made = watch(state.average)
            note(history, done, spent, losses | scored)
            if log is not None:
                for name, values in history["values"].items():
                    log.add_scalar(name, values[-1], done)
                log.add_images("translations", made[:16], done, dataformats="NHWC")
                write_json(folder / "history.json", history)
            bar.update(spent)
            bar.set_postfix({name: f"{value:.3f}" for name, value in scored.items()})
    if int(state.step) < done:  # all was done in earlier calls
        state = run(state, num_steps=done, checkpoint=checkpoint)
    return state, history


def training(config: Config, translator: LayeredTranslator, arrays: Mapping[str, Any]):
    """A fold over the arrays, which takes a state and a number of steps, and the state to begin with."""
    init, update = layered_training(translator, weights(config), optimizer_of(config), seed=config.seed)
    run = functools.partial(
        fold,
        images_on_the_device(update),
        batch_fn=functools.partial(chosen, config, (len(arrays["a"]), len(arrays["b"]))),
        constants={name: jnp.asarray(values) for name, values in arrays.items()},
        mesh=data_mesh(config.devices),
        report=translation_report,
    )
    return run, init(translator.init(jax.random.key(config.seed)))


def images_on_the_device(update):
    """The update for batches that say which of the arrays on the device they are of, by domain."""

    def updated(state: TranslationState, batch: Batch, arrays) -> TranslationState:
        chosen = {name: values[batch[name[-1]]] for name, values in arrays.items()}
        return update(state, {name: values.astype(jnp.float32) / 255 for name, values in chosen.items()})

    return updated


def chosen(config: Config, counts: tuple[int, int], t: int) -> dict[str, np.ndarray]:
    """Which images are in batch t: of each domain permutations of its own, or the same of pairs."""
    seeds = [(config.seed, 0), (config.seed, 0 if config.paired else 1)]
    return {
        d: shuffled_indices(count, config.batch_size, t, seed).astype(np.int32)
        for d, count, seed in zip("ab", counts, seeds, strict=True)
    }


def checkpoint_of(config: Config, files: str = ""):
    """Where a training is saved, at the end of every stretch."""
    free = ("out", "num_pairs", "num_steps", "minutes", "call_minutes", "every", "devices", "a", "b")
    return checkpoint_in(config.folder, fingerprint(config, without=free) + files)


if __name__ == "__main__":
    main(tyro.extras.overridable_config_cli(PRESETS, prog="python -m experiments.appearance_translation"))
