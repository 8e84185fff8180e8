"""The study of concepts in small: all is asked, and sets of images show what they are named after."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import cue_concepts
from vexplain.datasets import ArraySource
from vexplain.datasets.cue_objects import CUES


def test_the_folder_holds_scores_and_a_picture(tmp_path):
    smoke = cue_concepts.PRESETS["smoke"][1]
    study = dataclasses.replace(smoke.study, out=tmp_path / "study")
    metrics = cue_concepts.main(dataclasses.replace(smoke, out=tmp_path, study=study))
    kept = json.loads((tmp_path / "cue_concepts.json").read_text())
    assert [row["concepts"] for row in kept["rows"]] == list(CUES)
    assert [("own score" in row) for row in kept["rows"]] == [False, False, True]
    assert all(0 <= row["held-out accuracy"] <= 1 for row in kept["rows"])
    assert metrics["factors"][0]["importance"] == pytest.approx(
        sorted(metrics["factors"][0]["importance"], reverse=True)
    )
    assert (tmp_path / "concepts.png").stat().st_size > 3_000


def test_the_sets_of_a_value_show_it():
    values = np.random.default_rng(0).integers(0, 6, (60, 3))
    images = np.arange(60, dtype=np.uint8)[:, None, None, None]
    extras = {f"{cue}s": values[:, n] for n, cue in enumerate(CUES)}
    objects = ArraySource(images, np.zeros(60, int), class_names=("any",), extras=extras)
    sets = cue_concepts.sets_of_values(objects, 50, 4)
    assert len(sets) == 18
    for n, name in enumerate(("disc", "stripes", "red")):
        expected = np.flatnonzero(values[:50, n] == 0)[:4]
        found = sets[name][np.arange(len(expected))]["images"][:, 0, 0, 0] * 255
        np.testing.assert_allclose(found, expected, atol=1e-4)
