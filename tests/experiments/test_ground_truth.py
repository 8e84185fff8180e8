"""The ground-truth benchmark in its smallest preset, cut down: what it leaves, and that it goes on."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import ground_truth, ground_truth_study
from experiments.ground_truth_cells import Cell, load_cell, mean_and_deviation, over_folds, save_cell
from experiments.ground_truth_methods import RESAMPLED, methods_named
from experiments.ground_truth_metrics import OURS, PAPER
from experiments.ground_truth_report import _num_passed, lead
from vexplain.catalog import METHODS as METHODS_OF_CATALOG
from vexplain.catalog import title_of
from vexplain.evaluation import CEILING, CONTROLS, HINDSIGHT, SCORES, SIGNS, Score
from vexplain.transforms import RESAMPLED_POOL

METHODS = (OURS, PAPER, f"guided_backprop{RESAMPLED}", "gradient", "grad_cam", *CONTROLS)
SMOKE = dataclasses.replace(ground_truth.PRESETS["smoke"][1], methods=METHODS, devices=1)
KEY = ("single_6c", "plain", "flower_net")
NAME = ", ".join(KEY)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(configuration, metrics)."""
    config = dataclasses.replace(SMOKE, out=tmp_path_factory.mktemp("ground_truth"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground_truth_study, "SEARCHED", (("convolutions", "norm"),))
        patch.setattr(ground_truth_study, "MUS", (2.0, 5.0))
        patch.setattr(ground_truth_study, "COUNTS", (1, 2))
        return config, ground_truth.main(config)


def strict(path):
    def refused(constant):
        raise ValueError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refused)


def test_the_folder_holds_metrics_figures_and_a_report_that_names_all_methods(run):
    config, metrics = run
    assert strict(config.out / "metrics.json").keys() == metrics.keys()
    report = (config.out / "report.html").read_text()
    for words in (*map(title_of, METHODS), CEILING, "sanity checks", "hindsight", "features a class", "jax"):
        assert words in report, words
    figures = {path.name for path in (config.out / "figures").iterdir()}
    assert "cascade-single_6c-plain-flower_net.png" in figures
    assert {"gallery-single_6c-flower_net.png", "curves-single_6c-plain-flower_net.png"} <= figures
    assert len(list((config.out / "cells").iterdir())) == len(config.folds) == 2
    assert not list(config.out.rglob("*.tmp")) + list(config.out.rglob("*.part"))


def test_the_metrics_are_complete_and_in_range(run):
    _, metrics = run
    scores = metrics["scores"][NAME]
    assert set(scores) == {*METHODS, CEILING}
    for by_score in scores.values():
        assert set(by_score) == set(SCORES)
        for area, best in zip(by_score["IoU area"], by_score["best IoU"], strict=True):
            assert 0 <= area <= best <= 1
    assert min(scores[CEILING]["best IoU"]) > 0.9
    assert set(metrics["above_ours"][NAME]) == {"IoU area", "best IoU", "part-effect correlation"}
    assert set(metrics["mean_difference_to_ours"]) == {*METHODS, CEILING} - {OURS}
    checks = metrics["checks"][NAME]
    assert set(checks["methods"]) == set(METHODS)
    assert "survives randomization" in checks["methods"]["sobel_edges"]["failures"][0]
    assert checks["methods"][OURS]["random_labels"] is not None
    assert len(checks["methods"][OURS]["draws"]) == SMOKE.num_draws
    assert set(checks["methods"][OURS]["controls"]) == set(CONTROLS)
    assert set(checks["jaccard"]["cascading"]) == {"scores", "dense", "conv2", "conv1"}
    assert "random_labels_jaccard" in checks
    rows = metrics["study"]["single_6c, plain"]
    assert len(rows) == 2 * 2 * len(ground_truth_study.COMBINATIONS)
    assert all(0 <= row["area"] <= row["best"] <= 1 for row in rows)
    by_setting = {(r["layers"], r["mu"], r["K"], r["combination"]): r["area"] for r in rows}
    one_map = [by_setting["convolutions", 5.0, 1, how] for how in ground_truth_study.COMBINATIONS]
    assert one_map[0] == one_map[1]  # of one map, the maximum is the mean


