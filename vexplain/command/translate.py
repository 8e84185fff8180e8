"""Shape translation of a folder of images, by a model that is trained on two folders without pairs."""

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from tqdm.auto import tqdm

from vexplain._files import digest_of_file, sweep, write_json
from vexplain.command.arguments import Translate
from vexplain.command.images import name_of, skipped_files
from vexplain.command.sealed import is_sealed, write_sealed
from vexplain.datasets import ImageFiles, Source, image_folder, in_memory, unpaired_batches
from vexplain.datasets.batches import epoch_batches
from vexplain.datasets.image_files import SUFFIXES
from vexplain.datasets.sources import as_eight_bits, subset
from vexplain.streaming import Checkpoint, data_mesh, is_writer
from vexplain.streaming.checkpoints import used_alone
from vexplain.streaming.processes import wait_for_all
from vexplain.translation import (
    FULL_MODEL,
    VAES,
    NetworkSettings,
    TranslationState,
    Translator,
    collapse,
    cycle_scores,
    kept_scores,
    train_translator,
)

Say = Callable[[str], object]
_EVERY = 250  # steps between two checkpoints
_IN_MEMORY = 2**31  # bytes of a domain that is not read again for every batch
_SCORED = 200  # images
_VERSION = 1


class _Domain(NamedTuple):
    files: ImageFiles
    source: Source  # what is trained on


def translate_folder(arguments: Translate, say: Say) -> None:
    """Trains on two folders, and translates a third; goes on where an earlier run stopped.

    Raises:
        ValueError: a folder without an image, or fewer of them than a batch.
        CheckpointError: the folder of results is in use, or its training has other settings or images.
    """
    with used_alone(arguments.out):
        if is_writer():
            sweep(arguments.out)
        images = _open(arguments.images, "images", arguments.size)
        domains = [
            _in_memory(_open(f, n, arguments.size)) for n, f in (("a", arguments.a), ("b", arguments.b))
        ]
        fingerprint = _fingerprint(arguments, domains)
        translator = Translator(_networks(arguments))
        state = _trained(arguments, translator, domains, fingerprint)
        say(f"Trained for {int(state.step)} steps: " + _shown(state))
        made = _translate(arguments, translator, state, images, fingerprint)
        if is_writer():
            _write_notes(arguments, translator, state, images, domains, made, say)
        wait_for_all()


def _networks(arguments: Translate) -> NetworkSettings:
    return NetworkSettings(image_size=arguments.size, width=arguments.width, num_blocks=2, sharing="nothing")


def _open(folder: Path, option: str, size: int) -> ImageFiles:
    try:
        return image_folder(folder, size=size)
    except ValueError as error:
        raise ValueError(
            f"--{option} is {str(folder)!r}: no image in it, no file that ends in {', '.join(SUFFIXES)}"
        ) from error


def _in_memory(files: ImageFiles) -> _Domain:
    if len(files) * files.resizing.size**2 * 3 > _IN_MEMORY:
        return _Domain(files, files)
    try:
        held = in_memory(files, progress=lambda r: tqdm(r, desc="Reading images", disable=not is_writer()))
    except ValueError as error:
        raise ValueError(f"none of {len(files)} files can be read as an image: {error}") from error
    return _Domain(files, held)


def _fingerprint(arguments: Translate, domains: list[_Domain]) -> str:
    """Of all that the trained model depends on, the number of its steps left out."""
    free = ("a", "b", "images", "out", "num_steps", "direction", "devices")
    settings = {name: str(value) for name, value in vars(arguments).items() if name not in free}
    files = [
        (name_of(path, root), path.stat().st_size, path.stat().st_mtime_ns)
        for domain, root in zip(domains, (arguments.a, arguments.b), strict=True)
        for path in map(Path, map(str, domain.files.files))
    ]
    return hashlib.sha256(json.dumps([_VERSION, jax.__version__, settings, files]).encode()).hexdigest()


