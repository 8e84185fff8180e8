"""The self-supervised experiment in small, and its parts against closed forms."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import self_supervised
from experiments.self_supervised_maps import two_views
from experiments.self_supervised_training import contrastive_loss, k_means, mutual_information, view
from vexplain.datasets.cue_objects import CueSource

SMOKE = self_supervised.PRESETS["smoke"][1]


def test_the_folder_holds_metrics_figures_and_report(tmp_path):
    metrics = self_supervised.main(dataclasses.replace(SMOKE, out=tmp_path, devices=1))
    kept = json.loads((tmp_path / "self_supervised.json").read_text())
    assert list(kept["encoders"]) == ["trained", "before training"]
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"clusters.png", "similarity.png"}
    assert (tmp_path / "report.html").stat().st_size > 20_000
    for found in metrics["encoders"].values():
        assert all(0 <= share <= 1 for part in ("told", "clusters") for share in found[part].values())
        assert all(0 <= row["interval"][0] <= row["area"] <= row["interval"][1] <= 1 for row in found["maps"])
    controls = [
        {row["method"]: row["area"] for row in found["maps"] if row["explained"] == "nothing"}
        for found in metrics["encoders"].values()
    ]
    assert controls[0] == controls[1]
    assert len(controls[0]) == 3


def test_the_loss_is_its_formula_in_float64():
    embedded = np.random.default_rng(0).normal(size=(6, 4))
    unit = embedded / np.linalg.norm(embedded, axis=1, keepdims=True)
    exponentials = np.exp(unit @ unit.T / 0.3)
    total = 0.0
    for i in range(6):
        others = [k for k in range(6) if k != i]
        total -= np.log(exponentials[i, (i + 3) % 6] / exponentials[i, others].sum()) / 6
    with jax.enable_x64(True):
        assert float(contrastive_loss(jax.numpy.asarray(embedded), 0.3)) == pytest.approx(total, abs=1e-12)


def test_views_are_random_and_in_range_and_another_view_keeps_the_object():
    source = CueSource(shape=1.0, num_per_class=2, size=12, samples=1)
    images = source[np.arange(4)]["images"]
    views = jax.jit(lambda key: view(key, images, smallest_crop=0.5, hue=0.5))(jax.random.key(0))
    assert views.shape == images.shape
    assert 0 <= views.min() <= views.max() <= 1
    assert len({np.asarray(v).tobytes() for v in views}) == 4
    found = two_views(source, 4)
    assert found.others.shape == found.images.shape == (4, 12, 12, 3)
    assert not np.array_equal(found.others, found.images)


def test_clusters_and_mutual_information_of_known_groups():
    rng = np.random.default_rng(0)
    groups = np.arange(60) % 3
    points = np.eye(3)[groups] + rng.normal(0, 0.05, (60, 3))
    centers = k_means(points, 3, seed=0)
    found = ((points[:, None] - centers) ** 2).sum(-1).argmin(1)
    assert mutual_information(found, groups) == pytest.approx(1)
    assert mutual_information(groups, np.arange(60) // 30) == pytest.approx(0, abs=1e-12)
    assert mutual_information(groups, np.zeros(60, int)) == pytest.approx(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"hue": 0.7}, "hue 0.7"),
        ({"num_pairs": 400}, "num_pairs is 400: there are 72 test images"),
    ],
)
def test_bad_settings_are_named_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMOKE, **change)
