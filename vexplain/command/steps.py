"""The steps of the command, each of which reads its result where an earlier run left it.

A fingerprint of the weights, the layers, the image files and the settings is kept beside every result; where
it agrees, the result is read instead of computed again.
"""

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vexplain import relevance
from vexplain._files import digest_of_file, read_json, sweep, write_json
from vexplain.catalog import METHODS
from vexplain.command.arguments import (
    Arguments,
    Evaluate,
    Explain,
    Explaining,
    Features,
    Interpret,
    Layers,
    Methods,
    Say,
    Translate,
)
from vexplain.command.evaluate import evaluate_methods
from vexplain.command.images import (
    Folder,
    Predictions,
    name_of,
    open_folder,
    paths_of,
    predict,
    predicted_of,
)
from vexplain.command.methods import (
    RECIPE,
    Chosen,
    chosen_methods,
    has_named_methods,
    problems_of,
    shared_size,
)
from vexplain.command.model import Model, load_model
from vexplain.command.pictures import explain_images, save_class_sheets
from vexplain.command.report import is_done, write_results
from vexplain.command.searched_layers import (
    searched,
    show_layers,
    size_of_search,
    table_of,
    write_layers,
)
from vexplain.relevance import Relevance, interpret
from vexplain.streaming import Checkpoint, agree_on, data_mesh, is_writer
from vexplain.streaming.checkpoints import remove_folder, used_alone
from vexplain.transforms import GUIDED, RESAMPLED_STRIDE, LayerTable, with_rules
from vexplain.transforms.fingerprint import program_fingerprint

_VERSION = 3  # of the files of results
_UNFINISHED = ".unfinished"  # folder of the checkpoints of passes


class Opened(NamedTuple):
    """What a command line names: the network, its layers, the images, and the methods of explanation."""

    model: Model
    folder: Folder
    table: LayerTable
    searched: list[Any]  # the layers whose features may be relevant
    methods: tuple[Chosen, ...]
    fingerprint: str  # of all that the relevant features depend on


class Found(NamedTuple):
    """The results of the steps so far, and the fingerprint of all that they depend on."""

    model: Model
    folder: Folder
    table: LayerTable
    predictions: Predictions
    relevance: Relevance
    fingerprint: str


def run(arguments: Arguments, say: Say) -> None:
    """Runs a subcommand; `say` shows a line to the user.

    Raises:
        ValueError: the model, the images or a setting cannot be used; says which and what to do.
    """
    if not is_writer():
        say = lambda text: None  # noqa: E731
    if isinstance(arguments, Methods):
        say(str(METHODS))
        return
    if isinstance(arguments, Layers):
        return show_layers(arguments, say)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if isinstance(arguments, Translate):
        from vexplain.command.translate import (
            translate_folder,
        )  # with what trains, which the others do not need

        return translate_folder(arguments, say)
    with used_alone(arguments.out):
        if is_writer():
            sweep(arguments.out)
        _run_steps(arguments, say)


def _run_steps(arguments: Features, say: Say) -> None:
    opened = open_inputs(arguments, say)
    found = find_features(arguments, opened, say)
    if isinstance(arguments, Evaluate):
        evaluate_methods(arguments, opened, found, passes_of(arguments.out, found.fingerprint), say)
    if isinstance(arguments, Interpret):
        sheets = find_average_images(arguments, found, say)
        if isinstance(arguments, Explain):
            _explain(arguments, opened, found, sheets, say)
    Checkpoint(arguments.out / _UNFINISHED).remove()
    _say_what_is_left_out(found, say)


def _explain(arguments: Explain, opened: Opened, found: Found, sheets: dict[str, Any], say: Say) -> None:
    if agree_on(is_done(arguments, found)):
        say(f"Heatmaps and report: taken over from {arguments.out}")
        return
    records = explain_images(arguments, found, opened.methods)
    if is_writer():
        path = write_results(arguments, found, records, sheets)
        num_heatmaps = sum(len(record["heatmaps"]) for record in records.values())
        say(f"{num_heatmaps} heatmaps in {arguments.out / 'heatmaps'}; the report is {path}")


def _say_what_is_left_out(found: Found, say: Say) -> None:
    """At the end, where it is seen."""
    skipped, absent = list(found.predictions.skipped), left_out(found.relevance, found.predictions)
    classes = found.relevance.class_names
    for names, count, what in (
        (skipped, len(found.folder.source), "files, which cannot be read"),
        (absent, len(classes), "classes, which no image is predicted as"),
    ):
        if names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            say(f"Left out: {len(names)} of {count} {what}: {shown}")


