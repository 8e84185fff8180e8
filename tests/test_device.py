"""The command for accelerators at its smallest: what it keeps, what it says of failures, its tables."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import outcomes
from benchmarks.device import LIMITS, PRESETS, main
from benchmarks.device_checks import run_tests
from benchmarks.device_parts import PARTS
from benchmarks.device_tables import HEADINGS, SECTIONS, tables
from benchmarks.relevance import Config, passes, solutions
from vexplain._files import read_json

SMOKE = PRESETS["smoke"][1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The mu-lasso, and a part that fails."""
    folder = tmp_path_factory.mktemp("device")
    config = dataclasses.replace(SMOKE, out=folder / "out", work=folder / "work", parts=("solver",))
    status = main(config)
    failed = main(dataclasses.replace(config, preset="unheard of", parts=("checks", "solver")))
    return config, status, failed, read_json(config.out / "device.json")


def test_each_part_is_known_everywhere():
    assert set(PARTS) == set(LIMITS) == set(HEADINGS) == set(SECTIONS) == set(SMOKE.parts)


def test_a_part_leaves_its_numbers_and_a_later_call_keeps_them(run):
    _, status, _, record = run
    part = record["parts"]["solver"]
    assert status == 0
    assert part["status"] == "done"
    assert part["result"]["rows"][0]["classes"] == 3
    assert part["commit"]
    assert record["host"]["versions"]["jax"]


def test_a_part_that_fails_is_noted_and_the_next_goes_on(run):
    config, _, failed, record = run
    assert failed == 1
    assert record["parts"]["checks"]["status"] == "failed"
    assert "unheard of" in record["parts"]["checks"]["error"]
    assert "KeyError" in (config.out / "log.txt").read_text()


def test_without_time_nothing_is_begun(tmp_path):
    config = dataclasses.replace(SMOKE, out=tmp_path, work=tmp_path, minutes=0.1)
    assert main(config) == 1
    assert not (tmp_path / "device.json").exists()


def test_settings_are_checked():
    with pytest.raises(ValueError, match="parts has 'check': expected some of checks, "):
        dataclasses.replace(SMOKE, parts=("check",))
    with pytest.raises(ValueError, match="minutes is 0: expected more than 0"):
        dataclasses.replace(SMOKE, minutes=0)


def test_there_are_tables_of_what_was_measured_and_of_nothing_else(run):
    *_, record = run
    text = tables(record)
    assert text.count("###") == 1
    assert "### The mu-lasso" in text
    assert "On cpu, jax " in text
    assert "| 64 | 3 | " in text


