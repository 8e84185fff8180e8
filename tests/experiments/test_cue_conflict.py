"""The study of cues in small: every question is asked, and answered as by hand."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cue_conflict
from experiments.cue_conflict_measures import (
    KINDS,
    bias_by_interventions,
    changed_decisions,
    feature_kinds,
    total_effects,
)
from vexplain.datasets.cue_objects import CUES
from vexplain.relevance import Relevance

SMOKE = cue_conflict.PRESETS["smoke"][1]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("cue_conflict")
    return out, cue_conflict.main(dataclasses.replace(SMOKE, out=out, devices=1))


def test_the_folder_holds_metrics_figures_and_report(run):
    out, metrics = run
    kept = json.loads((out / "cue_conflict.json").read_text())
    assert [row["name"] for row in kept["rows"]] == ["texture", "shape"]
    assert (out / "report.html").stat().st_size > 50_000
    assert {path.name for path in (out / "figures").iterdir()} == {"gallery.png", "shape_bias.png"}
    for row in metrics["rows"]:
        assert 0 <= row["accuracy"] <= 1
        decisions = row["decisions"]
        assert sum(decisions.values()) == pytest.approx(1)
        assert decisions["shape"] + decisions["texture"] == pytest.approx(row["decided"])
        assert row["bias"] * row["decided"] == pytest.approx(decisions["shape"])
        assert sum(row["features"]["weight"].values()) == pytest.approx(1)
        assert len(row["features"]["classes"]) == 6


def test_the_order_of_the_classes_goes_from_texture_to_shape():
    found = cue_conflict.Config(probabilities=(0.9, 0.6)).tasks()
    ordered = [cues for cues in found.values() if "color" not in cues]
    leads = [cues.get("shape", 0) - cues.get("texture", 0) for cues in ordered]
    assert leads == pytest.approx([-1, -0.4, -0.1, 0, 0.1, 0.4, 1])


def test_total_effects_are_those_of_an_additive_function(key):
    """Of x = 3 a + 4 b + noise of variance 2, a and b uniform over six values: Var of a value is 35/12."""
    rng = np.random.default_rng(0)
    values, noise = rng.integers(0, 6, (4000, 3)), rng.normal(0, np.sqrt(2), 4000)
    images = np.concatenate([values, noise[:, None]], axis=1)[:, None, None]
    changed = np.repeat(images[:, None, None], 3, axis=2).repeat(5, axis=1)
    for step in range(5):
        for cue in range(3):
            changed[:, step, cue, 0, 0, cue] = (values[:, cue] + step + 1) % 6
    weights = jnp.array([3.0, 4.0, 0.0, 1.0])
    found = total_effects(
        lambda variables, x: (x * weights).sum((1, 2, 3))[:, None] * jnp.array([1.0, 0.0]),
        None,
        images,
        changed,
    )
    variances = np.array([9, 16, 0]) * 35 / 12
    np.testing.assert_allclose(found[0], variances / (variances.sum() + 2), atol=0.02)
    np.testing.assert_array_equal(found[1], 0)  # a feature that never changes


def test_decisions_that_change_are_counted():
    images = np.zeros((4, 1, 1, 3))
    changed = np.zeros((4, 2, 3, 1, 1, 3))
    changed[:, :, 0, ..., 2] = 1  # the shape decides
    changed[:2, 0, 1, ..., 1] = 1  # the texture in a quarter of its interventions
    flips = changed_decisions(lambda variables, x: x[:, 0, 0].argmax(-1), None, images, changed)
    assert flips == [1.0, 0.25, 0.0]
    assert bias_by_interventions(flips) == 0.8
    assert np.isnan(bias_by_interventions([0.0, 0.0, 1.0]))


def test_features_are_of_the_cue_with_the_largest_effect():
    weights = np.array([[1.0, 0.0], [2.0, 0.5], [0.0, 0.0], [0.0, 0.5]])
    found = Relevance(weights, np.zeros(2), np.zeros(2), 5.0, (("conv_1", 1), ("relu_1", 3)), ("a", "b"))
    effects = np.array([[0.1, 0.7, 0.2], [0.8, 0.1, 0.1], [0.9, 0, 0], [0.01, 0.0, 0.02]])
    kinds = feature_kinds(found, effects)
    assert kinds["weight"] == {"shape": 2.5 / 4, "texture": 1 / 4, "color": 0.0, "none": 0.5 / 4}
    assert [f["feature"] for f in kinds["classes"]["a"]] == ["relu_1[0]", "conv_1[0]"]
    assert [f["kind"] for f in kinds["classes"]["b"]] == ["shape", "none"]
    assert kinds["classes"]["a"][1]["effects"] == dict(zip(CUES, effects[0], strict=True))
    assert set(kinds["weight"]) == set(KINDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"probabilities": (0.1,)}, "probabilities is"),
        ({"classes": ("size",)}, "classes has"),
        ({"background": "sky"}, "background is 'sky'"),
    ],
)
def test_bad_settings_are_named_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMOKE, **change)
