"""The experiment in its smallest preset: it trains, goes on when called again, and reports."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from experiments import appearance_translation
from experiments.appearance_translation_scores import references, scores_in
from experiments.shape_translation_scores import means
from vexplain.datasets.shape_swap import paired_test
from vexplain.translation.layered import layered_training

SMOKE = dataclasses.replace(appearance_translation.PRESETS["smoke"][1], devices=1, carriers=("offsets",))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two calls of one training; they share a compiled step."""
    out = tmp_path_factory.mktemp("appearance_translation")
    optimizer = appearance_translation.optimizer_of(SMOKE)
    on_the_device = functools.cache(appearance_translation.images_on_the_device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appearance_translation, "optimizer_of", lambda config: optimizer)
        patch.setattr(appearance_translation, "layered_training", functools.cache(layered_training))
        patch.setattr(appearance_translation, "images_on_the_device", on_the_device)
        first = appearance_translation.main(
            dataclasses.replace(SMOKE, out=out, num_steps=3), with_report=False
        )
        return out, first, appearance_translation.main(dataclasses.replace(SMOKE, out=out))


def test_a_second_call_goes_on_and_leaves_metrics_outputs_and_report(run):
    out, first, metrics = run
    assert (first["steps"], metrics["steps"]) == (3, 6)
    folder = out / "offsets-U-seed0"
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    with np.load(folder / "outputs.npz") as file:
        assert file["ab"].shape == file["ba"].shape == (8, 16, 16, 3)
    assert {path.stem for path in (out / "figures").iterdir()} == {
        "translations-ab",
        "translations-ba",
        "losses",
    }
    report = (out / "report.html").read_text()
    for words in ("IoU gain", "mean color (true mask)", "appearance code", "color histogram", "mAP"):
        assert words in report
    retrieval = metrics["scores"]["ab"]["retrieval"]
    assert retrieval["appearance code"]["numbers"] == retrieval["color histogram"]["numbers"] == 64


def test_references_score_as_they_must():
    pairs = paired_test(40, size=32)
    for direction, truth in (("ab", pairs.images_b), ("ba", pairs.images_a)):
        found = {
            name: means(scores_in(made, pairs, direction))
            for name, made in references(pairs, direction).items()
        }
        copy, mean, pasted = found.values()
        assert means(scores_in(truth, pairs, direction))["texture"] > 0.999
        assert abs(copy["iou_gain"]) < 0.03
        assert mean["texture"] == pytest.approx(0, abs=1e-3)
        assert pasted["texture"] > 0.6
        assert pasted["l1"] < 0.7 * mean["l1"]


def test_pairs_are_for_the_upper_bound_alone():
    def batch(config):
        return appearance_translation.chosen(config, (40, 40), 3)

    unpaired, paired = batch(SMOKE), batch(dataclasses.replace(SMOKE, paired=True))
    assert (unpaired["a"] != unpaired["b"]).any()
    np.testing.assert_array_equal(paired["a"], paired["b"])
    bound = appearance_translation.weights(dataclasses.replace(SMOKE, paired=True))
    assert (bound.gan, bound.paired) == (0, 10)
    assert appearance_translation.weights(dataclasses.replace(SMOKE, without=("cycle",))).cycle == 0


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="without has 'style': expected some of coverage, "):
        dataclasses.replace(SMOKE, without=("style",))
    with pytest.raises(ValueError, match="minutes is 0: expected more than 0"):
        dataclasses.replace(SMOKE, minutes=0)
