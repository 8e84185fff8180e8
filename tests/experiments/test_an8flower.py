"""The main job in its smallest preset, run once, from the notebook: everything is written."""

import dataclasses
import json
import re

import numpy as np
import pytest

from experiments import an8flower, an8flower_report
from tests.test_notebooks import ROOT, program
from vexplain.catalog import title_of
from vexplain.datasets.an8flower import class_names
from vexplain.evaluation import CONTROLS, Score
from vexplain.figures.curves import PAPER
from vexplain.relevance import Relevance, load_relevance

SMOKE = dataclasses.replace(an8flower.PRESETS["smoke"][1], devices=2)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder of results, metrics); the cells of the notebook run in order, in one namespace."""
    folder, notebook = tmp_path_factory.mktemp("an8flower"), ROOT / "notebooks/colab.ipynb"
    namespace = {"__name__": notebook.stem}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("VEXPLAIN_PRESET", "smoke")
        exec(compile(program(notebook), str(notebook), "exec"), namespace)
    return folder / "runs" / "colab", namespace["metrics"]


def test_the_notebook_explains_a_network_of_its_own(run):
    out, _ = run
    assert (out / "my_network.png").stat().st_size > 5_000


def test_the_folder_holds_metrics_figures_and_report(run):
    out, metrics = run
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert (out / "report.html").stat().st_size > 100_000
    found = load_relevance(out / "relevance.npz")
    sheets = {f"features-{name.replace(' ', '-')}.png" for name in found.class_names}
    figures = {"explanations.png", "iou-curves.png", "ablation.png", "weights.png"}
    assert sheets | figures <= {path.name for path in (out / "figures").iterdir()}
    assert not [path for name in ("*.tmp", "*.part", "passes-*") for path in out.rglob(name)]


def test_the_metrics_are_complete_and_in_range(run):
    _, metrics = run
    assert set(metrics["num_features"]) == set(class_names("single_6c"))
    assert metrics["relative_duality_gap"] <= 1e-6
    assert set(metrics["scores"]) == {*an8flower.METHODS, "true mask"}
    for score in metrics["scores"].values():
        assert 0 <= score["means"]["IoU area"] <= score["means"]["best IoU"] <= 1
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu": 0.0}, "mu is 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"num_features": 0}, "num_features is 0"),
        ({"num_draws": -1}, "num_draws is -1"),
        ({"epochs": 0}, "epochs is 0"),
        ({"size": 18}, "size is 18: expected a multiple of 4"),
        ({"test_fold": 9}, "test_fold is 9: expected 0 to 4"),
        ({"widths": (4, 0, 12)}, r"widths is \(4, 0, 12\)"),
        ({"seed": -1}, "seed is -1"),
        ({"devices": 0}, "devices is 0"),
    ],
)
def test_bad_settings_are_named_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMOKE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"devices": 99}, "num_devices is 99"),
        ({"devices": 3}, "batch_size is 16: expected a multiple of the 3 devices"),
        ({"num_per_class": 2}, "num_per_class is 2: leaves .* images for training.*a batch takes 16"),
    ],
)
def test_settings_that_the_machine_or_the_data_refuse_are_named_before_rendering(
    change, message, tmp_path, monkeypatch
):
    monkeypatch.setattr(an8flower, "in_memory", lambda *args, **options: 1 / 0)
    with pytest.raises(ValueError, match=message):
        an8flower.main(dataclasses.replace(SMOKE, out=tmp_path, **change))


def made_scores(*ranking):
    curve = np.zeros(101)
    areas = {name: {"IoU area": np.array([0.5 - 0.1 * place])} for place, name in enumerate(ranking)}
    return {name: Score(values, curve, "") for name, values in areas.items()}


def made_metrics(accuracy):
    silenced = {"conv_1": 2, "relu_1": 3}
    return {
        "accuracy": accuracy,
        "variant": "single_6c",
        "num_candidates": 40,
        "num_test_images": 9,
        "num_features": {"a": 2, "b": 3},
        "settings": {"mu": 5.0},
        "ablation": {"num_silenced": silenced, "relevant": 0.2, "random": [0.5]},
    }


@pytest.mark.parametrize(
    ("accuracy", "words", "not_words"),
    [
        (0.99, "learned to tell 2 classes", "chance"),
        (0.72, "did not learn to tell them: 72.0% .* chance gives 50.0%", "learned to tell 2"),
        (0.18, "did not learn to tell them: 18.0%", "learned to tell 2"),
    ],
)
def test_the_lead_says_what_the_accuracy_bears_out(accuracy, words, not_words):
    lead = an8flower_report._lead(
        made_relevance("ab"), made_scores("gradient", PAPER, *CONTROLS), made_metrics(accuracy)
    )
    assert re.search(words, lead), lead
    assert not re.search(not_words, lead), lead
    ten = an8flower_report._lead(
        made_relevance("abcdefghij"), made_scores("gradient", PAPER), made_metrics(0.72)
    )
    assert "only in part: 72.0%" in ten


def test_controls_are_no_methods():
    scores = made_scores(CONTROLS[1], "gradient", PAPER, CONTROLS[0])
    lead = an8flower_report._lead(made_relevance("ab"), scores, made_metrics(0.99))
    assert "among 2 methods, the paper's is number 2 by area" in lead
    assert lead.endswith(f"below a control that knows nothing of the network ({title_of(CONTROLS[1])}).")
    tiles = an8flower_report._key_figures(scores, made_metrics(0.99))
    assert ("IoU area, paper's recipe", "30.0%", "best: gradient, 40.0%") in tiles


def made_relevance(names):
    count = len(names)
    weights = np.ones((5, count))
    layout = (("conv_1", 2), ("relu_1", 3))
    return Relevance(weights, np.zeros(count), np.ones(count), np.asarray(5.0), layout, tuple(names))
