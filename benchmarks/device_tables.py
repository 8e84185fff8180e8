"""The tables of the documentation about accelerators, in Markdown, from what `benchmarks.device` measured.

Each table is under the command and the commit that measured it, on the device that the numbers are of. A part
that was not measured has no table.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.explain_vgg16 import TITLES
from vexplain.catalog import title_of

_AGAIN = {"passed": "passes", "failed": "fails too", None: "not run"}


def tables(record: Mapping[str, Any]) -> str:
    """Returns all tables that the record has numbers for, a section each."""
    found = []
    for name, part in record["parts"].items():
        result = part.get("result") or {}
        body = SECTIONS[name](result) if _has_numbers(result) else ""
        if body:
            found.append(f"{_heading(name, part, record)}\n\n{body}")
    return "\n\n".join(found)


def _has_numbers(result: Mapping[str, Any]) -> bool:
    return any(
        name in result
        for name in ("rows", "files", "metrics", "models", "history", "training_images_per_second")
    )


def _heading(name: str, part: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    result, host = part["result"], record.get("host", {})
    rows = result.get("rows") or [{}]
    kind = (result.get("device") or {}).get("kind") or rows[0].get("device") or "a device that is not named"
    jax = host.get("versions", {}).get("jax", "?")
    status = "" if part["status"] in ("done", "to be continued") else f"; {part['status']}"
    command = f"python -m benchmarks.device {record['preset']} --parts {name}"
    about = f"On {kind}, jax {jax}, commit `{part.get('commit', '?')}` (`{command}`{status}):"
    return f"### {HEADINGS[name]}\n\n{about}"


def _checks(result: Mapping[str, Any]) -> str:
    outcomes = ("passed", "failed", "skipped")
    rows = [[f"`{name}`", *(str(n.get(o, 0)) for o in outcomes)] for name, n in result["files"].items()]
    text = _table(["tests", *outcomes], rows)
    if not result.get("in_time", True):
        text += "\n\nThe tests were stopped by their limit in time; these are the ones that had run."
    failures = [
        [f"`{f['test']}`", _cell(f.get("error", "")), _AGAIN.get(f.get("in_float32"), "not run")]
        for f in result.get("failures", ())
    ]
    if failures:
        header = ["test that failed", "error", "with `JAX_DEFAULT_MATMUL_PRECISION=highest`"]
        text += f"\n\n{_table(header, failures)}"
    return text


def _methods(result: Mapping[str, Any]) -> str:
    rows = sorted(result["rows"], key=lambda row: -row["images_per_second"])
    shown = [
        [title_of(r["method"]), _number(r["images_per_second"]), _number(r["first"]), _number(r["second"])]
        for r in rows
    ]
    settings = result["settings"]
    about = f"{settings['network']}, {settings['size']} px, batch {settings['batch_size']}:"
    header = ["method", "images a second", "first call, s", "second call, s"]
    return f"{about}\n\n{_table(header, shown)}{_memory(result)}"


def _first_calls(result: Mapping[str, Any]) -> str:
    names = ("first", "compilations", "second", "compilations_again")
    rows = [[f"`{r['method']}`", *(_number(r[n]) for n in names)] for r in result["rows"]]
    return _table(["method", "first call, s", "compilations", "second call, s", "compilations"], rows)


def _vgg16(result: Mapping[str, Any]) -> str:
    settings = result["settings"]
    rows = [
        [
            TITLES[r["row"]],
            r["precision"],
            _number(1 / r["seconds"]),
            _number(r["memory"]),
            _number(r["first"]),
        ]
        for r in result["rows"]
    ]
    about = (
        f"{settings['num_images']} images of {settings['size']} px in batches of {settings['batch_size']}:"
    )
    header = ["", "precision", "images a second", "peak memory, GB", "first batch, s"]
    return f"{about}\n\n{_table(header, rows)}" if rows else ""


def _statistics(result: Mapping[str, Any]) -> str:
    plain = result["rows"][0]["seconds"]
    rows = [
        [r["pass"], *(_number(x) for x in (r["first"], r["seconds"], r["seconds"] / plain, r["tflops"]))]
        for r in result["rows"]
    ]
    rows = [[*row, f"{r['error']:.1e}"] for row, r in zip(rows, result["rows"], strict=True)]
    settings = result["settings"]
    about = f"{settings['num_images']:,} images, {settings['num_features']:,} features:"
    header = ["pass", "first call, s", "later calls, s", "times the plain product", "TFLOP/s", "error"]
    return f"{about}\n\n{_table(header, rows)}{_memory(result)}"


def _solver(result: Mapping[str, Any]) -> str:
    rows = []
    for r in result["rows"]:
        lars = ["", "", ""]
        if r["lars_seconds"] is not None:
            times = f"{r['lars_seconds'] * r['classes'] / r['seconds']:.1f}"
            lars = [_number(r["lars_seconds"] * r["classes"]), times, f"{r['difference']:.0e}"]
        shown = [f"{r['features']:,}", str(r["classes"]), _number(r["num_relevant"]), _number(r["seconds"])]
        rows.append([*shown, _number(r.get("device_seconds")), f"{r['gap']:.0e}", *lars])
    header = ["features", "classes", "relevant, a class", "all classes on the host, s", "on the device, s"]
    header += ["relative duality gap"]
    lars = [
        "LARS of scikit-learn, s (a class times classes)",
        "times as fast",
        "largest difference of weights",
    ]
    return _table([*header, *lars], rows)


def _an8flower(result: Mapping[str, Any]) -> str:
    rates = [
        [text, _number(result[name])]
        for name, text in (
            ("rendering_images_per_second", "rendering, images a second"),
            ("training_images_per_second", "training, images a second (steps alone)"),
        )
        if name in result
    ]
    metrics = result.get("metrics")
    if metrics is None:
        return _table(["", ""], rates) if rates else ""
    settings = metrics["settings"]
    facts = f"{result['num_per_class']} images a class"
    if result["num_per_class"] < result["num_per_class_of_preset"]:
        facts += f" instead of the {result['num_per_class_of_preset']} of the preset, to fit the time"
    rates += [[f"{name}, s", _number(seconds)] for name, seconds in metrics["seconds"].items()]
    scores = [
        [title_of(name), *(f"{100 * score['means'][key]:.1f}" for key in ("IoU area", "best IoU"))]
        for name, score in metrics["scores"].items()
    ]
    return (
        f"`{metrics['variant']}`, {settings['size']} px, {facts}; held-out accuracy "
        f"{metrics['accuracy']:.1%}, {metrics['ablation']['relevant']:.1%} without the relevant features:\n\n"
        f"{_table(['method', 'IoU area, %', 'best IoU, %'], scores)}\n\n"
        f"{_table(['part of the job', ''], rates)}{_memory(result)}"
    )


def _shape_translation(result: Mapping[str, Any]) -> str:
    history = result.get("history") or {}
    metrics = result.get("metrics")
    steps, seconds = (history.get("steps") or [0])[-1], history.get("seconds", 0)
    if not steps or not seconds:
        return ""
    text = f"{steps:,} steps in {seconds / 60:.1f} minutes, {steps / seconds:.1f} a second with compilation"
    if metrics is None:
        last = {name: values[-1] for name, values in history["values"].items()}
        names = [name for name in ("iou_gain", "hue_error", "l1", "score") if name in last]
        return (
            f"{text}; stopped before it was scored:\n\n{_table(names, [[_number(last[n]) for n in names]])}"
        )
    settings = metrics["settings"]
    text += f" and checkpoints (of {result['num_steps_of_preset']:,} of the preset), {settings['size']} px, "
    text += f"batch {settings['batch_size']}, {settings['num_pairs']} test pairs"
    names = ("iou_gain", "hue_error", "delta_e", "l1", "centroid_error", "recall", "score")
    rows = [[d, *(_number(found[n]) for n in names)] for d, found in metrics["scores"].items()]
    return f"{text}:\n\n{_table(['direction', *names], rows)}{_memory(result)}"


def _appearance_translation(result: Mapping[str, Any]) -> str:
    names = ("iou_gain", "hue_error", "l1", "texture", "recall", "score")
    rows = [
        [
            " + ".join(m["carriers"]),
            d,
            str(m["steps"]),
            _number(m["minutes"]),
            *(_number(s[n]) for n in names),
        ]
        for m in result["models"]
        for d, s in m["scores"].items()
    ]
    if not rows:
        return ""
    settings = result["models"][0]["settings"]
    about = f"{settings['size']} px, batch {settings['batch_size']}, {settings['num_pairs']} test pairs:"
    header = ["texture carried by", "direction", "steps", "minutes", *names]
    return f"{about}\n\n{_table(header, rows)}{_memory(result)}"


HEADINGS = {
    "checks": "Tests of the library",
    "methods": "Every method on FlowerNet",
    "first_calls": "First and second call",
    "explain_vgg16": "VGG-16, beside Captum",
    "statistics": "The pass over the images",
    "solver": "The mu-lasso",
    "an8flower": "The main job",
    "shape_translation": "Shape translation",
    "appearance_translation": "Appearance-preserving translation",
}
SECTIONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "checks": _checks,
    "methods": _methods,
    "first_calls": _first_calls,
    "explain_vgg16": _vgg16,
    "statistics": _statistics,
    "solver": _solver,
    "an8flower": _an8flower,
    "shape_translation": _shape_translation,
    "appearance_translation": _appearance_translation,
}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _memory(result: Mapping[str, Any]) -> str:
    peak = (result.get("device") or {}).get("peak_memory_gb")
    return f"\n\nAt most {peak:.1f} GB were allocated on the device." if peak else ""


def _number(value: float | int | None) -> str:
    """Three digits, and whole numbers as they are."""
    if value is None:
        return ""
    if isinstance(value, int) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")[:160]
