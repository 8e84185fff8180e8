"""Scores of methods on a folder of images: against masks, and by deleting and inserting pixels.

Both explain the predicted class. Images whose class has no relevant feature are left out where a method needs
these, so that all methods are scored on the same images.
"""

import functools
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from vexplain._files import digest_of_file, read_json, read_npz, write_json, write_whole
from vexplain._text import aligned
from vexplain.attribution import logit, probability
from vexplain.catalog import METHODS, MethodFn, title_of
from vexplain.command.arguments import Evaluate, Say
from vexplain.command.masks import MaskedImages, masked_images
from vexplain.command.methods import Chosen, has_named_methods, label_probability, problems_of, shared_size
from vexplain.command.pictures import relative_file, spread
from vexplain.evaluation import (
    CEILING,
    ExplainedNetwork,
    flipping_scores,
    heatmap_scores,
    summarize,
)
from vexplain.relevance import num_features
from vexplain.streaming import Checkpoint, agree_on, data_mesh, fold_epoch, is_writer
from vexplain.streaming.processes import wait_for_all

Means = dict[str, dict[str, list[float]]]  # by method and score: mean and standard error
_AREAS = ("deletion", "insertion")
_VERSION = 1


def evaluate_methods(arguments: Evaluate, opened: Any, found: Any, passes: Checkpoint, say: Say) -> None:
    """Scores methods, shows the table and writes it; those of an earlier run are taken over.

    Raises:
        ValueError: nothing to score, no image with a mask, or a map that is not finite.
    """
    methods: tuple[Chosen, ...] = opened.methods
    places, unexplained = _explained(methods, found)
    masked, missing = None, []
    if arguments.masks is not None:
        images = _chosen(found.predictions.source, places)
        masked, _, missing = masked_images(images, arguments.images, arguments.masks)
    key = _key(arguments, methods, found, masked)
    kept: dict[str, Any] = agree_on(read_json(arguments.out / "evaluation.json"))
    if kept.get("key") == key and agree_on(digest_of_file(arguments.out / "evaluation.md")) == kept["digest"]:
        say(f"Scores: taken over from {arguments.out}")
    else:
        kept = _evaluated(arguments, opened, found, places, masked, passes) | {"key": key}
        whys = {"its class has no relevant feature": unexplained, "it has no mask": missing}
        for why, names in whys.items():
            kept["left_out"].update(dict.fromkeys(names, why))
        if is_writer():
            content = _markdown(kept).encode()
            write_whole(arguments.out / "evaluation.md", content)
            digest = hashlib.sha256(content).hexdigest()
            write_json(arguments.out / "evaluation.json", kept | {"digest": digest})
        wait_for_all()
    say(aligned(*_table(kept, has_errors=False)))
    for name, why in kept["methods_left_out"].items():
        say(f"Left out: the method {name}: {why}")
    for name, why in list(kept["left_out"].items())[:10]:
        say(f"Left out: {name}: {why}")
    if (count := len(kept["left_out"])) > 10:
        say(f"Left out: {count - 10} more, which evaluation.json names")
    say(f"The table is in {arguments.out / 'evaluation.md'}")


def _evaluated(
    arguments: Evaluate,
    opened: Any,
    found: Any,
    places: np.ndarray,
    masked: MaskedImages | None,
    passes: Checkpoint,
) -> dict[str, Any]:
    problems: dict[str, str] = {}
    if not has_named_methods(arguments):
        names = found.relevance.class_names
        problems = problems_of(opened.methods, opened.model, opened.searched, names)
    usable = tuple(method for method in opened.methods if method.name not in problems)
    digest = hashlib.sha256(repr(_key(arguments, usable, found, masked)).encode()).hexdigest()[:16]
    passes = passes.below(f"evaluation-{digest}")
    functions = {m.name: functools.partial(METHODS[m.name].function, **m.options) for m in usable}
    score = next((m.score for m in usable if m.sees_network and not m.needs_relevance), logit)
    network = ExplainedNetwork(found.model.variables, found.relevance)
    means: Means = {name: {} for name in functions}
    signs: dict[str, str] = {}
    num_masked, left_out = 0, {}
    if masked is not None:
        means, signs, num_masked = _against_masks(arguments, functions, score, found, masked, network, passes)
        left_out = dict(masked.skipped)
    flipped = spread(found.predictions, places, arguments.num_flipped)
    if len(flipped):
        for name, areas in _flipped(arguments, functions, score, found, flipped, network, signs, passes):
            means[name] |= areas
    if not num_masked and not len(flipped):
        raise ValueError("--num-flipped is 0, and no --masks are given: there is nothing to score")
    return {
        "model": found.model.name,
        "num_masked": num_masked,
        "num_flipped": len(flipped),
        "scores": means,
        "signs": signs,
        "methods_left_out": problems,
        "left_out": left_out,
    }


def _explained(methods: Sequence[Chosen], found: Any) -> tuple[np.ndarray, list[str]]:
    """The places of the images that all methods explain, and the names of the others."""
    has_features = num_features(found.relevance)[found.predictions.predicted] > 0
    if not any(method.needs_relevance for method in methods):
        has_features = np.ones_like(has_features)
    if not has_features.any():
        raise ValueError("--mu: no class has a relevant feature; choose a larger one")
    return np.flatnonzero(has_features), [
        relative_file(found, n) for n in np.flatnonzero(~has_features).tolist()
    ]


def _chosen(source: Any, places: np.ndarray) -> Any:
    files = tuple(source.files[n] for n in places.tolist())
    return type(source)(files, source.classes[places], source.class_names, source.resizing)