def test_a_second_run_reads_its_cells_and_checks(run, monkeypatch):
    config, metrics = run
    monkeypatch.setattr(ground_truth, "flower_task", lambda *args, **options: 1 / 0)
    again = ground_truth.main(dataclasses.replace(config, study=False))
    for name in ("scores", "checks", "accuracy", "above_ours", "mean_difference_to_ours", "scoring_seconds"):
        assert again[name] == metrics[name], name


def test_a_cell_that_was_lost_is_made_again_from_the_kept_network(run, monkeypatch):
    config, metrics = run
    (path,) = (config.out / "cells").glob("*-1-*.npz")
    path.unlink()
    monkeypatch.setattr(ground_truth, "check_task", lambda *args, **options: 1 / 0)
    again = ground_truth.main(dataclasses.replace(config, study=False))
    assert path.exists()
    for method, by_score in metrics["scores"][NAME].items():
        for score, means in by_score.items():
            assert again["scores"][NAME][method][score] == pytest.approx(means, abs=1e-6), (method, score)


def made_cell(rng, *, methods=METHODS, num_images=4, accuracy=0.75):
    def score(name):
        values = {s: rng.random(num_images).astype(np.float32).astype(np.float64) for s in SCORES}
        return Score(values, rng.random(101), SIGNS[1] if name == "gradient" else "")

    eighths = lambda *shape: rng.integers(0, 256, shape) / 255  # noqa: E731
    maps = {name: eighths(2, 5, 6) for name in methods[:3]}
    scores = {name: score(name) for name in methods}
    return Cell(scores, accuracy, 12.5, eighths(2, 5, 6, 3), eighths(2, 5, 6), maps)


def test_a_cell_is_read_as_it_was_written(tmp_path):
    cell = made_cell(np.random.default_rng(0))
    save_cell(tmp_path / "cell.npz", cell)
    found = load_cell(tmp_path / "cell.npz")
    assert (found.accuracy, found.seconds) == (cell.accuracy, cell.seconds)
    assert list(found.scores) == list(cell.scores)
    assert list(found.maps) == list(cell.maps)
    for name, score in cell.scores.items():
        assert found.scores[name].sign == score.sign
        np.testing.assert_array_equal(found.scores[name].curve, score.curve)
        assert found.scores[name].values.keys() == score.values.keys()
        for which, values in score.values.items():
            np.testing.assert_array_equal(found.scores[name].values[which], values)
    for name in ("images", "masks"):
        np.testing.assert_allclose(getattr(found, name), getattr(cell, name), atol=1e-6)
    for name, maps in cell.maps.items():
        np.testing.assert_allclose(found.maps[name], maps, atol=1e-6)


def test_folds_are_joined_by_images_and_their_means_have_a_deviation():
    rng = np.random.default_rng(1)
    folds = [made_cell(rng), made_cell(rng, methods=METHODS[:4], num_images=6)]
    joined = over_folds(folds)
    assert list(joined) == list(METHODS[:4])
    values = [fold.scores[OURS].values["IoU area"] for fold in folds]
    np.testing.assert_array_equal(joined[OURS].values["IoU area"], np.concatenate(values))
    assert joined["gradient"].sign == SIGNS[1]
    means = [v.mean() for v in values]
    found = mean_and_deviation(folds, OURS, "IoU area")
    assert found == pytest.approx((np.mean(means), abs(means[0] - means[1]) / np.sqrt(2)))
    assert mean_and_deviation(folds[:1], OURS, "IoU area") == pytest.approx((means[0], 0))


