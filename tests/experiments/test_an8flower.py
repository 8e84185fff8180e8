"""The main job, in its smallest preset: everything is written, and what was interrupted goes on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import an8flower
from vexplain.datasets.an8flower import class_names
from vexplain.relevance import load_relevance

ROOT = Path(__file__).parent.parent.parent
SMOKE = dataclasses.replace(an8flower.PRESETS["smoke"][1], devices=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("an8flower")
    return out, an8flower.main(dataclasses.replace(SMOKE, out=out))


def test_the_folder_holds_metrics_figures_and_report(run):
    out, metrics = run
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert (out / "report.html").stat().st_size > 100_000
    found = load_relevance(out / "relevance.npz")
    sheets = {f"features-{name.replace(' ', '-')}.png" for name in found.class_names}
    figures = {"explanations.png", "iou-curves.png", "ablation.png", "weights.png"}
    assert sheets | figures <= {path.name for path in (out / "figures").iterdir()}
    assert not list(out.rglob("*.tmp")) + list(out.rglob("*.part"))


def test_the_metrics_are_complete_and_in_range(run):
    _, metrics = run
    assert set(metrics["num_features"]) == set(class_names("single_6c"))
    assert metrics["relative_duality_gap"] <= 1e-6
    assert len(metrics["scores"]) == 7
    for score in metrics["scores"].values():
        assert 0 <= score["area"] <= score["best"] <= 1
        assert len(score["curve"]) == 101
    ablation = metrics["ablation"]
    assert len(ablation["random"]) == SMOKE.num_draws == len(ablation["random_conv"])
    assert 0 <= ablation["relevant"] <= 1
    assert metrics["rendering_images_per_second"] > 0


def test_the_report_names_what_it_shows(run):
    out, metrics = run
    report = (out / "report.html").read_text()
    for words in (
        "red petals",
        "Grad-CAM",
        "relevant features",
        "ablation",
        "jax",
        f"{metrics['accuracy']:.1%}",
    ):
        assert words in report


def test_a_job_that_is_killed_in_training_ends_as_one_that_was_not(run, tmp_path):
    """SIGKILL as soon as a checkpoint is there; the second call goes on, and nothing differs."""
    _, expected = run
    command = [
        sys.executable,
        "-m",
        "experiments.an8flower",
        "smoke",
        "--out",
        str(tmp_path),
        "--devices",
        "2",
    ]
    job = subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints-*/[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert list(tmp_path.glob("checkpoints-*/[0-9]*"))
    assert not (tmp_path / "metrics.json").exists()
    metrics = an8flower.main(dataclasses.replace(SMOKE, out=tmp_path))
    for name in ("accuracy", "num_features", "ablation"):
        assert metrics[name] == expected[name]
    for name, score in metrics["scores"].items():
        np.testing.assert_array_equal(score["curve"], expected["scores"][name]["curve"])


def test_bad_settings_are_named(tmp_path):
    for change, message in (
        ({"mu": 0.0}, "mu"),
        ({"size": 18}, "image_size is 18"),
        ({"test_fold": 5}, "fold is 5"),
        ({"devices": 99}, "num_devices is 99"),
    ):
        with pytest.raises(ValueError, match=message):
            an8flower.main(dataclasses.replace(SMOKE, out=tmp_path, **change))