def _key(
    arguments: Evaluate, methods: Sequence[Chosen], found: Any, masked: MaskedImages | None
) -> list[Any]:
    """All that the scores depend on."""
    pairs = () if masked is None else zip(masked.names, masked.masks, strict=True)
    stats = [(name, path.stat()) for name, path in pairs]
    files = hashlib.sha256(repr([(name, s.st_size, s.st_mtime_ns) for name, s in stats]).encode()).hexdigest()
    numbers = [arguments.num_flipped, arguments.num_steps, masked is not None and len(masked)]
    return [_VERSION, found.fingerprint, [method.key for method in methods], files, *numbers]


def _against_masks(
    arguments: Evaluate,
    functions: Mapping[str, MethodFn],
    score: Any,
    found: Any,
    masked: MaskedImages,
    network: ExplainedNetwork,
    passes: Checkpoint,
) -> tuple[Means, dict[str, str], int]:
    mesh = data_mesh(arguments.devices or jax.process_count())
    init, update = heatmap_scores(found.model.apply, functions, num_images=len(masked), score=score)

    def step(state, batch, network):
        return update(state, {**batch, "targets": batch["labels"]}, network)

    state = fold_epoch(
        step,
        init(),
        masked,
        batch_size=shared_size(arguments.batch_size, len(masked), mesh),
        constants=jax.tree.map(jnp.asarray, network),
        mesh=mesh,
        checkpoint=passes.below("masks"),
        description="Scores against masks",
    )
    if not (np.asarray(state.weights) > 0).any():
        name, why = next(iter(masked.skipped.items()))
        raise ValueError(f"--masks: none of {len(masked)} masks can be used; {name}: {why}")
    scores = summarize(state)
    names = [*functions, CEILING]
    means = {
        name: {s: [scores[name].mean(s), scores[name].standard_error(s)] for s in scores[name].values}
        for name in names
    }
    signs = {name: scores[name].sign for name in functions if scores[name].sign}
    return means, signs, int(state.num_scored)


def _flipped(
    arguments: Evaluate,
    functions: Mapping[str, MethodFn],
    score: Any,
    found: Any,
    places: np.ndarray,
    network: ExplainedNetwork,
    signs: Mapping[str, str],
    passes: Checkpoint,
):
    """Yields (name, areas) of one method after the other, each kept in a file until all are there."""
    source = found.predictions.source
    batch = source[places]
    is_readable = np.asarray(batch["weights"]) > 0
    batch = {"images": batch["images"][is_readable], "indices": places[is_readable].astype(np.int32)}
    pixels = batch["images"].shape[1] * batch["images"].shape[2]
    of_method = functools.partial(
        flipping_scores,
        found.model.apply,
        network=network,
        batch=batch,
        key=jax.random.key(0),
        num_steps=min(arguments.num_steps, pixels),
        score=label_probability if arguments.multi_label else probability,
        explained=score,
        targets=found.predictions.predicted[places][is_readable],
        batch_size=min(arguments.batch_size, len(batch["images"])),
    )
    bar = {"desc": "Deletion and insertion", "unit": "method", "disable": not is_writer()}
    for name, function in tqdm(functions.items(), **bar):
        path = Path(passes.directory) / "flipping" / f"{name}.npz"
        if agree_on(path.is_file()):
            areas = dict(read_npz(path))
        else:
            scores = of_method({name: function}, signs={n: s for n, s in signs.items() if n == name})[name]
            areas = {f"{m} ({b})": a for m in _AREAS for b, a in getattr(scores, m).items()}
            if is_writer():
                buffer = io.BytesIO()
                np.savez(buffer, **areas)  # type: ignore[arg-type]
                write_whole(path, buffer.getvalue())
        yield name, {area: _mean_and_error(values) for area, values in areas.items()}


def _mean_and_error(values: np.ndarray) -> list[float]:
    count = len(values)
    error = float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
    return [float(values.mean(dtype=np.float64)), error]


def _table(kept: Mapping[str, Any], *, has_errors: bool) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the best method by the first score that all have first."""
    scores = kept["scores"]
    columns = list(dict.fromkeys(s for found in scores.values() for s in found))
    order = "IoU area" if "IoU area" in columns else "insertion (blurred)"
    ranked = sorted(scores, key=lambda name: -scores[name].get(order, [-1.0])[0])

    def cell(value: list[float] | None) -> str:
        if value is None:
            return ""
        return f"{value[0]:.3f} ± {value[1]:.3f}" if has_errors else f"{value[0]:.3f}"

    rows = [[title_of(name), *(cell(scores[name].get(column)) for column in columns)] for name in ranked]
    return ["method", *columns], rows


def _markdown(kept: Mapping[str, Any]) -> str:
    header, rows = _table(kept, has_errors=True)
    lines = [f"# Methods on {kept['model']}", ""]
    if kept["num_masked"]:
        lines += [f"Scores against the masks of {kept['num_masked']} images; the true mask is the ceiling."]
    if kept["num_flipped"]:
        lines += [
            f"Deletion (small is better) and insertion (large is better) on {kept['num_flipped']} images: "
            "the area under the probability of the predicted class while pixels are replaced by the blurred "
            "image or the color of its border."
        ]
    lines += ["Means ± standard errors over the images. All methods explain the predicted class.", ""]
    lines += [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    lines += ["", *(f"- Left out: the method {n}: {why}" for n, why in kept["methods_left_out"].items())]
    lines += [f"- Left out: {name}: {why}" for name, why in kept["left_out"].items()]
    return "\n".join(lines).rstrip() + "\n"