def open_inputs(arguments: Features, say: Say) -> Opened:
    """Returns what a command line names, after it is known to go together."""
    model = load_model(arguments.model, arguments.weights, arguments.size)
    folder = open_folder(arguments.images, model, arguments.classes)
    table = table_of(model)
    rows = searched(table, arguments.layers)
    methods = ()
    if isinstance(arguments, Explaining):
        if isinstance(arguments, Explain) or RECIPE in arguments.method:
            _check_covered(model, arguments.on_uncovered)
        methods = chosen_methods(arguments, model, table, folder.source.class_names)
    say(f"{len(folder.source)} images in {arguments.images}: {folder.note}")
    fingerprint = _fingerprint(arguments, model, folder, table, [row.name for row in rows])
    return Opened(model, folder, table, rows, methods, fingerprint)


def find_features(arguments: Features, opened: Opened, say: Say) -> Found:
    """Returns the relevant features of the classes that the images are predicted as."""
    model, folder, table, rows, methods, fingerprint = opened
    passes = passes_of(arguments.out, fingerprint)
    if (kept := _kept(arguments.out, fingerprint, folder, model)) is not None:
        passes.below("features").remove()
        say(f"Relevant features: taken over from {arguments.out}")
        return Found(model, folder, table, *kept, fingerprint)
    for name, problem in problems_of(methods, model, rows, folder.source.class_names).items():
        if has_named_methods(arguments):
            raise ValueError(f"--method {name}: {problem}")
    say(size_of_search(table, rows))
    mesh = data_mesh(arguments.devices or jax.process_count())
    predictions = predict(
        model, folder, arguments.batch_size, mesh, passes.below("features/predictions"), arguments.multi_label
    )
    if count := len(predictions.skipped):
        say(f"passed over: {count} of {len(folder.source)} files, which cannot be read")
    learned = relevance.learn_relevance(
        model.apply,
        model.variables,
        predictions.source,
        layers=rows,
        mu=arguments.mu,
        batch_size=shared_size(arguments.batch_size, len(predictions.source), mesh),
        on_empty_class="leave_out",
        mesh=mesh,
        checkpoint=passes.below("features/relevance"),
        description="Relevant features",
    )
    if is_writer():
        write_layers(arguments.out, table)
        _write_features(arguments.out, learned, predictions, arguments.images, fingerprint)
    passes.below("features").remove()
    say(_summary(learned, predictions))
    return Found(model, folder, table, predictions, learned, fingerprint)


def find_average_images(arguments: Interpret, found: Found, say: Say) -> dict[str, Any]:
    """Returns, by class, the pictures of its relevant features: average images and their best image parts."""
    path = arguments.out / "interpretation.json"
    key = [found.fingerprint, arguments.num_exemplars, arguments.align]
    passes = passes_of(arguments.out, found.fingerprint).below("average_images")
    kept = read_json(path)
    sheets = kept.get("sheets") if kept.get("key") == key else None
    if isinstance(sheets, dict) and _are_whole(arguments.out, kept.get("digests")):
        passes.remove()
        say(f"Average images: taken over from {arguments.out}")
        return sheets
    mesh = data_mesh(arguments.devices or jax.process_count())
    views = interpret(
        found.model.apply,
        found.model.variables,
        found.table,
        found.relevance,
        found.predictions.source,
        num_images=arguments.num_exemplars,
        align=arguments.align,
        batch_size=shared_size(arguments.batch_size, len(found.predictions.source), mesh),
        mesh=mesh,
        checkpoint=passes.below(f"{arguments.num_exemplars}"),
        description="Average images",
    )
    if not is_writer():
        passes.remove()
        return {}
    sheets = save_class_sheets(arguments.out, views)
    files = [sheet[kind] for sheet in sheets.values() for kind in ("sheet", "averages", "crops")]
    digests = {file: digest_of_file(arguments.out / file) for file in files}
    write_json(path, {"key": key, "sheets": sheets, "digests": digests})
    passes.remove()
    say(f"Average images of {len(views)} features in {arguments.out / 'average_images'}")
    return sheets


def _are_whole(out: Path, digests: Any) -> bool:
    """Are these the files that a result vouches for, by their content?"""
    return isinstance(digests, dict) and all(digest_of_file(out / f) == d for f, d in digests.items())