def _trained(
    arguments: Translate, translator: Translator, domains: list[_Domain], fingerprint: str
) -> TranslationState:
    sources = [domain.source for domain in domains]
    for name, source in zip("ab", sources, strict=True):
        if len(source) < arguments.batch_size:
            raise ValueError(
                f"--batch-size is {arguments.batch_size}: --{name} has only {len(source)} images that can "
                "be read"
            )
    batch_fn, _ = unpaired_batches(sources[0], sources[1], arguments.batch_size, seed=arguments.seed)
    optimizer = optax.adam(arguments.learning_rate, 0.5, 0.99)
    checkpoint = Checkpoint(arguments.out / "checkpoints", every=_EVERY, fingerprint=fingerprint)
    options: dict[str, Any] = {
        "seed": arguments.seed,
        "mesh": data_mesh(arguments.devices or jax.process_count()),
    }
    start = train_translator(
        translator,
        VAES,
        batch_fn,
        optimizer,
        num_steps=arguments.num_vae_steps,
        checkpoint=checkpoint.below("autoencoders"),
        description="Two autoencoders",
        **options,
    )
    return train_translator(
        translator,
        FULL_MODEL,
        batch_fn,
        optimizer,
        num_steps=arguments.num_steps,
        variables=start.variables,
        checkpoint=checkpoint.below("model"),
        description="Training",
        **options,
    )


def _translate(
    arguments: Translate,
    translator: Translator,
    state: TranslationState,
    images: ImageFiles,
    fingerprint: str,
) -> dict[str, str]:
    """Writes the translations that are not there, and returns the files of all by name of the image."""
    paths = [Path(str(file)) for file in images.files]
    names = [name_of(path, arguments.images) for path in paths]
    model = f"{fingerprint} {int(state.step)} {arguments.direction}"
    settings = [f"{model}\n{name} {digest_of_file(path)}" for name, path in zip(names, paths, strict=True)]
    files = {n: arguments.out / "translations" / f"{name}.png" for n, name in enumerate(names)}
    kept = [n for n, file in files.items() if is_sealed(file, settings[n])]
    missing = np.setdiff1d(np.arange(len(names)), kept)[jax.process_index() :: jax.process_count()]
    bar = {"desc": "Translations", "unit": "image", "disable": not is_writer()}
    with tqdm(total=len(missing) + len(kept), initial=len(kept), **bar) as progress:
        size = min(arguments.batch_size, len(names))
        batch_fn, num_steps = epoch_batches(subset(images, missing), size) if len(missing) else (None, 0)
        for t in range(num_steps):
            assert batch_fn is not None
            batch, here = batch_fn(t), missing[t * size : (t + 1) * size].tolist()
            made = translator.translate(state.average, batch["images"], direction=arguments.direction)
            for place, image, weight in zip(here, np.asarray(made), batch["weights"], strict=False):
                progress.update()
                if weight:
                    write_sealed(files[place], as_eight_bits(image), settings[place])
                    kept.append(place)
    wait_for_all()
    return {names[n]: files[n].relative_to(arguments.out).as_posix() for n in sorted(kept)}


def _write_notes(
    arguments: Translate,
    translator: Translator,
    state: TranslationState,
    images: ImageFiles,
    domains: list[_Domain],
    made: dict[str, str],
    say: Say,
) -> None:
    """What can be said of the translations without the truth, and what was left out."""
    some = images[np.unique(np.linspace(0, len(images) - 1, min(len(images), _SCORED)).astype(int))]
    inputs = some["images"][np.asarray(some["weights"]) > 0]
    skipped = {
        f"{option}: {name}": reason
        for option, root, files in (
            ("images", arguments.images, images),
            ("a", arguments.a, domains[0].files),
            ("b", arguments.b, domains[1].files),
        )
        for name, reason in skipped_files(files, root).items()
    }
    notes: dict[str, Any] = {
        "steps": int(state.step),
        "direction": arguments.direction,
        "losses": {name: float(value) for name, value in state.losses.items()},
        "translations": made,
        "skipped": skipped,
        "settings": vars(arguments),
    }
    if len(inputs) > 1:
        translate_fn = functools.partial(translator.translate, state.average)
        outputs = np.asarray(translate_fn(inputs, direction=arguments.direction))
        notes["cycle"] = cycle_scores(translate_fn, inputs, arguments.direction)
        notes["kept"] = kept_scores(inputs, outputs)
        notes["collapsed"] = collapse(outputs, inputs)
        if notes["collapsed"]:
            say(f"WARNING: the training collapsed: {notes['collapsed']}")
    write_json(arguments.out / "translation.json", notes)
    say(f"{len(made)} of {len(images)} images are translated, in {arguments.out / 'translations'}")
    for name, reason in list(skipped.items())[:10]:
        say(f"Left out: {name}: {reason}")
    if len(skipped) > 10:
        say(f"Left out: {len(skipped) - 10} more, which translation.json names")


def _shown(state: TranslationState) -> str:
    return ", ".join(f"{name} {float(value):.3g}" for name, value in state.losses.items())
