"""The parts of `benchmarks.device`, each at the sizes of both presets; each runs in a process of its own.

A part is `part(run) -> dict`: it saves what it knows by `run.save` as soon as it knows it, keeps to
`run.seconds`, and may say `"continues": True` where another call would go on with it.
"""

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.device_checks import run_tests
from vexplain._files import read_json, write_json

TESTS = {
    "smoke": ("tests/relevance/test_lasso.py",),
    "accelerator": (  # most valuable first
        "tests/relevance/test_statistics.py",
        "tests/relevance/test_device_solver.py",
        "tests/attribution/test_values.py",
        "tests/attribution/test_oracles.py",
        "tests/attribution/test_parity.py",
        "tests/relevance/test_lasso.py",
        "tests/transforms",
    ),
}


class Run(NamedTuple):
    """What a part is given.

    Attributes:
        preset: smoke or accelerator.
        work: folder of its own, for checkpoints and the like; a later call finds it again.
        out: folder of what is looked at.
        seconds: that it may take.
        save: `save(result)` writes what is known so far.
    """

    preset: str
    work: Path
    out: Path
    seconds: float
    save: Callable[[dict[str, Any]], None]


def checks(run: Run) -> dict[str, Any]:
    """Numeric tests of the library on this device; those that fail, again with products in full float32."""
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the tests share the memory of the device
    import jax

    platform = {"gpu": "cuda,cpu"}.get(jax.default_backend(), jax.default_backend())
    workers = min(14, os.cpu_count() or 1) if run.preset == "accelerator" else 0
    options = {"folder": run.work, "seconds": run.seconds, "workers": workers, "platform": platform}
    result: dict[str, Any] = {"device": device_facts()}
    for found in run_tests(TESTS[run.preset], **options):
        result |= found
        run.save(result)
    return result


def methods(run: Run) -> dict[str, Any]:
    """Images a second of every method on FlowerNet."""
    from benchmarks.methods import Config, measurements

    few = ("gradient", "grad_cam", "relevant_evidence")
    config = Config(size=16, batch_size=2, repetitions=1, methods=few) if run.preset == "smoke" else Config()
    return _rows(run, config, measurements(config))


def first_calls(run: Run) -> dict[str, Any]:
    """Seconds of the first and second call of every method on ResNet-18 with one image of 64 px."""
    from benchmarks.methods import Config, measurements

    config = Config(network="resnet18", size=64, batch_size=1, repetitions=1)
    if run.preset == "smoke":
        config = Config(size=16, batch_size=1, repetitions=1, methods=("gradient",))
    return _rows(run, config, measurements(config))


def explain_vgg16(run: Run) -> dict[str, Any]:
    """Guided backpropagation and relevant features of VGG-16, beside Captum where it is installed."""
    import importlib.util

    from benchmarks.explain_vgg16 import Config, measurements

    has_captum = all(importlib.util.find_spec(name) for name in ("captum", "torch", "torchvision", "timm"))
    rows = ("captum", "ours", "recipe") if has_captum else ("ours", "recipe")
    config = Config(batch_size=64, num_images=512, rows=rows)
    if run.preset == "smoke":
        config = Config(batch_size=1, num_images=2, size=32, rows=("ours",))
    result: dict[str, Any] = {"settings": dataclasses.asdict(config), "rows": []}
    for precision in ("default", "float32") if run.preset == "accelerator" else ("default",):
        for row in config.rows:
            one = dataclasses.replace(config, rows=(row,), precision=precision)
            try:
                result["rows"] += measurements(one)
            except RuntimeError as error:  # one library must not hide the other
                result.setdefault("errors", []).append(str(error))
            run.save(result)
    return result


def statistics(run: Run) -> dict[str, Any]:
    """The pass that sums G = Σ x xᵀ, beside the plain matrix product."""
    from benchmarks.relevance import Config, passes

    small = Config(num_images=100, num_features=96, num_classes=3, batch_sizes=(16,), repetitions=1)
    config = small if run.preset == "smoke" else Config(repetitions=5)
    return _rows(run, config, passes(config))


def solver(run: Run) -> dict[str, Any]:
    """The mu-lasso on the host, beside scikit-learn's LARS where it is installed."""
    from benchmarks.relevance import Config, solutions

    config = Config(designs=((64, 3),)) if run.preset == "smoke" else Config()
    return _rows(run, config, solutions(config))


