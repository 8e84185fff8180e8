"""The experiment in its smallest preset: it trains, goes on when called again, and reports."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import appearance_translation
from experiments.appearance_translation_data import rendered_data
from experiments.appearance_translation_scores import references, scores_in
from experiments.shape_translation_scores import means
from vexplain.datasets.shape_swap import paired_test
from vexplain.translation.layered import layered_training

SMOKE = dataclasses.replace(appearance_translation.PRESETS["smoke"][1], devices=1, carriers=("offsets",))


@pytest.fixture(scope="module", autouse=True)
def equal_trainings_share_a_program():
    optimizer = appearance_translation.optimizer_of(SMOKE)
    on_the_device = functools.cache(appearance_translation.images_on_the_device)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appearance_translation, "optimizer_of", lambda config: optimizer)
        patch.setattr(appearance_translation, "layered_training", functools.cache(layered_training))
        patch.setattr(appearance_translation, "images_on_the_device", on_the_device)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("appearance_translation")
    short = dataclasses.replace(SMOKE, out=out, num_steps=3)
    first = appearance_translation.main(short, with_report=False)
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
        "answers-ab",
        "answers-ba",
        "losses",
    }
    report = (out / "report.html").read_text()
    for words in ("IoU gain", "mean color (true mask)", "appearance code", "color histogram", "mAP"):
        assert words in report
    retrieval = metrics["scores"]["ab"]["retrieval"]
    assert retrieval["appearance code"]["numbers"] == retrieval["color histogram"]["numbers"] == 64


def test_references_score_as_they_must():
    data = rendered_data(dataclasses.replace(SMOKE, size=32, num_pairs=40))
    pairs = data.pairs()
    for direction, truth in (("ab", pairs.images_b), ("ba", pairs.images_a)):
        found = {
            name: means(scores_in(made, pairs, direction))
            for name, (made, _) in references(pairs, direction, data).items()
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


def test_garments_are_put_on_and_taken_off(run, tmp_path, monkeypatch):
    """Without training: the scores, the galleries and the report of the other data."""

    history = {"seconds": 0.0, "steps": [1, 2], "values": {"fit": [2.0, 1.0]}}

    def untrained(config, translator, arrays, watch):
        names = ("a", "coverage_a", "b", "coverage_b", "scenes_b", "holes_b")
        assert {name: array.dtype for name, array in arrays.items()} == dict.fromkeys(names, np.uint8)
        return appearance_translation.training(config, translator, arrays)[1], history

    monkeypatch.setattr(appearance_translation, "train", untrained)
    monkeypatch.setattr(appearance_translation, "read_history", lambda path: history)
    config = dataclasses.replace(SMOKE, data="try_on", out=tmp_path, num_images=8)
    metrics = appearance_translation.main(config)
    for direction in ("ab", "ba"):
        found = metrics["scores"][direction]
        assert 0 < found["background_l1"] < 0.5
        for name in ("retrieval", "retrieval, colors"):
            assert set(found[name]) == {"appearance code", "random encoder", "color histogram", "pixels"}
            assert found[name]["pixels"]["R@20"] == 1
    assert "cycle" not in metrics["scores"]["ab"]
    assert set(metrics["scores"]["ba"]["probes"]["shape code"]) >= {"hue", "angle", "rotation", "left_arm"}
    report = (tmp_path / "report.html").read_text()
    for words in ("And among garments of its own colors?", "L1 beside it", "left arm"):
        assert words in report


def test_two_folders_are_translated_and_broken_files_are_named(run, tmp_path):
    pairs = paired_test(69, size=16)
    for name, images in (("shirts", pairs.images_a), ("trousers", pairs.images_b)):
        (tmp_path / name).mkdir()
        for n, image in enumerate(images):
            Image.fromarray(np.uint8(255 * image)).save(tmp_path / name / f"{n:02}.png")
    (tmp_path / "shirts" / "50 broken.png").write_bytes(b"no image")
    config = dataclasses.replace(
        SMOKE, out=tmp_path, a=tmp_path / "shirts", b=tmp_path / "trousers", num_steps=3
    )
    metrics = appearance_translation.main(config)
    assert metrics["steps"] == 3
    assert [Path(name).name for name in metrics["skipped"]] == ["50 broken.png"]
    assert set(metrics["kept"]) == set(metrics["cycle"]) == {"ab", "ba"}
    folder = tmp_path / "shirts-trousers-offsets-seed0"
    with np.load(folder / "outputs.npz") as file:
        assert file["ab"].shape == file["ba"].shape == (5, 16, 16, 3)
    report = (folder / "report.html").read_text()
    for words in ("50 broken.png", "No true translation is known", "A model in layers"):
        assert words in report
    with pytest.raises(ValueError, match="64 readable images are left to train on; expected at least batch"):
        appearance_translation.main(dataclasses.replace(config, batch_size=65))


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match="a is given and b is not: give the folders of both domains"):
        dataclasses.replace(SMOKE, a=Path("shirts"))
    with pytest.raises(ValueError, match="paired is True: images of folders have no known partners"):
        dataclasses.replace(SMOKE, a=Path("shirts"), b=Path("coats"), paired=True)
    with pytest.raises(ValueError, match="data is 'try_on' and paired is given: expected one of them"):
        dataclasses.replace(SMOKE, data="try_on", paired=True)
    with pytest.raises(ValueError, match="without has 'style': expected some of coverage, "):
        dataclasses.replace(SMOKE, without=("style",))
    with pytest.raises(ValueError, match="minutes is 0: expected more than 0"):
        dataclasses.replace(SMOKE, minutes=0)