def passes_of(out: Path, fingerprint: str) -> Checkpoint:
    """Returns where passes are saved until their results are written; those of other settings are removed.

    Args:
        out: the folder of results.
        fingerprint: of the settings.
    """
    folder = out / _UNFINISHED
    for other in sorted(folder.glob("*")) if is_writer() else ():
        if other.name != fingerprint:
            remove_folder(other)
    return Checkpoint(folder / fingerprint)


def _check_covered(model: Model, on_uncovered: str) -> None:
    """Raises before the pass over the images, which may take hours, rather than after it."""
    images = jax.ShapeDtypeStruct((1, model.resizing.size, model.resizing.size, 3), np.float32)
    ruled = with_rules(
        model.apply, GUIDED | RESAMPLED_STRIDE, on_uncovered=on_uncovered, on_unmatched="ignore"
    )
    try:
        jax.eval_shape(ruled, model.variables, images)
    except ValueError as error:
        raise ValueError(f"{error}\n--on-uncovered gradient takes their ordinary gradient") from error


def _fingerprint(arguments: Features, model: Model, folder: Folder, table: LayerTable, rows) -> str:
    size = model.resizing.size
    images = jax.ShapeDtypeStruct((2, size, size, 3), np.float32)
    digest = hashlib.sha256(program_fingerprint(model.apply, (model.variables, images)).encode())
    for leaf in jax.tree.leaves(model.variables):
        digest.update(np.ascontiguousarray(np.asarray(leaf)).tobytes())
    stats = [(path, path.stat()) for path in paths_of(folder.source)]
    files = [(name_of(f, folder.root), s.st_size, s.st_mtime_ns) for f, s in stats]
    names = folder.source.class_names
    versions = (_VERSION, importlib.metadata.version("vexplain"), jax.__version__)
    options = (arguments.mu, arguments.multi_label)
    settings = (versions, model.name, str(table), rows, str(model.resizing), names, options, files)
    digest.update(json.dumps(settings).encode())
    return digest.hexdigest()


def _kept(out: Path, fingerprint: str, folder: Folder, model: Model) -> tuple[Predictions, Relevance] | None:
    """The results of an earlier run with the same fingerprint."""
    notes, path = read_json(out / "features.json"), out / "relevance.npz"
    is_whole = notes.get("fingerprint") == fingerprint and notes.get("relevance") == digest_of_file(path)
    if not is_whole or notes.get("relevance") is None:
        return None
    learned, images = relevance.load_relevance(path), notes["images"]
    source, names = folder.source, list(learned.class_names)
    places = {name_of(path, folder.root): n for n, path in enumerate(paths_of(source))}
    kept = np.array([places[image["file"]] for image in images])
    predicted = np.array([names.index(image["predicted"]) for image in images], np.int32)
    files = tuple(source.files[n] for n in kept)
    truth = source.classes[kept] if folder.has_labels else np.full(len(kept), -1)
    probabilities = np.array([image["probability"] for image in images], np.float32)
    labels = [tuple(image["labels"]) for image in images] if "labels" in images[0] else None
    readable = type(source)(files, predicted, source.class_names, model.resizing)
    return Predictions(readable, truth, predicted, probabilities, notes["skipped"], labels), learned


def _write_features(out, learned: Relevance, predictions: Predictions, root: Path, fingerprint: str) -> None:
    relevance.save_relevance(learned, out / "relevance.npz")
    features = {name: relevance.features(learned, c) for c, name in enumerate(learned.class_names)}
    write_json(
        out / "features.json",
        {
            "fingerprint": fingerprint,
            "relevance": digest_of_file(out / "relevance.npz"),
            "mu": float(learned.mu),
            "features": {name: [f._asdict() for f in here] for name, here in features.items() if here},
            "left_out": left_out(learned, predictions),
            "skipped": predictions.skipped,
            "images": [
                {"file": name_of(file, root), **predicted_of(predictions, learned.class_names, n)}
                for n, file in enumerate(paths_of(predictions.source))
            ],
        },
    )


def left_out(learned: Relevance, predictions: Predictions) -> list[str]:
    """Returns the classes that no image is predicted as, and that therefore have no features."""
    occurring = set(predictions.predicted.tolist())
    return [name for c, name in enumerate(learned.class_names) if c not in occurring]


def _summary(learned: Relevance, predictions: Predictions) -> str:
    absent, num_classes = left_out(learned, predictions), len(learned.class_names)
    counts = relevance.num_features(learned)
    text = f"{int((counts > 0).sum())} of {num_classes} classes have features, {int(counts.sum())} together"
    return f"{text}; no image is predicted as the other {len(absent)}" if absent else text