def test_tables_of_every_part():
    device = {"kind": "H9", "peak_memory_gb": 7.5}
    means = {"IoU area": 0.25, "best IoU": 0.5}
    scores = {
        "iou_gain": 0.5,
        "hue_error": 4.0,
        "delta_e": 1.0,
        "l1": 0.1,
        "centroid_error": 1.0,
        "recall": 0.4,
    }
    results = {
        "checks": {
            "files": {"tests/a.py": {"passed": 3, "failed": 1}},
            "failures": [{"test": "a.py::b", "error": "0 | 1", "in_float32": "passed"}],
            "in_time": False,
        },
        "methods": {
            "settings": {"network": "flower_net", "size": 112, "batch_size": 64},
            "rows": [{"method": "grad_cam", "first": 2.0, "second": 0.1, "images_per_second": 12345.6}],
        },
        "explain_vgg16": {
            "settings": {"num_images": 512, "size": 224, "batch_size": 64},
            "rows": [
                {
                    "row": "ours",
                    "precision": "default",
                    "first": 9.0,
                    "seconds": 0.002,
                    "memory": 3.0,
                    "device": "H9",
                }
            ],
        },
        "an8flower": {
            "num_per_class": 500,
            "num_per_class_of_preset": 1000,
            "rendering_images_per_second": 99.0,
            "metrics": {
                "variant": "double_12c",
                "accuracy": 0.99,
                "ablation": {"relevant": 0.125},
                "seconds": {"Rendering": 60.0},
                "scores": {"grad_cam": {"means": means}},
                "settings": {"size": 112},
            },
        },
        "shape_translation": {
            "num_steps_of_preset": 60_000,
            "history": {"steps": [500, 1000], "seconds": 100.0, "values": {}},
            "metrics": {
                "settings": {"size": 64, "batch_size": 64, "num_pairs": 500},
                "scores": {"ab": scores | {"score": 0.5}},
            },
        },
        "appearance_translation": {
            "models": [
                {
                    "carriers": ["offsets", "flow"],
                    "steps": 1200,
                    "minutes": 0.5,
                    "settings": {"size": 64, "batch_size": 32, "num_pairs": 200},
                    "scores": {"ba": scores | {"score": 0.75, "texture": 0.9}},
                }
            ]
        },
    }
    parts = {
        name: {"status": "done", "commit": "abc", "result": {"device": device} | result}
        for name, result in results.items()
    }
    text = tables({"preset": "accelerator", "host": {"versions": {"jax": "1.2"}}, "parts": parts})
    for line in (
        "On H9, jax 1.2, commit `abc` (`python -m benchmarks.device accelerator --parts methods`):",
        "| `tests/a.py` | 3 | 1 | 0 |",
        "stopped by their limit in time",
        "| `a.py::b` | 0 \\| 1 | passes |",
        "| Grad-CAM | 12,346 | 2 | 0.1 |",
        "At most 7.5 GB were allocated on the device.",
        "| guided backpropagation, vexplain | default | 500 | 3 | 9 |",
        "500 images a class instead of the 1000 of the preset",
        "| Grad-CAM | 25.0 | 50.0 |",
        "1,000 steps in 1.7 minutes, 10.0 a second with compilation and checkpoints (of 60,000 of the pre",
        "| ab | 0.5 | 4 | 1 | 0.1 | 1 | 0.4 | 0.5 |",
        "| offsets + flow | ba | 1200 | 0.5 | 0.5 | 4 | 0.1 | 0.9 | 0.4 | 0.75 |",
    ):
        assert line in text


def test_checks_in_which_no_test_ran_are_a_failure(tmp_path):
    options = {"folder": tmp_path, "seconds": 60, "workers": 0, "platform": "cpu"}
    with pytest.raises(RuntimeError, match="no test ran: pytest ended with status 4"):
        list(run_tests(["tests/not_there.py"], **options))


def test_all_ways_to_sum_agree_with_float64():
    config = Config(num_images=50, num_features=70, num_classes=3, batch_sizes=(8, 16), repetitions=1)
    rows = list(passes(config))
    assert [row["pass"].split(",")[0] for row in rows] == ["plain product"] * 2 + ["gram_statistics"] * 3
    assert max(row["error"] for row in rows) < 1e-6


def test_the_solver_agrees_with_lars():
    (row,) = solutions(Config(designs=((40, 3),), num_lars=2))
    assert row["gap"] < 1e-6
    assert row["difference"] < 1e-6


def test_outcomes_of_tests_are_written_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTCOMES", str(tmp_path / "outcomes.jsonl"))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    report = SimpleNamespace(nodeid="a", outcome="passed", duration=1.0, when="setup", failed=False)
    outcomes.pytest_runtest_logreport(report)  # it did not run yet
    report.when = "call"
    outcomes.pytest_runtest_logreport(report)
    crash = SimpleNamespace(message="assert 1 == 2\n  more")
    report.outcome, report.failed, report.longrepr = "failed", True, SimpleNamespace(reprcrash=crash)
    outcomes.pytest_runtest_logreport(report)
    lines = [json.loads(line) for line in (tmp_path / "outcomes.jsonl").read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["passed", "failed"]
    assert lines[1]["error"] == "assert 1 == 2 more"
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")
    outcomes.pytest_runtest_logreport(report)
    assert len((tmp_path / "outcomes.jsonl").read_text().splitlines()) == 2
    assert np.isclose(lines[0]["seconds"], 1)
