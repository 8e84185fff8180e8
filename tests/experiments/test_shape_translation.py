"""Shape translation in its smallest preset: rungs train, are scored and reported, and go on when called."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import shape_translation
from experiments.shape_translation_scores import (
    controls,
    galleries,
    hue_offset,
    means,
    recall,
    scores_of,
)
from vexplain.datasets import unpaired_batches
from vexplain.datasets.shape_swap import ShapeSwapSource, paired_test
from vexplain.streaming import CheckpointError, TrainingDiverged
from vexplain.translation import collapse, cycle_scores, without_truth

SMOKE = dataclasses.replace(shape_translation.PRESETS["smoke"][1], devices=2)


@pytest.fixture(scope="module", autouse=True)
def equal_trainings_share_a_program():
    """Calls of the experiment that train the same rung by the same seed are compiled once."""
    optimizer = shape_translation.optimizer_of(SMOKE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape_translation, "optimizer_of", lambda config: optimizer)
        patch.setattr(without_truth, "_BATCH", SMOKE.num_pairs)  # else 8 images are filled up to 50
        yield


@pytest.fixture
def without_report(monkeypatch):
    """For tests that look at the training alone: half of a short call goes into figures."""
    monkeypatch.setattr(shape_translation, "write_ladder_report", lambda *args, **options: "no report")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder, metrics of a call that stops after its minutes, metrics of the one that goes on)."""
    out = tmp_path_factory.mktemp("shape_translation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape_translation, "write_ladder_report", lambda *args, **options: "no report")
        first = shape_translation.main(dataclasses.replace(SMOKE, out=out, call_minutes=1e-6))
    return out, first, shape_translation.main(dataclasses.replace(SMOKE, out=out))


def test_a_call_stops_after_its_minutes_and_a_second_goes_on_and_ends_as_one_call(
    run, tmp_path, without_report
):
    _, first, second = run
    assert (first["steps"], second["steps"]) == (3, 6)
    whole = shape_translation.main(dataclasses.replace(SMOKE, out=tmp_path))
    assert whole["losses"] == second["losses"]
    assert whole["scores"] == second["scores"]


def test_a_training_that_collapsed_is_said(run):
    pairs = paired_test(6, level=4, variant="U", size=16)
    inputs, truth = pairs.images_a, np.asarray(pairs.images_b)
    assert collapse(truth, inputs) == ""
    white = np.concatenate([truth[:2], np.full((4, 16, 16, 3), 0.99)])
    assert "are images of one color (mean RGB 0.9" in collapse(white, inputs)
    assert collapse(np.repeat(truth[:1], 6, axis=0), inputs) == "all translations are the same image"
    out, _, metrics = run
    report = (out / "report.html").read_text()
    assert ("the training of this run collapsed" in report) == any(metrics["collapsed"].values())
    assert set(metrics["collapsed"]) == {"ab", "ba"}


def test_the_folder_holds_metrics_outputs_figures_and_report(run):
    out, _, metrics = run
    folder = out / "similarity-U-seed0"
    assert list(folder.glob("checkpoints-vae/2"))  # the two VAEs went first
    assert list(folder.glob("tensorboard/events*"))
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    with np.load(folder / "outputs.npz") as file:
        assert file["ab"].shape == file["ba"].shape == (8, 16, 16, 3)
    state = shape_translation.state_of(dataclasses.replace(SMOKE, out=out))
    assert {name: float(value) for name, value in state.losses.items()} == metrics["losses"]
    names = {path.name for path in (out / "figures").iterdir()}
    assert {
        "translations-ab.png",
        "translations-ba.png",
        "hues.png",
        "losses.png",
        "interpolation.png",
    } <= names
    report = (out / "report.html").read_text()
    for words in (
        "IoU gain",
        "nearest neighbor",
        "mean color (true mask)",
        "+ similarity",
        "hidden channel",
        "noise 8/255",
    ):
        assert words in report


def test_a_rival_joins_the_table(run):
    out, *_ = run
    shape_translation.main(dataclasses.replace(SMOKE, out=out, rung="cyclegan", num_steps=3))
    report = (out / "report.html").read_text()
    assert "CycleGAN" in report
    assert "+ similarity" in report
    assert "Does another seed" not in report


def test_the_upper_bound_is_trained_with_pairs_and_seeds_are_compared(tmp_path, monkeypatch):
    short = dataclasses.replace(SMOKE, out=tmp_path, rung="supervised", num_steps=3)
    with monkeypatch.context() as context:
        context.setattr(shape_translation, "write_ladder_report", lambda *args, **options: "no report")
        shape_translation.main(short)
    metrics = shape_translation.main(dataclasses.replace(short, seed=1))
    assert set(metrics["losses"]) == {"reconstruction", "kl", "paired"}
    report = (tmp_path / "report.html").read_text()
    for words in ("Does another seed", "with pairs (upper bound), seed 1", "mean offset"):
        assert words in report


def test_a_divergence_stops_and_is_never_saved(tmp_path, monkeypatch, without_report):
    config = dataclasses.replace(SMOKE, out=tmp_path, rung="vae", vae_steps=0)
    good = shape_translation.main(dataclasses.replace(config, num_steps=3))

    def spoiled(a, b, batch_size, *, seed):
        batch_fn, steps = unpaired_batches(a, b, batch_size, seed=seed)
        return lambda t: {d: np.full_like(x, np.nan) for d, x in batch_fn(t).items()}, steps

    with monkeypatch.context() as context:
        context.setattr(shape_translation, "unpaired_batches", spoiled)
        with pytest.raises(TrainingDiverged, match=r"not finite at step 3: .*reconstruction"):
            shape_translation.main(config)
    state = shape_translation.state_of(config)
    assert int(state.step) == 3
    assert {name: float(value) for name, value in state.losses.items()} == good["losses"]


def test_the_hue_offset_is_the_mean_around_the_circle():
    offset, agreement = hue_offset(np.array([170.0, -170.0]))
    np.testing.assert_allclose(abs(offset), 180, atol=1e-6)
    np.testing.assert_allclose(agreement, np.cos(np.deg2rad(10)))
    np.testing.assert_allclose(hue_offset(np.linspace(-180, 180, 36, endpoint=False))[1], 0, atol=1e-9)


def test_a_cycle_that_hides_its_input_is_found():
    """The translation shows gray, and carries its input at a hundredth of its contrast."""
    pairs = paired_test(10, size=16)

    def translate(images, *, direction):
        if direction == "ab":
            return 0.5 + 0.01 * (images - 0.5)
        return np.clip((images - 0.5) * 100 + 0.5, 0, 1)

    hides = cycle_scores(translate, pairs.images_a, "ab")
    honest = cycle_scores(lambda images, direction: images, pairs.images_a, "ab")
    assert hides["cycle error"] < 0.01
    assert hides["noise 4/255"] > 20
    assert honest["noise 4/255"] < 8


def test_rungs_differ_as_the_talk_says():
    def weights(rung):
        return shape_translation.weights(dataclasses.replace(SMOKE, rung=rung))

    assert not weights("vae").translates
    assert (weights("gan").gan, weights("gan").cycle) == (2, 0)
    assert (weights("cycle").cycle, weights("cycle").color) == (10, 0)
    assert weights("similarity") == weights("shared")
    settings = {
        r: shape_translation.networks(dataclasses.replace(SMOKE, rung=r)) for r in ("similarity", "shared")
    }
    assert [settings[r].sharing for r in ("similarity", "shared")] == ["nothing", "encoder"]
    rivals = {r: shape_translation.networks(dataclasses.replace(SMOKE, rung=r)) for r in ("cyclegan", "unit")}
    assert (rivals["cyclegan"].variance, rivals["cyclegan"].sharing) == ("none", "nothing")
    assert (rivals["unit"].variance, rivals["unit"].sharing) == ("fixed", "middle")
    assert weights("supervised").paired > 0 == weights("supervised").gan


def test_the_truth_scores_best_and_the_controls_as_they_must():
    pairs = paired_test(40, size=32)
    gallery = galleries(pairs, "ab", level=4)
    known = ShapeSwapSource(1, num_images=100, size=32)[np.arange(100)]["images"]
    found = {
        name: means(scores_of(made, pairs, "ab")) for name, made in controls(pairs, known, level=4).items()
    }
    truth = means(scores_of(pairs.images_b, pairs, "ab"))
    assert truth["score"] > 0.95 > max(f["score"] for f in found.values())
    assert abs(found["copy"]["iou_gain"]) < 0.03
    assert found["hue + 120°"]["hue_error"] > 110
    assert found["wrong appearance"]["iou_gain"] > 0.9
    assert recall(pairs.images_b, gallery) == 1
    assert recall(gallery[:, 7], gallery) == 0


def test_bad_settings_are_named(tmp_path):
    with pytest.raises(ValueError, match="minutes is 0"):
        dataclasses.replace(SMOKE, minutes=0)
    with pytest.raises(ValueError, match="batch_size is 0"):
        dataclasses.replace(SMOKE, batch_size=0)
    with pytest.raises(ValueError, match="batch"):
        shape_translation.main(dataclasses.replace(SMOKE, out=tmp_path, num_images=4))


def test_two_folders_are_translated_and_reported_without_the_truth(tmp_path):
    for domain in ("a", "b"):
        (tmp_path / domain).mkdir()
        images = ShapeSwapSource("ab".index(domain), num_images=44, size=16)[np.arange(44)]["images"]
        for n, image in enumerate(images):
            pixels = (255 * np.asarray(image)).round().astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / domain / f"{n:02d}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    folders = {"a": tmp_path / "a", "b": tmp_path / "b", "out": tmp_path / "out"}
    config = dataclasses.replace(SMOKE, **folders)
    assert shape_translation.main(dataclasses.replace(config, num_steps=3))["steps"] == 3
    metrics = shape_translation.main(config)
    assert metrics["steps"] == 6
    assert [Path(name).name for name in metrics["skipped"]] == ["broken.png"]
    folder = tmp_path / "out" / "similarity-folders-seed0"
    assert json.loads((folder / "metrics.json").read_text())["cycle"]["ab"]["cycle error"] > 0
    report = (folder / "report.html").read_text()
    for words in ("without pairs", "to its own translation", "broken.png", "hidden channel"):
        assert words in report
    (tmp_path / "b" / "00.png").unlink()
    with pytest.raises(CheckpointError, match="made with other settings"):
        shape_translation.main(config)
    with pytest.raises(ValueError, match="expected two folders"):
        dataclasses.replace(SMOKE, a=tmp_path)