def an8flower(run: Run) -> dict[str, Any]:
    """The main job on double_12c; fewer images a class where rendering them would take too long."""
    import jax
    import numpy as np

    _keep_programs(run)
    from experiments.an8flower import PRESETS, main
    from vexplain.datasets.an8flower import RenderedSource

    config = dataclasses.replace(PRESETS[run.preset][1], variant="double_12c", out=run.work, devices=1)
    result: dict[str, Any] = {"device": device_facts(), "num_per_class_of_preset": config.num_per_class}
    if run.preset == "accelerator":
        source = RenderedSource("double_12c", config.num_per_class, config.size, config.samples, config.seed)
        batch, rate = {}, 0.0
        for start in (0, config.batch_size):  # the first compiles
            began = time.monotonic()
            batch = jax.block_until_ready(source[np.arange(start, start + config.batch_size)])
            rate = config.batch_size / (time.monotonic() - began)
        result["rendering_images_per_second"] = rate
        fits = int(rate * run.seconds / 4 / len(source.class_names)) // 50 * 50
        config = dataclasses.replace(config, num_per_class=min(config.num_per_class, max(100, fits)))
        result["num_per_class"] = config.num_per_class
        run.save(result)
        result["training_images_per_second"] = _training_rate(config, len(source.class_names), batch)
        run.save(result)
    metrics = main(config)
    shutil.copy(run.work / "report.html", run.out / "an8flower.html")
    return result | {"metrics": metrics, "num_per_class": config.num_per_class, "device": device_facts()}


def shape_translation(run: Run) -> dict[str, Any]:
    """The full model of shape translation, trained for the seconds that are left and then scored.

    A second call on the same machine goes on where the first stopped: the state of a training takes 1.1 GB.
    """
    _keep_programs(run)
    from experiments.shape_translation import PRESETS, main, read_history

    preset = PRESETS[run.preset][1]
    config = dataclasses.replace(preset, out=run.work, devices=1)
    if run.preset == "accelerator":
        aside = 180  # rendering, two compilations, the two VAEs, scores and figures
        minutes = max(run.seconds - aside, 30) / 60
        config = dataclasses.replace(config, num_pairs=500, every=500, call_minutes=minutes)
    history = run.work / f"{config.rung}-{config.variant}-seed{config.seed}" / "history.json"
    run.save({"device": device_facts(), "read_after": {"history": str(history)}})
    metrics = main(config)
    shutil.copy(run.work / "report.html", run.out / "shape_translation.html")
    return {
        "device": device_facts(),
        "metrics": metrics,
        "history": read_history(history),
        "num_pairs_of_preset": preset.num_pairs,
        "num_steps_of_preset": preset.num_steps,
        "continues": metrics["steps"] < config.num_steps,
    }


def appearance_translation(run: Run) -> dict[str, Any]:
    """Ways to carry texture, each trained for the same time on the same images and scored; the first, longer.

    They are compiled one after the other, without XLA's autotuning: on one H100 four of these programs,
    compiled at once with it beside 11 other processes, were not done after 290 seconds. It leaves two
    pictures of all ways, and the report once all are scored.
    """
    if run.preset == "accelerator":  # before JAX starts
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0"
        os.environ["XLA_FLAGS"] = flags.strip()
    _keep_programs(run)
    end = time.monotonic() + run.seconds - 8
    from experiments.appearance_translation import PRESETS, main, report_of
    from experiments.appearance_translation_data import rendered_data

    config, ways = dataclasses.replace(PRESETS[run.preset][1], out=run.work, devices=1), (("flow",),)
    if run.preset == "accelerator":
        config = dataclasses.replace(config, num_images=5000, num_pairs=200, every=250)
        ways = (("offsets", "flow"), ("adaptive",), ("flow",), ("attention",))
    configs = [dataclasses.replace(config, carriers=way) for way in ways]
    result: dict[str, Any] = {"device": device_facts(), "models": [], "errors": [], "seconds": {}}
    began = time.monotonic()
    data = rendered_data(config).training(split="train")
    result["seconds"]["rendering"] = time.monotonic() - began
    run.save(result)
    aside = 60.0  # beside training: compilation, scores, pictures; later as of the way before
    seconds = max(20.0, (end - time.monotonic()) / (len(ways) + 1) - aside)
    for n, one in enumerate([*configs, configs[0]]):
        left = end - time.monotonic() - aside
        if run.preset == "accelerator" and left < 8:
            result["in_time"] = n >= len(configs)  # all were trained once
            break
        trained = max(left if n == len(configs) else min(seconds, left), 1.0)
        started, before = time.monotonic(), _minutes(one)
        try:
            metrics = main(dataclasses.replace(one, call_minutes=trained / 60), data, with_report=False)
        except RuntimeError as error:  # a training that diverges must not hide the others
            result["errors"].append(f"{one.carriers}: {error}")
            continue
        aside = max(5.0, time.monotonic() - started - 60 * (metrics["minutes"] - before))
        result["models"].append(metrics | {"seconds_beside_training": aside})
        run.save(result | {"device": device_facts()})
        _montage(run, configs)
    if end - time.monotonic() > 10:
        shutil.copy(report_of(configs[0]), run.out / "appearance_translation.html")
    return result | {"device": device_facts()}