def test_the_table_says_on_how_many_networks_a_method_passed():
    checks = {
        n: {"methods": {"gradient": {"passes": passes}}} for n, passes in enumerate([True, False, True])
    }
    assert _num_passed("gradient", checks) == "2 of 3"
    assert _num_passed("grad_cam", checks) == _num_passed("gradient", {}) == "–"


def test_the_first_difficulty_is_checked_where_none_is_named():
    config = dataclasses.replace(SMOKE, difficulties=("textured", "plain"))
    assert config.all_checked == ("textured",)
    assert dataclasses.replace(config, checked=()).all_checked == ()


def test_methods_that_have_rules_are_scored_with_poolings_resampled_too():
    found = methods_named(None)
    both = [name.removesuffix(RESAMPLED) for name in found if name.endswith(RESAMPLED)]
    assert sorted(both) == [
        "deconvnet",
        "guided_backprop",
        "guided_grad_cam",
        "guided_grad_cam_plus_plus",
    ]
    assert f"resampled_{PAPER}" in found  # of the recipe the catalog has both
    for name in both:
        rules = found[f"{name}{RESAMPLED}"].keywords["rules"]
        assert rules == METHODS_OF_CATALOG[name].rules | RESAMPLED_POOL
        assert title_of(f"{name}{RESAMPLED}") == f"{title_of(name)}{RESAMPLED}"


def with_areas(areas):
    empty = np.zeros((1, 2, 2))
    scores = {name: Score({"IoU area": np.array([a])}, np.zeros(101), "") for name, a in areas.items()}
    return {KEY: [Cell(scores, 1.0, 0.0, empty, empty, {})]}


@pytest.mark.parametrize(
    ("above", "words"),
    [
        ({"IoU area": [], "best IoU": [], "part-effect correlation": ["gradient"]}, "No other method is"),
        ({"IoU area": ["gradient"]}, f"Our own map is significantly beaten in: {NAME} (IoU area: gradient)."),
        (
            {"best IoU": [CONTROLS[1]]},
            "No other method is significantly above our own map in any cell, by IoU area or best IoU. A "
            f"control, which sees no network, is above it in: {NAME} (best IoU: {title_of(CONTROLS[1])}).",
        ),
    ],
)
def test_the_lead_says_what_the_numbers_bear_out(above, words):
    areas = dict.fromkeys((*CONTROLS, CEILING), 0.9) | {f"grad_cam{HINDSIGHT}": 0.8}
    cells = with_areas(areas | {OURS: 0.5, "gradient": 0.6, PAPER: 0.4})
    found = lead(cells, {"above_ours": {NAME: above}})
    assert "3 methods and 4 controls explain networks on 1 cells" in found
    assert "gradient is first; the paper's recipe is number 3" in found
    assert words in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_checked": 0}, "num_checked is 0: expected 1 or more"),
        ({"folds": ()}, "folds is empty: name one or more of 0, 1, 2, 3, 4"),
        ({"folds": (5,)}, "folds: 5 is none of 0, 1"),
        ({"networks": ("lenet",)}, "networks: 'lenet' is none of flower_net, all_conv_net"),
        ({"checked": ("textured",)}, "checked: 'textured' is none of plain"),
        ({"difficulties": ("plane",)}, "difficulties: 'plane' is none of plain, textured"),
        ({"size": 18}, "size is 18: expected a multiple of 4"),
        ({"methods": METHODS[1:]}, "must be among them"),
        ({"methods": (OURS, PAPER, *CONTROLS)}, "methods: expected one or more rivals"),
        ({"methods": (*METHODS, f"gradient{RESAMPLED}")}, "but gradient has no backward rules"),
    ],
)
def test_bad_settings_are_named_at_once(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMOKE, **change)


def test_batches_that_the_devices_cannot_share_are_named_before_rendering(tmp_path):
    config = dataclasses.replace(SMOKE, out=tmp_path, num_scored_at_once=9, devices=2)
    with pytest.raises(ValueError, match="num_scored_at_once is 9: expected a multiple of the 2 devices"):
        ground_truth.main(config)