def _minutes(config: Any) -> float:
    """What a training took so far."""
    return (read_json(config.folder / "metrics.json") or {"minutes": 0.0})["minutes"]


def _montage(run: Run, configs: Any) -> None:
    """A picture for each direction: inputs, the translations of each way that is trained, and the truth."""
    import numpy as np
    from PIL import Image

    from vexplain.datasets.shape_swap import paired_test

    pairs, count = paired_test(24, size=configs[0].size), 24
    ends = {"ab": (pairs.images_a, pairs.images_b), "ba": (pairs.images_b, pairs.images_a)}
    for direction, (inputs, truths) in ends.items():
        rows = [inputs]
        for config in configs:
            if (config.folder / "outputs.npz").exists():
                with np.load(config.folder / "outputs.npz") as file:
                    rows.append(file[direction][:count] / 255)
        rows = [row[: min(map(len, rows))] for row in (*rows, truths)]
        picture = np.concatenate([np.concatenate(list(row), 1) for row in rows])
        picture = np.round(255 * picture).astype(np.uint8)
        Image.fromarray(picture).save(run.out / f"appearance_translation-{direction}.png")


PARTS: dict[str, Callable[[Run], dict[str, Any]]] = {
    part.__name__: part
    for part in (
        checks,
        methods,
        explain_vgg16,
        statistics,
        solver,
        an8flower,
        shape_translation,
        appearance_translation,
        first_calls,
    )
}


def device_facts() -> dict[str, Any]:
    """The device, what drives it, and the most that this process allocated on it, in GB."""
    import jax

    device = jax.devices()[0]
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "kind": device.device_kind,
        "platform": device.platform,
        "count": len(jax.devices()),
        "runtime": getattr(device.client, "platform_version", ""),
        "peak_memory_gb": peak and peak / 2**30,
    }


def _keep_programs(run: Run) -> None:
    """Compiled programs stay for a second call; not in parts that measure compilation."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(run.work / "programs"))


def _rows(run: Run, config: Any, rows: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"settings": dataclasses.asdict(config), "rows": []}
    for row in rows:
        result["rows"].append(row)
        run.save(result | {"device": device_facts()})
    return result | {"device": device_facts()}


def _training_rate(config: Any, num_classes: int, batch: Any) -> float:
    """Images a second of steps of training on one batch that is on the device, without its compilation."""
    import jax
    import optax
    from flax import nnx

    from vexplain.classifiers import FlowerNet, functionalize, supervised

    module = FlowerNet(num_classes, image_size=config.size, widths=config.widths, rngs=nnx.Rngs(0))
    apply, variables = functionalize(module)
    init, update = supervised(apply, optax.adam(config.learning_rate))
    batch = jax.device_put({name: batch[name] for name in ("images", "labels")})
    step, state = jax.jit(update, donate_argnums=0), init(variables)
    state = jax.block_until_ready(step(state, batch))
    began, num_steps = time.monotonic(), 50
    for _ in range(num_steps):
        state = step(state, batch)
    jax.block_until_ready(state)
    return num_steps * config.batch_size / (time.monotonic() - began)


def main(arguments: list[str]) -> None:
    """Runs one part: name, preset, folders and seconds; leaves its result as JSON."""
    name, preset, work, out, seconds, result = arguments

    def save(content: dict[str, Any]) -> None:
        write_json(result, content)

    save(PARTS[name](Run(preset, Path(work), Path(out), float(seconds), save)) | {"is_complete": True})


if __name__ == "__main__":
    main(sys.argv[1:])
